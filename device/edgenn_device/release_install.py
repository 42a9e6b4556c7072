"""What was carried over becomes an environment and a release, beside those that run.

Takes /opt/edgenn/incoming/<id>, believes none of it before its SHA-256 is right, and puts everything into its final
place under a name that counts only once it is whole and on the disk. It switches to nothing; `releases` does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .errors import EdgennError
from .release_files import COMPLETE, UNIT, Places, command, reached, read_json, sha256, sync_folder, tell
from .release_files import write_synced as write
from .releases import Releases

# What came in: the release and the files that were sent.
MANIFEST = "manifest.json"
# The tool itself, and what belongs to the system rather than to a release: file → where it goes.
TOOL = "releases.pyz"
RECOVERY = "edgenn-releases.service"
SYSUSERS = "edgenn.sysusers.conf"


def install(releases: Releases, id: str) -> tuple[str, dict[str, float]]:
    """Make the release that came in.

    Returns:
      Its id, and the seconds that each step took.

    Raises:
      EdgennError: something was damaged on its way, is not there, or cannot be installed.
    """
    places, steps = releases.places, {}
    incoming = places.incoming / id
    for folder in (places.base, places.environments):
        # The service goes through them; a release can be read by it and root alone.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    manifest = read_json(incoming / MANIFEST)
    if not manifest:
        raise EdgennError(f"nothing came in for release {id}: deploy again")
    began = time.monotonic()
    _verify(incoming, manifest["sent"])
    _install_system(places, incoming)
    _take_wheels(places, incoming, manifest["wheels"])
    reached("wheels taken")
    steps["received"] = round(time.monotonic() - began, 3)
    began = time.monotonic()
    if _make_environment(places, manifest["release"]["environment"], manifest):
        steps["environment"] = round(time.monotonic() - began, 3)
        tell("environment")
    _make_release(releases, id, incoming, manifest["release"])
    reached("release made")
    shutil.rmtree(incoming, ignore_errors=True)
    return id, steps


def remove(releases: Releases) -> dict[str, Any]:
    """Stop the service and remove everything but what the service itself has written, and its user, who owns that."""
    places = releases.places
    if (places.units / UNIT).exists():
        command("systemctl", "disable", "--now", UNIT)
    command("systemctl", "disable", RECOVERY)
    for unit in (UNIT, RECOVERY):
        (places.units / unit).unlink(missing_ok=True)
    command("systemctl", "daemon-reload")
    command("systemctl", "reset-failed", UNIT)
    places.current.unlink(missing_ok=True)
    shutil.rmtree(places.base)
    kept = places.root / "var/lib/edgenn"
    return {"ok": True, "kept": str(kept) if kept.exists() else None}


def _verify(incoming: Path, sent: dict[str, str]) -> None:
    for name, expected in sent.items():
        path = incoming / name
        if ".." in Path(name).parts or not path.is_file() or sha256(path) != expected:
            raise EdgennError(f"{name} was damaged on its way to the device (SHA-256): deploy again")


def _install_system(places: Places, incoming: Path) -> None:
    """The tool, the recovery at boot, and the service's user."""
    if (incoming / TOOL).exists():
        tool = places.base / f".{TOOL}"
        shutil.copyfile(incoming / TOOL, tool)
        _sync(tool)
        tool.replace(places.base / TOOL)
        sync_folder(places.base)
    if (incoming / RECOVERY).exists():
        write(places.units / RECOVERY, (incoming / RECOVERY).read_text(), mode=0o644)
        command("systemctl", "daemon-reload")
        command("systemctl", "enable", RECOVERY)
    if (incoming / SYSUSERS).exists():
        wanted = places.root / "etc/sysusers.d/edgenn.conf"
        write(wanted, (incoming / SYSUSERS).read_text(), mode=0o644)
        done = command("systemd-sysusers", str(wanted))
        if done.returncode:
            raise EdgennError(f"the user edgenn cannot be made: {done.stderr.strip()[:300]}")


