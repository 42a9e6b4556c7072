"""A run put together from its options: what is wired to what, and what a reload does."""

import csv
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from http_camera import Camera

from edgenn_device.errors import EdgennError
from edgenn_device.model_file import attach, load
from edgenn_device.motion import Gate
from edgenn_device.options import Options
from edgenn_device.profiler.timeline import Timeline
from edgenn_device.runner import Run
from edgenn_device.sinks.base import Sink

SOON = 30.0  # for waits that end at once unless the code is broken
ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "garments" / "garments.tflite"
EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]


class Kept(Sink):
    """Keeps what it is given; `then` is called with each result."""

    name = "kept"

    def __init__(self, then=lambda result: None) -> None:
        self.results, self.events, self.summary, self.closed, self.then = [], [], None, False, then

    def write(self, result):
        self.results.append(result)
        self.then(result)

    def event(self, event):
        self.events.append(event)

    def finish(self, summary):
        self.summary = summary

    def close(self):
        self.closed = True


@pytest.fixture
def camera():
    server = Camera()
    yield server
    server.off()


def options(**given) -> Options:
    return Options(**{"model": str(MODEL), "source": "synthetic", "fast": True, "threads": 1, "limit": 20, **given})


def test_results_and_the_summary_reach_who_waits_for_them():
    out = Kept()
    run = Run(options(top=2), out)
    run.go()
    assert len(out.results) == 20
    assert all(len(result.classification.top) == 2 for result in out.results)
    assert out.summary == run.figures()
    assert out.summary["frames"] == 20
    assert out.closed
    assert "20 frames in" in run.text()
    assert run.health.snapshot()["frames"] == 20


