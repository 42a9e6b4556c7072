"""What a TFLite runtime must never be given: the reader refuses it with one line, quickly, and nothing else happens."""

from __future__ import annotations

import inspect
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from edgenn.conversion import targets
from edgenn_device import soundness
from edgenn_device.errors import EdgennError
from edgenn_device.flatbuffer import parse
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.interpreter import Interpreter
from edgenn_device.model_file import load
from edgenn_device.operators import OPERATORS, OPTIONS, OPTIONS_2, OPTIONS_OF, POSITIONS, REQUIRED_INPUTS, TYPES
from edgenn_device.tables import Malformed

FOLDER = Path(__file__).parents[1] / "data_files"
CORAL = Path(__file__).parents[3] / "shared" / "models" / "coral"
TINY = (FOLDER / "tiny_int8.tflite").read_bytes()
MODELS = sorted(FOLDER.glob("*.tflite")) + sorted(CORAL.glob("*.tflite"))


def forge(edit: Callable[[schema.ModelT], object], content: bytes = TINY) -> bytes:
    """The model with its unpacked form edited: well-formed, and wrong where the edit made it so."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    edit(model)
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def outcome(content: bytes) -> Graph | None:
    """The graph, or None if refused; any other exception is a defect."""
    try:
        return parse(content)
    except EdgennError:
        return None


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_reads_what_the_official_schema_reads(path: Path) -> None:
    content = path.read_bytes()
    graph, model = parse(content), schema.ModelT.InitFromPackedBuf(content, 0)
    subgraph = model.subgraphs[0]
    assert graph.inputs == tuple(subgraph.inputs)
    assert graph.outputs == tuple(subgraph.outputs)
    assert graph.size == len(content)
    assert graph.subgraphs == len(model.subgraphs)
    assert graph.description == model.description.decode()
    assert len(graph.tensors) == len(subgraph.tensors)
    for tensor, expected in zip(graph.tensors, subgraph.tensors, strict=True):
        assert tensor.name == expected.name.decode()
        assert tensor.shape == tuple(expected.shape if expected.shape is not None else ())
        data = model.buffers[expected.buffer].data
        assert tensor.constant == (data is not None and len(data) > 0)
        if tensor.constant:
            assert content[tensor.offset : tensor.offset + tensor.bytes] == bytes(data)
        scale = expected.quantization.scale if expected.quantization else None
        assert tensor.scales == tuple(scale if scale is not None else ())
    assert len(graph.operators) == len(subgraph.operators)
    for operator, expected in zip(graph.operators, subgraph.operators, strict=True):
        code = model.operatorCodes[expected.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        assert operator.name == (code.customCode.decode() if operator.custom else OPERATORS[number])
        assert operator.version == code.version
        assert operator.inputs == tuple(expected.inputs)
        assert operator.outputs == tuple(expected.outputs)


def test_metadata_and_options_are_read() -> None:
    graph = parse(TINY)
    assert graph.metadata["min_runtime_version"].rstrip(b"\0") == b"1.14.0"
    convolution = next(operator for operator in graph.operators if operator.name == "CONV_2D")
    # padding SAME, strides 2 and 2, a fused RELU, and dilations whose default is 1
    assert convolution.options[:6] == (0, 2, 2, 1, 1, 1)


def test_vocabulary_is_that_of_the_schema() -> None:
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert [codes[number] for number in range(len(OPERATORS))] == list(OPERATORS)
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    assert [types[number] for number in range(len(TYPES))] == [name for name, _ in TYPES]
    for union, table in ((schema.BuiltinOptions, OPTIONS), (schema.BuiltinOptions2, OPTIONS_2)):
        members = {value: name for name, value in vars(union).items() if not name.startswith("_")}
        for number, (name, layout) in enumerate(table):
            if number:
                assert members[number] == f"{name}Options"
                assert _matches(layout, getattr(schema, members[number])), name
    assert set(REQUIRED_INPUTS) | set(POSITIONS) | set(OPTIONS_OF) <= set(OPERATORS)


def _matches(layout: str, options: type) -> bool:
    """Whether a layout has the fields that the generated class reads, in slot and in width."""
    widths = {"Bool": "b", "8": "b", "32": "i", "Float32": "f", "64": "q"}
    slots: dict[int, str] = {}
    for name, method in inspect.getmembers(options, inspect.isfunction):
        source = inspect.getsource(method)
        slot = re.search(r"_tab\.Offset\((\d+)\)", source)
        if slot is None or name.endswith(("AsNumpy", "Length", "IsNone")):
            continue
        kind = re.search(r"Get\(flatbuffers\.number_types\.(Bool|Float32|U?[Ii]nt(\d+))Flags", source)
        if kind is None:
            letter = "s"
        else:
            letter = widths[kind[1] if kind[2] is None else kind[2]]
            if "(self, j)" in source.split("\n")[0]:
                letter = letter.upper()
        slots[(int(slot[1]) - 4) // 2] = letter
    plain = layout.translate(str.maketrans("gpdG", "iiiI"))
    return {slot: letter for slot, letter in enumerate(plain) if letter != "x"} == slots


def test_every_truncation_is_refused() -> None:
    # The converter writes the operator codes last; only bytes of padding after them may go.
    accepted = [size for size in range(len(TINY)) if outcome(TINY[:size]) is not None]
    assert all(size >= len(TINY) - 4 for size in accepted)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),  # nothing
        (b"TFL3", "4 bytes"),  # shorter than a header
        (b"\x10\0\0\0TFL2" + bytes(100), "TFL3"),  # the identifier of another schema
        (b"\xff\xff\xff\x7fTFL3" + bytes(100), "outside"),  # root far behind the end
        (b"\x06\0\0\0TFL3" + bytes(100), "outside"),  # root not aligned
        (b"\x10\0\0\0TFL3" + bytes(100), "vtable"),  # vtable of size 0
    ],
)
def test_what_is_no_flatbuffer_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(EdgennError, match=reason):
        parse(content)


def _tensor(model: schema.ModelT, index: int = 0) -> schema.TensorT:
    return model.subgraphs[0].tensors[index]


def _operator(model: schema.ModelT, code: str) -> schema.OperatorT:
    return next(
        operator
        for operator in model.subgraphs[0].operators
        if OPERATORS[model.operatorCodes[operator.opcodeIndex].builtinCode] == code
    )


def _constant(model: schema.ModelT) -> schema.TensorT:
    return next(t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None)


def _set(target: object, **values: object) -> None:
    for name, value in values.items():
        assert hasattr(target, name), name
        setattr(target, name, value)


def _external(model: schema.ModelT) -> None:
    buffer = schema.ExternalBufferT()
    model.externalBuffers = [buffer]


def _calls_itself(model: schema.ModelT) -> None:
    operator = _operator(model, "SOFTMAX")
    code = model.operatorCodes[operator.opcodeIndex]
    code.deprecatedBuiltinCode, code.builtinCode = 118, OPERATORS.index("IF")
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.IfOptions, schema.IfOptionsT()


def _zero_stride(model: schema.ModelT) -> None:
    _operator(model, "CONV_2D").builtinOptions.strideW = 0


def _huge_dilation(model: schema.ModelT) -> None:
    _operator(model, "CONV_2D").builtinOptions.dilationHFactor = 65536


def _axes(model: schema.ModelT) -> None:
    axes = _tensor(model, _operator(model, "MEAN").inputs[1])
    model.buffers[axes.buffer].data = list(struct.pack("<2i", 1, 1000))


def _out_of_order(model: schema.ModelT) -> None:
    model.subgraphs[0].operators.reverse()


def _sparse(model: schema.ModelT) -> None:
    _constant(model).sparsity = sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1, 2, 99], [schema.DimensionMetadataT() for _ in range(4)]


def _given(model: schema.ModelT, kind: str) -> schema.TensorT:
    return _tensor(model, _operator(model, kind).outputs[0])


def _steep(model: schema.ModelT) -> None:
    for kind in ("CONV_2D", "FULLY_CONNECTED"):
        weights = _tensor(model, _operator(model, kind).inputs[1]).quantization
        weights.scale = [1e6, *weights.scale[1:]]


def test_sums_that_xnnpack_cannot_scale_are_a_line_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(forge(_steep))
    model = load(tmp_path / "m.tflite")
    with pytest.raises(EdgennError, match=r"XNNPACK's kernels: CONV_2D multiplies its sums by .*e\+.*equalized"):
        Interpreter(model)
    assert "multiplies its sums by" in targets.check(model, "pi").reasons[0]
    scores = Interpreter(model, kernels="builtin").invoke(np.zeros((1, *model.input.shape), model.input.dtype))
    assert scores.shape[-1] == model.classes


@pytest.mark.parametrize("scale", [0.0, -0.0, 1e-40, 1e10])
def test_an_addition_s_scales_are_all_looked_at(scale: float) -> None:
    """Of constants too, of which elsewhere one may be 0: the kernels divide by it."""
    tensors = [
        Tensor("a", (1, 2), "int8", (0.1,), (0,), False, 2),
        Tensor("b", (1, 2), "int8", (scale,), (0,), True, 2),
        Tensor("sum", (1, 2), "int8", (0.1,), (0,), False, 2),
    ]
    with pytest.raises(Malformed, match="operator ADD has the scales"):
        soundness.check(b"", tensors, [Operator("ADD", 2, False, (0, 1), (2,), (0,))], [0], [2])


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda m: _set(m, version=2), "schema has version 2"),
        (lambda m: _set(m, subgraphs=[]), "no graph"),
        (lambda m: _set(m.subgraphs[0], inputs=[99]), "tensor 99 of"),
        (lambda m: _set(m.subgraphs[0], outputs=[-1]), "tensor -1 of"),
        (lambda m: _set(m.subgraphs[0].operators[0], opcodeIndex=9), "operator code 9 of"),
        (lambda m: _set(m.subgraphs[0].operators[0], inputs=[77]), "tensor 77 of"),
        (lambda m: _set(m.subgraphs[0].operators[0], outputs=[77]), "tensor 77 of"),
        (lambda m: _set(m.subgraphs[0].operators[0], intermediates=[77]), "tensor 77 of"),
        (lambda m: _set(m.subgraphs[0].operators[0], inputs=[-1]), "lacks inputs"),  # -1 only where it is optional
        (lambda m: _set(m.subgraphs[0].operators[0], outputs=list(m.subgraphs[0].inputs)), "computed twice"),
        (lambda m: _set(_operator(m, "CONV_2D"), outputs=[_operator(m, "CONV_2D").inputs[1]]), "into the constant"),
        (lambda m: _set(m.subgraphs[0], operators=[]), "is never computed"),
        (_out_of_order, "before it is computed"),  # operators run in the file's order
        (lambda m: _set(m.operatorCodes[0], builtinCode=5000), "5000 is newer"),
        (lambda m: _set(m.operatorCodes[0], builtinCode=32, deprecatedBuiltinCode=32), "has no name"),  # custom
        (lambda m: _set(_operator(m, "CONV_2D"), builtinOptions=None, builtinOptionsType=0), "lacks its options"),
        (lambda m: _set(_given(m, "MEAN"), type=schema.TensorType.INT16), "reads int8 and gives int16"),
        (_zero_stride, "step 0"),  # a division by zero
        (_huge_dilation, "step 65536"),  # becomes 0 in 16 bits, and a division by zero
        (lambda m: _set(_tensor(m, _operator(m, "CONV_2D").inputs[0]), shape=[1, 32, 32, 42]), "for 42 channels"),
        (_axes, "axes"),
        (_calls_itself, "calls itself"),  # an endless recursion in the runtime
        (_external, "another file"),
        (_sparse, "mixed up"),
        (lambda m: _set(_tensor(m), buffer=999), "buffer 999 of"),
        (lambda m: _set(_tensor(m), type=99), "type 99 of"),
        (lambda m: _set(_tensor(m), shape=[1] * 9), "shape"),
        (lambda m: _set(_tensor(m), shape=[1, -1, 32, 3]), "shape"),
        (lambda m: _set(_tensor(m), shape=[1, 1 << 30, 1 << 30, 3], shapeSignature=None), "would take"),
        (lambda m: _set(_tensor(m), shapeSignature=[1, 2]), "signature"),
        (lambda m: _set(_tensor(m), shape=[1, 32, 32, 0]), "is empty"),
        (lambda m: _set(_constant(m), shape=[3, 5, 7]), "constant"),  # more or fewer values than its shape
        (lambda m: _set(_constant(m), isVariable=True), "variable with constant values"),
        (lambda m: _set(_constant(m), type=schema.TensorType.STRING), "strings"),
        (lambda m: _set(_tensor(m).quantization, scale=[0.1, 0.1]), "scales"),
        (lambda m: _set(_tensor(m).quantization, scale=[0.0]), "scale 0"),  # XNNPACK ends the process
        (lambda m: _set(_tensor(m).quantization, scale=[float("nan")]), "not finite"),
        (lambda m: _set(_tensor(m).quantization, zeroPoint=[300]), "outside uint8"),
        (lambda m: _set(_tensor(m).quantization, scale=[0.1] * 3, zeroPoint=[0] * 3), "along dimension"),
        (lambda m: _set(m.metadata[0], buffer=99), "buffer 99 of"),
        (lambda m: _set(m.signatureDefs[0], subgraphIndex=5), "subgraph 5 of"),
        (lambda m: _set(m.signatureDefs[0].inputs[0], tensorIndex=50), "tensor 50 of"),
    ],
)
def test_a_forged_model_is_refused(edit: Callable[[schema.ModelT], object], reason: str) -> None:
    with pytest.raises(EdgennError, match=reason) as refusal:
        parse(forge(edit))
    assert "\n" not in str(refusal.value)


def _scalar(model: schema.ModelT) -> None:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = list(struct.pack("<i", 7))
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "seven", [], schema.TensorType.INT32, len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)


def _int4(model: schema.ModelT) -> None:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = [0x21, 0x03]
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "w", [3], schema.TensorType.INT4, len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)


def _strings(model: schema.ModelT) -> None:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = list(struct.pack("<4i", 2, 16, 17, 19) + b"abc")
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "s", [2], schema.TensorType.STRING, len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)


def _dense_and_compressed(model: schema.ModelT) -> None:
    """[[0, 5, 0], [0, 0, 7]] in compressed rows."""
    tensor, buffer, sparsity = schema.TensorT(), schema.BufferT(), schema.SparsityParametersT()
    rows, columns = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    rows.denseSize, columns.format = 2, schema.DimensionType.SPARSE_CSR
    segments, indices = schema.Int32VectorT(), schema.Uint8VectorT()
    segments.values, indices.values = [0, 1, 2], [1, 2]
    columns.arraySegmentsType, columns.arraySegments = schema.SparseIndexVector.Int32Vector, segments
    columns.arrayIndicesType, columns.arrayIndices = schema.SparseIndexVector.Uint8Vector, indices
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1], [rows, columns]
    buffer.data = [5, 7]
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "sparse", [2, 3], schema.TensorType.INT8, len(model.buffers)
    tensor.sparsity = sparsity
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)


@pytest.mark.parametrize(
    "edit",
    [
        _scalar,  # a shape without dimensions has one element
        _int4,  # two elements a byte, the last one half
        _strings,
        _dense_and_compressed,
        lambda m: _set(_tensor(m), shapeSignature=[-1, 32, 32, 3]),  # dynamic batch
        lambda m: m.buffers.append(schema.BufferT()),  # a buffer nobody uses
        lambda m: _set(m.subgraphs[0].tensors[-1], name=b"\xff\xfe"),  # a name that is not UTF-8
        lambda m: _set(m, description=None),
        lambda m: _set(m, signatureDefs=None),
    ],
)
def test_an_unusual_model_is_read(edit: Callable[[schema.ModelT], object]) -> None:
    assert len(parse(forge(edit)).operators) == 7


def test_text_has_no_control_characters() -> None:
    graph = parse(forge(lambda m: _set(m, description=b"\x1b[31mred\n")))
    assert graph.description == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"


def test_many_references_to_one_place_are_refused_soon() -> None:
    """A short file whose 60,000 tensors are one, of a very long name, would be read for minutes."""
    count = 60_000
    builder = flatbuffers.Builder(1 << 20)
    name = builder.CreateString("x" * count)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(EdgennError, match="over and over"):
        parse(bytes(builder.Output()))


def test_any_byte_may_change() -> None:
    for at in range(len(TINY)):
        for value in (0xFF, TINY[at] ^ 0x10):
            outcome(TINY[:at] + bytes([value]) + TINY[at + 1 :])


_WORDS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 4, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(TINY), len(TINY) - 4]),
    # A word from elsewhere in the file: offsets and counts that mean something.
    st.integers(0, len(TINY) // 4 - 1).map(lambda at: struct.unpack_from("<I", TINY, 4 * at)[0]),
)


@given(st.lists(st.tuples(st.integers(0, len(TINY) // 4 - 1), _WORDS), min_size=1, max_size=8))
def test_any_words_may_change(edits: list[tuple[int, int]]) -> None:
    content = bytearray(TINY)
    for at, word in edits:
        struct.pack_into("<I", content, 4 * at, word)
    outcome(bytes(content))


@given(st.binary(max_size=400))
def test_any_bytes_may_follow_the_header(tail: bytes) -> None:
    outcome(b"\x08\0\0\0TFL3" + tail)


# Runs each file in a process of its own; prints those whose process died.
_RUN_ALL = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

def run(content, kernels):
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    interpreter.invoke()

for path in sorted(Path(sys.argv[1]).iterdir()):
    content = path.read_bytes()
    for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            try:
                run(content, kernels)
            except (ValueError, RuntimeError):
                pass  # refused by the runtime, as it should
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            print(path.name, kernels, status)
"""


def test_what_is_accepted_does_not_end_the_runtime(tmp_path: Path) -> None:
    """Some hundred damaged models that `parse` lets pass are run for real, with both kernel libraries."""
    chance = random.Random(1)
    accepted = 0
    while accepted < 120:
        content = bytearray(TINY)
        for _ in range(chance.randint(1, 3)):
            at = 4 * chance.randrange(len(TINY) // 4)
            word = chance.choice([0, 1, 2, 0xFFFFFFFF, chance.getrandbits(32), chance.getrandbits(8)])
            struct.pack_into("<I", content, at, word)
        graph = outcome(bytes(content))
        # model_file refuses inputs that are no picture of a sensible size; so many pixels would only be slow.
        if graph is None or any(max(graph.tensors[index].shape, default=0) > 8192 for index in graph.inputs):
            continue
        (tmp_path / f"{accepted:03}").write_bytes(content)
        accepted += 1
    done = subprocess.run([sys.executable, "-c", _RUN_ALL, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
