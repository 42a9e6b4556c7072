"""systemd and a service for tests that have neither: `systemctl` and `journalctl` on PATH, and a health socket.

The service "runs" the model file that `current` leads to; the first word of its content says how it behaves:
`good`, `silent` (it never classifies), `blind` (its camera is lost), `ends` (it ends at once), `stubborn` (it takes no
new model). What `systemd-analyze` or a real unit would say is tested elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

_CLIENT = """#!{python} -ISB
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect({place!r})
    s.sendall(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode())
    s.shutdown(socket.SHUT_WR)
    answer = json.loads(b"".join(iter(lambda: s.recv(65536), b"")))
sys.stdout.write(answer[1])
sys.exit(answer[0])
"""


class StandInSystemd:
    """Below `root`; entered around a test. `calls` holds what was asked of systemctl."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.calls: list[list[str]] = []
        self.running: bytes | None = None
        self.reasons: list[str] = []
        self._frames = 0
        self._began = 0.0
        self._servers: list[socket.socket] = []

    def __enter__(self) -> StandInSystemd:
        self.bin.mkdir()
        (self.root / "run/edgenn").mkdir(parents=True)
        place = str(self.root / "control")
        for name in ("systemctl", "journalctl", "systemd-sysusers"):
            (self.bin / name).write_text(_CLIENT.format(python=sys.executable, place=place))
            (self.bin / name).chmod(0o755)
        self._serve(place, self._control)
        self._serve(str(self.root / "run/edgenn/health.sock"), lambda asked: self._health())
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers:
            server.shutdown(socket.SHUT_RDWR)
            server.close()

    def boot(self) -> None:
        """As after a loss of power: nothing runs until the unit is started, once `recover` has run."""
        self.running = None

    def start(self) -> None:
        self.running, self._frames, self._began = self._model(), 0, time.monotonic()

    def _model(self) -> bytes | None:
        try:
            return (self.root / "opt/edgenn/current/model.tflite").read_bytes()
        except OSError:
            return None

    def _serve(self, place: str, answer: Any) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.bind(place)
        server.listen(8)
        server.set_inheritable(False)
        self._servers.append(server)

        def loop() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    asked = b"" if "health" in place else b"".join(iter(lambda c=client: c.recv(65536), b""))
                    said = answer(asked)
                    if said is not None:
                        try:
                            client.sendall(json.dumps(said).encode())
                        except OSError:
                            pass

        threading.Thread(target=loop, daemon=True).start()

    def _control(self, asked: bytes) -> list[Any]:
        name, *words = json.loads(asked)
        if name == "journalctl":
            return [0, "starting\nedgenn: there is no camera picamera\nedgenn.service: Main process exited\n"]
        if name == "systemctl":
            self.calls.append(words)
            return self._systemctl(words)
        return [0, ""]

    def _systemctl(self, words: list[str]) -> list[Any]:
        verb = words[0]
        if verb == "show":
            ended = self.running is not None and self.running.startswith(b"ends")
            return [
                0,
                f"ActiveState=activating\nSubState={'auto-restart' if ended else 'running'}\nStatusText=starting\n",
            ]
        if verb == "restart" or (verb == "try-restart" and self.running is not None):
            self.start()
        elif verb == "kill" and self.running is not None and not self.running.startswith(b"stubborn"):
            self.running = self._model()
        elif verb == "disable" and "edgenn.service" in words:
            self.running = None
        return [0, ""]

    def _health(self) -> dict[str, Any] | None:
        if self.running is None or self.running.startswith(b"ends"):
            return None
        blind = self.running.startswith(b"blind")
        if not blind and not self.running.startswith(b"silent"):
            self._frames += 1
        reasons = [*self.reasons, *(["source: camera 0 is gone"] if blind else [])]
        return {
            "state": "failed" if blind else "degraded" if reasons else "ok" if self._frames else "starting",
            "reasons": reasons,
            "uptime_s": round(time.monotonic() - self._began, 1),
            "model": {"sha256": hashlib.sha256(self.running).hexdigest()},
            "source": {"state": "failed" if blind else "ok"},
            "frames": self._frames,
        }
