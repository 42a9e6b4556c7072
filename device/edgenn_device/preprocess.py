"""From a picture to the input tensor: the only implementation, called by training, calibration, evaluation and device.

A model is as good on the device as in training only where both see the same bytes, so every choice stands here once:
how files become pixels, how pixels become the tensor's size, and in which order. It refuses pictures it cannot read
wholly and arrays that are no picture; it never guesses a normalisation, which is the model's (`InputSpec`).

Pixels come from the reduced JPEG (1/2, 1/4, 1/8) where that still covers the tensor, the resize averages areas when
it shrinks, and colours are converted last, on the small picture: on a Pi that is most of the time saved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from .card import InputSpec
from .errors import EdgennError
from .picture_header import Alpha, PictureHeader, read_header

Pixels: TypeAlias = npt.NDArray[np.uint8]

# The border of "pad": the grey that YOLOv5 and its successors letterbox with, so that their models see what they know.
PAD_GREY = 114

# OpenCV's remarks on odd files would stand between ours on stderr. Who wants them sets OPENCV_LOG_LEVEL.
if "OPENCV_LOG_LEVEL" not in os.environ:
    # OpenCV 5 moved the function; 0 is LOG_LEVEL_SILENT in both.
    (cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)

_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))

_CONVERSIONS = {
    (1, "grey"): None,
    (1, "rgb"): cv2.COLOR_GRAY2RGB,
    (1, "bgr"): cv2.COLOR_GRAY2BGR,
    (3, "grey"): cv2.COLOR_BGR2GRAY,
    (3, "rgb"): cv2.COLOR_BGR2RGB,
    (3, "bgr"): None,
    (4, "grey"): cv2.COLOR_BGRA2GRAY,
    (4, "rgb"): cv2.COLOR_BGRA2RGB,
    (4, "bgr"): cv2.COLOR_BGRA2BGR,
}


def decode(data: bytes, cover: tuple[int, int] | None = None) -> Pixels:
    """Decode a picture file's content.

    The EXIF orientation is applied, CMYK and grey become colour, 16 bits become 8 (rounded), transparent pixels are
    laid over white.

    Args:
      data: a JPEG, PNG, WebP, BMP or TIFF file.
      cover: (height, width) in pixels of the upright picture that are enough: a JPEG is then decoded at the largest
        reduction (1/8, 1/4, 1/2) whose both sides are still at least that. Other formats are decoded whole.

    Returns:
      uint8, shape (height, width, 3), BGR, C-contiguous.

    Raises:
      EdgennError: empty, truncated, damaged, not a picture, a kind that is not read, or too many pixels.

    >>> grey = np.full((6, 4), 7, np.uint8)
    >>> decode(cv2.imencode(".png", grey)[1].tobytes()).shape
    (6, 4, 3)
    """
    data = bytes(data)
    header = read_header(data)
    # JPEG is always 8 bits without alpha, and read as colour; anything else is read as it is and brought there below.
    # The orientation is ours to apply: OpenCV does not for unchanged pixels, nor for WebP before version 5.
    flags = _jpeg_flags(header, cover) if header.format == "JPEG" else cv2.IMREAD_UNCHANGED
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise EdgennError(f"damaged {header.format}: copy it again from the original")
    if image.ndim == 2:
        image = _colour_of_grey(image, header.transparent_grey)
    elif image.shape[2] == 4:
        image = _over_white(image, header.alpha)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return _upright(image, header.orientation)


def read(path: str | os.PathLike[str], cover: tuple[int, int] | None = None) -> Pixels:
    """Decode a picture file; see `decode`.

    Raises:
      EdgennError: as `decode`, or the file cannot be read. The message names the path.
    """
    try:
        return decode(Path(path).read_bytes(), cover)
    except EdgennError as error:
        raise EdgennError(f"{path}: {error}") from None
    except IsADirectoryError:
        raise EdgennError(f"{path} is a folder: name a picture in it") from None
    except FileNotFoundError:
        raise EdgennError(f"{path} does not exist: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise EdgennError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def to_bytes(image: Pixels | bytes, spec: InputSpec, out: Pixels | None = None) -> Pixels:
    """Bring a picture to the tensor's size and order of channels, still as bytes 0..255.

    "stretch" resizes both sides. "crop" takes the largest window of the tensor's aspect ratio: the longer side is
    rounded to whole pixels (half up, at least 1) and centred, an odd remaining pixel falling to the bottom or right.
    "pad" resizes the whole picture into the tensor by the same rounding and centring, the rest is `PAD_GREY`.
    The resize averages areas (halves first, then cv2.INTER_AREA) unless a side grows, then it is bilinear.

    Args:
      image: uint8, (H, W, 3) BGR, (H, W, 4) BGRA whose alpha is dropped, (H, W) or (H, W, 1) grey, in any memory
        layout; or an encoded picture, decoded with `cover` = (spec.height, spec.width).
      spec: the model's input; its dtype, mean and std are not used here.
      out: uint8, spec.shape, C-contiguous and writeable: filled and returned, for instance one row of a batch.

    Returns:
      uint8, shape (spec.height, spec.width, spec.channels), C-contiguous.

    Raises:
      EdgennError: `image` is no such array or cannot be decoded, or `out` does not fit.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        image = decode(image, (spec.height, spec.width))
    source = _checked_picture(image)
    target = np.empty(spec.shape, np.uint8) if out is None else _checked_out(out, spec.shape, np.uint8)
    inside = target
    height, width = source.shape[:2]
    if spec.resize == "crop":
        source = source[_centred(height, width, spec.height, spec.width)]
    elif spec.resize == "pad":
        region = _centred(spec.height, spec.width, height, width)
        inside = target[region]
        if inside.shape != target.shape:
            target.fill(PAD_GREY)
    _resize_into(inside, source, _CONVERSIONS[_channels(source), spec.colour])
    return target


