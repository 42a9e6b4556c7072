"""A run as a service: real processes, real signals, and a datagram socket in systemd's place."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenn_device.card import Card
from edgenn_device.errors import EdgennError
from edgenn_device.health import Health
from edgenn_device.model_file import attach, load
from edgenn_device.notify import Notifier
from edgenn_device.service import HealthSocket, _told_of_clock, exchange

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"
CHILD = Path(__file__).parent / "service_child.py"
EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]
SOON = 60.0  # for waits that end at once unless the code is broken


class Manager:
    """The end of NOTIFY_SOCKET where systemd stands."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.address = address

    def message(self, patience: float = SOON) -> dict[str, str]:
        self.socket.settimeout(patience)
        text = self.socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, name: str, text: str | None = None) -> dict[str, str]:
        """The next message that assigns `name` (with `text` in it)."""
        deadline = time.monotonic() + SOON
        while True:
            message = self.message(max(0.01, deadline - time.monotonic()))
            if name in message and (text is None or text in message[name]):
                return message

    def silent(self, name: str, seconds: float) -> bool:
        """Whether `name` is not heard for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if name in self.message(left):
                    return False
            except TimeoutError:
                break
        return True

    def drain(self) -> None:
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            pass


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def start(tmp_path: Path, manager: Manager) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(*command, **environment): a process under the manager, with a watchdog of one second."""
    (tmp_path / "run").mkdir()
    processes = []

    def started(*command: str, watchdog: float = 1.0, **environment: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": str(int(watchdog * 1e6)),
            "RUNTIME_DIRECTORY": str(tmp_path / "run"),
            **environment,
        }
        environment.pop("WATCHDOG_PID", None)
        # systemd gives a service no terminal.
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


class Told:
    """service_child.py, and the word it acts upon."""

    def __init__(
        self, folder: Path, start: Callable[..., subprocess.Popen[str]], word: str = "on", **options: Any
    ) -> None:
        self.model, self.word = folder / "model.tflite", folder / "word"
        self.model.write_bytes(GARMENTS.read_bytes())
        self.say(word)
        self.process = start(sys.executable, str(CHILD), str(self.model), str(self.word), **options)
        self.lines: list[str] = []
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: Any) -> None:
        self.lines.extend(iter(stream.readline, ""))

    def say(self, word: str) -> None:
        self.word.with_suffix(".new").write_text(word)
        self.word.with_suffix(".new").rename(self.word)

    def replace_model(self, data: bytes) -> None:
        self.model.with_suffix(".new").write_bytes(data)
        self.model.with_suffix(".new").rename(self.model)

    def end(self) -> list[str]:
        """Wait for the end; all lines it printed."""
        self.process.wait(SOON)
        self._reader.join(SOON)
        return self.lines


@pytest.fixture
def told(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Told]:
    def made(**options: Any) -> Told:
        return Told(tmp_path, start, **options)

    return made


