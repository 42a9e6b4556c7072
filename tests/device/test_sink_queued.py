"""Behind a queue: the pipeline never waits, what fails is tried again, what is lost is counted."""

from __future__ import annotations

import errno
import logging
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_samples import event, result, until

from edgenn_device.errors import EdgennError
from edgenn_device.events import Event
from edgenn_device.sinks import queued
from edgenn_device.sinks.base import Sink
from edgenn_device.sinks.queued import Queued, back_off


class Notes(Sink):
    """Writes down what it is called with, and by which thread; fails as often as it is told to."""

    name = "notes"

    def __init__(self, *, pictures: bool = False) -> None:
        self.pictures = pictures
        self.calls: list[tuple[str, object]] = []
        self.threads: set[int] = set()
        self.failures: dict[str, list[Exception]] = {}
        self.said: dict[str, object] = {}

    def _note(self, what: str, value: object = None) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append((what, value))
        if self.failures.get(what):
            raise self.failures[what].pop(0)

    def open(self) -> None:
        self._note("open")

    def write(self, result) -> None:
        self._note("write", result.frame.index)

    def event(self, event: Event) -> None:
        self._note("event", event.id)

    def finish(self, summary) -> None:
        self._note("finish", dict(summary))

    def close(self) -> None:
        self._note("close")

    def state(self):
        return self.said

    def names(self):
        return [name for name, _ in self.calls]


