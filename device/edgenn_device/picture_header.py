"""What an encoded picture says about itself before it is decoded: its format, its size, whether the file is whole.

Reads JPEG, PNG, WebP, BMP and TIFF, which every supported OpenCV decodes alike, and refuses the rest (GIF and HEIC
depend on the OpenCV build; an animation is not one picture). Decoders go on quietly with a file that ends early and
return a picture that is grey below some line, or print to stderr from C; so what can be known from the container is
checked here: the end of the file, checksums where the format has them, and a size that fits into memory. It decodes
no pixels, and therefore cannot see damage inside a stream that carries no checksum (all but PNG).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import EdgennError

# Above the 108 megapixels of telephones; 400 MB as 8-bit colour. A file that asks for more is taken for a
# decompression bomb.
MAXIMUM_PIXELS = 2**27

Alpha = Literal["none", "straight", "premultiplied"]


class TooManyPixels(EdgennError):
    """A picture of more than `MAXIMUM_PIXELS`."""


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture before it is decoded.

    Attributes:
      format: "JPEG", "PNG", "WebP", "BMP" or "TIFF".
      height, width: pixels as decoded, before `orientation` is applied.
      orientation: EXIF orientation 1..8 that is still to be applied to the decoded pixels (always 1 for TIFF, whose
        decoder applies it).
      alpha: what the fourth channel means, if the decoder delivers one. "none" is also said of a fourth byte that
        the format leaves unused.
      transparent_grey: the value, as a decoder delivers it, that stands for full transparency in a grey PNG, or None.
    """

    format: str
    height: int
    width: int
    orientation: int = 1
    alpha: Alpha = "none"
    transparent_grey: int | None = None

    @property
    def turned(self) -> bool:
        """Whether the upright picture has this height as its width."""
        return self.orientation >= 5


def read_header(data: bytes) -> PictureHeader:
    """Read what an encoded picture says about itself and check that the file is whole.

    Args:
      data: the content of a JPEG, PNG, WebP, BMP or TIFF file. Bytes after the picture's end are no fault: cameras
        pad their frames.

    Raises:
      EdgennError: empty, truncated, damaged, no picture, or a kind of picture that is not read; `TooManyPixels` above
        `MAXIMUM_PIXELS`. The message does not name the file.
    """
    if not data:
        raise EdgennError("empty file: copy it again from the original")
    name, parse = _recognize(data)
    try:
        header = parse(data)
    except (struct.error, IndexError):
        raise _truncated(name) from None
    if header.height < 1 or header.width < 1:
        raise _damaged(name)
    if header.height * header.width > MAXIMUM_PIXELS:
        raise TooManyPixels(
            f"{name} of {header.width}x{header.height} pixels: at most {MAXIMUM_PIXELS / 1e6:.0f} million are decoded, "
            "save it smaller"
        )
    return header


def _recognize(data: bytes) -> tuple[str, Callable[[bytes], PictureHeader]]:
    if data.startswith(b"\xff\xd8"):
        return "JPEG", _jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _png
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", _webp
    if data.startswith(b"BM"):
        return "BMP", _bmp
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF", _tiff
    if data.startswith(b"GIF8"):
        raise _foreign("GIF")
    if data[4:8] == b"ftyp":
        raise _foreign("HEIC, AVIF or video")
    raise EdgennError("not a picture that edgenn reads (JPEG, PNG, WebP, BMP, TIFF): save it as one of these")


def _truncated(name: str) -> EdgennError:
    return EdgennError(f"truncated {name}, its end is missing: copy it again from the original")


def _damaged(name: str) -> EdgennError:
    return EdgennError(f"damaged {name}: copy it again from the original")


def _foreign(name: str) -> EdgennError:
    return EdgennError(f"{name} is not read: save it as JPEG or PNG")


# JPEG: ITU T.81, annex B. A regular expression finds the marker three times as fast as bytes.find. Between SOS and
# EOI the pair FF D9 occurs nowhere else: in entropy-coded data FF is followed by 00 or a restart marker.
_END_OF_IMAGE = re.compile(rb"\xff\xd9")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_PAYLOAD = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})


def _jpeg(data: bytes) -> PictureHeader:
    size: tuple[int, int] | None = None
    orientation = 1
    at = 2
    while True:
        at = data.find(b"\xff", at)  # like libjpeg, skip stray bytes between segments
        if at < 0:
            raise _truncated("JPEG")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        at += 2
        if marker in _WITHOUT_PAYLOAD:
            continue
        if marker == 0xD9:
            raise _damaged("JPEG")
        (length,) = struct.unpack_from(">H", data, at)
        end = at + length  # if beyond the data, nothing is found there either
        if marker in _START_OF_FRAME:
            precision, *size_found = struct.unpack_from(">BHH", data, at + 2)
            if precision != 8:
                raise _foreign(f"JPEG of {precision} bits")
            size = (size_found[0], size_found[1])
        elif marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 8 : end])
        elif marker == 0xDA:
            if size is None:
                raise _damaged("JPEG")
            if not _END_OF_IMAGE.search(data, end):
                raise _truncated("JPEG")
            return PictureHeader("JPEG", *size, orientation=orientation)
        at = end


