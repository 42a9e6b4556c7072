"""Holds `profile --device` against published latencies, and finds the efficiencies in the boards' descriptions.

    python tools/calibrate_devices.py

The networks are written down as lists of operators (what their papers' tables say), so neither TensorFlow nor a model
file is needed; multiply-adds are printed to be compared. For each board and type one row, the first, gives the
efficiency; the others are held out. The two constants that all CPU boards share (what a depthwise convolution reaches
of a plain one, and the cycles to start an operator) are chosen anew for each board from the other boards' rows, so
that no figure of a board has any part in what is predicted for its held-out rows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

from edgenn_device.profiler.estimate import Device, Step, calibrated, load_device, model_seconds

# What `operator_seconds` of the descriptions stands for, which tells a board's clock.
OPERATOR_CYCLES = 30_000
# The constants that are tried.
DEPTHWISE = (0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
CYCLES = (0, 7_500, 15_000, 30_000, 45_000, 75_000)


class Network:
    """Operators of a network, collected while walking through it; square activations, padding keeps the size."""

    def __init__(self, side: int, channels: int = 3) -> None:
        self.side, self.channels = side, channels
        self.input = side * side * channels
        self.operators: list[tuple[str, int, int, int]] = []  # name, multiply-adds, activations, weights (elements)
        self.taps: list[tuple[int, int]] = []  # where detection heads begin

    def conv(self, out: int, kernel: int = 1, stride: int = 1) -> Network:
        side = math.ceil(self.side / stride)
        self._conv(self.side, self.channels, side, out, kernel)
        self.side, self.channels = side, out
        return self

    def branch(self, out: int, kernel: int = 1, of: tuple[int, int] | None = None) -> Network:
        """A convolution beside the trunk: its output is not what follows reads."""
        side, channels = of or (self.side, self.channels)
        self._conv(side, channels, side, out, kernel)
        return self

    def _conv(self, side: int, channels: int, out_side: int, out: int, kernel: int) -> None:
        weights = kernel * kernel * channels * out
        moved = side * side * channels + out_side * out_side * out
        self.operators.append(("CONV_2D", out_side * out_side * weights, moved, weights + 4 * out))

    def depthwise(self, kernel: int = 3, stride: int = 1) -> Network:
        side = math.ceil(self.side / stride)
        macs = side * side * self.channels * kernel * kernel
        moved = (self.side * self.side + side * side) * self.channels
        self.operators.append(("DEPTHWISE_CONV_2D", macs, moved, (kernel * kernel + 4) * self.channels))
        self.side = side
        return self

    def dense(self, inputs: int, outputs: int) -> Network:
        self.operators.append(("FULLY_CONNECTED", inputs * outputs, inputs + outputs, inputs * outputs))
        return self

    def moved(self, name: str, elements: int) -> Network:
        """An operator that multiplies nothing, by the elements it reads and writes."""
        self.operators.append((name, 0, elements, 0))
        return self

    def each(self, name: str, tensors: int = 2) -> Network:
        """The same over whole activations: two for one in and one out, three for an addition."""
        return self.moved(name, tensors * self.side * self.side * self.channels)

    def pool(self, stride: int = 2) -> Network:
        self.each("MAX_POOL_2D", 1)
        self.side = math.ceil(self.side / stride)
        return self

    def tap(self) -> Network:
        self.taps.append((self.side, self.channels))
        return self

    def head(self, hidden: Sequence[int] = ()) -> Network:
        """Global pooling, dense layers, 1000 classes."""
        self.each("MEAN", 1)
        widths = [self.channels, *hidden, 1000]
        for inputs, outputs in pairwise(widths):
            self.dense(inputs, outputs)
        return self.moved("SOFTMAX", 2000)

    def steps(self, dtype: str) -> list[Step]:
        size = 4 if dtype == "float32" else 1
        return [Step(name, macs, moved * size, weights * size, dtype) for name, macs, moved, weights in self.operators]

    @property
    def macs(self) -> int:
        return sum(macs for _, macs, _, _ in self.operators)

    @property
    def weights(self) -> int:
        return sum(weights for _, _, _, weights in self.operators)


def mobilenet_v1(side: int = 224, width: float = 1.0) -> Network:
    """arXiv:1704.04861, table 1."""
    network = Network(side).conv(int(32 * width), 3, 2)
    for out, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ):
        if (out, stride) == (1024, 2):
            network.tap()
        network.depthwise(3, stride).conv(int(out * width))
    return network.tap()


def mobilenet_v2(side: int = 224) -> Network:
    """arXiv:1801.04381, table 2."""
    network = Network(side).conv(32, 3, 2)
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, out, repeats, first_stride in table:
        for stride in [first_stride, *[1] * (repeats - 1)]:
            before = network.channels
            if expansion > 1:
                network.conv(before * expansion)
            if (out, stride) == (160, 2):
                network.tap()
            network.depthwise(3, stride).conv(out)
            if stride == 1 and before == out:
                network.each("ADD", 3)
    return network.conv(1280).tap()


# arXiv:1905.02244, tables 1 and 2: kernel, expansion, out, squeeze-and-excite, h-swish, stride.
_LARGE = (
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
)  # fmt: skip
_SMALL = (
    (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2), (5, 240, 40, 1, 1, 1),
    (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1), (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1),
    (5, 576, 96, 1, 1, 1),
)  # fmt: skip


def mobilenet_v3(table: Iterable[tuple[int, ...]], last: int, hidden: int) -> Network:
    network = Network(224).conv(16, 3, 2).each("HARD_SWISH")
    for kernel, expansion, out, squeeze, swish, stride in table:
        before = network.channels
        if expansion != before:
            network.conv(expansion)
            if swish:
                network.each("HARD_SWISH")
        network.depthwise(kernel, stride)
        if swish:
            network.each("HARD_SWISH")
        if squeeze:
            inner = max(8, (expansion // 4 + 4) // 8 * 8)
            network.each("MEAN", 1).dense(expansion, inner).dense(inner, expansion).each("MUL")
        network.conv(out)
        if stride == 1 and before == out:
            network.each("ADD", 3)
    return network.conv(last).each("HARD_SWISH").head([hidden])


def ssd(trunk: Network) -> Network:
    """The quantized SSD of TensorFlow's detection zoo: four extra layers, 1x1 predictors, 91 classes and 4 sides."""
    for squeeze, out in ((256, 512), (128, 256), (128, 256), (64, 128)):
        trunk.conv(squeeze).conv(out, 3, 2).tap()
    for number, tap in enumerate(trunk.taps):
        anchors = 3 if number == 0 else 6
        trunk.branch(anchors * 91, of=tap).branch(anchors * 4, of=tap)
    return trunk.moved("CONCATENATION", 2 * 1917 * 95).moved("LOGISTIC", 2 * 1917 * 91)


