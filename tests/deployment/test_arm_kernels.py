"""What a device computes is what was measured here: the same file, the same bits, on the code for ARM.

Also that edgenn itself runs there: classifying drawn pictures, and profiling.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import compare_kernels_on_arm as kernels
from tools.arm_device import Device

pytestmark = pytest.mark.arm
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arm(device: Device) -> Device:
    if device.arch != "arm64":
        pytest.skip("about code for ARM, and this device is not one: EDGENN_TEST_DEVICE=arm64")
    return device


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [kernels.GARMENTS, kernels.make_mobilenet(tmp_path_factory.mktemp("models") / "mobilenet.tflite")]


@pytest.fixture(scope="module")
def reference(models: list[Path]) -> list[kernels.Answer]:
    return kernels.here(models)


def assert_close(rows: list[tuple[kernels.Answer, int, int]], reference: list[kernels.Answer]) -> None:
    """No further apart than twice what lies between the two kernel libraries of one machine.

    The built-in kernels round once where they have code for ARM, and twice on x86; from layer to layer it adds up.
    """
    for one, _, steps in rows:
        assert steps <= 2 * kernels.apart(reference, one.model), (one.model, one.kernels)


def test_xnnpack_gives_the_bits_of_x86(arm, models, reference, tmp_path):
    rows = kernels.compared(reference, kernels.on_device(arm, models, "litert", tmp_path))
    assert {(one.machine, one.kernels) for one, _, _ in rows} == {("aarch64", "xnnpack"), ("aarch64", "builtin")}
    assert {one.model: count for one, count, _ in rows if one.kernels == "xnnpack"} == {"garments": 0, "mobilenet": 0}
    assert_close(rows, reference)


def test_tflite_runtime_computes_there_what_it_does_here_but_for_rounding(arm, models, reference, tmp_path):
    if arm.suite != "bookworm":
        pytest.skip("tflite-runtime has no wheel for the Python of Trixie")
    rows = kernels.compared(reference, kernels.on_device(arm, models, "tflite-runtime", tmp_path))
    assert {(one.machine, one.kernels) for one, _, _ in rows} == {("aarch64", "builtin")}
    assert_close(rows, reference)


def test_the_comparison_would_see_a_difference(models, reference):
    assert all(kernels.apart(reference, model.stem) > 0 for model in models)
    mobilenet = next(one for one in reference if one.model == "mobilenet")
    assert len({tuple(scores) for scores in mobilenet.scores}) == kernels.PICTURES


@pytest.fixture(scope="module")
def edgenn(arm: Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A command that is edgenn there, with the checkout's code and what a device installs with it."""
    site = tmp_path_factory.mktemp("wheels") / "edgenn-site"
    requirements = ["click>=8.1", "numpy>=1.26", "opencv-python-headless>=4.8", "ai-edge-litert>=2.1"]
    kernels.install(site, kernels.PLATFORMS[arm.suite], requirements)
    for source in (site, ROOT / "edgenn", ROOT / "device" / "edgenn_device", kernels.GARMENTS):
        arm.put(source, "edgenn-there")
    yield "cd edgenn-there && PYTHONPATH=edgenn-site:. python3 -c 'from edgenn.cli import main; main()'"
    arm.run("rm -r edgenn-there")


def test_it_classifies_there(arm, edgenn):
    done = arm.run(f"{edgenn} run garments.tflite --source synthetic --limit 5 --json")
    *frames, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["summary"]["frames"] == len(frames) == 5
    assert last["summary"]["bad"] == 0
    # Drawn garments, which it tells apart; no frame of five is left to chance.
    assert [frame["label"] for frame in frames] == [frame["truth"] for frame in frames]


def test_golden_vectors_hold_there(arm, edgenn):
    code = """
from pathlib import Path
from edgenn_device import golden
from edgenn_device.interpreter import Interpreter
from edgenn_device.model_file import load
model = load(Path("garments.tflite"))
print(golden.check(model, Interpreter(model)))
"""
    assert arm.run("cd edgenn-there && PYTHONPATH=edgenn-site:. python3 -", input=code).stdout.strip() == "True"


def test_it_profiles_there_and_says_that_this_is_no_board(arm, edgenn):
    found = json.loads(arm.run(f"{edgenn} profile garments.tflite --runs 5 --json", timeout=600).stdout)
    assert found["runs"] == 5
    assert found["operators"]
    assert found["pipeline"]["frames"] > 0
    assert any("emulat" in reason.lower() or "qemu" in reason.lower() for reason in found["disturbances"]), found
