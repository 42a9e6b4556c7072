"""The pipeline with sources and classifiers that the test drives: events prove order and counts, not time."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgenn_device.cameras.base import Frame, Source
from edgenn_device.card import Card, InputSpec
from edgenn_device.channel import Channel, Ended
from edgenn_device.classifier import Classification
from edgenn_device.decision import Decision
from edgenn_device.errors import EdgennError
from edgenn_device.pipeline import STAGES, Pipeline

SOON = 30.0  # for waits that end at once unless the code is broken
LABELS = ("jacket", "shirt")


class Driven(Source):
    """Gives the frames that the test puts into it; `read` blocks until there is one."""

    def __init__(self, *, live: bool, continuous: bool = False) -> None:
        self.name = "driven"
        self.live = live
        self.continuous = continuous
        self.closed = threading.Event()
        self.produced = 0
        self.read_count = threading.Semaphore(0)
        self._frames: Channel[Frame | BaseException | None] = Channel(10_000, newest_wins=False)

    def give(self, image: bytes = b"picture", path: str | None = None, moment: float | None = None) -> None:
        self._frames.put(Frame(image, time.monotonic(), self.produced, path, moment=moment))
        self.produced += 1

    def end(self) -> None:
        self._frames.put(None)

    def fail(self, error: BaseException) -> None:
        self._frames.put(error)

    def open(self) -> None:
        pass

    def read(self) -> Frame | None:
        # Released when the capture thread asks again, which is when the frame before has been handed over.
        self.read_count.release()
        try:
            frame = self._frames.get()
        except Ended:
            return None
        if isinstance(frame, BaseException):
            raise frame
        return frame

    def close(self) -> None:
        self.closed.set()
        self._frames.close()


class Stub:
    """A classifier that can be held in `scores`, and notes what it was given."""

    labels = LABELS

    def __init__(self, card: Card | None = None) -> None:
        self.model = SimpleNamespace(input=InputSpec(2, 2), card=card)
        self.go = threading.Event()
        self.go.set()
        self.invoking = threading.Event()
        self.refused = threading.Semaphore(0)
        self.preprocessed = 0
        self.written = threading.Semaphore(0)
        self.tensors: set[int] = set()
        self.given: list[np.ndarray] = [np.array([0.25, 0.75], np.float32)]

    def preprocess(self, image, out=None):
        if image == b"rubbish":
            self.refused.release()
            raise EdgennError("not a picture")
        if image == b"defect":
            raise ZeroDivisionError("a defect")
        self.preprocessed += 1
        self.prepared_by = threading.current_thread().name
        self.tensors.add(id(out))
        out[...] = image[0]
        self.written.release()
        return out

    def scores(self, tensor):
        assert (tensor == tensor.flat[0]).all()
        self.byte = int(tensor.flat[0])
        self.invoking.set()
        assert self.go.wait(SOON)
        return self.given[0] if len(self.given) == 1 else self.given.pop(0)

    def result(self, scores, top_k=3):
        best = np.argsort(-scores, kind="stable")[:top_k]
        top = tuple((LABELS[index], float(scores[index])) for index in best)
        return Classification(top[0][0], top[0][1], top, scores)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("continuous", [True, False])
def test_nothing_is_lost_of_a_source_that_waits(continuous):
    source, stub = Driven(live=False, continuous=continuous), Stub()
    for number in range(200):
        source.give(bytes([number]))
    source.end()
    pipeline, bytes_seen = Pipeline(source, stub), []
    for result in pipeline.results():
        bytes_seen.append(stub.byte)
        assert result.frame.image == bytes([stub.byte])  # no tensor was overwritten before it was invoked
    assert bytes_seen == list(range(200))
    assert (pipeline.frames, pipeline.dropped, pipeline.bad) == (200, 0, 0)
    assert len(stub.tensors) <= 4  # the ring, and not a tensor for every frame
    assert source.closed.is_set()


def test_the_stages_in_front_wait_for_the_slowest():
    source, stub = Driven(live=False), Stub()
    stub.go.clear()
    for _ in range(50):
        source.give()
    source.end()
    pipeline = Pipeline(source, stub)
    results = []
    reader = threading.Thread(target=lambda: results.extend(pipeline.results()))
    reader.start()
    assert stub.invoking.wait(SOON)
    # Held in the first invoke: what is under way is bounded, and the rest has not been read.
    assert stub.preprocessed <= 4
    assert source.read_count._value < 20
    stub.go.set()
    reader.join(SOON)
    assert [result.frame.index for result in results] == list(range(50))


def held_in_the_first_frame(source: Driven, stub: Stub):
    """A pipeline whose first frame is being invoked, and will be until `stub.go` is set."""
    stub.go.clear()
    pipeline, results = Pipeline(source, stub), []
    reader = threading.Thread(target=lambda: results.extend(pipeline.results()))
    reader.start()
    source.give(bytes([source.produced]))
    assert stub.invoking.wait(SOON)
    return pipeline, results, reader


def wait_until_read(source: Driven, count: int) -> None:
    for _ in range(count):
        assert source.read_count.acquire(timeout=SOON)


def test_of_a_live_source_the_newest_frame_wins():
    source, stub = Driven(live=True), Stub()
    pipeline, results, reader = held_in_the_first_frame(source, stub)
    for number in range(1, 100):
        source.give(bytes([number]))
    # `read` has been called once more than there are frames: all have been handed over, and the interpreter is held.
    wait_until_read(source, 101)
    source.end()
    stub.go.set()
    reader.join(SOON)
    indices = [result.frame.index for result in results]
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    assert indices[-1] == 99  # the last frame that was produced is always classified
    assert len(indices) <= 4  # the first, what was under way behind it, and the newest
    assert pipeline.frames + pipeline.dropped == source.produced
    assert len(stub.tensors) <= 3


def test_frames_that_wait_for_preprocess_are_replaced_by_newer_ones():
    class Held(Stub):
        may_write, writing = threading.Event(), threading.Event()

        def preprocess(self, image, out=None):
            self.writing.set()
            assert self.may_write.wait(SOON)
            return super().preprocess(image, out)

    source, stub = Driven(live=True), Held()
    pipeline, indices = Pipeline(source, stub), []
    reader = threading.Thread(target=lambda: indices.extend(result.frame.index for result in pipeline.results()))
    reader.start()
    source.give()
    assert stub.writing.wait(SOON)
    for _ in range(50):
        source.give()
    wait_until_read(source, 52)
    source.end()
    stub.may_write.set()
    reader.join(SOON)
    assert indices[-1] == 50
    assert len(indices) <= 2  # the newest, and the one that was held if the interpreter took it in time
    assert pipeline.frames + pipeline.dropped == 51


def test_a_tensor_that_waits_for_the_interpreter_is_replaced_by_a_newer_one():
    source, stub = Driven(live=True), Stub()
    pipeline, results, reader = held_in_the_first_frame(source, stub)
    assert stub.written.acquire(timeout=SOON)
    for _ in range(10):
        source.give()
        assert stub.written.acquire(timeout=SOON)
    source.end()
    stub.go.set()
    reader.join(SOON)
    assert [result.frame.index for result in results][-1] == 10
    assert pipeline.frames + pipeline.dropped == 11
    assert pipeline.frames <= 3


def test_a_live_source_that_is_slower_loses_nothing():
    source, stub = Driven(live=True), Stub()
    pipeline = Pipeline(source, stub)
    results = pipeline.results()
    for index in range(20):
        source.give()
        assert next(results).frame.index == index
    assert pipeline.dropped == 0
    results.close()


@pytest.fixture
def slow(monkeypatch):
    """Every live source counts as slow."""
    monkeypatch.setattr("edgenn_device.pipeline._SLOW", 0.0)


def prepared_by_the_caller(source, stub, pipeline, results):
    """Give frames one at a time until the caller's thread prepares them; how many that took."""
    for index in range(100):
        source.give()
        assert next(results).frame.index == index
        if stub.prepared_by != "edgenn_preprocess":
            return index + 1
    raise AssertionError("the preprocess thread prepares to the end")


