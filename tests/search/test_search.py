"""Whole searches on small drawn photos: what they leave, killed and gone on with, two processes at one."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from edgenn import data
from edgenn.cli.search import _Screen, command
from edgenn.search import facts, kept, searcher, study, timing
from edgenn.search.limits import Limits
from edgenn.search.recipe_file import to_toml
from edgenn.search.trial import outcomes
from edgenn.search.watcher import Watcher
from edgenn.training import Recipe, Run
from edgenn_device import Classifier
from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.model_file import load
from tests.conftest import write_photos
from tests.search.made_up import converted

ROOT = Path(__file__).parents[2]
BASE = Recipe(size=16, epochs=2, batch=16, network_options={"width": 4, "depth": 1, "dropout": 0.0})
# Trained far enough that int8 gives the same labels.
GOOD = BASE.replace(size=32, epochs=8, learning_rate=0.01, network_options={"width": 8, "depth": 2, "dropout": 0.0})
NETWORKS = ("simple_cnn",)
ASKED = {"networks": NETWORKS, "recipe": GOOD, "limits": Limits(10.0, 10_000_000)}
CHILD = """
import json, os, signal, sys
from edgenn.search import searcher, timing, trial
from edgenn.training import Recipe
from tests.search.made_up import converted
from edgenn.search.watcher import Watcher

photos, out, storage, trials, recipe, die = sys.argv[1:]
timing.SECONDS = 0.05
trial.convert = converted
if die == "in training":
    heard = trial._Training.epoch
    def epoch(self, told):
        heard(self, told)
        os.kill(os.getpid(), signal.SIGKILL)
    trial._Training.epoch = epoch

class Waits(Watcher):
    def begin(self, number, name):
        if die == "wait":
            print("begun", flush=True)
            sys.stdin.readline()

result = searcher.search(photos, out, trials=int(trials), networks=("simple_cnn",), storage=storage or None,
                         recipe=Recipe.from_dict(json.loads(recipe)), watcher=Waits())
