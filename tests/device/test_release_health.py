"""What is told of a service that does not answer: the words of systemd stand in for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenn_device import release_health
from edgenn_device.release_health import Refused, Watch, is_starting

STARTING = {"ActiveState": "activating", "SubState": "start"}
AGAIN = {"ActiveState": "activating", "SubState": "auto-restart"}
RUNNING = {"ActiveState": "active", "SubState": "running"}


@pytest.mark.parametrize(
    ("unit", "starting"),
    [
        (STARTING, True),
        (AGAIN, False),  # it ended, and systemd waits to start it again
        (RUNNING, False),
        ({}, False),  # no systemd here
    ],
)
def test_whether_it_is_starting(unit: dict[str, str], starting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_health, "_show", lambda: unit)
    assert is_starting() is starting


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (STARTING, "it does not answer within 0 s; if it is only slow to start: --within "),
        (RUNNING, "it does not answer within 0 s"),  # no time would help it
    ],
)
def test_a_service_that_is_only_slow_is_told_to_be_given_time(
    unit: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_health, "_show", lambda: unit)
    with pytest.raises(Refused) as refused:
        Watch(tmp_path / "nobody.sock", None, None).until_well(0.001)
    assert str(refused.value).startswith(said)
    assert ("--within" in str(refused.value)) is (unit == STARTING)
