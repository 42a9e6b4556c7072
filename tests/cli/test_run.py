"""`edgenn run` as a person and a program use it, on a real model."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenn.cli.run import command
from edgenn_device import runner
from edgenn_device.cameras.stills import StillsSource
from edgenn_device.errors import EdgennError

EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]


@pytest.fixture(scope="session")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EDGENN, "run", *map(str, arguments)], capture_output=True, text=True, **options)  # type: ignore


def lines(done: subprocess.CompletedProcess[str]) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def video(made_once, tiny: Path) -> Path:
    def make(folder: Path) -> None:
        writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 50.0, (32, 32))
        for shape in ("circle", "square"):
            for _ in range(20):
                writer.write(cv2.imread(str(tiny / "photos" / shape / "00.png")))
        writer.release()

    return made_once("video", make) / "clip.avi"


def test_a_folder_gives_a_line_for_every_picture_and_a_summary(model, tiny):
    done = run(model, "--source", tiny / "photos", "--json", "--top", 2)
    *frames, last = lines(done)
    assert [frame["frame"] for frame in frames] == list(range(120))
    assert all(Path(frame["path"]).parent.name == frame["truth"] for frame in frames)
    # Below the card's minimum confidence the label is "unknown", and top still tells.
    assert all(len(frame["top"]) == 2 and frame["label"] in (frame["top"][0][0], "unknown") for frame in frames)
    # Better than chance by far: the right model saw the right pixels.
    assert sum(frame["top"][0][0] == frame["truth"] for frame in frames) > 80
    assert last["summary"]["frames"] == 120
    assert last["summary"]["dropped"] == 0
    assert last["summary"]["fps"] > 0
    assert last["summary"]["seconds"] > 0
    assert "120 frames" in done.stderr


def test_a_video_is_classified_whole_when_fast(model, video):
    *frames, last = lines(run(model, "--source", video, "--fast", "--json"))
    assert [frame["frame"] for frame in frames] == list(range(40))
    assert last["summary"]["frames"] == 40


def test_a_video_at_its_own_pace_is_a_camera(model, video):
    *frames, last = lines(run(model, "--source", video, "--json"))
    indices = [frame["frame"] for frame in frames]
    assert indices == sorted(set(indices))
    assert indices[-1] == 39
    assert last["summary"]["frames"] + last["summary"]["dropped"] == 40


def test_a_limit_ends_it_and_profile_shows_every_stage_and_every_sink(model, tmp_path):
    sinks = [f"jsonl:{tmp_path / 'a'}", f"csv:{tmp_path / 'b'}"]
    named = [word for sink in sinks for word in ("--sink", sink)]
    done = run(model, "--source", "synthetic", "--fast", "--limit", 5, "--profile", "--json", *named)
    *frames, last = lines(done)
    assert len(frames) == 5
    stages = last["summary"]["stages"]
    expected = ["capture", "queue", "preprocess", "invoke", "decide", *(f"sink {sink}" for sink in (*sinks, "json"))]
    assert list(stages) == [*expected, "age"]
    assert all(0 <= stage["p50_ms"] <= stage["p90_ms"] <= stage["p99_ms"] for stage in stages.values())
    assert stages["invoke"]["p50_ms"] > 0
    assert "p99 ms" in done.stderr
    assert "preprocess" in done.stderr


def test_a_timeline_shows_every_frame_in_every_stage(model, tmp_path):
    path = tmp_path / "timeline.json"
    done = run(model, "--source", "synthetic", "--fast", "--limit", 8, "--timeline", path)
    assert done.returncode == 0, done.stderr
    events = json.loads(path.read_text())["traceEvents"]
    for stage in ("capture", "preprocess", "invoke", "decide", "sink terminal"):
        frames = [event["args"]["frame"] for event in events if event["ph"] == "X" and event["name"] == stage]
        assert frames[:8] == list(range(8)), stage
    again = run(model, "--source", "synthetic", "--fast", "--limit", 1, "--timeline", path)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_without_json_a_person_reads_it(model, tiny):
    done = run(model, "--source", tiny / "photos" / "circle" / "00.png")
    assert done.returncode == 0
    assert "00.png" in done.stdout
    assert "%" in done.stdout
    assert "1 frame in" in done.stderr


def test_bad_pictures_are_left_out_and_named(model, tiny, tmp_path):
    good = cv2.imread(str(tiny / "photos" / "circle" / "00.png"))
    cv2.imwrite(str(tmp_path / "good.png"), good)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "rubbish.jpg").write_bytes(b"not a picture")
    (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", np.tile(good, (4, 4, 1)))[1].tobytes()[:200])
    done = run(model, "--source", tmp_path, "--json")
    frame, last = lines(done)
    assert Path(frame["path"]).name == "good.png"
    assert last["summary"]["bad"] == 3
    assert all(name in done.stderr for name in ("empty.jpg", "rubbish.jpg", "cut.png"))
    assert "3 unreadable" in done.stderr


def test_a_folder_of_nothing_but_bad_pictures_is_a_wrong_request(model, tmp_path):
    (tmp_path / "rubbish.jpg").write_bytes(b"not a picture")
    done = run(model, "--source", tmp_path)
    assert done.returncode == 2
    assert "none of its 1 pictures can be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_camera_of_nothing_but_bad_pictures_is_named_without_its_password(model, tmp_path, monkeypatch):
    (tmp_path / "rubbish.jpg").write_bytes(b"not a picture")
    source = StillsSource(tmp_path)
    source.name = "http://camera/film"
    monkeypatch.setattr(runner, "open_source", lambda *_, **__: source)
    with pytest.raises(EdgennError, match="none of its 1 pictures") as raised:
        command.main([str(model), "--source", "http://anna:secret@camera/film"], standalone_mode=False)
    assert "secret" not in str(raised.value)


def test_a_reader_that_has_seen_enough_ends_it_cleanly(model):
    command = [*EDGENN, "run", str(model), "--source", "synthetic", "--fast", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stdout.readline())["frame"] == 0
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr
    assert "frames in" in stderr


def test_an_interruption_is_a_clean_end_with_the_summary(model):
    command = [*EDGENN, "run", str(model), "--source", "synthetic", "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background with SIGINT ignored, and so may whoever runs the tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert json.loads(process.stdout.readline())["frame"] == 0
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(stdout.splitlines()[-1])["summary"]["frames"] >= 1
    assert "Traceback" not in stderr
    assert " in " in stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "nowhere.mp4"], "nowhere.mp4"),  # a file that is not there
        (["--source", "rubbish.mp4"], "no video frame"),  # a file that is no video
        (["--source", "http://127.0.0.1:9/a.mjpg"], "refused"),  # a camera that is off
        (["--source", "97"], "/dev/video97"),  # a camera that is not plugged in
        (["--source", "synthetic", "--limit", "0"], "--limit"),  # nothing to do
        ([], "--source"),  # no source
    ],
)
def test_a_source_that_does_not_open_is_status_2_and_one_line(model, tmp_path, arguments, said):
    (tmp_path / "rubbish.mp4").write_bytes(b"rubbish" * 100)
    done = run(model, *arguments, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_could_not_be_written_is_status_1_and_named(model, tiny, tmp_path):
    # The database is there and somebody else is writing to it.
    made = run(model, "--source", tiny / "photos" / "circle", "--sink", f"sqlite:{tmp_path / 'events.db'}")
    assert made.returncode == 0, made.stderr
    with sqlite3.connect(tmp_path / "events.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = run(model, "--source", tiny / "photos" / "circle", "--sink", f"sqlite:{tmp_path / 'events.db'}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"edgenn: not all was written to sqlite:{tmp_path / 'events.db'} (")
    assert "locked" in done.stderr.splitlines()[-1]
    assert "40 frames" in done.stderr


def test_a_service_that_is_stopped_ends_well_whatever_a_sink_lacks(model, tiny, tmp_path):
    place = tmp_path / "events.db"
    made = run(model, "--source", tiny / "photos" / "circle", "--sink", f"sqlite:{place}")
    assert made.returncode == 0, made.stderr
    with sqlite3.connect(place, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        command = [*EDGENN, "run", str(model), "--source", "synthetic", "--sink", f"sqlite:{place}", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "not written" in stderr  # it is told all the same
