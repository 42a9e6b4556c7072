"""What a deploy decides: what is sent to whom, in which order, and what is said. Devices are stand-ins that answer as
edgenn_device.releases does; tests/deployment/test_deploy_device.py asks real ones."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from device_facts import NOW, PI, facts, system_digests

from edgenn.deployment import deploy as deploy_module
from edgenn.deployment import engine as engine_module
from edgenn.deployment.connection import Connection
from edgenn.deployment.deploy import Deployed, deploy
from edgenn.deployment.engine import Failure
from edgenn.deployment.hosts import Host
from edgenn.deployment.packages import Packages, Wheel
from edgenn.deployment.plan import Plan, Wanted, options_for, plan, toml
from edgenn_device.errors import EdgennError
from edgenn_device.option_notes import NOTES
from edgenn_device.options import Options
from tools.model_variants import another

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"


@pytest.fixture
def needed(tmp_path: Path) -> Packages:
    import zipfile

    made = []
    for name in ("edgenn-1-py3-none-any.whl", "numpy-1-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("x.py", "x" * 1000)
        made.append(Wheel(tmp_path / name, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()))
    return Packages(PI, tuple(made), ())


def planned(wanted: Wanted, needed: Packages, host: Host | None = None, **more: Any) -> Plan:
    return plan(host or Host("porch", "porch"), wanted, facts(**more), needed, now=NOW)


def after(first: Plan, needed: Packages, **more: Any) -> dict[str, Any]:
    """What a device says once it has what was planned."""
    manifest = json.loads(dict(first.files)["manifest.json"])
    release = manifest["release"]
    return {
        "current": {**release, "id": first.id, "state": "proved"},
        "config": toml(first.options).decode(),
        "files": list(release["files"].values()),
        "environments": [needed.key],
        "wheels": [w.sha256 for w in needed.wheels],
        "system": system_digests(),
        "health": {"state": "ok", "reasons": []},
        **more,
    }


def test_a_fresh_device_is_sent_everything(needed: Packages) -> None:
    made = planned(Wanted(GARMENTS), needed)
    assert made.changed
    names = {name for name, _ in made.files}
    assert {"model.tflite", "run.toml", "edgenn.service", "releases.pyz", "edgenn-releases.service"} <= names
    assert {"edgenn.sysusers.conf", "manifest.json", *(f"wheels/{w.name}" for w in needed.wheels)} <= names
    assert made.id.startswith("20270115-080000-")
    assert made.tool.endswith(f"{made.id}/releases.pyz")
    manifest = json.loads(dict(made.files)["manifest.json"])
    sent = {n: hashlib.sha256(c if isinstance(c, bytes) else c.read_bytes()).hexdigest() for n, c in made.files}
    assert manifest["sent"] == {name: digest for name, digest in sent.items() if name != "manifest.json"}
    assert manifest["release"]["model"] == "garments.tflite"
    assert made.bytes == sum(len(c) if isinstance(c, bytes) else c.stat().st_size for _, c in made.files)
    assert made.room > 2 * made.bytes


def test_what_is_there_is_not_sent_again(needed: Packages, tmp_path: Path) -> None:
    first = planned(Wanted(GARMENTS), needed)
    again = planned(Wanted(GARMENTS), needed, **after(first, needed))
    assert (again.changed, again.files, again.bytes) == (False, (), 0)
    other = another(GARMENTS, tmp_path / "other.tflite")
    model = planned(Wanted(other), needed, **after(first, needed))
    assert {name for name, _ in model.files} == {"model.tflite", "manifest.json"}
    # One that another release there has is not sent either.
    known = hashlib.sha256(other.read_bytes()).hexdigest()
    said = after(first, needed)
    said["files"].append(known)
    assert [name for name, _ in planned(Wanted(other), needed, **said).files] == ["manifest.json"]


@pytest.mark.parametrize(
    "more",
    [
        {"interrupted": True},  # a switch that was ended
        {"environments": []},  # its environment is gone
        {"system": {}},  # so is the recovery at boot
    ],
)
def test_a_device_that_lacks_something_is_mended(more: dict[str, Any], needed: Packages) -> None:
    first = planned(Wanted(GARMENTS), needed)
    if "environments" in more:
        newer = Packages(PI, needed.wheels[:1], ())
        assert planned(Wanted(GARMENTS), newer, **after(first, needed)).changed
    else:
        assert planned(Wanted(GARMENTS), needed, **{**after(first, needed), **more}).changed


def test_a_release_that_did_not_prove_itself_is_not_taken_for_done(needed: Packages) -> None:
    first = planned(Wanted(GARMENTS), needed)
    said = after(first, needed)
    said["current"]["state"] = "new"
    assert planned(Wanted(GARMENTS), needed, **said).changed


def test_signed_anew_the_same_model_is_the_same(needed: Packages) -> None:
    first = planned(Wanted(GARMENTS, signatures={"model.tflite.sig": b"monday"}), needed)
    again = Wanted(GARMENTS, signatures={"model.tflite.sig": b"tuesday"})
    assert not planned(again, needed, **after(first, needed)).changed
    assert planned(Wanted(GARMENTS), needed, **after(first, needed)).changed


def test_a_compiled_model_takes_its_twin_with_it(needed: Packages, tmp_path: Path) -> None:
    compiled, twin = tmp_path / "porch_edgetpu.tflite", tmp_path / "porch.tflite"
    compiled.write_bytes(b"compiled")
    twin.write_bytes(b"twin")
    made = planned(Wanted(compiled), needed)
    contents = dict(made.files)
    assert (contents["model_edgetpu.tflite"], contents["model.tflite"]) == (compiled, twin)
    assert made.options["model"] == "/opt/edgenn/current/model_edgetpu.tflite"


@pytest.mark.parametrize(
    ("given", "host", "source", "said", "expected"),
    [
        (None, {}, None, {}, {"source": "picamera"}),  # nobody said: the device's own camera
        (None, {}, None, {"modules": ["venv"]}, {"source": "/dev/video0"}),  # which may be a USB one
        (None, {}, None, {"config": 'source = "a"\nname = "b"'}, {"source": "a", "name": "b"}),  # what it has already
        ({"source": "c"}, {}, None, {"config": 'source = "a"\nname = "b"'}, {"source": "c"}),  # --config replaces that
        ({"source": "c"}, {"source": "d"}, None, {}, {"source": "d"}),  # the inventory holds against --config
        ({"source": "c"}, {"source": "d"}, "e", {}, {"source": "e"}),  # and --source against both
        ({"motion_gate": False, "source": "c"}, {}, None, {}, {"motion-gate": False, "source": "c"}),  # either spelling
    ],
)
def test_which_options_hold(
    given: dict[str, Any] | None,
    host: dict[str, Any],
    source: str | None,
    said: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    options, labels = options_for(Host("a", "a", options=host), Wanted(GARMENTS, given, source), facts(**said))
    assert options == {**expected, "model": "/opt/edgenn/current/model.tflite"}
    assert labels is None


def test_labels_of_this_machine_are_carried_and_kept(needed: Packages, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("a\nb\n")
    host = Host("porch", "porch", options={"labels": str(labels)})
    first = planned(Wanted(GARMENTS), needed, host)
    assert dict(first.files)["labels.txt"] == labels
    assert first.options["labels"] == "/opt/edgenn/current/labels.txt"
    # Asked again without them, the device keeps those that it has.
    again = planned(Wanted(GARMENTS), needed, **after(first, needed))
    assert not again.changed
    assert again.options["labels"] == "/opt/edgenn/current/labels.txt"


@pytest.mark.parametrize(
    "options",
    [
        {"name": 'a "quoted" \\ one', "source": "rtsp://ä/ß", "sink": ["sqlite:events.db", "mqtt://b"]},
        {"source": "0", "roi": [0.25, 0.0, 0.5, 1.0], "motion-gate": False, "threads": 2, "name": "x\x7fy\tz"},
    ],
)
def test_options_are_read_there_as_they_were_meant(options: dict[str, Any]) -> None:
    assert tomllib.loads(toml(options).decode()) == options
    # Every other option stands there too, as a remark: whoever has logged in sees what could be said.
    for name in NOTES:
        assert re.search(rf"^(# )?{name.replace('_', '-')} = ", toml({}).decode(), re.MULTILINE)
    assert tomllib.loads(toml({}).decode()) == {}
    uncommented = re.sub(r"^# (?=[a-z-]+ = )", "", toml({}).decode(), flags=re.MULTILINE)
    assert {key.replace("-", "_") for key in tomllib.loads(uncommented)} == set(NOTES)


def test_a_wrong_option_is_one_line_before_anything_is_sent(needed: Packages) -> None:
    with pytest.raises(EdgennError, match=r"porch: rotate: .*whole number"):
        planned(Wanted(GARMENTS, {"source": "0", "rotate": "ninety"}), needed)
    assert Options.of({"model": "m", "source": "0"}).rotate == 0


class Fleet:
    """Stand-in for the engine: every device answers as it was told to."""

    def __init__(self, answers: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, needed: Packages) -> None:
        fleet = self
        self.waves: list[list[str]] = []

        class Engine:
            def __init__(self, connections: Mapping[str, Connection], told: Any = None) -> None:
                self.names = [*connections]
                self.failures: dict[str, Failure] = {}
                self.answers: dict[str, Any] = {}

            def __enter__(self) -> Engine:
                return self

            def __exit__(self, *error: object) -> None:
                return None

            def facts(self) -> dict[str, Any]:
                now = {name: one.pop(0) if isinstance(one := answers.get(name), list) else one for name in self.names}
                away = [name for name in self.names if now[name] == "away"]
                self.failures.update({name: Failure(f"{name} cannot be reached", reached=False) for name in away})
                return {
                    name: said if isinstance(said := now[name], dict) else facts()
                    for name in self.names
                    if name not in away
                }

            def apply(self, plans: Mapping[str, Plan]) -> None:
                fleet.waves.append([*plans])
                for name, one in plans.items():
                    bad = answers.get(name) == "bad"
                    self.answers[name] = {
                        "ok": not bad,
                        "release": "before" if bad else one.id,
                        "changed": "nothing" if bad else "release",
                        "reason": "no frame was classified" if bad else "",
                        "restored": True if bad else None,
                        "steps": {"verified": 0.1},
                    }

        monkeypatch.setattr(engine_module, "Engine", Engine)
        monkeypatch.setattr(deploy_module, "packages", lambda platform, signed: needed)
        monkeypatch.setattr("edgenn.deployment.preflight.time.time", lambda: NOW)


def hosts(count: int) -> list[Host]:
    return [Host(f"pi{number}", f"pi{number}") for number in range(count)]


def test_every_device_gets_a_row_and_an_unreachable_one_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, needed: Packages
) -> None:
    fleet = Fleet({"pi1": "away"}, monkeypatch, needed)
    results = deploy(GARMENTS, hosts(4))
    assert [one.host for one in results] == ["pi0", "pi1", "pi2", "pi3"]
    assert [one.verdict for one in results] == ["ok", "unreachable", "ok", "ok"]
    assert results[1].reason == "pi1 cannot be reached"
    assert results[0].sent > 0
    assert fleet.waves == [["pi0", "pi2", "pi3"]]


def test_nothing_is_changed_anywhere_while_one_device_cannot(monkeypatch: pytest.MonkeyPatch, needed: Packages) -> None:
    fleet = Fleet({"pi2": facts(free=0)}, monkeypatch, needed)
    results = deploy(GARMENTS, hosts(4))
    assert fleet.waves == []
    assert "no room" in results[2].reason
    assert results[0].reason == "nothing was changed, because of pi2"
    # Unless that many may fail.
    results = deploy(GARMENTS, hosts(4), max_failures=1)
    assert [one.ok for one in results] == [True, True, False, True]


def test_a_canary_that_takes_it_back_stops_the_rest(monkeypatch: pytest.MonkeyPatch, needed: Packages) -> None:
    fleet = Fleet({"pi1": "bad"}, monkeypatch, needed)
    results = deploy(GARMENTS, hosts(10), canary="20%")
    assert fleet.waves == [["pi0", "pi1"]]
    assert [one.ok for one in results] == [True, False] + [False] * 8
    assert results[1].restored
    assert "not tried: a canary did not hold the release" in results[9].reason


def test_what_is_there_already_is_told_with_how_it_is(monkeypatch: pytest.MonkeyPatch, needed: Packages) -> None:
    first = planned(Wanted(GARMENTS), needed)
    sick = after(first, needed, health={"state": "failed", "reasons": ["source: picamera is gone"]})
    dead = after(first, needed, health=None)
    fleet = Fleet(
        {"pi0": facts(**after(first, needed)), "pi1": facts(**sick), "pi2": facts(**dead)}, monkeypatch, needed
    )
    results = deploy(GARMENTS, hosts(3))
    assert fleet.waves == []
    assert [(one.ok, one.changed, one.release) for one in results] == [
        (True, "nothing", first.id),
        (False, "nothing", first.id),
        (False, "nothing", first.id),
    ]
    assert results[1].reason == "source: picamera is gone"
    assert "does not answer" in results[2].reason


def test_what_is_only_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch, needed: Packages) -> None:
    monkeypatch.setattr(deploy_module, "_ASK_AGAIN", 0.0)
    first = planned(Wanted(GARMENTS), needed)
    booting = facts(**after(first, needed, health=None, starting=True))
    starting = facts(**after(first, needed, health={"state": "starting", "reasons": []}))
    well = facts(**after(first, needed, health={"state": "ok", "reasons": []}))
    said = {
        "pi0": [booting, starting, well],
        "pi1": [booting, facts(**after(first, needed, health=None))],  # it ended while it started
        "pi2": [starting, "away"],
        "pi3": [well],  # asked no second time
    }
    told: list[tuple[str, str]] = []
    Fleet(said, monkeypatch, needed)
    results = deploy(GARMENTS, hosts(4), told=lambda name, step: told.append((name, step)))
    assert [one.verdict for one in results] == ["ok", "failed", "unreachable", "ok"]
    assert "does not answer" in results[1].reason
    assert sorted(name for name, step in told if step == "it is starting") == ["pi0", "pi1", "pi2"]


def test_what_is_still_starting_in_the_end_is_not_well(monkeypatch: pytest.MonkeyPatch, needed: Packages) -> None:
    first = planned(Wanted(GARMENTS), needed)
    starting = facts(**after(first, needed, health={"state": "starting", "reasons": []}))
    Fleet({"pi0": starting}, monkeypatch, needed)
    [result] = deploy(GARMENTS, hosts(1), within=0.0)
    assert (result.ok, result.reason) == (False, "no frame was classified yet")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"canary": "many"}, "neither a number of devices"),  # before anything is connected to
        ({"max_failures": "-1"}, "neither a number of devices"),
        ({"config": "nowhere.toml"}, "cannot be read"),
    ],
)
def test_a_wrong_request_connects_to_nothing(
    more: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, needed: Packages
) -> None:
    Fleet({}, monkeypatch, needed)
    monkeypatch.setattr(deploy_module, "Connection", lambda host: pytest.fail("connected"))
    with pytest.raises(EdgennError, match=said):
        deploy(GARMENTS, hosts(1), **more)


def test_a_model_that_is_none_is_refused_here(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"nothing")
    with pytest.raises(EdgennError, match="not a TFLite model"):
        deploy(tmp_path / "x.tflite", hosts(1))
    assert Deployed("a", None, "nothing", 0.0, False, reached=False).verdict == "unreachable"
