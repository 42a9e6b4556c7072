"""JSON lines and CSV in files that grow for months: appended, rotated, torn, filled up."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import stat
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_samples import event, result, until

from edgenn_device.errors import EdgennError
from edgenn_device.sinks import Queued
from edgenn_device.sinks.appended_file import AppendedFile
from edgenn_device.sinks.csv_file import COLUMNS, CsvFile, _text
from edgenn_device.sinks.jsonl import JsonLinesFile

SUMMARY = {"frames": 2, "dropped": 0, "fps": 30.0, "seconds": 0.07}


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(), newline="")))


def test_json_lines_hold_frames_events_and_the_summary(tmp_path):
    path = tmp_path / "new" / "folder" / "frames.jsonl"
    with JsonLinesFile(path) as sink:
        sink.event(event(3))
        sink.write(result(7))
        sink.event(event(3, ended=True))
        sink.finish(SUMMARY)
    begun, frame, ended, summary = (json.loads(line) for line in path.read_text().splitlines())
    assert list(frame) == ["time", "frame", "label", "confidence", "top", "latency_ms"]
    assert frame["frame"] == 7
    started = event(3).started
    assert begun == {
        "event": {
            "id": event(3).id,
            "label": "shirt",
            "confidence": 0.9,
            "started": started,
            "ended": None,
            "frames": 1,
        }
    }
    assert (ended["event"]["id"], ended["event"]["ended"]) == (event(3).id, started + 10)
    assert summary == {"summary": SUMMARY}


def test_csv_has_a_row_per_frame_under_one_header(tmp_path):
    path = tmp_path / "frames.csv"
    for run in range(2):
        with CsvFile(path) as sink:
            sink.write(result(run))
            sink.write(result(run + 1, path="a, b\n.jpg", truth='sh"irt', confidence=1.0))
    first, second, third, _ = rows(path)
    assert tuple(first) == COLUMNS
    assert path.read_text().count("time,frame") == 1
    assert (first["frame"], first["label"], first["confidence"], first["latency_ms"]) == (
        "0",
        "shirt",
        "0.75000",
        "12.300",
    )
    assert (first["path"], first["truth"]) == ("", "")
    assert (second["path"], second["truth"]) == ("a, b\n.jpg", 'sh"irt')
    assert third["frame"] == "1"
    moment = time.strptime(first["time"][:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    assert first["time"].endswith("Z")
    assert abs(time.time() - time.mktime(moment) + time.timezone) < 3700 * 2


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("shirt", "shirt"),
        ('=HYPERLINK("http://evil","x")', '\'=HYPERLINK("http://evil","x")'),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("a=1", "a=1"),  # only at the beginning
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(cell, written, tmp_path):
    path = tmp_path / "frames.csv"
    with CsvFile(path) as sink:
        sink.write(result(label=cell, path=cell, truth=cell))
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("label", "path", "truth")] == [written] * 3


@given(st.text())
def test_any_text_survives_csv(text):
    assert not _text(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert _text(text).removeprefix("'") == text.removeprefix("'")


def test_a_path_that_is_no_text_is_written_all_the_same(tmp_path):
    with CsvFile(tmp_path / "frames.csv") as sink:
        sink.write(result(path=os.fsdecode(b"caf\xe9.jpg")))
    assert "caf\\udce9.jpg" in (tmp_path / "frames.csv").read_text()


@pytest.mark.parametrize("kind", [JsonLinesFile, CsvFile])
def test_a_file_that_is_rotated_away_is_opened_anew(kind, tmp_path):
    path = tmp_path / "frames"
    with kind(path) as sink:
        sink.write(result(1))
        path.rename(tmp_path / "frames.1")
        sink.write(result(2))
        path.unlink()
        sink.write(result(3))
        path.write_text("")  # logrotate's copytruncate
        sink.write(result(4))
    header = kind is CsvFile
    assert len((tmp_path / "frames.1").read_text().splitlines()) == 1 + header
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + header
    if header:
        assert lines[0] == ",".join(COLUMNS)
        assert rows(path)[0]["frame"] == "4"


@pytest.mark.parametrize("kind", [JsonLinesFile, CsvFile])
def test_a_new_file_that_was_put_in_its_place_is_taken(kind, tmp_path):
    path = tmp_path / "frames"
    with kind(path) as sink:
        sink.write(result(1))
        path.rename(tmp_path / "frames.1")
        path.touch()  # logrotate's create, which is what it does by itself
        sink.write(result(2))
    assert [len(one.read_text().splitlines()) for one in (tmp_path / "frames.1", path)] == [1 + (kind is CsvFile)] * 2


def test_a_folder_that_is_removed_comes_back(tmp_path):
    with JsonLinesFile(tmp_path / "data" / "frames.jsonl") as sink:
        sink.write(result(1))
        (tmp_path / "data" / "frames.jsonl").unlink()
        (tmp_path / "data").rmdir()
        sink.write(result(2))
    assert json.loads((tmp_path / "data" / "frames.jsonl").read_text())["frame"] == 2


def test_what_a_power_cut_tore_stays_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "frames.jsonl"
    path.write_text('{"frame": 1}\n{"fra')
    with JsonLinesFile(path) as sink:
        sink.write(result(2))
    whole, torn, after = path.read_text().splitlines()
    assert (whole, torn) == ('{"frame": 1}', '{"fra')
    assert json.loads(after)["frame"] == 2


@pytest.mark.parametrize("content", ["path,label,confidence\na.jpg,shirt,1\n", "hello", "time,frame\n"])
def test_csv_is_not_appended_to_somebody_elses_file(content, tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text(content)
    with pytest.raises(EdgennError, match="holds something else: name a new file"), Queued(CsvFile(path)):
        pass
    assert path.read_text() == content


def test_a_header_that_a_power_cut_tore_is_completed(tmp_path):
    path = tmp_path / "frames.csv"
    path.write_text("time,fra")
    with CsvFile(path) as sink:
        sink.write(result(4))
    (row,) = rows(path)
    assert tuple(row) == COLUMNS
    assert row["frame"] == "4"


def test_zeros_that_a_power_cut_left_in_place_of_a_csv_are_set_aside(tmp_path, caplog):
    path = tmp_path / "frames.csv"
    path.write_bytes(bytes(5000))
    with CsvFile(path) as sink:
        sink.write(result(4))
    (row,) = rows(path)
    assert row["frame"] == "4"
    assert path.with_name("frames.csv.broken").read_bytes() == bytes(5000)
    assert "set aside as frames.csv.broken" in caplog.text


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(EdgennError, match="is a folder: name a file"), Queued(JsonLinesFile(tmp_path)):
        pass


def test_a_pipe_is_written_to_as_it_is(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with CsvFile(path) as sink:
        sink.write(result(1))
        sink.write(result(2))
        assert len(os.read(reader, 4096).splitlines()) == 2
    os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_that_is_full_says_so_with_the_path():
    with JsonLinesFile("/dev/full") as sink, pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        sink.write(result())


@pytest.fixture
def limited():
    """limited(size): no file of this process may grow beyond `size` bytes; None lifts it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, ignored)


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20), room=st.integers(0, 300))
def test_a_line_is_in_the_file_whole_or_not_at_all(sizes, room, tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / "lines"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = AppendedFile(path, header=b"header\n")
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        for size in sizes:
            try:
                file.append(b"x" * size + b"\n")
                taken.append(size)
            except OSError:
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    file.append(b"last\n")
    file.close()
    lines = path.read_text().splitlines()
    assert lines == ["header", *("x" * size for size in taken), "last"]


def test_a_file_that_may_grow_again_is_written_again(tmp_path, limited):
    path = tmp_path / "frames.csv"
    sink = Queued(CsvFile(path))
    with sink:
        sink.write(result(1))
        until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)
        limited(path.stat().st_size + 10)
        sink.write(result(2))
        until(lambda: sink.state()["error"])
        assert "too large" in sink.state()["error"]
        limited(None)
        until(lambda: sink.state()["error"] is None)
    assert [row["frame"] for row in rows(path)] == ["1", "2"]


