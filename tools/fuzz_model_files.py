"""Gives edgenn thousands of spoilt model files and counts what came of them.

Each goes through `model_file.load`, and what that accepts through an Interpreter and one invoke with both kernel
libraries in a child process, so that a native crash is counted and not suffered. A failure is: anything raised but an
EdgennError of one line, a crash, more than TIME_LIMIT, more memory than MEMORY, a file opened for writing.

    .venv/bin/python -m tools.fuzz_model_files --count 10000

Ends with a table; exit status 1 if anything failed, with the files kept in --out.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from edgenn_device import model_file
from edgenn_device.errors import EdgennError
from tools.model_mutations import Base, mutants

ROOT = Path(__file__).parents[1]
# Seconds for one file; a good one of this size takes a hundredth.
TIME_LIMIT = 10.0
# Bytes of address space beyond what the process has when it begins: bombs unpack to 64 MB, tensors are at most 512 MB.
MEMORY = 3 << 30
_LONGEST_LINE = 1000
# More folders in which the child finds modules; the tests have one.
CHILD_PATH: list[str] = []
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC


class _TooLong(BaseException):
    """Not an Exception, so that nothing under test can swallow it."""


def bases(more: Sequence[Path] = ()) -> list[Base]:
    """The good files to begin with: those of the tests and the shipped model, bare and with its card."""
    paths = [*sorted((ROOT / "tests" / "data_files").glob("tiny_*.tflite")), ROOT / "models/garments/garments.tflite"]
    found = [Base.of(path.read_bytes()) for path in (*paths, *more)]
    return found + [Base(base.content, {}) for base in found if base.files]


def loaded(path: Path) -> str:
    """What `model_file.load` does with a file: "accepted", "refused", or what went wrong."""
    writes: list[str] = []
    try:
        with _watched(writes), _time_limit(TIME_LIMIT):
            model = model_file.load(path)
        commands = [label for label in model.labels if "\x1b" in label or "\n" in label]
        answer = f"a label {commands[0]!r} commands the terminal" if commands else "accepted"
    except EdgennError as error:
        answer = "refused" if _is_one_line(str(error)) else f"not one line: {str(error)[:100]!r}"
    except _TooLong:
        answer = f"took more than {TIME_LIMIT:g} s"
    except BaseException as error:  # whatever it is, it is a failure
        answer = f"{type(error).__name__}: {str(error)[:100]}"
    return f"wrote {writes[0]}" if writes else answer


def _is_one_line(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_LINE and text.isprintable()


_watching: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if (
        event == "open"
        and isinstance(arguments[2], int)
        and arguments[2] & ~_READ_ONLY & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        _watching[-1].append(str(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "os.symlink", "os.link", "os.remove", "os.rmdir", "shutil.unpack_archive"):
        _watching[-1].append(f"{event} {arguments[0]}")


sys.addaudithook(_audit)


@contextmanager
def _watched(writes: list[str]) -> Iterator[None]:
    """Collect in `writes` every file that is opened for writing in the block, and every change to a folder."""
    _watching.append(writes)
    try:
        yield
    finally:
        _watching.pop()


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """Allow this process MEMORY more than it has."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # The hard limit stays: a child has more than its parent and could not raise it.
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Runner:
    """A child process that loads and runs models, and is begun anew when one ends it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def run(self, path: Path) -> str:
        """ "ran", "runtime refused", or what went wrong; what ends a child that is not fresh is tried again in one."""
        fresh = self._child is None
        answer = self._ask(path)
        if answer.startswith("ended") and not fresh:
            again = self._ask(path)
            answer = again if again.startswith("ended") else f"{answer}, but not in a fresh process"
        return answer

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _ask(self, path: Path) -> str:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tools.fuzz_model_files", "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=path.parent,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((*CHILD_PATH, str(ROOT), str(ROOT / "device")))},
            )
            if not self._line(60.0):  # it says so when it has loaded the runtime
                raise RuntimeError("the child that runs models does not start: try `python -m tools.fuzz_model_files`")
        assert self._child.stdin is not None
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        answer = self._line(TIME_LIMIT)
        if answer is None:
            self.close()
            return f"running took more than {TIME_LIMIT:g} s"
        if not answer:
            code = self._child.wait()
            self._child = None
            return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return answer.strip()

    def _line(self, seconds: float) -> str | None:
        assert self._child is not None
        assert self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], seconds)
        return self._child.stdout.readline() if ready else None


def _serve() -> None:
    """The child: a path a line in, an answer a line out."""
    import numpy as np

    from edgenn_device.interpreter import Interpreter

    limit_memory()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            model = model_file.load(line.rstrip("\n"))
            for kernels in ("builtin", "default"):
                interpreter = Interpreter(model, threads=1, kernels=kernels)  # type: ignore[arg-type]
                interpreter.invoke(np.zeros(interpreter.input.shape, interpreter.input.dtype))
            answer = "ran"
        except EdgennError as error:
            answer = "runtime refused" if _is_one_line(str(error)) else f"not one line: {str(error)[:100]!r}"
        except BaseException as error:
            answer = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        print(answer, flush=True)


GOOD = ("refused", "ran", "runtime refused", "accepted")


def fuzz(count: int, seed: int, out: Path | None, run: bool, more: Sequence[Path] = ()) -> tuple[str, int]:
    """Try `count` files.

    Args:
      out: where files that failed are kept; None keeps none.
      run: run what is accepted too.

    Returns:
      The table, and the number of failures.
    """
    table: dict[str, Counter[str]] = defaultdict(Counter)
    failures: list[str] = []
    slowest = 0.0
    runner, started = Runner(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgenn-fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, on names that are there twice
        path = Path(folder) / "model.tflite"
        for number, (kind, content) in enumerate(islice(mutants(bases(more), seed), count)):
            path.write_bytes(content)
            began = time.perf_counter()
            answer = loaded(path)
            slowest = max(slowest, time.perf_counter() - began)
            if answer == "accepted" and run:
                answer = runner.run(path)
            if left := [entry.name for entry in Path(folder).iterdir() if entry != path]:
                answer = f"wrote {left[0]}"
                (Path(folder) / left[0]).unlink()
            table[kind][answer if answer in GOOD else "FAILED"] += 1
            if answer not in GOOD:
                failures.append(f"{number:6d}  {kind}: {answer}")
                print(failures[-1], file=sys.stderr, flush=True)
                if out is not None:
                    out.mkdir(parents=True, exist_ok=True)
                    (out / f"{seed}-{number:06d}.tflite").write_bytes(content)
            if sys.stderr.isatty() and number % 20 == 0:
                print(f"\r{number} of {count}", end="", file=sys.stderr, flush=True)
        runner.close()
    seconds = time.perf_counter() - started
    return _table(table, slowest, seconds) + "".join(f"\n{line}" for line in failures), len(failures)


def _table(table: dict[str, Counter[str]], slowest: float, seconds: float) -> str:
    columns = (*GOOD, "FAILED")
    lines = ["kind              " + "".join(f"{name:>17}" for name in columns)]
    total: Counter[str] = Counter()
    for kind, counts in sorted(table.items()):
        lines.append(f"{kind:18}" + "".join(f"{counts[name]:17d}" for name in columns))
        total.update(counts)
    lines.append(f"{'all':18}" + "".join(f"{total[name]:17d}" for name in columns))
    lines.append(f"{sum(total.values())} files in {seconds:.0f} s; the slowest load took {slowest:.2f} s")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"), help="where files that failed are kept")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="more good files to begin with")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve()
        return 0
    limit_memory()
    text, failed = fuzz(options.count, options.seed, options.out, run=True, more=options.models)
    from edgenn_device import installed

    print(
        f"seed {options.seed}, ai-edge-litert {installed.version('ai-edge-litert')}, Python {platform.python_version()}"
    )
    print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
