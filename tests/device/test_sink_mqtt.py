"""The MQTT sink against a real mosquitto, which is killed, frozen, and asked for passwords and certificates."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest

from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.errors import EdgennError
from edgenn_device.events import Event
from edgenn_device.health import Health
from edgenn_device.pipeline import Result
from edgenn_device.sinks import mqtt
from edgenn_device.sinks.base import About
from edgenn_device.sinks.broker import read_broker
from edgenn_device.sinks.homeassistant import Topics, discovery
from edgenn_device.sinks.mqtt import MqttSink
from edgenn_device.sinks.spool import Spool

paho = pytest.importorskip("paho.mqtt.client", reason="pip install 'edgenn[device]'")
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
if MOSQUITTO is None:
    pytest.skip("needs a broker: apt-get install mosquitto", allow_module_level=True)

ABOUT = About("porch", "garments", ("shirt", "dress"), "LiteRT", "camera 0", "1.2")
PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition: Callable[[], Any], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what or "it did not happen"
        time.sleep(0.01)


class Mosquitto:
    """A broker on a port of its own, that forgets everything when it is killed."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self.file = folder / "mosquitto.conf"
        # Debian's mosquitto, run by root, becomes its own user, who may not read our files.
        user = ["user root"] if os.geteuid() == 0 else []
        listener = [f"listener {self.port} 127.0.0.1", *(lines or ["allow_anonymous true"])]
        self.file.write_text("\n".join([*user, *listener, ""]))
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", self.file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, "mosquitto did not start")

    def _answers(self) -> bool:
        assert self.process.poll() is None, "mosquitto ended at once"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.kill()


