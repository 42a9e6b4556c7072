"""Networks of one's own in a search: found from any folder, told apart by what is in them, shown by a short name."""

import warnings

import optuna
import pytest

from edgenn import networks
from edgenn.search import kept, searcher, space, study
from edgenn.search.outcome import Outcome
from edgenn.training import Recipe
from edgenn_device.errors import EdgennError

OWN = """
import keras

def build(input_shape, classes):
    layers = keras.layers
    return keras.Sequential([
        keras.Input(input_shape),
        layers.GlobalAveragePooling2D(),
        layers.Dense(classes, activation="softmax"),
    ])
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder with own.py, in which we are."""
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "own.py").write_text(OWN)
    monkeypatch.chdir(folder)
    return folder


def test_a_network_is_found_from_any_folder_and_shown_by_its_name(own):
    (path,) = space.checked(["own.py"], Recipe())
    assert path == str(own / "own.py")
    trial = optuna.trial.FixedTrial(space.defaults("own.py 12", path, Recipe()))
    recipe = space.recipe_for(trial, space.network_for(trial, {"own.py 12": path}, Recipe()), 1000)
    assert recipe.network == path
    assert Outcome(0, "done", recipe.to_dict()).name == "own.py 96 px"


def test_networks_are_told_apart_by_what_is_in_them(own, photos, tmp_path):
    def begun(path, out):
        url = f"sqlite:///{tmp_path}/shared.db"
        searcher.search(photos, tmp_path / out, networks=[path], storage=url, timeout=0.0)  # begins no trial
        return optuna.load_study(study_name=study.NAME, storage=url).trials

    (waiting,) = begun("own.py", "here")
    # As another machine has it.
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "own.py").write_text(OWN)
    assert begun(str(tmp_path / "copy" / "own.py"), "there") == [waiting]
    assert (tmp_path / "there" / kept.PAGE).is_file()
    (own / "own.py").write_text(OWN + "# changed")
    with pytest.raises(EdgennError, match=r"holds a search with other networks .*own.py [0-9a-f]{16}"):
        begun("own.py", "here")


def test_building_a_sequential_network_warns_of_nothing(own):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The structure of `inputs`")
        networks.build(str(own / "own.py"), (32, 32, 3), 2)
