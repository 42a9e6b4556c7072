"""The spool against real files, real full disks and real SIGKILLs."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn_device.errors import EdgennError
from edgenn_device.sinks.spool import Spool, state_folder

DEVICE = Path(__file__).parents[2] / "device"


def ids(spool: Spool) -> list[str]:
    return [id for id, _ in spool.pending()]


def run(code: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(DEVICE)},
        text=True,
        **options,
    )


def test_entries_come_back_in_order_until_they_are_done(tmp_path):
    path = tmp_path / "new" / "spool.db"
    spool = Spool(path)
    for id in "abc":
        spool.put(id, id.encode() * 2)
    assert spool.pending(1) == [("a", b"aa")]
    spool.done("a")
    spool.close()
    spool = Spool(path)
    assert spool.pending() == [("b", b"bb"), ("c", b"cc")]
    assert len(spool) == 2
    spool.done("never put")
    assert len(spool) == 2
    spool.close()


def test_an_id_that_waits_is_not_put_twice(tmp_path):
    spool = Spool(tmp_path / "spool.db")
    spool.put("a", b"first")
    spool.put("a", b"second")
    assert spool.pending() == [("a", b"first")]
    spool.close()


def test_the_oldest_make_room_and_are_counted(tmp_path):
    spool = Spool(tmp_path / "spool.db", limit=3)
    for number in range(10):
        spool.put(f"{number}", b"")
    assert ids(spool) == ["7", "8", "9"]
    assert spool.dropped == 7
    spool.close()


def test_two_processes_do_not_share_a_spool(tmp_path):
    spool = Spool(tmp_path / "spool.db")
    code = "import sys; from edgenn_device.sinks.spool import Spool; Spool(sys.argv[1])"
    _, complaint = run(code, tmp_path / "spool.db", stderr=subprocess.PIPE).communicate(timeout=30)
    assert "in use by another edgenn" in complaint
    with pytest.raises(EdgennError, match="device name"):
        Spool(tmp_path / "spool.db")
    spool.close()
    Spool(tmp_path / "spool.db").close()


PUT_FOR_EVER = """
import itertools, sys
from edgenn_device.sinks.spool import Spool
spool = Spool(sys.argv[1])
first = int(sys.argv[2])
for number in itertools.count(first):
    spool.put(f"{number}", b"x" * 100)
    print(number, flush=True)
"""


def test_nothing_that_was_put_is_lost_by_sigkill(tmp_path):
    path = tmp_path / "spool.db"
    seeded = random.Random(1)
    first = 0
    for _ in range(4):
        process = run(PUT_FOR_EVER, path, first, stdout=subprocess.PIPE)
        for _ in range(seeded.randrange(1, 40)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        spool = Spool(path)
        there = ids(spool)
        spool.close()
        # All in order, up to the last that was told, and perhaps the one that was under way.
        assert there == [f"{number}" for number in range(len(there))]
        assert len(there) >= (int(rest[-1]) + 1 if rest else first + 1)
        first = len(there)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"this is no database, and long enough to be taken for one" * 100,  # another file under our name
        b"SQLite format 3\x00" + os.urandom(8192),  # a header and then noise, as a worn card gives
    ],
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path, rubbish):
    path = tmp_path / "spool.db"
    path.write_bytes(rubbish)
    spool = Spool(path)
    spool.put("a", b"")
    assert ids(spool) == ["a"]
    assert spool.error is None
    assert (tmp_path / "spool.db.broken").read_bytes() == rubbish
    spool.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from edgenn_device.sinks.spool import Spool
path = Path(sys.argv[1])
spool = Spool(path)
spool.put("before", b"")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = path.with_name(path.name + "-wal").stat().st_size
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
spool.put("b", b"x" * 5000)
spool.put("c", b"")
assert spool.error, "the disk was not full"
assert [id for id, _ in spool.pending()] == ["before", "b", "c"], spool.pending()
spool.done("before")
spool.done("c")
assert [id for id, _ in spool.pending()] == ["b"] and len(spool) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
spool.put("d", b"")
assert spool.error is None
assert [id for id, _ in spool.pending()] == ["b", "d"] and len(spool) == 2
spool.close()
assert [id for id, _ in Spool(path).pending()] == ["b", "d"]
print("all well")
"""


def test_a_disk_that_takes_nothing_is_survived_and_caught_up_with(tmp_path):
    process = run(FULL_DISK, tmp_path / "spool.db", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complaint = process.communicate(timeout=30)
    assert said == "all well\n", complaint
    assert "is written again" in complaint


def test_a_place_that_cannot_be_written_is_survived(tmp_path):
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool.db", limit=2)
    for id in "abc":
        spool.put(id, b"")
    assert spool.error
    assert ids(spool) == ["b", "c"]
    assert spool.dropped == 1
    spool.done("b")
    (tmp_path / "file").unlink()
    spool.put("d", b"")
    assert spool.error is None
    spool.close()
    assert ids(Spool(tmp_path / "file" / "spool.db")) == ["c", "d"]


def test_what_memory_alone_holds_at_the_end_is_counted_and_told(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool.db")
    for id in "ab":
        spool.put(id, b"")
    with pytest.raises(OSError, match="2 messages that could not be written"):
        spool.close()
    assert spool.dropped == 2
    assert "2 messages that could not be written" in caplog.text
    # Once is enough.
    spool.close()
    assert spool.dropped == 2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "done", "restart"]), st.integers(0, 12)), max_size=40),
    st.integers(1, 6),
)
def test_it_is_a_bounded_queue(tmp_path_factory, steps, limit):
    """Against the plainest model of one: a dict, oldest first."""
    path = tmp_path_factory.mktemp("spool") / "spool.db"
    spool = Spool(path, limit)
    model: dict[str, bytes] = {}
    for step, number in steps:
        id = f"{number}"
        if step == "put":
            spool.put(id, id.encode())
            model.setdefault(id, id.encode())
            if len(model) > limit:
                del model[next(iter(model))]
        elif step == "done":
            spool.done(id)
            model.pop(id, None)
        else:
            spool.close()
            spool = Spool(path, limit)
        assert spool.pending() == list(model.items())
        assert len(spool) == len(model)
        assert spool.pending(1) == list(model.items())[:1]
    spool.close()


def test_entries_are_on_the_disk_when_put_returns(tmp_path):
    spool = Spool(tmp_path / "spool.db")
    (mode,) = spool._database.execute("PRAGMA synchronous").fetchone()
    assert mode == 2  # FULL: https://www.sqlite.org/pragma.html#pragma_synchronous
    spool.put("a", b"")
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(tmp_path / "spool.db", timeout=0).execute("SELECT * FROM entry").fetchall()
    spool.close()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/edgenn"}, "/var/lib/edgenn"),  # systemd: StateDirectory=edgenn
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),  # a unit with several
        ({"XDG_STATE_HOME": "/home/x/state"}, "/home/x/state/edgenn"),
        ({"HOME": "/home/x"}, "/home/x/.local/state/edgenn"),
    ],
)
def test_where_state_is_kept(monkeypatch, environment, folder):
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert state_folder() == Path(folder)