class Listener:
    """A subscriber that comes back by itself and remembers all it was told: (topic, payload, retained)."""

    def __init__(self, port: int, topic: str = "#") -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.subscribed = threading.Event()
        self._topic = topic
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, 1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_disconnect = lambda *_: self.subscribed.clear()
        self._client.on_message = lambda _, __, m: self.heard.append((m.topic, m.payload, m.retain))
        self._client.reconnect_delay_set(0.05, 0.2)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        assert self.subscribed.wait(PATIENCE)

    def on(self, topic: str) -> list[bytes]:
        return [payload for where, payload, _ in self.heard if where == topic]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.on("edgenn/porch/event")]

    def publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, 1).wait_for_publish(PATIENCE)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def once(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a subscriber makes of them that knows only the last one, as the template for Home Assistant does."""
    seen: list[dict[str, Any]] = []
    for message in messages:
        if not seen or (message["id"], message["event_type"]) != (seen[-1]["id"], seen[-1]["event_type"]):
            seen.append(message)
    return seen


def event(number: int, ended: float | None = None, thumbnail: bytes | None = None) -> Event:
    return Event(f"{number:014x}-0", "shirt", 0.9, 1000.0 + number, ended, 3, thumbnail)


def result(index: int, label: str = "shirt") -> Result:
    classification = Classification(label, 0.75, ((label, 0.75),), np.array([0.75, 0.25], np.float32))
    return Result(Frame(b"", time.monotonic(), index), classification, {}, 0.0123)


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.delenv("EDGENN_MQTT_PASSWORD", raising=False)
    monkeypatch.delenv("EDGENN_MQTT_PASSWORD_FILE", raising=False)


@pytest.fixture(autouse=True)
def _well_at_once(monkeypatch):
    monkeypatch.setattr(mqtt, "_HELD", 0.0)


@pytest.fixture
def broker(tmp_path):
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def listener(broker):
    listener = Listener(broker.port)
    yield listener
    listener.close()


@pytest.fixture
def sink(broker):
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT) as sink:
        yield sink


def test_home_assistant_is_told_of_every_entity_and_told_again_when_it_starts(broker, listener, sink):
    topic = "homeassistant/device/edgenn_porch/config"
    until(lambda: listener.on(topic))
    document = json.loads(listener.on(topic)[0])
    assert document["device"]["name"] == "porch"
    assert document["origin"] == {"name": "edgenn", "sw_version": "1.2"}
    components = document["components"]
    assert {key: part["platform"] for key, part in components.items()} == {
        "label": "sensor",
        "confidence": "sensor",
        "fps": "sensor",
        "health": "sensor",
        "event": "event",
        "thumbnail": "image",
    }
    assert len({part["unique_id"] for part in components.values()}) == len(components)
    # Everything it points to is really published.
    sink.write(result(0))
    sink.event(event(0, thumbnail=b"jpeg"))
    told = {part.get("state_topic") or part.get("image_topic") for part in components.values()}
    told.update(one["topic"] for one in document["availability"])
    until(lambda: told <= {where for where, _, _ in listener.heard}, f"missing {told}")
    # Whoever comes later finds the device, and how it is, at once.
    later = Listener(broker.port)
    until(lambda: {topic, *told} - {"edgenn/porch/event"} <= {where for where, _, kept in later.heard if kept})
    later.close()
    before = len(listener.on(topic))
    listener.publish("homeassistant/status", "offline")
    listener.publish("homeassistant/status", "online")
    until(lambda: len(listener.on(topic)) > before)
    assert len(listener.on(topic)) == before + 1


def test_home_assistant_is_told_of_an_exchanged_model(broker, listener):
    about = replace(ABOUT)
    topic = "homeassistant/device/edgenn_porch/config"
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}", about):
        until(lambda: listener.on(topic))
        about.model = "coats"
        until(lambda: len(listener.on(topic)) > 1)
    assert [json.loads(told)["device"]["model"] for told in listener.on(topic)] == ["garments", "coats"]


def rendered(template: str, **values: Any) -> str:
    return jinja2.Environment().from_string(template).render(**values).strip()


def test_what_home_assistant_makes_of_the_messages():
    _, document = discovery(ABOUT, Topics("edgenn/porch"), "edgenn_porch")
    components = document["components"]
    state = {"confidence": 0.7512, "fps": 9.5, "health": "degraded", "reasons": ["camera"]}
    values = {key: components[key]["value_template"] for key in ("confidence", "fps", "health")}
    assert {key: rendered(text, value_json=state) for key, text in values.items()} == {
        "confidence": "75.1",
        "fps": "9.5",
        "health": "degraded",
    }
    assert state["health"] in components["health"]["options"]
    # None is "unknown" to Home Assistant: before the first frame.
    assert rendered(values["confidence"], value_json={"confidence": None}) == "None"
    assert len(rendered(components["label"]["value_template"], value="x" * 1000)) == 255
    message = {"event_type": "began", "id": "7", "label": "shirt"}
    template = components["event"]["value_template"]
    for attributes, passes in [
        ({}, True),  # the very first
        ({"id": "7", "event_type": "began"}, False),  # the same once more: no event
        ({"id": "7", "event_type": "ended"}, True),
        ({"id": "6", "event_type": "began"}, True),
    ]:
        shown = rendered(template, value=json.dumps(message), value_json=message, this={"attributes": attributes})
        assert bool(shown) is passes
        assert not passes or json.loads(shown) == message


def test_a_label_of_a_camera_that_is_gone_is_not_shown_as_if_it_were_seen_now():
    _, document = discovery(ABOUT, Topics("edgenn/porch"), "edgenn_porch")
    connected = {"topic": "edgenn/porch/availability"}
    # Home Assistant refuses a device of which an entity has both an availability_topic and an availability.
    assert document["availability"] == [connected]
    assert "availability_topic" not in document
    for key, part in document["components"].items():
        if key not in ("label", "confidence"):
            assert "availability" not in part
            continue
        assert part["availability_mode"] == "all"
        first, sees = part["availability"]
        assert (first, sees["topic"]) == (connected, "edgenn/porch/state")
        shown = {h: rendered(sees["value_template"], value_json={"health": h}) for h in ("ok", "degraded", "failed")}
        assert shown == {"ok": "online", "degraded": "online", "failed": "offline"}


def test_an_event_comes_with_its_picture_before_it(listener, sink):
    sink.event(event(1, thumbnail=b"\xff\xd8 first"))
    sink.event(event(1, ended=1009.5, thumbnail=b"\xff\xd8 better"))
    until(lambda: len(listener.events()) == 2)
    assert listener.events() == [
        {
            "event_type": kind,
            "id": "00000000000001-0",
            "label": "shirt",
            "confidence": 0.9,
            "started": 1001.0,
            "ended": ended,
            "frames": 3,
        }
        for kind, ended in (("began", None), ("ended", 1009.5))
    ]
    topics = [where for where, _, _ in listener.heard if where.endswith(("/event", "/thumbnail"))]
    assert topics[0] == "edgenn/porch/thumbnail"
    assert not any(kept for where, _, kept in listener.heard if where.endswith("/event"))
    until(lambda: sink.state()["sent"] == 2)
    assert sink.state() == {"connected": True, "sent": 2, "spooled": 0, "spool_dropped": 0, "error": None}


class Published:
    """Stands in for paho's client where time is to be our own."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, str, Any]] = []
        self.now = 0.0

    def publish(self, topic: str, payload: Any, **_: Any) -> None:
        self.messages.append((self.now, topic, payload))

    def on(self, topic: str) -> list[tuple[float, Any]]:
        return [(when, payload) for when, where, payload in self.messages if where == topic]


def test_a_flickering_label_is_told_at_a_bounded_rate_and_the_last_one_wins(tmp_path):
    sink = MqttSink("mqtt://127.0.0.1", ABOUT)
    spool = Spool(tmp_path / "spool.db")
    link, client = mqtt._Link(sink, spool), Published()
    # 30 frames a second for 20 s: a label that changes with every frame, then one that stays.
    for index in range(600):
        client.now = 100 + index / 30
        sink.write(result(index, "hat" if index >= 300 else "shirt" if index % 2 else "dress"))
        wait = link._send_what_is_due(client, client.now)
        assert wait > 0
    labels = client.on("edgenn/porch/label")
    assert 10 <= len(labels) <= 21
    assert min(b - a for (a, _), (b, _) in itertools.pairwise(labels)) > 0.49
    assert labels[-1][1] == "hat"
    assert labels[-1][0] < 110.6
    # While nothing changes there is a sign of life every ten seconds, and the label is not repeated.
    states = [when for when, _ in client.on("edgenn/porch/state")]
    assert len(states) == len(labels)
    client.now += 10
    link._send_what_is_due(client, client.now)
    assert len(client.on("edgenn/porch/state")) == len(states) + 1
    assert client.on("edgenn/porch/label") == labels
    link._shut()
    spool.close()


def test_the_state_is_that_of_the_frames(listener, sink):
    for index in range(20):
        sink.write(result(index, "shirt" if index % 2 else "dress"))
    sink.write(result(20, "hat"))
    until(lambda: listener.on("edgenn/porch/label")[-1:] == [b"hat"])
    state = json.loads(listener.on("edgenn/porch/state")[-1])
    assert (state["label"], state["health"], state["confidence"], state["frames"]) == ("hat", "ok", 0.75, 21)


def test_the_health_of_the_run_is_what_is_told(broker, listener):
    health = Health("porch", "1.2")
    health.set("source", "degraded", "camera 0 is gone")
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT, health=health.snapshot):
        until(lambda: listener.on("edgenn/porch/state"))
    state = json.loads(listener.on("edgenn/porch/state")[-1])
    assert (state["health"], state["reasons"]) == ("degraded", ["source: camera 0 is gone"])


