"""What a device lives through, with the real thing: servers, processes, files, a native library that hangs."""

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from http_camera import BLACK, LARGE, MIXED, SCENE, SMALL, TORN, Camera

from edgenn_device.cameras import mjpeg, open_source, reconnecting
from edgenn_device.cameras.base import Frame, Source
from edgenn_device.cameras.rtsp import RtspSource
from edgenn_device.classifier import Classifier
from edgenn_device.decision import UNKNOWN
from edgenn_device.errors import EdgennError
from edgenn_device.health import Health
from edgenn_device.motion import Gate
from edgenn_device.options import Options
from edgenn_device.pipeline import Pipeline
from edgenn_device.runner import Run

SOON = 30.0  # for waits that end at once unless the code is broken
# Seconds from the end of a fault within which frames must come again.
RECOVERY = 5.0
ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "garments" / "garments.tflite"
EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]


@pytest.fixture
def camera():
    server = Camera()
    yield server
    server.off()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(MODEL, threads=1)


class Watched:
    """A pipeline in a thread of its own, whose results can be waited for."""

    def __init__(self, source: Source, classifier: Classifier, **options: object) -> None:
        self.told: list[tuple[str, str]] = []
        self._came = threading.Condition()
        source.tell = self._tell
        self.pipeline = Pipeline(source, classifier, **options)  # type: ignore[arg-type]
        self.results: list = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()
        self._thread.join(SOON)
        assert not self._thread.is_alive()

    def wait(self, what, seconds: float = SOON) -> float:
        """Wait until `what()`; how long it took."""
        began = time.monotonic()
        with self._came:
            while not what():
                assert time.monotonic() - began < seconds, f"not within {seconds} s; told: {self.told}"
                # Nobody tells of a frame that was left out: that is looked for.
                self._came.wait(0.01)
        return time.monotonic() - began

    def frames(self, count: int = 3, seconds: float = SOON) -> float:
        """Wait for some new results."""
        goal = len(self.results) + count
        return self.wait(lambda: len(self.results) >= goal, seconds)

    def _tell(self, condition: str, reason: str) -> None:
        with self._came:
            self.told.append((condition, reason))
            self._came.notify_all()

    def _run(self) -> None:
        with closing(self.pipeline.results()) as results:
            for result in results:
                with self._came:
                    self.results.append(result)
                    self._came.notify_all()


def state(watched: Watched) -> str:
    return watched.told[-1][0] if watched.told else "ok"


# --- the camera -----------------------------------------------------------------------------------------------------


def test_a_camera_that_is_unplugged_comes_back(camera, classifier):
    with Watched(open_source(camera.url), classifier) as watched:
        watched.frames()
        camera.off()
        watched.wait(lambda: state(watched) == "failed")
        assert "trying again" in watched.told[-1][1]
        camera.on()
        assert watched.frames() < RECOVERY
        assert state(watched) == "ok"
        indices = [result.frame.index for result in watched.results]
        assert indices == sorted(set(indices))


def test_a_camera_that_says_nothing_more_is_connected_anew(camera, classifier, monkeypatch):
    monkeypatch.setattr(mjpeg, "SILENCE", 0.3)
    with Watched(open_source(camera.url), classifier) as watched:
        watched.frames()
        camera.frozen.set()
        watched.wait(lambda: state(watched) == "failed")
        camera.frozen.clear()
        assert watched.frames() < RECOVERY
    assert camera.connections >= 2


def test_silence_and_back_off_leave_room_for_a_recovery_within_its_bound():
    assert reconnecting.SILENCE + reconnecting._GRACE < RECOVERY
    assert mjpeg.SILENCE + reconnecting._SHORTEST_WAIT < RECOVERY
    assert reconnecting._LONGEST_WAIT < RECOVERY
    waits = [reconnecting._wait(attempt) for attempt in range(200)]
    assert max(waits) <= reconnecting._LONGEST_WAIT
    assert len(set(waits[20:])) > 100  # the jitter


