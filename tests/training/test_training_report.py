"""A run's report finds what was planted among its photos, names it, and never costs the run."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import edgenn
from edgenn.cli.train import command
from edgenn.data import Picture, Problem
from edgenn.evaluation import Predictions
from edgenn.evaluation.evaluate import judged
from edgenn.training import Run, report, survey
from edgenn.training.advice import advise
from edgenn.training.findings import Copies, Doubt, Findings, Pair, Photo
from edgenn.training.fit import Epoch
from edgenn.training.watcher import Watcher
from tests.conftest import draw, write_photos
from tests.training.samples import recipe, shapes

SMALL = {"size": 16, "epochs": 2, "batch": 16, "network_options": {"width": 4, "depth": 1, "dropout": 0.0}}


class Page(HTMLParser):
    """Collects tags, what they refer to, and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.references, self.anchors, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset")]
        self.anchors += [value for name, value in attributes if name == "id"]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


class Telling(Watcher):
    """Keeps what the report tells."""

    def __init__(self):
        self.surveyed, self.failures = [], []

    def surveying(self, done, total):
        self.surveyed.append((done, total))

    def no_report(self, reason):
        self.failures.append(reason)


@pytest.fixture(scope="module")
def planted(made_once) -> Path:
    """A run on photos among which a copy in both splits, a contradiction, a blurred and a small one are planted."""

    def make(folder: Path) -> None:
        root = folder / "photos"
        for split, each in (("train", 24), ("validation", 8)):
            write_photos(root / split, each=each, first_seed=500 * len(split))
        leaked = cv2.imread(str(root / "train/circle/03.png"))
        cv2.imwrite(str(root / "validation/circle/leaked.png"), cv2.convertScaleAbs(leaked, alpha=1.05, beta=3))
        twice = cv2.imread(str(root / "train/square/05.png"))
        cv2.imwrite(str(root / "train/cross/twice.png"), cv2.convertScaleAbs(twice, alpha=0.97))
        blurred = cv2.GaussianBlur(draw("square", 77, size=64), (0, 0), 8)
        cv2.imwrite(str(root / "train/square/blurred.png"), blurred)
        cv2.imwrite(str(root / "train/square/small.png"), draw("square", 78)[4:14])
        edgenn.train(root, folder / "run", report=True, **{**SMALL, "size": 24, "epochs": 4})

    return made_once("planted", make)


def document(run: Path) -> dict:
    return json.loads((run / "report.json").read_text())


def test_planted_faults_are_found_and_the_page_shows_them(planted):
    found = document(planted / "run")
    copies = [(pair["one"]["path"], pair["other"]["path"]) for pair in found["copies_across_splits"]]
    assert copies == [("validation/circle/leaked.png", "train/circle/03.png")]
    contradictions = [{pair["one"]["path"], pair["other"]["path"]} for pair in found["copies_across_labels"]]
    assert contradictions == [{"train/square/05.png", "train/cross/twice.png"}]
    assert [photo["path"] for photo in found["blurred"]] == ["train/square/blurred.png"]
    assert [(photo["path"], photo["side"]) for photo in found["small"]] == [("train/square/small.png", 10)]
    assert found["photos"] == {"total": 100, "looked_at": 100, "judged": 100, "measured": 100}
    page = Page((planted / "run/report.html").read_text())
    assert {"result", "next", "classes", "confusion", "copies", "blurred", "small", "calibration", "how"} <= {
        *page.anchors
    }
    for text in ("validation/circle/leaked.png", "train/cross/twice.png", "train/square/blurred.png", "10 pixels"):
        assert text in page.text


