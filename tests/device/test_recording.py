"""Videos of events: written by the real encoder, read back, on a disk that is really full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.errors import EdgennError
from edgenn_device.events import Events
from edgenn_device.pipeline import Result
from edgenn_device.sinks import recording
from edgenn_device.sinks.base import About
from edgenn_device.sinks.recording import Recording
from tools import chromium

ABOUT = About("porch", "garments", ("shirt", "dress"), "LiteRT", "camera 0", "1.2")


def picture(second: float, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A picture whose grey tells the second, ten levels each."""
    return np.full((*size, 3), min(255, round(second * 10)), np.uint8)


class Camera:
    """A scene of a given label by the second, through Events and into a sink, as the runner does it."""

    def __init__(self, sink: Recording) -> None:
        self.sink = sink
        self.events = Events()
        self.index = 0

    def show(self, first: float, last: float, label: str, *, encoded: bool = False, fps: float = 30, **options) -> None:
        for tick in range(round(first * fps), round(last * fps)):
            second = tick / fps
            image = picture(second, **options)
            if encoded:
                image = cv2.imencode(".jpg", image)[1].tobytes()
            classification = Classification(label, 0.9, ((label, 0.9),), np.ones(1, np.float32))
            result = Result(Frame(image, 1e6 + second, self.index), classification, {}, 0.01)
            self.index += 1
            self.sink.write(result)
            for event in self.events.take(result):
                self.sink.event(event)

    def end(self) -> None:
        for event in self.events.end():
            self.sink.event(event)
        self.sink.close()


def videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def seconds_shown(path: Path) -> list[float]:
    """What the frames tell, to half a second: the encoder saves on small changes of grey."""
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    shown = []
    while (got := video.read())[0]:
        shown.append(float(got[1].mean()) / 10)
    video.release()
    return shown


@pytest.mark.parametrize("encoded", [False, True])
def test_a_video_shows_before_during_and_after(tmp_path, encoded):
    with Recording(tmp_path / "videos", ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 8, "unknown", encoded=encoded)
        camera.show(8, 12, "shirt", encoded=encoded)
        camera.show(12, 20, "unknown", encoded=encoded)
        assert sink.state() == {"videos": 1, "skipped": 0, "error": None}
        camera.end()
    (path,) = videos(tmp_path / "videos")
    assert path.suffix == ".webm"
    assert "-shirt-" in path.name
    shown = seconds_shown(path)
    assert shown[0] == pytest.approx(5, abs=0.6)
    assert shown[-1] == pytest.approx(15, abs=0.6)
    assert len(shown) == pytest.approx(50, abs=3)
    assert np.abs(np.array(shown) - np.linspace(shown[0], shown[-1], len(shown))).max() < 0.6


def test_what_touches_is_one_video_and_what_does_not_is_another(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 2, "shirt")
        camera.show(2, 4, "dress")
        camera.show(4, 6, "unknown")
        camera.show(6, 7, "dress")
        camera.show(7, 15, "unknown")
        camera.show(15, 16, "shirt")
        camera.end()
    first, second = [seconds_shown(path) for path in videos(tmp_path)]
    assert (first[0], first[-1]) == (pytest.approx(0, abs=0.6), pytest.approx(10, abs=0.6))
    assert (second[0], second[-1]) == (pytest.approx(12, abs=0.6), pytest.approx(16, abs=0.6))


def test_an_event_that_goes_on_is_cut(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 200, "shirt")
        assert len(videos(tmp_path)) == 1
        camera.end()
    (path,) = videos(tmp_path)
    assert len(seconds_shown(path)) == pytest.approx(150, abs=3)


def test_a_slow_camera_gives_a_video_of_the_same_length(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 10, "shirt", fps=1)
        camera.end()
    (path,) = videos(tmp_path)
    shown = np.array(seconds_shown(path))
    assert len(shown) == 46
    # A picture stands until the next one is there.
    assert np.abs(shown - np.floor(np.arange(46) / 5 + 1e-6)).max() < 0.6


def test_unknown_is_no_event(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 5, "unknown")
        camera.end()
    assert videos(tmp_path) == []


def test_a_camera_that_goes_away_ends_the_video_and_its_size_may_change(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 3, "shirt")
        camera.show(3, 5, "shirt", size=(241, 333))
        camera.show(60, 61, "shirt", size=(64, 64))
        camera.end()
    first, second = [seconds_shown(path) for path in videos(tmp_path)]
    assert len(first) == pytest.approx(25, abs=2)
    assert first[-1] == pytest.approx(5, abs=0.6)
    assert len(second) == pytest.approx(5, abs=2)


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_RING", 20_000)
    noise = np.random.RandomState(0).randint(0, 256, (240, 320, 3), np.uint8)
    sink = Recording(tmp_path, ABOUT)
    for index in range(200):
        classification = Classification("unknown", 0.1, (), np.ones(1, np.float32))
        sink.write(Result(Frame(noise, index / 5, index), classification, {}, 0.01))
    assert sum(len(data) for _, data in sink._ring) <= 20_000
    assert sink._ring_bytes == sum(len(data) for _, data in sink._ring)