def test_health_that_changes_is_told_before_the_next_sign_of_life(tmp_path):
    health = Health("porch", "1.2")
    health.frame(result(0))
    sink = MqttSink("mqtt://127.0.0.1", ABOUT, health=health.snapshot)
    spool = Spool(tmp_path / "spool.db")
    link, client = mqtt._Link(sink, spool), Published()
    for now, state in ((100.0, "ok"), (101.0, "degraded"), (101.2, "degraded"), (102.0, "ok"), (103.0, "ok")):
        health.set("source", state, "camera 0 is gone" if state == "degraded" else "")
        client.now = now
        link._send_what_is_due(client, now)
    told = [(when, json.loads(payload)["health"]) for when, payload in client.on("edgenn/porch/state")]
    assert told == [(100.0, "ok"), (101.0, "degraded"), (102.0, "ok")]
    link._shut()
    spool.close()


def test_a_clean_end_is_told(broker, listener):
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}/home/cameras", ABOUT) as sink:
        until(lambda: listener.on("home/cameras/porch/availability") == [b"online"])
        sink.event(event(1))
    assert sink.state()["connected"] is False
    until(lambda: listener.on("home/cameras/porch/availability") == [b"online", b"offline"])
    # What was there to be sent was sent before.
    assert listener.on("home/cameras/porch/event")


