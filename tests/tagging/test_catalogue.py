"""A catalogue into a file: every picture exactly once, whatever ends the run, and nothing of others touched."""

import collections
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgenn.tagging import output
from edgenn.tagging.catalogue import Request, tag_catalogue
from edgenn.tagging.listing import pictures
from edgenn.tagging.tagger import Rules
from edgenn_device import model_file
from edgenn_device.errors import EdgennError

# The verb as a process of its own, to be killed.
TAG = [sys.executable, "-c", "from edgenn.cli.tag import command; command.main()"]


@pytest.fixture(scope="session")
def loaded(model):
    return model_file.load(model)


def request(loaded, paths, out, **options) -> Request:
    return Request(loaded, Rules(), tuple(map(str, paths)), out, workers=2, **options)


def killed_at(command, rows: Path, size: float) -> bool:
    """Start the command, end it by SIGKILL when its rows have that size; False if it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and (rows.stat().st_size if rows.exists() else 0) < size:
        time.sleep(0.001)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_killed_at_random_sizes_every_picture_is_there_exactly_once_in_order(model, many, tmp_path, form):
    out = tmp_path / f"tags.{form}"
    rows = tmp_path / f"tags.{form}.partial" / "rows"
    command = [*TAG, str(model), str(many), "--out", str(out), "--workers", "2"]
    chance = random.Random(form)
    moments = sorted(chance.uniform(0, 3000 * 250) for _ in range(5))
    kills = sum(killed_at(command, rows, size) for size in moments)
    assert kills >= 3
    if not out.exists():
        subprocess.run(command, check=True)
    paths = [record.path for record in output.read(out, form)]
    assert paths == [*pictures([str(many)])]
    assert [*tmp_path.iterdir()] == [out]


def test_killed_while_pictures_move_each_is_in_one_place_and_its_row_says_where(model, many, tmp_path):
    inbox = tmp_path / "inbox"
    for path in pictures([str(many)]):
        # The same name in each folder, so that names collide.
        place = inbox / Path(path).parent.name / f"{int(Path(path).stem) % 500}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    wanted = {str(path): path.read_bytes() for path in inbox.rglob("*.jpg")}
    out = tmp_path / "tags.csv"
    command = [*TAG, str(model), str(inbox), "--out", str(out), "--move-to", str(tmp_path / "sorted" / "{label}")]
    chance = random.Random(7)
    for size in sorted(chance.uniform(0, 3000 * 250) for _ in range(6)):
        if not killed_at(command, tmp_path / "tags.csv.partial" / "rows", size):
            break
    if not out.exists():
        subprocess.run(command, check=True)
    records = [*output.read(out, "csv")]
    assert {record.path for record in records} == wanted.keys()
    assert len(records) == len({record.sorted_to for record in records}) == 3000
    for record in records:
        assert Path(record.sorted_to).read_bytes() == wanted[record.path]
        assert Path(record.sorted_to).parent.name == record.label
    assert not [*inbox.rglob("*.jpg")]
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "sorted")) == 3000


def test_it_goes_on_where_it_was_even_when_the_folder_has_changed(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.csv"
    wanted = [*pictures([str(catalogue)])]

    def stop(stage, done, total):
        if stage == "tagging" and done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_catalogue(request(loaded, [catalogue], out), report=stop)
    assert not out.exists()
    (catalogue / "circle" / "0-new.png").write_bytes((catalogue / "circle" / "00.png").read_bytes())
    summary = tag_catalogue(request(loaded, [catalogue], out))
    # The listing was taken when the run began; a picture that came later belongs to the next.
    assert [record.path for record in output.read(out, "csv")] == wanted
    assert (summary.pictures, summary.tagged, summary.unreadable) == (122, 72, 2)


def test_another_request_for_the_same_file_is_refused_and_named(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.csv"

    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_catalogue(request(loaded, [catalogue], out), report=stop)
    with pytest.raises(EdgennError, match="another list of PATHS"):
        tag_catalogue(request(loaded, [catalogue / "circle"], out))
    with pytest.raises(EdgennError, match="another top"):
        tag_catalogue(Request(loaded, Rules(top=1), (str(catalogue),), out))
    with pytest.raises(EdgennError, match="another --move-to"):
        tag_catalogue(request(loaded, [catalogue], out, sort_to="x/{label}"))
    # --overwrite begins anew; the unfinished run is gone.
    summary = tag_catalogue(request(loaded, [catalogue / "circle"], out, overwrite=True))
    assert summary.pictures == summary.tagged == 41


def test_what_exists_is_not_replaced_without_being_told_and_stays_until_the_new_is_whole(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.jsonl"
    out.write_text("mine")
    with pytest.raises(EdgennError, match="--overwrite"):
        tag_catalogue(request(loaded, [catalogue], out))
    assert {*tmp_path.iterdir()} == {catalogue, out}

    def look(stage, done, total):
        assert out.read_text() == "mine"

    tag_catalogue(request(loaded, [catalogue], out, overwrite=True), report=look)
    assert len(out.read_bytes().splitlines()) == 122


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "mine.txt",  # a file
        "a/mine.txt",  # a folder
        "rows/mine.txt",  # a folder that has the name of a file of ours
        ".listing-1.txt",  # almost what is left when a listing is interrupted
    ],
)
def test_a_folder_in_its_way_that_holds_what_is_not_its_own_is_left_alone(loaded, catalogue, tmp_path, name, overwrite):
    theirs = tmp_path / "tags.csv.partial" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(EdgennError, match="was not put there by edgenn tag: move it away"):
        tag_catalogue(request(loaded, [catalogue], tmp_path / "tags.csv", overwrite=overwrite))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and catalogue not in path.parents]
    assert files == [theirs]


def test_what_another_puts_there_meanwhile_stays(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.csv"
    theirs = tmp_path / "tags.csv.partial" / "mine.txt"
    tag_catalogue(request(loaded, [catalogue], out), report=lambda *progress: theirs.touch())
    assert len([*output.read(out, "csv")]) == 122
    assert [*theirs.parent.iterdir()] == [theirs]


def test_what_a_kill_leaves_of_a_file_written_aside_is_its_own(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.csv"
    partial = tmp_path / "tags.csv.partial"
    partial.mkdir()
    for name in ("lock", ".request-abc_d01z.json", ".listing-abc_d01z", ".listing-abc_d01z.json"):
        (partial / name).touch()
    assert tag_catalogue(request(loaded, [catalogue], out)).pictures == 122
    assert {*tmp_path.iterdir()} == {catalogue, out}


def test_a_second_process_is_refused(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.csv"
    said = []

    def second(stage, done, total):
        if not said:
            try:
                tag_catalogue(request(loaded, [catalogue], out))
            except EdgennError as error:
                said.append(str(error))

    tag_catalogue(request(loaded, [catalogue], out), report=second)
    assert "being written by another" in said[0]


@pytest.mark.parametrize("after", ["rows published", "finished noted", "half removed"])
def test_killed_in_its_last_steps_it_ends_well_when_repeated(loaded, catalogue, tmp_path, monkeypatch, after):
    from edgenn.tagging import catalogue as module

    out = tmp_path / "tags.csv"

    class Killed(BaseException):
        pass

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        if after == "rows published":
            write = module.write_atomically
            patch.setattr(
                module,
                "write_atomically",
                lambda path, text: die() if path.name == "finished.json" else write(path, text),
            )
        elif after == "finished noted":
            patch.setattr(module, "_remove", die)
        else:
            patch.setattr(module.shutil, "rmtree", die)
        with pytest.raises(Killed):
            tag_catalogue(request(loaded, [catalogue], out))
    before = out.read_bytes()
    summary = tag_catalogue(request(loaded, [catalogue], out))
    assert (summary.pictures, summary.tagged, summary.unreadable) == (122, 0, 2)
    assert out.read_bytes() == before
    assert {*tmp_path.iterdir()} == {catalogue, out}


def test_a_list_on_stdin_is_resumed_only_with_the_same_list(loaded, catalogue, tmp_path):
    out = tmp_path / "tags.csv"
    paths = [os.fsencode(path) for path in pictures([str(catalogue)])]
    asked = request(loaded, ["-"], out)

    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_catalogue(asked, stdin=io.BytesIO(b"\n".join(paths)), report=stop)
    with pytest.raises(EdgennError, match="another list on stdin"):
        tag_catalogue(asked, stdin=io.BytesIO(b"\n".join(paths[1:])))
    tag_catalogue(asked, stdin=io.BytesIO(b"\n".join(paths)))
    assert [os.fsencode(record.path) for record in output.read(out, "csv")] == paths


def test_names_of_any_bytes_come_through(loaded, catalogue, tmp_path):
    content = (catalogue / "circle" / "00.png").read_bytes()
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"line\nfeed.png", b"caf\xe9.png", b'comma, "quote".png', b"carriage\r.png", "\u2028 ü.png".encode()]
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(content)
    for form in ("csv", "jsonl"):
        out = tmp_path / f"tags.{form}"
        tag_catalogue(request(loaded, [folder], out))
        found = [os.fsencode(record.path).rpartition(b"/")[2] for record in output.read(out, form)]
        assert sorted(found) == sorted(names)


def test_object_storage_and_the_web_are_read(loaded, catalogue, tmp_path, storage):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(catalogue)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        for path in pictures([str(catalogue / "circle"), str(catalogue / "cross")]):
            storage.put(path, "shop/new/" + os.path.relpath(path, catalogue))
        address = f"http://127.0.0.1:{web.server_address[1]}"
        paths = ["s3://shop/new", "s3://shop/new/cross/0[01].png", f"{address}/square/00.png", f"{address}/missing.png"]
        out = tmp_path / "tags.csv"
        summary = tag_catalogue(request(loaded, paths, out))
        tag_catalogue(request(loaded, [catalogue], tmp_path / "local.csv"))
        assert (summary.pictures, summary.unreadable) == (82 + 2 + 1 + 1, 3)
        local = {os.path.relpath(row.path, catalogue): row for row in output.read(tmp_path / "local.csv", "csv")}
        for record in output.read(out, "csv"):
            name = record.path.removeprefix("s3://shop/new/").removeprefix(f"{address}/")
            if name == "missing.png":
                assert "does not exist" in record.error
            else:
                assert (record.top, record.sha256) == (local[name].top, local[name].sha256)
        with pytest.raises(EdgennError, match="not a local file"):
            tag_catalogue(request(loaded, paths, tmp_path / "moved.csv", sort_to=str(tmp_path / "{label}")))
    finally:
        web.shutdown()
        web.server_close()


def test_a_csv_reads_like_any_other(loaded, catalogue, tmp_path):
    tag_catalogue(request(loaded, [catalogue], tmp_path / "tags.csv"))
    with open(tmp_path / "tags.csv", newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert [*rows[0]][:3] == ["path", "label", "confidence"]
    counts = collections.Counter(row["label"] for row in rows if not row["error"])
    assert counts.total() == 120
    assert all(json.loads(row["top"])[0][0] == row["label"] for row in rows if not row["error"])
