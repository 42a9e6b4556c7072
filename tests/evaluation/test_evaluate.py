"""Evaluation of models whose answers are known, on photos whose labels are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenn import data
from edgenn.evaluation import Model, evaluate
from edgenn.evaluation.metrics import wilson_interval
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError

COLOURS = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}  # BGR


def by_colour(tensors):
    """Scores of (red, green, blue): the share of each channel of an RGB picture."""
    sums = tensors.reshape(len(tensors), -1, 3).sum(axis=1).astype(np.float32)
    return sums / sums.sum(axis=1, keepdims=True)


# Its outputs are in another order than the folders.
MODEL = Model("colours.tflite", ("red", "green", "blue"), 3, InputSpec(8, 8), "by hand 1.0", "", "", (), by_colour)


def paint(path: Path, colour: str, seed: int) -> None:
    """A picture of one colour, the other two a little above zero; each seed gives other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    picture = np.clip(np.array(COLOURS[colour]) + random.integers(0, 60, (12, 10, 3)), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), picture)


@pytest.fixture
def photos(tmp_path):
    """Five pictures each of blue, green and red; two more blue ones stand among the red, and one among the green."""
    folder = tmp_path / "photos"
    for number, colour in enumerate(COLOURS):
        for index in range(5):
            paint(folder / colour / f"{index}.png", colour, 10 * number + index)
    paint(folder / "red" / "wrong-1.png", "blue", 100)
    paint(folder / "red" / "wrong-2.png", "blue", 101)
    paint(folder / "green" / "wrong-3.png", "blue", 102)
    return folder


def in_splits(tmp_path, splits):
    """PHOTOS/SPLIT/<class>/*, as many of every class as `splits` says."""
    for place, (part, each) in enumerate(splits.items()):
        for number, colour in enumerate(COLOURS):
            for index in range(each):
                paint(tmp_path / "split" / part / colour / f"{index}.png", colour, 1000 * place + 100 * number + index)
    return tmp_path / "split"


def test_classes_are_matched_by_name_and_every_figure_follows(photos):
    result = evaluate(MODEL, photos)
    assert (result.split, result.pictures, result.wrong) == ("all", 18, 3)
    assert result.accuracy == pytest.approx(15 / 18)
    assert result.interval[0] < result.accuracy < result.interval[1]
    assert result.labels == ("red", "green", "blue")
    assert result.confusion.tolist() == [[5, 0, 2], [0, 5, 1], [0, 0, 5]]
    red = result.classes["red"]
    assert red.items() >= {"precision": 1.0, "recall": 5 / 7, "f1": 10 / 12, "pictures": 7}.items()
    assert red["recall_interval"] == pytest.approx(wilson_interval(5, 7))
    assert red["precision_interval"] == pytest.approx(wilson_interval(5, 5))
    assert result.classes["blue"]["precision"] == 5 / 8
    pairs = [(pair.true, pair.predicted, pair.count) for pair in result.confused]
    assert pairs == [("red", "blue", 2), ("green", "blue", 1)]
    assert result.runtime == "by hand 1.0"


def test_the_worst_pictures_are_the_wrong_ones_surest_first(photos):
    result = evaluate(MODEL, photos)
    assert {mistake.path.name for mistake in result.worst} == {"wrong-1.png", "wrong-2.png", "wrong-3.png"}
    confidences = [mistake.confidence for mistake in result.worst]
    assert confidences == sorted(confidences, reverse=True)
    assert all(mistake.predicted == "blue" and mistake.true == mistake.path.parent.name for mistake in result.worst)


def test_predictions_and_paths_stay_together(photos):
    result = evaluate(MODEL, photos)
    for path, truth, top in zip(result.paths, result.truth, result.predictions.top1, strict=True):
        assert MODEL.labels[truth] == path.parent.name
        assert MODEL.labels[top] == ("blue" if "wrong" in path.name else path.parent.name)


