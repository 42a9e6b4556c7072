"""Releases on the device: one is switched to as a whole, proves itself, or goes back.

What stands below /opt/edgenn and in which order it is changed is known here alone, so that the power may fail between
any two steps: `recover`, which runs before the service at every boot, leaves the release that was proved last. What
starts is decided by the link and the proof alone; that a release failed is written down for people, after the link has
left it, so that a full disk stops no way back. Only the standard library, because this runs with the system's own
Python while the environments are built and thrown away. It downloads nothing, and never touches what the service itself
has written (/var/lib/edgenn).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import EdgennError
from .release_files import COMPLETE, UNIT, Places, command, reached, read_json, sha256, sync_folder, tell, write_synced
from .release_health import Refused, Watch, ask

# Written last into a release that has classified frames on this device, and into one that was taken back.
PROVED, FAILED = "proved.json", "failed.json"
# UTC time to the second and the beginning of the content's digest.
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
# What a Pi Zero 2 needs to load a model, its camera and the first frame is 20 s.
WITHIN = 60.0
# Seconds in which the release before answers again after another was taken back.
_BACK = 30.0


class Releases:
    """The releases of this device. One process at a time changes them (`changing`).

    Args:
      places: where they are.
    """

    def __init__(self, places: Places | None = None) -> None:
        self.places = places or Places()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold off every other process that changes releases.

        Raises:
          EdgennError: one is at it.
        """
        self.places.base.mkdir(parents=True, exist_ok=True)
        with open(self.places.base / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EdgennError("another deploy is at work on this device: wait for its end") from None
            yield

    @property
    def current(self) -> str | None:
        """The id that `current` points to."""
        try:
            return self.places.current.readlink().name
        except OSError:
            return None

    def folder(self, id: str) -> Path:
        return self.places.releases / id

    def ids(self) -> list[str]:
        """Of all releases, oldest first."""
        try:
            return sorted(entry.name for entry in os.scandir(self.places.releases) if ID.fullmatch(entry.name))
        except FileNotFoundError:
            return []

    def about(self, id: str) -> dict[str, Any]:
        """release.json of a release, with its state ("proved", "failed", "new"), when and why."""
        folder = self.folder(id)
        said = read_json(folder / "release.json")
        state, mark = "new", {}
        for word, name in (("failed", FAILED), ("proved", PROVED)):
            if (folder / name).exists():
                state, mark = word, read_json(folder / name)
        return {**said, "id": id, "state": state, "current": id == self.current, **mark}

    def proved(self, id: str | None) -> bool:
        return id is not None and (self.folder(id) / PROVED).is_file() and (self.folder(id) / "release.json").is_file()

    def before(self, id: str | None) -> str | None:
        """The newest proved release that is older than `id`; without one, any other proved one."""
        others = [other for other in self.ids() if other != id and self.proved(other)]
        return next((other for other in reversed(others) if id is None or other < id), others[-1] if others else None)

    def list(self) -> dict[str, Any]:
        """All releases, newest first, without their lists of files."""
        said = [self.about(id) for id in reversed(self.ids())]
        return {"current": self.current, "releases": [{k: v for k, v in one.items() if k != "files"} for one in said]}

    def switch(self, id: str, within: float = WITHIN) -> dict[str, Any]:
        """Make `id` the current release, if it proves itself within `within` seconds; otherwise go back.

        Returns:
          {"ok", "release": what is current now, "changed": "nothing", "model" or "release", "reason": why it was taken
          back, "restored": whether the one before answers again, "steps": seconds of each}.

        Raises:
          EdgennError: there is no such release.
        """
        old, folder = self.current, self.folder(id)
        if not (folder / "release.json").is_file():
            raise EdgennError(f"there is no release {id} on this device")
        steps: dict[str, float] = {}
        clock = _Clock(steps)
        try:
            self._verify(id)
            clock("verified")
            found = self._compute(folder)
            clock("golden vectors")
        except Refused as refused:
            told = [str(refused)]
            with _going_on(told, f"the mark of {id}"):
                self._mark(id, FAILED, reason=str(refused))
            return {"ok": False, "release": old, "changed": "nothing", "reason": "; ".join(told), "steps": steps}
        before = ask(self.places.socket)
        alone = self._model_alone(old, id) and _other_model(before, found["sha256"])
        # First, because it needs room: without any, the release keeps its proof and can be gone back to later.
        write_synced(self.places.intent, json.dumps({"from": old, "to": id}))
        reached("intent written")
        # From here on, until it is proved again, a loss of power leads back to the release before. What an earlier try
        # said of it goes too: a mark is of the last one.
        for name in (PROVED, FAILED):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        reached("unproved")
        self._point(id)
        reached("link swapped")
        watch = Watch(self.places.socket, found["sha256"], before)
        try:
            if not alone:
                self._set_up(id)
            self._start(reload=alone)
            clock("switched")
            watch.until_well(within, reloaded=alone)
            clock("first frames")
            reached("well")
            # Where that cannot be written the next boot would take it back, long after anybody was told that it works.
            self._mark(id, PROVED, sha256=found["sha256"], golden=found["golden"], runtime=found["runtime"])
        except Refused as refused:
            return self._take_back(id, old, str(refused), alone, clock)
        except OSError as error:
            reason = f"the device cannot complete the switch: {error.strerror or error}"
            return self._take_back(id, old, reason, alone, clock)
        reached("proved")
        self._forget_intent()
        return {"ok": True, "release": id, "changed": "model" if alone else "release", "reason": "", "steps": steps}

    def _take_back(
        self, id: str, old: str | None, reason: str, reload: bool, clock: Callable[[str], None]
    ) -> dict[str, Any]:
        reached("refused")
        self._point(old)
        reached("link swapped back")
        told = [reason]
        with _going_on(told, f"the mark of {id}"):
            self._mark(id, FAILED, reason=reason)
        reached("marked")
        restored = None
        if old is None:
            command("systemctl", "disable", "--now", UNIT)
        else:
            before = ask(self.places.socket)
            said = read_json(self.folder(old) / PROVED) if self.proved(old) else {}
            watch = Watch(self.places.socket, said.get("sha256"), before)
            try:
                if not reload:
                    with _going_on(told, f"the unit of {old}"):
                        self._set_up(old)
                self._start(reload=reload)
                watch.until_well(_BACK, reloaded=reload)
                restored = True
            except (Refused, OSError):
                restored = False
        self._forget_intent()
        clock("taken back")
        return {
            **{"ok": False, "release": old, "changed": "nothing", "reason": "; ".join(told)},
            **{"restored": restored, "steps": clock.steps},  # type: ignore[attr-defined]
        }

    def rollback(self, to: str | None = None, within: float = WITHIN) -> dict[str, Any]:
        """Switch to `to`, or to the newest proved release before the current one.

        Raises:
          EdgennError: there is none.
        """
        target = to or self.before(self.current)
        if target is None:
            raise EdgennError("there is no earlier release that worked on this device")
        if target == self.current:
            raise EdgennError(f"{target} is the current release already")
        return {"from": self.current, **self.switch(target, within)}

    def recover(self) -> dict[str, Any]:
        """Mend what an interruption left: a current release that is not proved gives way to the last that was.

        Returns:
          {"release": what is current now, "from": what was if it is another now, "reason": why, and what could not be
          written}.
        """
        found = self.current
        intended = read_json(self.places.intent)
        target, left = found, intended.get("to")
        told: list[str] = []
        reason = "interrupted before it was proved (power lost, or the switch was ended)"
        if not self.proved(found):
            target = intended.get("from")
            if not (isinstance(target, str) and self.proved(target)):
                target = self.before(found)
            if found is not None:
                left = found
                told.append(reason)
            self._point(target)
            reached("recovered link")
        # Also one that the link had left already when the power failed, before that was written down.
        if left in self.ids() and not self.proved(left) and not (self.folder(left) / FAILED).exists():
            with _going_on(told, f"the mark of {left}"):
                self._mark(left, FAILED, reason=reason)
        changed = target != found
        if target is not None:
            with _going_on(told, f"the unit of {target}"):
                changed |= self._install_unit(target)
        if target is not None and changed:
            command("systemctl", "daemon-reload")
            # Not while booting: what is not started yet will be, with this release.
            command("systemctl", "try-restart", "--no-block", UNIT)
        self._forget_intent()
        for folder in (self.places.releases, self.places.incoming):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if folder == self.places.incoming or entry.name.startswith("."):
                    shutil.rmtree(entry, ignore_errors=True)
        return {"release": target, "from": found if target != found else None, "reason": "; ".join(told)}

    def _verify(self, id: str) -> None:
        """The SHA-256 of every file of a release."""
        said = read_json(self.folder(id) / "release.json")
        for name, expected in said.get("files", {}).items():
            try:
                actual = sha256(self.folder(id) / name)
            except OSError as error:
                raise Refused(f"{name} of the release cannot be read: {error.strerror}") from None
            if actual != expected:
                raise Refused(f"{name} of the release is damaged (SHA-256): deploy it again")
        if not (self.folder(id) / "environment" / COMPLETE).exists():
            raise Refused("the environment of the release is not complete: deploy it again")

    def _compute(self, folder: Path) -> dict[str, Any]:
        """Load the model and compute its golden vectors, in a child that may crash or hang, as the service's user."""
        # Not by way of bin/, which is a link: Python looks for pyvenv.cfg beside the folder that it was called in.
        argv = [str(folder / "environment/bin/python"), "-I", "-B", "-m", "edgenn_device.release_proof", str(folder)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd="/", **_as_service())
        except subprocess.TimeoutExpired:
            raise Refused("the model does not compute its golden vectors within 300 s") from None
        except OSError as error:
            raise Refused(f"the environment cannot be started: {error}") from None
        if done.returncode < 0:
            raise Refused(f"the model ends the process that loads it (signal {-done.returncode})")
        try:
            said: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise Refused(f"the model cannot be tried: {last[:300]}") from None
        if said.get("refused"):
            raise Refused(str(said["refused"]))
        return said

    def _model_alone(self, old: str | None, id: str) -> bool:
        """Whether the two releases differ in the content of their model files alone."""
        if old is None or not self.proved(old):
            return False
        kept = [read_json(self.folder(one) / "release.json") for one in (old, id)]
        rest = [
            {k: v for k, v in one.get("files", {}).items() if not k.startswith("model")} | {"": one.get("environment")}
            for one in kept
        ]
        names = [{name for name in one.get("files", {}) if name.startswith("model")} for one in kept]
        return rest[0] == rest[1] and names[0] == names[1]

    def _point(self, id: str | None) -> None:
        """Make `current` point to `id`, by the renaming of a new link; or remove it."""
        current = self.places.current
        if id is None:
            current.unlink(missing_ok=True)
        else:
            aside = current.with_name(".current")
            aside.unlink(missing_ok=True)
            aside.symlink_to(Path("releases") / id)
            reached("new link")
            aside.replace(current)
        sync_folder(current.parent)

    def _install_unit(self, id: str) -> bool:
        """Put the release's unit in its place; whether it was another one."""
        place, wanted = self.places.units / UNIT, (self.folder(id) / UNIT).read_bytes()
        if place.exists() and place.read_bytes() == wanted:
            return False
        write_synced(place, wanted.decode(), mode=0o644)
        return True

    def _set_up(self, id: str) -> None:
        """What systemd has to know before it starts a release."""
        if self._install_unit(id):
            reached("unit installed")
            command("systemctl", "daemon-reload")
        if not (self.places.units / "multi-user.target.wants" / UNIT).is_symlink():
            command("systemctl", "enable", UNIT)
        reached("enabled")

    def _start(self, *, reload: bool) -> None:
        if reload:
            command("systemctl", "kill", "--kill-whom=main", "--signal=HUP", UNIT)
            return
        done = command("systemctl", "restart", "--no-block", UNIT)
        if done.returncode:
            raise Refused(f"systemd does not start it: {done.stderr.strip()[:300]}")

    def _mark(self, id: str, name: str, **said: Any) -> None:
        folder = self.folder(id)
        other = folder / (FAILED if name == PROVED else PROVED)
        # First, since it takes no room: what failed must not count as proved because the disk is full.
        if other.exists():
            other.unlink()
            sync_folder(folder)
        write_synced(folder / name, json.dumps({"at": round(time.time(), 3), **said}))

    def _forget_intent(self) -> None:
        self.places.intent.unlink(missing_ok=True)
        sync_folder(self.places.base)


@contextmanager
def _going_on(told: list[str], what: str) -> Iterator[None]:
    """Say in `told` that `what` could not be written, and go on: a full disk must not stop the way back."""
    try:
        yield
    except OSError as error:
        told.append(f"{what} could not be written: {error.strerror or error}")


class _Clock:
    """Notes the seconds since the last call under a name, and tells whoever waits."""

    def __init__(self, steps: dict[str, float]) -> None:
        self.steps = steps
        self._last = time.monotonic()

    def __call__(self, name: str) -> None:
        now = time.monotonic()
        self.steps[name] = round(now - self._last, 3)
        self._last = now
        tell(name)


def _other_model(before: dict[str, Any] | None, sha256: str) -> bool:
    """Whether a service answers, and with a model whose replacement can be seen."""
    return before is not None and before.get("model", {}).get("sha256") not in (None, sha256)


def _as_service() -> dict[str, Any]:
    """Arguments of `subprocess.run` for the service's user, where there is one and this is root."""
    import pwd

    try:
        user = pwd.getpwnam("edgenn")
    except KeyError:
        return {}
    if os.geteuid() != 0:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist("edgenn", user.pw_gid)}
