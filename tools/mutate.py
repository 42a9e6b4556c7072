"""Break the most important code on purpose, one line at a time, and see that a test says so.

    python -m tools.mutate                      # all of them, a few minutes
    python -m tools.mutate "crop offset"        # one, by its name

Each mutation is made in a copy of the checkout, in which this Python's environment runs the tests that ought to catch
it; without it they must pass there. Prints which test caught which, and exits with 1 if a mutation survived, if its old
text does not stand in the file exactly once any more, or if a named test cannot be run. The checkout is not touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
# Seconds for the tests of one mutation: ten times what the slowest take on a busy machine of two cores.
_PATIENCE = 900.0
_PACKAGES = ("edgenn", "edgenn_device")
# That a test fails is enough: Hypothesis would look for the smallest example, for a minute.
_UNSHRUNK = """from hypothesis import Phase, settings
settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.generate))
settings.load_profile("unshrunk")
"""


@dataclass(frozen=True)
class Ran:
    """What came of tests: pytest's exit status, the first that failed ("": none), those left out, and all it said."""

    status: int
    failed: str
    skipped: tuple[str, ...]
    said: str


def copied(root: Path, copy: Path) -> None:
    """Put what git tracks of a checkout, and what is new in it, into the folder `copy`."""
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        # What is tracked may have been removed.
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    (copy / "unshrunk.py").write_text(_UNSHRUNK)


def environment(copy: Path) -> dict[str, str]:
    """In which the copy is imported and not what is installed; no byte code outlives a mutation."""
    path = os.pathsep.join((str(copy), str(copy / "device")))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def imported_from(copy: Path) -> dict[str, Path]:
    """Where the packages come from in that environment."""
    script = f"import {', '.join(_PACKAGES)}; print({', '.join(f'{name}.__file__' for name in _PACKAGES)}, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=copy, env=environment(copy), check=True, capture_output=True, text=True
    )
    return dict(zip(_PACKAGES, map(Path, done.stdout.split("\n")), strict=False))


def run_tests(copy: Path, tests: Sequence[str], *options: str) -> Ran:
    """Run tests in the copy."""
    plugins = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "unshrunk")
    argv = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-rfEs", "-o", "addopts=", *plugins, *options, *tests]
    try:
        done = subprocess.run(
            argv, cwd=copy, env=environment(copy), capture_output=True, text=True, errors="replace", timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return Ran(-1, "", (), f"the tests did not end within {_PATIENCE:.0f} s")
    lines = done.stdout.splitlines()
    failed = [line.removeprefix("FAILED ").split(" - ")[0] for line in lines if line.startswith("FAILED ")]
    skipped = tuple(line for line in lines if line.startswith("SKIPPED "))
    return Ran(done.returncode, failed[0] if failed else "", skipped, done.stdout + done.stderr)


def caught(mutation: Mutation, copy: Path) -> Ran:
    """Run its tests with the mutation in place, and take it back."""
    path = copy / mutation.file
    whole, mutated = path.read_text(), mutation.text(copy)
    path.write_text(mutated)
    try:
        return run_tests(copy, mutation.tests, "-x")
    finally:
        path.write_text(whole)


def sweep(mutations: Sequence[Mutation], root: Path = ROOT) -> int:
    """Try mutations one after the other and print a row for each; the exit status."""
    with tempfile.TemporaryDirectory(prefix="edgenn-mutate-") as folder:
        copy = Path(folder).resolve()
        copied(root, copy)
        for name, place in imported_from(copy).items():
            if not place.is_relative_to(copy):
                print(f"{name} is imported from {place}, not from the copy: nothing would be tried")
                return 1
            print(f"{name} is imported from {place}")
        wrong = []
        for mutation in mutations:
            try:
                mutation.text(copy)
            except ValueError as error:
                wrong.append(str(error))
        began = time.monotonic()
        plain = run_tests(copy, list(dict.fromkeys(test for mutation in mutations for test in mutation.tests)))
        if plain.status or plain.skipped or wrong:
            print(*wrong, *plain.skipped, sep="\n")
            print(plain.said if plain.status else "", "nothing is tried before all of the tests can be run", sep="\n")
            return 1
        print(f"without a mutation all of the tests pass ({time.monotonic() - began:.0f} s)\n")
        width = max(len(mutation.name) for mutation in mutations)
        print(f"{'mutation':<{width}} | caught by | seconds", flush=True)
        survived = []
        for mutation in mutations:
            began = time.monotonic()
            ran = caught(mutation, copy)
            # Where pytest fails and no test did, a fixture broke, or nothing was run at all.
            if not ran.failed:
                survived.append(mutation.name)
            verdict = ran.failed or ("SURVIVED" if ran.status == 0 else f"not run:\n{ran.said}")
            print(f"{mutation.name:<{width}} | {verdict} | {time.monotonic() - began:.1f}", flush=True)
    print(f"\n{len(mutations) - len(survived)} of {len(mutations)} caught")
    return 1 if survived else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a mutation (default: all)")
    given = parser.parse_args()
    known = {mutation.name: mutation for mutation in MUTATIONS}
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no mutation {unknown[0]!r}: choose from {', '.join(known)}")
    return sweep([known[name] for name in given.names] or MUTATIONS)


if __name__ == "__main__":
    sys.exit(main())
