"""The motion gate by itself, and what the pipeline does with it."""

import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgenn_device.cameras.base import Frame, Source
from edgenn_device.cameras.view import View
from edgenn_device.card import InputSpec
from edgenn_device.classifier import Classification
from edgenn_device.motion import COLUMNS, ROWS, Gate
from edgenn_device.pipeline import Pipeline
from edgenn_device.preprocess import to_tensor

random = np.random.default_rng(0)
SCENE = cv2.resize(random.integers(0, 256, (12, 16, 3)).astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


def noisy(scene: np.ndarray, deviation: float) -> np.ndarray:
    return np.clip(scene + random.normal(0, deviation, scene.shape), 0, 255).astype(np.uint8)


def with_object(side: int) -> np.ndarray:
    scene = SCENE.copy()
    scene[200 : 200 + side, 300 : 300 + side] = 255 - scene[200 : 200 + side, 300 : 300 + side]
    return scene


@pytest.mark.parametrize(
    ("image", "still"),
    [
        (SCENE, True),
        (noisy(SCENE, 8), True),  # a camera in poor light
        (cv2.imdecode(cv2.imencode(".jpg", SCENE, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 1), True),  # compression
        (np.clip(SCENE.astype(int) + 4, 0, 255).astype(np.uint8), True),  # a lamp that flickers
        (np.clip(SCENE.astype(int) + 30, 0, 255).astype(np.uint8), False),  # a lamp that is switched on
        (with_object(30), False),  # something of 30x30 pixels
        (np.roll(SCENE, 20, axis=1), False),  # the camera was turned
        (cv2.resize(SCENE, (1280, 960), interpolation=cv2.INTER_CUBIC), True),  # another resolution, the same scene
        (SCENE[..., 0], False),  # grey where there was colour
    ],
)
def test_what_is_still(image, still):
    gate = Gate()
    assert not gate.still(SCENE)
    assert gate.still(image) is still


def test_a_change_too_slow_to_be_seen_from_frame_to_frame_adds_up():
    gate, answers = Gate(), []
    for step in range(40):
        answers.append(gate.still(np.full((100, 100, 3), 100 + step, np.uint8)))
    assert answers.count(False) == 4  # at 0, 11, 22 and 33


def test_a_gate_that_was_told_to_forget_has_seen_nothing():
    gate = Gate()
    gate.still(SCENE)
    gate.forget()
    assert not gate.still(SCENE)


def test_a_still_scene_is_looked_at_ten_times_a_second():
    gate = Gate(looks=10, settle=0.0)
    assert not gate.rests(0.0)
    assert not gate.still(SCENE, 0.0)
    assert not gate.rests(0.01)  # it has not been still yet
    assert gate.still(SCENE, 0.03)
    assert gate.rests(0.05)
    assert not gate.rests(0.14)
    assert not gate.rests(0.0)  # a clock that was set back


def test_after_a_change_the_network_is_asked_for_a_second():
    gate = Gate(settle=1.0)
    times = [0.0, 0.5, 0.99, 1.0, 1.5]
    assert [gate.still(SCENE, time) for time in times] == [False, False, False, True, True]
    assert not gate.still(with_object(60), 2.0)
    assert not gate.still(with_object(60), 2.9)
    assert gate.still(with_object(60), 3.1)
    # A clock that was set back begins the second anew, and does not hold it for ever.
    assert [gate.still(with_object(60), time) for time in (1.0, 1.9, 2.0)] == [False, False, True]


def test_what_is_held_is_the_average_and_not_the_last_frame_s_noise():
    class Noisy(Brightness):
        def scores(self, tensor):
            self.invoked += 1
            return np.array([0.6, 0.4] if self.invoked % 2 else [0.4, 0.6], np.float32)

    model = Noisy()
    moments = [number / 10 for number in range(40)]
    results = list(Pipeline(Given([DARK] * 40, moments=moments), model, gate=Gate()).results())
    assert model.invoked == 10
    assert {result.classification.label for result in results} == {"dark"}
    settled = results[9].classification.confidence
    assert all(result.classification.confidence == pytest.approx(settled) for result in results[10:])


@pytest.mark.parametrize("size", [(5, 5), (ROWS, COLUMNS), (1081, 1921), (1, 4000), (4000, 1)])
def test_pictures_of_any_size_are_looked_at(size):
    gate = Gate()
    picture = np.zeros((*size, 3), np.uint8)
    assert [gate.still(picture), gate.still(picture)] == [False, True]


class Given(Source):
    """Gives what it was given, then ends."""

    def __init__(self, images, *, live=False, view=None, moments=None):
        self.name, self.live = "given", live
        self.images = list(images)
        self.moments = moments
        self.view = view or View()

    def open(self):
        self.rest = iter(enumerate(self.images))

    def read(self):
        index, image = next(self.rest, (None, None))
        if index is None:
            return None
        moment = self.moments[index] if self.moments else float(index)
        return Frame(image, time.monotonic(), index, moment=moment)

    def close(self):
        pass


class Brightness:
    """Scores are the tensor's mean brightness; counts its work."""

    labels = ("dark", "bright")

    def __init__(self, spec=None):
        self.model = SimpleNamespace(input=spec or InputSpec(32, 32), card=None)
        self.preprocessed = self.invoked = 0
        self.lock = threading.Lock()

    def preprocess(self, image, out=None):
        self.preprocessed += 1
        self.shape = getattr(image, "shape", None)
        return to_tensor(image, self.model.input, out=out)

    def scores(self, tensor):
        self.invoked += 1
        share = np.float32(tensor.mean() / 255)
        return np.array([1 - share, share], np.float32)

    def result(self, scores, top_k=3):
        best = int(scores.argmax())
        return Classification(
            self.labels[best], float(scores[best]), ((self.labels[best], float(scores[best])),), scores
        )


def gradient(low: int, high: int) -> np.ndarray:
    return np.tile(np.linspace(low, high, 64, dtype=np.uint8)[None, :, None], (48, 1, 3))


DARK, BRIGHT = gradient(0, 80), gradient(170, 250)


@pytest.mark.parametrize("encoded", [False, True])
def test_the_network_is_asked_only_when_something_has_changed(encoded):
    images = [DARK] * 10 + [BRIGHT] * 10 + [DARK] * 3
    if encoded:
        images = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    model = Brightness()
    pipeline = Pipeline(Given(images), model, gate=Gate())
    results = list(pipeline.results())
    assert len(results) == 23
    assert model.invoked == 3
    assert pipeline.summary().skipped == 20
    assert [result.skipped for result in results] == [i not in (0, 10, 20) for i in range(23)]
    # The label is the one of the last scores, averaged over time as if they had been computed each time.
    assert results[9].classification.label == "dark"
    assert results[19].classification.label == "bright"
    assert results[19].stages["invoke"] < results[10].stages["invoke"]


def test_a_still_frame_does_not_displace_the_scene_whose_scores_it_would_reuse():
    """Of a live source: while the interpreter is held in the first scene, the second waits and then stays."""

    class Held(Brightness):
        def scores(self, tensor):
            invoking.set()
            assert go.wait(30)
            return super().scores(tensor)

    class Live(Given):
        def read(self):
            index = self.given
            if index == len(self.images):
                # Everything has been looked at, and the interpreter still has its first scene.
                assert looked.wait(30)
                go.set()
                return None
            if index == 1:
                assert invoking.wait(30)
            elif index > 1:
                # The frame before was taken up, or it would be displaced unseen.
                assert seen.acquire(timeout=30)
            self.given += 1
            return Frame(self.images[index], time.monotonic(), index, moment=float(index))

        given = 0

    class Told(Gate):
        def still(self, image, time=None):
            answer = super().still(image, time)
            answers.append(answer)
            if len(answers) > 1:
                seen.release()
            if len(answers) == 5:
                looked.set()
            return answer

    invoking, go, looked, seen, answers = (
        threading.Event(),
        threading.Event(),
        threading.Event(),
        threading.Semaphore(0),
        [],
    )
    pipeline = Pipeline(Live([DARK, BRIGHT, BRIGHT, BRIGHT, BRIGHT], live=True), Held(), gate=Told())
    results = list(pipeline.results())
    assert answers == [False, False, True, True, True]
    assert [(result.frame.index, result.skipped) for result in results] == [(0, False), (1, False)]
    assert pipeline.dropped == 3


def test_without_a_gate_every_frame_is_classified():
    model = Brightness()
    assert not any(result.skipped for result in Pipeline(Given([DARK] * 5), model).results())
    assert model.invoked == 5


def test_a_picture_that_cannot_be_read_is_no_reference():
    png = cv2.imencode(".png", DARK)[1].tobytes()
    model = Brightness()
    pipeline = Pipeline(Given([png, b"\xff\xd8torn", png, png]), model, gate=Gate())
    assert [result.skipped for result in pipeline.results()] == [False, False, True]
    assert pipeline.bad == 1


def test_another_model_looks_at_the_scene_anew():
    first, second = Brightness(), Brightness()

    class Swapping(Given):
        def read(self):
            frame = super().read()
            if frame is not None and frame.index == 5:
                taken.wait(30)
                pipeline.swap(second)
            return frame

    taken = threading.Event()
    pipeline = Pipeline(Swapping([DARK] * 10), first, gate=Gate())
    results = []
    for result in pipeline.results():
        results.append(result)
        taken.set()
    assert len(results) == 10
    assert [result.frame.index for result in results] == list(range(10))
    assert (first.invoked, second.invoked) == (1, 1)


def test_between_two_looks_a_cut_out_picture_stays_what_it_was():
    view = View((0, 0, 0.5, 0.5))
    moments = [0.0, 1.01, 1.02, 1.03, 1.2]
    pipeline = Pipeline(Given([DARK] * 5, view=view, moments=moments), Brightness(), gate=Gate())
    shapes = [result.frame.image.shape for result in pipeline.results()]
    assert shapes == [(24, 32, 3)] * 5


def test_the_view_is_what_the_network_sees():
    half = np.concatenate([DARK, BRIGHT], axis=0)
    model = Brightness()
    (result,) = Pipeline(Given([half], view=View((0, 0.5, 1, 0.5))), model).results()
    assert result.classification.label == "bright"
    assert result.frame.image.shape == BRIGHT.shape
