"""What stands in the way is found from what a device says, and each line ends with what to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device_facts import NOW, facts, packages

from edgenn.deployment.hosts import Host, host
from edgenn.deployment.packages import Platform
from edgenn.deployment.plan import Wanted, plan
from edgenn.deployment.preflight import obstacles, platform_of
from edgenn_device.errors import EdgennError

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"
PI = host("pi@porch.local:2222")


def found(more: dict[str, Any], wanted: Wanted, options: dict[str, Any] | None = None) -> str:
    said = facts(**more)
    device = Host(PI.name, PI.hostname, PI.user, PI.port, options=options or {})
    made = plan(device, wanted, said, packages(system=more.get("system_packages", ())), now=NOW)
    return "; ".join(obstacles(device, said, wanted, made, now=NOW))


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ({}, {}, ""),  # nothing
        ({"python": [3, 9, 2]}, {}, "Raspberry Pi OS Bookworm or newer"),  # Bullseye
        ({"python": [3, 14, 0]}, {}, "edgenn needs 3.11 to 3.13"),  # newer than there are wheels
        ({"glibc": []}, {}, "another C library than glibc"),  # Alpine
        ({"machine": "armv6l", "bits": 32}, {}, "no TFLite runtime for armv6l"),  # the first Pi Zero
        ({"machine": "riscv64"}, {}, "no TFLite runtime for riscv64"),  # an architecture without any
        ({"systemd": False}, {}, "systemd"),  # a container
        ({"modules": []}, {"source": "synthetic"}, "sudo apt install -y python3-venv"),  # Python's minimal package
        ({"time": NOW - 3 * 365.25 * 86400}, {}, "clock is 3.0 years behind"),  # a Pi that never saw a network clock
        ({"time": NOW + 3 * 86400}, {}, "clock is 3 days ahead"),  # set wrongly by hand
        ({"time": NOW - 3600}, {}, ""),  # an hour, a wrong time zone: nothing suffers
        ({"free": 10 << 20}, {}, "no room: it takes 6"),  # a full card
        ({"user": ["edgenn"]}, {}, "sudo usermod -aG video edgenn"),  # a user made by hand
        ({"user": ["edgenn"]}, {"source": "rtsp://x/y"}, ""),  # who needs no camera of the device
        ({"user": ["edgenn", "video"]}, {"delegate": "usb"}, "usermod -aG plugdev"),  # a Coral stick
        (
            {"user": ["edgenn", "video"]},
            {"delegate": "pci"},
            "groupadd --system apex && sudo usermod -aG apex edgenn",
        ),  # a Coral card, whose driver has not made its group
        ({"signed_only": True}, {}, "give --sign KEY"),  # accepts signed models alone
    ],
)
def test_what_stands_in_the_way(more: dict[str, Any], options: dict[str, Any], said: str) -> None:
    lines = found(more, Wanted(GARMENTS), options)
    assert said in lines
    assert bool(said) == bool(lines)
    if "sudo" in lines:
        assert "ssh -p 2222 pi@porch.local '" in lines


def test_a_signed_model_is_let_through() -> None:
    assert found({"signed_only": True}, Wanted(GARMENTS, signatures={"model.tflite.sig": b"signed"})) == ""


def test_packages_of_the_system_are_fetched_by_the_device_unless_it_may_not() -> None:
    without = {"modules": ["venv"]}
    assert found(without, Wanted(GARMENTS, source="picamera")) == ""
    lines = found(without, Wanted(GARMENTS, source="picamera", offline=True))
    assert "sudo apt install -y --no-install-recommends python3-picamera2" in lines


def test_a_device_without_a_camera_has_to_be_told_what_to_look_at() -> None:
    with pytest.raises(EdgennError, match="--source"):
        found({"modules": ["venv"], "cameras": ["video10"]}, Wanted(GARMENTS))


@pytest.mark.parametrize(
    ("more", "platform"),
    [
        ({}, Platform("aarch64", (3, 11), (2, 36))),  # a 64-bit system
        ({"bits": 32}, Platform("armv7l", (3, 11), (2, 36))),  # 32-bit programs under a 64-bit kernel
        ({"machine": "armv7l", "bits": 32}, Platform("armv7l", (3, 11), (2, 36))),  # a 32-bit system
        ({"machine": "x86_64"}, Platform("x86_64", (3, 11), (2, 36))),  # a PC
    ],
)
def test_wheels_fit_the_programs_and_not_the_kernel(more: dict[str, Any], platform: Platform) -> None:
    assert platform_of(facts(**more)) == platform