def test_a_read_that_never_returns_is_left_behind(camera, classifier, monkeypatch, tmp_path):
    """FFmpeg inside OpenCV, in a read of a pipe that nobody writes to: no timeout of its own ends that."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    class Hanging(RtspSource):
        """The first picture from the camera, then the pipe."""

        def connect(self):
            super().connect()
            self.first = True

        def grab(self):
            if not self.first:
                RtspSource(str(pipe)).connect()
            self.first = False
            return super().grab()

    monkeypatch.setattr(reconnecting, "SILENCE", 0.2)
    monkeypatch.setattr("edgenn_device.pipeline._LOOK_AFTER", 0.05)
    source = Hanging(camera.url)
    source.renew = lambda: open_source(camera.url)
    with Watched(source, classifier) as watched:
        watched.frames(20)
        assert (
            "failed",
            f"{camera.url} has frozen in the middle of a read; another attempt takes over",
        ) in watched.told
        assert state(watched) == "ok"
        indices = [result.frame.index for result in watched.results]
        assert indices == sorted(set(indices))
    # Let the thread that was left behind end.
    os.close(os.open(pipe, os.O_WRONLY))


def test_sources_that_hang_one_after_the_other_do_not_use_up_the_machine(classifier, monkeypatch):
    go = threading.Event()

    class Hangs(Source):
        made = 0

        def __init__(self):
            self.name = "hangs"
            Hangs.made += 1
            self.renew = Hangs

        def open(self):
            pass

        def read(self):
            go.wait()
            return None

        def overdue(self, now):
            return True

        def close(self):
            pass

    monkeypatch.setattr("edgenn_device.pipeline._LOOK_AFTER", 0.001)
    pipeline = Pipeline(Hangs(), classifier)
    # A service that only waited would be told alive for ever: it ends, and is begun anew without those threads.
    with pytest.raises(EdgennError, match="hangs has frozen 5 times and nothing takes over any more: start again"):
        list(pipeline.results())
    assert Hangs.made == 5
    go.set()


@pytest.mark.parametrize("gate", [True, False])
def test_a_covered_lens_is_unknown_and_health_says_so(camera, classifier, gate):
    with Watched(open_source(camera.url), classifier, gate=Gate() if gate else None) as watched:
        watched.frames()
        camera.image = BLACK
        watched.wait(lambda: watched.results[-1].classification.label == UNKNOWN)
        black = watched.results[-1]
        assert (black.classification.confidence, black.skipped) == (0.0, True)
        assert "one colour" in watched.pipeline.trouble
        camera.image = SCENE
        watched.wait(lambda: watched.results[-1].classification.confidence > 0)
        assert watched.pipeline.trouble == ""
        assert watched.told == []


@pytest.mark.parametrize(
    ("image", "trouble"),
    [
        (BLACK, "one colour"),
        (b"not a picture", "cannot be read"),
    ],
)
def test_pictures_that_are_bad_before_and_after_a_break_stay_told(camera, classifier, image, trouble):
    health = Health("porch")
    with Watched(open_source(camera.url), classifier) as watched:
        health.describe(counts=watched.pipeline)
        watched.frames()
        camera.image = image
        watched.wait(lambda: trouble in watched.pipeline.trouble)
        camera.off()
        watched.wait(lambda: state(watched) == "failed")
        health.set("source", *watched.told[-1])
        assert "trying again" in health.snapshot()["reasons"][0]
        camera.on()
        watched.wait(lambda: state(watched) == "ok", RECOVERY)
        health.set("source", *watched.told[-1])
        assert trouble in health.snapshot()["reasons"][0]
        assert health.snapshot()["source"]["state"] == "degraded"


@pytest.mark.parametrize("image", [TORN, b"\xff\xd8\xff", b"not a picture"])
def test_torn_frames_are_left_out_and_counted(camera, classifier, image):
    with Watched(open_source(camera.url), classifier, gate=Gate()) as watched:
        watched.frames()
        camera.image = image
        watched.wait(lambda: "cannot be read" in watched.pipeline.trouble)
        assert watched.pipeline.bad >= 5
        camera.image = SCENE
        assert watched.frames() < RECOVERY
        assert watched.pipeline.trouble == ""


def test_frames_of_changing_sizes_and_damage_that_no_decoder_sees_end_nothing(camera, classifier):
    with Watched(open_source(camera.url), classifier, gate=Gate()) as watched:
        for image in (SCENE, LARGE, SMALL, MIXED, SCENE, SMALL, LARGE):
            camera.image = image
            watched.frames(4)


def test_another_size_stands_in_the_log(camera, classifier, caplog, monkeypatch):
    monkeypatch.setattr("edgenn_device.preparation._SIZE_EVERY", 0.0)
    with caplog.at_level("WARNING"), Watched(open_source(camera.url), classifier) as watched:
        watched.frames()
        camera.image = LARGE
        watched.wait(lambda: any("pictures are 1920x1080 now, 320x240 before" in line for line in caplog.messages))
        assert watched.told == []


def test_a_clock_that_is_set_back_changes_no_frame_and_no_event(camera, classifier, monkeypatch, tmp_path):
    moments = iter([0.0] * 40)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(moments, -86400.0))
    options = Options(model=str(MODEL), source=camera.url, sink=(f"sqlite:{tmp_path}/events.db",), limit=60)
    run = Run(options)
    run.go()
    assert run.figures()["frames"] == 60
    rows = events(tmp_path / "events.db")
    assert rows
    assert all(ended is None or ended >= started for _, _, started, ended in rows)


def test_rtsp_that_ends_and_comes_back(classifier):
    """GStreamer's RTSP server, H.264."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if subprocess.run(["/usr/bin/python3", "-c", probe], capture_output=True).returncode:
        pytest.skip("apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-{base,good,ugly}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def serve() -> subprocess.Popen:
        command = ["/usr/bin/python3", str(Path(__file__).with_name("rtsp_camera.py")), str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        return process

    server = serve()
    try:
        with Watched(open_source(f"rtsp://127.0.0.1:{port}/live"), classifier) as watched:
            watched.frames()
            assert watched.results[0].frame.image.shape == (240, 320, 3)
            server.kill()
            server.wait()
            watched.wait(lambda: state(watched) == "failed")
            server = serve()
            assert watched.frames() < RECOVERY
            assert state(watched) == "ok"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


# --- the process ----------------------------------------------------------------------------------------------------


def test_out_of_file_descriptors_and_back(camera, classifier):
    with Watched(open_source(camera.url), classifier) as watched:
        watched.frames()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(list(Path("/proc/self/fd").iterdir()))
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
            while True:
                try:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    break
            camera.off()
            watched.wait(lambda: state(watched) == "failed")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        camera.on()
        assert watched.frames() < RECOVERY


def events(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT id, label, started, ended FROM events ORDER BY id").fetchall()


def test_a_killed_run_loses_and_doubles_no_event(tmp_path):
    """SIGKILL in the middle, several times; what had been written stays, once."""
    known: dict[str, tuple] = {}
    for attempt in range(4):
        command = [*EDGENN, "run", str(MODEL), "--source", "synthetic", "--fast", "--json", "--sink"]
        command.append(f"sqlite:{tmp_path}/events.db")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(150 + 90 * attempt):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        rows = events(tmp_path / "events.db")
        assert len({row[0] for row in rows}) == len(rows) > len(known)
        now = {row[0]: row for row in rows}
        for key, row in known.items():
            assert now[key][:3] == row[:3]
        known = now


def test_sigterm_ends_it_with_its_summary_within_two_seconds(tmp_path):
    command = [*EDGENN, "run", str(MODEL), "--source", "synthetic", "--json", "--sink", f"sqlite:{tmp_path}/events.db"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    stdout, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 0, stderr
    assert time.monotonic() - began < 2
    assert json.loads(stdout.splitlines()[-1])["summary"]["frames"] >= 1
    assert all(row[3] is not None for row in events(tmp_path / "events.db"))


def test_a_web_client_that_never_reads_holds_nothing_up(camera):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = Options(model=str(MODEL), source=camera.url, web=("127.0.0.1", port), motion_gate=False)
    run = Run(options)
    clients: list[socket.socket] = []
    counted = threading.Condition()

    class Count:
        frames = 0

    def write(result):
        with counted:
            Count.frames += 1
            counted.notify_all()

    run._live.write, page = (lambda result: (page(result), write(result))), run._live.write
    thread = threading.Thread(target=run.go)
    thread.start()
    try:
        with counted:
            assert counted.wait_for(lambda: Count.frames > 5, SOON)
        for path in ("/", "/picture.jpg", "/state.json", "/events.json") * 5:
            client = socket.create_connection(("127.0.0.1", port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() * 50)
            clients.append(client)
        with counted:
            goal = Count.frames + 100
            assert counted.wait_for(lambda: Count.frames > goal, SOON)
    finally:
        run.pipeline.stop()
        thread.join(SOON)
        for client in clients:
            client.close()
    assert not thread.is_alive()


def test_frames_of_a_source_that_was_given_up_are_thrown_away(classifier, monkeypatch):
    """The old read returns at last, with a picture of the past."""
    picture = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    late, over = threading.Event(), threading.Event()

    class Stale(Source):
        name = "stale"

        def open(self):
            pass

        def read(self):
            assert late.wait(SOON)
            return Frame(picture, time.monotonic(), 1234)

        def overdue(self, now):
            return True

        def close(self):
            pass

    class Fresh(Stale):
        count = 0

        def read(self):
            if self.count == 3:
                late.set()
                over.wait(0.2)
                return None
            self.count += 1
            return Frame(picture, time.monotonic(), self.count - 1)

        def overdue(self, now):
            return False

    monkeypatch.setattr("edgenn_device.pipeline._LOOK_AFTER", 0.01)
    source = Stale()
    source.renew = Fresh
    indices = [result.frame.index for result in Pipeline(source, classifier).results()]
    assert indices
    assert 1234 not in indices
