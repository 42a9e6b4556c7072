"""Events in SQLite: neither lost nor doubled whatever happens to the process, readable meanwhile, bounded in size."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_samples import ABOUT, event, result, until

from edgenn_device.errors import EdgennError
from edgenn_device.events import Events
from edgenn_device.sinks import Queued, sqlite
from edgenn_device.sinks.sqlite import SqliteEvents


def table(path, columns="id, label, ended, interrupted"):
    database = sqlite3.connect(path)
    try:
        return database.execute(f"SELECT {columns} FROM events ORDER BY id").fetchall()
    finally:
        database.close()


def test_an_event_stands_there_with_all_that_is_known_of_it(tmp_path):
    path = tmp_path / "new" / "events.db"
    with SqliteEvents(path, ABOUT) as sink:
        sink.event(event(1, thumbnail=b"first"))
        assert table(path) == [(event(1).id, "shirt", None, 0)]
        sink.event(event(1, ended=True, thumbnail=b"best"))
        # Said twice is said once: after a fault the same event comes again.
        sink.event(event(1, ended=True, thumbnail=b"best"))
        sink.event(event(1, thumbnail=b"first"))
    everything = "label, confidence, started, ended, seen, frames, interrupted, device, model, source, thumbnail"
    started = event(1).started
    assert table(path, everything) == [
        ("shirt", 0.9, started, started + 10, started + 10, 300, 0, "porch", "garments", "camera 0", b"best")
    ]


def test_a_picture_that_could_not_be_drawn_again_leaves_the_earlier_one(tmp_path):
    with SqliteEvents(tmp_path / "events.db", ABOUT) as sink:
        sink.event(event(1, thumbnail=b"first"))
        sink.event(event(1, ended=True, thumbnail=None))
    assert table(tmp_path / "events.db", "thumbnail") == [(b"first",)]


def test_what_was_open_when_the_process_died_is_closed_with_when_it_was_last_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_SEEN_EVERY", 0.0)
    path = tmp_path / "events.db"
    sink = SqliteEvents(path, ABOUT)
    sink.open()
    sink.event(event(1))
    sink.event(event(1, ended=True))
    sink.write(result(9, "jacket", time=50.0))
    # The result that makes it begin comes before it.
    sink.write(result(10, "shirt", 0.95, time=100.0))
    sink.event(event(2))
    for index in range(1, 5):
        sink.write(result(10 + index, "shirt", 0.95, time=100.0 + index))
    # Of another label: the end of it, which was not told any more.
    sink.write(result(15, "jacket", time=105.0))
    sink._database.close()
    os.close(sink._lock)  # as the system does for a process that is killed

    with SqliteEvents(path, ABOUT):
        pass
    first, second = table(path, "ended - started, frames, interrupted, confidence")
    assert first == (10, 300, 0, 0.9)
    assert second == (4, 5, 1, 0.95)


def test_a_file_opened_anew_after_a_fault_goes_on_with_its_open_event(tmp_path):
    path = tmp_path / "events.db"
    with SqliteEvents(path, ABOUT) as sink:
        sink.event(event(1))
        sink.close()
        sink.open()
        assert table(path) == [(event(1).id, "shirt", None, 0)]
        sink.event(event(1, ended=True))
    assert table(path, "frames, interrupted") == [(300, 0)]


def test_an_end_that_never_came_is_made_up_for_when_the_next_begins(tmp_path):
    with SqliteEvents(tmp_path / "events.db", ABOUT) as sink:
        sink.event(event(1))
        sink.event(event(2))
    assert table(tmp_path / "events.db", "ended IS NULL, interrupted") == [(0, 1), (1, 0)]


def run_until_killed(path, first, acknowledge):
    """Write events for ever; report each to the parent once it is written."""
    with SqliteEvents(path, ABOUT) as sink:
        number = first
        while True:
            sink.event(event(number, thumbnail=os.urandom(3000)))
            os.write(acknowledge, f"b{number}\n".encode())
            sink.write(result(number))
            sink.event(event(number, ended=True, thumbnail=os.urandom(3000)))
            os.write(acknowledge, f"e{number}\n".encode())
            number += 1


def test_sigkill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path):
    path = tmp_path / "events.db"
    random.seed(7)
    acknowledged, kills = [], 0
    end = time.monotonic() + 6
    while kills < 60 and time.monotonic() < end:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                run_until_killed(path, 1000 * kills, write)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as reports:
            # Somewhere from before the file is open to within one of the first dozen events.
            for _ in range(random.randrange(12)):
                acknowledged.append(reports.readline().strip())
            time.sleep(random.random() * 0.004)
            os.kill(child, signal.SIGKILL)
            acknowledged += [line.strip() for line in reports]
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert kills >= 10
    with SqliteEvents(path, ABOUT):
        pass

    found = {int(id[:14], 16): (ended, interrupted) for id, _, ended, interrupted in table(path)}
    assert len(found) == len(table(path))
    begun = {int(line[1:]) for line in acknowledged if line.startswith("b")}
    ended = {int(line[1:]) for line in acknowledged if line.startswith("e")}
    assert begun <= found.keys()
    assert all(found[number][1] == 0 for number in ended)
    assert all(when is not None for when, _ in found.values())
    # What was written but not yet reported: at most one for each kill.
    assert len(found.keys() - begun) <= kills
    assert sum(interrupted for _, interrupted in found.values()) <= kills
    assert len(ended) > kills


def test_an_event_is_on_the_disk_when_it_has_been_taken(tmp_path):
    with SqliteEvents(tmp_path / "events.db", ABOUT) as sink:
        (mode,) = sink._database.execute("PRAGMA synchronous").fetchone()
        assert mode == 2  # FULL: https://www.sqlite.org/pragma.html#pragma_synchronous
        sink.event(event(1))
        assert not sink._database.in_transaction


def test_other_processes_read_while_it_is_written(tmp_path):
    path = tmp_path / "events.db"
    question = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)\n"
        "print(database.execute('SELECT count(*), sum(ended IS NULL) FROM events').fetchone(), flush=True)\n"
        # And holds on to what it sees.
        "database.execute('BEGIN'); database.execute('SELECT * FROM events').fetchone()\n"
        "sys.stdin.read()\n"
    )
    with SqliteEvents(path, ABOUT) as sink:
        sink.event(event(1, ended=True))
        sink.event(event(2))
        reader = subprocess.Popen(
            [sys.executable, "-c", question, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert reader.stdout.readline().strip() == "(2, 1)"
        sink.event(event(2, ended=True))
        sink.event(event(3))
        sink._prune(sink._database)
        reader.communicate()
    assert len(table(path)) == 3


def test_a_lock_of_somebody_else_delays_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_BUSY", 0.01)
    path = tmp_path / "events.db"
    sink = Queued(SqliteEvents(path, ABOUT))
    with sink:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        sink.event(event(1))
        sink.event(event(1, ended=True))
        until(lambda: sink.state()["error"])
        assert "locked" in sink.state()["error"] or "busy" in sink.state()["error"]
        other.execute("ROLLBACK")
        other.close()
        until(lambda: sink.state()["error"] is None)
    assert table(path, "interrupted, frames") == [(0, 300)]


def test_a_second_run_on_the_same_file_is_refused(tmp_path):
    path = tmp_path / "events.db"
    with SqliteEvents(path, ABOUT) as sink:
        sink.event(event(1))
        with pytest.raises(EdgennError, match=r"another run writes to .*: give each a file of its own"):
            Queued(SqliteEvents(path, ABOUT)).open()
        # And has not closed the event of the first.
        assert table(path) == [(event(1).id, "shirt", None, 0)]


def aged(number, days):
    return dataclasses.replace(
        event(number, ended=True), started=time.time() - days * 86400 - 10, ended=time.time() - days * 86400
    )


def test_events_are_kept_for_a_month_or_as_long_as_was_said(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "events.db"
    with SqliteEvents(path, ABOUT) as sink:
        for number, days in enumerate((40, 31.01, 30.99, 3, 0)):
            sink.event(aged(number, days))
    with SqliteEvents(path, ABOUT):
        pass
    assert [int(id[:14], 16) for id, *_ in table(path)] == [2, 3, 4]
    with SqliteEvents(path, ABOUT, days=2):
        pass
    assert [int(id[:14], 16) for id, *_ in table(path)] == [4]
    # A clock that was months ahead took them: the journal says so.
    said = [re.sub(r"before [\d: -]+ are", "before … are", line) for line in caplog.messages]
    assert said == [f"sqlite:{path}: {removed} events that ended before … are removed" for removed in (2, 2)]


def test_old_events_go_while_it_runs_and_the_file_shrinks(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_PRUNE_AFTER", 50)
    path = tmp_path / "events.db"
    with SqliteEvents(path, ABOUT, days=1) as sink:
        for number in range(49):
            sink.event(dataclasses.replace(aged(number, 2), thumbnail=os.urandom(20_000)))
        full = path.stat().st_size + path.with_name("events.db-wal").stat().st_size
        sink.event(event(100))
        assert len(table(path)) == 1
        assert path.stat().st_size < 100_000 < full
        assert path.with_name("events.db-wal").stat().st_size == 0


def test_a_flickering_label_does_not_fill_the_disk(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sqlite, "_PRUNE_AFTER", 25)
    largest, path = 500_000, tmp_path / "events.db"
    sizes = []
    with SqliteEvents(path, ABOUT, largest=largest) as sink:
        for number in range(400):
            sink.event(event(number))
            sink.event(dataclasses.replace(event(number, ended=True), thumbnail=os.urandom(10_000)))
            sizes.append(path.stat().st_size)
    kept = [int(id[:14], 16) for id, *_ in table(path)]
    # The newest, without a gap, and never much more than allowed.
    assert kept == list(range(kept[0], 400))
    assert len(kept) > 20
    assert max(sizes) < largest + 25 * 20_000
    assert path.stat().st_size <= largest + 25 * 20_000
    removed = [int(re.search(r"the oldest (\d+) events are removed", line)[1]) for line in caplog.messages]
    assert sum(removed) == kept[0] > 0


@pytest.mark.parametrize(
    ("statements", "line"),
    [
        (["CREATE TABLE notes (text)"], "is a database of something else"),
        ([f"PRAGMA application_id = {sqlite._APPLICATION}", "PRAGMA user_version = 9"], "by a newer edgenn .schema 9."),
    ],
)
def test_somebody_elses_database_is_left_alone(statements, line, tmp_path):
    path = tmp_path / "events.db"
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(EdgennError, match=line), Queued(SqliteEvents(path, ABOUT)):
        pass
    assert path.read_bytes() == before


def test_a_photo_is_no_database(tmp_path):
    path = tmp_path / "shirt.jpg"
    path.write_bytes(b"\xff\xd8" + os.urandom(5000))
    before = path.read_bytes()
    with pytest.raises(EdgennError, match="is no SQLite database: name a new file"), Queued(SqliteEvents(path, ABOUT)):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("blank", [100, None])  # its beginning, and all of it
def test_zeros_in_place_of_a_database_are_set_aside(blank, tmp_path, caplog):
    path = tmp_path / "events.db"
    with SqliteEvents(path, ABOUT) as sink:
        sink.event(event(1, ended=True))
    with path.open("r+b") as file:
        file.write(bytes(blank or path.stat().st_size))
    sink = Queued(SqliteEvents(path, ABOUT))
    with sink:
        sink.event(event(500))
        sink.event(event(500, ended=True))
    assert [int(id[:14], 16) for id, *_ in table(path)] == [500]
    assert not any(path.with_name("events.db.broken").read_bytes()[: blank or -1])
    assert "set aside as events.db.broken" in caplog.text


def test_a_file_that_the_card_has_damaged_is_set_aside_and_a_new_one_begun(tmp_path, caplog):
    path = tmp_path / "events.db"
    with SqliteEvents(path, ABOUT) as sink:
        for number in range(100):
            sink.event(event(number, ended=True, thumbnail=os.urandom(1000)))
    with path.open("r+b") as file:
        # All but the first page, which says that it is a database, and what it holds.
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    sink = Queued(SqliteEvents(path, ABOUT))
    with sink:
        sink.event(event(500))
        sink.event(event(500, ended=True))
        until(lambda: sink.state()["error"] is None and path.exists() and len(table(path)) == 1)
    assert table(path) == [(event(500).id, "shirt", event(500, ended=True).ended, 0)]
    assert path.with_name("events.db.broken").stat().st_size > 100_000
    assert "set aside as events.db.broken" in caplog.text


def test_the_note_of_when_it_was_seen_does_not_wear_the_card_out(tmp_path):
    with SqliteEvents(tmp_path / "events.db", ABOUT) as sink:
        sink.event(event(1))
        before = sink._database.total_changes
        for index in range(300):
            sink.write(result(index))
        assert sink._database.total_changes == before


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["shirt", "jacket", "restart", "fault"]), max_size=40))
def test_the_table_is_what_happened(tmp_path_factory, happenings):
    path = tmp_path_factory.mktemp("events") / "events.db"
    sink, taker, expected = SqliteEvents(path, ABOUT), Events(), []
    sink.open()
    for index, happening in enumerate(happenings):
        if happening == "restart":
            sink.close()
            sink, taker = SqliteEvents(path, ABOUT), Events()
            sink.open()
        elif happening == "fault":
            sink.close()
            sink.open()
        else:
            frame = result(index, happening, image=b"")
            sink.write(frame)
            for change in taker.take(frame):
                sink.event(change)
                if change.ended is None:
                    expected.append((change.id, happening))
    for change in taker.end():
        sink.event(change)
    sink.close()
    with SqliteEvents(path, ABOUT):
        pass
    assert [(id, label) for id, label, _, _ in table(path)] == sorted(expected)
    assert all(ended is not None for _, _, ended, _ in table(path))