def test_json_holds_everything_but_the_predictions(photos):
    document = json.loads(json.dumps(evaluate(MODEL, photos).to_dict(), allow_nan=False))
    assert {"model", "runtime", "pictures", "accuracy", "classes"} <= set(document)  # names that ARCHITECTURE fixes
    assert document["classes"]["green"]["pictures"] == 6
    assert document["confusion"][0] == [5, 0, 2]
    assert document["worst"][0]["path"].startswith(str(photos))


def test_folders_may_be_fewer_than_the_model_knows(photos):
    result = evaluate(MODEL, photos, classes=["green", "red"])
    # Blue has no pictures, yet is answered: it is shown, with no recall.
    blue = result.classes["blue"]
    assert blue.items() >= {"precision": 0.0, "recall": None, "f1": 0.0, "pictures": 0, "recall_interval": None}.items()
    assert result.pictures == 13


def test_classes_of_a_large_model_that_do_not_occur_are_not_listed(photos):
    def scores(tensors):
        return np.pad(by_colour(tensors), ((0, 0), (0, 997)))

    large = replace(MODEL, labels=(*MODEL.labels, *(f"other {i}" for i in range(997))), classes=1000, scores=scores)
    result = evaluate(large, photos)
    assert result.confusion.shape == (3, 3)
    assert result.predictions.probabilities.shape == (18, 1000)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (("red", "Green", "blue"), r"does not know green \(did you mean Green\?\)"),  # case is part of a name
        (("red", "lime, green", "blue"), r'did you mean "lime, green"\?'),  # ImageNet's labels are lists of synonyms
        (("a", "b", "c"), r"does not know blue, green, red; its labels are a, b, c"),
        (("red", "red", "blue"), r"does not know green, red.*its labels are red #0, red #1, blue"),  # told apart
    ],
)
def test_a_folder_that_the_model_does_not_know_is_refused(photos, labels, line):
    with pytest.raises(EdgennError, match=line):
        evaluate(replace(MODEL, labels=labels), photos)


def test_the_refusal_says_which_folders_could_be_used(photos):
    model = replace(MODEL, labels=("red", "cyan", "blue"), fingerprint="of other photos")
    with pytest.raises(EdgennError, match="--classes blue,red") as refusal:
        evaluate(model, photos)
    assert "\n" not in str(refusal.value)
    assert evaluate(model, photos, classes=["blue", "red"]).pictures == 12