def test_frames_of_a_slow_source_are_prepared_by_the_thread_that_waits_for_them(slow):
    source, stub = Driven(live=True), Stub()
    pipeline = Pipeline(source, stub)
    results = pipeline.results()
    took = prepared_by_the_caller(source, stub, pipeline, results)
    assert 16 <= took <= 18  # judged by 16 frames, then one that hands the right over
    for index in range(took, took + 20):
        source.give()
        assert next(results).frame.index == index
        assert stub.prepared_by == threading.current_thread().name
    assert pipeline.dropped == 0
    assert len(stub.tensors) <= 3
    results.close()


def test_when_frames_have_to_wait_again_they_are_prepared_ahead(slow, monkeypatch):
    source, stub = Driven(live=True), Stub()
    pipeline = Pipeline(source, stub)
    results = pipeline.results()
    prepared_by_the_caller(source, stub, pipeline, results)
    monkeypatch.setattr("edgenn_device.pipeline._SLOW", float("inf"))
    seen, before = [], source.produced
    for _ in range(6):
        source.give()
        while not pipeline._feed.waiting and not pipeline._ready:
            assert source.read_count.acquire(timeout=SOON)
        seen.append(next(results).frame.index)
    assert seen == list(range(before, before + 6))
    assert stub.prepared_by == "edgenn_preprocess"
    results.close()