CHILD = """
import sys
from edgenn_device.events import Event
from edgenn_device.sinks.base import About
from edgenn_device.sinks.mqtt import MqttSink
from edgenn_device.sinks.spool import Spool
sink = MqttSink(sys.argv[1], About("porch", "garments", ("shirt",), "LiteRT", "camera 0", "1.2"))
sink.open()
for number in range(int(sys.argv[2]), 10**6):
    sys.stdin.readline()
    sink.event(Event(f"{number:014x}-0", "shirt", 0.9, 1000.0, None, 3, None))
    print(number, flush=True)
"""


def child(broker: Mosquitto, first: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, f"mqtt://127.0.0.1:{broker.port}", str(first)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "device")},
    )


def test_sigkill_is_told_and_loses_no_event_and_doubles_none(broker, listener):
    seeded = random.Random(5)
    first = 0
    for _ in range(3):
        process = child(broker, first)
        for _ in range(seeded.randrange(1, 30)):
            process.stdin.write("\n")
            process.stdin.flush()
            first = int(process.stdout.readline()) + 1
        until(lambda: listener.on("edgenn/porch/availability")[-1:] == [b"online"])
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        until(lambda: listener.on("edgenn/porch/availability")[-1] == b"offline", "no last will")
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT):
        until(lambda: len(once(listener.events())) >= first)
    assert [int(message["id"][:14], 16) for message in once(listener.events())] == list(range(first))


def test_a_broker_that_was_away_gets_all_events_in_order_when_it_is_back(broker, listener, sink, caplog):
    sink.event(event(0))
    until(lambda: len(listener.events()) == 1)
    broker.kill()
    until(lambda: not sink.state()["connected"])
    for number in range(1, 40):
        sink.event(event(number))
    assert sink.state()["spooled"] == 39
    assert sink.state()["error"]
    broker.start()
    until(lambda: len(listener.events()) >= 40 and sink.state()["spooled"] == 0)
    assert [message["id"] for message in listener.events()] == [event(number).id for number in range(40)]
    until(lambda: sink.state()["error"] is None)
    # One line when it went, one when it came back, and not one for every attempt between.
    assert 2 <= len(caplog.records) <= 4
    assert "Errno" not in caplog.text


def test_no_event_of_200_is_lost_or_seen_twice_while_the_broker_is_killed_at_random(
    broker, listener, sink, monkeypatch
):
    monkeypatch.setattr(mqtt, "_AGAIN", 0.2)
    seeded = random.Random(7)
    kills_at = sorted(seeded.sample(range(10, 190), 8))
    for number in range(200):
        sink.event(event(number))
        if number in kills_at:
            # In the middle of sending: when some of what was put has been heard, and the rest is under way.
            heard = len(listener.events())
            if listener.subscribed.is_set() and sink.state()["connected"]:
                until(lambda heard=heard: len(listener.events()) > heard or not sink.state()["spooled"])
            broker.kill()
            broker.start()
    until(lambda: sink.state()["spooled"] == 0 and len(once(listener.events())) >= 200)
    assert [message["id"] for message in once(listener.events())] == [event(number).id for number in range(200)]


