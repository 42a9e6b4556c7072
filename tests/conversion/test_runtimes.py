"""Every runtime that a target names runs the file; one that is not here is said to be missing, and is no failure."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenn.conversion import runtimes
from edgenn.conversion.runtimes import Ran, run_in_each
from edgenn_device import golden
from edgenn_device.card import Card
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile, load

ROOT = Path(__file__).parents[2]
OLD_PYTHON = ROOT / ".venv-tflite-runtime" / "bin" / "python"
needs_old = pytest.mark.skipif(
    not OLD_PYTHON.exists(), reason="no environment with tflite-runtime: make test makes one"
)


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return load(ROOT / "models" / "garments" / "garments.tflite")


@needs_old
@pytest.mark.parametrize("target", ["pi", "coral"])
def test_a_good_file_runs_in_all_three(model: ModelFile, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtimes.VARIABLE, str(OLD_PYTHON))
    ran = run_in_each(model, target)
    assert [it.ok for it in ran] == [True] * 3
    assert ran[0].runtime.endswith("(XNNPACK)")
    assert ran[1].runtime.endswith("(built-in)")
    assert ran[2].runtime == "tflite-runtime 2.14.0"


@needs_old
def test_float_files_run_in_all_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtimes.VARIABLE, str(OLD_PYTHON))
    model = load(ROOT / "tests" / "data_files" / "tiny_float.tflite")
    card = Card("tiny", tuple(f"class {index}" for index in range(model.classes)), model.input)
    assert all(it.ok for it in run_in_each(replace(model, card=card), "pi"))


@needs_old
def test_other_scores_are_a_failure(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    record = golden.record

    def shifted(of: ModelFile) -> dict[str, object]:
        vectors = record(of)
        one_more = np.asarray(vectors["builtin"]) ^ 1
        return {**vectors, "builtin": one_more.tolist()}

    monkeypatch.setenv(runtimes.VARIABLE, str(OLD_PYTHON))
    monkeypatch.setattr(golden, "record", shifted)
    ran = run_in_each(model, "pi")[-1]
    assert ran.ok is False
    assert "tflite-runtime 2.14.0 computes other scores" in ran.reason


@needs_old
def test_an_operator_that_it_lacks_is_refused(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOFTMAX of a version that LiteRT would refuse as well: what LiteRT says is put aside here."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model.content))
    for code in parsed.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.SOFTMAX:
            code.version = 99
    builder = Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    newer = replace(model, content=bytes(builder.Output()))
    assert newer.card is not None
    here = run_in_each(newer, "pi")
    assert [it.ok for it in here] == [False, False], "LiteRT refuses it, and no other is asked"
    assert "SOFTMAX" in here[0].reason
    monkeypatch.setenv(runtimes.VARIABLE, str(OLD_PYTHON))
    ran = runtimes._in_tflite_runtime(newer, newer.card)
    assert ran.ok is False
    assert "refuses it" in ran.reason
    assert "SOFTMAX" in ran.reason


def test_a_runtime_that_crashes_is_a_failure(model: ModelFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setenv(runtimes.VARIABLE, str(crashing))
    assert run_in_each(model, "pi")[-1] == Ran("tflite-runtime 2.14", False, "crashes on it (SIGSEGV)")


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/no/such/python", "which is no file"),
        # A program that is no Python, one that cannot be run, and a Python without it.
        ("/bin/true", "it said nothing"),
        (__file__, "cannot be run"),
        (sys.executable, "tflite-runtime"),
    ],
)
def test_a_runtime_that_is_not_here_is_said_and_is_no_failure(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, python: str, said: str
) -> None:
    monkeypatch.setenv(runtimes.VARIABLE, python)
    if python == sys.executable and runtimes.available_runtimes()["tflite-runtime"]:
        pytest.skip("this Python has it")
    ran = run_in_each(model, "pi")[-1]
    assert (ran.runtime, ran.ok) == ("tflite-runtime 2.14", None)
    assert said in ran.detail
    assert "its operators and versions looked up" in ran.detail
    assert "pip install tflite-runtime==2.14.0 'numpy<2'" in ran.remedy


def test_it_looks_beside_the_environment_that_edgenn_runs_in(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(runtimes.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(runtimes, "available_runtimes", lambda: {"tflite-runtime": None})
    assert f"there is no {tmp_path}/.venv-tflite-runtime)" in run_in_each(model, "pi")[-1].detail
    place = tmp_path / ".venv-tflite-runtime" / "bin"
    place.mkdir(parents=True)
    (place / "python").write_text("")
    assert runtimes.python_with_tflite_runtime() == (place / "python", "")


def test_requests_that_make_no_sense(model: ModelFile) -> None:
    with pytest.raises(EdgennError, match="no target"):
        run_in_each(model, "moon")
    with pytest.raises(EdgennError, match="no card"):
        run_in_each(replace(model, card=None), "pi")