print(json.dumps(result.to_dict()))
"""


def child(photos, out, *, trials, storage="", die="", base=BASE):
    arguments = [str(photos), str(out), storage, str(trials), json.dumps(base.to_dict()), die]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=ROOT, text=True, **pipes)


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.05)


class Heard(Watcher):
    def __init__(self):
        self.ended, self.began, self.before, self.left_out = [], [], None, []

    def unreadable(self, problems):
        self.left_out += [problem.path.name for problem in problems]

    def joined(self, trials, released):
        self.before = trials, released

    def begin(self, number, name):
        self.began.append(number)

    def end(self, outcome, remark):
        self.ended.append((outcome, remark))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """(DIR, result) of a search of two trials, with photos that have a test folder."""
    folder = tmp_path_factory.mktemp("search")
    for number, split in enumerate(("train", "validation", "test")):
        write_photos(folder / "photos" / split, each=12, first_seed=100_000 * number)
    before, timing.SECONDS = timing.SECONDS, 0.05
    try:
        result = searcher.search(folder / "photos", folder / "out", trials=2, **ASKED)
    finally:
        timing.SECONDS = before
    return folder, result


def test_what_a_search_leaves(searched):
    folder, result = searched
    out = folder / "out"
    assert result.count("done", "stopped") == 2
    for name in (kept.FIGURE, kept.PAGE, kept.STUDY):
        assert (out / name).stat().st_size > 1000
    assert not list((out / kept.WORKERS).glob("[0-9a-f]*.lock"))  # nobody works here any more
    document = json.loads(json.dumps(result.to_dict()))
    assert document["trials"]["done"] == result.count("done")
    first = result.outcomes[0]
    assert (first.recipe["size"], first.recipe["epochs"], first.recipe["network_options"]["width"]) == (32, 8, 8)
    assert first.latency.runs >= 20
    assert first.bytes == (out / "trials/0000/model.tflite").stat().st_size
    assert first.macs > 0


def test_the_best_is_kept_as_a_run_with_its_recipe_and_its_test_figure(searched):
    folder, result = searched
    out, best = folder / "out", result.best
    searcher.check_found(result)
    run = Run.load(out / kept.BEST)
    assert run.recipe == Recipe.load(out / kept.RECIPE) == best.to_recipe()
    classifier = Classifier(load(out / kept.BEST / "model.tflite"))
    assert classifier.labels == run.labels
    assert result.test.split == "test"
    assert result.test.pictures == 36
    assert "on test photos" in (out / kept.PAGE).read_text()


def test_the_same_command_has_nothing_left_to_do_and_more_trials_go_on(searched):
    folder, result = searched
    heard = Heard()
    again = searcher.search(
        folder / "photos",
        folder / "out",
        trials=2,
        **ASKED,
        watcher=heard,
    )
    assert not heard.began
    assert [one.number for one in again.outcomes] == [one.number for one in result.outcomes]
    for changes, name in (
        ({"limits": Limits(1.0)}, "limits"),
        ({"networks": ("ds_cnn",), "recipe": Recipe()}, "networks"),
        ({"size": 20}, "recipe"),
        ({"classes": ("circle", "cross")}, "photos"),
    ):
        given = {**ASKED, **changes}
        with pytest.raises(EdgennError, match=f"holds a search with other {name}.*another --out or --storage"):
            searcher.search(folder / "photos", folder / "out", **given)


def test_the_command_tells_the_front_and_as_json_everything(searched, tmp_path):
    folder, result = searched
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(GOOD))
    command_line = [str(folder / "photos"), "--out", str(folder / "out"), "--networks", "simple_cnn", "--trials", "2"]
    command_line += ["--max-latency", "10s", "--max-size", "10MB", "--recipe", str(recipe)]
    told = CliRunner().invoke(command, command_line)
    assert told.exit_code == 0, told.output
    assert f"▸ {result.best.name}" in told.stdout
    assert "goes on after 2 trials\n" in told.stderr
    assert (
        f"next: edgenn train {folder / 'photos'} --recipe {folder / 'out'}/recipe.toml --out runs/best" in told.stdout
    )
    document = json.loads(CliRunner().invoke(command, [*command_line, "--json"]).stdout)
    assert document["best"]["number"] in document["front"]
    assert document["test"]["pictures"] == 36


def test_the_best_outlives_its_folder_in_trials(searched, tmp_path):
    folder, result = searched
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / kept.TRIALS)
    again = searcher.search(
        folder / "photos",
        tmp_path / "out",
        trials=2,
        **ASKED,
    )
    assert again.kept
    assert Run.load(tmp_path / "out" / kept.BEST).recipe == result.best.to_recipe()
    assert again.test.accuracy == result.test.accuracy
    assert again.to_dict()["model"] == str(tmp_path / "out/best/model.tflite")
    assert "It was trained on" not in (tmp_path / "out" / kept.PAGE).read_text()


def test_photos_that_cannot_be_read_are_told_once(photos, tmp_path):
    damaged = photos / "circle" / "damaged.png"
    damaged.write_bytes(b"not a picture")
    line = [str(photos), "--out", str(tmp_path / "out"), "--networks", "simple_cnn", "--timeout", "1us"]
    told = CliRunner().invoke(command, line).stderr
    assert told.count(f"left out   {damaged}: ") == 1
    screen = _Screen()
    heard = []
    screen._say = heard.append
    problems = tuple(data.Problem(Path(f"{number}.png"), "is cut off") for number in range(12))
    for _ in range(2):  # two trials
        screen.unreadable(problems)
    assert len(heard) == 11
    assert heard[-1] == "left out   2 more"


def test_what_it_goes_on_after():
    screen = _Screen()
    heard = []
    screen._say = heard.append
    for trials, released in ((0, 0), (1, 0), (2, 1)):
        screen.joined(trials, released)
    assert heard == [
        "search     goes on after 1 trial",
        "search     goes on after 2 trials; 1 broken off and tried again",
    ]


def test_weights_are_told_apart_by_what_is_in_them(photos, tmp_path):
    def begun(folder):
        # Begins no trial, and so never reads the weights.
        searcher.search(
            photos, tmp_path / "out", networks=NETWORKS, recipe=BASE, weights=[folder / "own.h5", "none"], timeout=0.0
        )

    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.h5").write_bytes(content)
    begun(tmp_path / "a")
    begun(tmp_path / "b")  # another place, the same weights
    with pytest.raises(EdgennError, match=r"holds a search with other weights .*own.h5 [0-9a-f]{16}"):
        begun(tmp_path / "c")


def test_killed_in_a_trial_and_gone_on_with(photos, tmp_path, monkeypatch):
    (photos / "circle" / "damaged.png").write_bytes(b"not a picture")
    process = child(photos, tmp_path / "out", trials=1, die="in training")
    errors = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, errors
    path = tmp_path / "out" / kept.STUDY
    with sqlite3.connect(path) as database:
        assert database.execute("select state from trials where number = 0").fetchall() == [("RUNNING",)]
    monkeypatch.setattr("edgenn.search.trial.convert", converted)
    heard = Heard()
    result = searcher.search(photos, tmp_path / "out", trials=1, networks=NETWORKS, recipe=BASE, watcher=heard)
    assert result.outcomes[0].state == "lost"
    assert len(heard.began) == 1
    assert heard.left_out == ["damaged.png"]
    assert heard.before == (0, 1)  # the one that was lost is no trial
    assert result.count("done") + result.count("stopped") == 1
    assert result.count("running") == 0
    trials = optuna.load_study(study_name=study.NAME, storage=f"sqlite:///{path}").trials
    assert trials[heard.began[0]].params == trials[0].params  # the same settings again
    assert not (tmp_path / "out" / "trials" / "0000").exists()
    assert not list((tmp_path / "out" / kept.WORKERS).glob("[0-9a-f]*.lock"))


def test_two_processes_share_one_search(photos, tmp_path):
    storage = f"sqlite:///{tmp_path}/shared.db"
    processes = [child(photos, tmp_path / name, trials=2, storage=storage, die="wait") for name in ("one", "two")]
    for process in processes:
        assert process.stdout.readline() == "begun\n", process.communicate()[1]
    for process in processes:  # each is at a trial of its own; both go on
        process.stdin.write("\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        answers.append(json.loads(out))
    found = outcomes(optuna.load_study(study_name=study.NAME, storage=storage))
    trained = [one for one in found if one.state in ("done", "stopped")]
    assert len(trained) == 2
    assert not any(one.state in ("lost", "running") for one in found)
    folders = {Path(one.folder).parent for one in trained}
    assert folders == {tmp_path / "one" / "trials", tmp_path / "two" / "trials"}
    assert max(len(answer["outcomes"]) for answer in answers) == len(found)


def test_a_search_is_not_written_among_the_photos(photos):
    with pytest.raises(EdgennError, match="lies in the photos"):
        searcher.search(photos, photos / "found", trials=1, networks=NETWORKS, recipe=BASE)
    assert not (photos / "found").exists()


def test_ctrl_c_puts_the_trial_back(photos, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgenn.search.trial.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searcher.search(photos, tmp_path / "out", trials=1, networks=NETWORKS, recipe=BASE)
    trials = optuna.load_study(study_name=study.NAME, storage=f"sqlite:///{tmp_path}/out/{kept.STUDY}").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "WAITING"]
    # The first trial's settings were given, not drawn: they stand with the trial that waits in the same way.
    assert trials[1].params == trials[0].params


def test_what_cannot_keep_the_limits_is_never_trained(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(searcher, "_MOST_UNFIT", 5)
    monkeypatch.setattr("edgenn.search.trial.train", None)  # would be called
    heard = Heard()
    result = searcher.search(
        photos, tmp_path / "out", trials=3, networks=("mobilenet_v1",), limits=Limits(size=20_000), watcher=heard
    )
    assert {one.state for one in result.outcomes} == {"unfit"}
    assert len(result.outcomes) == 5
    with pytest.raises(AnswerIsNo, match=r"no trial was finished .*kB is too large"):
        searcher.check_found(result)
    study_ = optuna.load_study(study_name=study.NAME, storage=f"sqlite:///{tmp_path}/out/{kept.STUDY}")
    assert all(trial.constraints["size"] > 0 for trial in study_.trials)


def test_trials_that_all_fail_end_the_search_with_their_reason(photos, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise EdgennError("the disk has gone: bring it back")

    monkeypatch.setattr("edgenn.search.trial.train", fails)
    with pytest.raises(EdgennError, match="the disk has gone"):
        searcher.search(photos, tmp_path / "out", trials=9, networks=NETWORKS, recipe=BASE)


def test_weights_that_fit_no_network_leave_it_out(tiny, tmp_path):
    # Trained weights of width 8 fit that width alone.
    own = Recipe(size=32, network_options={"width": 8, "depth": 2})
    known, weights = facts.facts(own, 3, (str(tiny / "run/model.keras"), "none"))
    assert weights.endswith("model.keras")
    assert known.macs > 0
    wider = own.replace(network_options={"width": 16, "depth": 2})
    assert facts.facts(wider, 3, (str(tiny / "run/model.keras"), "none"))[1] == "none"
    with pytest.raises(facts.Unfit, match="stem"):
        facts.facts(wider, 3, (str(tiny / "run/model.keras"),))


def test_a_latency_is_estimated_from_the_networks_before():
    from tests.search.made_up import trial

    here = trial(0, latency=0.010).latency.machine
    assert facts.rate([], here) is None
    rate = facts.rate([trial(0, latency=0.010), trial(1, latency=0.005), trial(2, latency=0.001, state="lost")], here)
    assert rate == pytest.approx(1_000_000 / 0.005)
    assert facts.rate([trial(0)], "another machine") is None
    limits = Limits(latency=0.02)
    facts.check(facts.Facts(1, 7_900_000, 1), limits, rate)  # about 39.5 ms: rough, so it is tried
    facts.check(facts.Facts(1, 10**12, 1), limits, None)  # nothing is known yet
    with pytest.raises(facts.Unfit, match=r"about 40.5 ms or more is too slow") as refused:
        facts.check(facts.Facts(1, 8_100_000, 1), limits, rate)
    assert refused.value.excess["latency"] > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--max-latency", "20"], "--max-latency '20' is not possible: give a number with its unit"),
        (["--max-size", "1 megabyte"], "--max-size '1 megabyte' is not possible"),
        (["--timeout", "soon"], "--timeout 'soon' is not possible"),
        (["--networks", "resnet9"], "unknown network 'resnet9': did you mean resnet8"),
        (["--weights", "no.h5"], "there are no weights at no.h5"),
        (["--storage", "postgres"], "--storage postgres is no database"),
        (["--storage", "sqlite:////nowhere/at/all.db"], "there is no folder /nowhere/at"),
        (["--trials", "0"], "--trials 0 searches nothing"),
    ],
)
def test_what_is_wrong_is_one_line(photos, tmp_path, arguments, line):
    result = CliRunner().invoke(command, [str(photos), "--out", str(tmp_path / "out"), *arguments])
    assert isinstance(result.exception, EdgennError), result.output
    assert line in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_password_is_not_shown(photos, tmp_path):
    url = "nosuchdatabase://me:secret@host/db"
    result = CliRunner().invoke(command, [str(photos), "--out", str(tmp_path / "out"), "--storage", url])
    assert "secret" not in str(result.exception)
    assert "me:***@host" in str(result.exception)


def test_a_folder_that_is_no_search(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(EdgennError, match="holds files that are not a search's"):
        searcher.search(photos, tmp_path / "out")


def test_a_place_with_odd_letters(photos, tmp_path):
    for letter in "?{}%":
        with pytest.raises(EdgennError, match="choose another --out"):
            searcher.search(photos, tmp_path / f"a{letter}b", networks=NETWORKS, recipe=BASE)
        assert not (tmp_path / f"a{letter}b").exists()
    out = tmp_path / "it's a #place@home: é"
    with study.opened(kept.address(out), out / kept.WORKERS, {"photos": "x"}, []) as memory:
        assert memory.trials() == []
    assert (out / kept.STUDY).is_file()
