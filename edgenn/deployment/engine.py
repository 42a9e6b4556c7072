"""Many devices at the same time: pyinfra's facts and operations, over the connections of `connection`.

pyinfra connects, asks and changes in parallel, and leaves a device out once something failed there. Its own SSH client
is not used: it does not check the keys of jump hosts and reads a part of ssh_config only; OpenSSH's does both. pyinfra
brings gevent, so this module is imported when a deploy runs and by nothing else. What has to be done to a device is
decided elsewhere.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from edgenn_device.errors import EdgennError

from .connection import Connection, Unreachable
from .plan import Plan
from .tool import asked, tool

# pyinfra draws a spinner of its own, and reports failures that are reported here.
os.environ["PYINFRA_PROGRESS"] = "off"
logging.getLogger("pyinfra").setLevel(logging.CRITICAL)

try:
    from gevent import get_hub
    from gevent.threadpool import ThreadPool
    from pyinfra.api.command import FunctionCommand
    from pyinfra.api.config import Config
    from pyinfra.api.connect import connect_all
    from pyinfra.api.exceptions import ConnectError, PyinfraError
    from pyinfra.api.facts import FactBase, get_facts
    from pyinfra.api.inventory import Inventory
    from pyinfra.api.operation import add_op, operation
    from pyinfra.api.operations import run_ops
    from pyinfra.api.state import State
    from pyinfra.connectors.base import BaseConnector
    from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command
    from pyinfra.operations import apt
except ImportError as error:
    raise EdgennError(f"{error.name or 'pyinfra'} is missing; this needs: pip install 'edgenn[deploy]'") from None

# Seconds for a command of apt on a slow card and a slow network, and for an environment on a small board.
_PATIENCE = 3600.0


class Failure:
    """Why a device was left out: `reached` tells whether it answered at all."""

    def __init__(self, reason: str, *, reached: bool) -> None:
        self.reason = reason
        self.reached = reached


class Engine:
    """Entered around what is done to some devices at the same time.

    Args:
      connections: to the devices, by their names; opened here where they are not, and left open.
      told: is given (device's name, step) when a step there is done, from any thread.
    """

    def __init__(
        self, connections: Mapping[str, Connection], told: Callable[[str, str], None] = lambda name, step: None
    ) -> None:
        self.failures: dict[str, Failure] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self._told = told
        self._connections = connections
        self._threads = ThreadPool(max(1, len(connections)))
        # That no device is left is caught below, Ctrl-C by the verb; gevent would print either before that.
        hub = get_hub()
        if PyinfraError not in hub.NOT_ERROR:
            hub.NOT_ERROR = (*hub.NOT_ERROR, PyinfraError, KeyboardInterrupt)
        inventory = Inventory(([*connections], {}))  # type: ignore[no-untyped-call]
        for one in inventory:
            one.connector_cls = self._connector()
        self._state = State(inventory, _config(len(connections)), check_for_changes=False)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is KeyboardInterrupt:
            # The threads wait for what still runs on the devices.
            for connection in self._connections.values():
                connection.close()
        self._threads.kill()

    def facts(self) -> dict[str, dict[str, Any]]:
        """What each device that can be reached says of itself; why the others do not is in `failures`."""
        try:
            connect_all(self._state)
            found = get_facts(self._state, Device, kwargs={"_sudo": True})  # type: ignore[no-untyped-call]
        except PyinfraError:  # none is left
            return {}
        return {one.name: said for one, said in found.items() if said is not None and one.name not in self.failures}

    def apply(self, plans: Mapping[str, Plan]) -> None:
        """Do to each device what its plan says; the answers are in `answers`, and in `failures` why there is none."""
        try:
            connect_all(self._state)
        except PyinfraError:  # none answers
            return
        hosts = {one.name: one for one in self._state.inventory if one in self._state.active_hosts}
        for name, plan in plans.items():
            if name not in hosts:
                continue
            if plan.system_packages:
                add_op(
                    self._state,
                    apt.packages,
                    **{"packages": list(plan.system_packages), "update": True, "cache_time": 86400},
                    **{"no_recommends": True, "_sudo": True, "_env": {"DEBIAN_FRONTEND": "noninteractive"}},
                    host=hosts[name],
                )
            add_op(self._state, carried, self, plan, host=hosts[name])
            add_op(self._state, switched, self, plan, host=hosts[name])
        try:
            run_ops(self._state)
        except PyinfraError:  # none is left
            pass

    def perform(self, name: str, work: Callable[[Connection], None]) -> bool:
        """Do something over the connection of a device, in a thread, so that the others go on; whether it went well."""
        return bool(self._threads.apply(self._guarded, (name, work)))

    def tell(self, name: str, step: str) -> None:
        self._told(name, step)

    def _guarded(self, name: str, work: Callable[[Connection], None]) -> bool:
        try:
            work(self._connections[name])
        except Unreachable as error:
            self.failures.setdefault(name, Failure(str(error), reached=False))
        except EdgennError as error:
            self.failures.setdefault(name, Failure(str(error), reached=True))
        else:
            return True
        return False

    def _connector(self) -> type[BaseConnector]:
        engine = self

        class OpenSSH(BaseConnector):
            """pyinfra's view of a `Connection`."""

            handles_execution = True

            @staticmethod
            def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
                yield name, {}, []

            def connect(self) -> None:
                if not engine.perform(self.host.name, Connection.open):
                    raise ConnectError(engine.failures[self.host.name].reason)

            def run_shell_command(
                self, command: Any, print_output: bool = False, print_input: bool = False, **arguments: Any
            ) -> tuple[bool, CommandOutput]:
                sudo = bool(arguments.pop("_sudo", False))
                for ours in ("_get_pty", "_timeout", "_stdin", "_success_exit_codes"):
                    arguments.pop(ours, None)
                words = shlex.split(make_unix_command(command, **arguments).get_raw_value())
                lines: list[OutputLine] = []
                status = 1

                def work(connection: Connection) -> None:
                    nonlocal status
                    done = connection.run(words, sudo=sudo, timeout=_PATIENCE)
                    status = done.status
                    lines.extend(OutputLine("stdout", line) for line in done.stdout.splitlines())
                    lines.extend(OutputLine("stderr", line) for line in done.stderr.splitlines())
                    if status:
                        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or [f"status {status}"]
                        raise EdgennError(f"{self.host.name}: {last[0].strip()[:300]}")

                return engine.perform(self.host.name, work), CommandOutput(lines)

            def put_file(self, *args: Any, **arguments: Any) -> bool:
                raise NotImplementedError("files are carried by Connection.put, all in one stream")

            def get_file(self, *args: Any, **arguments: Any) -> bool:
                raise NotImplementedError("files are fetched by Connection.get")

        return OpenSSH


def _config(devices: int) -> Config:
    return Config(PARALLEL=max(1, devices))  # type: ignore[no-untyped-call]


class Device(FactBase[dict[str, Any] | None]):
    """All that a deploy has to know, from one process: edgenn_device.release_facts."""

    def command(self) -> str:
        # As an argument rather than by standard input: pyinfra's facts have none.
        packed = base64.b64encode(tool()).decode()
        return (
            't=$(mktemp) && trap "rm -f $t" EXIT && '
            f"echo {packed} | base64 -d > $t && PYTHONDONTWRITEBYTECODE=1 python3 -I $t facts"
        )

    def process(self, output: list[str]) -> dict[str, Any] | None:
        said = json.loads(output[-1])
        return said if isinstance(said, dict) and "error" not in said else None


@operation(is_idempotent=False)
def carried(engine: Engine, plan: Plan) -> Generator[FunctionCommand, None, None]:
    """What the device lacks is put into its own folder of what came in, in one stream."""

    def carry(state: State, host: Any) -> bool:
        done = engine.perform(
            host.name, lambda connection: connection.put(plan.incoming, plan.files, sudo=True, timeout=_PATIENCE)
        )
        engine.tell(host.name, "carried over")
        return done

    yield FunctionCommand(carry, [], {})


@operation(is_idempotent=False)
def switched(engine: Engine, plan: Plan) -> Generator[FunctionCommand, None, None]:
    """The device makes the release and switches to it, in a unit of its own there."""

    def switch(state: State, host: Any) -> bool:
        def work(connection: Connection) -> None:
            engine.answers[host.name] = asked(
                connection, plan.tool, ["deploy", plan.id], within=plan.within, told=lambda s: engine.tell(host.name, s)
            )

        return engine.perform(host.name, work)

    yield FunctionCommand(switch, [], {})
