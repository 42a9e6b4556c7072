"""A broker for the day: a real mosquitto, a line to it that can be cut or go dead, and a listener like Home Assistant.

The device reaches mosquitto through the line alone; the listener reaches it directly, so what it heard is what the
broker was told.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt


class Broker:
    """Entered: running. `told` is called with each message as (topic, text), from another thread."""

    def __init__(self, folder: Path, told: Callable[[str, str], None]) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(program).exists():
            sys.exit("operator_day: no MQTT broker: apt install mosquitto")
        self._port = free_port()
        configuration = folder / "mosquitto.conf"
        # With a memory, as Home Assistant's add-on has one: what is retained outlives a restart.
        configuration.write_text(
            f"listener {self._port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nuser root\n"
        )
        self._command = [program, "-c", str(configuration)]
        self._process: subprocess.Popen[bytes] | None = None
        self._told = told
        self.line = Line(self._port)

    def __enter__(self) -> Broker:
        self.start()
        client = self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        client.on_message = self._heard
        client.reconnect_delay_set(1, 1)
        client.connect_async("127.0.0.1", self._port)
        client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.loop_stop()
        self.line.cut()
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("operator_day: mosquitto does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def say(self, topic: str, text: str) -> None:
        self._client.publish(topic, text, qos=1)

    def _heard(self, _client: Any, _data: Any, message: Any) -> None:
        if not message.topic.endswith("/thumbnail"):
            self._told(message.topic, message.payload.decode(errors="replace"))


class Line:
    """TCP from `port` to `target`: `cut` refuses, `dead` swallows everything and ends nothing, `mend` forwards."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self._dead = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listening: socket.socket | None = None
        self.mend()

    def cut(self) -> None:
        if self._listening is not None:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        self._end()

    def dead(self) -> None:
        self._dead.set()

    def mend(self) -> None:
        if self._dead.is_set():
            # What was swallowed is gone: those connections are of no more use to anybody.
            self._end()
            self._dead.clear()
        if self._listening is None:
            self._listening = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _end(self) -> None:
        for pair in self._pairs:
            for one in pair:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._pairs.clear()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                here, _ = listening.accept()
            except OSError:
                return
            try:
                there = socket.create_connection(("127.0.0.1", self._target), 2)
            except OSError:
                here.close()
                continue
            there.settimeout(None)
            self._pairs.append((here, there))
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self._dead.is_set():
                    continue
                target.sendall(data)
        except OSError:
            pass
        if not self._dead.is_set():
            for one in (source, target):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
