"""Results become events: every frame in exactly one, with times that add up and the best picture."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_samples import result

from edgenn_device import events
from edgenn_device.events import Events, thumbnail


def changes(*labels_and_times, taker=None):
    taker = taker or Events()
    return [
        [(event.label, event.ended is not None) for event in taker.take(result(index, label, time=time))]
        for index, (label, time) in enumerate(labels_and_times)
    ] + [[(event.label, event.ended is not None) for event in taker.end()]]


BEGAN, ENDED = False, True


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        # One label throughout: one begin, one end.
        (
            [("shirt", 1.0), ("shirt", 1.1)],
            [[("shirt", BEGAN)], [], [("shirt", ENDED)]],
        ),
        # A change: first the end, then the begin.
        (
            [("shirt", 1.0), ("jacket", 1.1)],
            [[("shirt", BEGAN)], [("shirt", ENDED), ("jacket", BEGAN)], [("jacket", ENDED)]],
        ),
        # "unknown" is a label like the others.
        (
            [("unknown", 1.0), ("shirt", 1.1)],
            [[("unknown", BEGAN)], [("unknown", ENDED), ("shirt", BEGAN)], [("shirt", ENDED)]],
        ),
        # The camera was away for longer than anybody can vouch for the scene.
        (
            [("shirt", 1.0), ("shirt", 100.0)],
            [[("shirt", BEGAN)], [("shirt", ENDED), ("shirt", BEGAN)], [("shirt", ENDED)]],
        ),
        # Nothing came.
        ([], [[]]),
    ],
)
def test_what_begins_and_ends_when(frames, expected):
    assert changes(*frames) == expected


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["shirt", "jacket", "unknown"]),
            # Steps between frames: mostly a camera's, sometimes none, back (a faulty source), or a long gap.
            st.sampled_from([1 / 30, 1 / 30, 0.2, 0.0, -0.5, 60.0]),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_every_frame_belongs_to_exactly_one_event(frames):
    taker = Events()
    now, first, latest, gaps = 1000.0, 0.0, 0.0, 0.0
    taken = []
    for index, (label, step, confidence) in enumerate(frames):
        now += step
        # What the clock of the frames says, without its steps back.
        if index and now - latest > 10:
            gaps += now - latest
        first = now if index == 0 else first
        latest = now if index == 0 else max(latest, now)
        taken += taker.take(result(index, label, confidence, time=now, image=b""))
    taken += taker.end()
    assert taker.end() == []

    begun = [event for event in taken if event.ended is None]
    ended = [event for event in taken if event.ended is not None]
    assert [event.id for event in begun] == [event.id for event in ended]
    assert len({event.id for event in begun}) == len(begun)
    assert sum(event.frames for event in ended) == len(frames)
    # By label, the frames of its events are the frames that had it, in order, and the highest confidence is kept.
    position = 0
    for event in ended:
        own = frames[position : position + event.frames]
        position += event.frames
        assert {label for label, _, _ in own} == {event.label}
        assert event.confidence == max(confidence for _, _, confidence in own)
    assert all(event.ended >= event.started for event in ended)
    total = sum(event.ended - event.started for event in ended)
    assert total == pytest.approx(latest - first - gaps, abs=1e-3)
    for before, after in itertools.pairwise(ended):
        # One begins where the one before ended, unless nobody was looking in between.
        assert after.started - before.ended == pytest.approx(0, abs=1e-6) or after.started - before.ended > 10


def test_ids_sort_by_start_and_differ_between_devices():
    here, there = Events(), Events()
    frames = [result(index, "ab"[index % 2], time=1000.0 + index / 1000) for index in range(50)]
    ids = [event.id for frame in frames for event in here.take(frame) if event.ended is None]
    assert ids == sorted(ids)
    assert len(set(ids)) == 50
    others = {event.id for frame in frames for event in there.take(frame)}
    assert not others & set(ids)


def test_a_clock_that_is_set_leaves_durations_alone_and_is_followed_by_the_next(monkeypatch):
    monkeypatch.setattr(events, "_offset", lambda: 1_700_000_000.0)
    taker = Events()
    taker.take(result(0, "shirt", time=10.0))
    # NTP finds that it is an hour earlier than thought.
    monkeypatch.setattr(events, "_offset", lambda: 1_700_000_000.0 - 3600)
    ended, begun = taker.take(result(1, "jacket", time=14.0))
    assert (ended.started, ended.ended) == (1_700_000_010.0, 1_700_000_014.0)
    assert begun.started == 1_700_000_014.0 - 3600
    # It is half a second off now, which is drift: events stay joined.
    monkeypatch.setattr(events, "_offset", lambda: 1_700_000_000.5 - 3600)
    ended, begun = taker.take(result(2, "shirt", time=15.0))
    assert ended.ended == begun.started


def test_the_thumbnail_is_of_the_frame_with_the_highest_confidence():
    def plain(value):
        return np.full((480, 640, 3), value, np.uint8)

    taker = Events()
    taker.take(result(0, confidence=0.5, image=plain(0)))
    taker.take(result(1, confidence=0.9, image=plain(200)))
    taker.take(result(2, confidence=0.7, image=plain(100)))
    (ended,) = taker.end()
    picture = cv2.imdecode(np.frombuffer(ended.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (240, 320, 3)
    assert abs(int(picture.mean()) - 200) <= 2


def jpeg(height, width):
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (np.zeros((1080, 1920, 3), np.uint8), (180, 320)),  # pixels
        (np.zeros((1920, 1080, 3), np.uint8), (320, 180)),  # upright
        (np.zeros((96, 96, 3), np.uint8), (96, 96)),  # a small stream is not made larger
        (np.zeros((3, 4000, 3), np.uint8), (1, 320)),  # a side is never 0
        (jpeg(1080, 1920), (180, 320)),  # as the camera sent it
        (jpeg(200, 100), (200, 100)),
    ],
)
def test_a_thumbnail_is_a_small_jpeg(image, size):
    data = thumbnail(image)
    assert data.startswith(b"\xff\xd8")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == size


@pytest.mark.parametrize("image", [b"", b"no picture", jpeg(64, 64)[:100], np.zeros((0, 0, 3), np.uint8)])
def test_what_is_no_picture_has_no_thumbnail_and_is_an_event_all_the_same(image):
    assert thumbnail(image) is None
    (begun,) = Events().take(result(image=image))
    assert begun.thumbnail is None


def test_a_thumbnail_is_drawn_on_a_change_only(monkeypatch):
    drawn = []
    monkeypatch.setattr(events, "thumbnail", lambda image: drawn.append(image) or b"jpeg")
    taker = Events()
    for index in range(100):
        taker.take(result(index, confidence=index / 100))
    assert len(drawn) == 1
    taker.end()
    assert len(drawn) == 2
    # And not again for what has been drawn already.
    taker.take(result(100, confidence=0.9))
    taker.take(result(101, confidence=0.5))
    assert taker.end()[0].thumbnail == b"jpeg"
    assert len(drawn) == 3
