"""Results and events to an MQTT broker, shown by Home Assistant without further ado.

What is promised. An event is on disk before it is sent, and leaves the disk when the broker has acknowledged it and
says that somebody was there to receive it (MQTT 5: a PUBACK other than "no matching subscribers"). A connection or a
broker that dies between the two makes the event be sent again, with the same id: that is "at least once", which is all
that QoS 1 and a broker that can lose its memory allow. It becomes "once" because events go one at a time and in order:
a message that was sent twice is always the one that its subscriber got last, and is known by its id.

Who may block. One thread owns the connection, and nobody else touches the client. `write` leaves a note for it; `event`
also waits for the disk, which is why this sink stands behind a queue. Reads no commands from the broker but Home
Assistant's birth message.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import re
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import EdgennError
from ..events import Event
from ..extras import require
from ..health import Health
from ..pipeline import Result
from .base import About, Sink
from .broker import Broker, read_broker
from .homeassistant import BEGAN, BIRTH, ENDED, Topics, discovery
from .jsonl import event_document
from .queued import back_off
from .spool import Spool, state_folder

if TYPE_CHECKING:
    from paho.mqtt.client import Client

# Seconds between two states while nothing changes, and at least between two whatever changes.
_STATE_EVERY = 10.0
_STATE_APART = 0.5
# Seconds after which an event that nobody received, or that the broker refused, is tried again.
_AGAIN = 3.0
# Seconds without a fault after which all is well again. More than the longest pause between two attempts: of two
# devices that take the connection from each other neither is ever well.
_HELD = 6.0
# Connections lost one after the other, none of which had held, that are no accident.
_OFTEN = 3
# Seconds that a connection may take, and then its first answer.
_CONNECTING = 5.0
# Seconds without a sign of life, either way. The broker tells the last will after one and a half of these.
_KEEP_ALIVE = 15
# Seconds for the last messages when we are to end, and for the thread after that: within the second that a queue in
# front of us waits.
_LEAVING = 0.6
_PATIENCE = 0.3
# Reason codes (MQTT 5.0, 2.4): nobody has subscribed; from here on it is a failure; somebody has our client id.
_NOBODY = 0x10
_FAILURE = 0x80
_TAKEN_OVER = 0x8E

_log = logging.getLogger(__name__)


class MqttSink(Sink):
    """Publishes to PREFIX/DEVICE/{state,label,event,thumbnail,availability}; see docs/mqtt.md for what they hold.

    Args:
      spec: mqtt[s]://[USER@]HOST[:PORT][/PREFIX][?ca=PATH].
      about: who we are.
      health: `Health.snapshot` of the run, which this publishes as its state; None: it goes by the results alone.

    Raises:
      EdgennError: the spec is wrong, its files cannot be read, or paho-mqtt is missing.
    """

    def __init__(self, spec: str, about: About, *, health: Callable[[], dict[str, Any]] | None = None) -> None:
        self._broker = read_broker(spec)
        self._about = about
        self._paho: Any = require("paho.mqtt.client")
        identifier = _slug(about.device)
        if not identifier:
            raise EdgennError(f"a device called {about.device!r} cannot be told from others: give it a name of letters")
        self.name = self._broker.name
        self._topics = Topics(f"{self._broker.prefix}/{identifier}")
        # The same at every start: a broker that still holds the connection of a device that lost its power lets go of
        # it now, and not later, when its last will would make the device that is back look absent.
        self._client_id = f"edgenn-{_slug(self._topics.base)}"
        self._identifier = f"edgenn_{identifier}"
        self._own_health: Health | None = None
        if health is None:
            self._own_health = Health(about.device, about.version)
            health = self._own_health.snapshot
        self._snapshot = health
        self._spool: Spool | None = None
        self._link: _Link | None = None
        self._label: str | None = None
        self._thumbnail: bytes | None = None
        self._sent = 0

    def open(self) -> None:
        """Open the spool and begin to connect; a broker that is away is no error.

        Raises:
          EdgennError: another process uses the spool of this device and broker.
        """
        place = f"{self._broker.host}-{self._broker.port}-{self._topics.base}"
        self._spool = Spool(state_folder() / f"mqtt-{_slug(place)}.db")
        self._link = _Link(self, self._spool)
        self._link.start()

    def write(self, result: Result) -> None:
        if self._own_health is not None:
            self._own_health.frame(result)
        label = result.classification.label
        if label != self._label:
            self._label = label
            if self._link is not None:
                self._link.wake()

    def event(self, event: Event) -> None:
        if self._spool is None or self._link is None:
            raise RuntimeError("the sink is not open")
        kind = BEGAN if event.ended is None else ENDED
        message = {"event_type": kind, **event_document(event)}
        self._spool.put(f"{event.id}/{kind}", json.dumps(message).encode())
        if event.thumbnail is not None:
            self._thumbnail = event.thumbnail
        self._link.wake()

    def close(self) -> None:
        """Send what can be sent within a second, tell that we are gone, and keep the rest for the next start."""
        if self._link is not None:
            self._link.stop()
            self._link = None
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def state(self) -> dict[str, Any]:
        link, spool = self._link, self._spool
        return {
            "connected": link is not None and link.connected,
            "sent": self._sent,
            "spooled": len(spool) if spool else 0,
            "spool_dropped": spool.dropped if spool else 0,
            "error": (link.error if link else None) or (spool.error if spool else None),
        }


class _Link(threading.Thread):
    """The thread that owns the connection: all but `wake`, `stop` and the attributes is done by it alone.

    A client is made anew for every connection. What was under way in the one before is not continued but sent again
    from the spool: a broker that was killed knows nothing of it, and paho keeps nothing over a restart of ours.
    """

    def __init__(self, sink: MqttSink, spool: Spool) -> None:
        super().__init__(name="edgenn-mqtt", daemon=True)
        self.connected = False
        self.error: str | None = None
        self._said: set[str] = set()
        self._failures = 0
        # When the last fault is over, if there is no other until then, `time.monotonic()`.
        self._well_at = math.inf
        self._sink = sink
        self._broker: Broker = sink._broker
        self._topics = sink._topics
        self._spool = spool
        self._stopping = False
        self._leave_at = 0.0
        self._wake_lock = threading.Lock()
        self._bell: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._largest: int | None = None
        self._forget()

    def wake(self) -> None:
        with self._wake_lock:
            if self._bell is not None:
                os.eventfd_write(self._bell, 1)

    def stop(self) -> None:
        self._leave_at = time.monotonic() + _LEAVING
        self._stopping = True
        self.wake()
        # A thread that waits for a host that does not answer is left behind: it ends by itself.
        self.join(_LEAVING + _PATIENCE)

    def run(self) -> None:
        try:
            while not self._stopping:
                self._forget()
                try:
                    self._converse()
                except Exception as error:
                    # Whatever a broker, or what stands in its place, makes of it: this thread goes on trying.
                    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                    self._note(f"{self._broker.name}: {words or type(error).__name__}")
                if self.connected:
                    self.connected = False
                    if not self._stopping:
                        self._note(f"{self._broker.name}: {self._why_lost()}")
                self._rest(back_off(self._failures))
                self._failures += 1
        finally:
            self.connected = False
            self._shut()

    def _shut(self) -> None:
        with self._wake_lock:
            bell, self._bell = self._bell, None
        if bell is not None:
            os.close(bell)

    def _forget(self) -> None:
        """Nothing of an earlier connection holds for the next."""
        self._flying: tuple[int, str] | None = None
        self._answer: tuple[int, int] | None = None
        self._taken_over = False
        self._try_at = 0.0
        self._announce_at: float | None = None
        self._announced = self._sink._about.model
        self._state_at = 0.0
        self._label_sent: str | None = None
        self._health_sent: str | None = None
        self._thumbnail_sent: bytes | None = None

    def _converse(self) -> None:
        """Connect, and exchange messages until the connection ends or we are to leave."""
        client = self._client()
        client.connect(self._broker.host, self._broker.port, _KEEP_ALIVE, clean_start=True)
        deadline = time.monotonic() + _CONNECTING
        while client.socket() is not None:
            now = time.monotonic()
            if not self.connected and now > deadline:
                raise TimeoutError("no answer")
            if self.connected and now >= self._well_at:
                self._be_well()
            wait = self._send_what_is_due(client, now) if self.connected else deadline - now
            if self._stopping and (not self.connected or now >= self._leave_at or self._nothing_to_send(now)):
                break
            # Nobody rings when health has changed: it is looked at each second.
            self._exchange(client, max(0.0, min(wait, 1.0)))
        if client.socket() is not None:
            # Reason 4: the broker is to publish the last will, "offline", all the same.
            leaving = require("paho.mqtt.reasoncodes").ReasonCode(
                require("paho.mqtt.packettypes").PacketTypes.DISCONNECT, "Disconnect with will message"
            )
            client.disconnect(leaving)
            while client.socket() is not None and time.monotonic() < self._leave_at:
                self._exchange(client, 0.1)

    def _client(self) -> Client:
        paho = self._sink._paho
        client: Client = paho.Client(paho.CallbackAPIVersion.VERSION2, self._sink._client_id, protocol=paho.MQTTv5)
        client.connect_timeout = _CONNECTING
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.context is not None:
            client.tls_set_context(self._broker.context)
        client.will_set(self._topics.availability, "offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _exchange(self, client: Client, wait: float) -> None:
        """Read and write what is there, or wait for it or for the bell, `wait` seconds at most."""
        socket: Any = client.socket()
        if socket is None:
            # It broke while something was published.
            return
        poll = select.poll()
        poll.register(socket, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        assert self._bell is not None
        poll.register(self._bell, select.POLLIN)
        ready = dict(poll.poll(wait * 1000))
        if self._bell in ready:
            os.eventfd_read(self._bell)
        if ready.get(socket.fileno(), 0) & ~select.POLLOUT:
            client.loop_read()
            # What TLS has decrypted already does not wake `poll`.
            while client.socket() is not None and self._broker.context is not None and socket.pending():
                client.loop_read()
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            who = "" if self._broker.user is None else f" user {self._broker.user!r}"
            self._note(f"{self._broker.name} refuses{who or ' us'}: {str(reason).lower()}")
            return
        self.connected = True
        self._well_at = time.monotonic() + _HELD
        self._largest = getattr(properties, "MaximumPacketSize", None)
        self._announce_at = time.monotonic()
        client.subscribe(BIRTH)

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        self._taken_over = reason.value == _TAKEN_OVER

    def _why_lost(self) -> str:
        device = self._sink._about.device
        if self._taken_over:
            return f"another device called {device} is at this broker: give each its own --name"
        # Some brokers give no reason (mosquitto before 2.0.15).
        if self._failures >= _OFTEN:
            return f"no connection holds; is another device called {device} at this broker? Give each its own --name"
        return "the connection was lost"

    def _be_well(self) -> None:
        if self.error is not None:
            _log.warning("%s: works again", self._broker.name)
        self.error = None
        self._said.clear()
        self._failures = 0
        self._well_at = math.inf

    def _on_message(self, _client: Client, _data: object, message: Any) -> None:
        if message.topic == BIRTH and message.payload == b"online" and self._announce_at is None:
            # A moment later, at random, as Home Assistant asks of devices: all of them have heard it.
            self._announce_at = time.monotonic() + random.uniform(0.0, 1.0)

    def _on_publish(self, _client: Client, _data: object, mid: int, reason: Any, _properties: object) -> None:
        if self._flying is not None and self._flying[0] == mid:
            self._answer = mid, reason.value

    def _send_what_is_due(self, client: Client, now: float) -> float:
        """Publish what is to be published now; the seconds until there may be more."""
        about = self._sink._about
        if about.model != self._announced or (self._announce_at is not None and now >= self._announce_at):
            self._announce_at, self._announced = None, about.model
            topic, document = discovery(about, self._topics, self._sink._identifier)
            client.publish(topic, json.dumps(document), retain=True)
            client.publish(self._topics.availability, "online", retain=True)
            self._state_at, self._label_sent, self._thumbnail_sent, self._try_at = 0.0, None, None, 0.0
        self._send_state(client, now)
        self._take_answer(now)
        self._send_event(client, now)
        due = [self._state_at + _STATE_EVERY]
        if self._sink._label != self._label_sent:
            due.append(self._state_at + _STATE_APART)
        if self._try_at > now:
            due.append(self._try_at)
        if self._announce_at is not None:
            due.append(self._announce_at)
        return min(due) - now

    def _send_state(self, client: Client, now: float) -> None:
        label, health = self._sink._label, self._sink._snapshot()
        changed = label != self._label_sent
        news = changed or health["state"] != self._health_sent
        if now < self._state_at + (_STATE_APART if news else _STATE_EVERY):
            return
        self._state_at = now
        document = {
            "time": round(time.time(), 3),
            "label": label,
            "confidence": health["confidence"],
            "fps": round(health["fps"], 2),
            "latency_ms": health["latency_ms"],
            "frames": health["frames"],
            "health": health["state"],
            "reasons": health["reasons"],
        }
        client.publish(self._topics.state, json.dumps(document), retain=True)
        if changed and label is not None:
            client.publish(self._topics.label, label, retain=True)
        self._label_sent, self._health_sent = label, health["state"]

    def _take_answer(self, now: float) -> None:
        if self._answer is None or self._flying is None:
            return
        (_, reason), (_, id) = self._answer, self._flying
        self._answer = self._flying = None
        if reason == _NOBODY:
            self._try_at = now + _AGAIN
        elif reason >= _FAILURE:
            self._note(f"{self._broker.name} does not take events (reason {reason:#x}): may we publish there?")
            self._try_at = now + _AGAIN
        else:
            self._spool.done(id)
            self._sink._sent += 1

    def _send_event(self, client: Client, now: float) -> None:
        if self._flying is not None or now < self._try_at:
            return
        waiting = self._spool.pending(1)
        if not waiting:
            return
        # The picture first: whoever acts on the event finds it there. Only the newest is of use.
        thumbnail = self._sink._thumbnail
        if thumbnail is not None and thumbnail is not self._thumbnail_sent:
            self._thumbnail_sent = thumbnail
            if self._largest is None or len(thumbnail) + 1024 < self._largest:
                client.publish(self._topics.thumbnail, thumbnail, retain=True)
        ((id, payload),) = waiting
        self._flying = client.publish(self._topics.event, payload, qos=1).mid, id

    def _nothing_to_send(self, now: float) -> bool:
        return self._flying is None and (now < self._try_at or not len(self._spool))

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        assert self._bell is not None
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                os.eventfd_read(self._bell)

    def _note(self, error: str) -> None:
        # Each once while the broker is away, however often it is tried and however its failures take turns.
        if error not in self._said:
            self._said.add(error)
            _log.warning("%s", error)
        self.error = error
        self._well_at = time.monotonic() + _HELD


def _slug(name: str) -> str:
    """`name` in the letters that a topic, a file and Home Assistant's identifiers all allow."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")
