"""The Edge TPU compiler's logs and files, without the compiler: logs retyped from public issues, and a stand-in on the
PATH that prints them and leaves a file whose first operators are an edgetpu-custom-op."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner

from edgenn import convert
from edgenn.cli import cli
from edgenn.conversion import edgetpu, edgetpu_compiler
from edgenn.conversion.edgetpu import examine
from edgenn.conversion.edgetpu_compiler import parse
from edgenn_device import flatbuffer, standby
from edgenn_device.card import Card
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile, load

ROOT = Path(__file__).parents[2]
CORAL = ROOT.parent / "shared" / "models" / "coral"

# github.com/PINTO0309/openvino2tensorflow issue 28 (a ResNet18, compiler 15).
STREAMING = """
Edge TPU Compiler version 15.0.340273435

Model compiled successfully in 3388 ms.

Input model: resnet18/model_full_integer_quant.tflite
Input size: 13.35MiB
Output model: resnet18/model_full_integer_quant_edgetpu.tflite
Output size: 13.79MiB
On-chip memory used for caching model parameters: 6.15MiB
On-chip memory remaining for caching model parameters: 5.75KiB
Off-chip memory used for streaming uncached model parameters: 7.03MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 84
Operation log: resnet18/model_full_integer_quant_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported by \
the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 78
Number of operations that will run on CPU: 6
"""
# github.com/google-coral/edgetpu issue 342.
TABLE = """
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 153

Operator                       Count      Status

TRANSPOSE                      70         Operation not supported
FULLY_CONNECTED                1          More than one subgraph is not supported
PAD                            1          Mapped to Edge TPU
PAD                            17         More than one subgraph is not supported
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified \
limitation
"""
# The form of the two above, for the test's own network.
WHOLE = """
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 161 ms.

On-chip memory used for caching model parameters: 12.25KiB
On-chip memory remaining for caching model parameters: 7.68MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 6

Operator                       Count      Status

{table}
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def test_a_summary_is_read() -> None:
    log = parse(STREAMING)
    assert (log.version, log.subgraphs) == ("15.0.340273435", 1)
    assert log.on_chip == round(6.15 * 2**20)
    assert log.on_chip_left == round(5.75 * 2**10)
    assert log.off_chip == round(7.03 * 2**20)
    assert log.table == (), "sentences and sizes are no rows of the table"


def test_a_table_is_read() -> None:
    assert parse(TABLE).table == (
        ("TRANSPOSE", 70, "Operation not supported"),
        ("FULLY_CONNECTED", 1, "More than one subgraph is not supported"),
        ("PAD", 1, "Mapped to Edge TPU"),
        ("PAD", 17, "More than one subgraph is not supported"),
        (
            "QUANTIZE",
            1,
            "Operation is otherwise supported, but not mapped due to some unspecified limitation",
        ),
    )


def test_a_log_that_says_nothing() -> None:
    assert parse("") == edgetpu_compiler.Log("of unknown version", 0, None, None, None, ())


@pytest.fixture(scope="module")
def garments() -> ModelFile:
    return load(ROOT / "models" / "garments" / "garments.tflite")


