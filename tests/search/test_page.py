"""What the page and the figure say of made-up trials, and that nothing in them is taken for markup."""

import re
import socket
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings

from edgenn import data
from edgenn.evaluation import plots
from edgenn.search.kept import Search
from edgenn.search.limits import Limits
from edgenn.search.outcome import Outcome
from edgenn.search.page import commands, page
from edgenn.search.plot import pareto
from edgenn.training import Recipe
from tests.search.made_up import RECIPE, trial, trials

DATASET = data.Dataset(
    root=Path("photos"),
    labels=("a", "b"),
    splits={"train": (), "validation": ()},
    split_rule="folders",
    duplicates=(),
    problems=(),
    fingerprint="0",
)


def made_search(tmp_path, outcomes, limits=None, photos="photos"):
    return Search(tmp_path, Path(photos), DATASET, limits or Limits(), "sqlite://", tuple(outcomes))


def test_names_are_escaped(tmp_path):
    evil = {**RECIPE, "network": "<script>alert(1)<script>.py"}
    outcomes = [
        trial(0, recipe=evil),
        Outcome(1, "unfit", evil, reason="<b>no</b>"),
        trial(2, passed=False, reason="<i>"),
        trial(3, folder="<u>", host="<u>", accuracy=0.99),
    ]
    text = page(made_search(tmp_path, outcomes, photos="<script>photos"))
    assert not re.search(r"<(script|b|i|u)>(alert|no|photos|<|;)", text)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;b&gt;no" in text


def test_a_page_of_nothing_stands_alone_too(tmp_path):
    text = page(made_search(tmp_path, []))
    assert "No trial is finished yet." in text
    assert "the same command" in text


def test_what_is_said_of_the_best(tmp_path):
    outcomes = [trial(0, 0.97, 0.05), trial(1, 0.9, 0.015, folder="/elsewhere/0001", host="other")]
    text = page(made_search(tmp_path, outcomes, Limits(0.02, 1_000_000)))
    assert "90.0%" in text
    assert "too slow" in text
    assert "optimistic" in text
    assert "It was trained on other, and is there in /elsewhere/0001." in text
    assert not re.search(r"(src|href|srcset)=\"(?!data:|#)", text)  # nothing is fetched


def test_none_within_the_limits(tmp_path):
    text = page(made_search(tmp_path, [trial(0, 0.97, 0.05)], Limits(0.02)))
    assert "None of 1 model keeps 20 ms; the nearest is simple_cnn" in text


def test_models_that_are_rejected_are_not_blamed_on_limits(tmp_path, monkeypatch):
    rejected = [trial(0, passed=False, reason="another label for 20% of the photos")]
    text = page(made_search(tmp_path, rejected))
    assert "None of 1 model passes the check of edgenn convert; the nearest is simple_cnn" in text
    assert "another label for 20% of the photos; train longer, or give more photos." in text
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    told = [entry.get_text() for entry in pareto(rejected, Limits()).legends[0].get_texts()]
    assert "beyond a limit, or rejected" in told


def test_a_best_whose_run_was_deleted_is_not_said_to_be_there(tmp_path):
    here = {"host": socket.gethostname(), "folder": str(tmp_path / "trials/0000")}
    outcomes = [trial(0, **here)]
    assert "is no longer in" in page(made_search(tmp_path, outcomes))
    (tmp_path / "trials/0000").mkdir(parents=True)  # of another process here, with a DIR of its own
    assert "is there in" in page(made_search(tmp_path, outcomes))


def test_photos_that_are_left_out_are_listed(tmp_path):
    problems = tuple(data.Problem(Path(f"photos/a/{number}.jpg"), "is cut off") for number in range(12))
    search = made_search(tmp_path, [])
    text = page(replace(search, dataset=replace(DATASET, problems=problems)))
    assert "photos/a/9.jpg: is cut off" in text
    assert "photos/a/10.jpg" not in text
    assert "Left out: 2 more" in text
    assert "Left out" not in page(search)


def test_commands_can_be_pasted(tmp_path):
    place = tmp_path / "it's here; rm -rf"
    lines = commands(made_search(place, [trial(0)], photos="my photos"))
    train = next(line for line in lines if line.startswith("edgenn train"))
    assert train.startswith("edgenn train 'my photos' --recipe '")
    assert "--epochs 40" in train  # twice the trial's
    assert not any(line.startswith("edgenn run") for line in lines)  # the run is not here


def test_few_photos_are_trained_on_as_long_as_train_would(tmp_path):
    photos = tuple(data.Picture(f"{number}.jpg", 0, "00" * 32) for number in range(180))
    few = replace(DATASET, splits={"train": photos, "validation": ()})
    lines = commands(replace(made_search(tmp_path, [trial(0)]), dataset=few))
    own = Recipe(network="simple_cnn").resolved(180).epochs
    assert any(f"--epochs {own} " in line for line in lines)


def test_epochs_that_the_recipe_gives_stay(tmp_path):
    lines = commands(replace(made_search(tmp_path, [trial(0)]), epochs=20))
    assert not any("--epochs" in line for line in lines)
    assert lines[0] == "# the best once more, with the 20 epochs that the recipe gives"


@settings(max_examples=4, deadline=None)
@given(trials(least=1))
def test_any_trials_can_be_drawn(made):
    outcomes = [*made, trial(99)]
    assert pareto(outcomes, Limits(0.002, 1_000_000)).startswith(b"\x89PNG")
    assert pareto(outcomes, Limits(), narrow=True).startswith(b"\x89PNG")
