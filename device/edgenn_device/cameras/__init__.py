"""Where frames come from: one file per kind of source, and the words by which a person names one.

Nothing is opened here, and OpenCV is loaded only for the source that needs it.
"""

from __future__ import annotations

from pathlib import Path

from ..card import InputSpec
from ..errors import EdgennError
from .base import Frame, Image, Source

__all__ = ["Frame", "Image", "Source", "open_source"]

ACCEPTED = (
    "picamera, 0 or /dev/video0, rtsp://…, http(s)://… (MJPEG), a video file, a picture, a folder or glob of pictures, "
    "or synthetic"
)


def open_source(
    spec: str,
    *,
    fast: bool = False,
    width: int | None = None,
    height: int | None = None,
    input: InputSpec | None = None,
) -> Source:
    """The source that `spec` names, not yet opened.

    Args:
      spec: "picamera", "0" or "/dev/video0", "rtsp://…", "http(s)://…", a video file, a picture, a folder or glob of
        pictures, or "synthetic".
      fast: a video file (or synthetic) gives every frame as fast as possible, and not at its own pace.
      width, height: pixels to ask a V4L2 camera for.
      input: what the network takes; sources that scale in hardware or draw to size use it.

    Raises:
      EdgennError: `spec` is none of these.
    """
    scheme, separator, _ = spec.partition("://")
    if separator:
        return _stream(spec, scheme.lower())
    if spec == "synthetic":
        from .synthetic import SyntheticSource

        return SyntheticSource(fast=fast)
    if spec == "picamera":
        from .picamera import PiCameraSource

        return PiCameraSource(input=input)
    if spec.isdecimal() or spec.startswith("/dev/"):
        from .v4l2 import V4L2Source

        return V4L2Source(spec, width=width, height=height)
    return _file(spec, fast)


def _stream(spec: str, scheme: str) -> Source:
    try:
        if scheme in ("http", "https"):
            from .mjpeg import MjpegSource

            return MjpegSource(spec)
        if scheme in ("rtsp", "rtsps"):
            from .rtsp import RtspSource

            return RtspSource(spec)
    except ValueError as error:
        raise EdgennError(f"{spec} is not an address: {error}") from None
    raise EdgennError(f"{scheme}:// is no source: use {ACCEPTED}")


def _file(spec: str, fast: bool) -> Source:
    from .stills import PICTURES, StillsSource

    path = Path(spec).expanduser()
    if spec and path.is_file() and path.suffix.lower() not in PICTURES:
        from .video_file import VideoFileSource

        return VideoFileSource(path, fast=fast)
    if spec and (path.exists() or any(sign in spec for sign in "*?[")):
        return StillsSource(path)
    raise EdgennError(f"there is no source {spec!r}: use {ACCEPTED}")
