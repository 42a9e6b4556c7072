"""Spoilt model files, made from good ones and a seed: for tools/fuzz_model_files.py and the tests.

Three kinds of damage: to the bytes of the flatbuffer, to its meaning (a well-formed file that says something else), and
to the zip behind it with labels and card. Equal seeds give equal files. Nothing here reads a model as edgenn does.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from edgenn_device.model_file import CARD, LABELS

# Words that make offsets, sizes and counts wrong in the ways that matter.
_WORDS = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_BOMB = 64 << 20  # bytes that a bomb unpacks to


@dataclass(frozen=True)
class Base:
    """A good file: its flatbuffer, and its card and labels if it has any."""

    content: bytes
    files: dict[str, bytes]

    @classmethod
    def of(cls, data: bytes) -> Base:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                start = min(entry.header_offset for entry in archive.infolist())
                return cls(data[:start], {name: archive.read(name) for name in archive.namelist()})
        except zipfile.BadZipFile:
            return cls(data, {})

    def closed(self, content: bytes) -> bytes:
        """`content` with the card and labels of this file, the checksum put right: as a forger would."""
        if CARD not in self.files:
            return content
        card = json.loads(self.files[CARD])
        card["sha256"] = hashlib.sha256(content).hexdigest()
        return content + _zip([(LABELS, self.files[LABELS]), (CARD, json.dumps(card).encode())], len(content))


def mutants(bases: Sequence[Base], seed: int) -> Iterator[tuple[str, bytes]]:
    """Endless (kind of damage, file)."""
    chance = random.Random(seed)
    while True:
        kind = chance.choices(list(_KINDS), [weight for _, weight in _KINDS.values()])[0]
        base = chance.choice(bases)
        yield kind, _KINDS[kind][0](chance, base, bases)


def _bits(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    content = bytearray(base.content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        content[_place(chance, content)] ^= 1 << chance.randrange(8)
    return base.closed(bytes(content))


def _run(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    content, size = bytearray(base.content), chance.choice((1, 2, 4, 8, 64, 512))
    at = _place(chance, content)
    filling = chance.choice((bytes(size), b"\xff" * size, b"\x7f" * size, chance.randbytes(size)))
    content[at : at + size] = filling[: len(content) - at]
    return base.closed(bytes(content))


def _word(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """An aligned word, as offsets are, becomes another."""
    content = bytearray(base.content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = _place(chance, content) & ~3
        if at + 4 > len(content):
            continue
        old = struct.unpack_from("<I", content, at)[0]
        new = chance.choice((*_WORDS, old + 1, old - 1, old * 2, -old, len(content) - at, len(content) - at - 4))
        struct.pack_into("<I", content, at, new & 0xFFFFFFFF)
    return base.closed(bytes(content))


def _length(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """A word that may be the length of a vector becomes another length."""
    content = bytearray(base.content)
    for _ in range(200):
        at = _place(chance, content) & ~3
        if at + 4 <= len(content) and 0 < struct.unpack_from("<I", content, at)[0] < 4096:
            old = struct.unpack_from("<I", content, at)[0]
            new = chance.choice((0, old - 1, old + 1, old * 4, 1 << 16, 1 << 28, 1 << 30, 0x7FFFFFFF, 0xFFFFFFFF))
            struct.pack_into("<I", content, at, new)
            break
    return base.closed(bytes(content))


def _short_word(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """Two bytes, as the entries of vtables are."""
    content = bytearray(base.content)
    at = min(_place(chance, content) & ~1, len(content) - 2)
    struct.pack_into(
        "<H", content, at, chance.choice((0, 2, 4, 6, 8, 12, 0x7FFF, 0x8000, 0xFFFF, chance.randrange(64)))
    )
    return base.closed(bytes(content))


def _truncated(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    whole = base.closed(base.content)
    return whole[: chance.randrange(len(whole))]


def _shifted(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """Bytes are missing from the middle, or too many there."""
    at, size = _place(chance, base.content), chance.choice((1, 2, 4, 16, 64))
    if chance.random() < 0.5:
        return base.closed(base.content[:at] + base.content[at + size :])
    return base.closed(base.content[:at] + chance.randbytes(size) + base.content[at:])


def _spliced(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    other = chance.choice(bases).content
    at = _place(chance, base.content)
    return base.closed(base.content[:at] + other[at:])


def _meaning(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """A well-formed flatbuffer with some numbers of its tables changed."""
    model = schema.ModelT.InitFromPackedBuf(base.content, 0)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _change(chance, model)
    builder = flatbuffers.Builder(len(base.content) + 4096)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except (struct.error, TypeError, ValueError, OverflowError):
        return _bits(chance, base, bases)
    return base.closed(bytes(builder.Output()))


def _change(chance: random.Random, model: Any) -> None:
    graph = model.subgraphs[0]
    tensor, operator = chance.choice(graph.tensors), chance.choice(graph.operators)
    subject = chance.choice((tensor, tensor, operator, operator, operator.builtinOptions, tensor.quantization, graph))
    fields = [
        name
        for name, value in vars(subject or tensor).items()
        if isinstance(value, (int, float)) or hasattr(value, "__len__")
    ]
    if not fields:
        return
    subject = subject or tensor
    name = chance.choice(fields)
    value = getattr(subject, name)
    if isinstance(value, bool):
        setattr(subject, name, not value)
    elif isinstance(value, int):
        setattr(subject, name, chance.choice((0, 1, -1, 2, 3, 7, 9, 17, 100, value + 1, value - 1, 1 << 20)))
    elif isinstance(value, float):
        setattr(subject, name, chance.choice((0.0, -1.0, 1e-38, 1e38, value * 2)))
    elif (not isinstance(value, (bytes, str)) and len(value) and isinstance(value[0], (int, float))) or _numeric(value):
        numbers = [number.item() if hasattr(number, "item") else number for number in value]
        what = chance.randrange(4)
        at = chance.randrange(len(numbers)) if numbers else 0
        if what == 0 and numbers:
            del numbers[at]
        elif what == 1:
            numbers.insert(at, chance.choice((0, 1, -1, 3)))
        elif numbers:
            scales = (-0.0, 1e-38, 1e-9, 1e-3, 0.5, 1e6, 1e28) if isinstance(numbers[at], float) else ()
            words = (0, 1, -1, 2, 5, 64, 1000, 1 << 20, (1 << 31) - 1, numbers[at] + 1)
            numbers[at] = chance.choice((*words, *scales))
        setattr(subject, name, numbers)


def _numeric(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u", "f")


def _names(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """Files whose names lead elsewhere, or are there twice, or are links or folders."""
    name = chance.choice(
        (
            "../../escaped",
            "/tmp/escaped",
            "..\\escaped",
            "C:\\escaped",
            "a/../../escaped",
            "\x00",
            "",
            "." * 4000,
            LABELS,
        )
    )
    entries = [*base.files.items(), (name, b"written outside")]
    if chance.random() < 0.5:
        entries = [(f"../{key}", value) for key, value in base.files.items()] + entries
    chance.shuffle(entries)
    mode = chance.choice((0o100644, 0o120777, 0o040755, 0o020666, 0))  # file, link, folder, device, none
    return base.content + _zip(entries, len(base.content), mode=mode)


def _many(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    count = chance.choice((60, 65, 300, 2000))
    return base.content + _zip([(f"{n:04}.txt", b"x") for n in range(count)], len(base.content))


def _bomb(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    name = chance.choice((LABELS, CARD, "other.txt"))
    return base.content + _bomb_for(name, len(base.content))


def _zip_bytes(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """Some bytes of the zip changed: sizes, offsets, methods, flags, counts."""
    whole = bytearray(base.closed(base.content))
    start = len(base.content)
    if len(whole) == start:
        whole += _zip([(LABELS, b"a\nb\nc\n")], start)
    for _ in range(chance.choice((1, 1, 2, 6))):
        marks = [at for at in _find(bytes(whole), (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04")) if at >= start]
        at = chance.choice(marks) + chance.randrange(46) if marks and chance.random() < 0.8 else 0
        at = at if start <= at < len(whole) else chance.randrange(start, len(whole))
        whole[at] = chance.choice((0, 1, 0xFF, 0x7F, 8, 12, 14, 99, chance.randrange(256)))
    return bytes(whole)


def _card(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """A card whose fields are of the wrong kind, too deep, too large, missing, or no JSON at all."""
    card = json.loads(base.files[CARD]) if CARD in base.files else {"schema": 1, "name": "x", "labels": ["a", "b", "c"]}
    card["sha256"] = hashlib.sha256(base.content).hexdigest()
    strange = (
        None,
        0,
        -1,
        1e400,
        "",
        "x" * 10_000,
        [],
        {},
        [[]],
        True,
        "\n\x1b[31m",
        {"height": "a"},
        1 << 70,
        ["a"] * 9,
    )
    text = ""
    what = chance.randrange(5)
    if what == 0:
        depth = chance.choice((100, 5_000, 200_000))
        text = json.dumps(card)[:-1] + ', "metrics": ' + "[" * depth + "]" * depth + "}"
    elif what == 1:
        text = chance.choice(("", "{", "null", "[]", '"x"', "NaN", "\x00", '{"schema": 1e999}', "1" * 10_000))
    else:
        for _ in range(chance.choice((1, 1, 2, 4))):
            key = chance.choice((*card, "input", "labels", "golden"))
            place = card
            if isinstance(card.get(key), dict) and card[key] and chance.random() < 0.6:
                place, key = card[key], chance.choice(list(card[key]))
            if chance.random() < 0.2:
                place.pop(key, None)
            else:
                place[key] = chance.choice(strange)
        text = json.dumps(card)
    labels = base.files.get(LABELS, b"a\nb\nc\n")
    return base.content + _zip([(LABELS, labels), (CARD, text.encode("utf-8", "replace"))], len(base.content))


def _label_text(chance: random.Random, base: Base, bases: Sequence[Base]) -> bytes:
    """Only labels: not UTF-8, too many, with control characters, endless lines."""
    text = chance.choice(
        (b"\xff\xfe\x00", b"\n" * 100_000, b"x" * 1_000_000, b"a\x1b[2J\nb\nc\n", b"", b"0 a\n1 b\n2 c\n")
    )
    return base.content + _zip([(LABELS, text)], len(base.content))


_KINDS: dict[str, tuple[Callable[[random.Random, Base, Sequence[Base]], bytes], int]] = {
    "bit flips": (_bits, 14),
    "byte runs": (_run, 10),
    "forged words": (_word, 12),
    "forged lengths": (_length, 8),
    "forged vtables": (_short_word, 8),
    "truncation": (_truncated, 8),
    "shifted": (_shifted, 5),
    "two files in one": (_spliced, 3),
    "other meaning": (_meaning, 14),
    "names in the zip": (_names, 4),
    "many files": (_many, 1),
    "bombs": (_bomb, 1),
    "bytes of the zip": (_zip_bytes, 6),
    "cards": (_card, 6),
    "labels": (_label_text, 2),
}


def _place(chance: random.Random, content: Sequence[int]) -> int:
    """A position: mostly among the tables, of which there are few beside the weights."""
    if chance.random() < 0.5:
        return chance.randrange(len(content))
    end = chance.choice((64, 512, 4096))
    at = chance.randrange(min(end, len(content)))
    return at if chance.random() < 0.5 else len(content) - 1 - at


def _find(data: bytes, marks: Sequence[bytes]) -> list[int]:
    found = []
    for mark in marks:
        at = data.find(mark)
        while at >= 0:
            found.append(at)
            at = data.find(mark, at + 1)
    return found


def _zip(entries: Sequence[tuple[str, bytes]], offset: int, mode: int = 0o100644) -> bytes:
    """A zip to stand behind `offset` bytes."""
    out = io.BytesIO(bytes(offset))
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in entries:
            entry = zipfile.ZipInfo("x")
            entry.filename, entry.create_system, entry.external_attr = name, 3, mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()[offset:]


_bombs: dict[str, bytes] = {}


def _bomb_for(name: str, offset: int) -> bytes:
    """A zip of one file of zeros; packed once, then moved to its place."""
    if name not in _bombs:
        _bombs[name] = _zip([(name, bytes(_BOMB))], 0)
    moved = bytearray(_bombs[name])
    directory = moved.rfind(b"PK\x01\x02")
    struct.pack_into("<I", moved, directory + 42, offset)
    end = moved.rfind(b"PK\x05\x06")
    struct.pack_into("<I", moved, end + 16, offset + directory)
    return bytes(moved)
