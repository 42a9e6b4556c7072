"""Arenas planned from graphs, held against a runtime's own, and what /proc says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn_device import model_file
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.interpreter import Interpreter, available_runtimes
from edgenn_device.profiler import memory

TINY = Path(__file__).parents[1] / "data_files" / "tiny_int8.tflite"
needs_litert = pytest.mark.skipif(not available_runtimes()["litert"], reason="no ai-edge-litert here")


def graph(
    sizes: list[int],
    operators: list[tuple[tuple[int, ...], tuple[int, ...]]],
    inputs: tuple[int, ...] = (0,),
    outputs: tuple[int, ...] | None = None,
    constants: tuple[int, ...] = (),
    variables: tuple[int, ...] = (),
) -> Graph:
    tensors = tuple(
        Tensor(f"t{index}", (size,), "int8", (), (), index in constants, size, variable=index in variables, offset=0)
        for index, size in enumerate(sizes)
    )
    rows = tuple(Operator("ADD", 1, False, reads, writes) for reads, writes in operators)
    return Graph(inputs, outputs or operators[-1][1], tensors, rows, "", {}, 0, 1)


@pytest.mark.parametrize(
    ("made", "size", "floor"),
    [
        # A chain in -> a -> b -> out. The input stays to the end, as TFLite keeps it; a and out share a place.
        (graph([64, 640, 128, 640], [((0,), (1,)), ((1,), (2,)), ((2,), (3,))]), 64 + 640 + 128, 832),
        # An odd size costs up to the next 64: in at 0, out at 64.
        (graph([10, 10], [((0,), (1,))]), 64 + 10, 20),
        # A skip connection keeps a beside b and the sum.
        (graph([64, 256, 256, 256], [((0,), (1,)), ((1,), (2,)), ((1, 2), (3,))]), 64 + 3 * 256, 832),
        # Constants and variables are not in the arena, an input left out is nothing.
        (graph([64, 999, 999, 64], [((0, 1, 2, -1), (3,))], constants=(1,), variables=(2,)), 128, 128),
    ],
)
def test_arenas_by_hand(made: Graph, size: int, floor: int) -> None:
    found = memory.arena(made)
    assert (found.bytes, found.floor) == (size, floor)


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (64, 384),  # the smaller of two gaps, although it comes later
        (65, 64),  # which does not hold this one
        (257, 512),  # nor does any gap hold that: behind everything
    ],
)
def test_the_smallest_gap_is_taken(size: int, offset: int) -> None:
    assert memory._gap([(0, 64, 0), (320, 384, 1), (448, 500, 2)], size) == offset


def test_the_busiest_operator_is_named() -> None:
    assert memory.arena(graph([64, 640, 128, 64], [((0,), (1,)), ((1,), (2,)), ((2,), (3,))])).busiest == 1


def test_a_graph_without_operators() -> None:
    found = memory.arena(Graph((0,), (0,), (Tensor("x", (8,), "int8", (), (), False, 8),), (), "", {}, 0, 1))
    assert (found.bytes, found.floor, found.busiest) == (8, 8, None)


@settings(deadline=None)
@given(st.data())
def test_tensors_that_live_together_never_overlap(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    sizes = data.draw(st.lists(st.integers(1, 5000), min_size=count + 1, max_size=count + 1))
    operators = [
        (tuple(data.draw(st.sets(st.integers(0, index), min_size=1, max_size=3))), (index + 1,))
        for index in range(count)
    ]
    made = graph(sizes, operators)
    found = memory.arena(made)
    spans = memory._lifetimes(made)
    for one, offset in found.offsets.items():
        assert offset % 64 == 0
        assert offset + sizes[one] <= found.bytes
        for other, beside in found.offsets.items():
            together = spans[one][0] <= spans[other][1] and spans[other][0] <= spans[one][1]
            if one != other and together:
                assert offset + sizes[one] <= beside or beside + sizes[other] <= offset
    assert found.floor <= found.bytes <= sum(-(-size // 64) * 64 for size in sizes)


@needs_litert
def test_the_runtimes_own_arena_holds_what_was_planned() -> None:
    model = model_file.load(TINY)
    planned = memory.arena(model.graph)
    found = memory.measured_arena(Interpreter(model, runtime="litert", threads=1, kernels="builtin"), model.graph)
    # Kernels' scratch buffers come on top.
    assert found is not None
    assert planned.floor <= found
    assert memory.measured_arena(Interpreter(model, runtime="litert", threads=1), model.graph) is None


def test_weights_that_tensors_share_count_once() -> None:
    tensors = tuple(
        Tensor(name, (size,), "int8", (), (), constant, size, offset=offset)
        for name, size, constant, offset in (
            ("a", 100, True, 400),
            ("b", 100, True, 400),  # the same bytes of the file
            ("c", 50, True, 500),
            ("x", 1000, False, 0),
        )
    )
    assert memory.weights(Graph((3,), (3,), tensors, (), "", {}, 0, 1)) == 150


def test_weights_of_a_real_model() -> None:
    model = model_file.load(TINY)
    assert 800 < memory.weights(model.graph) < len(model.content)


def test_resident_memory_from_a_status_file(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython3\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert memory.resident(tmp_path) == {"resident": 1 << 20, "resident_peak": 2 << 20}


@pytest.mark.parametrize("text", ["", "VmRSS:\n", "VmRSS:\tmany kB\n"])
def test_resident_memory_that_is_not_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(text)
    assert memory.resident(tmp_path) == {"resident": None, "resident_peak": None}
    assert memory.available(tmp_path) == (None, None)


def test_this_process_has_memory() -> None:
    found = memory.resident()
    assert 0 < (found["resident"] or 0) <= (found["resident_peak"] or 0)
