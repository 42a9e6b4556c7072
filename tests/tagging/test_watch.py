"""What arrives in a folder gets its row once, when it is whole, and also across kills of the watcher."""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgenn.tagging import output
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
def watching(model, inbox, out, **options):
    """The watch in a thread; gives the records that arrived."""
    arrived, stop, failed = [], threading.Event(), []
    asked = Watch(model_file.load(model), Rules(), inbox, out, workers=1, **{"settle": 0.1, **options})

    def run():
        try:
            watch(asked, stop=stop, arrived=arrived.append)
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


def test_a_torn_row_ends_where_the_last_whole_one_does():
    some = [Tagged("a.jpg"), Tagged('b\n"c".jpg', "hat", 0.5), Tagged("d.jpg")]
    for form, encode in (("csv", to_row), ("jsonl", to_line)):
        text = b"".join(map(encode, some))
        ends = {len(b"".join(map(encode, some[:count]))) for count in range(4)}
        for cut in range(len(text) + 1):
            assert _whole(text[:cut], form) == max(end for end in ends if end <= cut)