@pytest.mark.parametrize("how", ["end", "fail", "stop", "rubbish"])
def test_what_ends_a_run_or_spoils_a_frame_does_so_too_when_the_caller_prepares(slow, how):
    source, stub = Driven(live=True), Stub()
    pipeline = Pipeline(source, stub)
    results = pipeline.results()
    took = prepared_by_the_caller(source, stub, pipeline, results)
    if how == "rubbish":
        source.give(b"rubbish")
        done = threading.Thread(target=lambda: (stub.refused.acquire(timeout=SOON), source.give()))
        done.start()
        assert next(results).frame.index == took + 1
        done.join(SOON)
        assert pipeline.bad == 1
        results.close()
        return
    if how == "end":
        source.end()
    elif how == "fail":
        source.fail(OSError("the camera is gone"))
    else:
        threading.Timer(0, pipeline.stop).start()
    if how == "fail":
        with pytest.raises(OSError, match="gone"):
            next(results)
    else:
        assert next(results, None) is None
    assert pipeline.frames == took


def test_a_model_is_exchanged_while_the_caller_prepares(slow):
    source, stub, other = Driven(live=True), Stub(), Stub()
    pipeline = Pipeline(source, stub)
    results = pipeline.results()
    took = prepared_by_the_caller(source, stub, pipeline, results)
    pipeline.swap(other)
    source.give()
    assert next(results).frame.index == took
    assert (other.preprocessed, stub.preprocessed) == (1, took)
    results.close()


@pytest.mark.parametrize(
    ("due_in", "waiting", "slept"),
    [
        (10.0, False, 10.0 - 1.5 * 2.0),  # the next tensor is begun when it is needed, with a head start, no earlier
        (10.0, True, 10.0),  # one is ready: until it is overdue nothing has to be done
        (2.5, False, None),  # high time
        (-1.0, True, None),  # the interpreter takes longer than expected: the tensor that waits is made anew
    ],
)
def test_of_a_live_source_preprocess_waits_its_turn(monkeypatch, due_in, waiting, slept):
    """A tensor made earlier than it is needed is stale when its turn comes, and its making took the cores' time."""
    pipeline = Pipeline(Driven(live=True), Stub())
    if waiting:
        pipeline._ready.put(None)
    monkeypatch.setattr("edgenn_device.pipeline.time.monotonic", lambda: 1000.0)
    pipeline._due = 1000.0 + due_in
    sleeps = []

    def wait(seconds):
        sleeps.append(seconds)
        pipeline._wake()  # as the interpreter does when it is done before it was expected

    monkeypatch.setattr(pipeline._idle, "wait", wait)
    pipeline._await_turn(typical=2.0)
    assert sleeps == ([] if slept is None else [pytest.approx(slept)])


