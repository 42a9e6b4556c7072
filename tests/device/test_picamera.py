"""The Pi's own camera, by a stand-in with picamera2's interface."""

import logging
import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from edgenn_device import preprocess
from edgenn_device.cameras import open_source, picamera, reconnecting
from edgenn_device.cameras.picamera import PiCameraSource
from edgenn_device.cameras.view import View
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError

SOON = 30.0  # for waits that end at once unless the code is broken


class Request:
    def __init__(self, array: np.ndarray, stamp: int | None) -> None:
        self._array, self._stamp, self.released = array, stamp, False

    def make_array(self, stream: str) -> np.ndarray:
        if stream == "main":
            return np.full((*Picamera2.made[-1].main[::-1], 3), 7, np.uint8)
        assert stream == "lores"
        return self._array

    def get_metadata(self) -> dict:
        return {"SensorTimestamp": self._stamp} if self._stamp is not None else {}

    def release(self) -> None:
        self.released = True


class Picamera2:
    """YUV420 as the hardware gives it: rows padded to a stride of 64 bytes, with something that must not show."""

    cameras: ClassVar[list[dict]] = [{"Num": 0}]
    made: ClassVar[list["Picamera2"]] = []
    falls_silent: ClassVar[bool] = False  # the first camera that is made, after its first frame

    @staticmethod
    def global_camera_info() -> list[dict]:
        return Picamera2.cameras

    def __init__(self, number: int) -> None:
        self.requests: list[Request] = []
        self.closed = False
        Picamera2.made.append(self)

    def create_video_configuration(
        self, *, main: dict, lores: dict, queue: bool, transform: SimpleNamespace, controls: dict
    ) -> dict:
        assert lores["size"][0] <= main["size"][0]
        assert lores["size"][1] <= main["size"][1]
        assert lores["size"][0] % 2 == lores["size"][1] % 2 == 0
        self.transform, self.controls = transform, controls
        return {"main": main, "lores": lores}

    def configure(self, configuration: dict) -> None:
        self.size = configuration["lores"]["size"]
        self.main = configuration["main"]["size"]

    def start(self) -> None:
        pass

    def capture_request(self, *, wait: bool) -> SimpleNamespace:
        assert wait is False
        return SimpleNamespace(get_result=self._result)

    def _result(self, timeout: float) -> Request:
        if Picamera2.falls_silent and self is Picamera2.made[0] and self.requests:
            Picamera2.waited.set()
            raise TimeoutError
        width, height = self.size
        stride = (width + 63) // 64 * 64
        bgr = np.zeros((height, stride, 3), np.uint8)
        bgr[:, :width] = (30, 90, 200)
        stamp = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 8_000_000
        self.requests.append(Request(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), stamp))
        return self.requests[-1]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pi(monkeypatch):
    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2
    monkeypatch.setitem(sys.modules, "picamera2", module)
    libcamera = ModuleType("libcamera")
    libcamera.Transform = lambda *, hflip, vflip: SimpleNamespace(hflip=hflip, vflip=vflip)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    monkeypatch.setattr(Picamera2, "made", [])
    monkeypatch.setattr(Picamera2, "falls_silent", False)
    monkeypatch.setattr(Picamera2, "waited", threading.Event(), raising=False)
    monkeypatch.setattr(reconnecting, "_SHORTEST_WAIT", 0.001)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (InputSpec(224, 224), (224, 224, 3)),  # stretched by the camera's own scaler
        (InputSpec(97, 33), (98, 34, 3)),  # YUV420 has even sides only
        (InputSpec(224, 224, resize="crop"), (224, 300, 3)),  # covers the input at the camera's aspect ratio
        (InputSpec(2000, 2000), (720, 960, 3)),  # no larger than the main stream
        (None, (720, 960, 3)),  # nothing known of the network
    ],
)
def test_the_pi_camera_scales_to_the_network(pi, spec, shape):
    with open_source("picamera", input=spec) as source:
        frame = source.read()
        age = time.monotonic() - frame.time
    assert frame.image.shape == shape
    assert np.abs(frame.image.astype(int) - (30, 90, 200)).max() <= 4  # and nothing of the padding
    assert 0.008 <= age < 5  # counted from exposure
    (camera,) = Picamera2.made
    assert camera.closed
    assert all(request.released for request in camera.requests)
    if spec:
        assert preprocess.to_tensor(frame.image, spec).shape == (1, *spec.shape)


def test_a_pi_camera_that_falls_silent_is_started_anew(pi, monkeypatch, caplog):
    monkeypatch.setattr(picamera, "SILENCE", 0.05)
    monkeypatch.setattr(Picamera2, "falls_silent", True)
    with caplog.at_level(logging.WARNING), PiCameraSource() as source:
        assert [source.read().index for _ in range(3)] == [0, 1, 2]
    assert len(Picamera2.made) == 2
    assert all(camera.closed for camera in Picamera2.made)
    assert "nothing came" in caplog.text


def test_a_reader_blocked_in_the_pi_camera_is_woken_by_close(pi, monkeypatch):
    source = PiCameraSource()
    source.open()
    source.read()
    monkeypatch.setattr(Picamera2, "falls_silent", True)
    given: list[object] = []
    reader = threading.Thread(target=lambda: given.append(source.read()))
    reader.start()
    assert Picamera2.waited.wait(SOON)
    source.close()
    reader.join(SOON)
    assert given == [None]


def test_without_picamera2_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(EdgennError, match=r"apt install python3-picamera2.*--system-site-packages"):
        open_source("picamera").open()


def test_a_pi_without_a_camera_is_one_line(pi, monkeypatch):
    monkeypatch.setattr(Picamera2, "cameras", [])
    with pytest.raises(EdgennError, match="ribbon"):
        open_source("picamera").open()


@pytest.mark.parametrize(
    ("view", "flips", "left"),
    [
        (View(), (False, False), View()),
        (View(rotate=180), (True, True), View()),  # a camera that hangs upside down
        (View(flip="horizontal"), (True, False), View()),  # a mirror
        (View(rotate=180, flip="both"), (False, False), View()),  # twice turned is not turned
        (View(rotate=180, flip="vertical"), (True, False), View()),
        (View(rotate=90, flip="vertical"), (False, False), View(rotate=90, flip="vertical")),  # no sensor can
        (View((0, 0, 0.5, 1), 180), (True, True), View((0, 0, 0.5, 1))),  # the region is of what is seen
    ],
)
def test_the_sensor_flips_and_the_rest_is_left_to_the_reader(pi, view, flips, left):
    with open_source("picamera", input=InputSpec(96, 96), view=view) as source:
        assert source.view == left
        assert source.view.apply(source.read().image).shape[0] >= 96
    transform = Picamera2.made[0].transform
    assert (transform.hflip, transform.vflip) == flips


def test_a_region_has_the_camera_scale_less(pi):
    with open_source("picamera", input=InputSpec(96, 96), view=View((0.5, 0.5, 0.5, 0.25))) as source:
        image = source.read().image
    assert image.shape == (384, 192, 3)
    assert source.view.apply(image).shape == (96, 96, 3)


def test_exposure_and_the_large_stream_while_somebody_watches(pi):
    with open_source("picamera", input=InputSpec(96, 96), exposure=0.01, width=640, height=480) as source:
        assert source.read().image.shape == (96, 96, 3)
        source.watched = True
        assert source.read().image.shape == (480, 640, 3)
    camera = Picamera2.made[0]
    assert camera.controls == {"AeEnable": False, "ExposureTime": 10_000}
    assert all(request.released for request in camera.requests)
