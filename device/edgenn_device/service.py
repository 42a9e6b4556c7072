"""A run as a service: it tells systemd that it is alive, ends on SIGTERM, takes a new model on SIGHUP, answers for its
health on a Unix socket.

The watchdog is fed by the pipeline's progress, never by a timer. Progress is a frame that was classified (also one that
the motion gate found unchanged) or left out as unreadable, or a camera that is known to be lost and is being tried
again, because a restart would not bring it back. Anything else (a network, a decoder or a thread that never returns)
stops the progress, and with it WATCHDOG=1, and systemd starts the process anew. It restarts nothing itself and knows
nothing of pictures.

Who runs where: Python runs signal handlers on the main thread, which may be busy in native code, so the handlers here
do nothing; the number of the signal comes through `signal.set_wakeup_fd` to a thread of the service, and everything
else happens there. Reloading and the health socket have threads of their own, so that neither holds up the watchdog.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from .classifier import Classifier
from .errors import EdgennError
from .health import Health
from .notify import Notifier

# What systemd's RuntimeDirectory= makes; the socket in it.
SOCKET = "health.sock"
# Seconds from SIGTERM to the end, by force if need be: what a person waits for, and a device that loses its power.
ENDING = 1.9
# Seconds between two looks at the progress, and a quarter of the watchdog's time if that is shorter.
_LOOK = 1.0
# Before the first frame a look costs nothing and READY=1 is waited for.
_FIRST_LOOK = 0.1
# Seconds between two texts for `systemctl status`.
_STATUS = 5.0
# Seconds by which the system's clock has to be off the steady one before that is worth a line. NTP slews what is less
# than this in steps that stay far below.
_SET = 30.0
# Askers that may wait for their turn, which comes at once.
_BACKLOG = 8

_log = logging.getLogger(__name__)


class Swaps(Protocol):
    """What `exchange` needs of a `Pipeline`."""

    @property
    def classifier(self) -> Any: ...
    def swap(self, classifier: Any) -> None: ...


class Service:
    """Entered on the main thread around a run, left when it has ended.

    Args:
      progress: called about once a second from another thread; gives a value that has changed when the pipeline has
        got on: of a `Pipeline`, (frames, bad).
      health: its document is what the socket answers and `systemctl status` shows; its part "source" being "failed"
        is a camera that is lost and being tried again.
      reload: takes a new model, on a thread of its own, at SIGHUP. What it raises leaves the old one where it is, and
        the reason in the health document. `exchange` is made for it.
      stop: makes the run end, at SIGTERM; may be called from any thread and returns at once.
      place: the health socket's path; None takes RUNTIME_DIRECTORY, and without one there is no socket.
      environment: of the process.

    Raises:
      EdgennError: on entering, when the socket cannot be made or another run answers there.
    """

    def __init__(
        self,
        progress: Callable[[], object],
        health: Health,
        reload: Callable[[], None],
        *,
        stop: Callable[[], None],
        place: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._progress = progress
        self._health = health
        self._reload = reload
        self._stop = stop
        self._notifier = Notifier(environment)
        self._look = min(_LOOK, self._notifier.watchdog / 4) if self._notifier.watchdog else _LOOK
        folder = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self._place = place or (Path(folder) / SOCKET if folder else None)
        self._answers: HealthSocket | None = None
        self._ended = threading.Event()
        self._again = threading.Event()
        self._stopping = False
        self._ready = False
        self._reloading = False
        self._lock = threading.Lock()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self._place is not None:
            self._answers = HealthSocket(self._place, self._health)
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # On a terminal SIGHUP means that it was closed, and ends the process as ever.
        for number in (signal.SIGTERM,) if os.isatty(0) else (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, lambda number, frame: None)
        self._fd_before = signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="edgenn-service", daemon=True)
        self._reloader = threading.Thread(target=self._reload_when_asked, name="edgenn-reload", daemon=True)
        self._watcher.start()
        self._reloader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say_stopping()
        self._ended.set()
        self._again.set()
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.write(self._wake_out, b"\0")
        self._watcher.join(1.0)
        # An idle one ends at once. A reload that is under way may take longer than there is time: it is left behind.
        self._reloader.join(0.2)
        if self._answers is not None:
            self._answers.close()
        if not self._watcher.is_alive():
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._notifier.close()

    def _watch(self) -> None:
        """Signals, READY=1, WATCHDOG=1 and STATUS=, until the end."""
        last: object = None
        told: object = None
        progressed = status_at = time.monotonic()
        clock = time.time() - time.monotonic()
        while not self._ended.is_set():
            self._take_signals(self._look if self._ready else min(_FIRST_LOOK, self._look))
            now = time.monotonic()
            clock = _told_of_clock(clock, time.time() - now)
            value = self._progress()
            lost = self._health.part("source")[0] == "failed"
            if lost or value != last:
                last, progressed = value, now
                self._tell_progress()
            stalled = now - progressed > 2 * self._look + 1
            if now - status_at >= _STATUS or told != (stalled, lost):
                status_at, told = now, (stalled, lost)
                with self._lock:
                    if not self._stopping and not self._reloading:
                        self._notifier.send(f"STATUS={self._status(now - progressed if stalled else 0.0)}")

    def _tell_progress(self) -> None:
        with self._lock:
            if self._stopping:
                return
            if self._ready:
                self._notifier.send("WATCHDOG=1")
            elif self._health.frames:
                self._ready = True
                self._notifier.send("READY=1", f"STATUS={self._status(0.0)}", "WATCHDOG=1")
            elif self._notifier.watchdog:
                # Starting, and getting on: a camera that is away while the device starts does not end the start.
                self._notifier.send(f"EXTEND_TIMEOUT_USEC={int(self._notifier.watchdog * 1e6)}")

    def _take_signals(self, patience: float) -> None:
        woken = select.poll()
        woken.register(self._wake_in, select.POLLIN)
        numbers = os.read(self._wake_in, 512) if woken.poll(patience * 1000) else b""
        if signal.SIGTERM in numbers and not self._stopping:
            self._say_stopping()
            threading.Thread(target=self._end_by_force, name="edgenn-ending", daemon=True).start()
            self._stop()
        if signal.SIGHUP in numbers:
            self._again.set()

    def _say_stopping(self) -> None:
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._notifier.send("STOPPING=1", "STATUS=stopping")

    def _end_by_force(self) -> None:
        """What still hangs (a driver, a native library) is not waited for: no file of ours is ever half-written."""
        if not self._ended.wait(ENDING):
            os.write(2, b"edgenn: the run did not end in time after SIGTERM and is broken off\n")
            os._exit(1)

    def _reload_when_asked(self) -> None:
        while True:
            self._again.wait()
            self._again.clear()
            if self._ended.is_set():
                return
            with self._lock:
                if self._stopping:
                    return
                self._reloading = True
                self._notifier.reloading("STATUS=loading the model again")
            try:
                self._reload()
            except Exception as error:
                reason = str(error) if isinstance(error, EdgennError) else f"{type(error).__name__}: {error}"
                _log.warning("the model stays as it is: %s", reason)
                self._health.set("model", "degraded", f"the one before stays: {reason}")
            else:
                self._health.set("model", "ok")
            with self._lock:
                self._reloading = False
                if self._stopping:
                    return
                # Before the first frame only the end of the reload is told: READY=1 is still to be earned.
                if self._ready:
                    self._notifier.send("READY=1", f"STATUS={self._status(0.0)}")

    def _status(self, silent: float) -> str:
        said = self._health.snapshot()
        if silent:
            return f"no progress for {silent:.0f} s"
        if said["reasons"]:
            return f"{said['state']}: {'; '.join(said['reasons'])}"[:500]
        if said["label"] is None:
            return "starting"
        return f"{said['label']} {said['confidence']:.0%}, {said['fps']:.1f} fps, {said['latency_ms']['p50']} ms"


class HealthSocket:
    """The health document on a Unix socket: one JSON document per connection, and the end.

    Nothing is read from a client and none is waited for. Whoever may write to the socket may ask: the owner and the
    group (mode 0660).
    """

    def __init__(self, path: Path, health: Health) -> None:
        self._path = path
        self._health = health
        self._closed = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if _answers(path):
                raise EdgennError(f"another run answers at {path}: end that one first")
            path.unlink(missing_ok=True)
            self._listening.bind(str(path))
            path.chmod(0o660)
            self._listening.listen(_BACKLOG)
        except OSError as error:
            self._listening.close()
            raise EdgennError(f"the health socket {path} cannot be made: {error.strerror or error}") from None
        except BaseException:
            self._listening.close()
            raise
        self._thread = threading.Thread(target=self._answer, name="edgenn-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        try:
            # Wakes the thread in accept.
            self._listening.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(1.0)
        self._listening.close()
        self._path.unlink(missing_ok=True)

    def _answer(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                # Out of descriptors, for instance: the client waits until there is one again.
                self._closed.wait(0.5)
                continue
            with connection:
                try:
                    connection.setblocking(False)
                    connection.send(json.dumps(self._health.snapshot()).encode() + b"\n")
                except OSError:
                    continue


def exchange(pipeline: Swaps, open_model: Callable[[], Classifier], health: Health) -> None:
    """Load a model aside, prove it on its golden vectors and swap it in between two frames.

    Args:
      pipeline: goes on with the old model until the new one is ready.
      open_model: opens the new one.
      health: is told which one it is.

    Raises:
      EdgennError: the new one is not usable or computes something else than its card says; the old one stays.
    """
    new = open_model()
    try:
        if new.verify() is False:
            raise EdgennError(f"{new.model.path} does not compute here what its card says: convert or copy it again")
        old = pipeline.classifier
        pipeline.swap(new)
    except BaseException:
        new.close()
        raise
    health.describe(model=new.model, runtime=new.interpreter.description)
    # Not as information, which nobody sees who has not asked for it: the journal is where updates are looked for.
    digest = hashlib.sha256(new.model.content).hexdigest()
    _log.warning("classifying with %s now (SHA-256 %s…)", new.model.path, digest[:12])
    old.close()


def _told_of_clock(before: float, now: float) -> float:
    """Log that the clock was set, if it was: times in events and journal are not of one clock from there on.

    Args:
      before, now: Unix time minus monotonic time, in seconds.

    Returns:
      `now`.
    """
    if abs(now - before) >= _SET:
        way = "forward" if now > before else "back"
        _log.warning("the clock was set %s by %.0f s: earlier times are of the clock before", way, abs(now - before))
    return now


def _answers(path: Path) -> bool:
    """Whether somebody listens at `path`; a socket that a killed run left behind does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True
