"""Where frames come from: one file per kind of source, and the words by which a person names one.

Nothing is opened here, and OpenCV is loaded only for the source that needs it.
"""

from __future__ import annotations

from pathlib import Path

from ..addresses import check, hidden
from ..card import InputSpec
from ..errors import EdgennError
from ..home import expanded
from .base import Frame, Image, Source
from .view import View

__all__ = ["Frame", "Image", "Source", "View", "open_source"]

ACCEPTED = (
    "picamera, 0 or /dev/video0, rtsp://…, http(s)://… (MJPEG), a video file, a picture, a folder or glob of pictures, "
    "or synthetic"
)
# Installed packages announce sources of their own here; an entry point's name is the scheme (or the whole word) of the
# spec, and what it refers to is called with the spec and returns a Source that has not been opened.
ENTRY_POINTS = "edgenn.sources"


def open_source(
    spec: str,
    *,
    fast: bool = False,
    width: int | None = None,
    height: int | None = None,
    exposure: float | None = None,
    view: View | None = None,
    input: InputSpec | None = None,
) -> Source:
    """The source that `spec` names, not yet opened.

    Args:
      spec: "picamera", "0" or "/dev/video0", "rtsp://…", "http(s)://…", a video file, a picture, a folder or glob of
        pictures, "synthetic", or what an installed package adds.
      fast: a video file (or synthetic) gives every frame as fast as possible, and not at its own pace.
      width: pixels to ask a V4L2 camera, picamera or synthetic for.
      height: the same; both or none.
      exposure: seconds, of a V4L2 camera or picamera.
      view: region, rotation and flip; what the source does not do itself is in its own `view`.
      input: what the network takes; sources that scale in hardware or draw to size use it.

    Raises:
      EdgennError: `spec` is none of these, or cannot do what is asked.
    """
    if (width is None) != (height is None):
        raise EdgennError("a frame size is width and height: --size 1280x720")

    def make() -> Source:
        source = _named(spec, fast, width, height, exposure, view, input)
        if source.live:
            source.renew = make
        return source

    return make()


def _named(
    spec: str,
    fast: bool,
    width: int | None,
    height: int | None,
    exposure: float | None,
    view: View | None,
    input: InputSpec | None,
) -> Source:
    if spec == "picamera":
        from .picamera import PiCameraSource

        # What the camera does itself is no longer in its view.
        return PiCameraSource(input=input, view=view, width=width, height=height, exposure=exposure)
    source: Source
    if spec.isdecimal() or spec.startswith("/dev/"):
        from .v4l2 import V4L2Source

        source = V4L2Source(spec, width=width, height=height, exposure=exposure)
        width = exposure = None
    elif spec == "synthetic":
        from .synthetic import SIZE, SyntheticSource

        source = SyntheticSource(fast=fast, size=(height, width) if width and height else SIZE)
        width = None
    else:
        source = _elsewhere(spec, fast)
    for asked, option in ((width, "--size"), (exposure, "--exposure")):
        if asked is not None:
            raise EdgennError(f"{source.name} takes no {option}: set it where the pictures are made")
    if view is not None:
        source.view = view
    return source


def _elsewhere(spec: str, fast: bool) -> Source:
    """A stream, a file, or what an installed package adds."""
    scheme, separator, _ = spec.partition("://")
    scheme = scheme.lower()
    if separator and scheme in ("http", "https"):
        check(spec)
        from .mjpeg import MjpegSource

        return MjpegSource(spec)
    if separator and scheme in ("rtsp", "rtsps"):
        check(spec)
        from .rtsp import RtspSource

        return RtspSource(spec)
    found = None if separator else _file(spec, fast)
    if found is None:
        found = _third_party(spec, scheme)
    if found is not None:
        return found
    what = f"{hidden(scheme)}:// is no source" if separator else f"there is no source {hidden(spec)!r}"
    raise EdgennError(f"{what}: use {ACCEPTED}")


def _file(spec: str, fast: bool) -> Source | None:
    from .stills import PICTURES, StillsSource

    path = Path(expanded(spec))
    if spec and path.is_file() and path.suffix.lower() not in PICTURES:
        from .video_file import VideoFileSource

        return VideoFileSource(path, fast=fast)
    if spec and (path.exists() or any(sign in spec for sign in "*?[")):
        return StillsSource(path)
    return None


def _third_party(spec: str, scheme: str) -> Source | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
        try:
            source = entry.load()(spec)
        except EdgennError:
            raise
        except Exception as error:
            # Its words may hold the spec, or the part of it that it stumbled over.
            reason = type(error).__name__ if "@" in spec else f"{type(error).__name__}: {error}"
            raise EdgennError(f"the source {scheme} of {entry.value} fails: {reason}") from None
        if not isinstance(source, Source):
            raise EdgennError(f"the source {scheme} of {entry.value} gives a {type(source).__name__} and no Source")
        return source
    return None
