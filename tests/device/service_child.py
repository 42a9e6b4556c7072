"""What test_service.py runs as a process of its own: a real pipeline in a Service, with a source told what to do.

Arguments: the model, and a file with one word: "on", "still", "freeze" (read never returns), "lose" (lost, and tried
again), "decode" (preprocess never returns) or "block" (the main thread never returns from native code).
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgenn_device.cameras.base import Frame, Source
from edgenn_device.classifier import Classifier
from edgenn_device.health import Health
from edgenn_device.motion import Gate
from edgenn_device.pipeline import Pipeline
from edgenn_device.service import Service, exchange

MODEL, WORD = Path(sys.argv[1]), Path(sys.argv[2])
# Rows of one picture that anybody can tell from a lens cap, and from the next one.
RANDOM = np.random.RandomState(0)


class Told(Source):
    name = "told"

    def __init__(self) -> None:
        self.index = -1
        self.picture = RANDOM.randint(0, 256, (8, 8, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)

    def open(self) -> None:
        return None

    def close(self) -> None:
        return None

    def read(self) -> Frame | None:
        time.sleep(0.01)
        lost = False
        while (word := WORD.read_text()) in ("freeze", "lose"):
            if word == "lose" and not lost:
                lost = True
                self.tell("failed", "told is gone; trying again until it is back")
            threading.Event().wait(0.01 if word == "lose" else None)
        if lost:
            self.tell("ok", "")
        if word != "still":
            self.picture = np.ascontiguousarray(np.roll(self.picture, 16, 0))
        self.index += 1
        return Frame(self.picture, time.monotonic(), self.index)


class Slow(Classifier):
    def preprocess(self, image: Any, out: Any = None) -> Any:
        while WORD.read_text() == "decode":
            time.sleep(0.01)
        return super().preprocess(image, out)

    def scores(self, tensor: Any) -> Any:
        if WORD.read_text() == "block":
            # On the main thread, and no signal handler runs: as in native code.
            import ctypes
            import signal

            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            ctypes.CDLL(None).pause()
        return super().scores(tensor)


health = Health("test")
source = Told()
source.tell = lambda condition, reason: health.set("source", condition, reason)
pipeline = Pipeline(source, Slow(MODEL, threads=1), gate=Gate(settle=0.0))
health.describe(counts=pipeline)
reload = partial(exchange, pipeline, lambda: Slow(MODEL, threads=1), health)
with Service(lambda: (pipeline.frames, pipeline.bad), health, reload, stop=pipeline.stop):
    for result in pipeline.results():
        health.frame(result)
        print(result.frame.index, result.classification.label, *pipeline.classifier.labels, sep="\t", flush=True)
print("ended", pipeline.frames, pipeline.skipped, flush=True)
