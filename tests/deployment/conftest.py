"""The devices of the tests marked `arm`: started once, or for one test; EDGENN_TEST_DEVICE=amd64 for the fast kind.

Where a machine cannot run one, those tests are skipped and say why; in CI they fail, since nobody would see the skip.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tools.arm_device import Device, DeviceUnavailable, devices

SUITE = os.environ.get("EDGENN_TEST_SUITE", "bookworm")
ARCHITECTURE = os.environ.get("EDGENN_TEST_DEVICE", "arm64")


def _started(stack: ExitStack, count: int, suite: str, arch: str) -> list[Device]:
    try:
        return stack.enter_context(devices(count, suite=suite, arch=arch))
    except DeviceUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI has to run the test device: {error}")
        pytest.skip(f"no test device: {error}")


@pytest.fixture(scope="session")
def device() -> Iterator[Device]:
    """One device for all tests; whoever changes it puts it back."""
    with ExitStack() as stack:
        yield _started(stack, 1, SUITE, ARCHITECTURE)[0]


@pytest.fixture
def start_devices() -> Iterator[Callable[..., list[Device]]]:
    """start_devices(count=1, suite=…, arch=…): fresh ones, stopped at the end of the test."""
    with ExitStack() as stack:

        def start(count: int = 1, *, suite: str = SUITE, arch: str = ARCHITECTURE) -> list[Device]:
            return _started(stack, count, suite, arch)

        yield start