def inception_v1() -> Network:
    """arXiv:1409.4842, table 1."""
    network = Network(224).conv(64, 7, 2).pool().conv(64).conv(192, 3).pool()
    table = (
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (), (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128), (), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    )  # fmt: skip
    for row in table:
        if not row:
            network.pool()
            continue
        one, reduce3, three, reduce5, five, pool = row
        side = network.side
        network.branch(one).branch(reduce3).branch(three, 3, (side, reduce3)).branch(reduce5)
        network.branch(five, 3, (side, reduce5)).each("MAX_POOL_2D").branch(pool)  # 3x3 where the paper has 5x5
        network.channels = one + three + five + pool
        network.each("CONCATENATION")
    return network.head()


def vgg16() -> Network:
    """arXiv:1409.1556, table 1, configuration D."""
    network = Network(224)
    for out, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            network.conv(out, 3)
        network.pool()
    return network.dense(7 * 7 * 512, 4096).dense(4096, 4096).dense(4096, 1000)


def resnet_50(side: int = 299) -> Network:
    """arXiv:1512.03385, table 1."""
    network = Network(side).conv(64, 7, 2).pool()
    for inner, repeats, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(repeats):
            if number == 0:
                network.branch(inner * 4, of=(math.ceil(network.side / first_stride), network.channels))
            network.conv(inner, 1, first_stride if number == 0 else 1).conv(inner, 3).conv(inner * 4).each("ADD", 3)
    return network.head()