def test_the_page_stands_alone_and_every_link_leads_to_a_section(planted):
    html = (planted / "run/report.html").read_text()
    page = Page(html)
    links = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert links
    assert set(links) <= set(page.anchors)
    assert all(reference.startswith(("#", "data:image/")) for reference in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", html)
    assert len(html) < 3_000_000


def test_figures_are_those_of_the_run(planted):
    run, found = Run.load(planted / "run"), document(planted / "run")
    assert found["evaluation"]["accuracy"] == pytest.approx(run.accuracy)
    assert found["evaluation"]["pictures"] == run.pictures == 25
    assert found["trained_on"] == {"circle": 24, "cross": 25, "square": 26}
    assert sum(sum(row) for row in found["evaluation"]["confusion"]) == 25
    measured = edgenn.evaluate(run.model, planted / "photos", split="validation")
    assert found["evaluation"]["classes"] == measured.classes


def test_read_gives_the_advice_back(planted):
    place, advice = report.read(planted / "run")
    assert place == planted / "run/report.html"
    assert [item.to_dict() for item in advice] == document(planted / "run")["advice"]
    assert report.read(planted / "photos") is None


def test_a_report_that_fails_is_a_warning_and_the_run_is_there(photos, tmp_path, monkeypatch):
    def broken(*given, **more):
        raise ValueError("no\nsuch thing")

    monkeypatch.setattr(report, "survey", broken)
    watcher = Telling()
    run = edgenn.train(photos, tmp_path / "run", watcher=watcher, report=True, **SMALL)
    assert watcher.failures == ["ValueError: no such thing"]
    assert Run.load(tmp_path / "run").accuracy == run.accuracy
    assert not (tmp_path / "run/report.html").exists()


def test_three_photos_a_class_and_hostile_names(tmp_path):
    names = {"circle": "<img src=x onerror=alert(1)>", "cross": "{{ 7*7 }} & co", "square": "dollar $x^2$"}
    write_photos(tmp_path / "photos", each=3)
    for plain, hostile in names.items():
        (tmp_path / "photos" / plain).rename(tmp_path / "photos" / hostile)
    for index, path in enumerate(sorted((tmp_path / "photos" / names["circle"]).iterdir())):
        path.rename(path.with_name(f"<b>\udcff{index}.png"))
    watcher = Telling()
    edgenn.train(tmp_path / "photos", tmp_path / "run", watcher=watcher, report=True, **SMALL)
    assert watcher.failures == []
    page = Page((tmp_path / "run/report.html").read_text("utf-8"))
    assert all(reference.startswith(("#", "data:image/")) for reference in page.references)
    assert all(name in page.text for name in names.values())
    assert document(tmp_path / "run")["photos"]["judged"] == 0


def test_when_the_time_is_up_a_random_part_was_looked_at():
    keras = pytest.importorskip("keras")
    training, validation = shapes(200, 0), shapes(60, 9000)
    inputs = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(pooled))
    watcher = Telling()
    seen = survey.survey(model, training, validation, watcher.surveying, asking=0, looking=0)
    assert len(seen.pictures) == len(seen.labels) == len(seen.looks.sharpness) == 256
    assert seen.total == 780
    assert watcher.surveyed == [(256, 780), (780, 780)]
    assert 0.6 < seen.trained_on.mean() < 0.9
    # The features belong to the photos: they are the means of the colours of each.
    for place in range(256):
        feed = training if seen.trained_on[place] else validation
        pixels = feed.rows(seen.places[place : place + 1])[0]
        assert seen.features[place] == pytest.approx(pixels.mean((0, 1)), rel=1e-4)
        assert seen.pictures[place] is feed.pictures[seen.places[place]]
    everything = survey.survey(model, training, validation)
    assert len(everything.pictures) == len(everything.features) == 780


