"""The engine, where devices answer and cannot say what they are; real devices are in test_deploy_device.py."""

from __future__ import annotations

from typing import Any, cast

import pytest

from edgenn.deployment.connection import Connection
from edgenn.deployment.engine import Engine
from edgenn_device.errors import EdgennError


class Broken:
    """A connection to a device that can be logged in to and runs nothing."""

    # As after `Connection.open`, which is called with it.
    _open = True

    def run(self, *argv: Any, **more: Any) -> None:
        raise EdgennError("porch: SyntaxError: its Python is too old")


def test_a_device_that_cannot_say_what_it_is_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with Engine({"porch": cast(Connection, Broken())}) as engine:
        assert engine.facts() == {}
        assert engine.failures["porch"].reason == "porch: SyntaxError: its Python is too old"
    # Neither pyinfra nor gevent tells it in its own way.
    assert capfd.readouterr().err == ""
