"""Graphs cut in place, and times by difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, pairwise
from math import dist
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn_device import flatbuffer, model_file
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph
from edgenn_device.interpreter import Interpreter, available_runtimes
from edgenn_device.profiler import prefixes
from edgenn_device.tables import Buffer

TINY = Path(__file__).parents[1] / "data_files" / "tiny_int8.tflite"
FLOAT = TINY.with_name("tiny_float.tflite")

needs_litert = pytest.mark.skipif(not available_runtimes()["litert"], reason="no ai-edge-litert here")


@pytest.fixture(scope="module")
def tiny() -> model_file.ModelFile:
    return model_file.load(TINY)


@pytest.mark.parametrize("count", range(8))
def test_a_cut_keeps_the_first_operators_and_everything_else(tiny: model_file.ModelFile, count: int) -> None:
    whole = tiny.graph
    made = prefixes.cut(tiny.content, count)
    graph = flatbuffer.parse(made)
    assert len(made) == len(tiny.content)
    assert graph.operators == whole.operators[:count]
    assert graph.tensors == whole.tensors
    assert graph.inputs == whole.inputs
    # Without operators the input passes through; uncut, the outputs stay.
    expected = {0: whole.inputs, 7: whole.outputs}.get(count) or whole.operators[count - 1].outputs
    assert graph.outputs == expected
    # A signature would name an output that is no longer written.
    assert not list(Buffer(made).root(flatbuffer.IDENTIFIER).tables(7))


@needs_litert
def test_a_cut_computes_what_the_whole_computes_up_to_there(tiny: model_file.ModelFile) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)

    def run(content: bytes) -> np.ndarray:
        return Interpreter(replace(tiny, content=content), runtime="litert", threads=1, kernels="builtin").invoke_raw(
            noise
        )

    assert np.array_equal(run(prefixes.cut(tiny.content, 0)), noise.reshape(-1))
    assert np.array_equal(run(prefixes.cut(tiny.content, 1)), (noise ^ 0x80).view(np.int8).reshape(-1))
    assert np.array_equal(run(prefixes.cut(tiny.content, 7)), run(tiny.content))
    # The last operator turns int8 into uint8: the cut before it holds the same scores.
    before_last = run(prefixes.cut(tiny.content, 6))
    assert np.array_equal((before_last.astype(int) + 128).astype(np.uint8), run(tiny.content))


@pytest.mark.parametrize("count", [-1, 8])
def test_a_cut_beyond_the_graph_is_refused(tiny: model_file.ModelFile, count: int) -> None:
    with pytest.raises(EdgennError, match="cannot be cut after"):
        prefixes.cut(tiny.content, count)


def test_vectors_that_tables_share_are_not_cut_by_accident(
    tiny: model_file.ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the outputs' vector were also the inputs': re-pointing one moves the other.
    sound = flatbuffer.parse

    def shared(data: bytes) -> Graph:
        graph = sound(data)
        return replace(graph, inputs=graph.outputs) if data != tiny.content else graph

    monkeypatch.setattr(flatbuffer, "parse", shared)
    with pytest.raises(EdgennError, match="share their parts"):
        prefixes.cut(tiny.content, 3)


@needs_litert
def test_every_operator_is_timed(tiny: model_file.ModelFile) -> None:
    timed = prefixes.timed(tiny, runtime="litert", threads=1, seconds=0.1)
    assert [layer.index for layer in timed.layers] == list(range(7))
    assert all(layer.microseconds is not None and layer.microseconds >= 0 for layer in timed.layers)
    assert sum(layer.share or 0 for layer in timed.layers) == pytest.approx(1)
    assert timed.runs >= 5
    assert timed.whole_microseconds
    assert "cutting the graph" in timed.reason


@pytest.mark.parametrize(
    ("path", "runtime", "kernels", "reason"),
    [
        # XNNPACK merges operators, and a cut changes which.
        (TINY, "litert", "xnnpack", "XNNPACK merges"),
        # tflite-runtime calls its kernels built-in, and gives float32 to XNNPACK all the same.
        (FLOAT, "tflite-runtime", "builtin", "float32 operators to XNNPACK"),
    ],
)
def test_merged_operators_are_not_timed(path: Path, runtime: str, kernels: str, reason: str) -> None:
    timed = prefixes.timed(model_file.load(path), runtime=runtime, threads=1, kernels=kernels)
    assert timed.runs == 0
    assert reason in timed.reason
    assert all(layer.microseconds is None for layer in timed.layers)


class _Clock:
    """Stands in for `time`: it stands still but for what the runs add to `now`, in nanoseconds."""

    now = 0

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=30), st.integers(0, 10_000))
def test_differences_give_back_what_each_operator_costs(costs: list[int], around: int) -> None:
    clock = _Clock()

    def prepared(count: int) -> Callable[[], object]:
        # Three of each graph's five runs are disturbed by a millisecond: the faster half's median knows nothing of it.
        disturbed = cycle([1_000_000, 0, 1_000_000])

        def run() -> None:
            clock.now += around + sum(costs[:count]) + next(disturbed)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "time", clock)
        found = prefixes.difference(prepared, len(costs), 0.0)
    assert found.operators == pytest.approx([cost / 1e9 for cost in costs], abs=1e-12)
    assert found.around == pytest.approx(around / 1e9)
    assert found.whole == pytest.approx((around + sum(costs)) / 1e9)
    assert found.noise <= 1e-12


def test_a_step_back_is_noise_and_is_told() -> None:
    clock = _Clock()
    times = {0: 10_000, 1: 40_000, 2: 30_000, 3: 50_000}

    def prepared(count: int) -> Callable[[], object]:
        def run() -> None:
            clock.now += times[count]

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "time", clock)
        found = prefixes.difference(prepared, 3, 0.0)
    # 40 and 30 become 35 and 35; the sum stays.
    assert found.operators == pytest.approx((25e-6, 0.0, 15e-6))
    assert found.noise == pytest.approx(10e-6)
    assert "errs by about 10 µs" in prefixes.explanation(found)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40))
def test_never_decreasing_keeps_what_is_right(values: list[float]) -> None:
    found = prefixes.never_decreasing(values)
    assert all(after >= before for before, after in pairwise(found))
    assert sum(found) == pytest.approx(sum(values), abs=1e-6)
    assert prefixes.never_decreasing(sorted(values)) == sorted(values)
    # Nearest: no never-decreasing sequence, such as the sorted one or a constant, is nearer.
    for other in (sorted(values), [fmean(values)] * len(values)):
        assert dist(found, values) <= dist(other, values) + 1e-6
