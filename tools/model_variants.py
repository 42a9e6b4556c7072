"""Models made from another one, for deploys: one that is as good but another, and ones that a device must refuse.

Only bytes of weights and the card change, so that everything else (size, input, labels, speed) stays as it was. They
are for tests and benchmarks; their answers mean nothing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgenn_device import golden, model_file


def another(model: Path, out: Path, number: int = 1) -> Path:
    """`model` with other weights, and the card and golden vectors that belong to these."""
    return _written(model, out, _shaken(model, number))


def lying(model: Path, out: Path) -> Path:
    """`model` with other weights and the golden vectors of the first: a device computes something else than it says."""
    loaded = model_file.load(model)
    assert loaded.card is not None
    out.write_bytes(model_file.attach(_shaken(model, 1, by=0x55), loaded.card))
    return out


def _written(model: Path, out: Path, content: bytes) -> Path:
    card = model_file.load(model).card
    assert card is not None
    out.write_bytes(model_file.attach(content, card))
    vectors = golden.record(model_file.load(out))
    out.write_bytes(model_file.attach(content, dataclasses.replace(card, golden=vectors)))
    return out


def _shaken(model: Path, number: int, by: int = 1) -> bytes:
    """Some bytes of the largest constant, the lowest bit of their int8 turned (or the bits of `by`)."""
    loaded = model_file.load(model)
    largest = max((t for t in loaded.graph.tensors if t.constant and t.dtype == "int8"), key=lambda t: t.bytes)
    content = bytearray(loaded.content)
    for at in range(largest.offset, largest.offset + largest.bytes, number + 2):
        content[at] ^= by
    return bytes(content)