def ask(path: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(SOON)
        client.connect(str(path))
        document: dict[str, Any] = json.loads(b"".join(iter(lambda: client.recv(4096), b"")))
        return document


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def other_labels(*labels: str) -> bytes:
    """The garments model with other names for its classes."""
    model = load(GARMENTS)
    assert model.card is not None
    return attach(model.content, Card.from_json(json.dumps({**json.loads(model.card.to_json()), "labels": labels})))


def test_edgenn_run_under_systemd(
    tmp_path: Path, manager: Manager, start: Callable[..., subprocess.Popen[str]]
) -> None:
    model, config = tmp_path / "garments.tflite", tmp_path / "run.toml"
    model.write_bytes(GARMENTS.read_bytes())
    config.write_text(f'model = "{model}"\nsource = "synthetic"\nthreads = 1\nname = "porch"\n')
    process = start(*EDGENN, "run", "--config", str(config))
    ready = manager.until("READY")
    assert ready["READY"] == "1"
    for _ in range(3):
        assert manager.until("WATCHDOG")["WATCHDOG"] == "1"

    place = tmp_path / "run/health.sock"
    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    document = ask(place)
    assert (document["state"], document["device"], document["model"]["name"]) == ("ok", "porch", "garments.tflite")
    assert document["frames"] > 0

    # Rubbish in the model's place: the old one stays, and health says why.
    model.write_bytes(b"rubbish")
    process.send_signal(signal.SIGHUP)
    reloading = manager.until("RELOADING")
    assert int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    manager.until("READY")
    document = ask(place)
    assert document["state"] == "degraded"
    assert "the one before stays: " in document["reasons"][0]
    assert "is not a TFLite model" in document["reasons"][0]
    frames = document["frames"]
    until(lambda: ask(place)["frames"] > frames)

    # A good one again.
    model.write_bytes(other_labels("a", "b", "c"))
    process.send_signal(signal.SIGHUP)
    manager.until("READY")
    document = ask(place)
    assert (document["state"], document["reasons"]) == ("ok", [])
    until(lambda: ask(place)["label"] in ("a", "b", "c", "unknown"))

    process.terminate()
    assert manager.until("STOPPING")["STOPPING"] == "1"
    _, errors = process.communicate(timeout=SOON)
    # It would be 1 if it had taken longer than 1.9 s.
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not place.exists()


def test_ready_comes_with_the_first_frame_and_the_watchdog_stops_with_the_last(
    manager: Manager, told: Callable[..., Told]
) -> None:
    child = told()
    manager.until("READY")
    # A still scene goes on: the gate spares the network, not the frames.
    child.say("still")
    until(lambda: len(child.lines) > 50)
    manager.drain()
    assert manager.until("WATCHDOG")
    # A read that never returns, and nobody has noticed.
    child.say("freeze")
    manager.until("STATUS", "no progress for")
    assert manager.silent("WATCHDOG", 1.5)
    # systemd's SIGABRT would come now. SIGTERM ends it all the same, within 1.9 s or the status would be 1.
    child.process.terminate()
    assert child.end()[-1].startswith("ended ")
    assert child.process.returncode == 0
    skipped = int(child.lines[-1].split()[2])
    assert skipped > 0


def test_a_camera_that_is_known_to_be_lost_is_no_reason_to_restart(
    manager: Manager, told: Callable[..., Told], tmp_path: Path
) -> None:
    child = told()
    manager.until("READY")
    child.say("lose")
    until(lambda: ask(tmp_path / "run/health.sock")["source"]["state"] == "failed")
    manager.drain()
    for _ in range(8):
        manager.until("WATCHDOG")
    manager.until("STATUS", "failed: source: told is gone")
    child.say("on")
    until(lambda: ask(tmp_path / "run/health.sock")["state"] == "ok")


def test_a_decoder_that_hangs_stops_the_watchdog(manager: Manager, told: Callable[..., Told]) -> None:
    child = told()
    manager.until("READY")
    child.say("decode")
    manager.until("STATUS", "no progress for")
    assert manager.silent("WATCHDOG", 1.0)
    child.say("on")
    manager.until("WATCHDOG")


def test_what_hangs_in_native_code_is_broken_off(manager: Manager, told: Callable[..., Told]) -> None:
    # Python's signal handlers would never run: the main thread does not come back.
    child = told()
    manager.until("READY")
    child.say("block")
    manager.until("STATUS", "no progress for")
    child.process.terminate()
    manager.until("STOPPING")
    child.process.wait(SOON)
    assert child.process.returncode == 1
    assert child.process.stderr is not None
    assert "did not end in time" in child.process.stderr.read()


def test_the_watchdog_s_abort_shows_where_it_hangs(manager: Manager, told: Callable[..., Told]) -> None:
    child = told(PYTHONFAULTHANDLER="1")
    manager.until("READY")
    child.say("freeze")
    manager.until("STATUS", "no progress for")
    child.process.send_signal(signal.SIGABRT)
    child.process.wait(SOON)
    assert child.process.returncode == -signal.SIGABRT
    assert child.process.stderr is not None
    told_of = child.process.stderr.read()
    assert "service_child.py" in told_of
    assert " in read" in told_of


def test_a_start_without_a_camera_is_extended(manager: Manager, told: Callable[..., Told]) -> None:
    child = told(word="lose")
    for _ in range(4):
        message = manager.message()
        assert "READY" not in message
        assert "WATCHDOG" not in message
        assert message.get("EXTEND_TIMEOUT_USEC", "1000000") == "1000000"
    manager.until("EXTEND_TIMEOUT_USEC")
    child.say("on")
    manager.until("READY")


def test_models_change_between_two_frames_and_none_is_lost(manager: Manager, told: Callable[..., Told]) -> None:
    child = told()
    manager.until("READY")
    names = [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i")]
    for labels in names:
        child.replace_model(other_labels(*labels))
        before = len(child.lines)
        child.process.send_signal(signal.SIGHUP)
        manager.until("RELOADING")
        manager.until("READY")
        until(lambda at=before: len(child.lines) > at + 30)
    child.process.terminate()
    lines = [line.rstrip("\n").split("\t") for line in child.end() if "\t" in line]
    # Each frame once and in order; a live source's stale ones were dropped, as without an exchange.
    indices = [int(line[0]) for line in lines]
    assert indices == sorted(set(indices))
    seen = [tuple(line[2:]) for line in lines]
    order = [labels for number, labels in enumerate(seen) if number == 0 or labels != seen[number - 1]]
    assert order[1:] == names
    assert {line[1] for line in lines if tuple(line[2:]) == names[2]} & {"g", "h", "i", "unknown"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        # What a copy that was broken off, a wrong file and a damaged one leave behind.
        (b"", "is empty"),
        (GARMENTS.read_bytes()[:-100], "truncated|damaged|checksum"),
        (b"\x7fELF" + bytes(2000), "is not a TFLite model"),
        (GARMENTS.read_bytes()[:20_000] + b"\xff" * 64 + GARMENTS.read_bytes()[20_064:], "checksum|damaged"),
        (None, "there is no model"),
    ],
)
def test_rubbish_in_the_model_s_place_changes_nothing(tmp_path: Path, data: bytes | None, said: str) -> None:
    from edgenn_device.classifier import Classifier

    place = tmp_path / "model.tflite"
    if data is not None:
        place.write_bytes(data)
    pipeline = Swapped()
    with pytest.raises(EdgennError, match=said):
        exchange(pipeline, lambda: Classifier(place), Health("porch"))
    assert pipeline.swapped == []


def test_a_model_that_computes_something_else_here_is_not_taken(tmp_path: Path) -> None:
    from edgenn_device.classifier import Classifier

    model = load(GARMENTS)
    assert model.card is not None
    golden = {key: [[99, 99, 99]] * 4 for key in ("xnnpack", "builtin")}
    card = Card.from_json(json.dumps({**json.loads(model.card.to_json()), "golden": golden}))
    place = tmp_path / "model.tflite"
    place.write_bytes(attach(model.content, card))
    pipeline = Swapped()
    with pytest.raises(EdgennError, match="does not compute here what its card says"):
        exchange(pipeline, lambda: Classifier(place), Health("porch"))
    assert pipeline.swapped == []
    exchange(pipeline, lambda: Classifier(GARMENTS), Health("porch"))
    assert [one.model.path for one in pipeline.swapped] == [GARMENTS]


class Swapped:
    """What `exchange` needs of a pipeline."""

    def __init__(self) -> None:
        self.swapped: list[Any] = []
        self.classifier = self

    def close(self) -> None:
        return None

    def swap(self, classifier: Any) -> None:
        self.swapped.append(classifier)


def test_the_health_socket_waits_for_nobody(tmp_path: Path) -> None:
    place = tmp_path / "health.sock"
    served = HealthSocket(place, Health("porch"))
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(5)]
    for client in silent:
        client.connect(str(place))
    assert ask(place)["device"] == "porch"
    for client in silent:
        client.close()
    assert ask(place)["state"] == "starting"
    served.close()
    assert not place.exists()


