"""Sources with real files, folders and servers; cameras that are not here through stand-ins with their interface."""

import logging
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenn_device.cameras import capture, open_source, reconnecting, v4l2
from edgenn_device.cameras.base import Source
from edgenn_device.cameras.capture import Capture
from edgenn_device.cameras.mjpeg import MjpegSource
from edgenn_device.cameras.picamera import PiCameraSource
from edgenn_device.cameras.rtsp import RtspSource
from edgenn_device.cameras.stills import StillsSource
from edgenn_device.cameras.synthetic import SyntheticSource
from edgenn_device.cameras.v4l2 import V4L2Source
from edgenn_device.cameras.video_file import VideoFileSource
from edgenn_device.errors import EdgennError

SOON = 30.0  # for waits that end at once unless the code is broken


def picture(value: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write_video(path: Path, values: list[int], *, fps: float = 25.0, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (32, 24))
    assert writer.isOpened()
    for value in values:
        writer.write(picture(value))
    writer.release()
    return path


def everything(source: Source) -> list:
    with source:
        return list(iter(source.read, None))


# --- the word that names a source ---------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.avi", [10])
    (tmp_path / "folder").mkdir()
    for name in ("a.jpg", "B.PNG", "folder/c.jpeg"):
        cv2.imwrite(str(tmp_path / name), picture(10))
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("0", V4L2Source, "/dev/video0"),  # a number
        ("/dev/video2", V4L2Source, "/dev/video2"),  # a device
        ("/dev/v4l/by-id/usb-cam", V4L2Source, "/dev/v4l/by-id/usb-cam"),  # a device by its lasting name
        ("rtsp://anna:secret@camera/1", RtspSource, "rtsp://camera/1"),  # a stream; the password is not shown
        ("rtsp://anna:p@ss%23word@camera/1", RtspSource, "rtsp://camera/1"),  # with signs that mean something
        (
            "rtsp://camera/user=anna&password=secret&channel=1",
            RtspSource,
            "rtsp://camera/user=anna&password=…&channel=1",
        ),
        ("http://camera/v?usr=anna&loginpas=se/cr@t&r=5", MjpegSource, "http://camera/v?usr=anna&loginpas=…&r=5"),
        ("http://camera/large@2x", MjpegSource, "http://camera/large@2x"),  # an @ that ends no login
        ("RTSPS://camera/1", RtspSource, "rtsps://camera/1"),  # case does not matter
        ("http://camera:8080/?action=stream", MjpegSource, "http://camera:8080/?action=stream"),  # MJPEG
        ("https://anna:secret@camera/a.mjpg", MjpegSource, "https://camera/a.mjpg"),  # MJPEG over TLS
        ("clip.avi", VideoFileSource, "clip.avi"),  # a video
        ("a.jpg", StillsSource, "a.jpg"),  # a picture
        ("B.PNG", StillsSource, "B.PNG"),  # a picture, shouting
        ("folder", StillsSource, "folder"),  # a folder
        ("*.jp*g", StillsSource, "*.jp*g"),  # a glob
        ("picamera", PiCameraSource, "picamera"),  # the Pi's own
        ("synthetic", SyntheticSource, "synthetic"),  # none at all
    ],
)
def test_a_word_names_a_source(here, spec, kind, name):
    source = open_source(spec)
    assert type(source) is kind
    assert source.name == name


