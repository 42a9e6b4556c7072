"""Versions by the names of folders, beside what importlib.metadata says."""

import os
import subprocess
import sys
from importlib import metadata

import pytest

from edgenn_device import installed


@pytest.mark.parametrize("name", ["numpy", "edgenn", "ai-edge-litert", "opencv-python-headless", "AI_edge.LiteRT"])
def test_it_is_what_the_metadata_say(name):
    assert installed.version(name) == metadata.version(name)


@pytest.mark.parametrize(
    ("folder", "name", "version"),
    [
        ("tflite_runtime-2.14.0.dist-info", "tflite-runtime", "2.14.0"),
        ("tflite_runtime-2.14.0.egg-info", "tflite_runtime", "2.14.0"),  # Debian's
        ("tflite.Runtime-2.14.0-py3.11.egg-info", "tflite-runtime", "2.14.0"),  # setuptools' own
        ("tflite_runtime-2.14.0+cpu.dist-info", "tflite-runtime", "2.14.0+cpu"),
        ("tflite_runtime_nightly-2.14.0.dist-info", "tflite-runtime", None),  # another one
        ("tflite_runtime-2.14.0", "tflite-runtime", None),  # no metadata
    ],
)
def test_the_names_that_installers_give(tmp_path, monkeypatch, folder, name, version):
    (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys, "path", ["/no/such/folder", str(tmp_path)])
    assert installed.version(name) == version


def test_a_run_does_without_importlib_metadata(tmp_path):
    """It brings fifty modules that the start of a run would wait for."""
    loaded = "import sys, edgenn.cli.run, edgenn_device.runner, edgenn_device.sinks"
    code = f"{loaded}; print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "False", done.stderr
