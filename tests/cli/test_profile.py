"""`edgenn profile` as a person and a program use it, on a real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The machine's roof is measured once and kept, and not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def profile(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGENN, "profile", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )


@pytest.fixture(scope="module")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


QUICK = ("--runs", 10, "--seconds", 0.2, "--threads", 1)


def test_json_is_one_document_and_nothing_else(model: Path) -> None:
    done = profile(model, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["schema"], document["model"], document["runs"]) == (1, "model.tflite", 10)
    assert set(document["stages"]) == {"capture", "queue", "preprocess", "invoke", "decide"}
    assert document["operators"][0]["microseconds"] > 0


def test_the_table_is_for_a_person(model: Path) -> None:
    done = profile(model, *QUICK, "--source", "none", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "p50" in done.stdout
    assert "stages (without a pipeline" in done.stdout


def test_a_terminal_that_knows_ascii_only(model: Path) -> None:
    done = profile(model, *QUICK, "--source", "none", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "#" in done.stdout or "us" in done.stdout


def test_out_is_written_in_the_form_of_its_suffix_and_not_overwritten_unasked(model: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"figures{suffix}" for suffix in (".md", ".json", ".html", ".txt")]
    options = [word for path in files for word in ("--out", path)]
    done = profile(model, *QUICK, "--source", "none", "--markdown", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("**model.tflite**")
    markdown, document, page, text = (path.read_text() for path in files)
    assert markdown == done.stdout
    assert json.loads(document)["runs"] == 10
    assert page.startswith("<!doctype html>")
    assert "invoke  p50" in text
    files[0].write_text("mine")
    again = profile(model, *QUICK, "--out", files[0])
    assert (again.returncode, files[0].read_text()) == (2, "mine")
    assert "--overwrite" in again.stderr
    assert profile(model, *QUICK, "--source", "none", "--out", files[0], "--overwrite").returncode == 0
    assert "**model.tflite**" in files[0].read_text()


def test_a_model_whose_name_is_not_utf_8_is_reported_all_the_same(model: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.tflite")
    odd.write_bytes(model.read_bytes())
    files = [tmp_path / f"figures{suffix}" for suffix in (".html", ".md", ".json")]
    done = profile(odd, *QUICK, "--source", "none", *(word for path in files for word in ("--out", path)))
    assert done.returncode == 0, done.stderr
    assert "?.tflite" in files[0].read_text()
    assert json.loads(files[2].read_text())["runs"] == 10


def test_two_measurements_are_compared(model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert profile(model, *QUICK, "--source", "none", "--out", first).returncode == 0
    assert profile(model, "--runs", 10, "--threads", 2, "--source", "none", "--out", second).returncode == 0
    done = profile("--compare", first, second)
    assert done.returncode == 0, done.stderr
    assert "threads: 1, then 2" in done.stdout
    document = json.loads(profile("--compare", first, second, "--json").stdout)
    assert document["differences"][0]["verdict"] in ("slower", "faster", "no difference shown")
    same = profile("--compare", model, model, "--runs", 20)
    assert same.returncode == 2
    assert "one and the same" in same.stderr
    other = tmp_path / "other.tflite"
    other.write_bytes(Path("tests/data_files/tiny_float.tflite").read_bytes())
    turns = profile("--compare", model, other, "--seconds", 0.5, "--threads", 1, "--json")
    assert turns.returncode == 0, turns.stderr
    (difference,) = json.loads(turns.stdout)["differences"]
    assert difference["paired"] is True
    wrong = profile("--compare", first, model)
    assert wrong.returncode == 2
    assert "is no JSON" in wrong.stderr


def test_a_limit_that_is_exceeded_is_a_no(model: Path) -> None:
    slow = profile(model, *QUICK, "--source", "none", "--json", "--fail-over", "p50=1us")
    assert slow.returncode == 1
    assert "p50 of invoke is" in slow.stderr
    assert json.loads(slow.stdout)["runs"] == 10  # the figures are told all the same
    assert (
        profile(model, *QUICK, "--source", "none", "--fail-over", "p50=10s", "--fail-over", "mean=10s").returncode == 0
    )
    unsure = profile(model, *QUICK, "--source", "none", "--fail-over", "p99=1us")
    assert unsure.returncode == 2
    assert "p99 needs 100 runs" in unsure.stderr


def test_a_board_that_is_not_here(model: Path, tmp_path: Path) -> None:
    done = profile(model, "--device", "pi4")
    assert done.returncode == 0, done.stderr
    assert "Not measured" in done.stdout
    document = json.loads(profile(model, "--device", "pi4", "--json").stdout)
    assert document["estimated"] is True
    assert document["estimate_ms"] > 0
    assert profile(model, "--device", "abacus").returncode == 2


def test_this_board_is_described_for_others(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    done = profile(model, *QUICK, "--source", "none", "--json", "--save-device", path)
    assert json.loads(done.stdout)["runs"] == 10
    if done.returncode:  # the test's model is so small that starting its operators takes longer than they do
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert not path.with_suffix(".toml").exists()
    else:
        estimated = json.loads(profile(model, "--device", f"{path}.toml", "--threads", 1, "--json").stdout)
        assert estimated["estimate_ms"] > 0


def test_the_pipeline_leaves_a_timeline(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    done = profile(model, *QUICK, "--timeline", path)
    assert done.returncode == 0, done.stderr
    assert {event["name"] for event in json.loads(path.read_text())["traceEvents"]} >= {"capture", "invoke", "decide"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.tflite"], "nowhere.tflite"),
        (["MODEL", "--source", "nowhere.mp4"], "nowhere.mp4"),
        (["MODEL", "--runs", "0"], "0"),
        (["MODEL", "--threads", "1,zero"], "1,zero"),
        (["MODEL", "--threads", "1,,2"], "1,,2"),
        (["MODEL", "--threads", "1,257"], "from 1 to 256"),
        (["MODEL", "--threads", "2147483648"], "from 1 to 256"),
        (["MODEL", "--threads", "9" * 5000], "from 1 to 256"),  # more digits than Python reads
        (["MODEL", "--mlperf", "--runs", "3"], "leave --runs out"),
        (["MODEL", "--fail-over", "p99"], "p99=30ms"),
        (["MODEL", "--out", "figures.pdf"], ".json, .md, .html, .txt"),
        (["MODEL", "--timeline", "t.json", "--source", "none"], "--timeline"),
        (["MODEL", "--device", "pi4", "--fail-over", "p50=1ms"], "--fail-over judges a measurement"),
        (["MODEL", "--device", "pi4", "--markdown"], ".md"),
        (["MODEL", "--compare", "a.json", "b.json"], "no model beside them"),
        (["--compare", "nowhere.json", "nowhere.json"], "nowhere.json"),
        ([], "give a MODEL"),
        (["MODEL", "--seconds", "0"], "seconds measure nothing"),
        (["MODEL", "--runtime", "abacus"], "abacus"),
        (["MODEL", "--json", "--markdown"], "choose one"),
        (["MODEL", "--labels", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_wrong_request_is_one_line(model: Path, arguments: list[str], words: str) -> None:
    done = profile(*[model if word == "MODEL" else word for word in arguments])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_closed_stdout_is_no_failure(model: Path) -> None:
    command = [*EDGENN, "profile", str(model), *map(str, QUICK), "--source", "none"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_has_an_example() -> None:
    done = profile("--help")
    assert done.returncode == 0
    assert "Example: edgenn profile" in done.stdout