def found_of(scores=None, truth=None, labels=("hat", "shirt", "t-shirt"), epochs=None, **changes) -> Findings:
    """Findings of a run whose answers are given: by default 100 of each class, all right and sure."""
    truth = np.repeat(np.arange(len(labels)), 100) if truth is None else np.asarray(truth)
    scores = np.eye(len(labels), dtype=np.float32)[truth] if scores is None else scores
    pictures = [Picture(f"photos/{labels[label]}/{i}.jpg", int(label), f"{i:064x}") for i, label in enumerate(truth)]
    evaluation = judged(
        Predictions(scores, "by hand"), pictures, truth, labels,
        model=Path("run/model.keras"), photos=Path("photos"), split="validation", started=0.0,
    )  # fmt: skip
    epochs = epochs or (Epoch(1, 1.0, 0.9, 1.0, 0.9, 0.001, 1.0), Epoch(2, 1.0, 0.9, 1.0, 0.8, 0.001, 1.0))
    run = Run(
        Path("run"), Path("photos"), labels, recipe(weights="imagenet"), "", 10, len(epochs), 1, 1.0,
        evaluation.accuracy, len(truth), False, {},
    )  # fmt: skip
    values = {
        "run": run, "epochs": epochs, "evaluation": evaluation, "trained_on": dict.fromkeys(labels, 400), "pairs": (),
        "doubts": (), "judged": 1500, "leaked": (), "unleaked_accuracy": None, "contradictions": (), "blurred": (),
        "looked": 1500, "small": (), "measured": 1500, "total": 1500, "unreadable": (),
    }  # fmt: skip
    return Findings(**{**values, **changes})


def photo(label="hat", number=1, split="train"):
    return Photo(Path(f"photos/{label}/{number}.jpg"), f"{label}/{number}.jpg", label, split)


def wrong(count, sure=1.0):
    """Scores of 300 photos of three classes, of which so many shirts are taken for t-shirts."""
    scores = np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], 100)]
    scores[100 : 100 + count] = [0, 1 - sure, sure]
    return scores


PAIR = Pair(("shirt", "t-shirt"), 14, 200, (photo("shirt"),) * 14, ("t-shirt",) * 14, (0.9,) * 14)


@pytest.mark.parametrize(
    ("changes", "said", "done"),
    [
        # two classes taken for each other
        ({"pairs": (PAIR,)}, "shirt and t-shirt are taken for each other in 14 of 200", "these 14 photos"),
        # a class with few photos, and how many to add
        ({"trained_on": {"hat": 12, "shirt": 400, "t-shirt": 300}}, "hat has 12 photos to learn from", "Add 63 of hat"),
        # labels that look wrong
        ({"doubts": (Doubt(photo(), "shirt", 0.9),) * 5}, "5 labels of 1,500 look wrong", "train again"),
        # one of them: in the singular
        ({"doubts": (Doubt(photo(), "shirt", 0.9),)}, "1 label of 1,500 looks wrong, first of all hat/1.jpg", "at it"),
        # copies in both splits, and what is left of the accuracy
        (
            {"leaked": (Copies(photo(), photo("hat", 2)),) * 30, "unleaked_accuracy": 0.7},
            "30 validation photos of 300 are also among the training photos, or nearly so: without them the accuracy "
            "is 70.0%",
            "remove the copies",
        ),
        # one photo under two labels
        ({"contradictions": (Copies(photo(), photo("shirt")),)}, "1 photo is there twice under two", "which label"),
        # blurred ones
        ({"blurred": (photo(),) * 3}, "3 photos of 1,500 are blurred", "Delete"),
        # smaller than the input
        ({"small": ((photo(), 20),)}, "1 photo of 1,500 is smaller than the input of 32 pixels", "--size"),
        # files that cannot be read
        ({"unreadable": (Problem(Path("a"), "cut"),) * 2}, "2 files or folders could not be used", "again"),
        # few validation photos
        ({"truth": np.repeat([0, 1, 2], 5)}, "15 validation photos tell the accuracy to ±", "points"),
        # a class that is found more rarely than all others
        ({"scores": wrong(60)}, "shirt is the weakest class: 60 of 100", "It has 400 photos"),
        # surer than right
        ({"scores": wrong(60)}, "It is surer than it should be: 100% sure on average, and 80% right", "mistakes"),
        # learnt by heart
        (
            {"scores": wrong(60), "epochs": (Epoch(1, 1.0, 0.99, 1.0, 0.8, 0.1, 1.0),) * 2},
            "It knows its training photos by heart: 99% are right, and 80% of others",
            "More photos",
        ),
        # not learnt at all
        (
            {"scores": wrong(60), "epochs": (Epoch(1, 1.0, 0.6, 1.0, 0.8, 0.1, 1.0),) * 2},
            "It does not even learn its training photos: 60%",
            "--size than 32",
        ),
    ],
)
def test_advice_states_the_figure_and_what_to_do(changes, said, done):
    fitting = [item for item in advise(found_of(**changes)) if said in item.fact]
    assert len(fitting) == 1
    assert done in fitting[0].do