def test_a_file_that_is_opened_while_others_write_to_it_gets_no_empty_line(tmp_path):
    # A line of many pages is in the file piece by piece, and its size tells.
    line = b"x" * 100_000 + b"\n"
    path, enough = tmp_path / "both.jsonl", threading.Event()

    def write():
        file = AppendedFile(path)
        file.append(line)
        while not enough.is_set():
            file.append(line)
        file.close()

    thread = threading.Thread(target=write)
    thread.start()
    until(path.exists)
    for _ in range(8):
        other = AppendedFile(path)
        other.open()
        other.close()
    enough.set()
    thread.join()
    written = path.read_bytes()
    assert written == line * (len(written) // len(line))


def test_of_many_that_begin_a_file_one_writes_its_header(tmp_path):
    for turn in range(20):
        path, together = tmp_path / f"{turn}.csv", threading.Barrier(4)

        def begin(path=path, together=together):
            file = AppendedFile(path, header=b"header\n")
            file.open()
            together.wait(60)
            file.append(b"line\n")
            file.close()

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert path.read_text().splitlines() == ["header", *["line"] * 4]


def test_two_threads_of_one_process_never_mix_their_lines(tmp_path):
    path = tmp_path / "both.jsonl"

    def run(first):
        with JsonLinesFile(path) as sink:
            for index in range(first, first + 300):
                sink.write(result(index))

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = sorted(json.loads(line)["frame"] for line in path.read_text().splitlines())
    assert frames == [*range(300), *range(1000, 1300)]