def to_tensor(image: Pixels | bytes, spec: InputSpec, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Turn a picture into the model's input tensor.

    uint8 takes the bytes of `to_bytes` as they are, int8 takes byte - 128, float32 takes (byte - mean) / std, computed
    in float32.

    Args:
      image: as for `to_bytes`.
      spec: the model's input.
      out: dtype and shape of the result, C-contiguous and writeable: filled and returned.

    Returns:
      spec.dtype, shape (1, spec.height, spec.width, spec.channels), C-contiguous.

    Raises:
      EdgennError: as `to_bytes`.
    """
    shape = (1, *spec.shape)
    tensor = np.empty(shape, spec.dtype) if out is None else _checked_out(out, shape, np.dtype(spec.dtype))
    if spec.dtype == "float32":
        np.subtract(to_bytes(image, spec), np.float32(spec.mean), out=tensor[0], dtype=np.float32)
        np.divide(tensor, np.float32(spec.std), out=tensor)
        return tensor
    raw = tensor.view(np.uint8)
    to_bytes(image, spec, out=raw[0])
    if spec.dtype == "int8":
        np.bitwise_xor(raw, np.uint8(0x80), out=raw)  # flips the top bit: byte - 128 in two's complement
    return tensor


def _jpeg_flags(header: PictureHeader, cover: tuple[int, int] | None) -> int:
    if cover is not None:
        height, width = cover[::-1] if header.turned else cover
        for divisor, flag in _REDUCED:
            # libjpeg rounds the reduced sides up.
            if -(-header.height // divisor) >= height and -(-header.width // divisor) >= width:
                return int(flag | cv2.IMREAD_IGNORE_ORIENTATION)
    return int(cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _colour_of_grey(image: npt.NDArray[Any], transparent: int | None) -> Any:
    if transparent is not None:
        image = np.where(image == transparent, np.iinfo(image.dtype).max, image).astype(image.dtype)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def _over_white(image: npt.NDArray[Any], alpha: Alpha) -> Any:
    """Lay BGRA (uint8 or uint16) over white; the same dtype, rounded."""
    white = int(np.iinfo(image.dtype).max)
    opacity = image[..., 3:].astype(np.uint32)
    if alpha == "none" or opacity.min() == white:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    colour = image[..., :3].astype(np.uint32)
    if alpha == "premultiplied":
        return np.minimum(colour + (white - opacity), white).astype(image.dtype)
    # At most 65535 * 65535 + 32767, which uint32 just holds.
    return ((colour * opacity + white * (white - opacity) + white // 2) // white).astype(image.dtype)


def _upright(image: Any, orientation: int) -> Pixels:
    """Apply an EXIF orientation (CIPA DC-008, 4.6.5): 5 to 8 exchange height and width."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    upright: Pixels = image if flip is None else cv2.flip(image, flip)
    return upright


def _checked_picture(image: object) -> Pixels:
    if not isinstance(image, np.ndarray):
        raise EdgennError(f"a picture is a uint8 array or encoded bytes, not {type(image).__name__}")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
        raise EdgennError(
            f"an array of {image.dtype} {image.shape} is not a picture: uint8 (height, width, 3) BGR is needed"
        )
    if image.size == 0:
        raise EdgennError(f"a picture of {image.shape[0]}x{image.shape[1]} pixels is empty")
    return image


def _checked_out(out: object, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    if isinstance(out, np.ndarray) and out.shape == shape and out.dtype == dtype:
        if out.flags.c_contiguous and out.flags.writeable:
            return out
        raise EdgennError("`out` must be C-contiguous and writeable")
    found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
    raise EdgennError(f"`out` is {found} and must be {np.dtype(dtype)} {shape}")


def _halved(source: Pixels, height: int, width: int) -> Pixels:
    """`source` at 1/2, 1/4, … of its size, the smallest whose sides both still are `height` and `width` or more.

    What a reduced JPEG is to a file, for frames that come as pixels. OpenCV averages 2x2 pixels several times faster
    than areas of other sizes: 640x480 to 96x96 takes 0.17 ms by way of halves and 0.56 ms without, and the bytes differ
    by 1 on average (x86-64, one thread). It ends at an odd side, as cameras' pictures do late if at all.
    """
    rows, columns = source.shape[:2]
    while rows >= 2 * height and columns >= 2 * width and rows % 2 == columns % 2 == 0:
        rows, columns = rows // 2, columns // 2
        source = cv2.resize(source, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return source


def _channels(image: Pixels) -> int:
    return 1 if image.ndim == 2 else image.shape[2]


def _centred(height: int, width: int, aspect_height: int, aspect_width: int) -> tuple[slice, slice]:
    """The largest centred window of an aspect ratio in height x width pixels, in integers (half up, at least 1)."""
    window_height = min(height, max(1, (2 * width * aspect_height + aspect_width) // (2 * aspect_width)))
    window_width = min(width, max(1, (2 * height * aspect_width + aspect_height) // (2 * aspect_height)))
    top, left = (height - window_height) // 2, (width - window_width) // 2
    return slice(top, top + window_height), slice(left, left + window_width)


def _resize_into(target: Pixels, source: Pixels, conversion: int | None) -> None:
    """Resize `source` and convert its colours into `target`, a view with dense pixels.

    OpenCV writes into `dst` itself where size, type and layout fit, which `target` is made for.
    """
    height, width = target.shape[:2]
    if target.shape[2] == 1:
        target = target[..., 0]  # OpenCV's grey pictures have two dimensions
    if source.ndim == 3 and source.shape[2] == 1:
        source = source[..., 0]
    source = _halved(source, height, width)
    if source.shape[:2] != (height, width):
        shrinks = height <= source.shape[0] and width <= source.shape[1]
        source = cv2.resize(  # type: ignore[assignment]
            source,
            (width, height),
            dst=target if conversion is None else None,
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        if conversion is None:
            return
    if conversion is None:
        np.copyto(target, source)
    else:
        cv2.cvtColor(source, conversion, dst=target)