class DeafBroker:
    """Answers like a broker, but cuts the connection instead of acknowledging the first `lost` events it is given."""

    def __init__(self, lost: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._lost = lost
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                self._serve(connection, stream)

    def _serve(self, connection: socket.socket, stream: Any) -> None:
        while head := stream.read(1):
            length = shift = 0
            while True:
                (byte,) = stream.read(1)
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = stream.read(length)
            kind = head[0] >> 4
            if kind == 1:  # CONNECT: CONNACK, no session, success, no properties
                connection.sendall(bytes([0x20, 3, 0, 0, 0]))
            elif kind == 8:  # SUBSCRIBE: SUBACK
                connection.sendall(bytes([0x90, 4, *body[:2], 0, 0]))
            elif kind == 3 and head[0] & 6:  # PUBLISH with QoS 1
                size = int.from_bytes(body[:2], "big") + 2
                self.events.append(json.loads(body[size + 3 :]))
                if self._lost:
                    self._lost -= 1
                    return
                connection.sendall(bytes([0x40, 2, *body[size : size + 2]]))

    def close(self) -> None:
        self._server.close()


def test_an_event_whose_acknowledgement_is_lost_is_sent_again_next_and_known_by_its_id():
    broker = DeafBroker(lost=3)
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT) as sink:
        for number in range(4):
            sink.event(event(number))
        until(lambda: sink.state()["sent"] == 4)
    broker.close()
    assert [int(message["id"][:14], 16) for message in broker.events] == [0, 0, 0, 0, 1, 2, 3]
    assert [int(message["id"][:14], 16) for message in once(broker.events)] == [0, 1, 2, 3]


def test_an_event_waits_until_somebody_is_there_to_hear_it(broker, sink, monkeypatch):
    monkeypatch.setattr(mqtt, "_AGAIN", 0.1)
    until(lambda: sink.state()["connected"])
    sink.event(event(1))
    sink.event(event(2))
    other = Listener(broker.port, "edgenn/porch/state")
    until(lambda: other.heard)
    assert sink.state()["spooled"] == 2
    home = Listener(broker.port, "edgenn/+/event")
    until(lambda: sink.state()["spooled"] == 0)
    until(lambda: len(home.events()) == 2)
    other.close()
    home.close()


def test_nothing_waits_for_a_broker_that_has_frozen_and_it_goes_on_when_it_does(broker, listener, sink):
    until(lambda: sink.state()["connected"])
    broker.process.send_signal(signal.SIGSTOP)
    for number in range(50):
        sink.write(result(number, f"label {number}"))
        sink.event(event(number))
    assert sink.state()["spooled"] >= 49
    broker.process.send_signal(signal.SIGCONT)
    # The broker has them before the listener does.
    until(lambda: sink.state()["spooled"] == 0 and len(once(listener.events())) == 50)


def test_a_broker_that_is_not_there_does_not_hold_up_the_end():
    sink = MqttSink(f"mqtt://127.0.0.1:{free_port()}", ABOUT)
    sink.open()
    sink.event(event(1))
    until(lambda: sink.state()["error"])
    sink.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "edgenn-mqtt"]
    # The next start finds what waits.
    sink.open()
    assert sink.state()["spooled"] == 1
    sink.close()
    sink.close()


def test_nothing_is_left_open(broker, tmp_path):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT)
    counts = []
    for _ in range(6):
        with sink:
            until(lambda: sink.state()["connected"])
        counts.append(open_files())
    assert counts[-1] == counts[0]


SECRET = "correct horse battery staple"


@pytest.fixture
def guarded(tmp_path):
    """A broker that wants a password."""
    users = tmp_path / "users"
    subprocess.run(
        [Path(MOSQUITTO).parent.parent / "bin" / "mosquitto_passwd", "-b", "-c", users, "camera", SECRET], check=True
    )
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {users}")
    yield broker
    broker.stop()


