"""Which target can run what, and that the answer says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from edgenn.conversion import attempt, targets
from edgenn.conversion.layer_names import keras_layers, name_layers
from edgenn.conversion.quantize import Quantized
from edgenn.conversion.targets import check, coral
from edgenn.conversion.targets.pi import runtime_operators
from edgenn_device import flatbuffer
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
        # The version of the int8 form: to convert once more mends nothing.
        ("SOFTMAX", {"name": "LOG", "version": 2}, "needs 2 (layer 'dense_1'): run it with ai-edge-litert (64-bit sys"),
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
    verdict = check(partly, "coral")
    assert verdict.ok
    assert "on the CPU, run 1 of its operators: QUANTIZE of tensor" in verdict.reasons[0]


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
    models = sorted(CORAL.glob("*.tflite"))
    assert models
    for path in models:
        model = load(path)
        assert check(model, "coral").ok, path
        assert check(model, "pi").ok == ("edgetpu" not in path.name), path


def test_the_tables_name_operators_that_exist() -> None:
    assert set(runtime_operators()) <= set(OPERATORS)
    assert set(coral.OPERATORS) <= set(runtime_operators())
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


def named(model: ModelFile, names: dict[int, str]) -> ModelFile:
    """The model with the outputs of some operators called otherwise."""
    for index, name in names.items():
        model = retyped(model, model.graph.operators[index].outputs[0], name=name)
    return model


def nameless(model: ModelFile) -> ModelFile:
    """The model with no layer's name on any tensor."""
    tensors = tuple(replace(tensor, name="x") for tensor in model.graph.tensors)
    return replace(model, graph=replace(model.graph, tensors=tensors))


def test_a_reason_names_the_layer_and_what_to_use_instead(tiny: ModelFile) -> None:
    dense = [operator.name for operator in tiny.graph.operators].index("SOFTMAX")
    model = named(changed(tiny, "SOFTMAX", name="GELU", version=1), {dense: "sequential/curve/Gelu/mul_2"})
    for layers in ((), ("stem", "curve", "scores")):
        assert (
            "map GELU, or not reliably; it and all after it would run on the CPU (layer 'curve'): use ReLU"
            in (check(model, "coral", layers).reasons[0])
        )


def test_an_operator_in_many_layers_names_the_first_of_them(tiny: ModelFile) -> None:
    operators = tiny.graph.operators
    convolutions = [index for index, operator in enumerate(operators) if "CONV" in operator.name]
    both = tuple(
        replace(operator, name="CONV_2D", version=6) if index in convolutions else operator
        for index, operator in enumerate(operators)
    )
    model = replace(tiny, graph=replace(tiny.graph, operators=both))
    model = named(model, {index: f"sequential/c{index}/Relu;sequential/c{index}/convolution" for index in convolutions})
    reasons = check(model, "coral").reasons
    assert len(reasons) == 1
    assert f"(layer 'c{convolutions[0]}'" in reasons[0]


@pytest.mark.parametrize(
    ("tensor", "layers", "name"),
    [
        # Called once by Keras and once by the converter: a number behind each layer's name.
        ("functional_1/re_lu_2_1/Relu;functional_1/pointwise_1/convolution", ("re_lu_2", "pointwise"), "pointwise"),
        ("functional_1/conv_1_1/convolution", ("conv", "conv_1"), "conv_1"),
        # Called once, as older Keras does: conv_1 is the layer of that name.
        ("model/conv_1/Conv2D", ("conv", "conv_1", "conv_1_1"), "conv_1"),
        # A network within a network: the layer itself, not the network that holds it.
        ("functional_1/backbone_1/stem_1/convolution", ("backbone", "stem"), "stem"),
        # The depthwise half of a SeparableConv2D in a simulated network.
        ("functional_1/sep_depthwise_1/depthwise", ("sep",), "sep"),
        # Nothing known of the network.
        ("functional_1/stem_1/Relu;functional_1/stem_1/convolution", (), "stem"),
        ("model/stem/Conv2D", (), "stem"),
    ],
)
def test_layers_are_found_in_the_names_of_tensors(
    tiny: ModelFile, tensor: str, layers: tuple[str, ...], name: str
) -> None:
    names = [operator.name for operator in tiny.graph.operators]
    index = names.index("CONV_2D")
    model = named(nameless(tiny), {index: tensor})
    assert name_layers(model.graph, layers)[index] == f"layer {name!r}"


def test_somebody_else_s_file_names_its_tensor(tiny: ModelFile) -> None:
    model = named(nameless(tiny), {1: "MobilenetV1/Conv2d_0/Relu6"})
    assert name_layers(model.graph)[1] == "tensor 'MobilenetV1/Conv2d_0/Relu6'"


def test_layers_of_a_network_within_a_network_are_its_own() -> None:
    inside = SimpleNamespace(name="backbone", layers=[SimpleNamespace(name="stem")])
    model = SimpleNamespace(layers=[inside, SimpleNamespace(name="flat")])
    assert keras_layers(model) == ("backbone", "stem", "flat")


def test_which_findings_a_scale_for_the_dense_layer_mends(tiny: ModelFile) -> None:
    def found(model: ModelFile, target: str) -> tuple[targets.Finding, ...]:
        return targets.findings(model.graph, model.content, target)

    dense = next(operator for operator in tiny.graph.operators if operator.name == "FULLY_CONNECTED")
    scales = retyped(tiny, dense.inputs[1], scales=(0.1, 0.2, 0.3))
    assert "a scale for each output" in str(targets.dense_scales(found(scales, "coral")))
    assert targets.dense_scales(found(changed(tiny, "FULLY_CONNECTED", version=12), "pi"))
    # A Dense layer on pictures keeps its dimensions, and no scale changes that.
    kept = changed(tiny, "FULLY_CONNECTED", version=5)
    assert targets.dense_scales(found(kept, "coral")) is None
    assert "Conv2D of 1x1" in check(kept, "coral").reasons[0]
    assert targets.dense_scales(found(tiny, "coral")) is None


def test_what_a_setting_mends_is_converted_again_with_it_and_told(tiny: ModelFile) -> None:
    @dataclass(frozen=True)
    class Quantizer:
        """Gives a FULLY_CONNECTED that tflite-runtime lacks, unless Dense layers have one scale."""

        say: Callable[[str], None]
        per_tensor_dense: bool = False

        def make(self, scheme: str) -> Quantized:
            model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tiny.content))
            for code in model.operatorCodes:
                if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED and not self.per_tensor_dense:
                    code.version = 12
            builder = Builder(1024)
            builder.Finish(model.Pack(builder), b"TFL3")
            return Quantized(bytes(builder.Output()), scheme)

    said: list[str] = []
    made = attempt.quantized(Quantizer(said.append), "int8", "pi")  # type: ignore[arg-type]
    assert targets.findings(flatbuffer.parse(made.content), made.content, "pi") == ()
    assert len(made.notes) == 1
    assert (
        "converted again with one scale for each Dense layer: tflite-runtime 2.14 has FULLY_CONNECTED" in made.notes[0]
    )
    assert said == list(made.notes)
    # Nothing to mend, and what this setting has no part in: once is enough.
    for one_scale, scheme in ((True, "int8"), (False, "float16")):
        quantizer = Quantizer(said.append, one_scale)
        assert attempt.quantized(quantizer, scheme, "pi").notes == ()  # type: ignore[arg-type]
