"""Is the release that was just switched to well? Asked of the service's own health socket, and of systemd.

Judges and says why in one line that a person far away can act on. It starts, stops and mends nothing.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from .release_files import UNIT

# Seconds between two questions: to the service, which costs it nothing; and to systemd, which costs a process each.
_ASK, _ASK_SYSTEMD = 0.1, 1.0
# Seconds by which an uptime may be rounded up.
_ROUNDED = 0.05


class Refused(Exception):
    """A release does not prove itself; the text is the reason."""


def ask(place: Path) -> dict[str, Any] | None:
    """The health document of the service, None where none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2.0)
        try:
            client.connect(str(place))
            parts = []
            while part := client.recv(65536):
                parts.append(part)
            said = json.loads(b"".join(parts))
        except (OSError, ValueError):
            return None
    return said if isinstance(said, dict) else None


def is_starting() -> bool:
    """Whether systemd waits for the service to say that it is ready, for the first time since it was started."""
    unit = _show()
    return unit.get("ActiveState") == "activating" and unit.get("SubState") != "auto-restart"


class Watch:
    """Begun at the moment before a release is started.

    Args:
      place: of the health socket.
      sha256: of the model's flatbuffer, which must be the one that answers; None takes any.
      before: the health document of the release before, whose complaints are not held against this one.
    """

    def __init__(self, place: Path, sha256: str | None, before: dict[str, Any] | None) -> None:
        self._place = place
        self._sha256 = sha256
        self._before = {_part(reason) for reason in (before or {}).get("reasons", [])}
        self._model_before = [r for r in (before or {}).get("reasons", []) if _part(r) == "model"]
        self._began = time.monotonic()
        self._since = time.time()

    def until_well(self, within: float, *, reloaded: bool = False) -> None:
        """Return when the model is the right one, frames come out of it, and health is ok.

        A complaint about a part (the source, a sink) that the release before had too does not count, and where that
        was a source without pictures, none are waited for.

        Args:
          within: seconds from the beginning.
          reloaded: the process goes on with another model; otherwise it must be a new process.

        Raises:
          Refused: it is not so in time, or cannot become so.
        """
        frames: int | None = None
        asked_systemd = self._began + _ASK_SYSTEMD
        said: dict[str, Any] | None = None
        while True:
            now = time.monotonic()
            answer = ask(self._place)
            # The process that is being ended may still answer: it is older than the wait.
            waited = time.monotonic() - self._began
            if answer is not None and (reloaded or answer.get("uptime_s", 0.0) <= waited + _ROUNDED):
                said = answer
                if self._sha256 is None or said.get("model", {}).get("sha256") == self._sha256:
                    frames = said["frames"] if frames is None else frames
                    blind = "source" in self._before and _state_of(said, "source") == "failed"
                    if (said["frames"] > frames or blind) and not self._new(said):
                        return
                elif reloaded and [r for r in said["reasons"] if _part(r) == "model"] not in ([], self._model_before):
                    raise Refused(self._complaints(said))
            if now >= asked_systemd:
                asked_systemd = now + _ASK_SYSTEMD
                self._fail_if_it_ended()
            if now - self._began > within:
                raise Refused(self._why_not(said, within))
            time.sleep(_ASK)

    def _new(self, said: dict[str, Any]) -> list[str]:
        return [reason for reason in said["reasons"] if _part(reason) not in self._before]

    def _complaints(self, said: dict[str, Any]) -> str:
        return "; ".join(self._new(said) or said["reasons"])[:500]

    def _why_not(self, said: dict[str, Any] | None, within: float) -> str:
        if said is None:
            status = _show().get("StatusText", "")
            slow = f"; if it is only slow to start: --within {3 * within:.0f}" if is_starting() else ""
            return f"it does not answer within {within:.0f} s{f' (it says: {status})' if status else ''}{slow}"
        if self._new(said):
            return self._complaints(said)
        if self._sha256 is not None and said.get("model", {}).get("sha256") != self._sha256:
            return f"it still classifies with another model after {within:.0f} s"
        return f"no frame was classified within {within:.0f} s (health: {said['state']})"

    def _fail_if_it_ended(self) -> None:
        """systemd would start it again and again; once is enough to know."""
        unit = _show()
        if unit.get("SubState") in ("auto-restart", "failed") or unit.get("ActiveState") == "failed":
            raise Refused(f"it ended: {_last_words(self._since) or unit.get('Result', 'no reason is known')}")


def _part(reason: str) -> str:
    """ "sink:mqtt" of "sink:mqtt: no connection"."""
    match = re.match(r"(sink:.+?|\w+): ", reason)
    return match[1] if match else reason


def _state_of(said: dict[str, Any], part: str) -> str:
    return str(said.get(part, {}).get("state", "ok"))


def _show() -> dict[str, str]:
    keys = "ActiveState,SubState,Result,StatusText"
    lines = _said_by("systemctl", "show", UNIT, f"--property={keys}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _last_words(since: float) -> str:
    """The line in the journal that says why it ended: edgenn's own, or how systemd saw it end."""
    text = _said_by("journalctl", "--unit", UNIT, "--since", f"@{int(since)}", "--output=cat", "--no-pager")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("edgenn: ")]
    ended = [line for line in lines if "Main process exited" in line or "Failed" in line]
    chosen = own or ended or lines
    return chosen[-1].removeprefix("edgenn: ")[:500] if chosen else ""


def _said_by(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
