"""Questions to a device that is at work: a script that is sent and run, the journal as it is written, a profile.

Nothing of what is sent stays there, and nothing of the service is changed or stopped. What a device answers is taken
for a stranger's word.
"""

from __future__ import annotations

import heapq
import json
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgenn_device.errors import EdgennError

from .connection import Connection
from .hosts import Host

# The command of the device's current release, with the environment that the service runs in.
PROGRAM = "/opt/edgenn/current/bin/edgenn"
RELEASES = ("_UID=0", "SYSLOG_IDENTIFIER=edgenn-releases")
# The script comes before its data, on the same stream: on the command line it would stand in the log of sudo.
_BEGIN = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'edgenn', 'exec'))"
# What is told of the service: by itself, by systemd, and by root's tool that changes releases.
JOURNAL = ("_SYSTEMD_UNIT=edgenn.service", "+", "UNIT=edgenn.service", "_PID=1", "+", *RELEASES)
# Seconds for a profile; `--mlperf` over many threads and runtimes takes tens of minutes on a Pi Zero.
_PROFILE = 2 * 3600.0
# Seconds for connections to be closed when nobody listens any more.
_CLOSING = 15.0
# Entries that wait for whoever reads them, before the devices are made to wait.
_WAITING = 10_000

_ENTRY = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+)(?:\+0000|\+00:00|Z) (.*)")


def ask(
    connection: Connection, script: ModuleType, given: Any = None, *, user: str = "root", timeout: float = 120.0
) -> Any:
    """Run a module on a device and read what it prints.

    Args:
      connection: to the device.
      script: a module that needs only the standard library, reads JSON from stdin and prints JSON.
      given: JSON-able; what it reads.
      user: whom it runs as.
      timeout: in seconds.

    Raises:
      EdgennError: it cannot be run, fails, or prints no JSON.
    """
    assert script.__file__ is not None
    source = Path(script.__file__).read_bytes()
    argv = ["python3", "-I", "-c", _BEGIN, str(len(source))]
    if user != "root":
        argv = ["runuser", "-u", user, "--", *argv]
    done = connection.run(argv, sudo=True, input=source + json.dumps(given).encode(), timeout=timeout)
    try:
        if done.status == 0:
            return json.loads(done.stdout)
        said = done.stderr
    except (ValueError, RecursionError):
        said = "it answers something that is no JSON"
    raise EdgennError(f"{connection.host.name}: {_last(said)}")


@dataclass(frozen=True)
class Entry:
    """A line of a device's journal.

    Attributes:
      host: its name.
      time: UTC, ISO 8601 to the microsecond; "" for what did not come from the journal.
      text: what was written, without signs that steer a terminal.
    """

    host: str
    time: str
    text: str


def journal(hosts: Sequence[Host], *, lines: int = 100, follow: bool = False) -> Iterator[Entry]:
    """What the services of some devices have written.

    Args:
      hosts: all are asked at the same time.
      lines: of the past, from each.
      follow: go on with what is being written, until the caller ends or every connection has.

    Yields:
      The past by time over all devices; with `follow` entries as they come. A device that cannot be asked, or is lost,
      gives one entry without a time that says why.
    """
    arriving: queue.Queue[Entry | None] = queue.Queue(_WAITING)
    readers = [_Reader(one, lines, follow, arriving) for one in hosts]
    try:
        for reader in readers:
            reader.start()
        past: dict[str, list[Entry]] = {one.name: [] for one in hosts}
        running = len(hosts)
        while running:
            entry = arriving.get()
            if entry is None:
                running -= 1
            elif follow:
                yield entry
            else:
                past[entry.host].append(entry)
        yield from heapq.merge(*past.values(), key=lambda entry: entry.time)
    finally:
        for reader in readers:
            reader.end()
        deadline = time.monotonic() + _CLOSING
        while any(reader.is_alive() for reader in readers) and time.monotonic() < deadline:
            # One that waits for room in the queue would never see that it is to end.
            try:
                arriving.get(timeout=0.05)
            except queue.Empty:
                pass