NETWORKS: dict[str, Network] = {
    "MobileNetV1 224": mobilenet_v1().head(),
    "MobileNetV2 224": mobilenet_v2().head(),
    "MobileNetV3-Large 224": mobilenet_v3(_LARGE, 960, 1280),
    "MobileNetV3-Small 224": mobilenet_v3(_SMALL, 576, 1024),
    "SSD-MobileNetV1 300": ssd(mobilenet_v1(300)),
    "SSD-MobileNetV1 0.75 300": ssd(mobilenet_v1(300, 0.75)),
    "SSD-MobileNetV2 300": ssd(mobilenet_v2(300)),
    "Inception v1 224": inception_v1(),
    "ResNet-50 299": resnet_50(),
    "VGG16 224": vgg16(),
}


@dataclass(frozen=True)
class Series:
    """Latencies of one board, type and thread count, in ms. The first one calibrates."""

    device: str
    dtype: str
    threads: int
    source: str
    rows: dict[str, float]


CPU = (
    Series("pi4", "int8", 4, "XNNPACK README, Feb 2022", {"MobileNetV1 224": 24, "MobileNetV2 224": 17}),
    Series("pi4", "float32", 4, "XNNPACK README, Feb 2022", {
        "MobileNetV1 224": 77, "MobileNetV2 224": 46, "MobileNetV3-Large 224": 40, "MobileNetV3-Small 224": 15}),
    Series("pi3", "int8", 4, "XNNPACK README, Feb 2022", {"MobileNetV1 224": 46, "MobileNetV2 224": 30}),
    Series("pi3", "float32", 4, "XNNPACK README, Feb 2022", {
        "MobileNetV1 224": 114, "MobileNetV2 224": 79, "MobileNetV3-Large 224": 67, "MobileNetV3-Small 224": 22}),
    Series("pi5", "int8", 1, "aallan/benchmarking-ml-on-the-edge", {
        "SSD-MobileNetV2 300": 23.5, "SSD-MobileNetV1 0.75 300": 16.9}),
    Series("coral-dev", "int8", 1, "coral.ai benchmarks", {
        "MobileNetV1 224": 164, "MobileNetV2 224": 122, "SSD-MobileNetV1 300": 353, "SSD-MobileNetV2 300": 282}),
)  # fmt: skip
# Published, and predicted with nothing of their own: other libraries, other years.
OTHERS = (
    Series("pi4", "float32", 4, "XNNPACK README, Feb 2020, 32-bit", {
        "MobileNetV1 224": 75, "MobileNetV2 224": 44, "MobileNetV3-Large 224": 41, "MobileNetV3-Small 224": 14}),
    Series("pi4", "int8", 1, "aallan, TFLite of 2019, threads not said", {
        "SSD-MobileNetV2 300": 112.6, "SSD-MobileNetV1 0.75 300": 82.7}),
    Series("pi3", "int8", 1, "aallan, TFLite of 2019, threads not said", {
        "SSD-MobileNetV2 300": 379.6, "SSD-MobileNetV1 0.75 300": 271.5}),
)  # fmt: skip
# Start and seconds an operator are solved from the two MobileNets, the link from the last row.
TPU = (
    Series("coral-usb", "int8", 1, "pycoral inference_reference_rp4b.csv", {
        "MobileNetV1 224": 4.204, "MobileNetV2 224": 4.548, "Inception v1 224": 6.213}),
    Series("coral-usb-desktop", "int8", 1, "coral.ai benchmarks", {
        "MobileNetV1 224": 2.4, "MobileNetV2 224": 2.6, "Inception v1 224": 3.4, "ResNet-50 299": 49,
        "VGG16 224": 296}),
    Series("coral-dev-tpu", "int8", 1, "coral.ai benchmarks", {
        "MobileNetV1 224": 2.4, "MobileNetV2 224": 2.6, "Inception v1 224": 4.1, "ResNet-50 299": 56,
        "VGG16 224": 343}),
)  # fmt: skip


