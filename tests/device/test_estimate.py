"""Estimates by hand, descriptions that are read and refused, and errors on published rows as the docs state them."""

from __future__ import annotations

import runpy
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from edgenn_device import model_file
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Operator
from edgenn_device.profiler import estimate
from edgenn_device.profiler.estimate import Device, Step
from edgenn_device.profiler.roofline import Machine

REPOSITORY = Path(__file__).parents[2]
TINY = REPOSITORY / "tests/data_files/tiny_int8.tflite"

# Two cores of 10 int8 GMAC/s each, half of which is reached; 1 GB/s; 10 µs an operator.
BOARD = Device(
    name="board",
    title="A board",
    kind="cpu",
    runtime="kernels",
    cores=2,
    peak={"int8": 10e9, "int8_depthwise": 5e9, "float32": 2e9},
    efficiency={"int8": 0.5, "float32": 0.5, "depthwise": 0.1},
    memory=1e9,
    cache=1000,
    operator_seconds=10e-6,
    start_seconds=0.0,
    error={"int8": 0.25},
    sources={},
)
TPU = replace(BOARD, kind="edgetpu", cores=1, peak={"int8": 1e12}, cache=8000, start_seconds=1e-3)


@pytest.fixture(scope="module")
def tiny() -> model_file.ModelFile:
    return model_file.load(TINY)


@pytest.mark.parametrize(
    ("step", "threads", "seconds", "bound"),
    [
        # 1 MMAC at 5 GMAC/s, its few bytes hidden behind it.
        (Step("CONV_2D", 1_000_000, 900, 100), 1, 200e-6, "compute"),
        (Step("CONV_2D", 1_000_000, 900, 100), 2, 100e-6, "compute"),
        # The board has two cores: four threads are no faster.
        (Step("CONV_2D", 1_000_000, 900, 100), 4, 100e-6, "compute"),
        # Depthwise: 5e9 * 0.5 * 0.1.
        (Step("DEPTHWISE_CONV_2D", 100_000, 900, 100), 1, 400e-6, "compute"),
        (Step("CONV_2D", 1_000_000, 900, 100, "float32"), 1, 1000e-6, "compute"),
        # float32 has no peak of its own for depthwise.
        (Step("DEPTHWISE_CONV_2D", 100_000, 900, 100, "float32"), 1, 1000e-6, "compute"),
        # Weights always come from memory, activations only when they are too large for the cache.
        (Step("FULLY_CONNECTED", 1_000_000, 900, 1_000_000), 1, 1000e-6, "memory"),
        (Step("ADD", 0, 1001, 0), 1, 1.001e-6, "memory"),
        (Step("ADD", 0, 1000, 0), 1, 0.0, "compute"),
    ],
)
def test_an_operator_takes_the_longer_of_two_times_and_its_start(
    step: Step, threads: int, seconds: float, bound: str
) -> None:
    found, side = estimate.step_seconds(BOARD, step, threads)
    assert found == pytest.approx(seconds + 10e-6)
    assert side == bound


def test_a_network_on_an_edge_tpu() -> None:
    work = [Step("CONV_2D", 1_000_000, 0, 0)] * 3
    # 1 ms to start, 3 * (1 µs + 10 µs), input and the 2000 bytes of weights beyond its memory at 1 GB/s.
    found = estimate.model_seconds(TPU, work, 1, input_bytes=3000, weights=10_000)
    assert found == pytest.approx(1e-3 + 33e-6 + 5e-6)


def test_layers_add_up_to_the_model(tiny: model_file.ModelFile) -> None:
    for device in (BOARD, TPU):
        found = estimate.estimate(tiny, device)
        assert len(found.layers) == len(tiny.graph.operators)
        assert sum(layer.seconds for layer in found.layers) + found.beside == pytest.approx(found.seconds)
        assert found.threads == device.cores
    assert "Edge TPU" in " ".join(found.remarks)


def test_the_interval_holds_the_figures_that_the_error_allows(tiny: model_file.ModelFile) -> None:
    found = estimate.estimate(tiny, BOARD)
    low, high = found.interval or (0, 0)
    # predicted / measured - 1 is +25% at the low end and -25% at the high end.
    assert found.seconds / low - 1 == pytest.approx(0.25)
    assert found.seconds / high - 1 == pytest.approx(-0.25)
    assert "25%" in " ".join(found.remarks)


def test_without_published_figures_no_interval_is_made_up(tiny: model_file.ModelFile) -> None:
    found = estimate.estimate(tiny, replace(BOARD, error={}))
    assert found.interval is None
    assert "No published int8 figure" in " ".join(found.remarks)


@pytest.mark.parametrize("name", estimate.devices())
def test_every_description_is_whole_and_names_its_sources(tiny: model_file.ModelFile, name: str) -> None:
    device = estimate.load_device(name)
    document = tomllib.loads((estimate.DEVICES / f"{name}.toml").read_text())
    for section, values in document.items():
        if isinstance(values, dict):
            assert len(values["source"]) > 10, section
    assert all(0 < efficiency <= 1 for efficiency in device.efficiency.values())
    found = estimate.estimate(tiny, name)
    assert 0 < found.seconds < 0.1


