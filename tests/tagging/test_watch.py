"""What arrives in a folder gets its row once, when it is whole, and also across kills of the watcher."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import watchfiles

from edgenn.tagging import output
from edgenn.tagging import watch as module
from edgenn.tagging.records import Tagged, to_line, to_row
from edgenn.tagging.tagger import Rules
from edgenn.tagging.watch import Watch, _whole, watch
from edgenn_device import model_file
from edgenn_device.errors import EdgennError

TAG = [sys.executable, "-c", "from edgenn.cli.tag import command; command.main()"]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def rows(out: Path) -> list[Tagged]:
    whole = out.read_bytes() if out.exists() else b""
    return [*output.read(out, "csv")] if whole.endswith(b"\n") else []


@pytest.fixture
def inbox(tmp_path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@contextmanager
def watching(model, inbox, out, told=None, **options):
    """The watch in a thread; gives the records that arrived."""
    arrived, stop, failed = [], threading.Event(), []
    asked = Watch(model_file.load(model), Rules(), inbox, out, workers=1, **{"settle": 0.1, **options})

    def run():
        try:
            watch(asked, stop=stop, arrived=arrived.append, failed=told)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield arrived
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not failed, failed


def drop(photos: Path, inbox: Path, shape: str, numbers) -> None:
    for number in numbers:
        shutil.copyfile(photos / shape / f"{number:02d}.png", inbox / f"{shape}-{number}.png")


def test_what_is_there_and_what_arrives_is_tagged_once_across_restarts(model, tiny, inbox, tmp_path):
    out = tmp_path / "tags.csv"
    drop(tiny / "photos", inbox, "circle", range(5))
    with watching(model, inbox, out) as arrived:
        until(lambda: len(arrived) == 5)
        drop(tiny / "photos", inbox, "cross", range(5))
        (inbox / "notes.txt").write_text("no picture")
        (inbox / ".hidden.png").write_bytes(b"being written by somebody")
        (inbox / "deep" / "er").mkdir(parents=True)
        drop(tiny / "photos", inbox / "deep" / "er", "square", range(3))
        until(lambda: len(arrived) == 13)
    drop(tiny / "photos", inbox, "square", range(5))  # while nobody watched
    os.utime(inbox / "circle-0.png")  # touched: the same picture
    with watching(model, inbox, out) as arrived:
        until(lambda: len(arrived) == 5)
        # The same name with another content is another picture.
        shutil.copyfile(tiny / "photos" / "cross" / "30.png", inbox / "circle-1.png")
        until(lambda: len(arrived) == 6)
        assert arrived[-1].path == str(inbox / "circle-1.png")
    counts = Counter(record.path for record in rows(out))
    assert counts.total() == 19
    assert [path for path, count in counts.items() if count > 1] == [str(inbox / "circle-1.png")]


@pytest.mark.parametrize(
    "named",
    [
        "inbox",  # events have whole paths
        "./deep/../inbox",
        "link",  # a link to the folder
        ".",
    ],
)
def test_a_look_and_an_event_name_a_picture_alike_however_the_folder_is_named(
    model, tiny, inbox, tmp_path, monkeypatch, named
):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("inbox")
    (inbox / "loop").symlink_to(".")
    monkeypatch.chdir(inbox if named == "." else tmp_path)
    out = tmp_path / "tags.csv"
    drop(tiny / "photos", inbox, "circle", [0])
    with watching(model, Path(named), out) as arrived:
        until(lambda: len(arrived) == 1)  # by a look
        drop(tiny / "photos", inbox, "circle", [1])
        until(lambda: len(arrived) == 2)  # by an event
    monkeypatch.chdir(tmp_path)
    with watching(model, inbox, out) as arrived:
        drop(tiny / "photos", inbox, "circle", [2])
        until(lambda: len(arrived) == 1)
    assert [record.path for record in rows(out)] == [str(inbox / f"circle-{number}.png") for number in range(3)]


def test_a_picture_that_is_being_written_is_not_read_half(model, tiny, inbox, tmp_path):
    out = tmp_path / "tags.csv"
    content = (tiny / "photos" / "circle" / "00.png").read_bytes()
    # As a process, for there the kernel is asked who is writing; settled at once, so that only this keeps it waiting.
    command = [*TAG, str(model), "--watch", str(inbox), "--out", str(out), "--settle", "0"]
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: out.exists())
        with open(inbox / "slow.png", "wb", buffering=0) as file:
            file.write(content[:100])
            drop(tiny / "photos", inbox, "cross", [0])
            until(lambda: len(rows(out)) == 1)  # it has looked, and passed over what is open
            file.write(content[100:])
        until(lambda: len(rows(out)) == 2)
    finally:
        watcher.terminate()
        watcher.wait()
    assert [(Path(record.path).name, record.error) for record in rows(out)] == [("cross-0.png", ""), ("slow.png", "")]


@pytest.mark.parametrize("move", [False, True])
def test_killed_at_random_sizes_each_picture_has_one_row(model, many, inbox, tmp_path, move):
    out, sorted_ = tmp_path / "tags.csv", tmp_path / "sorted"
    pictures = sorted(many.rglob("*.jpg"))[:900]
    command = [*TAG, str(model), "--watch", str(inbox), "--out", str(out), "--settle", "0.05", "--workers", "2"]
    command += ["--move-to", f"{sorted_}/{{label}}"] if move else []
    chance = random.Random(3)
    for part in range(3):
        for path in pictures[part * 300 : (part + 1) * 300]:
            os.link(path, inbox / path.name)
        watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        size = (part + chance.random()) * 300 * 250
        until(lambda size=size: out.exists() and out.stat().st_size >= min(size, 900 * 200))
        watcher.kill()
        watcher.wait()
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: len(rows(out)) == 900 and not (move and any(inbox.iterdir())))
    finally:
        watcher.terminate()
        watcher.wait()
    assert Counter(Path(record.path).name for record in rows(out)) == Counter(path.name for path in pictures)
    if move:
        content = {path.name: path.read_bytes() for path in pictures}
        assert sum(len(files) for _, _, files in os.walk(sorted_)) == 900
        for record in rows(out):
            assert Path(record.sorted_to).read_bytes() == content[Path(record.path).name]


def test_pictures_of_a_watched_folder_of_sorted_ones_stay_or_go_to_its_neighbours(model, tiny, tmp_path):
    by_label = tmp_path / "by-label"
    (by_label / "circle").mkdir(parents=True)
    for shape in ("circle", "cross", "square"):
        drop(tiny / "photos", by_label / "circle", shape, range(5))
    with watching(model, by_label / "circle", tmp_path / "tags.csv", sort_to=f"{by_label}/{{label}}") as arrived:
        until(lambda: len(arrived) == 15)
    assert {record.label for record in arrived} > {"circle"}
    for record in arrived:
        assert record.sorted_to == str(by_label / record.label / Path(record.path).name)
    assert sorted(map(str, by_label.rglob("*.png"))) == sorted(record.sorted_to for record in arrived)


def test_a_name_that_is_not_utf_8_ends_nothing(model, tiny, inbox, tmp_path, monkeypatch):
    # watchfiles raises at every event of such a name, when it arrives and when we read it.
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    out, content = tmp_path / "tags.csv", (tiny / "photos" / "circle" / "00.png").read_bytes()
    odd = [inbox / os.fsdecode(name) for name in (b"caf\xe9.png", b"d\xff/e.png", b"\xfc.png")]
    with watching(model, inbox, out) as arrived:
        for number, path in enumerate(odd[:2]):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            until(lambda number=number: len(arrived) == 2 * number + 1)
            drop(tiny / "photos", inbox, "cross", [number])
            until(lambda number=number: len(arrived) == 2 * number + 2)
    odd[2].write_bytes(content)
    with watching(model, inbox, out) as arrived:
        until(lambda: len(arrived) == 1)
        drop(tiny / "photos", inbox, "cross", [2])
        until(lambda: len(arrived) == 2)
    found = Counter(record.path for record in rows(out))
    assert found == Counter(map(str, [*odd, *(inbox / f"cross-{number}.png" for number in range(3))]))


def test_a_folder_that_cannot_be_looked_through_is_told_once_and_the_others_are(
    model, tiny, inbox, tmp_path, monkeypatch
):
    (inbox / "a").mkdir()
    (inbox / "b").mkdir()
    drop(tiny / "photos", inbox / "b", "circle", [0])
    (inbox / "itself.png").symlink_to("itself.png")
    scan, told, looks = os.scandir, [], []

    def scandir(path):
        if path == str(inbox / "a"):
            looks.append(path)
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(module.listing.os, "scandir", scandir)
    with watching(model, inbox, tmp_path / "tags.csv", told=lambda *failure: told.append(failure)) as arrived:
        until(lambda: len(arrived) == 1)
        (inbox / "c").mkdir()  # another look
        until(lambda: len(looks) > 1)
    assert [folder for folder, _ in told] == [str(inbox / "a")]


def full(*arguments):
    raise sqlite3.OperationalError("database or disk is full")


def none_left(*paths, **options):
    raise OSError("OS file watch limit reached. about [...]")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (None, r"by-label/.*: a file stands where"),  # the sort target
        ((module._Seen, "commit", full), r"tags.csv.seen: database or disk is full: make room"),
        ((watchfiles, "watch", none_left), r"inbox cannot be watched .*max_user_watches"),
    ],
)
def test_what_fails_during_the_watch_is_called_by_its_name(model, tiny, inbox, tmp_path, monkeypatch, fault, said):
    drop(tiny / "photos", inbox, "circle", [0])
    (tmp_path / "by-label").write_text("a file")
    if fault:
        monkeypatch.setattr(*fault)
    sort_to = f"{tmp_path}/by-label/{{label}}"
    with pytest.raises(EdgennError, match=said):
        watch(Watch(model_file.load(model), Rules(), inbox, tmp_path / "tags.csv", sort_to=sort_to, workers=1))


def test_a_damaged_database_is_a_line(model, inbox, tmp_path):
    (tmp_path / "tags.csv.seen").write_bytes(b"no database" * 1000)
    with pytest.raises(EdgennError, match=r"tags.csv.seen: file is not a database"):
        watch(Watch(model_file.load(model), Rules(), inbox, tmp_path / "tags.csv"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": "tags.parquet"}, "cannot be added to"),
        ({"out": "mine.csv"}, "no --watch began it"),  # somebody's file
        ({"sort_to": "inbox/{label}"}, "is in the folder that is watched"),  # would be tagged for ever
        ({"folder": "nowhere"}, "not a folder"),
    ],
)
def test_what_cannot_be_watched_is_refused(model, inbox, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("mine")
    asked = {"folder": "inbox", "out": "tags.csv", **options}
    folder, out = Path(asked.pop("folder")), Path(asked.pop("out"))
    with pytest.raises(EdgennError, match=said):
        watch(Watch(model_file.load(model), Rules(), folder, out, **asked))
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_another_model_s_file_is_refused(model, tiny, inbox, tmp_path):
    out = tmp_path / "tags.csv"
    drop(tiny / "photos", inbox, "circle", [0])
    with watching(model, inbox, out) as arrived:
        until(lambda: len(arrived) == 1)
    with pytest.raises(EdgennError, match="another top"):
        watch(Watch(model_file.load(model), Rules(top=1), inbox, out))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("emptied", [False, True])
def test_rows_that_were_moved_away_are_followed_by_a_new_file(model, tiny, inbox, tmp_path, form, emptied):
    out, earlier = tmp_path / f"tags.{form}", tmp_path / f"earlier.{form}"
    for number in range(3):
        drop(tiny / "photos", inbox, "circle", [number])
        with watching(model, inbox, out) as arrived:
            until(lambda: len(arrived) == 1)
        if number == 0:
            shutil.copyfile(out, earlier)
            os.truncate(out, 0) if emptied else out.unlink()
    paths = [Path(record.path).name for file in (earlier, out) for record in output.read(file, form)]
    assert paths == [f"circle-{number}.png" for number in range(3)]
    assert out.read_bytes().startswith(output.header(form))


def test_rows_that_were_cut_are_refused_and_left_alone(model, tiny, inbox, tmp_path):
    out = tmp_path / "tags.csv"
    drop(tiny / "photos", inbox, "circle", range(2))
    with watching(model, inbox, out) as arrived:
        until(lambda: len(arrived) == 2)
    os.truncate(out, out.stat().st_size - 100)
    found = out.read_bytes()
    for _ in range(2):
        with pytest.raises(EdgennError, match=r"tags.csv is shorter than --watch left it"):
            watch(Watch(model_file.load(model), Rules(), inbox, out))
        assert out.read_bytes() == found


def test_a_torn_row_ends_where_the_last_whole_one_does():
    some = [Tagged("a.jpg"), Tagged('b\n"c".jpg', "hat", 0.5), Tagged("d.jpg")]
    for form, encode in (("csv", to_row), ("jsonl", to_line)):
        text = b"".join(map(encode, some))
        ends = {len(b"".join(map(encode, some[:count]))) for count in range(4)}
        for cut in range(len(text) + 1):
            assert _whole(text[:cut], form) == max(end for end in ends if end <= cut)