@pytest.mark.parametrize("by", ["environment", "file"])
def test_a_password_is_used_and_never_shown(guarded, tmp_path, monkeypatch, caplog, by):
    caplog.set_level(logging.DEBUG)
    if by == "environment":
        monkeypatch.setenv("EDGENN_MQTT_PASSWORD", SECRET)
    else:
        (tmp_path / "secret").write_text(SECRET + "\n")
        monkeypatch.setenv("EDGENN_MQTT_PASSWORD_FILE", str(tmp_path / "secret"))
    address = f"mqtt://camera@127.0.0.1:{guarded.port}"
    with MqttSink(address, ABOUT) as sink:
        until(lambda: sink.state()["connected"])
        shown = [sink.name, repr(sink.state()), repr(vars(sink)), caplog.text, repr(read_broker(address))]
    assert SECRET not in "".join(shown)


def test_a_wrong_password_is_said_without_saying_it(guarded, monkeypatch, caplog):
    monkeypatch.setenv("EDGENN_MQTT_PASSWORD", "a wrong guess")
    with MqttSink(f"mqtt://camera@127.0.0.1:{guarded.port}", ABOUT) as sink:
        until(lambda: "refuses" in (sink.state()["error"] or ""))
        assert "'camera'" in sink.state()["error"]
        assert not sink.state()["connected"]
    assert "a wrong guess" not in caplog.text + repr(sink.state())


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("mqtt://camera:hunter2@host", "does not belong into the address"),
        ("mqtt://camera:12/hunter2@host", "does not belong into the address"),  # read as a port and a prefix
        ("mqtt://camera:12#hunter2@host", "does not belong into the address"),
        ("mqtt://", "names no host"),
        ("mqtt://host:hunter2", "an MQTT address is"),  # a port that is none
        ("mqtt://host:99999/hunter2", "an MQTT address is"),
        ("mqtt://host/a/+/b", "topic prefix"),
        ("mqtt://host/$SYS", "topic prefix"),  # the broker's own
        ("mqtt://host?password=hunter2", "no options but"),
        ("mqtt://host?ca=/etc/ssl/cert.pem", "mqtts:// only"),
        ("mqtts://host?ca=/no/such/file", "/no/such/file cannot be read"),
        ("mqtts://host?ca=/etc/hostname", "no certificate"),
    ],
)
def test_an_address_that_cannot_be_is_refused_and_not_repeated(address, complaint):
    with pytest.raises(EdgennError, match=complaint) as refusal:
        MqttSink(address, ABOUT)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("mqtt://pi.local", ("pi.local", 1883, "edgenn", None)),
        ("mqtts://pi.local", ("pi.local", 8883, "edgenn", None)),
        ("mqtt://me@[::1]:1884/a/b/", ("::1", 1884, "a/b", "me")),
        ("mqtt://me%40home@10.0.0.1/x%20y", ("10.0.0.1", 1883, "x y", "me@home")),
    ],
)
def test_what_an_address_says(address, expected):
    broker = read_broker(address)
    assert (broker.host, broker.port, broker.prefix, broker.user) == expected
    assert (broker.context is not None) == address.startswith("mqtts")


