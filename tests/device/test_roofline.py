"""The probe's models, where layers stand under the roof, and the cache of what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenn_device import flatbuffer
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.interpreter import Interpreter, available_runtimes
from edgenn_device.model_file import ModelFile
from edgenn_device.profiler import roofline
from edgenn_device.profiler.operators import Layer, layers
from edgenn_device.profiler.probe_model import convolutions
from edgenn_device.profiler.roofline import Machine

needs_litert = pytest.mark.skipif(not available_runtimes()["litert"], reason="no ai-edge-litert here")

# 100 int8 GMAC/s, 25 float32 GMAC/s, 10 GB/s: the ridge of int8 is at 20 operations a byte.
MACHINE = Machine(100e9, 10e9, 25e9, 10e9, "litert", "xnnpack", 1, "a CPU")


def layer(name: str, macs: int, size: int, microseconds: float | None, index: int | None = 0) -> Layer:
    return Layer(index, name, 1, "x", macs, size, None, microseconds, None)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize(("kind", "macs"), [("CONV_2D", 8 * 8 * 16 * 16), ("DEPTHWISE_CONV_2D", 8 * 8 * 16 * 9)])
def test_a_probe_is_a_sound_model(kind: str, dtype: str, macs: int) -> None:
    content = convolutions(kind, dtype, 8, 16, 3)  # type: ignore[arg-type]
    graph = flatbuffer.parse(content)  # verifies every offset, index and size
    assert [operator.name for operator in graph.operators] == [kind] * 3
    assert [row.macs for row in layers(graph)] == [macs] * 3
    activations = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    assert [(tensor.shape, tensor.dtype) for tensor in activations] == [((1, 8, 8, 16), dtype)] * 2


@needs_litert
@pytest.mark.parametrize("kernels", ["default", "builtin"])
def test_a_probe_computes_its_convolution(kernels: str) -> None:
    """One 1x1 convolution by hand, so that what is timed is what was meant."""
    content = convolutions("CONV_2D", "float32", 4, 16, 1)
    graph = flatbuffer.parse(content)
    model = ModelFile(Path("probe"), content, graph, None, (), InputSpec(4, 4), ())
    values = np.random.default_rng(1).normal(size=(1, 4, 4, 16)).astype(np.float32)
    weights = next(tensor for tensor in graph.tensors if tensor.shape == (16, 1, 1, 16))
    matrix = np.frombuffer(content, np.float32, 256, weights.offset).reshape(16, 16)
    found = Interpreter(model, runtime="litert", threads=1, kernels=kernels).invoke_raw(values)  # type: ignore[arg-type]
    assert np.allclose(found.reshape(4, 4, 16), values[0] @ matrix.T, atol=1e-5)


@needs_litert
def test_int8_probes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "_ARRAY", 1 << 16)
    found = roofline.measure(runtime="litert", threads=2, kernels="builtin", cpu="a CPU")
    assert min(found.int8, found.int8_depthwise, found.float32, found.memory) > 0
    assert "2 threads" in found.description
    assert (found.runtime, found.kernels, found.cpu) == ("litert", "builtin", "a CPU")
    assert 0 < roofline.operator_seconds(runtime="litert", threads=1, kernels="builtin") < 1e-2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_copy_copies_everything(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    targets = []
    zeros = np.zeros

    def remembered(*arguments: object) -> np.ndarray:
        targets.append(zeros(*arguments))  # type: ignore[call-overload]
        return targets[-1]

    monkeypatch.setattr(np, "zeros", remembered)
    assert roofline.copy_rate(threads, size=1001, seconds=0.0) > 0
    assert targets[0].all()


@pytest.mark.parametrize(
    ("row", "gops", "intensity", "roof", "bound", "share"),
    [
        # 1 MMAC in 20 µs is 100 GOPS; 40 operations a byte lie right of the ridge, below the flat side (200).
        (layer("CONV_2D", 1_000_000, 50_000, 20.0), 100, 40, 200, "compute", 0.5),
        # 2 operations a byte: memory allows 20 GOPS, and half of that was reached.
        (layer("CONV_2D", 1_000_000, 1_000_000, 200.0), 10, 2, 20, "memory", 0.5),
        # At the ridge itself arithmetic is as good a reason as memory.
        (layer("CONV_2D", 1_000_000, 100_000, 10.0), 200, 20, 200, "compute", 1.0),
        # Nothing is multiplied: only its bytes count, 5 of 10 GB/s.
        (layer("ADD", 0, 100_000, 20.0), 0, 0, 0, "memory", 0.5),
        # Not timed: the roof is known all the same.
        (layer("CONV_2D", 1_000_000, 50_000, None), None, 40, 200, "compute", None),
    ],
)
def test_where_a_layer_stands(
    row: Layer, gops: float | None, intensity: float, roof: float, bound: str, share: float | None
) -> None:
    (point,) = roofline.points([row], MACHINE)
    assert (point.gops, point.bound) == (pytest.approx(gops) if gops is not None else None, bound)
    assert point.intensity == pytest.approx(intensity)
    assert point.roof == pytest.approx(roof)
    assert point.share == (pytest.approx(share) if share is not None else None)


def test_float_layers_are_held_against_the_float_peak() -> None:
    output = Tensor("y", (1, 10), "float32", (), (), False, 40)
    graph = Graph((0,), (0,), (output,), (Operator("CONV_2D", 1, False, (0,), (0,)),), "", {}, 0, 1)
    (point,) = roofline.points([layer("CONV_2D", 1_000_000, 50_000, 40.0)], MACHINE, graph)
    assert (point.roof, point.share) == (pytest.approx(50), pytest.approx(1.0))


def test_a_layer_too_short_to_be_timed_well_has_a_roof_and_no_share() -> None:
    long, short = roofline.points([layer("CONV_2D", 10_000, 1000, 10.0), layer("CONV_2D", 10_000, 1000, 9.0)], MACHINE)
    assert long.share is not None
    assert (short.share, short.gops) == (None, None)
    assert short.roof == long.roof


def test_kernels_of_no_operator_stand_nowhere() -> None:
    assert roofline.points([layer("Transpose", 0, 0, 3.0, index=None)], MACHINE) == ()


class TestCache:
    def ask(self, cache: Path, root: Path, found: list[int], **changes: object) -> Machine:
        def probe() -> Machine:
            found.append(1)
            return MACHINE

        arguments = {"runtime": "litert", "version": "2.3.0", "threads": 1, "kernels": "xnnpack", **changes}
        return roofline.machine(**arguments, cache=cache, root=root, probe=probe)  # type: ignore[arg-type]

    def test_measured_once(self, tmp_path: Path) -> None:
        found: list[int] = []
        for _ in range(3):
            assert self.ask(tmp_path / "deep" / "roofline.json", tmp_path, found) == MACHINE
        assert len(found) == 1

    @pytest.mark.parametrize("change", [{"version": "2.4.0"}, {"threads": 2}, {"kernels": "builtin"}])
    def test_measured_anew_for_another_runtime(self, tmp_path: Path, change: dict[str, object]) -> None:
        found: list[int] = []
        self.ask(tmp_path / "roofline.json", tmp_path, found)
        self.ask(tmp_path / "roofline.json", tmp_path, found, **change)
        self.ask(tmp_path / "roofline.json", tmp_path, found)  # and the first one is still there
        assert len(found) == 2

    def test_measured_anew_on_another_cpu(self, tmp_path: Path) -> None:
        found: list[int] = []
        self.ask(tmp_path / "roofline.json", tmp_path, found)
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text("model name\t: Another CPU\n")
        self.ask(tmp_path / "roofline.json", tmp_path, found)
        assert len(found) == 2

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b'{"schema": 99, "machines": {}}',
            b'{"schema": 1}',
        ],
    )
    def test_a_damaged_cache_is_replaced(self, tmp_path: Path, content: bytes) -> None:
        cache, found = tmp_path / "roofline.json", list[int]()
        cache.write_bytes(content)
        assert self.ask(cache, tmp_path, found) == MACHINE
        assert json.loads(cache.read_text())["schema"] == roofline.SCHEMA
        assert len(found) == 1

    def test_an_entry_of_another_version_is_replaced(self, tmp_path: Path) -> None:
        cache, found = tmp_path / "roofline.json", list[int]()
        self.ask(cache, tmp_path, found)
        document = json.loads(cache.read_text())
        for machine in document["machines"].values():
            machine["more"] = 1
        cache.write_text(json.dumps(document))
        assert self.ask(cache, tmp_path, found) == MACHINE
        assert len(found) == 2

    def test_an_emulator_has_no_roof(self, tmp_path: Path) -> None:
        (tmp_path / "proc/thread-self").mkdir(parents=True)
        (tmp_path / "proc/thread-self/exe").symlink_to("/usr/bin/qemu-aarch64")
        found: list[int] = []
        with pytest.raises(EdgennError, match="qemu-aarch64 has no roofline"):
            self.ask(tmp_path / "roofline.json", tmp_path, found)
        assert not found

    def test_done_without_where_it_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        found: list[int] = []
        assert self.ask(tmp_path / "file" / "roofline.json", tmp_path, found) == MACHINE

    def test_kept_in_the_users_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        roofline.machine(
            runtime="r", version="1", threads=1, kernels="k", root=tmp_path, probe=lambda: replace(MACHINE, threads=1)
        )
        assert (tmp_path / "edgenn" / "roofline.json").exists()