class _Reader(threading.Thread):
    """Reads one device's journal into a queue, and then puts None there.

    The thread owns the connection and the process. `end`, from another thread, kills the process and closes the shared
    connection, which holds the other end of its output: that is what lets the thread see its end.
    """

    def __init__(self, host: Host, lines: int, follow: bool, arriving: queue.Queue[Entry | None]) -> None:
        super().__init__(name=f"journal of {host.name}", daemon=True)
        self._host = host
        self._argv = ["journalctl", f"--lines={lines}", "--output=short-iso-precise"]
        self._argv += ["--utc", "--no-hostname", "--no-pager", "--quiet", *(["--follow"] if follow else [])]
        self._argv += JOURNAL
        self._follow = follow
        self._arriving = arriving
        self._lock = threading.Lock()
        self._ended = False
        self._process: subprocess.Popen[str] | None = None
        self._connection = Connection(host)

    def run(self) -> None:
        try:
            with self._connection as connection:
                # What sudo says by itself does not tell what to type.
                connection.run(["true"], sudo=True)
                self._read(connection.command(self._argv, sudo=True))
        except EdgennError as error:
            self._put("", self._host.bare(error))
        finally:
            if not self._ended:
                self._arriving.put(None)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()
        self._connection.close()

    def _read(self, argv: Sequence[str]) -> None:
        with self._lock:
            if self._ended:
                return
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        moment = ""
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                found = _ENTRY.fullmatch(line.rstrip("\n"))
                # A line without a time belongs to the one before.
                moment, text = (found[1], found[2]) if found else (moment, line)
                self._put(moment, text)
        if self._follow and not self._ended:
            self._put("", "the connection is lost")

    def _put(self, moment: str, text: str) -> None:
        if not self._ended:
            self._arriving.put(Entry(self._host.name, moment, printable(text)))


@dataclass(frozen=True)
class Profiled:
    """What the profiler wrote on a device.

    Attributes:
      files: texts by the names that were asked for, without signs that steer a terminal.
      refused: what it said when its answer was no (`--fail-over`), otherwise "".
    """

    files: Mapping[str, str]
    refused: str


def profile(
    host: Host,
    models: Sequence[Path],
    arguments: Sequence[str],
    wanted: Mapping[str, str],
    *,
    beside: Mapping[str, Path] | None = None,
    width: int = 100,
    told: Callable[[str], None] | None = None,
) -> Profiled:
    """Measure models on a device, with the environment of its current release.

    Args:
      host: the device. The service goes on meanwhile, and the report says how busy the machine was.
      models: of this machine; they are carried there and removed afterwards.
      arguments: of `edgenn profile`, without models and files.
      wanted: option -> name of the file it is to write; "--out" may be given as "--out.SUFFIX" for several.
      beside: option -> file of this machine that is carried there too (`--labels`).
      width: of the table, in characters.
      told: is given what the profiler says meanwhile.

    Raises:
      EdgennError: no such file, no release there, or what the profiler refused.
    """
    carried = {f"{number}/{model.name}": model for number, model in enumerate(models)}
    others = {f"beside/{path.name}": (option, path) for option, path in (beside or {}).items()}
    for path in (*models, *(path for _, path in others.values())):
        if not path.is_file():
            raise EdgennError(f"there is no file {path}")
    with Connection(host) as connection:
        # A release is closed to others than root and the service; its environment is open to all.
        program = connection.run(["readlink", "-e", PROGRAM], sudo=True).stdout.strip()
        if not program.startswith("/opt/edgenn/"):
            raise EdgennError(f"{host.name} has no release to measure with: edgenn deploy MODEL {host.name}")
        folder = connection.run(["mktemp", "-d", "/tmp/edgenn-profile-XXXXXXXX"]).stdout.strip()
        if not re.fullmatch(r"/tmp/edgenn-profile-\w+", folder):
            raise EdgennError(f"{host.name}: no folder can be made in /tmp there: is its disk full?")
        try:
            connection.put(folder, [*carried.items(), *((name, path) for name, (_, path) in others.items())])
            argv = ["env", f"COLUMNS={width}", "LC_ALL=C.UTF-8", program, "profile", *arguments]
            argv += [word for name, (option, _) in others.items() for word in (option, f"{folder}/{name}")]
            argv += [word for option, name in wanted.items() for word in (option.partition(".")[0], f"{folder}/{name}")]
            argv += ["--", *(f"{folder}/{name}" for name in carried)]
            done = connection.run(argv, timeout=_PROFILE, told=told)
            said = re.sub(rf"{folder}/\w+/", "", _last(done.stderr).removeprefix("edgenn: "))
            if done.status not in (0, 1):
                raise EdgennError(f"{host.name}: {said}")
            files = {name: _plain(connection.get(f"{folder}/{name}")) for name in wanted.values()}
        finally:
            connection.run(["rm", "-rf", "--", folder])
    return Profiled(files, said if done.status == 1 else "")


def printable(text: str) -> str:
    """One line of a stranger's text, without signs that steer a terminal, and not without end.

    >>> printable("a\\x1b[2Jb\\tc\\n")
    'a [2Jb c'
    """
    return "".join(sign if sign.isprintable() else " " for sign in text[:4000]).rstrip()


def _plain(content: bytes) -> str:
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in content.decode(errors="replace"))


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1])[:300] if lines else "it says nothing"
