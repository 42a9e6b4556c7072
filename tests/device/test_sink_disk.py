"""A disk that fills up or turns read-only under a running sink: the run goes on, and writing resumes by itself.

A small file system of its own is mounted for it, which takes the rights to do so; without them these are skipped, and
the limits of test_sink_files.py and /dev/full stand in.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import time

import pytest
from sink_samples import ABOUT, event, result, until

from edgenn_device.sinks import open_sink
from edgenn_device.sinks.sqlite import SqliteEvents


class Disk:
    """A file system of one megabyte."""

    def __init__(self, path):
        self.path = path

    def fill(self):
        file = os.open(self.path / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (4096, 512, 1):
                try:
                    while os.write(file, b"x" * size):
                        pass
                except OSError:
                    continue
        finally:
            os.close(file)

    def free(self):
        (self.path / "filler").unlink()

    def read_only(self, on):
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


SPECS = ("jsonl:{}/out", "csv:{}/out", "sqlite:{}/out")


def feed(sink, numbers, frames=20):
    for number in numbers:
        sink.event(event(number, thumbnail=b"x" * 3000))
        for index in range(frames):
            sink.write(result(1000 * number + index))
        sink.event(event(number, ended=True, thumbnail=b"x" * 3000))


def check(spec, path, numbers, frames=20):
    """Everything is there once."""
    if spec.startswith("sqlite"):
        database = sqlite3.connect(path / "out")
        rows = database.execute("SELECT id, interrupted, frames FROM events ORDER BY id").fetchall()
        assert rows == [(event(number).id, 0, 300) for number in numbers]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
        return
    text = (path / "out").read_text()
    lines = text.splitlines()
    if spec.startswith("csv"):
        assert lines.pop(0).startswith("time,frame,")
        found = [int(line.split(",")[1]) for line in lines]
    else:
        documents = [json.loads(line) for line in lines]
        found = [document["frame"] for document in documents if "frame" in document]
        events = [(d["event"]["id"], d["event"]["ended"] is not None) for d in documents if "event" in d]
        assert events == [(event(number).id, ended) for number in numbers for ended in (False, True)]
    assert found == [1000 * number + index for number in numbers for index in range(frames)]


@pytest.mark.parametrize("spec", SPECS)
def test_a_full_disk_delays_and_loses_nothing(spec, disk):
    sink = open_sink(spec.format(disk.path), ABOUT)
    with sink:
        feed(sink, [1])
        until(lambda: not any(sink.state()["queued"].values()))
        disk.fill()
        feed(sink, [2, 3, 4])
        # SQLite may have a little room left in the files that it holds.
        number = 4
        while not sink.state()["error"]:
            number += 1
            assert number < 500
            feed(sink, [number])
            time.sleep(0.01)
        assert "No space left on device" in sink.state()["error"] or "full" in sink.state()["error"]
        disk.free()
        # What the project asks for; of it, the pauses between attempts take 4 s at most.
        freed = time.monotonic()
        until(lambda: sink.state()["error"] is None and not any(sink.state()["queued"].values()))
        assert time.monotonic() - freed < 5
    assert sink.state()["dropped"] == {"results": 0, "events": 0}
    check(spec, disk.path, range(1, number + 1))


@pytest.mark.parametrize("spec", SPECS)
def test_a_disk_that_is_full_from_the_start_is_waited_for(spec, disk):
    disk.fill()
    sink = open_sink(spec.format(disk.path), ABOUT)
    with sink:
        feed(sink, [1])
        until(lambda: sink.state()["error"])
        disk.free()
        until(lambda: sink.state()["error"] is None and not any(sink.state()["queued"].values()))
    check(spec, disk.path, [1])


@pytest.mark.parametrize("spec", SPECS)
def test_a_read_only_disk_is_waited_for(spec, disk):
    disk.read_only(True)
    sink = open_sink(spec.format(disk.path), ABOUT)
    with sink:
        feed(sink, [1])
        until(lambda: sink.state()["error"])
        assert "ead-only" in sink.state()["error"]
        disk.read_only(False)
        until(lambda: sink.state()["error"] is None and not any(sink.state()["queued"].values()))
    check(spec, disk.path, [1])


@pytest.mark.parametrize("spec", SPECS)
def test_out_of_file_descriptors_is_waited_for(spec, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sink = open_sink(spec.format(tmp_path), ABOUT)
    try:
        # Standard input, output and error are open; those beyond stay so, and no other can be opened.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with sink:
            feed(sink, [1])
            until(lambda: sink.state()["error"])
            error = sink.state()["error"]
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            until(lambda: sink.state()["error"] is None and not any(sink.state()["queued"].values()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in error
    check(spec, tmp_path, [1])


def test_a_run_with_a_full_disk_ends_and_says_what_was_lost(disk):
    disk.fill()
    sink = open_sink(f"sqlite:{disk.path}/out", ABOUT)
    with sink:
        feed(sink, [1, 2])
        sink.finish({})
    assert sink.state()["dropped"]["events"] == 4
    disk.free()
    with SqliteEvents(disk.path / "out", ABOUT):
        pass