@pytest.mark.parametrize(
    "spec",
    ["", "nowhere.mp4", "nowhere", "~nobody here/x", "~\0/x", "ftp://camera/1", "pikamera", "-1", "http//camera"],
)
def test_anything_else_is_refused_with_what_is_accepted(here, spec):
    with pytest.raises(EdgennError, match=r"picamera, 0 or /dev/video0, rtsp://"):
        open_source(spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("http://anna:se#cret@camera/1", "# as %23"),  # the host would be anna, its port se
        ("rtsp://anna:se#cret@camera/1", "# as %23"),  # the same of the others
        ("rtsp://anna:se/cret@camera/1", "/ as %2F"),
        ("http://anna:se?cret@camera/1", r"\? as %3F"),
        ("https://anna:se[cret@camera/1", r"\[ as %5B"),
        ("http://anna:se]cret@camera/1", r"\] as %5D"),
        ("http://anna:99/secret@camera/1", "/ as %2F"),  # a port that could be
        ("http://anna:secret@1/secret@camera/1", "/ as %2F"),  # and a whole login
        ("http://se/cret:secret@camera/1", "/ as %2F"),  # in the name
        ("rtsp://anna:se\uff0fcret@camera/1", "this is no rtsp:// address"),  # what the standard library repeats
        ("http://anna:secret/1", "this is no http:// address"),  # the host was forgotten
        ("http//anna:secret@camera/1", "there is no source '…@camera/1'"),  # the colon was
        ("anna:se?cret@camera/1", "there is no picture …@camera/1"),  # the scheme was; a glob
        ("anna:secret@rtsp://camera/1", "…@rtsp:// is no source"),  # in the wrong place
    ],
)
def test_a_password_that_cannot_be_read_is_not_shown(here, spec, said):
    with pytest.raises(EdgennError, match=said) as raised, open_source(spec):
        pass
    text = str(raised.value)
    assert not any(part in text for part in ("secret", "cret@", "se#", "99")), text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("*.gif", "there is no picture"),  # a glob that finds nothing
        ("empty", "holds no picture"),  # a folder without pictures
        ("junk.mp4", "no video frame"),  # not a video
        ("cut.avi", "no video frame"),  # the beginning of one
        ("empty.mp4", "no video frame"),  # an empty file
        ("/dev/video97", "no camera /dev/video97"),  # a camera that is not plugged in
        ("/dev/null", "not a video device"),  # a device, but no camera
        ("rtsp://127.0.0.1:9/live", "does not open"),  # nobody answers
    ],
)
def test_what_does_not_open_is_one_line_and_nothing_on_stderr(here, capfd, monkeypatch, spec, said):
    monkeypatch.setattr(reconnecting, "_SHORTEST_WAIT", 0.001)
    (here / "empty").mkdir()
    (here / "junk.mp4").write_bytes(b"junk" * 1000)
    (here / "cut.avi").write_bytes((here / "clip.avi").read_bytes()[:300])
    (here / "empty.mp4").touch()
    source = open_source(spec)
    with pytest.raises(EdgennError, match=said) as raised:
        source.open()
    source.close()
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


# --- pictures -----------------------------------------------------------------------------------------------------


def test_pictures_come_undecoded_in_natural_order(tmp_path):
    for number in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"photo {number}.jpg"), picture(number))
    frames = everything(open_source(str(tmp_path)))
    assert [Path(frame.path).name for frame in frames] == ["photo 1.jpg", "photo 9.jpg", "photo 10.jpg"]
    assert [frame.image for frame in frames] == [Path(frame.path).read_bytes() for frame in frames]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.truth for frame in frames] == [None] * 3


def test_pictures_wait_and_have_nothing_to_do_with_each_other():
    assert not StillsSource("x").live
    assert not StillsSource("x").continuous