def test_the_boards_that_the_command_line_promises() -> None:
    assert {"pi3", "pi4", "pi5", "zero2w", "coral-usb"} <= set(estimate.devices())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is not a device description"),
        (lambda text: "schema = ", "cannot be read"),
        (lambda text: text.replace("schema = 1", "schema = 2"), "schema 2"),
        (lambda text: text.replace('"cpu"', '"gpu"'), "kind 'gpu'"),
        (lambda text: text.replace("bytes_per_second = 5.1e9", ""), "bytes_per_second"),
        (lambda text: text.replace("= 5.1e9", '= "fast"'), "fast"),
        (lambda text: text.replace("= 5.1e9", "= 0"), "not above 0"),
        (lambda text: text.replace("= 5.1e9", "= nan"), "not above 0"),
        (lambda text: text.replace("[cpu]", "[gpu]"), "cpu"),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(change((estimate.DEVICES / "pi4.toml").read_text()))  # type: ignore[operator]
    with pytest.raises(EdgennError, match=message) as caught:
        estimate.load_device(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pi6", "../devices/pi4", ""])
def test_an_unknown_device_lists_the_known(name: str) -> None:
    with pytest.raises(EdgennError, match="pi4, pi5"):
        estimate.load_device(name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgennError, match=r"mine\.toml cannot be read"):
        estimate.load_device(tmp_path / "mine.toml")


def test_what_cannot_be_estimated(tiny: model_file.ModelFile) -> None:
    compiled = replace(
        tiny, graph=replace(tiny.graph, operators=(Operator("edgetpu-custom-op", 1, True, (0,), (13,)),))
    )
    with pytest.raises(EdgennError, match="compiled for an Edge TPU"):
        estimate.estimate(compiled, "pi4")
    floats = model_file.load(TINY.with_name("tiny_float.tflite"))
    with pytest.raises(EdgennError, match="int8 only"):
        estimate.estimate(floats, "coral-usb")
    with pytest.raises(EdgennError, match="without float32 figures"):
        estimate.estimate(floats, "coral-dev")
    with pytest.raises(EdgennError, match="--threads"):
        estimate.estimate(tiny, "pi4", threads=0)


def test_float_models_are_slower_than_int8(tiny: model_file.ModelFile) -> None:
    floats = model_file.load(TINY.with_name("tiny_float.tflite"))
    assert {step.dtype for step in estimate.steps(floats.graph)} == {"float32"}
    assert estimate.estimate(floats, replace(BOARD, operator_seconds=0.0)).seconds > (
        estimate.estimate(tiny, replace(BOARD, operator_seconds=0.0)).seconds
    )


MACHINE = Machine(100e9, 5e9, 20e9, 10e9, "litert", "xnnpack", 1, 'An "odd" CPU')


def test_a_saved_board_predicts_what_it_was_measured_with(tmp_path: Path, tiny: model_file.ModelFile) -> None:
    text = estimate.describe_this_board(
        "my board", tiny, 500e-6, runtime="litert", threads=1, kernels="xnnpack", machine=MACHINE, start=5e-6
    )
    path = tmp_path / "board.toml"
    path.write_text(text)
    found = estimate.estimate(tiny, path, threads=1)
    assert found.seconds == pytest.approx(500e-6, rel=1e-3)
    assert found.device.title == "my board"
    assert found.error is None
    assert "tiny_int8.tflite, 0.5 ms" in found.device.sources["efficiency"]


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        # Seven operators take 35 µs to be started alone.
        ("board", 20e-6, "a figure must be wrong"),
        ('a "board"', 500e-6, "leave out quotes"),
        ("a\nboard", 500e-6, "leave out quotes"),
    ],
)
def test_a_board_that_cannot_be_described(tiny: model_file.ModelFile, name: str, seconds: float, message: str) -> None:
    with pytest.raises(EdgennError, match=message):
        estimate.describe_this_board(
            name, tiny, seconds, runtime="litert", threads=1, kernels="xnnpack", machine=MACHINE, start=5e-6
        )


@pytest.fixture(scope="module")
def tool() -> dict[str, object]:
    return runpy.run_path(str(REPOSITORY / "tools/calibrate_devices.py"))


class TestAgainstPublishedFigures:
    """What docs/device-estimates.md says of the errors, from tools/calibrate_devices.py."""

    def test_networks_have_the_multiply_adds_of_their_papers(self, tool: dict[str, object]) -> None:
        networks = tool["NETWORKS"]
        for name, millions in (
            ("MobileNetV1 224", 569),  # arXiv:1704.04861, table 8
            ("MobileNetV2 224", 300),  # arXiv:1801.04381, table 4
            ("MobileNetV3-Large 224", 219),  # arXiv:1905.02244, table 3
            ("MobileNetV3-Small 224", 56),  # the same
            ("VGG16 224", 15_500),
        ):
            assert networks[name].macs / 1e6 == pytest.approx(millions, rel=0.02)  # type: ignore[index]

    def test_descriptions_hold_on_rows_that_they_were_not_fitted_to(self, tool: dict[str, object]) -> None:
        for series in (*tool["CPU"], *tool["TPU"]):  # type: ignore[misc]
            device = estimate.load_device(series.device)
            for name, published in series.rows.items():
                predicted = tool["seconds"](device, name, series.dtype, series.threads) * 1e3  # type: ignore[operator]
                assert abs(predicted / published - 1) <= device.error[series.dtype] + 0.005, (series.device, name)

    def test_efficiencies_are_those_of_the_first_rows(self, tool: dict[str, object]) -> None:
        for series in tool["CPU"]:  # type: ignore[attr-defined]
            name, published = next(iter(series.rows.items()))
            device = estimate.load_device(series.device)
            predicted = tool["seconds"](device, name, series.dtype, series.threads) * 1e3  # type: ignore[operator]
            assert predicted == pytest.approx(published, rel=0.01)
