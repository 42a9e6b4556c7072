"""Which target can run what, and that the answer says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgenn.conversion import targets
from edgenn.conversion.targets import check, runtime_operators
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph, Operator
from edgenn_device.model_file import ModelFile, load
from edgenn_device.operators import OPERATORS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "data_files"
OLD_PYTHON = ROOT / ".venv-tflite-runtime" / "bin" / "python"
CORAL = ROOT.parent / "shared" / "models" / "coral"


@pytest.fixture(scope="module")
def tiny() -> ModelFile:
    return load(FOLDER / "tiny_int8.tflite")


def changed(model: ModelFile, which: str, /, **values: object) -> ModelFile:
    """The model with one operator changed."""
    operators = list(model.graph.operators)
    index = next(index for index, operator in enumerate(operators) if operator.name == which)
    operators[index] = replace(operators[index], **values)
    return replace(model, graph=replace(model.graph, operators=tuple(operators)))


def retyped(model: ModelFile, index: int, **values: object) -> ModelFile:
    """The model with one tensor changed."""
    tensors = list(model.graph.tensors)
    tensors[index] = replace(tensors[index], **values)
    return replace(model, graph=replace(model.graph, tensors=tuple(tensors)))


def test_a_plain_int8_network_runs_everywhere(tiny: ModelFile) -> None:
    assert check(tiny, "pi") == targets.Verdict(True)
    assert check(tiny, "coral") == targets.Verdict(True)


def test_a_float_network_runs_on_a_pi_only() -> None:
    model = load(FOLDER / "tiny_float.tflite")
    assert check(model, "pi").ok
    verdict = check(model, "coral")
    assert not verdict.ok
    assert "float" in verdict.reasons[0]
    assert "--quantization int8" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("FULLY_CONNECTED", {"version": 12}, "FULLY_CONNECTED up to version 10 and the model needs 12"),
        ("SOFTMAX", {"name": "STABLEHLO_ADD"}, "has no STABLEHLO_ADD"),
        ("SOFTMAX", {"name": "FlexErf", "custom": True}, "FlexErf is a custom operator"),
        ("SOFTMAX", {"name": "edgetpu-custom-op", "custom": True}, "compiled for the Edge TPU"),
    ],
)
def test_what_a_pi_cannot_run(tiny: ModelFile, name: str, values: dict[str, object], reason: str) -> None:
    verdict = check(changed(tiny, name, **values), "pi")
    assert not verdict.ok
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
    assert ":" in verdict.reasons[0]  # ...: what to do


def test_dense_weights_that_tflite_runtime_computes_wrongly(tiny: ModelFile) -> None:
    dense = next(operator for operator in tiny.graph.operators if operator.name == "FULLY_CONNECTED")
    weights = tiny.graph.tensors[dense.inputs[1]]
    model = retyped(tiny, dense.inputs[1], scales=weights.scales * weights.shape[0])
    assert check(model, "pi").ok  # all int8: it computes that right
    verdict = check(retyped(model, dense.inputs[0], dtype="float32", scales=(), zero_points=()), "pi")
    assert not verdict.ok
    assert "computes FULLY_CONNECTED wrongly" in verdict.reasons[0]


def _pooling(activation: int) -> dict[str, object]:
    return {"name": "AVERAGE_POOL_2D", "version": 2, "options": (0, 1, 1, 2, 2, activation)}


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("CONV_2D", {"version": 6}, "CONV_2D up to version 3"),  # grouped
        ("SOFTMAX", {"name": "GELU"}, "GELU"),
        ("SOFTMAX", {"name": "RESIZE_BILINEAR", "version": 3}, "half_pixel_centers"),
        ("SOFTMAX", {"name": "custom-op", "custom": True}, "custom-op"),
        ("CONV_2D", {"options": (0, 1, 1, 1, 1, 2, 0)}, "dilated differently"),
        ("SOFTMAX", _pooling(1), "activation fused"),
        ("SOFTMAX", _pooling(0), None),
        ("FULLY_CONNECTED", {"options": (0, 1, 0, 0, 0, None)}, "shuffled"),
    ],
)
def test_what_the_edge_tpu_compiler_does_not_map(
    tiny: ModelFile, name: str, values: dict[str, object], reason: str | None
) -> None:
    verdict = check(changed(tiny, name, **values), "coral")
    assert verdict.ok == (reason is None)
    assert [reason in sentence for sentence in verdict.reasons] == ([True] if reason else [])


def test_tensors_that_the_edge_tpu_does_not_take(tiny: ModelFile) -> None:
    index = tiny.graph.operators[1].outputs[0]
    for values, reason in (
        ({"signature": (-1, 16, 16, 8)}, "no fixed shape"),
        ({"shape": (2, 16, 16, 8)}, "batch of 1"),
        ({"dtype": "int16"}, "int16"),
        ({"dtype": "float16"}, "--quantization int8"),
    ):
        verdict = check(retyped(tiny, index, **values), "coral")
        assert not verdict.ok
        assert reason in verdict.reasons[0]


def test_a_scale_for_each_output_of_a_dense_layer_is_at_risk(tiny: ModelFile) -> None:
    dense = next(operator for operator in tiny.graph.operators if operator.name == "FULLY_CONNECTED")
    weights = tiny.graph.tensors[dense.inputs[1]]
    verdict = check(retyped(tiny, dense.inputs[1], scales=weights.scales * 3), "coral")
    assert not verdict.ok
    assert "--target coral" in verdict.reasons[0]


def test_a_mean_over_channels_is_at_risk(tiny: ModelFile) -> None:
    axes = next(operator for operator in tiny.graph.operators if operator.name == "MEAN").inputs[1]
    offset = tiny.graph.tensors[axes].offset
    content = tiny.content[:offset] + bytes([2, 0, 0, 0, 3, 0, 0, 0]) + tiny.content[offset + 8 :]
    verdict = check(replace(tiny, content=content), "coral")
    assert not verdict.ok
    assert "height and width" in verdict.reasons[0]


def test_parameters_beyond_the_chip_s_memory_are_a_note(tiny: ModelFile) -> None:
    weights = tiny.graph.operators[1].inputs[1]
    verdict = check(retyped(tiny, weights, bytes=12 << 20), "coral")
    assert verdict.ok
    assert "12.0 MB" in verdict.reasons[0]


def test_a_model_compiled_for_the_edge_tpu(tiny: ModelFile) -> None:
    inside = Operator("edgetpu-custom-op", 1, True, tiny.graph.inputs, tiny.graph.outputs)
    compiled = replace(tiny, graph=replace(tiny.graph, operators=(inside,)))
    assert check(compiled, "coral") == targets.Verdict(True)
    assert not check(compiled, "pi").ok
    partly = replace(tiny, graph=replace(tiny.graph, operators=(inside, tiny.graph.operators[-1])))
    assert check(partly, "coral") == targets.Verdict(True, ("1 operators after the Edge TPU's part run on the CPU.",))


def test_an_operator_that_occurs_often_is_named_once(tiny: ModelFile) -> None:
    graph: Graph = replace(
        tiny.graph,
        operators=tuple(
            replace(operator, version=9) if operator.name == "CONV_2D" else operator
            for operator in tiny.graph.operators
        ),
    )
    assert len(check(replace(tiny, graph=graph), "pi").reasons) == 1


def test_there_is_no_other_target(tiny: ModelFile) -> None:
    with pytest.raises(EdgennError, match="choose one of pi, coral"):
        check(tiny, "jetson")


@pytest.mark.skipif(not CORAL.exists(), reason="Coral's test models are not here")
def test_google_s_models_run_where_google_runs_them() -> None:
    for path in CORAL.glob("*.tflite"):
        model = load(path)
        assert check(model, "coral").ok, path
        assert check(model, "pi").ok == ("edgetpu" not in path.name), path


def test_the_tables_name_operators_that_exist() -> None:
    assert set(runtime_operators()) <= set(OPERATORS)
    assert set(targets.EDGETPU_OPERATORS) <= set(runtime_operators())
    assert runtime_operators()["CONV_2D"] == 7


def test_a_pi_needs_no_tensorflow_for_it() -> None:
    script = (
        "import sys, json; from edgenn.conversion import targets; from edgenn_device.model_file import load;"
        f"targets.check(load({str(FOLDER / 'tiny_int8.tflite')!r}), 'coral');"
        "print(json.dumps([m for m in ('tensorflow', 'keras', 'ai_edge_litert', 'cv2') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


_HAS = """
import sys
from pathlib import Path
from tflite_runtime.interpreter import Interpreter
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        Interpreter(model_content=path.read_bytes())
        print(path.stem, "yes")
    except ValueError:
        print(path.stem, "no")
"""


@pytest.mark.skipif(not OLD_PYTHON.exists(), reason="no environment with tflite-runtime: make test makes one")
def test_the_table_is_what_tflite_runtime_says(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from tflite_runtime_operators import question
    finally:
        sys.path.pop(0)
    for name in ("CONV_2D", "FULLY_CONNECTED", "RESIZE_BILINEAR", "GELU"):
        for beyond in (0, 1):
            version = runtime_operators()[name] + beyond
            (tmp_path / f"{name}-{beyond}").write_bytes(question(OPERATORS.index(name), version))
    done = subprocess.run([OLD_PYTHON, "-c", _HAS, tmp_path], capture_output=True, text=True, check=True)
    answers = dict(line.split() for line in done.stdout.splitlines())
    assert answers == {name: "yes" if name.endswith("0") else "no" for name in answers}
    assert len(answers) == 8