def compiled(content: bytes, first: int) -> bytes:
    """What the compiler would write: the first operators of a flatbuffer as one edgetpu-custom-op, no metadata."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = "edgetpu-custom-op", 1
    model.operatorCodes.append(code)
    inside = schema.OperatorT()
    inside.opcodeIndex = len(model.operatorCodes) - 1
    inside.inputs, inside.outputs = list(graph.inputs), list(graph.operators[first - 1].outputs)
    graph.operators = [inside, *graph.operators[first:]]
    model.metadata = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


Install = Callable[..., None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """stand_in(log, file=…, script=…): an edgetpu_compiler on the PATH that prints `log`, leaves `file` where the real
    one would, and then does what `script` says."""

    def install(log: str = "", file: bytes | None = None, script: str = "") -> None:
        place = tmp_path / "bin"
        place.mkdir(exist_ok=True)
        (place / "log").write_text(log)
        if file is not None:
            (place / "file").write_bytes(file)
        program = place / edgetpu_compiler.COMPILER
        program.write_text(
            textwrap.dedent(f"""\
            #!/bin/sh
            [ "$1" = -s ] && [ "$2" = -o ] && [ -f "$4" ] || exit 64
            cat {place}/log
            [ -f {place}/file ] && cp {place}/file "$3/$(basename "$4" .tflite)_edgetpu.tflite"
            {script}
            """)
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")

    return install


def table(model: ModelFile, left: dict[str, str]) -> str:
    names = [operator.name for operator in model.graph.operators]
    return "\n".join(
        f"{name:30} {names.count(name):<10} {left.get(name, 'Mapped to Edge TPU')}" for name in dict.fromkeys(names)
    )


def test_a_model_that_is_mapped_wholly(garments: ModelFile, stand_in: Install) -> None:
    count = len(garments.graph.operators)
    stand_in(WHOLE.format(table=table(garments, {})), compiled(garments.content, count))
    report = examine(garments.content)
    assert (report.compiler, report.predicted, report.failure) == ("16.0.384591198", False, "")
    assert (report.operators, report.mapped, report.on_cpu, report.reasons) == (count, count, (), ())
    assert (report.on_chip, report.off_chip) == (round(12.25 * 1024), 0)
    assert report.lines()[0] == f"{count} of {count} operators on the Edge TPU (compiler 16.0.384591198)"
    assert "12.2 KiB on the chip, 7.68 MiB left; 0.0 KiB sent" in report.lines()[1]


def test_what_is_left_is_told_in_the_network_s_layers(garments: ModelFile, stand_in: Install) -> None:
    count = len(garments.graph.operators)
    # MEAN, FULLY_CONNECTED, SOFTMAX, QUANTIZE are the last four.
    left = {
        "MEAN": "Operation not supported",
        "FULLY_CONNECTED": "More than one subgraph is not supported",
        "SOFTMAX": "More than one subgraph is not supported",
    }
    stand_in(WHOLE.format(table=table(garments, left)), compiled(garments.content, count - 4))
    report = examine(garments.content)
    assert [(it.operator, it.layer) for it in report.on_cpu] == [
        ("MEAN", "layer 'pool'"),
        ("FULLY_CONNECTED", "layer 'scores'"),
        ("SOFTMAX", "layer 'scores_softmax'"),
        ("QUANTIZE", "layer 'scores_softmax'"),
    ]
    assert report.first is report.on_cpu[0]
    assert report.on_cpu[0].mend
    assert report.mapped == count - 4
    assert "first on the CPU: MEAN of layer 'pool' (Operation not supported)" in report.lines()[1]
    # The dense layer has multiply-adds: such a file is none for an Edge TPU.
    assert "4 of" in report.reasons[0]
    assert "layer 'pool'" in report.reasons[0]


def test_a_softmax_on_the_cpu_is_no_reason_to_refuse(garments: ModelFile, stand_in: Install) -> None:
    count = len(garments.graph.operators)
    stand_in(
        WHOLE.format(table=table(garments, {"SOFTMAX": "Operation not supported"})),
        compiled(garments.content, count - 2),
    )
    report = examine(garments.content)
    assert [it.operator for it in report.on_cpu] == ["SOFTMAX", "QUANTIZE"]
    assert report.reasons == ()


def test_a_file_that_was_copied_and_not_compiled(garments: ModelFile, stand_in: Install) -> None:
    """github.com/google-coral/edgetpu issues 222 and 358: "Number of Edge TPU subgraphs: 0", and yet successful."""
    stand_in(
        WHOLE.format(table=table(garments, {"CONV_2D": "Operation is working on an unsupported data type"})),
        garments.content,
    )
    report = examine(garments.content)
    assert report.mapped == 0
    assert report.reasons
    assert report.first is not None
    assert report.first.operator == "QUANTIZE"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        # 313
        ("Edge TPU Compiler version 15.0.340273435\nInvalid model: m.tflite\nModel not quantized\n", "not quantized"),
        # 631 and 845
        (
            "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version of this builtin might be "
            "supported. Are you using an old TFLite binary with a newer model?\n\nERROR: Registration failed.\n\n"
            "Invalid model: m.tflite\nModel could not be parsed\n",
            "older than CONV_2D version 6: build it without grouped",
        ),
        # 829
        (
            "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
            "dynamic-sized tensors.\nCompilation failed: Model failed in Tflite interpreter. Please ensure model can "
            "be loaded/run in Tflite interpreter.\nCompilation child process completed within timeout period.\n"
            "Compilation failed! \n",
            "batch of 1",
        ),
        # 444
        (
            "ERROR: Restored original execution plan after delegate application failure.\nCompilation failed: "
            "Compilation failed due to large activation tensors in model.\nCompilation failed! \n",
            "activations are too large",
        ),
        # 686
        ("Compilation timeout. This is usually caused by large activations.\nCompilation failed! \n", "too large"),
        # 728
        (
            "libc++abi: terminating with uncaught exception of type std::out_of_range: vector\n"
            "Compilation child process completed within timeout period.\nCompilation failed! \n",
            "crashed (std::out_of_range: vector)",
        ),
        # 189
        ("Edge TPU Compiler version 14.1.317412892\nInternal compiler error. Aborting!\n", "internal compiler error"),
        # 800 and 903
        (
            "Started a compilation timeout timer of 180 seconds.\nCompilation child process completed within timeout "
            "period.\nCompilation failed! \n",
            "does not say why",
        ),
        # None known of these: braces, bytes that are no text, nothing at all.
        ("ERROR: {weird} {0}\n", "{weird} {0}"),
        ("what is this\n", "status 1 and wrote no file (what is this)"),
        ("", "it said nothing"),
    ],
)
def test_a_compiler_that_refuses(garments: ModelFile, stand_in: Install, log: str, said: str) -> None:
    stand_in(log, script="exit 1")
    report = examine(garments.content)
    assert report.content is None
    assert not report.predicted
    assert said in report.failure
    assert "\n" not in report.failure
    assert report.lines() == report.reasons


def test_a_compiler_that_crashes_hangs_or_writes_rubbish(
    garments: ModelFile, stand_in: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(script="kill -SEGV $$")
    assert "it crashed (SIGSEGV)" in examine(garments.content).failure
    stand_in(file=b"rubbish")
    assert "what it wrote is no model" in examine(garments.content).failure
    monkeypatch.setattr(edgetpu_compiler, "PATIENCE", 0.2)
    # The child of the script holds the pipe: it has to die with it.
    stand_in(script="sleep 1000")
    assert "it has hung" in examine(garments.content).failure


def test_without_the_compiler_it_is_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    model = load(ROOT / "tests" / "data_files" / "tiny_int8.tflite")
    report = examine(model.content)
    assert report.predicted
    assert (report.mapped, report.reasons) == (len(model.graph.operators), ())
    lines = report.lines()
    assert "(predicted, not compiled)" in lines[0]
    assert "sudo apt install -y edgetpu-compiler" in lines[-1]
    assert report.to_dict()["predicted"] is True


def test_a_prediction_ends_at_the_first_operator_in_doubt(garments: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(garments.content))
    mean = next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.MEAN)
    mean.version = 3
    # As TFLite's own converter writes a Dense.
    graph, dense = (
        model.subgraphs[0],
        model.operatorCodes.index(
            next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED)
        ),
    )
    weights = graph.tensors[next(one for one in graph.operators if one.opcodeIndex == dense).inputs[1]].quantization
    weights.scale, weights.zeroPoint = list(weights.scale) * 3, [0] * 3
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    report = examine(bytes(builder.Output()))
    assert [it.operator for it in report.on_cpu] == ["MEAN", "FULLY_CONNECTED", "SOFTMAX", "QUANTIZE"]
    assert report.first is report.on_cpu[0]
    assert "version 2" in report.on_cpu[0].why
    assert "a scale for each output" in report.on_cpu[1].why
    assert "comes after" in report.on_cpu[2].why


def test_which_is_faster_is_worked_out_and_doubtful_near_one() -> None:
    def report(seconds: float, cpu: float) -> str:
        return edgetpu.Report("16", b"", 1, (), 1, seconds=seconds, cpu_seconds=cpu).faster

    assert report(0.004, 0.016) == "the Edge TPU is faster"
    assert report(0.004, 0.001) == "the CPU alone is faster"
    assert report(0.004, 0.005) == "about as fast as each other"


def test_streaming_parameters_costs_time(garments: ModelFile, stand_in: Install) -> None:
    """7.03 MiB of openvino2tensorflow issue 28 over 267 MB/s, the link of a Pi 4: 27.6 ms."""
    log = WHOLE.format(table=table(garments, {}))
    whole = compiled(garments.content, len(garments.graph.operators))
    stand_in(log, whole)
    kept = examine(garments.content).seconds
    stand_in(log.replace("parameters: 0.00B", "parameters: 7.03MiB"), whole)
    sent = examine(garments.content).seconds
    assert kept is not None
    assert sent is not None
    assert sent - kept == pytest.approx(7.03 * 2**20 / 267e6)


def test_the_compiled_file_has_card_and_labels_again(garments: ModelFile, tmp_path: Path) -> None:
    card = garments.card
    assert isinstance(card, Card)
    place = edgetpu.beside(tmp_path / "garments.tflite")
    place.write_bytes(edgetpu.with_card(compiled(garments.content, len(garments.graph.operators)), card))
    assert place.name == "garments_edgetpu.tflite"
    assert standby.twin_of(place) == tmp_path / "garments.tflite"
    model = load(place)
    assert model.card is not None
    assert (model.labels, model.input) == (garments.labels, garments.input)
    assert model.card.golden == {}, "the vectors are the CPU's"
    assert "TFLITE_METADATA" in model.graph.metadata
    assert [operator.name for operator in model.graph.operators] == ["edgetpu-custom-op"]


@pytest.mark.slow
@pytest.mark.skipif(not CORAL.exists(), reason="Coral's test models are not here")
@pytest.mark.parametrize(
    ("name", "faster"),
    [
        # 14 million multiply-adds: starting the Edge TPU takes longer than a Pi 4's cores do.
        ("mobilenet_v1_0.25_128_quant", "the CPU alone is faster"),
        ("mobilenet_v2_1.0_224_quant", "the Edge TPU is faster"),
    ],
)
def test_files_that_google_compiled(name: str, faster: str, stand_in: Install, tmp_path: Path) -> None:
    twin = load(CORAL / f"{name}.tflite")
    stand_in(WHOLE.format(table=table(twin, {})), (CORAL / f"{name}_edgetpu.tflite").read_bytes())
    report = examine(twin.content)
    assert report.content is not None
    assert (report.on_cpu, report.reasons) == ((), ())
    assert report.faster == faster
    card = Card(name, tuple(f"class {index}" for index in range(twin.classes)), twin.input)
    (tmp_path / "x_edgetpu.tflite").write_bytes(edgetpu.with_card(report.content, card))
    assert load(tmp_path / "x_edgetpu.tflite").labels[0] == "class 0"
    assert flatbuffer.parse(report.content).operators[0].name == "edgetpu-custom-op"


def test_convert_compiles_and_writes_the_pair(tiny: Path, tmp_path: Path, stand_in: Install) -> None:
    """With a stand-in that compiles whatever it is given but the last two operators, as far as names go."""
    (tmp_path / "compile.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_edgetpu import compiled\n"
        "from edgenn_device import flatbuffer\n"
        "content = Path(sys.argv[2]).read_bytes()\n"
        "count = len(flatbuffer.parse(content).operators) - 2\n"
        "Path(sys.argv[1], 'model_edgetpu.tflite').write_bytes(compiled(content, count))\n"
    )
    status = "SOFTMAX                        1          Operation not supported"
    stand_in(WHOLE.format(table=status), script=f'{sys.executable} {tmp_path}/compile.py "$3" "$4"')
    out = tmp_path / "shapes.tflite"
    done = CliRunner().invoke(
        cli, ["convert", str(tiny / "run"), "--target", "coral", "--out", str(out), "--max-drop", "100"]
    )
    assert done.exit_code == 0, done.output
    assert "operators on the Edge TPU (compiler 16.0.384591198)" in done.output
    assert "first on the CPU: SOFTMAX of layer 'scores' (Operation not supported)" in done.output
    assert "ran in     ai-edge-litert" in done.output
    place = tmp_path / "shapes_edgetpu.tflite"
    twin, model = load(out), load(place)
    assert (model.labels, model.input) == (twin.labels, twin.input)
    assert [operator.name for operator in model.graph.operators] == ["edgetpu-custom-op", "SOFTMAX", "QUANTIZE"]
    # Neither of the pair is replaced by accident.
    out.unlink()
    with pytest.raises(EdgennError, match=r"shapes_edgetpu\.tflite exists"):
        convert(tiny / "run", target="coral", out=out)


@pytest.mark.slow
def test_a_compiler_that_refuses_leaves_no_pair_but_a_rejected_file(
    tiny: Path, tmp_path: Path, stand_in: Install
) -> None:
    stand_in("Internal compiler error. Aborting!\n")
    result = convert(tiny / "run", target="coral", out=tmp_path / "other.tflite", max_drop=100)
    assert not result.passed
    assert "internal compiler error" in result.reasons[0]
    assert result.compiled is None
    assert {path.name for path in tmp_path.glob("other*")} == {"other.rejected.tflite"}