def test_names_are_compared_as_letters_not_as_bytes(tmp_path):
    folder = tmp_path / "photos"
    for index in range(3):
        paint(folder / "cafe\N{COMBINING ACUTE ACCENT}" / f"{index}.png", "red", index)
        paint(folder / "tea" / f"{index}.png", "green", 10 + index)
    named = replace(MODEL, labels=("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "tea", "milk"))
    assert evaluate(named, folder).accuracy == 1.0


def test_a_model_without_labels_takes_the_folders_in_order_and_says_so(photos):
    nameless = replace(MODEL, labels=(), scores=lambda tensors: by_colour(tensors)[:, ::-1])  # blue, green, red
    result = evaluate(nameless, photos)
    assert result.accuracy == pytest.approx(15 / 18)
    assert "sorted order" in result.notes[0]
    with pytest.raises(EdgennError, match="give --labels"):
        evaluate(nameless, photos, classes=["green", "red"])


@pytest.mark.parametrize(
    ("splits", "asked", "used", "pictures"),
    [
        ({"train": 4, "validation": 3, "test": 2}, None, "test", 6),  # test goes first
        ({"train": 4, "validation": 3}, None, "validation", 9),  # then validation
        ({"train": 4, "validation": 3, "test": 2}, "validation", "validation", 9),  # what was asked for goes before
        ({"train": 4, "validation": 3, "test": 2}, "train", "train", 12),
        ({"train": 4, "validation": 3, "test": 2}, "all", "all", 27),
        ({"train": 6, "test": 2}, None, "test", 6),  # validation is split off train, test is still a folder
    ],
)
def test_the_split(tmp_path, splits, asked, used, pictures):
    result = evaluate(MODEL, in_splits(tmp_path, splits), split=asked)
    assert (result.split, result.pictures) == (used, pictures)


def test_a_split_that_is_not_there_is_refused(tmp_path, photos):
    with pytest.raises(EdgennError, match="no test pictures: --split takes train, validation or all"):
        evaluate(MODEL, in_splits(tmp_path, {"train": 3, "validation": 2}), split="test")
    with pytest.raises(EdgennError, match="choose one of train, validation, test, all"):
        evaluate(MODEL, photos, split="dev")


def test_photos_that_the_model_was_trained_on_are_tried_on_its_validation_split(photos):
    dataset = data.scan(photos)
    trained = replace(MODEL, fingerprint=dataset.fingerprint, trained_on=dataset.sample)
    result = evaluate(trained, photos)
    assert result.split == "validation"
    assert set(result.paths) == {picture.path for picture in dataset.splits["validation"]}
    assert not result.notes
    assert "trained on these pictures" in evaluate(trained, photos, split="all").notes[0]


@pytest.mark.parametrize("split", [None, "validation"])
def test_photos_of_which_some_were_trained_on_are_tried_on_the_others(photos, split):
    """One photo more, or two classes of three: another fingerprint, and the same training photos."""
    before = data.scan(photos)
    trained = replace(MODEL, fingerprint=before.fingerprint, trained_on=before.sample)
    some = evaluate(trained, photos, split=split, classes=["red", "blue"])
    paint(photos / "red" / "new.png", "red", 99)
    more = evaluate(trained, photos, split=split)
    seen = {picture.path for picture in before.splits["train"]}
    for result in (some, more):
        assert result.split == "validation"
        assert seen.isdisjoint(result.paths)
        said = ("The model was trained on some of these photos: it is measured on those set aside by content.",)
        assert result.notes == (said if split is None else ())
    assert "trained on these pictures" in evaluate(trained, photos, split="train").notes[0]
    assert "trained on these pictures" in evaluate(trained, photos, split="all").notes[0]


def test_photos_that_it_has_never_seen_are_all_tried(photos, tmp_path):
    before = data.scan(photos)
    trained = replace(MODEL, fingerprint=before.fingerprint, trained_on=before.sample)
    for colour in ("red", "blue"):
        for index in range(4):
            paint(tmp_path / "new" / colour / f"{index}.png", colour, 5000 + index)
    result = evaluate(trained, tmp_path / "new")
    assert (result.split, result.pictures, result.notes) == ("all", 8, ())


def test_a_model_trained_on_some_folders_is_tried_on_those(photos):
    some = replace(MODEL, labels=("red", "cyan", "blue"), fingerprint=data.scan(photos, ["blue", "red"]).fingerprint)
    result = evaluate(some, photos)
    assert result.split == "validation"
    assert {path.parent.name for path in result.paths} == {"blue", "red"}
    assert result.notes == ("Left out green: the model was trained on the other folders alone.",)


def test_pictures_that_cannot_be_read_are_left_out_and_named(photos):
    whole = (photos / "red" / "0.png").read_bytes()
    (photos / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "red" / "empty.jpg").touch()
    result = evaluate(MODEL, photos)
    assert result.pictures == 18
    assert {problem.path.name for problem in result.problems} == {"cut.png", "empty.jpg"}


def test_progress_ends_with_all_pictures(photos):
    seen = []
    evaluate(MODEL, photos, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)
    assert seen == sorted(seen)


def test_more_pictures_than_are_held_in_memory_at_once(tmp_path, monkeypatch):
    import sys

    folder = in_splits(tmp_path, {"train": 2, "validation": 7})
    whole = evaluate(MODEL, folder)
    monkeypatch.setattr(sys.modules["edgenn.evaluation.evaluate"], "_CHUNK", 4)
    parts = evaluate(MODEL, folder)
    assert parts.paths == whole.paths
    np.testing.assert_array_equal(parts.predictions.probabilities, whole.predictions.probabilities)
