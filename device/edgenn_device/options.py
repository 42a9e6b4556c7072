"""What `edgenn run` is asked to do: one frozen record, from the command line, a TOML file or both.

A key of the file is an option of the command line without its dashes, and means the same. Every value is checked here,
before anything is opened, and a wrong one is one line that names its key. It opens nothing and knows no defaults of the
parts it configures beyond those a person is shown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from .addresses import hidden
from .cameras.view import WHOLE, Box, View
from .delegates import CPU
from .errors import EdgennError
from .home import expanded

RUNTIMES = ("auto", "litert", "tflite-runtime", "tensorflow")
# Only this machine can reach it; with anything else the page asks for a token.
WEB = ("127.0.0.1", 8080)


@dataclass(frozen=True)
class Options:
    """One run.

    Attributes:
      model: path of a .tflite.
      source: as for `cameras.open_source`.
      sink: each as for `sinks.open_sink`.
      labels: a file with one label a line, for a model that carries none.
      delegate: "cpu", "usb", "pci", ":N" or the path of a delegate's library.
      runtime: one of `RUNTIMES`.
      threads: CPU threads of the interpreter; None takes the machine's cores, four at most.
      top: labels in a result.
      limit: end after so many frames.
      fast: a video (or synthetic) as fast as possible, every frame.
      roi, rotate, flip: as for `View`.
      size: (width, height) in pixels to ask the camera for.
      exposure: seconds to ask the camera for; None leaves it to the camera.
      motion_gate: whether a still scene spares the network; None does for cameras.
      web: (host, port) of the live page; None serves none.
      web_token_file: holds what a browser must show; None takes `default_token_file()` where one is needed.
      keep_uncertain: folder for frames that the model is unsure of.
      name: of this device; None takes its host name.

    Raises:
      EdgennError: a value that cannot be; the line names its key.

    >>> Options(model="m.tflite", source="0", rotate=90).view.turned
    True
    """

    model: str
    source: str
    sink: tuple[str, ...] = ()
    labels: str | None = None
    delegate: str = CPU
    runtime: str = "auto"
    threads: int | None = None
    top: int = 3
    limit: int | None = None
    fast: bool = False
    roi: Box = WHOLE
    rotate: int = 0
    flip: str = "none"
    size: tuple[int, int] | None = None
    exposure: float | None = None
    motion_gate: bool | None = None
    web: tuple[str, int] | None = None
    web_token_file: str | None = None
    keep_uncertain: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for key, value in (("threads", self.threads), ("top", self.top), ("limit", self.limit)):
            if value is not None and value < 1:
                raise EdgennError(f"{key} {value} is not possible: 1 or more")
        if self.runtime not in RUNTIMES:
            raise EdgennError(f"runtime {self.runtime!r} is not one of {', '.join(RUNTIMES)}")
        if self.size is not None and min(self.size) < 1:
            raise EdgennError(f"size {self.size[0]}x{self.size[1]} is not possible: such as 1280x720")
        if self.exposure is not None and not 0 < self.exposure <= 60:
            raise EdgennError(f"exposure {self.exposure:g} s is not possible: above 0 and at most 60, such as 1/100")
        if self.web is not None and not 0 <= self.web[1] <= 65535:
            raise EdgennError(f"web port {self.web[1]} is not possible: 0 to 65535")
        if self.name is not None and not (self.name.strip() and self.name.isprintable()):
            raise EdgennError("name is empty or holds signs that cannot be printed")
        _ = self.view

    @property
    def view(self) -> View:
        return View(self.roi, self.rotate, self.flip)  # type: ignore[arg-type]

    @classmethod
    def of(cls, given: Mapping[str, Any], origin: str = "") -> Self:
        """Options from words and numbers as a person writes them; None stands for what was not said.

        Args:
          given: by key, with "-" or "_" between words.
          origin: what the values came from, for the line of an error.

        Raises:
          EdgennError: an unknown key, one that is missing, or a value that cannot be.
        """
        where = f"{origin}: " if origin else ""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in given.items():
            field = key.replace("-", "_")
            if field not in known:
                raise EdgennError(f"{where}unknown key {key!r}: one of {', '.join(sorted(known))}")
            if value is not None:
                try:
                    values[field] = _READ[field](value)
                except (EdgennError, ValueError, TypeError, ZeroDivisionError) as error:
                    # One of ours says how to mend it.
                    ours = isinstance(error, EdgennError)
                    wrong = error if ours else f"{hidden(repr(value))} is not possible{_EXAMPLES.get(field, '')}"
                    raise EdgennError(f"{where}{key}: {wrong}") from None
        if "model" not in values:
            raise EdgennError(f"{where}no model: edgenn run MODEL, or model = in the --config file")
        if "source" not in values:
            raise EdgennError(f"{where}no source: --source SOURCE, or source = in the --config file")
        try:
            return cls(**values)
        except EdgennError as error:
            raise EdgennError(f"{where}{error}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str], given: Mapping[str, Any] | None = None) -> Self:
        """Options from a TOML file.

        Args:
          path: the file.
          given: what holds against the file, by key; None values leave the file's.

        Raises:
          EdgennError: the file cannot be read or is no TOML, or as `of`.
        """
        from .files import read_toml

        read = read_toml(path)
        read = {key.replace("-", "_"): value for key, value in read.items()}
        held = {key: value for key, value in (given or {}).items() if value is not None}
        return cls.of({**read, **held}, str(path))


def default_token_file() -> Path:
    """Where the live page's token is kept when nobody says otherwise.

    systemd names the service's own folder in STATE_DIRECTORY (systemd.exec(5)); elsewhere it is the user's (XDG Base
    Directory Specification).
    """
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if state:
        return Path(state) / "web-token"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgenn" / "web-token"


def _text(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ValueError
    return str(value)


def _path(value: Any) -> str:
    return expanded(_text(value))


def _source(value: Any) -> str:
    # A camera's number is a number in TOML.
    return str(value) if type(value) is int else _text(value)


def _whole_number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _several(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, value)) if isinstance(value, (list, tuple)) else (_text(value),)


def _box(value: Any) -> Box:
    parts = value.split(",") if isinstance(value, str) else value
    x, y, width, height = (float(part) for part in parts)
    return View((x, y, width, height)).roi


def _size(value: Any) -> tuple[int, int]:
    parts = value.lower().split("x") if isinstance(value, str) else value
    width, height = (int(part) for part in parts)
    return width, height


def _exposure(value: Any) -> float:
    """Seconds: a number, or a fraction as photographers write it."""
    if isinstance(value, str):
        above, _, below = value.partition("/")
        value = float(above) / float(below or 1)
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _web(value: Any) -> tuple[str, int] | None:
    """(host, port) of True, "PORT", "HOST", "HOST:PORT" or "[ADDRESS]:PORT"."""
    if isinstance(value, bool):
        return WEB if value else None
    if type(value) is int:
        return WEB[0], value
    text = _text(value)
    if text.isdecimal():
        return WEB[0], int(text)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError
        return host, int(rest[1:]) if rest else WEB[1]
    host, separator, port = text.partition(":")
    return host or WEB[0], int(port) if separator else WEB[1]


_READ: dict[str, Callable[[Any], Any]] = {
    "model": _path,
    "source": _source,
    "sink": _several,
    "labels": _path,
    "delegate": _path,
    "runtime": _text,
    "threads": _whole_number,
    "top": _whole_number,
    "limit": _whole_number,
    "fast": _switch,
    "roi": _box,
    "rotate": _whole_number,
    "flip": _text,
    "size": _size,
    "exposure": _exposure,
    "motion_gate": _switch,
    "web": _web,
    "web_token_file": _path,
    "keep_uncertain": _path,
    "name": _text,
}
_EXAMPLES = {
    "roi": "; X,Y,WIDTH,HEIGHT in fractions of the picture, such as 0.25,0,0.5,1",
    "size": "; WIDTHxHEIGHT in pixels, such as 1280x720",
    "exposure": "; seconds, such as 0.01 or 1/100",
    "web": "; HOST:PORT, such as 127.0.0.1:8080",
    "sink": "; one text or a list of them",
    "fast": "; true or false",
    "motion_gate": "; true or false",
    "rotate": "; a whole number of degrees",
    "threads": "; a whole number",
    "top": "; a whole number",
    "limit": "; a whole number",
}
