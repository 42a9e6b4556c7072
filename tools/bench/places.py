"""Where on this machine the page's words lead (CLOTHING, WEIGHTS, CORAL, runs/…), and what is not there."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from tools.arm_device.unavailable import DeviceUnavailable, require_machine

from .benchmark import Benchmark

ROOT = Path(__file__).parents[2]
MEDIAPIPE = ROOT / ".venv-mediapipe"
TFLITE_RUNTIME = ROOT / ".venv-tflite-runtime"
_RUN = re.compile(r"(?<![\w/.-])(--out )?runs/(\S+)")


def _test_device() -> str:
    try:
        require_machine()
    except DeviceUnavailable as error:
        return str(error)
    return ""


def _command(name: str) -> Callable[[], str]:
    # Debian has servers where only root looks for them.
    return lambda: "" if shutil.which(name) or Path("/usr/sbin", name).exists() else f"apt-get install {name}"


# What a command needs that does not show in it: why it cannot be run, or "".
NEEDS: dict[str, Callable[[], str]] = {
    "device": _test_device,
    "wrk": _command("wrk"),
    "mosquitto": _command("mosquitto"),
    "tflite-runtime": lambda: (
        "" if (TFLITE_RUNTIME / "bin/python").exists() else f"make {TFLITE_RUNTIME.name}/.installed"
    ),
}


@dataclass(frozen=True)
class Places:
    """Folders; None where none was given. Runs are written into `made` and looked for in `runs` too."""

    made: Path
    photos: Path | None = None
    weights: Path | None = None
    coral: Path | None = None
    runs: Path | None = None

    def missing(self, benchmark: Benchmark, coming: Collection[str] = ()) -> str:
        """Why it cannot be run and what to give; "" if it can. `coming` are runs that will be there by then."""
        command = benchmark.shown
        options = (
            ("CLOTHING", self.photos, "give --photos FOLDER of the clothing dataset"),
            ("WEIGHTS", self.weights, "give --weights FOLDER of .weights.h5"),
            ("CORAL", self.coral, "give --coral FOLDER of google-coral/edgetpu's test_data"),
            ("VENV", MEDIAPIPE if MEDIAPIPE.exists() else None, f"make {MEDIAPIPE.name}/.installed"),
        )
        found = [said for word, folder, said in options if folder is None and re.search(rf"\b{word}\b", command)]
        there = {*coming, *self.makes(benchmark)}
        runs = [name for out, name in _RUN.findall(command) if not out]
        lacking = {name.partition("/")[0] for name in runs if not self._run(name).exists()} - there
        if lacking:
            found.append(
                f"there is no run {', '.join(sorted(lacking))}: run what trains it before, or give --runs FOLDER"
            )
        found += [why for need in benchmark.needs if (why := NEEDS[need]())]
        return "; ".join(found)

    def makes(self, benchmark: Benchmark) -> set[str]:
        """The runs that a benchmark trains."""
        return {name for out, name in _RUN.findall(benchmark.shown) if out}

    def _run(self, name: str) -> Path:
        """A run, or a file in one, that exists here or there; the place where it would be made otherwise."""
        wanted = name if "/" in name else f"{name}/model.keras"
        for folder in (self.made, self.runs):
            if folder is not None and (folder / wanted).exists():
                return folder / name
        return self.made / name

    def script(self, benchmark: Benchmark) -> str:
        """The command for bash, with real paths; everything else that it writes is in its working directory."""
        made = self.makes(benchmark)

        def run(found: re.Match[str]) -> str:
            own = self.made / found[2] if found[2].partition("/")[0] in made else self._run(found[2])
            return f"--out {shlex.quote(str(own))} --overwrite" if found[1] else shlex.quote(str(own))

        text = _RUN.sub(run, benchmark.shown)
        folders = {"CLOTHING": self.photos, "WEIGHTS": self.weights, "CORAL": self.coral, "VENV": MEDIAPIPE}
        for word, folder in folders.items():
            text = re.sub(rf"\b{word}\b", lambda _, folder=folder: shlex.quote(str(folder)), text)
        root = shlex.quote(str(ROOT))
        return re.sub(r"(?<![\w/.-])(tools|models|tests)/", lambda found: f"{root}/{found[1]}/", text)