def seconds(device: Device, network: str, dtype: str, threads: int) -> float:
    found = NETWORKS[network]
    return model_seconds(device, found.steps(dtype), threads, input_bytes=found.input, weights=found.weights)


def with_constants(device: Device, depthwise: float, cycles: float) -> Device:
    clock = OPERATOR_CYCLES / load_device(device.name).operator_seconds
    efficiency = {**device.efficiency, "depthwise": depthwise}
    return replace(device, efficiency=efficiency, operator_seconds=cycles / clock)


def errors(series: Series, depthwise: float, cycles: float) -> tuple[Device, dict[str, float]]:
    """(the board with its efficiency from the first row, predicted over published minus 1 of the others)."""
    device = with_constants(load_device(series.device), depthwise, cycles)
    (first, milliseconds), *others = series.rows.items()

    def predicted(guess: Device) -> float:
        return seconds(guess, first, series.dtype, series.threads)

    device = calibrated(device, series.dtype, milliseconds / 1e3, predicted)
    return device, {
        name: seconds(device, name, series.dtype, series.threads) * 1e3 / published - 1 for name, published in others
    }


def best_constants(chosen: Sequence[Series]) -> tuple[float, float]:
    """(depthwise, cycles) of the least mean error on the rows held out."""

    def mean_error(constants: tuple[float, float]) -> float:
        return fmean(abs(math.log1p(error)) for series in chosen for error in errors(series, *constants)[1].values())

    return min(((depthwise, cycles) for depthwise in DEPTHWISE for cycles in CYCLES), key=mean_error)


def main() -> None:
    print(f"{'network':26} {'M MACs':>9} {'M weights':>9} operators")
    for name, network in NETWORKS.items():
        print(f"{name:26} {network.macs / 1e6:9.1f} {network.weights / 1e6:9.2f} {len(network.operators):9}")
    print("\nCPU boards, constants from the other boards' rows, efficiency from the first row of each series")
    held_out: list[float] = []
    for series in CPU:
        constants = best_constants([other for other in CPU if other.device != series.device])
        device, found = errors(series, *constants)
        efficiency = device.efficiency[series.dtype]
        print(f"\n{series.device} {series.dtype}, {series.threads} threads ({series.source}): efficiency "
              f"{efficiency:.3f} with depthwise {constants[0]}, {constants[1]} cycles")  # fmt: skip
        print_rows(series, device)
        held_out += found.values()
    sizes = [abs(error) for error in held_out]
    print(f"\nheld out: {len(sizes)} rows, mean error {fmean(sizes):.1%}, largest {max(sizes):.1%}")
    depthwise, cycles = best_constants(CPU)
    print(f"for the descriptions: depthwise {depthwise}, {cycles} cycles; " + ", ".join(
        f"{series.device} {series.dtype} {errors(series, depthwise, cycles)[0].efficiency[series.dtype]:.3f}"
        for series in CPU))  # fmt: skip
    print("\nThe descriptions as they stand, on rows of other measurers")
    for series in (*OTHERS, *TPU):
        print(f"\n{series.device} {series.dtype} ({series.source})")
        device = load_device(series.device)
        print_rows(series, device)


def print_rows(series: Series, device: Device) -> None:
    for name, published in series.rows.items():
        predicted = seconds(device, name, series.dtype, series.threads) * 1e3
        error = predicted / published - 1
        print(f"  {name:26} published {published:7.2f} ms  predicted {predicted:7.2f} ms  {error:+.0%}")


if __name__ == "__main__":
    main()
