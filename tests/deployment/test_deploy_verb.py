"""The verbs: exit status, the table that people look at, and the one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgenn.deployment.deploy as deploy_module
import edgenn.deployment.releases as releases_module
from edgenn.cli import cli
from edgenn.deployment.deploy import Deployed
from edgenn.deployment.hosts import Host
from edgenn.deployment.releases import Answer

GARMENTS = str(Path(__file__).parents[2] / "models/garments/garments.tflite")
RELEASE = "20261122-153526-0edfc28f"
FINE = Deployed("porch", RELEASE, "model", 3.25, True, sent=254_109, steps={"verified": 0.1})
SAME = Deployed("gate", RELEASE, "nothing", 0.94, True)
BACK = Deployed(
    "shed", "20261120-080000-aaaaaaaa", "nothing", 61.5, False, "shed: no frame was classified within 60 s",
    **{"restored": True, "sent": 70_300_000, "steps": {"verified": 0.1}},
)  # fmt: skip
AWAY = Deployed("barn", None, "nothing", 15.0, False, "barn cannot be reached: Connection refused", reached=False)


def edgenn(*words: str) -> Result:
    # As main() does: an answer that is no is status 1, a wrong request 2.
    return CliRunner().invoke(cli, list(words))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the verb asked for; the answers are FINE, SAME, BACK and AWAY, as many as there are hosts."""
    kept: dict[str, Any] = {}

    def deploy(model: Path, hosts: Sequence[Host], **more: Any) -> list[Deployed]:
        kept.update(more, model=model, hosts=[host.name for host in hosts])
        more["told"](hosts[0].name, "verified")
        return [FINE, SAME, BACK, AWAY][: len(hosts)]

    monkeypatch.setattr(deploy_module, "deploy", deploy)
    return kept


def test_a_row_a_device_and_why_not_under_it(asked: dict[str, Any]) -> None:
    done = edgenn("deploy", GARMENTS, "porch", "gate", "shed", "barn")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["HOST", "RELEASE", "CHANGED", "SENT", "SECONDS"]
    assert lines[1].split() == ["porch", RELEASE, "model", "0.3", "MB", "3.2"]
    assert lines[2].split() == ["gate", RELEASE, "nothing", "–", "0.9"]
    assert lines[3].split()[2:4] == ["taken", "back"]
    assert lines[4].strip() == "no frame was classified within 60 s (the release before runs again)"
    assert lines[5].split()[2] == "unreachable"
    assert "Connection refused" in lines[6]
    # Columns stand under each other.
    assert len({line.index("20261") for line in lines[1:4]}) == 1
    assert str(done.exception) == "2 of 4 devices do not run it"
    assert type(done.exception).__name__ == "AnswerIsNo"


def test_everything_that_was_asked_for_arrives(asked: dict[str, Any], tmp_path: Path) -> None:
    words = ["--source", "0", "--config", "run.toml", "--sign", "key", "--offline", "--canary", "5%"]
    done = edgenn("deploy", GARMENTS, "porch", "gate", *words, "--max-failures", "2", "--within", "90")
    assert done.exit_code == 0
    # Each step when it is done, in a log as on a terminal, and beside the table.
    assert done.stderr == "   0.0 s  porch  verified\n"
    asked.pop("told")
    assert asked == {
        **{"model": Path(GARMENTS), "hosts": ["porch", "gate"], "source": "0", "config": Path("run.toml")},
        **{"sign": Path("key"), "offline": True, "canary": "5%", "max_failures": "2", "within": 90.0},
    }


def test_one_json_document(asked: dict[str, Any]) -> None:
    done = edgenn("deploy", GARMENTS, "porch", "gate", "shed", "--json")
    said = json.loads(done.stdout)
    assert said["ok"] is False
    assert [(one["host"], one["ok"], one["changed"]) for one in said["hosts"]] == [
        ("porch", True, "model"),
        ("gate", True, "nothing"),
        ("shed", False, "nothing"),
    ]
    assert {"release", "seconds", "reason", "reached", "restored", "sent", "steps", "health"} <= set(said["hosts"][0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deploy", GARMENTS], "no device: name one"),  # nobody to deploy to
        (["deploy", "nowhere.tflite", "porch"], "there is no model nowhere.tflite"),  # nothing to deploy
        (["rollback"], "no device"),
        (["releases", "--inventory", "nowhere.toml"], "cannot be read"),
        (["undeploy", "-x"], "No such option"),
    ],
)
def test_a_wrong_request_is_one_line(words: list[str], said: str) -> None:
    done = edgenn(*words)
    assert said in f"{done.exception}{done.output}"


LISTED = {
    "releases": [
        {
            **{"id": RELEASE, "created": 1.0, "model": "b.tflite", "state": "failed", "current": False},
            "reason": "golden vectors do not match",
        },
        {"id": "20261120-080000-aaaaaaaa", "created": 0.0, "model": "a.tflite", "state": "proved", "current": True},
    ]
}


def test_releases_are_listed_with_what_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Answer("porch", LISTED), Answer("barn", reason="barn cannot be reached", reached=False)]
    monkeypatch.setattr(releases_module, "releases", lambda hosts: answers)
    done = edgenn("releases", "porch", "barn")
    assert f"{RELEASE}" in done.stdout
    assert "taken back: golden vectors do not match" in done.stdout
    assert " → 20261120-080000-aaaaaaaa" in done.stdout
    assert "barn cannot be reached" in done.stdout
    assert type(done.exception).__name__ == "AnswerIsNo"
    assert len(json.loads(edgenn("releases", "porch", "barn", "--json").stdout)["hosts"]) == 2


def test_going_back_says_from_where_to_where(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"ok": True, "from": "new", "release": "old"}
    monkeypatch.setattr(releases_module, "rollback", lambda hosts, to, told: [Answer(hosts[0].name, said)])
    assert edgenn("rollback", "porch").stdout == "porch  new → old\n"
    monkeypatch.setattr(
        releases_module, "rollback", lambda hosts, to, told: [Answer(hosts[0].name, reason="no earlier release")]
    )
    done = edgenn("rollback", "porch")
    assert done.stdout == "porch  no earlier release\n"
    assert type(done.exception).__name__ == "AnswerIsNo"


def test_undeploy_says_what_stays_and_how_to_remove_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer("pi@porch:2222", {"ok": True, "kept": "/var/lib/edgenn"})
    monkeypatch.setattr(releases_module, "undeploy", lambda hosts: [answer])
    done = edgenn("undeploy", "pi@porch:2222")
    assert "ssh -p 2222 pi@porch sudo rm -r /var/lib/edgenn" in done.stdout