def test_a_second_of_every_sink(tmp_path, camera):
    """Sinks, page, keeper and health around one camera, as on a device."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen = {}

    def look(result):
        if len(out.results) == 30:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=SOON) as answer:
                seen.update(json.load(answer))

    said = []
    out = Kept(look)
    asked = options(
        source=camera.url,
        limit=60,
        sink=(f"csv:{tmp_path}/results.csv", f"sqlite:{tmp_path}/events.db", f"jsonl:{tmp_path}/results.jsonl"),
        web=("127.0.0.1", port),
        keep_uncertain=str(tmp_path / "unsure"),
        name="porch",
    )
    run = Run(asked, out, say=said.append)
    run.go()
    assert said == [f"live page: http://127.0.0.1:{port}/"]
    assert (seen["device"], seen["state"], seen["source"]["state"]) == ("porch", "ok", "ok")
    assert len(seen["sinks"]) == 5  # three sinks, the page and the keeper
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sum("frame" in line for line in lines) == 60
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.reader(file))) >= 60
    assert (tmp_path / "events.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("given", "gated"),
    [
        ({}, False),  # not live: every frame is asked for
        ({"fast": False}, True),  # a camera
        ({"fast": False, "motion_gate": False}, False),
        ({"motion_gate": True}, True),
    ],
)
def test_cameras_have_a_motion_gate_unless_told(given, gated):
    run = Run(options(**given))
    assert isinstance(run.pipeline.gate, Gate) is gated
    run.pipeline.source.close()


def test_the_picture_is_seen_as_asked():
    out = Kept()
    Run(options(roi=(0, 0, 0.5, 1), rotate=90, size=(320, 240)), out).go()
    assert out.results[0].frame.image.shape == (320, 120, 3)


def test_a_camera_that_is_lost_shows_in_health(camera):
    lost, began = threading.Event(), threading.Event()
    run = Run(options(source=camera.url, limit=None), Kept(lambda result: began.set()))
    tell = run._source.tell
    run._source.tell = lambda condition, reason: (tell(condition, reason), lost.set())
    thread = threading.Thread(target=run.go)
    thread.start()
    try:
        assert began.wait(SOON)
        camera.off()
        assert lost.wait(SOON)
        document = run.health.snapshot()
        assert document["state"] == document["source"]["state"] == "failed"
        assert "trying again" in document["reasons"][0]
    finally:
        run.pipeline.stop()
        thread.join(SOON)


def test_a_new_model_between_two_frames_and_rubbish_that_is_not_taken(tmp_path):
    place = tmp_path / "model.tflite"
    place.write_bytes(MODEL.read_bytes())

    def exchange(result):
        if result.frame.index == 5:
            place.write_bytes(b"rubbish" * 1000)
            with pytest.raises(EdgennError):
                run.reload()
            refused.append(run.pipeline.classifier)
        if result.frame.index == 10:
            place.write_bytes(MODEL.read_bytes())
            run.reload()

    refused: list = []
    out = Kept(exchange)
    run = Run(options(model=str(place), limit=30), out)
    first = run.pipeline.classifier
    run.go()
    assert [result.frame.index for result in out.results] == list(range(30))
    assert refused == [first]
    assert run.pipeline.classifier is not first
    assert run.pipeline.classifier.model.content == load(MODEL).content


def test_sinks_speak_of_the_model_that_answers(tmp_path):
    place, table = tmp_path / "model.tflite", tmp_path / "events.db"
    place.write_bytes(MODEL.read_bytes())
    model = load(MODEL)
    coats = replace(model.card, name="coats", labels=("coat", "jumper", "vest"))

    def exchange(result):
        if result.frame.index == 0:
            place.write_bytes(attach(model.content, coats))
            run.reload()

    run = Run(options(model=str(place), sink=(f"sqlite:{table}",), limit=30), Kept(exchange))
    run.go()
    with closing(sqlite3.connect(table)) as connection:
        rows = connection.execute("SELECT DISTINCT model, label FROM events").fetchall()
    assert {row[0] for row in rows} == {"coats"}
    assert {row[1] for row in rows} & set(coats.labels)


@pytest.mark.parametrize("scheme", ["http", "mqtt"])
def test_messages_that_neither_the_disk_nor_the_receiver_took_are_named_at_the_end(
    scheme, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file"))
    # Bound but not listening: nobody else can answer there meanwhile.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        run = Run(options(sink=(f"{scheme}://127.0.0.1:{closed.getsockname()[1]}/",)))
        run.go()
    (line,) = run.unwritten()
    assert "127.0.0.1" in line
    assert "messages that could not be written" in caplog.text


def test_messages_that_the_disk_has_taken_are_not_named(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        run = Run(options(sink=(f"http://127.0.0.1:{closed.getsockname()[1]}/",)))
        run.go()
    assert run.unwritten() == []


def test_a_run_with_a_timeline_keeps_its_model():
    run = Run(options(), timeline=Timeline())
    with pytest.raises(EdgennError, match="--timeline"):
        run.reload()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sink": ("nonsense:x",)}, "nonsense"),
        ({"source": "nowhere.mp4"}, "nowhere.mp4"),
        ({"model": "nowhere.tflite"}, "nowhere.tflite"),
        ({"delegate": "/no/such/library.so"}, None),  # no error: the CPU answers
    ],
)
def test_what_cannot_be_put_together_is_one_line_and_leaves_no_thread(given, said):
    before = set(threading.enumerate())
    if said is None:
        run = Run(options(**given), Kept())
        run.go()
        assert run.health.snapshot()["state"] == "degraded"
    else:
        with pytest.raises(EdgennError, match=said):
            Run(options(**given))
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= before


def test_the_command_reads_its_file_and_takes_a_new_model_at_sighup(tmp_path):
    place = tmp_path / "model.tflite"
    place.write_bytes(MODEL.read_bytes())
    (tmp_path / "run.toml").write_text(
        f'model = "{place}"\nsource = "synthetic"\nsink = "jsonl:{tmp_path}/out.jsonl"\nname = "porch"\n'
    )
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
    process = subprocess.Popen(
        [*EDGENN, "run", "--config", str(tmp_path / "run.toml"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def health() -> dict:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "health.sock"))
            return json.loads(client.makefile().read())

    try:
        for _ in range(5):
            assert process.stdout.readline()
        assert (health()["device"], health()["state"]) == ("porch", "ok")
        place.write_bytes(b"rubbish")
        process.send_signal(signal.SIGHUP)
        while health()["state"] != "degraded":
            assert process.stdout.readline()
        assert "the one before stays" in health()["reasons"][0]
        place.write_bytes(MODEL.read_bytes())
        process.send_signal(signal.SIGHUP)
        while health()["state"] != "ok":
            assert process.stdout.readline()
    finally:
        process.terminate()
        stdout, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 0, stderr
    assert "summary" in stdout.splitlines()[-1]
