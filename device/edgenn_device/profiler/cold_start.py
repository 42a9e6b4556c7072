"""How long a model takes from nothing to its first answer, measured in a fresh process.

A process that has already imported a runtime cannot say what importing it costs, so this one is started for the
purpose, does what a device does after switching on, and ends. The files come from the page cache when they were read
before; the first start after a boot is slower by what the disk takes, which is not measured here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import memory

STAGES = ("python", "imports", "load", "create", "first")
_PATIENCE = 120.0


def cold_start(
    path: str | Path, *, runtime: str = "auto", threads: int | None = None
) -> tuple[dict[str, float], dict[str, int | None]] | None:
    """Start a process that loads the model and runs it once.

    Returns:
      (seconds by stage, memory), or None when the process failed; whoever asks then meets the reason in its own
      process. Stages: python (until the first line runs), imports (NumPy, OpenCV, the runtime), load (read and verify
      the file), create (interpreter and its buffers), first (the first picture). Memory, resident bytes: python
      (before the imports), imports (after them), ready (after the first inference), peak.
    """
    # The package may have been found through sys.path alone.
    home = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    request = {"path": str(path), "runtime": runtime, "threads": threads, "spawned": time.monotonic()}
    command = [sys.executable, "-P", "-m", __name__, json.dumps(request)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PATIENCE, check=True, env={**os.environ, "PYTHONPATH": search}
        )
        answer = json.loads(done.stdout)
        return answer["seconds"], answer["memory"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None


def _run(request: dict[str, Any]) -> dict[str, Any]:
    # CLOCK_MONOTONIC counts from the machine's start, so two processes may compare it.
    marks = [request["spawned"], time.monotonic()]
    resident: dict[str, int | None] = {"python": memory.resident()["resident"]}
    import numpy as np

    from .. import interpreter, model_file, preprocess

    runtime, _ = interpreter._choose(request["runtime"])
    interpreter._import(runtime)
    marks.append(time.monotonic())
    resident["imports"] = memory.resident()["resident"]
    model = model_file.load(request["path"])
    marks.append(time.monotonic())
    ready = interpreter.Interpreter(model, runtime=runtime, threads=request["threads"])
    marks.append(time.monotonic())
    picture = np.zeros((model.input.height, model.input.width, 3), np.uint8)
    ready.invoke(preprocess.to_tensor(picture, model.input))
    marks.append(time.monotonic())
    now = memory.resident()
    resident.update(ready=now["resident"], peak=now["resident_peak"])
    seconds = {stage: end - begin for stage, begin, end in zip(STAGES, marks, marks[1:], strict=False)}
    return {"seconds": seconds, "memory": resident}


if __name__ == "__main__":
    json.dump(_run(json.loads(sys.argv[1])), sys.stdout)
