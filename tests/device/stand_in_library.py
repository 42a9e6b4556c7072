"""Compiles tests/device/stand_in_delegate.c, the delegate and libedgetpu that the tests can tell to misbehave."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "stand_in_delegate.c"


def compiler() -> str:
    """A C compiler; without one the test is skipped, and says why."""
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        pytest.skip("NOT TESTED: no C compiler here to build a stand-in for libedgetpu (apt install gcc)")
    return found


def build(library: Path, *flags: str) -> Path:
    """The stand-in as a shared library at `library`; flags such as -DDEVICES=2 or -DNO_EDGE_TPU."""
    library.parent.mkdir(parents=True, exist_ok=True)
    # Built aside and moved: a loader never finds half of it.
    half = library.with_name(f".{library.name}")
    subprocess.run([compiler(), "-shared", "-fPIC", *flags, "-o", str(half), str(SOURCE)], check=True)
    half.rename(library)
    return library