class Stuck(Notes):
    """Blocks for ever in the method of that name."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.entered = threading.Event()
        self.released = threading.Event()

    def _note(self, what: str, value: object = None) -> None:
        super()._note(what, value)
        if what == self.method:
            self.entered.set()
            self.released.wait()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(queued, "_SHORTEST_WAIT", 0.002)
    monkeypatch.setattr(queued, "_LONGEST_WAIT", 0.01)


def test_one_thread_calls_the_sink_in_the_order_in_which_things_came():
    sink = Notes()
    with Queued(sink) as ours:
        ours.write(result(0))
        ours.event(event(1))
        ours.write(result(1))
        ours.event(event(1, ended=True))
        ours.finish({"frames": 2})
    assert sink.calls == [
        ("open", None),
        ("write", 0),
        ("event", event(1).id),
        ("write", 1),
        ("event", event(1).id),
        ("finish", {"frames": 2}),
        ("close", None),
    ]
    assert len(sink.threads) == 1
    assert threading.get_ident() not in sink.threads
    assert ours.state() == {
        "error": None,
        "queued": {"results": 0, "events": 0},
        "dropped": {"results": 0, "events": 0},
    }


@pytest.mark.parametrize("method", ["open", "write", "event"])
def test_a_sink_that_never_returns_stalls_nobody(method, monkeypatch):
    monkeypatch.setattr(queued, "_OPENING", 0.05)
    monkeypatch.setattr(queued, "_PATIENCE", 0.05)
    sink = Stuck(method)
    ours = Queued(sink, results=10, events=20)

    def run():
        with ours:
            ours.write(result(0))
            ours.event(event(0))
            assert sink.entered.wait(20)
            for index in range(1, 200):
                ours.write(result(index))
                ours.event(event(index))
            ours.finish({})

    pipeline = threading.Thread(target=run, daemon=True)
    pipeline.start()
    pipeline.join(20)
    alive = pipeline.is_alive()
    state = ours.state()
    sink.released.set()
    assert not alive
    # All but what the sink had taken before it got stuck.
    assert state["queued"] == {"results": 0, "events": 0}
    assert 199 <= state["dropped"]["results"] <= 200
    assert 199 <= state["dropped"]["events"] <= 200


def test_of_results_the_newest_win_and_the_others_are_counted():
    sink = Stuck("open")
    ours = Queued(sink, results=3)
    ours._thread.start()
    assert sink.entered.wait(20)
    for index in range(10):
        ours.write(result(index))
    assert ours.state()["queued"]["results"] == 3
    assert ours.state()["dropped"] == {"results": 7, "events": 0}
    sink.released.set()
    until(lambda: sink.calls[1:] == [("write", 7), ("write", 8), ("write", 9)])
    ours.close()


def test_a_queue_holds_no_pictures_unless_the_sink_looks_at_them():
    seen = {}

    class Looks(Notes):
        def write(self, result):
            seen[self.pictures] = result.frame.image

    picture = np.ones((8, 8, 3), np.uint8)
    for pictures in (False, True):
        with Queued(Looks(pictures=pictures)) as ours:
            ours.write(result(image=picture))
    assert seen == {False: b"", True: picture}


@pytest.mark.parametrize("what", ["write", "event"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), EdgennError("the disk is gone")])
def test_what_fails_is_closed_opened_anew_and_tried_again(what, error, caplog):
    sink = Notes()
    sink.failures = {what: [error] * 3}
    with Queued(sink) as ours:
        ours.write(result(7)) if what == "write" else ours.event(event(7))
        until(lambda: sink.names().count(what) == 4)
        ours.write(result(8))
        until(lambda: ("write", 8) in sink.calls)
    assert sink.names()[:11] == ["open", what, *["close", "open", what] * 3]
    assert ours.state()["error"] is None
    assert ours.state()["dropped"] == {"results": 0, "events": 0}
    # Said once when it begins, and once when it is over.
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("notes: ")
    assert "trying again" in said[0]
    assert "works again" in said[1]


def test_the_state_says_what_is_wrong_while_it_is():
    sink = Notes()
    sink.failures = {"write": [OSError(errno.EROFS, "Read-only file system", "/data/events.csv")] * 10_000}
    ours = Queued(sink)
    with ours:
        ours.write(result())
        until(lambda: ours.state()["error"] == "/data/events.csv: Read-only file system")
        sink.failures.clear()
        until(lambda: ours.state()["error"] is None)
    # What the sink knows by itself is shown too.
    sink.said = {"error": "no broker", "waiting": 3}
    assert ours.state() | {"error": "no broker", "waiting": 3} == ours.state()


def test_a_sink_that_cannot_say_how_it_is_harms_nobody():
    class Mute(Notes):
        def state(self):
            raise KeyError("queue")

    assert "KeyError" in Queued(Mute()).state()["error"]


def test_events_come_through_a_long_fault_in_order_and_once():
    sink = Notes()
    sink.failures = {"event": [OSError("away")] * 8, "open": [OSError("still away")] * 5}
    with Queued(sink) as ours:
        for number in range(30):
            ours.event(event(number))
        until(lambda: sink.names().count("event") == 38)
    taken = [value for name, value in sink.calls if name == "event"]
    assert taken[8:] == [event(number).id for number in range(30)]


def test_a_request_that_cannot_work_is_refused_at_once():
    sink = Notes()
    sink.failures = {"open": [EdgennError("it is a folder: name a file")]}
    with pytest.raises(EdgennError, match="name a file"), Queued(sink):
        pass
    assert sink.names() == ["open"]


@pytest.mark.parametrize("kind", [IsADirectoryError, NotADirectoryError, FileExistsError])
def test_a_folder_where_a_file_should_be_and_the_other_way_round_are_refused(kind):
    sink = Notes()
    sink.failures = {"open": [kind(1, "Not a directory", "/file/events.db")]}
    with pytest.raises(EdgennError, match=r"^/file/events\.db: Not a directory: name another place$"), Queued(sink):
        pass
    assert sink.names() == ["open"]


def test_a_disk_that_is_full_at_the_start_is_no_reason_not_to_run():
    sink = Notes()
    sink.failures = {"open": [OSError(errno.ENOSPC, "No space left on device")] * 3}
    with Queued(sink) as ours:
        ours.write(result(5))
        until(lambda: ("write", 5) in sink.calls)
    assert sink.names()[:7] == ["open", "close"] * 3 + ["open"]


def test_a_defect_in_a_sink_costs_what_it_met_and_no_more(caplog):
    sink = Notes()
    sink.failures = {"event": [ZeroDivisionError("division by zero")]}
    with caplog.at_level(logging.ERROR), Queued(sink) as ours:
        ours.event(event(0))
        until(lambda: ours.state()["dropped"]["events"] == 1)
        assert "division by zero" in ours.state()["error"]
        ours.event(event(1))
        until(lambda: ("event", event(1).id) in sink.calls)
    assert sink.names() == ["open", "event", "event", "close"]
    assert ours.state()["error"] is None
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None


def test_the_end_waits_for_what_is_queued_but_not_for_a_fault_that_lasts(monkeypatch, caplog):
    monkeypatch.setattr(queued, "_PATIENCE", 0.1)
    sink = Notes()
    sink.failures = {"event": [OSError("away")] * 10_000}
    with Queued(sink) as ours:
        for number in range(5):
            ours.event(event(number))
    assert ours.state()["dropped"]["events"] == 5
    assert "5 events not written" in caplog.text
    assert sink.names()[-1] == "close"
    assert "finish" not in sink.names()


def test_several_sinks_that_hang_end_together(monkeypatch):
    monkeypatch.setattr(queued, "_PATIENCE", 0.2)
    sinks = [Stuck("write") for _ in range(10)]
    ours = [Queued(sink) for sink in sinks]
    for each in ours:
        each.__enter__()
        each.write(result())
    assert all(sink.entered.wait(20) for sink in sinks)
    for each in ours:
        each.finish({})
    deadlines = [each._deadline for each in ours]
    for each in ours:
        each.close()
    # The seconds of all run from `finish`, so closing one after the other does not add them up.
    assert max(deadlines) - min(deadlines) < 0.2
    assert [each._deadline for each in ours] == deadlines
    for sink in sinks:
        sink.released.set()


def test_closing_what_was_never_entered_is_harmless():
    Queued(Notes()).close()


def test_back_off_doubles_with_jitter_up_to_its_longest(monkeypatch):
    monkeypatch.undo()
    for attempt in (0, 1, 3, 5, 6, 100, 100_000):
        longest = min(4.0, 0.1 * 2 ** min(attempt, 60))
        waits = [back_off(attempt) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
    # A fault that ends just after an attempt is over within 5 s all the same.
    assert queued._LONGEST_WAIT < 5


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["write", "event"]), max_size=40),
    st.lists(st.sampled_from(["open", "write", "event"]), max_size=10),
    st.integers(1, 8),
)
def test_nothing_is_lost_without_being_counted(calls, failures, room):
    sink = Notes()
    for failure in failures:
        sink.failures.setdefault(failure, []).append(OSError("away"))
    with Queued(sink, results=room, events=room) as ours:
        for number, call in enumerate(calls):
            ours.write(result(number)) if call == "write" else ours.event(event(number))
        ours.finish({})
    state = ours.state()
    for call, kind in (("write", "results"), ("event", "events")):
        failed = failures.count(call) - len(sink.failures.get(call, []))
        taken = [value for name, value in sink.calls if name == call]
        assert len(taken) - failed + state["dropped"][kind] == calls.count(call)
        assert len(set(taken)) == len(taken) - failed
    assert state["queued"] == {"results": 0, "events": 0}


def test_threads_end_with_their_sinks():
    before = threading.active_count()
    for _ in range(20):
        with Queued(Notes()) as ours:
            ours.write(result())
    until(lambda: threading.active_count() <= before)
