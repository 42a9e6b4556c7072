"""TFLite Metadata is added in front of a model: standard tools find it, and not one score changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgenn.conversion.metadata import add
from edgenn_device import flatbuffer, metadata
from edgenn_device.card import Card, InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import attach

FOLDER = Path(__file__).parents[1] / "data_files"
OLD_PYTHON = Path(__file__).parents[2] / ".venv-tflite-runtime" / "bin" / "python"
CORAL = Path(__file__).parents[3] / "shared" / "models" / "coral"
NAMES = ("a", "b", "c")
CARDS = {
    "tiny_int8": Card("tiny", NAMES, InputSpec(32, 32)),
    "tiny_float": Card("tiny", NAMES, InputSpec(32, 32, dtype="float32", mean=127.5, std=64.0)),
}
MODELS = [(name, (FOLDER / f"{name}.tflite").read_bytes(), card) for name, card in CARDS.items()]
if CORAL.exists():
    MODELS.append(
        (
            "mobilenet",
            (CORAL / "mobilenet_v1_0.25_128_quant.tflite").read_bytes(),
            Card("mobilenet", tuple(f"class {index}" for index in range(1001)), InputSpec(128, 128)),
        )
    )
each = pytest.mark.parametrize(("name", "content", "card"), MODELS, ids=[name for name, _, _ in MODELS])


def scores(content: bytes, kernels: OpResolverType) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    tensor = interpreter.get_input_details()[0]
    random, found = np.random.RandomState(0), []
    for _ in range(5):
        picture = random.randint(0, 256, tensor["shape"]) * random.uniform(0, 1, (1, 1, 1, 3))
        if tensor["dtype"] == np.float32:
            picture = picture / 127.5 - 1
        interpreter.set_tensor(tensor["index"], picture.astype(tensor["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return found


@each
@pytest.mark.parametrize("kernels", [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES])
def test_not_one_score_changes(name: str, content: bytes, card: Card, kernels: OpResolverType) -> None:
    expected = scores(content, kernels)
    assert len({score.tobytes() for score in expected}) > 1  # else this would show nothing
    for before, after in zip(expected, scores(attach(add(content, card), card), kernels), strict=True):
        np.testing.assert_array_equal(before, after)


_IN_THE_OLD_RUNTIME = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
scores = []
for path in sys.argv[1:]:
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    tensor = interpreter.get_input_details()[0]
    random = np.random.RandomState(0)
    for _ in range(5):
        picture = random.randint(0, 256, tensor["shape"]) * random.uniform(0, 1, (1, 1, 1, 3))
        if tensor["dtype"] == np.float32:
            picture = picture / 127.5 - 1
        interpreter.set_tensor(tensor["index"], picture.astype(tensor["dtype"]))
        interpreter.invoke()
        scores.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes())
assert len(set(scores[:5])) > 1
sys.exit(scores[:5] != scores[5:])
"""


