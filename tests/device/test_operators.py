"""Multiply-adds by hand, kernels matched to operators, and real times from LiteRT's profiler."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn_device import model_file
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.profiler import operators
from edgenn_device.profiler.operators import Layer, OperatorTimes

needs_litert = pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="no ai-edge-litert here")


def tensor(*shape: int, name: str = "", constant: bool = False) -> Tensor:
    size = 1
    for side in shape:
        size *= side
    return Tensor(name, shape, "int8", (), (), constant, size)


def graph(*steps: tuple[str, list[Tensor], Tensor], options: tuple[int, ...] = ()) -> Graph:
    """A graph of (operator, inputs, output) with tensors of its own for each step; None is an input left out."""
    tensors: list[Tensor] = []
    rows: list[Operator] = []
    for name, inputs, output in steps:
        places = tuple(-1 if one is None else len(tensors) + place for place, one in enumerate(inputs))
        tensors += [one or tensor() for one in inputs]
        rows.append(Operator(name, 1, False, places, (len(tensors),), options))
        tensors.append(output)
    return Graph((0,), (len(tensors) - 1,), tuple(tensors), tuple(rows), "", {}, 0, 1)


@pytest.mark.parametrize(
    ("name", "inputs", "output", "options", "expected"),
    [
        # Every output element sums over the window and the input channels.
        ("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3), (16,)], (1, 8, 8, 16), (), 8 * 8 * 16 * 3 * 3 * 3),
        # Groups: the weights hold the channels of one group only.
        ("CONV_2D", [(1, 8, 8, 8), (16, 1, 1, 4)], (1, 8, 8, 16), (), 8 * 8 * 16 * 4),
        # Depthwise sums over the window alone; a multiplier of 2 doubles the outputs.
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 4), (1, 3, 3, 8), (8,)], (1, 8, 8, 8), (), 8 * 8 * 8 * 9),
        ("FULLY_CONNECTED", [(1, 64), (10, 64), (10,)], (1, 10), (), 640),
        ("FULLY_CONNECTED", [(4, 64), (10, 64), None], (4, 10), (), 2560),  # a batch, no bias
        # Every input element is spread over the window and the output channels.
        ("TRANSPOSE_CONV", [(4,), (4, 2, 2, 16), (1, 5, 7, 16)], (1, 10, 14, 4), (), 5 * 7 * 16 * 4 * 2 * 2),
        ("BATCH_MATMUL", [(2, 3, 5), (2, 5, 7)], (2, 3, 7), (0, 0, 0), 2 * 3 * 7 * 5),
        ("BATCH_MATMUL", [(2, 5, 3), (2, 5, 7)], (2, 3, 7), (1, 0, 0), 2 * 3 * 7 * 5),  # the first one transposed
        ("CONV_3D", [(1, 4, 8, 8, 3), (3, 3, 3, 3, 5)], (1, 4, 8, 8, 5), (), 4 * 8 * 8 * 5 * 27 * 3),
        # Nothing is multiplied.
        ("MAX_POOL_2D", [(1, 8, 8, 4)], (1, 4, 4, 4), (0, 2, 2, 2, 2, 0), 0),
        ("AVERAGE_POOL_2D", [(1, 8, 8, 4)], (1, 1, 1, 4), (0, 1, 1, 8, 8, 0), 0),
        ("ADD", [(1, 8, 8, 4), (1, 8, 8, 4)], (1, 8, 8, 4), (), 0),
        ("CONV_2D", [(1, 8, 8, 3), None], (1, 8, 8, 16), (), 0),  # no weights to tell from
        ("edgetpu-custom-op", [(1, 8, 8, 3)], (1, 10), (), 0),
    ],
)
def test_multiply_adds(
    name: str, inputs: list[tuple[int, ...] | None], output: tuple[int, ...], options: tuple[int, ...], expected: int
) -> None:
    made = graph((name, [None if s is None else tensor(*s) for s in inputs], tensor(*output)), options=options)  # type: ignore[misc]
    assert operators.macs(made, made.operators[0]) == expected


def test_layers_carry_name_bytes_and_place() -> None:
    made = graph(
        (
            "CONV_2D",
            [tensor(1, 4, 4, 3), tensor(8, 1, 1, 3), None],
            tensor(1, 4, 4, 8, name="functional_1/stem/Relu;x"),
        ),  # type: ignore[list-item]
        ("SOFTMAX", [tensor(1, 8)], tensor(1, 8, name="StatefulPartitionedCall:0")),
    )
    stem, softmax = operators.layers(made)
    assert (stem.index, stem.layer, stem.bytes) == (0, "stem/Relu", 48 + 24 + 128)
    assert (softmax.index, softmax.layer, softmax.macs) == (1, "StatefulPartitionedCall:0", 0)
    assert stem.microseconds is None
    assert stem.share is None


def test_an_operator_that_reads_a_tensor_twice_moves_it_once() -> None:
    row = Operator("MUL", 1, False, (0, 0), (1,))
    made = Graph((0,), (1,), (tensor(10), tensor(10)), (row,), "", {}, 0, 1)
    assert operators.layers(made)[0].bytes == 20


def test_the_summary_counts_by_name_and_version() -> None:
    rows = [Operator(name, version, False, (), ()) for name, version in (("ADD", 2), ("CONV_2D", 3), ("CONV_2D", 3))]
    made = Graph((), (), (), (*rows, Operator("CONV_2D", 1, False, (), ())), "", {}, 0, 1)
    assert operators.summary(made) == [
        {"name": "CONV_2D", "version": 3, "count": 2},
        {"name": "ADD", "version": 2, "count": 1},
        {"name": "CONV_2D", "version": 1, "count": 1},
    ]


def rows(*names: str) -> list[Layer]:
    return [Layer(index, name, 1, "", 0, 0) for index, name in enumerate(names)]


CONV, DEPTHWISE = "Convolution (NHWC, QC8) IGEMM", "Convolution (NHWC, QC8) DWConv"
DENSE, ADD, COPY, RESHAPE = "Fully Connected (NC, QS8, QC8W) GEMM", "Add (ND)", "Copy (NC, X8)", "Static Reshape (NC)"


@pytest.mark.parametrize(
    ("kernels", "names", "expected"),
    [
        # One for one; a 1x1 convolution runs as a matrix product.
        ([CONV, DEPTHWISE, DENSE], ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"], [0, 1, 2]),
        # PAD has no kernel: it was merged into the convolution behind it.
        ([CONV, DENSE], ["PAD", "CONV_2D", "FULLY_CONNECTED"], [1, 2]),
        # A kernel that the graph does not know stays without a layer.
        ([CONV, RESHAPE, DENSE], ["CONV_2D", "FULLY_CONNECTED"], [0, None, 1]),
        # A concatenation of two is two copies.
        ([CONV, COPY, COPY, ADD], ["CONV_2D", "CONCATENATION", "ADD"], [0, 1, 1, 2]),
        # Two additions are two, not one of two parts.
        ([ADD, ADD], ["ADD", "ADD"], [0, 1]),
        # A kernel nobody listed is known by its own name.
        (["Squared Difference (ND)"], ["SQUARED_DIFFERENCE"], [0]),
        (["Quantum Leap (NC)"], ["CONV_2D"], [None]),
        ([], ["CONV_2D"], []),
        ([CONV], [], [None]),
    ],
)
def test_kernels_find_their_operators(kernels: list[str], names: list[str], expected: list[int | None]) -> None:
    assert operators.align([(kernel, None) for kernel in kernels], rows(*names)) == expected


@pytest.mark.parametrize("ran", [1, 3])
def test_a_built_in_kernel_is_held_by_its_index(ran: int) -> None:
    """Two softmaxes, of which only one ran as such: its kind does not tell which."""
    names = ["CONV_2D", "SOFTMAX", "CONV_2D", "SOFTMAX"]
    assert operators.align([("SOFTMAX", ran)], rows(*names)) == [ran]
    assert operators.align([("SOFTMAX", 0)], rows(*names)) == [None]


OPERATOR_OF = {CONV: "CONV_2D", DEPTHWISE: "DEPTHWISE_CONV_2D", DENSE: "FULLY_CONNECTED", ADD: "ADD"}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(sorted(OPERATOR_OF)), max_size=12), st.data())
def test_matching_keeps_the_order_and_loses_nothing_that_fits(kernels: list[str], data: st.DataObject) -> None:
    names = [OPERATOR_OF[kernel] for kernel in kernels]
    for _ in range(data.draw(st.integers(0, 4))):  # operators merged into others
        names.insert(data.draw(st.integers(0, len(names))), "PAD")
    aligned = operators.align([(kernel, None) for kernel in kernels], rows(*names))
    assert None not in aligned
    places = [place for place in aligned if place is not None]
    assert places == sorted(places)
    for kernel, place in zip(kernels, places, strict=True):
        assert names[place] == OPERATOR_OF[kernel] or (kernel == DENSE and names[place] == "CONV_2D")


def event(tag: str, microseconds: int, kind: int = 8, index: int = 0, subgraph: int = 0) -> list[object]:
    return [tag, kind, index, subgraph, microseconds]


def test_times_are_those_of_undisturbed_runs_and_add_up() -> None:
    def run(factor: int, wall: float) -> dict[str, object]:
        steps = [event(CONV, 10 * factor), event("SOFTMAX", 2 * factor, kind=2, index=2)]
        around = event("Invoke", 13 * factor, kind=1)
        noise = [event("Invoke", 2**32, kind=32), event("ADD", 999, kind=2, index=0, subgraph=1)]
        return {"wall_us": wall, "events": [around, *steps, *noise]}

    # A lost event makes a run incomparable; of the others the quickest quarter counts, the rest may be disturbed.
    lost = {"wall_us": 3.0, "events": [event(CONV, 1)]}
    runs = [run(1, 20.0), run(1, 21.0), lost, *(run(100, 2000.0 + number) for number in range(6))]
    times = operators.explain(rows("CONV_2D", "PAD", "SOFTMAX"), runs)
    assert [(row.name, row.microseconds, row.kernel) for row in times.layers] == [
        ("CONV_2D", 10.0, CONV),
        ("PAD", None, None),
        ("SOFTMAX", 2.0, "SOFTMAX"),
    ]
    assert times.layers[0].share == pytest.approx(10 / 12)
    assert (times.runs, times.sum_microseconds, times.whole_microseconds) == (2, 12.0, 13.0)


def test_a_kernel_without_an_operator_is_shown_as_such() -> None:
    runs = [{"wall_us": 5.0, "events": [event(CONV, 3), event(RESHAPE, 1)]}]
    times = operators.explain(rows("CONV_2D"), runs)
    assert [(row.index, row.name, row.microseconds) for row in times.layers] == [
        (0, "CONV_2D", 3.0),
        (None, RESHAPE, 1.0),
    ]


@pytest.mark.parametrize("runs", [[], [{"wall_us": 1.0, "events": []}]])
def test_no_events_are_no_times(runs: list[dict[str, object]]) -> None:
    times = operators.explain(rows("CONV_2D"), runs)
    assert (times.runs, times.sum_microseconds) == (0, None)
    assert "no operators" in times.reason


@pytest.fixture(scope="module")
def model(tiny: Path) -> model_file.ModelFile:
    return model_file.load(tiny / "run" / "model.tflite")


def timed(model: model_file.ModelFile, kernels: str = "xnnpack", runtime: str = "litert") -> OperatorTimes:
    return operators.timed(model, runtime=runtime, threads=1, kernels=kernels, seconds=0.2)


@needs_litert
@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_litert_times_every_operator_of_a_real_model(model: model_file.ModelFile, kernels: str) -> None:
    times = timed(model, kernels)
    assert times.reason == ""
    assert times.runs >= 1
    placed = [row.index for row in times.layers if row.index is not None]
    assert placed == list(range(len(model.graph.operators)))
    convolutions = [row for row in times.layers if row.name == "CONV_2D"]
    assert convolutions
    for row in convolutions:
        assert row.microseconds is not None
        assert row.kernel is not None
        assert row.kernel.startswith("CONV_2D" if kernels == "builtin" else ("Convolution", "Fully Connected"))
        assert row.macs > 0
        assert row.layer
    assert sum(row.share or 0 for row in times.layers) == pytest.approx(1)
    assert 0 < (times.sum_microseconds or 0) <= (times.whole_microseconds or 0)


def test_other_runtimes_get_counts_and_a_reason(model: model_file.ModelFile) -> None:
    times = timed(model, runtime="tflite-runtime")
    assert times.layers == operators.layers(model.graph)
    assert "tflite-runtime has no profiler" in times.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "SIGABRT"),  # wrong arguments to a native function
        ("print('not JSON')", "gave no answer"),
        ("import json; print(json.dumps({'error': 'RuntimeError: no such function'}))", "no such function"),
    ],
)
def test_a_profiler_that_fails_takes_nothing_with_it(
    model: model_file.ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    (tmp_path / "litert_child.py").write_text(program)
    monkeypatch.setattr(operators, "__file__", str(tmp_path / "operators.py"))
    times = timed(model)
    assert times.runs == 0
    assert times.layers == operators.layers(model.graph)
    assert reason in times.reason


@needs_litert
def test_the_child_says_what_the_library_refused() -> None:
    child = Path(operators.__file__).with_name("litert_child.py")
    request = json.dumps({"threads": 1, "kernels": "xnnpack", "seconds": 0.1})
    done = subprocess.run([sys.executable, str(child), request], input=b"TFL3 not a model", capture_output=True)
    assert done.returncode == 0
    assert "LiteRtCreateModelFromBuffer" in json.loads(done.stdout)["error"]
