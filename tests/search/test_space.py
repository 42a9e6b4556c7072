"""What is searched: every network's own settings among it, nothing that the recipe fixes."""

import json
import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn import networks
from edgenn.search import space
from edgenn.training import Augmentation, Recipe
from edgenn_device.errors import EdgennError


def fixed(name, base=None, photos=100_000, **changes):
    """The recipe of the trial with default parameters, some of them changed."""
    base = base or Recipe()
    trial = optuna.trial.FixedTrial({**space.defaults(name, name, base), **changes})
    return space.recipe_for(trial, space.network_for(trial, {name: name}, base), photos)


@pytest.mark.parametrize("name", networks.names())
def test_the_first_trial_of_a_network_is_the_network_as_it_comes(name):
    network, recipe = networks.network(name), fixed(name)
    own = Recipe(network=name).resolved()
    assert recipe.size == network.size
    assert {**network.options, **recipe.network_options} == network.options
    assert (recipe.learning_rate, recipe.augmentation) == (own.learning_rate, own.augmentation)
    assert recipe.epochs == own.epochs / 2


def test_few_photos_get_the_epochs_of_a_training_on_few():
    own, recipe = Recipe(network="simple_cnn").resolved(180), fixed("simple_cnn", photos=180)
    assert recipe.epochs == math.ceil(own.epochs / 2) > Recipe(network="simple_cnn").resolved().epochs
    assert recipe.patience == own.patience


@pytest.mark.parametrize("name", networks.names())
def test_every_choice_can_be_built_as_far_as_its_size_goes(name):
    network = networks.network(name)
    options = space.OPTIONS.get(name, {})
    assert set(options) <= set(network.options)
    largest = {option: values[-1] for option, values in options.items()}
    assert min(network.sizes) >= network.smallest(**{**network.options, **largest})
    smallest = {option: values[0] for option, values in options.items()}
    networks.build(name, (min(network.sizes),) * 2 + (3,), 3, **smallest)


@settings(deadline=None)  # the first one loads Keras
@given(st.data())
def test_any_trial_is_a_recipe(data):
    name = data.draw(st.sampled_from(networks.names()))
    network = networks.network(name)
    changes = {
        f"{name}.{option}": data.draw(st.sampled_from(list(values)))
        for option, values in space.OPTIONS.get(name, {}).items()
    }
    changes[f"{name}.size"] = data.draw(st.sampled_from(network.sizes))
    changes["augmentation"] = data.draw(st.sampled_from(space.STRENGTHS))
    changes["learning_rate"] = data.draw(st.floats(*space.LEARNING_RATES))
    recipe = fixed(name, **changes)
    assert recipe.size in network.sizes  # the steps between the sizes meet each of them
    assert recipe.resolved() == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_what_the_recipe_says_is_not_searched():
    base = Recipe(size=40, learning_rate=0.01, epochs=3, network_options={"width": 12, "dropout": 0.1})
    names = {key for network in networks.names() for key in space.defaults(network, network, base)}
    assert not any(key.endswith((".size", ".width")) for key in names)
    assert "learning_rate" not in names
    recipe = fixed("simple_cnn", base, **{"simple_cnn.depth": 3})
    assert (recipe.size, recipe.learning_rate, recipe.epochs) == (40, 0.01, 3)
    assert recipe.network_options == {"width": 12, "dropout": 0.1, "depth": 3}
    # An option that a network does not have is not given to it.
    assert fixed("efficientnet_lite0", base).network_options == {"dropout": 0.1}


def test_an_option_that_no_network_has_is_refused():
    with pytest.raises(EdgennError, match="none of simple_cnn, resnet8 has the option 'alpha'"):
        space.checked(["simple_cnn", "resnet8"], Recipe(network_options={"alpha": 1.0}))
    with pytest.raises(EdgennError, match="did you mean simple_cnn"):
        space.checked(["simple_cn"], Recipe())
    assert space.checked([], Recipe()) == networks.names()


@given(st.sampled_from(space.STRENGTHS))
def test_augmentation_grows_with_its_strength_and_stays_possible(strength):
    strong = Augmentation(rotation=170.0, shift=0.5, zoom=0.9, crop=0.9, erase=1.0)
    assert space.scaled(strong, strength).rotation == min(180.0, 170.0 * strength)
    assert space.scaled(Augmentation(flip=False), strength).flip is False  # letters must not be mirrored
    assert space.scaled(Augmentation(), 1.0) == Augmentation()
    assert space.scaled(Augmentation(), 0.0) == Augmentation(False, *[0.0] * 8)
