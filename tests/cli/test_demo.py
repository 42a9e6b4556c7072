"""The demo, small: every step for real, everything in its place, and nothing that is not its own touched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from edgenn import data
from edgenn.demo import road
from edgenn.demo.watcher import Watcher
from edgenn.training.run import Run
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.garments import LABELS

SMALL = road.Extent(
    per_class=8,
    size=(60, 80),
    recipe=replace(road.RECIPE, size=32, epochs=1, network_options={"width": 4, "depth": 2, "dropout": 0.0}),
    video=1.0,
    profile=0.2,
)


class Steps(Watcher):
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.shares: list[float] = []

    def begin(self, number: int, steps: int, name: str) -> None:
        assert number == len(self.begun) + 1 <= steps
        self.begun.append(name)

    def advance(self, share: float, detail: str = "") -> None:
        self.shares.append(share)


@pytest.fixture(scope="module")
def out(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A small demo, made once; its JSON document is in demo.json beside it."""

    def make(folder: Path) -> None:
        watcher = Steps()
        result = road.demo(folder / "demo", seed=3, extent=SMALL, watcher=watcher)
        assert [step.name for step in result.steps] == watcher.begun == list(road._Road.steps)
        assert 0 <= min(watcher.shares) <= max(watcher.shares) == 1.0
        (folder / "demo.json").write_text(json.dumps(result.to_dict()))

    return made_once("demo", make) / "demo"


def test_everything_is_in_its_place(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["demo.json", "garments.avi", "garments.tflite", "photos", "report.html", "run"]
    )
    dataset = data.scan(out / "photos")
    assert dataset.labels == LABELS
    assert [len(dataset.splits[split]) for split in ("train", "validation", "test")] == [24, 6, 6]
    # The run was made elsewhere, under another name, and knows where it is now.
    assert Run.load(out / "run").photos == (out / "photos").absolute()
    assert Classifier(out / "garments.tflite").labels == LABELS


def test_figures(out: Path) -> None:
    document = json.loads((out.parent / "demo.json").read_text())
    assert document == json.loads((out / "demo.json").read_text())
    assert document["photos"] == 36
    assert document["test"]["pictures"] == 6
    assert document["train"]["validation"]["pictures"] == 6
    assert Path(document["model"]) == out / "garments.tflite"
    feed = document["feed"]
    frames = int(cv2.VideoCapture(str(out / "garments.avi")).get(cv2.CAP_PROP_FRAME_COUNT))
    assert feed["frames"] + feed["dropped"] == frames == 30
    assert 0 <= feed["right"] <= 1
    assert feed["stages_ms"]["invoke"]["p50"] > 0
    assert sum(step["seconds"] for step in document["steps"]) <= document["seconds"]


class Page(HTMLParser):
    """Collects what a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_stands_alone(out: Path) -> None:
    html = (out / "report.html").read_text("utf-8")
    page = Page()
    page.feed(html)
    text = " ".join(" ".join(page.text).split())
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!data:)", html)
    for heading in ("In short", "The camera feed", "Training", "Float against int8", "Latency", "What took how long"):
        assert heading in text
    assert str(out / "garments.tflite") in text
    assert ".demo-" not in html  # the folder it was made in
    assert len(html) < 3_000_000


def test_an_earlier_demo_is_replaced_only_on_request(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (out / "report.html").read_bytes()
    with pytest.raises(EdgennError, match="--overwrite"):
        road.demo(out, extent=SMALL)

    def fail(*_: object, **__: object) -> None:
        raise EdgennError("the photos are gone")

    monkeypatch.setattr(road.garments, "write", fail)
    with pytest.raises(EdgennError, match="the photos are gone"):
        road.demo(out, extent=SMALL, overwrite=True)
    assert (out / "report.html").read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["demo", "demo.json"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_folder_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(EdgennError, match="not a demo's"):
        road.demo(tmp_path, extent=SMALL, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(EdgennError, match="is a file"):
        road.demo(tmp_path / "thesis.txt", extent=SMALL, overwrite=overwrite)


def test_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(road, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        road.demo(tmp_path / "demo", extent=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_scenes_are_ripe_towards_their_end() -> None:
    scenes = road._scenes(("a",) * 6 + ("b",) * 3 + ("c",))
    assert [scene for scene, _ in scenes] == [0] * 6 + [1] * 3 + [2]
    assert [ripe for _, ripe in scenes] == [False] * 3 + [True] * 3 + [False, True, True] + [True]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_verb(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    # What the verb prints, without going the road again for each format.
    from edgenn.cli.demo import command

    asked: dict = {}

    class Result:
        def to_dict(self) -> dict:
            return json.loads((out / "demo.json").read_text())

    def stand_in(path: Path, **options: object) -> Result:
        asked.update(path=path, **options)
        return Result()

    monkeypatch.setattr(road, "demo", stand_in)
    monkeypatch.setattr("edgenn.cli.demo._text", lambda result: "the table")
    monkeypatch.setattr("edgenn.conversion.converter.check_passed", lambda conversion: None)
    Result.conversion = None  # type: ignore[attr-defined]
    done = CliRunner().invoke(command, ["--out", str(tmp_path / "x"), "--seed", "5", *(["--json"] if as_json else [])])
    assert done.exit_code == 0, done.output
    assert asked["path"] == tmp_path / "x"
    assert asked["seed"] == 5
    assert asked["overwrite"] is False
    if as_json:
        assert json.loads(done.stdout)["photos"] == 36
    else:
        assert done.stdout.strip() == "the table"


def test_a_folder_of_ones_own_is_status_2(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-c", "from edgenn.cli import main; main()", "demo", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "not a demo's" in done.stderr