def test_a_name_that_no_topic_can_hold_is_refused(broker):
    with pytest.raises(EdgennError, match="give it a name"):
        MqttSink(f"mqtt://127.0.0.1:{broker.port}", About("+/#", "m", (), "", "", ""))


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """ca.pem and other.pem, two CAs; server.pem and server.key, of the first one, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("certificates")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other"):
        openssl("req", "-x509", *curve, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
                "-subj", f"/CN={name}", "-days", 2)  # fmt: skip
    openssl("req", *curve, "-keyout", folder / "server.key", "-out", folder / "server.csr", "-subj", "/CN=broker")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl("x509", "-req", "-in", folder / "server.csr", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
            "-CAcreateserial", "-out", folder / "server.pem", "-days", 2, "-extfile", folder / "names")  # fmt: skip
    return folder


@pytest.fixture
def encrypted(tmp_path, certificates):
    """A broker with TLS on its port, and without on the one in `plain`."""
    plain = free_port()
    broker = Mosquitto(
        tmp_path,
        "allow_anonymous true",
        f"certfile {certificates / 'server.pem'}",
        f"keyfile {certificates / 'server.key'}",
        f"listener {plain} 127.0.0.1",
    )
    broker.plain = plain
    yield broker
    broker.stop()


def test_tls_with_a_ca_of_ones_own(encrypted, certificates):
    listener = Listener(encrypted.plain)
    with MqttSink(f"mqtts://127.0.0.1:{encrypted.port}?ca={certificates / 'ca.pem'}", ABOUT) as sink:
        # A picture of more than one TLS record; and many answers, some of which come in one record.
        for number in range(20):
            sink.event(event(number, thumbnail=bytes([number]) * 40_000))
        until(lambda: len(listener.events()) == 20)
        assert listener.on("edgenn/porch/thumbnail")[-1] == bytes([19]) * 40_000
        listener.publish("homeassistant/status", "online")
        until(lambda: len(listener.on("homeassistant/device/edgenn_porch/config")) == 2)
    listener.close()


@pytest.mark.parametrize(
    ("host", "ca"),
    [
        ("127.0.0.1", "other.pem"),  # signed by somebody else
        ("localhost", "ca.pem"),  # made out to another name
        ("127.0.0.1", None),  # the system's CAs do not know ours
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(encrypted, certificates, host, ca):
    address = f"mqtts://{host}:{encrypted.port}" + ("" if ca is None else f"?ca={certificates / ca}")
    with MqttSink(address, ABOUT) as sink:
        until(lambda: "certificate verify failed" in (sink.state()["error"] or "").lower(), sink.state())
        assert not sink.state()["connected"]


@pytest.fixture
def attempts(monkeypatch) -> list[int]:
    """Number by number, the attempts after which something was waited for; no wait is long, and no connection holds."""
    monkeypatch.setattr(mqtt, "_HELD", 600.0)
    made: list[int] = []
    monkeypatch.setattr(mqtt, "back_off", lambda attempt: made.append(attempt) or 0.01)
    return made


class TakenOver(DeafBroker):
    """Always has a newer connection of the same client, and says so (MQTT 5.0, 3.14.2.1)."""

    def _serve(self, connection: socket.socket, stream: Any) -> None:
        connection.recv(4096)
        # The reason with a property, a reason string: paho 2.0 overlooks one that stands alone.
        connection.sendall(bytes([0x20, 3, 0, 0, 0, 0xE0, 6, 0x8E, 4, 0x1F, 0, 1, ord("x")]))
        while connection.recv(4096):
            pass


def test_a_device_whose_name_another_has_says_so_once_and_waits_ever_longer(attempts, caplog):
    broker = TakenOver(lost=0)
    with MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT) as sink:
        until(lambda: 5 in attempts)
        said = f"{sink.name}: another device called porch is at this broker: give each its own --name"
        # Also while it has the connection for a moment.
        assert sink.state()["error"] == said
    broker.close()
    assert attempts[:6] == [0, 1, 2, 3, 4, 5]
    assert caplog.messages == [said]


def test_two_devices_of_one_name_at_a_real_broker(broker, listener, tmp_path, monkeypatch, attempts, caplog):
    address = f"mqtt://127.0.0.1:{broker.port}"
    with MqttSink(address, ABOUT) as first:
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "another machine"))
        with MqttSink(address, ABOUT) as second:
            until(lambda: attempts.count(6) == 2, attempts)
            for sink in (first, second):
                assert "another device called porch" in sink.state()["error"]
    # At most that a connection was lost, and whom to look for.
    assert len(caplog.messages) <= 4


def test_two_runs_of_one_device_do_not_share_a_spool(broker, sink):
    with pytest.raises(EdgennError, match="device name"):
        MqttSink(f"mqtt://127.0.0.1:{broker.port}", ABOUT).open()