def test_the_oldest_make_room(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 1, "shirt")
        camera.show(1, 10, "unknown")
    size = videos(tmp_path)[0].stat().st_size
    (tmp_path / "holiday.webm").write_bytes(bytes(10 * size))
    names = []
    with Recording(tmp_path, ABOUT, limit=round(3.5 * size)) as sink:
        camera = Camera(sink)
        for turn in range(1, 8):
            camera.show(20 * turn, 20 * turn + 1, "shirt")
            camera.show(20 * turn + 1, 20 * turn + 10, "unknown")
            names += [path.name for path in videos(tmp_path) if path.name not in names]
        camera.end()
    ours = [path for path in videos(tmp_path) if path.name != "holiday.webm"]
    assert sum(path.stat().st_size for path in ours) <= 3.5 * size
    assert {path.name for path in ours} == set(names[-len(ours) :])
    # What is not ours is not touched.
    assert (tmp_path / "holiday.webm").exists()


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgennError, match="is a file"):
        Recording(tmp_path / "file", ABOUT)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_survived(small_disk, caplog):
    with Recording(small_disk, ABOUT, reserve=1 << 20) as sink:
        camera = Camera(sink)
        camera.show(0, 1, "shirt")
        camera.show(1, 6, "unknown")
        assert len(videos(small_disk)) == 1
        # Somebody else fills it: ours go first, and then there is nothing more to be had.
        filler = small_disk / "others"
        filler.write_bytes(bytes(3_500_000))
        for turn in range(1, 4):
            camera.show(20 * turn, 20 * turn + 1, "shirt")
            camera.show(20 * turn + 1, 20 * turn + 6, "unknown")
        assert videos(small_disk) == [filler]
        assert sink.state()["skipped"] == 3
        assert "1 MB free" in sink.state()["error"]
        assert len(caplog.records) == 1
        filler.unlink()
        camera.show(100, 101, "shirt")
        camera.show(101, 106, "unknown")
        assert len(videos(small_disk)) == 1
        assert sink.state()["error"] is None
    assert list(small_disk.glob(".*")) == []


def test_a_disk_that_fills_up_in_the_middle_cuts_the_video_short(small_disk):
    with Recording(small_disk, ABOUT, reserve=1 << 20) as sink:
        camera = Camera(sink)
        camera.show(0, 4, "shirt")
        filler = small_disk / "others"
        filler.write_bytes(bytes(3_500_000))
        camera.show(4, 10, "shirt")
        assert sink._clip is None
        assert "1 MB free" in sink.state()["error"]
        camera.end()
        # What was there by then is kept, and plays to its end.
        (ours,) = [path for path in videos(small_disk) if path != filler]
        assert len(seconds_shown(ours)) == pytest.approx(22, abs=4)
        assert list(small_disk.glob(".*")) == []


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from test_recording import ABOUT, Camera, Recording
sink = Recording(sys.argv[1], ABOUT)
sink.open()
Camera(sink).show(0, 3, "shirt")
print("recording", flush=True)
sys.stdin.read()
"""


def test_a_video_that_sigkill_left_half_written_is_removed_at_the_next_start_and_not_before(tmp_path):
    folder = tmp_path / "videos"
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(here)],
        env={**os.environ, "PYTHONPATH": str(here.parents[1] / "device")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"recording\n"
    # Another run that starts meanwhile takes nothing away.
    with Recording(folder, ABOUT):
        pass
    assert len(list(folder.iterdir())) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(folder.iterdir())) == 1
    assert videos(folder) == []
    (folder / ".keep").touch()
    with Recording(folder, ABOUT):
        assert [path.name for path in folder.iterdir()] == [".keep"]


def test_an_opencv_without_vp8_writes_what_it_can(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_FORMATS", ((".webm", "XXXX"), (".avi", "MJPG")))
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 2, "shirt")
        camera.end()
    (path,) = videos(tmp_path)
    assert path.suffix == ".avi"
    assert len(seconds_shown(path)) == pytest.approx(10, abs=1)
    assert list(tmp_path.glob(".*")) == []
    monkeypatch.setattr(recording, "_FORMATS", ((".webm", "XXXX"),))
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 2, "shirt")
        camera.end()
        assert "neither VP8 nor MJPEG" in sink.state()["error"]
    assert videos(tmp_path) == [path]
    assert list(tmp_path.glob(".*")) == []


def test_stderr_holds_what_others_say_and_not_opencv(tmp_path, capfd):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 2, "shirt")
        camera.end()
    assert videos(tmp_path)
    assert capfd.readouterr().err == ""
    with recording._without_remarks():
        os.write(2, b"OpenCV: FFMPEG: tag\na line of another thread\n")
    assert capfd.readouterr().err == "a line of another thread\n"


@pytest.mark.skipif(chromium.FOUND is None, reason="needs a browser: apt-get install chromium")
def test_a_browser_plays_it(tmp_path):
    with Recording(tmp_path, ABOUT) as sink:
        camera = Camera(sink)
        camera.show(0, 3, "shirt")
        camera.end()
    (path,) = videos(tmp_path)
    page = tmp_path / "page.html"
    # The last picture is looked at: the whole of it has been decoded.
    page.write_text(
        f"""<body><video id=v muted src="{path.name}"></video><canvas id=c></canvas><script>
        v.onloadeddata = () => {{ v.currentTime = v.duration - 0.1 }};
        v.onseeked = () => {{
          const on = c.getContext('2d'); on.drawImage(v, 0, 0);
          document.body.append(`shows ${{v.videoWidth}}x${{v.videoHeight}} for ${{v.duration.toFixed(1)}} s`) }};
        v.onerror = () => document.body.append('cannot play');</script></body>"""
    )
    with chromium.Chromium(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        browser.until("document.body.innerText.length > 0")
        assert browser.text() == "shows 128x96 for 3.0 s"