# PNG: W3C PNG specification, 5 (chunks), 11 (their contents).
def _png(data: bytes) -> PictureHeader:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    orientation, transparent_grey = 1, None
    view = memoryview(data)
    kind, seen = b"", set()
    at = 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        (checksum,) = struct.unpack_from(">I", data, body + length)
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(view[at + 4 : body + length]) != checksum:
            raise _damaged("PNG")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[body : body + length])
        elif kind == b"tRNS" and colour == 0:
            # Decoders leave this one out. Samples of fewer than 8 bits reach us stretched to 0..255.
            (value,) = struct.unpack_from(">H", data, body)
            transparent_grey = value * 255 // (2**bits - 1) if bits < 8 else value
        seen.add(kind)
        at = body + length + 4
    if not {b"IHDR", b"IDAT"} <= seen:
        raise _damaged("PNG")
    return PictureHeader("PNG", height, width, orientation, "straight", transparent_grey)


# WebP: RFC 9649, 2.4 to 2.7; the size of a lossy picture: RFC 6386, 9.1.
def _webp(data: bytes) -> PictureHeader:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    stop = 8 + riff_size
    if stop > len(data):
        raise _truncated("WebP")
    size: tuple[int, int] | None = None
    orientation = 1
    at = 12
    while at + 8 <= stop:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = at + 8
        if kind == b"VP8X" and data[body] & 0x02:
            raise _foreign("animated WebP")
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            size = (height & 0x3FFF, width & 0x3FFF)
        elif kind == b"VP8L":
            (packed,) = struct.unpack_from("<I", data, body + 1)
            size = ((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
        elif kind == b"EXIF":
            orientation = _exif_orientation(data[body : body + length].removeprefix(b"Exif\0\0"))
        at = body + length + (length & 1)
    if size is None:
        raise _damaged("WebP")
    return PictureHeader("WebP", *size, orientation=orientation, alpha="straight")


# BMP: the Windows SDK's BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER and BITMAPV4HEADER.
def _bmp(data: bytes) -> PictureHeader:
    pixels_at, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _planes, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows run from top to bottom
    if compression in (0, 3) and pixels_at + (width * bits + 31) // 32 * 4 * height > len(data):
        raise _truncated("BMP")
    # A header this long has a mask for alpha, which the decoder heeds. In a shorter one the fourth byte is unused,
    # mostly zero, and the decoder delivers it all the same.
    return PictureHeader("BMP", height, width, alpha="straight" if header_size >= 56 else "none")


# TIFF 6.0, sections 2 and 8; 18 for ExtraSamples.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES, _PLANAR, _EXTRA, _SAMPLE_FORMAT = 273, 279, 324, 325, 284, 338, 339
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}


def _tiff(data: bytes) -> PictureHeader:
    tags = _first_directory(data)
    try:
        (width,), (height,) = tags[_WIDTH], tags[_HEIGHT]
        starts = tags.get(_STRIPS) or tags[_TILES]
    except (KeyError, ValueError):
        raise _damaged("TIFF") from None
    sizes = tags.get(_STRIP_SIZES) or tags.get(_TILE_SIZES) or (1,) * len(starts)
    if any(start + size > len(data) for start, size in zip(starts, sizes, strict=False)):
        raise _truncated("TIFF")

    bits, samples = max(tags.get(_BITS, (1,))), tags.get(_SAMPLES, (1,))[0]
    photometric = tags.get(_PHOTOMETRIC, (1,))[0]
    if photometric in (0, 1) and samples == 2:
        raise _foreign("grey TIFF with transparency")  # OpenCV would show what transparency hides
    if bits == 16:
        # OpenCV hands these over as they are, so only what needs no interpretation is taken.
        if photometric not in (1, 2) or tags.get(_PLANAR, (1,))[0] != 1 or tags.get(_SAMPLE_FORMAT, (1,))[0] != 1:
            raise _foreign("TIFF of this kind (16 bits, not plain grey or RGB)")
        alpha: Alpha = "premultiplied" if tags.get(_EXTRA, (2,))[0] == 1 else "straight"
    elif bits <= 8:
        alpha = "premultiplied"  # libtiff's RGBA reader premultiplies what is not yet
    else:
        raise _foreign(f"TIFF of {bits} bits a sample")
    if tags.get(_ORIENTATION, (1,))[0] in (5, 6, 7, 8):
        height, width = width, height
    return PictureHeader("TIFF", height, width, alpha=alpha)


def _exif_orientation(exif: bytes) -> int:
    """Orientation 1..8 of an EXIF block (CIPA DC-008, 4.6.5); 1 when it says nothing that can be understood."""
    try:
        (orientation,) = _first_directory(exif).get(_ORIENTATION, (1,))
    except (struct.error, ValueError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _first_directory(data: bytes) -> dict[int, tuple[int, ...]]:
    """The integers of the first image file directory, by tag.

    Raises:
      struct.error: the directory or one of its values lies beyond the end.
    """
    order = ">" if data[:2] == b"MM" else "<"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        code = _TIFF_TYPES.get(kind)
        if code and count:
            place = entry + 8
            if count * struct.calcsize(code) > 4:
                (place,) = struct.unpack_from(order + "I", data, place)
            tags[tag] = struct.unpack_from(f"{order}{count}{code}", data, place)
    return tags
