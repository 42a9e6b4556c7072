"""A converted file, loaded and run in each runtime that its target names, not only looked up in a table.

LiteRT runs here with both of its kernel libraries; tflite-runtime 2.14, which asks for NumPy 1 and Python 3.11, in
another Python where there is one, through edgenn_device's own golden check. That a runtime is not here is said and is
no failure; that it refuses the file, crashes or computes something else is one. Measures no accuracy: that is `gate`'s.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import edgenn_device
from edgenn_device import golden, model_file
from edgenn_device.card import Card
from edgenn_device.errors import EdgennError
from edgenn_device.interpreter import Interpreter, Kernels, available_runtimes
from edgenn_device.model_file import ModelFile

from . import targets
from .targets.pi import RUNTIME

# Path of a Python that has tflite-runtime.
VARIABLE = "EDGENN_TFLITE_RUNTIME"
ENVIRONMENT = ".venv-tflite-runtime"
# Seconds. Four pictures through a large network with built-in kernels take a few; the rest is for a busy machine.
_PATIENCE = 180.0
_CHILD = """
import json, sys
def say(**answer):
    print(json.dumps(answer))
    sys.exit()
try:
    from edgenn_device import golden, model_file
    from edgenn_device.errors import EdgennError
    from edgenn_device.interpreter import Interpreter, available_runtimes
    import numpy
    version = available_runtimes()["tflite-runtime"]
    if version is None:
        say(missing="tflite-runtime is not installed in it")
    if int(numpy.__version__.split(".")[0]) >= 2:
        say(missing="tflite-runtime needs NumPy 1 and it has " + numpy.__version__)
    import tflite_runtime.interpreter
except ImportError as error:
    say(missing=str(error))
model = model_file.load(sys.argv[1])
try:
    same = golden.check(model, Interpreter(model, runtime="tflite-runtime", threads=1))
except EdgennError as error:
    say(version=version, refused=str(error))
say(version=version, same=same)
"""


@dataclass(frozen=True)
class Ran:
    """What came of running a model in one runtime.

    Attributes:
      runtime: "ai-edge-litert 2.3.0 (XNNPACK)".
      ok: it loads and computes what it should; None if the runtime is not here.
      detail: a sentence on how that is known, or why not.
      remedy: what to type to have the runtime, if it is not here.
    """

    runtime: str
    ok: bool | None
    detail: str
    remedy: str = ""

    @property
    def reason(self) -> str:
        """Why the file may not go to its target, as one clause."""
        return f"{self.runtime} {self.detail}"


def run_in_each(model: ModelFile, target: str) -> tuple[Ran, ...]:
    """Run a model on the golden inputs in LiteRT, by which files are judged here, and in tflite-runtime if the target
    names it.

    Args:
      model: a verified model with a card; golden vectors in it are not looked at but recorded anew.
      target: the name of one (`targets`); of "coral" this is the file for the CPU.

    Raises:
      EdgennError: there is no such target, or the model has no card.
    """
    wanted = targets.target(target)
    if model.card is None:
        raise EdgennError(f"{model.path} has no card to put golden vectors on: convert it with edgenn")
    here = tuple(_here(model, kernels) for kernels in ("default", "builtin"))
    if "tflite-runtime" not in wanted.runtimes or not all(ran.ok for ran in here):
        return here
    return (*here, _in_tflite_runtime(model, replace(model.card, golden=golden.record(model))))


def _here(model: ModelFile, kernels: Kernels) -> Ran:
    """In the runtime that edgenn itself uses: it loads, and gives the same numbers to two interpreters."""
    name = "this machine's runtime"
    try:
        outputs = []
        for _ in range(2):
            interpreter = Interpreter(model, threads=1, kernels=kernels)
            name = interpreter.description.replace(" kernels, 1 thread", ")").replace(", ", " (", 1)
            outputs.append([interpreter.invoke_raw(tensor) for tensor in golden.inputs(model.input)])
    except EdgennError as error:
        return Ran(name, False, f"refuses it ({error})")
    except (RuntimeError, ValueError) as error:
        return Ran(name, False, f"fails to run it ({' '.join(str(error).split())[:200]})")
    if not all(np.isfinite(scores).all() for scores in outputs[0]):
        return Ran(name, False, "computes scores that are no numbers")
    if not np.array_equal(outputs[0], outputs[1]):
        return Ran(name, False, "gives other scores for the same picture the second time")
    return Ran(name, True, "ran the golden inputs")


def _in_tflite_runtime(model: ModelFile, card: Card) -> Ran:
    """In tflite-runtime: what it computes is compared with LiteRT's built-in kernels, bit for bit if it is int8."""
    python, why = python_with_tflite_runtime()
    if python is None:
        return _not_run(why)
    try:
        child = run_beside(python, _CHILD, model_file.attach(model.content, card), patience=_PATIENCE)
    except subprocess.TimeoutExpired:
        return _not_run(f"{python} gave no answer within {_PATIENCE:.0f} s")
    except OSError as error:
        return _not_run(f"{python} cannot be run ({error.strerror})")
    if child.returncode < 0:
        return Ran(RUNTIME, False, f"crashes on it ({signal.Signals(-child.returncode).name})")
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _not_run(f"{python} does not do ({last[:200]})")
    if "missing" in answer:
        return _not_run(f"{python} does not do: {answer['missing']}")
    name = f"tflite-runtime {answer['version']}"
    if "refused" in answer:
        return Ran(name, False, f"refuses it ({answer['refused']})")
    if not answer["same"]:
        return Ran(name, False, "computes other scores for the golden inputs than LiteRT's built-in kernels")
    return Ran(name, True, "computes the golden outputs of LiteRT's built-in kernels")


def run_beside(
    python: Path, program: str, model: bytes, *arguments: str, patience: float
) -> subprocess.CompletedProcess[str]:
    """Run a program in another Python, which has its own NumPy and of this environment's packages edgenn_device alone.

    Args:
      program: Python text; its first argument is the path of `model`, the others are `arguments`.
      patience: seconds.

    Raises:
      OSError: there is no such Python.
      subprocess.TimeoutExpired: it took longer.
    """
    with tempfile.TemporaryDirectory(prefix="edgenn-runtime-") as folder:
        (Path(folder) / "edgenn_device").symlink_to(Path(edgenn_device.__file__).resolve().parent)
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        return subprocess.run(
            [str(python), "-c", program, str(path), *arguments],
            env={**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            check=False,
        )


def python_with_tflite_runtime() -> tuple[Path | None, str]:
    """A Python that has tflite-runtime, or why there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser()
        return (path, "") if path.is_file() else (None, f"{VARIABLE} names {named}, which is no file")
    if available_runtimes()["tflite-runtime"] and int(np.__version__.split(".")[0]) < 2:
        return Path(sys.executable), ""
    beside = Path(sys.prefix).parent / ENVIRONMENT / "bin" / "python"
    return (beside, "") if beside.is_file() else (None, f"there is no {_short(beside.parents[1])}")


def _not_run(why: str) -> Ran:
    place = shlex.quote(_short(Path(sys.prefix).parent / ENVIRONMENT))
    return Ran(
        RUNTIME,
        None,
        f"not run in it, only its operators and versions looked up ({why})",
        f"python3.11 -m venv {place} && "
        f"{place}/bin/pip install tflite-runtime==2.14.0 'numpy<2' opencv-python-headless click",
    )


def _short(path: Path) -> str:
    """As it can be typed here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
