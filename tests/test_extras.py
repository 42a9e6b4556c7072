"""The doorway to the training extra: one line when something is missing, silence when it is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgenn.extras import require
from edgenn_device.errors import EdgennError


def test_a_missing_extra_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # what Python itself takes for "not installed"
    with pytest.raises(EdgennError, match=r"^jinja2 is missing; .*: pip install 'edgenn\[train\]'$"):
        require("jinja2")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import tensorflow_is_not_here", "does not load"),  # something below it is missing
        ("raise ImportError('libsomething.so: cannot\\nopen')", "does not load .libsomething.so: cannot open"),
    ],
)
def test_an_extra_that_does_not_load_says_why(tmp_path, monkeypatch, source, line):
    (tmp_path / "broken_extra.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EdgennError, match=line) as refusal:
        require("broken_extra")
    assert "\n" not in str(refusal.value)


def test_evaluation_is_light_and_tensorflow_comes_without_a_word():
    program = """
import sys
import edgenn.evaluation, edgenn.evaluation.plots, edgenn.evaluation.report, edgenn.cli.evaluate
heavy = {"tensorflow", "keras", "matplotlib", "jinja2"} & set(sys.modules)
assert not heavy, heavy
from edgenn.extras import require
assert require("keras").backend.backend() == "tensorflow"
assert require("matplotlib.figure") is require("matplotlib.figure")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
