"""Some hundred spoilt model files, and that the tool that makes them would notice what it looks for."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgenn_device import flatbuffer, model_file
from edgenn_device.errors import EdgennError
from edgenn_device.interpreter import Interpreter
from tools import fuzz_model_files
from tools.model_mutations import mutants

GOOD = Path(__file__).parents[1] / "data_files" / "tiny_int8.tflite"


def test_spoilt_files_are_refused_in_one_line_or_read() -> None:
    table, failed = fuzz_model_files.fuzz(400, seed=7, out=None, run=False)
    assert not failed, table
    assert len(table.splitlines()) > 12, "every kind of damage was done"
    counts = table.splitlines()[-2].split()
    assert int(counts[1]) > 200, "refused"
    assert int(counts[4]) > 20, "and some are sound enough to be read"


def test_equal_seeds_give_equal_files() -> None:
    bases = fuzz_model_files.bases()
    first, again, other = (list(islice(mutants(bases, seed), 60)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({content for _, content in first}) > 50


def raises(path: Path) -> None:
    raise ValueError("not for a user")


def speaks_in_lines(path: Path) -> None:
    raise EdgennError("two\nlines")


def writes(path: Path) -> None:
    (path.parent / "escaped").write_bytes(b"x")
    raise EdgennError("and hides it")


def hangs(path: Path) -> None:
    while True:
        try:
            time.sleep(10)
        except Exception:
            continue


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (raises, "ValueError: not for a user"),  # what a user would see as a traceback
        (speaks_in_lines, "not one line"),
        (writes, "wrote .*escaped"),  # a file beside the model
        (hangs, "took more than"),  # and swallows what would stop it
    ],
)
def test_each_failure_would_be_noticed(broken, said, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(model_file, "load", broken)
    monkeypatch.setattr(fuzz_model_files, "TIME_LIMIT", 0.1)
    path = tmp_path / "model.tflite"
    path.write_bytes(GOOD.read_bytes())
    assert re.match(said, fuzz_model_files.loaded(path))


def test_a_crash_of_the_runtime_is_counted_and_survived(monkeypatch, tmp_path) -> None:
    """The child is real, and ends as a native crash ends it; the next model runs in a new one."""
    site = tmp_path / "sitecustomize.py"
    site.write_text(
        "import os, sys\n"
        "if '--serve' in sys.orig_argv:\n"
        "    from edgenn_device import model_file\n"
        "    load = model_file.load\n"
        "    model_file.load = lambda path: os.abort() if 'bad' in path else load(path)\n"
    )
    monkeypatch.setattr(fuzz_model_files, "CHILD_PATH", [str(tmp_path)])
    good, bad = tmp_path / "good.tflite", tmp_path / "bad.tflite"
    for path in (good, bad):
        path.write_bytes(GOOD.read_bytes())
    runner = fuzz_model_files.Runner()
    try:
        assert [runner.run(path) for path in (good, bad, good)] == ["ran", "ended by SIGABRT", "ran"]
    finally:
        runner.close()


def _name_of_input(model: schema.ModelT) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].name = b"\xff\xfe"


def _uint8_softmax(model: schema.ModelT) -> None:
    """SOFTMAX from uint8 to int8, which kernels refuse when they run and not when they are prepared."""
    graph = model.subgraphs[0]
    softmax = graph.operators[-2]
    graph.tensors[softmax.inputs[0]].type = schema.TensorType.UINT8
    graph.operators = [softmax, graph.operators[-1]]
    graph.inputs = [softmax.inputs[0]]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_name_of_input, "refuses .*utf-8"),  # was a UnicodeDecodeError
        (_uint8_softmax, "cannot compute the model: .*uint8"),  # was a RuntimeError
    ],
)
def test_what_a_runtime_says_late_is_one_line_too(edit, said) -> None:
    model = schema.ModelT.InitFromPackedBuf(GOOD.read_bytes(), 0)
    edit(model)
    builder = flatbuffers.Builder(8192)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    # As `model_file.load` would give it, but for its check that the input is a picture.
    file = replace(model_file.load(GOOD), content=content, graph=flatbuffer.parse(content))
    with pytest.raises(EdgennError, match=said) as caught:
        interpreter = Interpreter(file, kernels="builtin")
        interpreter.invoke(np.zeros(interpreter.input.shape, interpreter.input.dtype))
    assert "\n" not in str(caught.value)
