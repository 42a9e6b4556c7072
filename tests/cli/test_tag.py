"""`edgenn tag` as a person and a program use it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TAG = [sys.executable, "-c", "from edgenn.cli import main; main()", "tag"]


@pytest.fixture(scope="session")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


def tag(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TAG, *map(str, arguments)], capture_output=True, text=True, **options)  # type: ignore


def test_a_folder_into_a_csv_with_a_summary(model, tiny, tmp_path):
    done = tag(model, tiny / "photos", "--out", tmp_path / "tags.csv", "--json", "--minimum-confidence", 0)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["pictures"], summary["tagged"], summary["unreadable"]) == (120, 120, 0)
    with open(tmp_path / "tags.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 120
    assert [*rows[0]][:3] == ["path", "label", "confidence"]
    # Better than chance by far: the right model saw the right pixels.
    assert sum(Path(row["path"]).parent.name == row["label"] for row in rows) > 80


def test_without_out_rows_come_on_stdout(model, tiny):
    pictures = [tiny / "photos" / "circle" / "01.png", tiny / "photos" / "circle" / "00.png"]
    done = tag(model, *pictures)
    assert [row["path"] for row in csv.DictReader(io.StringIO(done.stdout))] == [*map(str, pictures)]
    assert not done.stderr
    lines = [json.loads(line) for line in tag(model, *pictures, "--json", "--top", 1).stdout.splitlines()]
    assert [line["path"] for line in lines] == [*map(str, pictures)]
    assert all(len(line["top"]) == 1 for line in lines)


def test_a_list_on_stdin(model, tiny, tmp_path):
    pictures = sorted((tiny / "photos" / "square").iterdir())
    done = tag(model, "-", "--out", tmp_path / "tags.jsonl", input="\0".join(map(str, pictures)) + "\0")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [*map(str, pictures)]


def test_sorting_review_and_corrections_are_one_road(model, tiny, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(10):
        os.link(tiny / "photos" / "cross" / f"{number:02d}.png", inbox / f"{number}.png")
    out = tmp_path / "tags.csv"
    done = tag(model, inbox, "--out", out, "--move-to", tmp_path / "sorted" / "{label}", "--review")
    assert done.returncode == 0, done.stderr
    assert not [*inbox.iterdir()]
    with open(out, newline="") as file:
        (first, *_) = csv.DictReader(file)
    # The page names pictures where they are now.
    assert first["sorted_to"] in (tmp_path / "report.html").read_text()
    entry = {"path": first["sorted_to"], "sha256": first["sha256"], "was": first["label"], "label": "plus"}
    (tmp_path / "corrections.json").write_text(json.dumps({"schema": 1, "model": "m", "corrections": [entry]}))
    done = tag("--apply", tmp_path / "corrections.json", "--to", tmp_path / "next", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["copied"] == 1
    assert [path.name for path in (tmp_path / "next" / "plus").iterdir()] == [Path(first["sorted_to"]).name]


def test_links_leave_the_pictures(model, tiny, tmp_path):
    done = tag(model, tiny / "photos" / "circle", "--out", tmp_path / "t.csv", "--link", tmp_path / "by" / "{label}")
    assert done.returncode == 0, done.stderr
    links = [path for path in (tmp_path / "by").rglob("*") if path.is_symlink()]
    assert len(links) == 40
    assert all(path.resolve().is_relative_to(tiny.resolve()) for path in links)


def test_corrections_that_cannot_all_be_applied_are_an_answer_of_no(tmp_path):
    entry = {"path": "/nowhere.png", "sha256": "00", "was": "a", "label": "b"}
    (tmp_path / "corrections.json").write_text(json.dumps({"schema": 1, "model": "m", "corrections": [entry]}))
    done = tag("--apply", tmp_path / "corrections.json", "--to", tmp_path / "next")
    assert done.returncode == 1
    assert "/nowhere.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MODEL"], "nothing to tag"),
        (["MODEL", "nowhere"], "does not exist"),
        (["nowhere.tflite", "."], "nowhere.tflite"),
        (["MODEL", ".", "--out", "tags.txt"], ".csv, .jsonl or .parquet"),
        (["MODEL", ".", "--out", "s3://bucket/tags.csv"], "not a local file"),
        (["MODEL", ".", "--out", "t.csv", "--move-to", "somewhere"], "{label}"),
        (["MODEL", ".", "--out", "t.csv", "--move-to", "{label}", "--link", "{label}"], "choose one"),
        (["MODEL", ".", "--review"], "--out"),
        (["MODEL", ".", "--watch", "."], "leave one of them out"),
        (["MODEL", ".", "--minimum-confidence", "2"], "--minimum-confidence"),
        (["MODEL", ".", "--workers", "257"], "1<=x<=256"),
        (["--apply", "corrections.json"], "--to"),
        (["--apply", "nowhere.json", "--to", "x"], "nowhere.json"),
    ],
)
def test_a_wrong_request_is_status_2_and_one_line(model, tmp_path, arguments, said):
    (tmp_path / "a.png").write_bytes(b"")
    done = tag(*(str(model) if argument == "MODEL" else argument for argument in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout
    assert not (tmp_path / "t.csv.partial").exists() or not [*(tmp_path / "t.csv.partial").glob("rows")]


@pytest.mark.parametrize("closing", ["<&-", ">&-", "<&- >&-"])
@pytest.mark.parametrize("out", [(), ("--out", "tags.csv")])
def test_streams_that_are_closed_and_not_asked_for_are_no_failure(model, tiny, tmp_path, closing, out):
    command = [*TAG, str(model), str(tiny / "photos" / "circle" / "00.png"), *out]
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">" not in closing)
    assert not out or len((tmp_path / "tags.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("out", [(), ("--out", "tags.csv")])
def test_a_list_on_a_closed_stdin_is_one_line(model, tmp_path, out):
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *TAG, str(model), "-", *out]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgenn: -: no picture")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_ends_it_cleanly(model, tiny):
    command = [*TAG, str(model), *[str(tiny / "photos")] * 20]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert not stderr