def _take_wheels(places: Places, incoming: Path, wheels: list[list[str]]) -> None:
    """Wheels are kept by their content, so that the next environment is sent only what is new in it."""
    for name, digest in wheels:
        came, place = incoming / "wheels" / name, places.wheels / digest / name
        if came.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _sync(came)
            came.replace(place)
            sync_folder(place.parent)


def _make_environment(places: Places, key: str, manifest: dict[str, Any]) -> bool:
    """Whether it had to be made: a virtual environment is built where it stays, and counts once its marker is there."""
    folder = places.environments / key
    if (folder / COMPLETE).exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    wheels = [places.wheels / digest / name for name, digest in manifest["wheels"]]
    for (_, digest), wheel in zip(manifest["wheels"], wheels, strict=True):
        if not wheel.exists() or sha256(wheel) != digest:
            shutil.rmtree(wheel.parent, ignore_errors=True)
            raise EdgennError(f"{wheel.name} is missing or damaged on the device: deploy again")
    tell("installing")
    # System packages: picamera2 and libcamera come from apt. Without pip, which only makes it larger.
    _do([sys.executable, "-I", "-m", "venv", "--without-pip", "--system-site-packages", str(folder)], "an environment")
    reached("environment begun")
    pip = next(wheel for wheel in wheels if wheel.name.startswith("pip-"))
    packages = [str(wheel) for wheel in wheels if wheel != pip]
    python = str(folder / "bin/python")
    options = "--no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check --root-user-action=ignore"
    # pip runs from its own wheel, as ensurepip does it.
    _do([python, "-B", f"{pip}/pip", "install", "--quiet", "--ignore-installed", *options.split(), *packages], "pip")
    reached("packages installed")
    # Byte code of what a run loads, and of nothing else: compiling all of it takes minutes on a small board.
    _do([python, "-I", "-c", manifest["warm"]], "what was installed")
    write(folder / "wheels.txt", "\n".join(digest for _, digest in manifest["wheels"]) + "\n", mode=0o644)
    _sync_file_system(folder)
    reached("environment synced")
    write(folder / COMPLETE, "", mode=0o644)
    return True


def _make_release(releases: Releases, id: str, incoming: Path, release: dict[str, Any]) -> None:
    """The folder with every file of the release: those that came, and those that another release has."""
    places = releases.places
    aside = places.releases / f".{id}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    group = _service_group()
    os.chown(aside, -1, group)
    aside.chmod(0o750)
    for name, digest in release["files"].items():
        target, came = aside / name, incoming / name
        if came.exists():
            shutil.copyfile(came, target)
        else:
            _link_from_another(releases, digest, target)
        # Options may say where a broker is and who one is to it: for root and the service alone.
        os.chown(target, -1, group)
        target.chmod(0o640)
        _sync(target)
    environment = places.environments / release["environment"]
    (aside / "environment").symlink_to(Path("../../environments") / environment.name)
    (aside / "bin").symlink_to("environment/bin")
    write(aside / "release.json", _json(release))
    os.chown(aside / "release.json", -1, group)
    sync_folder(aside)
    reached("release synced")
    aside.replace(releases.folder(id))
    sync_folder(places.releases)


def _link_from_another(releases: Releases, digest: str, target: Path) -> None:
    for other in reversed(releases.ids()):
        for name, its in releases.about(other).get("files", {}).items():
            if its == digest and (releases.folder(other) / name).exists():
                # Hard, so that it outlives the other release: the files of a release are never written again.
                os.link(releases.folder(other) / name, target)
                return
    raise EdgennError(f"{target.name} was neither sent nor is it in another release: deploy again")


def _do(argv: list[str], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise EdgennError(f"{what} does not work on this device: {last[:300]}")


def _service_group() -> int:
    """-1, which changes nothing, where there is no such group."""
    import grp

    try:
        return grp.getgrnam("edgenn").gr_gid if os.geteuid() == 0 else -1
    except KeyError:
        return -1


def _json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value, indent=1, sort_keys=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_file_system(folder: Path) -> None:
    """All of the file system at once: an environment has 5000 files, each of which would wait by itself."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
            os.sync()
    finally:
        os.close(handle)