def test_where_nothing_is_wrong_nothing_is_advised_and_the_page_says_so():
    found = found_of()
    assert advise(found) == ()
    assert "Nothing stands out" in Page(report.page(found, ())).text


def test_what_touches_more_photos_comes_first():
    small = replace(PAIR, labels=("hat", "shirt"), count=2)
    facts = [item.fact for item in advise(found_of(scores=wrong(14), pairs=(PAIR, small), blurred=(photo(),)))]
    pairs = [index for index, fact in enumerate(facts) if "taken for each other" in fact]
    assert facts[pairs[0]].startswith("shirt and t-shirt")
    assert pairs[0] < pairs[1]
    assert "blurred" in facts[-1]


def test_a_run_from_nothing_is_told_of_trained_weights_and_one_still_learning_to_go_on():
    found = found_of(scores=wrong(60))
    assert not [item for item in advise(found) if item.command]
    run = replace(found.run, recipe=recipe(), best_epoch=2)
    commands = [item.command for item in advise(replace(found, run=run))]
    assert "edgenn train PHOTOS --out RUN --network mobilenet_v2 --weights imagenet" in commands
    assert "edgenn train PHOTOS --out RUN --epochs 4" in commands


def test_a_model_no_better_than_the_most_frequent_class_is_said_to_be_so():
    truth = [0] * 90 + [1] * 10
    scores = np.tile(np.array([[0.9, 0.1]], np.float32), (100, 1))
    html = report.page(found_of(scores, truth, ("hat", "shirt")), ())
    assert "not shown to be better than always answering with the most frequent class" in html


def test_gone_photos_cost_no_page():
    found = found_of(doubts=(Doubt(photo(), "shirt", 0.9),), blurred=(photo(),), pairs=(PAIR,))
    assert "Labels that look wrong" in report.page(found, advise(found))


def test_history_and_report_tell_the_same_epoch(planted):
    rows = list(csv.DictReader((planted / "run/history.csv").open()))
    run = Run.load(planted / "run")
    assert float(rows[run.best_epoch - 1]["val_accuracy"]) == pytest.approx(run.accuracy, abs=1e-4)
    assert f"4 epochs, the best was {run.best_epoch}" in Page((planted / "run/report.html").read_text()).text


def test_names_of_no_unicode_can_be_written():
    odd = Photo(Path("photos/\udcff.jpg"), "\udcff.jpg", "hat", "train")
    found = found_of(doubts=(Doubt(odd, "shirt", 0.9),))
    assert json.loads(report.document(found, advise(found)))["likely_wrong_labels"][0]["path"] == "\udcff.jpg"
    report.page(found, advise(found)).encode("utf-8")


def test_the_verb_names_the_report_and_the_first_advice(photos, tmp_path):
    settings = ["--size", "16", "--epochs", "1", "--batch", "16", "--width", "4", "--depth", "1"]
    done = CliRunner().invoke(command, [str(photos), "--out", str(tmp_path / "run"), *settings])
    assert done.exit_code == 0, done.output
    place, advice = report.read(tmp_path / "run")
    assert str(place) in done.stdout
    assert [f"{number}. {item.fact}" in done.stdout for number, item in enumerate(advice, 1)] == [
        number <= 3 for number in range(1, len(advice) + 1)
    ]
    done = CliRunner().invoke(command, [str(photos), "--out", str(tmp_path / "other"), *settings, "--json"])
    told = json.loads(done.stdout)
    assert told["report"] == str(tmp_path / "other/report.html")
    assert len(told["advice"]) == len(report.read(tmp_path / "other")[1])