@pytest.mark.parametrize("live", [True, False])
def test_preprocess_waits_its_turn_before_each_frame_of_a_live_source_only(monkeypatch, live):
    source = Driven(live=live)
    source.give()
    source.end()
    pipeline, turns = Pipeline(source, Stub()), []
    monkeypatch.setattr(pipeline, "_await_turn", turns.append)
    assert len(list(pipeline.results())) == 1
    assert len(turns) == (2 if live else 0)  # the second time it finds the end


def test_the_stages_add_up_to_the_latency():
    source, stub = Driven(live=False), Stub()
    source.give()
    source.end()
    before = time.monotonic()
    (result,) = Pipeline(source, stub).results()
    assert tuple(result.stages) == STAGES
    assert sum(result.stages.values()) == pytest.approx(result.latency, abs=1e-9)
    assert 0 < result.latency < time.monotonic() - before + 1
    assert all(seconds >= 0 for seconds in result.stages.values())


@pytest.mark.parametrize("live", [True, False])
def test_a_limit_ends_the_run_though_the_source_goes_on(live):
    source, stub = Driven(live=live), Stub()
    source.give()
    pipeline, indices = Pipeline(source, stub), []
    for result in pipeline.results(limit=3):
        indices.append(result.frame.index)
        source.give()
    assert indices == [0, 1, 2]
    assert pipeline.summary().frames == 3
    assert pipeline.summary().fps > 0
    assert source.closed.is_set()


def test_a_reader_that_goes_away_ends_everything():
    source, stub = Driven(live=True, continuous=True), Stub()
    source.give()
    results = Pipeline(source, stub).results()
    next(results)
    results.close()
    assert source.closed.is_set()


def test_an_interruption_ends_everything_and_comes_through():
    source, stub = Driven(live=False), Stub()
    for _ in range(5):
        source.give()

    def interrupted(_):
        raise KeyboardInterrupt

    stub.scores = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(Pipeline(source, stub).results())
    assert source.closed.is_set()


def test_a_source_that_hangs_does_not_hold_up_the_exit(monkeypatch):
    class Hangs(Driven):
        released = threading.Event()

        def read(self):
            if self.produced:
                self.released.wait()
                return None
            self.give()
            return super().read()

    monkeypatch.setattr("edgenn_device.pipeline._PATIENCE", 0.01)
    source = Hangs(live=True)
    try:
        assert len(list(Pipeline(source, Stub()).results(limit=1))) == 1
        (left,) = [thread for thread in threading.enumerate() if thread.name == "edgenn_capture"]
        assert left.daemon  # so it does not keep the process from ending
    finally:
        source.released.set()
        left.join(SOON)


@pytest.mark.parametrize("live", [True, False])
def test_frames_that_cannot_be_decoded_are_left_out_and_counted(live, caplog):
    source, stub = Driven(live=live), Stub()
    pipeline, images = Pipeline(source, stub), []
    reader = threading.Thread(target=lambda: images.extend(result.frame.image for result in pipeline.results()))
    reader.start()
    source.give(b"rubbish", path="photos/broken.jpg")
    assert stub.refused.acquire(timeout=SOON)
    for _ in range(9):
        source.give(b"rubbish")
        assert stub.refused.acquire(timeout=SOON)
    source.give(b"a")
    source.end()
    reader.join(SOON)
    assert images == [b"a"]
    assert (pipeline.frames, pipeline.bad, pipeline.dropped) == (1, 10, 0)
    assert "photos/broken.jpg left out: not a picture" in caplog.text


def test_what_the_source_itself_skipped_counts_as_bad():
    source = Driven(live=False)
    source.skipped = 2
    source.give(b"rubbish")
    source.end()
    pipeline = Pipeline(source, Stub())
    assert list(pipeline.results()) == []
    assert pipeline.summary().bad == 3
    assert pipeline.summary().fps == 0