def test_a_socket_that_a_killed_run_left_is_taken_over_and_a_living_one_is_not(tmp_path: Path) -> None:
    place = tmp_path / "health.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(place))
    served = HealthSocket(place, Health("porch"))
    assert ask(place)["device"] == "porch"
    with pytest.raises(EdgennError, match="another run answers at"):
        HealthSocket(place, Health("other"))
    assert ask(place)["device"] == "porch"
    served.close()
    with pytest.raises(EdgennError, match="cannot be made: No such file or directory"):
        HealthSocket(tmp_path / "nowhere/health.sock", Health("porch"))


@pytest.mark.parametrize("address", ["@edgenn-test-{}", "{}/notify"])
def test_notifications_reach_abstract_and_named_sockets(tmp_path: Path, address: str) -> None:
    manager = Manager(address.format(os.getpid() if "@" in address else tmp_path))
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    assert notifier.send("READY=1", "STATUS=two\nlines")
    assert manager.message() == {"READY": "1", "STATUS": "two lines"}
    assert notifier.reloading("STATUS=x")
    assert manager.message().keys() == {"RELOADING", "MONOTONIC_USEC", "STATUS"}
    notifier.close()
    manager.socket.close()
    # The manager has gone, or never was.
    assert not notifier.send("READY=1")
    assert not Notifier({}).send("READY=1")
    assert not Notifier({"NOTIFY_SOCKET": "vsock:2:1"}).send("READY=1")


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    # The kernel takes some messages, and then no more; none of the calls waits.
    assert not all(notifier.send("WATCHDOG=1") for _ in range(2000))
    manager.drain()
    assert notifier.send("WATCHDOG=1")
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        # Meant for the process that started us.
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_s_time(environment: dict[str, str], expected: float | None) -> None:
    assert Notifier(environment).watchdog == expected


def test_an_exchange_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    from edgenn_device.classifier import Classifier

    with caplog.at_level("WARNING"):
        exchange(Swapped(), lambda: Classifier(GARMENTS), Health("porch"))
    digest = hashlib.sha256(load(GARMENTS).content).hexdigest()[:12]
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"classifying with {GARMENTS} now (SHA-256 {digest}…)"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        # NTP's own steps, and nothing at all.
        (0.0, []),
        (29.0, []),
        (-29.0, []),
        # A board without a battery for its clock hears the time.
        (86400.0, ["the clock was set forward by 86400 s: earlier times are of the clock before"]),
        (-3600.0, ["the clock was set back by 3600 s: earlier times are of the clock before"]),
    ],
)
def test_a_clock_that_is_set_is_worth_a_line(seconds: float, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        assert _told_of_clock(1000.0, 1000.0 + seconds) == 1000.0 + seconds
    assert [record.getMessage() for record in caplog.records] == said
