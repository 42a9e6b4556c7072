"""edgetpu_compiler as a child process, and its log as values.

It is a closed program for x86-64 Debian that says little and sometimes crashes or hangs: whatever it does comes back as
one line. What its log means for a network is `edgetpu`'s to say.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgenn_device import flatbuffer
from edgenn_device.errors import EdgennError
from edgenn_device.standby import COMPILED

from .targets import coral

COMPILER = "edgetpu_compiler"
# Seconds. The compiler gives up by itself after 180 (coral.ai, "Edge TPU compiler", --timeout_sec).
PATIENCE = 300.0
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MEMORY = {
    "on_chip": "On-chip memory used for caching model parameters",
    "on_chip_left": "On-chip memory remaining for caching model parameters",
    "off_chip": "Off-chip memory used for streaming uncached model parameters",
}
# What the compiler's log says when it fails, and what that means: the first that fits. Each was seen in the issue named
# (github.com/google-coral/edgetpu).
_FAILURES = (
    (r"Model not quantized", "it says that the model is not quantized: convert it with --quantization int8"),  # 313
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",  # 631, 845
        "it is older than {0} version {1}: {mend}",
    ),
    (r"dynamic-sized tensors", "the model has tensors without a fixed size: convert it with a batch of 1"),  # 829
    (
        r"large activation tensors|Compilation timeout",  # 444, 686
        "its activations are too large: take a smaller input",
    ),
    (r"uncaught exception of type ([^\n]+)", "it crashed ({0}): " + "{again}"),  # 728
    (r"Internal compiler error", "internal compiler error, of which it says no more: {again}"),  # 189
    (r"Compilation failed: ([^\n]+)", "{0}"),
    (r"ERROR: ([^\n]+)", "{0}"),
    (r"Compilation failed", "it failed and does not say why: {again}"),  # 800, 903
)
_AGAIN = "try a smaller input or narrower layers, or by hand `edgetpu_compiler -s -d`, which leaves more to the CPU"


@dataclass(frozen=True)
class Log:
    """What the compiler said: version, bytes of parameters on and off the chip, and (operator, count, status)."""

    version: str
    subgraphs: int
    on_chip: int | None
    on_chip_left: int | None
    off_chip: int | None
    table: tuple[tuple[str, int, str], ...]


def find() -> str | None:
    """Path of the compiler, None where it is not on the PATH."""
    return shutil.which(COMPILER)


def compile_file(compiler: str, content: bytes) -> tuple[bytes, str]:
    """Run the compiler in a folder of its own: the compiled flatbuffer and what it printed.

    Raises:
      EdgennError: it failed, crashed, hung or left no usable file; one clause.
    """
    with tempfile.TemporaryDirectory(prefix="edgenn-edgetpu-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        command = [compiler, "-s", "-o", name, str(folder / "model.tflite")]
        try:
            # A session of its own: it starts children, which a kill has to reach too.
            child = subprocess.Popen(
                command,
                cwd=name,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise EdgennError(f"{compiler} cannot be run ({error.strerror}): install it again") from None
        try:
            printed, _ = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            _kill(child)
            raise EdgennError(f"it has hung, no answer within {PATIENCE:.0f} s: {_AGAIN}") from None
        except BaseException:  # Ctrl-C, which does not reach a session of its own
            _kill(child)
            raise
        log = printed.decode(errors="replace")
        try:
            compiled = (folder / f"model{COMPILED}.tflite").read_bytes()
            flatbuffer.parse(compiled)
        except (OSError, EdgennError) as error:
            if child.returncode < 0:
                died = signal.Signals(-child.returncode).name
                raise EdgennError(f"it crashed ({died}): {_AGAIN}") from None
            broken = f"what it wrote is no model ({error})" if isinstance(error, EdgennError) else ""
            raise EdgennError(broken or _failure(log, child.returncode)) from None
        return compiled, log


def _kill(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _failure(log: str, status: int) -> str:
    for pattern, words in _FAILURES:
        found = re.search(pattern, log)
        if found:
            named = found.groups()
            mend = coral.how_to_lower(named[0], int(named[1])) if len(named) > 1 else ""
            return words.format(*(part.strip().rstrip(".") for part in named), mend=mend, again=_AGAIN)
    said = [line.strip() for line in log.splitlines() if line.strip()]
    return f"it ended with status {status} and wrote no file ({said[-1][:200] if said else 'it said nothing'})"


def parse(log: str) -> Log:
    """Read what the compiler printed, with the operator table of `-s`."""
    version = re.search(r"Edge TPU Compiler version (\S+)", log)
    subgraphs = re.search(r"Number of Edge TPU subgraphs: (\d+)", log)
    memory = {
        key: re.search(rf"{re.escape(words)}: ([\d.]+)({'|'.join(_UNITS)})\b", log) for key, words in _MEMORY.items()
    }
    return Log(
        version=version[1] if version else "of unknown version",
        subgraphs=int(subgraphs[1]) if subgraphs else 0,
        table=tuple(
            (name, int(count), status)
            for name, count, status in re.findall(
                r"^([A-Za-z_0-9-]+)[ \t]+(\d+)[ \t]+(\S.*?)[ \t\r]*$", log, re.MULTILINE
            )
        ),
        **{key: round(float(found[1]) * _UNITS[found[2]]) if found else None for key, found in memory.items()},
    )


def how_to_get_the_compiler() -> str:
    """The lines to type (coral.ai/docs/edgetpu/compiler)."""
    return (
        "install edgetpu_compiler (x86-64 Debian or Ubuntu only: echo 'deb "
        "[signed-by=/usr/share/keyrings/coral.asc] https://packages.cloud.google.com/apt coral-edgetpu-stable main' "
        "| sudo tee /etc/apt/sources.list.d/coral-edgetpu.list && curl -fsS "
        "https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/coral.asc >/dev/null && "
        "sudo apt update && sudo apt install -y edgetpu-compiler) and convert again; elsewhere the web compiler that "
        "coral.ai/docs/edgetpu/compiler links to"
    )