@pytest.mark.parametrize("error", [EdgennError("the camera burns"), ZeroDivisionError("a defect")])
def test_an_error_of_the_source_surfaces_after_the_frames_before_it(error):
    source, stub = Driven(live=False), Stub()
    source.give()
    source.fail(error)
    results = Pipeline(source, stub).results()
    assert next(results).frame.index == 0
    with pytest.raises(type(error), match=str(error)):
        next(results)
    assert source.closed.is_set()


def test_a_defect_in_the_preprocess_thread_surfaces():
    source = Driven(live=False)
    source.give(b"defect")
    with pytest.raises(ZeroDivisionError):
        list(Pipeline(source, Stub()).results())


def test_a_source_that_does_not_open_is_closed_and_starts_no_thread():
    source = Driven(live=True)

    def refuses():
        raise EdgennError("there is no camera")

    source.open = refuses
    pipeline = Pipeline(source, Stub())
    with pytest.raises(EdgennError, match="no camera"):
        next(pipeline.results())
    assert source.closed.is_set()
    assert not pipeline.opened


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(EdgennError, match="limit"):
        next(Pipeline(Driven(live=False), Stub()).results(limit))


def test_a_pipeline_runs_once():
    source = Driven(live=False)
    source.end()
    pipeline = Pipeline(source, Stub())
    assert list(pipeline.results()) == []
    with pytest.raises(RuntimeError, match="once"):
        next(pipeline.results())


SHIRT, JACKET = np.array([0.1, 0.9], np.float32), np.array([0.9, 0.1], np.float32)


@pytest.mark.parametrize(
    ("continuous", "labels"),
    [
        (True, ["shirt", "shirt"]),  # a camera: one frame does not turn the label
        (False, ["shirt", "jacket"]),  # pictures: each speaks for itself
    ],
)
def test_scores_are_averaged_only_where_frames_follow_each_other(continuous, labels):
    source, stub = Driven(live=False, continuous=continuous), Stub()
    stub.given = [SHIRT, JACKET, JACKET]
    for _ in labels:
        source.give()
    source.end()
    assert [result.classification.label for result in Pipeline(source, stub).results()] == labels


def test_a_film_that_is_read_fast_is_averaged_over_its_own_time():
    source, stub = Driven(live=False, continuous=True), Stub()
    stub.given = [SHIRT, JACKET, JACKET]
    source.give(moment=0.0)
    source.give(moment=10.0)
    source.give(moment=20.0)
    source.end()
    labels = [result.classification.label for result in Pipeline(source, stub).results()]
    assert labels == ["shirt", "shirt", "jacket"]  # as the average has it from the second on, and twice in a row


def test_a_label_that_holds_against_the_highest_score_has_its_own_confidence():
    source, stub = Driven(live=False, continuous=True), Stub()
    stub.given = [np.array([0.5, 0.5], np.float32), np.array([0.48, 0.52], np.float32), SHIRT]
    source.give()
    source.give()
    source.end()
    decision = Decision(LABELS, half_life=1e-9)
    _, second = Pipeline(source, stub, decision).results()
    assert second.classification.label == "jacket"
    assert second.classification.confidence == pytest.approx(0.48)
    assert second.classification.top[0] == ("shirt", pytest.approx(0.52))


def test_the_minimum_confidence_of_the_card_is_kept():
    card = Card("test", LABELS, InputSpec(2, 2), minimum_confidence=0.8)
    source = Driven(live=False)
    source.give()
    source.end()
    (result,) = Pipeline(source, Stub(card)).results()
    assert result.classification.label == "unknown"
    assert result.classification.top[0][0] == "shirt"


def test_a_channel_that_is_closed_ends_both_sides():
    channel: Channel[int] = Channel(1, newest_wins=False)
    channel.put(1)
    ended = []

    def put():
        try:
            channel.put(2)
        except Ended:
            ended.append("put")

    blocked = threading.Thread(target=put)
    blocked.start()
    channel.close()
    blocked.join(SOON)
    with pytest.raises(Ended):
        channel.get()
    assert ended == ["put"]