@pytest.mark.skipif(not OLD_PYTHON.exists(), reason="no environment with tflite-runtime: make test makes one")
@each
def test_nor_with_tflite_runtime(name: str, content: bytes, card: Card, tmp_path: Path) -> None:
    before, after = tmp_path / "before.tflite", tmp_path / "after.tflite"
    before.write_bytes(content)
    after.write_bytes(attach(add(content, card), card))
    done = subprocess.run([OLD_PYTHON, "-c", _IN_THE_OLD_RUNTIME, before, after], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@each
def test_the_model_stays_as_it_was(name: str, content: bytes, card: Card) -> None:
    after = add(content, card)
    assert after.endswith(content)
    assert (len(after) - len(content)) % 16 == 0  # so every constant keeps its alignment
    old, new = flatbuffer.parse(content), flatbuffer.parse(after)
    assert (new.inputs, new.outputs, new.operators, new.description) == (
        old.inputs,
        old.outputs,
        old.operators,
        old.description,
    )
    for before, now in zip(old.tensors, new.tensors, strict=True):
        assert now.offset % 16 == before.offset % 16
        assert after[now.offset : now.offset + now.bytes] == content[before.offset : before.offset + before.bytes] or (
            not now.constant
        )
    assert list(new.metadata) == [*old.metadata, metadata.ENTRY]
    assert all(new.metadata[entry] == value for entry, value in old.metadata.items())
    assert add(content, card) == after  # the same every time


@each
def test_the_official_schema_reads_it(name: str, content: bytes, card: Card) -> None:
    """By the generated code of another project: all the tables are where the schema says."""
    old = schema.ModelT.InitFromPackedBuf(content, 0)
    new = schema.ModelT.InitFromPackedBuf(add(content, card), 0)
    assert new.version == 3
    assert len(new.buffers) == len(old.buffers) + 1
    assert new.metadata[-1].name == b"TFLITE_METADATA"
    assert bytes(new.buffers[new.metadata[-1].buffer].data)[4:8] == b"M001"
    assert len(new.subgraphs[0].tensors) == len(old.subgraphs[0].tensors)
    assert (new.signatureDefs is None) == (old.signatureDefs is None)


@pytest.mark.parametrize(
    ("name", "card", "mean", "std"),
    [
        # byte -> scale * (byte - zero point), which is what the input's quantization makes of the byte itself
        ("tiny_int8", CARDS["tiny_int8"], 127.0, 127.5),
        ("tiny_float", CARDS["tiny_float"], 127.5, 64.0),
        ("tiny_float", Card("tiny", NAMES, InputSpec(32, 32, dtype="float32", mean=0, std=255)), 0.0, 255.0),
    ],
)
def test_the_normalisation_is_that_of_the_input(name: str, card: Card, mean: float, std: float) -> None:
    graph = flatbuffer.parse(add((FOLDER / f"{name}.tflite").read_bytes(), card))
    said = metadata.parse(graph.metadata[metadata.ENTRY])
    assert said.mean == pytest.approx((mean,), rel=1e-4)
    assert said.std == pytest.approx((std,), rel=1e-4)
    assert (said.name, said.colour, said.label_file) == ("tiny", "rgb", "labels.txt")


def test_bgr_is_not_called_rgb() -> None:
    card = Card("tiny", NAMES, InputSpec(32, 32, colour="bgr"))
    graph = flatbuffer.parse(add((FOLDER / "tiny_int8.tflite").read_bytes(), card))
    assert metadata.parse(graph.metadata[metadata.ENTRY]).colour is None


def test_metadata_is_not_added_twice() -> None:
    once = add((FOLDER / "tiny_int8.tflite").read_bytes(), CARDS["tiny_int8"])
    with pytest.raises(EdgennError, match="already"):
        add(once, CARDS["tiny_int8"])


def test_a_model_that_cannot_move_is_refused() -> None:
    """Buffers outside the tables are addressed from the start of the file."""
    model = schema.ModelT.InitFromPackedBuf((FOLDER / "tiny_int8.tflite").read_bytes(), 0)
    weights = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    weights.data, weights.offset, weights.size = None, 64, len(weights.data)
    builder = flatbuffers.Builder(16384)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(EdgennError, match="outside its tables"):
        add(bytes(builder.Output()), CARDS["tiny_int8"])


def test_a_damaged_metadata_is_refused() -> None:
    graph = flatbuffer.parse(add((FOLDER / "tiny_int8.tflite").read_bytes(), CARDS["tiny_int8"]))
    blob = graph.metadata[metadata.ENTRY]
    refused = 0
    for at in range(0, len(blob), 4):
        try:
            metadata.parse(blob[:at] + b"\xff\xff\xff\x7f" + blob[at + 4 :])
        except EdgennError:
            refused += 1
    assert refused > 20  # offsets; texts and numbers may be anything
    for size in range(0, len(blob), 16):
        try:
            metadata.parse(blob[:size])
        except EdgennError:
            refused += 1
    assert refused > 40
