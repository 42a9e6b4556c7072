"""From what devices say, which may be anything, to a table that is read each morning."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgenn.cli.status import command
from edgenn.deployment import probe, status
from edgenn.deployment.connection import Unreachable
from edgenn.deployment.hosts import Host, host
from edgenn.deployment.status import STATES, Status, judged, summary

WELL: dict[str, Any] = {
    "release": "20261122-153012-3f2a9c1b",
    "proved": True,
    "unit": {"LoadState": "loaded", "ActiveState": "active"},
    "health": {
        "state": "ok",
        "reasons": [],
        "model": {"name": "model.tflite", "sha256": "ab" * 32},
        "label": "coat",
        "confidence": 0.93,
        "fps": 29.8,
        "latency_ms": {"p50": 9.0, "p90": 14.25, "p99": 20.0},
        "temperature_c": 61.2,
        "uptime_s": 3600.0,
        "version": "0.1.0",
    },
    "last": [],
}


def said(**changes: Any) -> dict[str, Any]:
    """What a device says, with `health__fps=…` for a field of its health."""
    document = json.loads(json.dumps(WELL))
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            document[outer][inner] = value
        else:
            document[outer] = value
    return document


def test_a_device_that_is_well() -> None:
    assert judged("porch", WELL) == Status(
        "porch",
        "ok",
        (),
        "20261122-153012-3f2a9c1b",
        "ab" * 32,
        "coat",
        0.93,
        29.8,
        14.25,
        61.2,
        3600.0,
        "0.1.0",
    )


@pytest.mark.parametrize(
    ("document", "state", "reason"),
    [
        # Its own word, and its reasons.
        (said(health__state="degraded", health__reasons=["delegate: usb"]), "degraded", "delegate: usb"),
        (said(health__state="starting"), "starting", "no frame yet"),
        # Works, but if it loses its power now it goes back to the release before.
        (said(proved=False), "degraded", "has not proved itself"),
        # Never deployed to; systemd knows no unit.
        ({"release": None, "unit": {"LoadState": "not-found"}, "health": None}, "empty", "edgenn deploy MODEL porch"),
        ({"release": None, "unit": {}, "health": None}, "empty", "edgenn deploy MODEL porch"),
        # A first release was taken back: starting the unit that it has left would help nobody.
        (
            {"release": None, "unit": {"LoadState": "loaded", "ActiveState": "inactive"}, "health": None},
            "empty",
            "edgenn deploy MODEL porch",
        ),
        # Deployed by hand, without releases.
        (said(release=None), "ok", ""),
        # The service cannot start: its own last line, not systemd's around it.
        (
            said(
                health=None,
                unit={"LoadState": "loaded", "ActiveState": "failed", "Result": "exit-code"},
                last=["edgenn: m.tflite is damaged: copy it again", "edgenn.service: Main process exited, status=2"],
            ),
            "failed",
            "the service has failed (exit-code): edgenn: m.tflite is damaged: copy it again",
        ),
        (
            said(health=None, unit={"LoadState": "loaded", "ActiveState": "inactive", "Result": "success"}),
            "failed",
            "the service is not running: sudo systemctl start edgenn",
        ),
        # Stopped by somebody: what it said last is a summary, and explains nothing.
        (
            said(
                health=None,
                unit={"LoadState": "loaded", "ActiveState": "inactive", "Result": "success"},
                last=["1114 frames in 231.1 s, 4.8 fps, 15 dropped"],
            ),
            "failed",
            "the service is not running: sudo systemctl start edgenn",
        ),
        # On its way down, or through it.
        (
            said(health=None, unit={"LoadState": "loaded", "ActiveState": "deactivating"}),
            "starting",
            "the service is being stopped, or started again",
        ),
        (said(health=None), "failed", "health socket is silent"),
        (
            said(
                health=None, unit={"LoadState": "loaded", "ActiveState": "activating", "StatusText": "camera is away"}
            ),
            "starting",
            "camera is away",
        ),
        # Strangers.
        ("hello", "failed", "no status"),
        (said(health={}), "failed", "no state"),
        (said(health__state="splendid"), "failed", "no state"),
        (said(health__state="failed", health__reasons=["a\x1b[2J\nb"]), "failed", "a [2J b"),
    ],
)
def test_what_is_not_well_has_a_reason(document: Any, state: str, reason: str) -> None:
    row = judged("porch", document)
    assert row.state == state
    assert reason in (row.reasons[0] if row.reasons else "")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*WELL, *(f"health__{key}" for key in WELL["health"])]), _anything)
def test_whatever_a_device_says_is_a_row_of_plain_text(key: str, value: Any) -> None:
    row = judged("porch", said(**{key: value}))
    assert row.state in STATES
    assert row.state == "ok" or row.reasons
    for text in (*row.reasons, row.release, row.label, row.model, row.version):
        assert text is None or text.isprintable()
    json.dumps(row.to_dict())


def fleet() -> tuple[list[Host], dict[str, Any]]:
    answers = {
        "a": WELL,
        "b": said(health__state="degraded", health__reasons=["sink:mqtt: broker away"]),
        "c": Unreachable("c cannot be reached: No route to host"),
        "d": said(release="20261101-090000-00000000", health__temperature_c=84.0, health__label=None),
        "e": said(health__state="failed", health__reasons=["source: camera 0 is gone, trying again"], health__fps=0.0),
    }
    return [host(name) for name in answers], answers


def asking(answers: dict[str, Any]) -> Any:
    def ask(one: Host) -> Any:
        answer = answers[one.name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


KILLED = "Main process exited, code=killed, status=9/KILL"
ENDED = {"at": 1_800_000_000.0, "ago": 60.0, "how": KILLED, "result": "signal"}


@pytest.mark.parametrize(
    ("more", "reasons"),
    [
        # A release that was not taken: the device is well with the one before, and nobody would ever hear of it.
        (
            {"refused": {"id": "20261123-080000-11111111", "reason": "golden vectors do not match"}},
            ("release 20261123-080000-11111111 was not taken: golden vectors do not match",),
        ),
        # Killed, and back by now.
        (
            {"unit__NRestarts": "1", "ended": ENDED},
            (
                "it was restarted once by itself, last at 2027-01-15 08:00:00 UTC: Main process exited, code=killed, "
                "status=9/KILL, signal",
            ),
        ),
        # The journal has forgotten how.
        (
            {"unit__NRestarts": "7", "ended": {"at": 1_800_000_000.0, "ago": 60.0}},
            ("it was restarted 7 times by itself, last at 2027-01-15 08:00:00 UTC: edgenn logs tells more",),
        ),
        # Long ago; and what a device makes up.
        ({"unit__NRestarts": "1", "ended": {**ENDED, "ago": 90000.0}}, ()),
        ({"unit__NRestarts": "many", "ended": ENDED}, ()),
        ({"unit__NRestarts": "1", "ended": {"at": "then", "ago": []}}, ()),
        ({"refused": "all", "ended": 7}, ()),
    ],
)
def test_what_is_over_by_now_is_told_and_the_device_is_well(more: dict[str, Any], reasons: tuple[str, ...]) -> None:
    row = judged("porch", said(**more))
    assert (row.state, row.reasons) == ("ok", reasons)


def test_the_worst_comes_first_and_one_that_is_away_stops_nobody() -> None:
    hosts, answers = fleet()
    rows = status.status(hosts, asking(answers))
    assert [row.host for row in rows] == ["e", "c", "b", "a", "d"]
    assert rows[1].reasons == ("c cannot be reached: No route to host",)
    assert summary(rows) == (
        "5 devices: 1 failed, 1 unreachable, 1 degraded, 2 ok; "
        "releases: 20261122-153012-3f2a9c1b on 3, 20261101-090000-00000000 on 1"
    )
    assert status.status([], asking({})) == []


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    _, answers = fleet()
    monkeypatch.setattr(status, "_ask", asking(answers))
    done = CliRunner().invoke(command, [*answers])
    assert done.output.splitlines() == [
        "HOST  STATE        RELEASE                    FPS      P90   TEMP  LABEL",
        "e     failed       20261122-153012-3f2a9c1b   0.0  14.2 ms  61 °C  coat 93%",
        "      source: camera 0 is gone, trying again",
        "c     unreachable  –                            –        –      –  –",
        "      c cannot be reached: No route to host",
        "b     degraded     20261122-153012-3f2a9c1b  29.8  14.2 ms  61 °C  coat 93%",
        "      sink:mqtt: broker away",
        "a     ok           20261122-153012-3f2a9c1b  29.8  14.2 ms  61 °C  coat 93%",
        "d     ok           20261101-090000-00000000  29.8  14.2 ms  84 °C  –",
        "",
        summary(status.status([host(name) for name in answers], asking(answers))),
    ]
    assert str(done.exception) == "3 of 5 devices are not well"
    documents = json.loads(CliRunner().invoke(command, ["--json", *answers]).stdout)["devices"]
    assert [one["state"] for one in documents] == ["failed", "unreachable", "degraded", "ok", "ok"]
    coloured = CliRunner().invoke(command, ["a", "e"], color=True).output
    assert "\x1b[31m" in coloured
    assert CliRunner().invoke(command, ["a"]).exit_code == 0


def test_the_probe_reads_a_device(tmp_path: Path) -> None:
    """Run as it is sent: a script on its own, with the release, the health socket and systemctl of a made-up device."""
    release = tmp_path / "opt/edgenn/releases/20261122-153012-3f2a9c1b"
    release.mkdir(parents=True)
    (tmp_path / "opt/edgenn/current").symlink_to(release)
    (tmp_path / "run/edgenn").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\necho LoadState=loaded\necho 'StatusText=coat 93% = good'\n")
    (tmp_path / "bin/journalctl").write_text("#!/bin/sh\necho 'edgenn: no camera'\n")
    for tool in (tmp_path / "bin").iterdir():
        tool.chmod(0o755)
    runs = f"import sys; sys.path.insert(0, {str(Path(probe.__file__).parent)!r}); import probe, json, pathlib; "
    runs += f"print(json.dumps(probe.probe(pathlib.Path({str(tmp_path)!r}))))"

    def answer() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", runs],
            capture_output=True,
            check=True,
            env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        )
        return dict(json.loads(done.stdout))

    (release.parent / "20261123-080000-11111111").mkdir()
    (release.parent / "20261123-080000-11111111/failed.json").write_text('{"at": 1.0, "reason": "no camera"}')
    assert answer()["refused"] == {"id": "20261123-080000-11111111", "reason": "no camera"}
    (release.parent / "20261123-080000-11111111").rename(release.parent / "20261101-080000-11111111")
    assert answer()["refused"] is None

    # systemd has started it again; its journal has two entries of each end, the newest first.
    silent = answer()
    journal = [
        {"__REALTIME_TIMESTAMP": "1800000000000000", "MESSAGE_ID": probe._FAILED, "UNIT_RESULT": "watchdog"},
        {"__REALTIME_TIMESTAMP": "1799999999000000", "MESSAGE_ID": probe._EXITED, "MESSAGE": "edgenn.service: exited"},
    ]
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\necho LoadState=loaded\necho NRestarts=2\n")
    (tmp_path / "bin/journalctl").write_text(
        "#!/bin/sh\ncat <<'END'\n" + "\n".join(map(json.dumps, journal)) + "\nEND\n"
    )
    ended = answer()["ended"]
    assert (ended["at"], ended["how"], ended["result"]) == (1_800_000_000.0, "exited", "watchdog")
    assert silent["ended"] is None
    assert silent["release"] == release.name
    assert silent["proved"] is False
    assert silent["unit"] == {"LoadState": "loaded", "StatusText": "coat 93% = good"}
    assert (silent["health"], silent["last"]) == (None, ["edgenn: no camera"])

    (release / "proved.json").touch()
    # A socket's path is short; the made-up device's may not be.
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path / "run/edgenn")
        try:
            listening.bind("health.sock")
        finally:
            os.chdir(here)
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(json.dumps(WELL["health"]).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        well = answer()
        thread.join()
    assert well["proved"] is True
    assert well["health"] == WELL["health"]
    assert well["last"] == []