def test_the_folder_of_a_class_is_the_truth_and_what_is_no_picture_is_passed_over(tmp_path):
    for name in ("shirt/1.jpg", "jacket/deeper/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name), picture(9))
    (tmp_path / "labels.txt").write_text("shirt\njacket\n")
    (tmp_path / "shirt" / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "shirt" / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # whose read would never return
    frames = everything(open_source(str(tmp_path)))
    assert [(Path(frame.path).name, frame.truth) for frame in frames] == [("2.png", "deeper"), ("1.jpg", "shirt")]


def test_a_picture_that_cannot_be_read_is_skipped_and_counted(tmp_path, caplog):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    source = StillsSource(tmp_path)
    source.open()
    assert len(source) == 3
    source.read()
    (tmp_path / "1.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert source.read().path == str(tmp_path / "2.png")
    assert source.read() is None
    assert source.skipped == 1
    assert "1.png left out" in caplog.text


def test_a_glob_finds_across_folders_and_a_name_with_brackets_is_a_name(tmp_path):
    for name in ("a/1.jpg", "b/2.jpg", "b/3.png", "a[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), picture(9))
    assert len(everything(open_source(f"{tmp_path}/**/*.jpg"))) == 3
    assert len(everything(open_source(str(tmp_path / "a[1].jpg")))) == 1


# --- video --------------------------------------------------------------------------------------------------------

VALUES = [20, 60, 100, 140, 180, 220]


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_fast_gives_every_frame_of_a_video_and_is_not_live(tmp_path, name, codec):
    source = open_source(str(write_video(tmp_path / name, VALUES, codec=codec)), fast=True)
    frames = everything(source)
    assert [frame.image.shape for frame in frames] == [(24, 32, 3)] * len(VALUES)
    assert [frame.image.mean() for frame in frames] == pytest.approx(VALUES, abs=4)
    assert [frame.index for frame in frames] == list(range(len(VALUES)))
    assert not source.live
    assert source.continuous


def test_at_its_own_pace_a_video_is_due_by_its_timestamps(tmp_path, monkeypatch):
    source = open_source(str(write_video(tmp_path / "clip.mp4", VALUES, fps=50.0, codec="mp4v")))
    frames = everything(source)
    assert source.live
    assert [frame.image.mean() for frame in frames] == pytest.approx(VALUES, abs=4)
    # Never earlier than it is due; how much later depends on the machine.
    times = np.array([frame.time for frame in frames])
    assert (times - times[0] >= np.arange(len(VALUES)) / 50 - 1e-3).all()


def test_a_video_without_timestamps_keeps_the_pace_of_its_header(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.avi", VALUES, fps=100.0)
    get = Capture.get
    monkeypatch.setattr(Capture, "get", lambda self, prop: 0.0 if prop == cv2.CAP_PROP_POS_MSEC else get(self, prop))
    times = np.array([frame.time for frame in everything(open_source(str(path)))])
    assert (times - times[0] >= np.arange(len(VALUES)) / 100 - 1e-3).all()


@pytest.mark.parametrize("fast", [True, False])
def test_a_frame_knows_its_moment_in_the_film_however_fast_it_is_read(tmp_path, fast):
    path = write_video(tmp_path / "clip.mp4", VALUES, fps=50.0, codec="mp4v")
    moments = np.array([frame.moment for frame in everything(open_source(str(path), fast=fast))])
    assert moments - moments[0] == pytest.approx(np.arange(len(VALUES)) / 50, abs=1e-3)


class Film:
    """A cv2.VideoCapture of a file of which some frames ("0") cannot be read; it says it has 100 a second."""

    def __init__(self, frames: str, count: float, pace: float) -> None:
        self.frames, self.count, self.pace = iter(frames), count, pace
        self.read = self.grabs = 0

    def isOpened(self) -> bool:
        return True

    def grab(self) -> bool:
        self.grabs += 1
        taken = next(self.frames, "0") == "1"
        self.read += taken
        return taken

    def retrieve(self):
        return True, picture(1)

    def get(self, prop: int) -> float:
        stamp = 1000 * self.pace * self.grabs
        answers = {cv2.CAP_PROP_POS_FRAMES: self.read, cv2.CAP_PROP_FRAME_COUNT: self.count, cv2.CAP_PROP_FPS: 100}
        return float({**answers, cv2.CAP_PROP_POS_MSEC: stamp}[prop])

    def release(self) -> None: ...


@pytest.mark.parametrize(
    ("frames", "count", "pace", "given", "skipped", "said"),
    [
        ("1" * 10, 10, 0.01, 10, 0, None),  # whole
        ("1" * 4 + "0" + "1" * 15, 20, 0.01, 19, 1, None),  # one damaged in the middle
        ("0" * 2 + "1" * 18, 20, 0.01, 18, 2, None),  # at its beginning
        ("1" * 19, 20, 0.01, 19, 0, None),  # and at its end
        ("1" * 6, 20, 0.01, 6, 0, "ends after 0.1 of 0.2 s"),  # cut short
        ("1" * 6, 20, 0.04, 6, 0, None),  # its frames are estimated: it lasts as long as it says
        ("1" * 5 + "0" + "1" * 5, 0, 0.01, 5, 0, None),  # it does not say how many it has
        ("1" * 5 + "0" + "1" * 5, -1, 0.01, 5, 0, None),
        ("1" * 6 + "0" * 5000 + "1", 1e18, 0.01, 6, 0, "ends after 0.1 of"),  # more than any: it is given up
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_a_damaged_video_is_read_to_its_end(
    tmp_path, monkeypatch, caplog, fast, frames, count, pace, given, skipped, said
):
    (tmp_path / "film.mp4").touch()
    monkeypatch.setattr(capture.cv2, "VideoCapture", lambda *_: Film(frames, count, pace))
    source = VideoFileSource(tmp_path / "film.mp4", fast=fast)
    assert [frame.index for frame in everything(source)] == list(range(given))
    assert source.skipped == skipped
    assert len(caplog.messages) == (said is not None)
    assert said is None or said in caplog.text


def test_a_real_video_with_a_damaged_frame_is_read_to_its_end(tmp_path, caplog):
    path = write_video(tmp_path / "clip.mp4", VALUES * 10, codec="mp4v")
    content = path.read_bytes()
    # In the middle of the frames, a few of which are of a few bytes each.
    middle = content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2
    path.write_bytes(content[:middle] + bytes(40) + content[middle + 40 :])
    frames = everything(open_source(str(path), fast=True))
    assert len(frames) > len(VALUES) * 8
    assert caplog.messages == []


def test_a_reader_that_waits_for_the_next_frame_is_woken_by_close(tmp_path):
    source = VideoFileSource(write_video(tmp_path / "slow.avi", VALUES, fps=1.0))
    source.open()
    assert source.read().index == 0
    given: list[object] = []
    reader = threading.Thread(target=lambda: given.append(source.read()))
    reader.start()
    source.close()
    reader.join(SOON)
    assert given == [None]
    assert source.read() is None
    source.close()


def test_a_video_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.avi", VALUES)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EdgennError, match="may not be read"):
        open_source(str(path)).open()


# --- OpenCV's captures: closed from another thread ------------------------------------------------------------------


class StandIn:
    """A cv2.VideoCapture whose frames the test gives; a released one that is used is what crashes the real one."""

    def __init__(self, frames: list = (), properties: dict | None = None) -> None:
        self.frames = list(frames)
        self.properties = properties or {}
        self.changed: dict[int, float] = {}
        self.released = False
        self.grabbing = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def isOpened(self) -> bool:
        return True

    def grab(self) -> bool:
        self.grabbing.set()
        assert self.go.wait(SOON)
        assert not self.released
        return bool(self.frames)

    def retrieve(self):
        assert not self.released
        return True, self.frames.pop(0)

    def get(self, prop: int) -> float:
        return self.changed.get(prop, self.properties.get(prop, 0.0))

    def set(self, prop: int, value: float) -> bool:
        if prop not in self.properties or self.properties[prop] is not None:
            self.changed[prop] = value
        return True

    def release(self) -> None:
        assert not self.grabbing.is_set() or self.go.is_set(), "released in the middle of a read"
        self.released = True


@pytest.fixture
def stand_in(monkeypatch):
    """Makes cv2.VideoCapture return the given stand-ins, one after the other."""

    def use(*stand_ins: StandIn) -> None:
        waiting = list(stand_ins)
        monkeypatch.setattr(capture.cv2, "VideoCapture", lambda *_: waiting.pop(0))

    return use


def test_a_capture_that_is_closed_in_the_middle_of_a_read_is_released_after_it(stand_in):
    native = StandIn([picture(1)])
    native.go.clear()
    stand_in(native)
    opened = Capture("x", cv2.CAP_ANY)
    reader = threading.Thread(target=opened.grab)
    reader.start()
    assert native.grabbing.wait(SOON)
    opened.close()
    assert not native.released
    native.go.set()
    reader.join(SOON)
    assert native.released
    assert opened.retrieve() is None
    assert not opened.grab()


# --- V4L2 -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch):
    """Lets /dev/null pass for a video device."""
    monkeypatch.setattr(v4l2, "_check", lambda path: None)


def test_a_camera_that_compresses_is_handed_over_undecoded(stand_in, device):
    encoded = cv2.imencode(".jpg", picture(77))[1].tobytes()
    now = time.monotonic()
    native = StandIn([np.frombuffer(encoded, np.uint8)[np.newaxis]] * 2, {cv2.CAP_PROP_POS_MSEC: (now - 0.02) * 1000})
    stand_in(native)
    with V4L2Source(0, width=1920, height=1080) as source:
        frame = source.read()
        assert source.read().index == 1
    assert frame.image == encoded
    assert frame.time == pytest.approx(now - 0.02, abs=1e-6)  # the driver's own time stamp
    asked = native.changed
    assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert (asked[cv2.CAP_PROP_FRAME_WIDTH], asked[cv2.CAP_PROP_FRAME_HEIGHT]) == (1920, 1080)
    assert asked[cv2.CAP_PROP_CONVERT_RGB] == 0
    # Most cameras reach their largest sizes only when they compress.
    assert list(asked).index(cv2.CAP_PROP_FOURCC) < list(asked).index(cv2.CAP_PROP_FRAME_WIDTH)
    assert native.released


def test_a_camera_that_does_not_compress_is_converted_by_opencv(stand_in, device):
    class Uncompressed(StandIn):
        def set(self, prop, value):
            return prop != cv2.CAP_PROP_FOURCC and super().set(prop, value)

    native = Uncompressed([picture(5)], {cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV")})
    stand_in(native)
    with V4L2Source("/dev/video0") as source:
        before = time.monotonic()
        frame = source.read()
    assert (frame.image == picture(5)).all()
    assert native.changed[cv2.CAP_PROP_CONVERT_RGB] == 1
    assert cv2.CAP_PROP_FRAME_WIDTH not in native.changed
    assert frame.time <= before  # a driver without a usable stamp: the moment it came, while opening


def test_an_exposure_is_set_by_hand_and_in_the_driver_s_units(stand_in, device):
    native = StandIn([picture(1)])
    stand_in(native)
    with V4L2Source(0, exposure=0.01):
        pass
    assert native.changed[cv2.CAP_PROP_AUTO_EXPOSURE] == 1
    assert native.changed[cv2.CAP_PROP_EXPOSURE] == 100  # of 100 µs


def test_a_camera_that_lets_nobody_set_its_exposure_says_so(stand_in, device):
    class Fixed(StandIn):
        def set(self, prop, value):
            return prop != cv2.CAP_PROP_EXPOSURE and super().set(prop, value)

    stand_in(Fixed([picture(1)]))
    with pytest.raises(EdgennError, match="--exposure"):
        V4L2Source(0, exposure=0.01).open()


def test_a_camera_that_is_unplugged_comes_back(stand_in, device, monkeypatch, caplog):
    monkeypatch.setattr(reconnecting, "_SHORTEST_WAIT", 0.001)
    first, second = StandIn([picture(1)]), StandIn([picture(2)])
    stand_in(first, second)
    with caplog.at_level(logging.WARNING), V4L2Source(0) as source:
        assert source.read().image.mean() == 1
        frame = source.read()
    assert (frame.image.mean(), frame.index) == (2, 1)
    assert first.released
    assert second.released
    assert "still plugged in" in caplog.text


def test_a_missing_device_lists_those_that_are_there():
    present = sorted(Path("/dev").glob("video*"))
    with pytest.raises(EdgennError, match=str(present[0]) if present else r"no /dev/video\*"):
        V4L2Source(97).open()


def test_a_device_that_may_not_be_opened_says_which_group(monkeypatch):
    monkeypatch.setattr(v4l2, "_VIDEO_MAJOR", os.major(Path("/dev/null").stat().st_rdev))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EdgennError, match="usermod -aG video"):
        V4L2Source("/dev/null").open()


# --- streams through FFmpeg -----------------------------------------------------------------------------------------


class Stream(BaseHTTPRequestHandler):
    """Three frames in MJPEG, and then the connection is dropped: what FFmpeg opens as it opens RTSP."""

    def do_GET(self):
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for value in (50, 100, 150):
            body = cv2.imencode(".jpg", picture(value, 48, 64))[1].tobytes()
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body))
            self.wfile.write(body + b"\r\n")

    def log_message(self, *_):
        pass


def test_a_stream_through_ffmpeg_is_taken_up_again_when_it_drops(monkeypatch, caplog):
    monkeypatch.setattr(reconnecting, "_SHORTEST_WAIT", 0.001)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    server.connections = 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with RtspSource(f"http://127.0.0.1:{server.server_port}/x.mjpg") as source:
            frames = [source.read() for _ in range(6)]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [frame.index for frame in frames] == list(range(6))
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert server.connections >= 2
    assert source.live
