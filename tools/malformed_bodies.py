"""Bodies that no picture service may accept, made from a seed: for the tests and for the benchmark of `edgenn serve`.

Each is certain to be refused: what could by chance still be a picture (a flipped bit in compressed data) is not made.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Malformed:
    """A request to refuse: what is wrong with it, and the request."""

    kind: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def malformed(jpeg: bytes, infer: str, seed: int = 0) -> Iterator[Malformed]:
    """Endless malformed requests.

    Args:
      jpeg: a good picture, to be spoilt.
      infer: path of the service's v2/models/NAME/infer.
      seed: of the random numbers; equal seeds give equal requests.
    """
    chance = random.Random(seed)
    kinds = (_empty, _noise, _text, _truncated, _headless, _bomb, _broken_png, _form, _infer_json, _infer_binary)
    while True:
        kind = chance.choice(kinds)
        yield kind(chance, jpeg, infer)


def _empty(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    return Malformed("empty", chance.choice(("/classify", infer)), b"")


def _noise(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    start = chance.choice((b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"GIF89a", b""))
    # Without 0xFF nothing after the start can be a JPEG's segment.
    body = start + chance.randbytes(chance.randrange(1, 2000)).replace(b"\xff", b"\xfe")
    return Malformed("noise", "/classify", body)


def _text(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    return Malformed("text", "/classify", "".join(chance.choices("{}[]\"'<>%,:09az\n ", k=200)).encode())


def _truncated(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    return Malformed(
        "truncated JPEG", "/classify", jpeg[: chance.randrange(1, len(jpeg) - 2)].removesuffix(b"\xff\xd9")
    )


def _headless(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    return Malformed("headless JPEG", "/classify", jpeg[chance.randrange(2, 20) :].replace(b"\xff\xd8", b"\xff\xd0"))


def _bomb(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    side = chance.randrange(20_000, 2**31 - 1)
    content = zlib.compress(bytes(1000))
    chunks = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", content), (b"IEND", b"")
    return Malformed("decompression bomb", "/classify", b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*c) for c in chunks))


def _broken_png(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    content = bytearray(_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)))
    content[-1] ^= 1 << chance.randrange(8)  # the checksum
    return Malformed("broken PNG", "/classify", b"\x89PNG\r\n\x1a\n" + content + _chunk(b"IEND", b""))


def _form(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = chance.choice(
        (
            part + jpeg,  # no last boundary
            part + jpeg[:100] + b"\r\n--b--\r\n",
            part + jpeg + b"\r\n" + part + jpeg + b"\r\n--b--\r\n",
            b"--b--\r\n",
            chance.randbytes(300),
        )
    )
    declared = chance.choice(
        ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=")
    )
    return Malformed("form", "/classify", body, {"Content-Type": declared})


def _infer_json(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    deep = "[" * 50_000
    image = {"name": "image", "datatype": "BYTES", "shape": [1]}
    body = chance.choice(
        (
            deep,
            "null",
            "[]",
            '{"inputs": ' + deep,
            json.dumps({"inputs": []}),
            json.dumps({"inputs": [{**image, "data": ["no base64"]}]}),
            json.dumps({"inputs": [{**image, "shape": [2], "data": ["", ""]}]}),
            json.dumps({"inputs": [{**image, "data": [""]}]}),
            json.dumps({"inputs": [{"name": "tensor", "datatype": "UINT8", "shape": [1], "data": [1]}]}),
            json.dumps({"inputs": [image], "outputs": [{"name": "nothing"}]}),
        )
    )
    return Malformed("infer JSON", infer, body.encode())


def _infer_binary(chance: random.Random, jpeg: bytes, infer: str) -> Malformed:
    size = chance.randrange(0, 2**33)
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [given]}).encode()
    length = chance.choice((len(header), len(header) // 2, 10**9, "-1", "x"))
    return Malformed("infer binary", infer, header + jpeg[:100], {"Inference-Header-Content-Length": str(length)})


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
