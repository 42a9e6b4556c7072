"""`--source latest://PATH`: a picture that another program writes again and again, as many webcams do."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from edgenn_device.cameras.reconnecting import SILENCE, Lost, ReconnectingSource

# Between two looks at the file.
_PAUSE = 0.02


class LatestPicture(ReconnectingSource):
    """Gives the file's bytes whenever it was written anew; back-off and health are the base class's business."""

    def __init__(self, spec: str) -> None:
        super().__init__(name=spec)
        self._path = Path(spec.removeprefix("latest://"))
        self._written = 0
        self._left = threading.Event()

    def connect(self) -> None:
        self._left.clear()
        if not self._path.is_file():
            raise Lost(f"there is no {self._path}: start the program that writes it")

    def grab(self) -> tuple[bytes, float]:
        until = time.monotonic() + SILENCE
        while time.monotonic() < until and not self._left.wait(_PAUSE):
            try:
                written = self._path.stat().st_mtime_ns
                if written != self._written:
                    self._written = written
                    return self._path.read_bytes(), time.monotonic()
            except OSError as error:
                raise Lost(
                    f"{self._path} cannot be read ({error.strerror}): start the program that writes it"
                ) from None
        raise Lost(f"{self._path} is not written any more: start the program that writes it")

    def disconnect(self) -> None:
        self._left.set()
