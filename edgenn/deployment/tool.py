"""The device's release tool as one file, and how it is asked.

The same modules as in edgenn_device, zipped (zipapp): what the system's own Python runs at first contact and at every
boot, whatever is installed. Here it is packed and asked; what it does is written there.
"""

from __future__ import annotations

import functools
import io
import json
import secrets
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import edgenn_device
from edgenn_device.errors import EdgennError
from edgenn_device.releases import WITHIN

from .connection import Connection

_MODULES = (
    "errors",
    "release_files",
    "release_health",
    "release_prune",
    "releases",
    "release_install",
    "release_facts",
    "release_command",
)
_MAIN = "import sys\nfrom edgenn_device.release_command import main\nsys.exit(main())\n"
# Zip knows no earlier time; always the same one, so that the same code is the same file.
_DATE = (1980, 1, 1, 0, 0, 0)
# Where it stays on the device.
INSTALLED = "/opt/edgenn/releases.pyz"
# Of the unit that it runs in there, so that a connection that breaks changes nothing.
_UNIT = "edgenn-switch"
# Seconds for an environment on a small board.
_PATIENCE = 3600.0


@functools.cache
def tool() -> bytes:
    """`python3 -I releases.pyz VERB`: see edgenn_device.release_command."""
    place = Path(edgenn_device.__file__).parent
    contents = {"__main__.py": _MAIN, "edgenn_device/__init__.py": ""}
    contents.update({f"edgenn_device/{name}.py": (place / f"{name}.py").read_text() for name in _MODULES})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


@functools.cache
def system_file(name: str) -> bytes:
    """A unit or sysusers file: of the checkout, or of the installed package.

    Raises:
      EdgennError: it is in neither.
    """
    for folder in (Path(__file__).parents[2] / "device/systemd", Path(__file__).parent / "systemd"):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    raise EdgennError(f"{name} is missing from this installation: pip install --force-reinstall 'edgenn[deploy]'")


def asked(
    connection: Connection,
    tool: str,
    words: Sequence[str],
    *,
    within: float = WITHIN,
    told: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the device's release tool in a transient unit and return its answer.

    Raises:
      Unreachable: the connection broke; the device goes on alone.
      EdgennError: it cannot do it, in the device's own words.
    """
    # OnFailure: should the switch itself be ended (out of memory), what it left is mended at once. 1 and 2 are answers.
    unit = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={_UNIT}-{secrets.token_hex(4)}"]
    unit += ["--property=OnFailure=edgenn-releases.service", "--property=SuccessExitStatus=1 2"]
    argv = [*unit, "/usr/bin/python3", "-I", tool, f"--within={within:g}", *words]
    done = connection.run(argv, sudo=True, timeout=_PATIENCE, told=told)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or [f"status {done.status}"]
        raise EdgennError(f"{connection.host.name}: the switch gave no answer: {last[0].strip()[:300]}") from None
    if not isinstance(said, dict) or "error" in said:
        raise EdgennError(f"{connection.host.name}: {said['error']}")
    return said


def read(connection: Connection, tool: str, verb: str) -> dict[str, Any]:
    """What the device's release tool says where nothing is changed.

    Raises:
      EdgennError: nothing was ever deployed there, or as `Connection.run`.
    """
    done = connection.run(["/usr/bin/python3", "-I", tool, verb], sudo=True)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise EdgennError(f"{connection.host.name}: nothing was deployed there yet: edgenn deploy MODEL") from None
    if "error" in said:
        raise EdgennError(f"{connection.host.name}: {said['error']}")
    return said
