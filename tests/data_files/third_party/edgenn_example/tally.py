"""`--sink tally:PATH`: how many frames had which label, as JSON, when the run has ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.pipeline import Result
from edgenn_device.sinks import About, Sink


class Tally(Sink):
    def __init__(self, spec: str, about: About) -> None:
        self.name = spec
        self._path = Path(spec.removeprefix("tally:"))
        self._device = about.device
        self._frames: Counter[str] = Counter()

    def open(self) -> None:
        if not self._path.parent.is_dir():
            raise EdgennError(f"there is no folder {self._path.parent}: make it first")

    def write(self, result: Result) -> None:
        self._frames[result.classification.label] += 1

    def finish(self, summary: Mapping[str, Any]) -> None:
        write_atomically(self._path, json.dumps({"device": self._device, "frames": self._frames}) + "\n")
