"""A Raspberry Pi to test deployment on, without a Raspberry Pi: Debian with systemd, sshd and sudo in a container.

`device()` starts one for as long as a test needs it; `python -m tools.arm_device` does the same by hand. arm64 runs
under QEMU's user emulation, amd64 natively. It is no security boundary and no emulated board: the container is trusted,
shares the machine's network and kernel, and has neither camera, GPIO nor accelerator. docs/test-device.md tells more.
"""

from tools.arm_device.container import Device, device, devices
from tools.arm_device.unavailable import DeviceUnavailable, or_reason

__all__ = ["Device", "DeviceUnavailable", "device", "devices", "or_reason"]
