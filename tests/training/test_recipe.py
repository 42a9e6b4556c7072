import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn import networks
from edgenn.training import Recipe
from edgenn.training.recipe import DEFAULTS
from edgenn_device.errors import EdgennError


@given(
    st.builds(
        dict,
        size=st.integers(8, 1024),
        epochs=st.integers(1, 1000),
        learning_rate=st.floats(1e-6, 1.0),
        classes=st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple),
        network_options=st.dictionaries(st.sampled_from(["width", "depth"]), st.integers(1, 9)),
    )
)
def test_a_recipe_survives_its_plain_values(settings):
    recipe = Recipe(**settings)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_toml_is_read_with_its_tables(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('size = 64\nclasses = ["a", "b"]\n[network_options]\nwidth = 8\n[augmentation]\nflip = false\n')
    recipe = Recipe.load(path)
    assert (recipe.size, recipe.classes, recipe.network_options) == (64, ("a", "b"), {"width": 8})
    assert not recipe.augmentation.flip
    assert recipe.augmentation.zoom == Recipe().augmentation.zoom


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "did you mean epochs?"),  # a setting that is nearly one
        ("wombat = 3", "choose from network"),  # one that is not
        ("[augmentation]\nflips = true", "[augmentation]: unknown setting 'flips': did you mean flip?"),  # in a table
        ("size = 4", "size 4 is not possible: 8 to 1024"),  # below its least
        ('size = "big"', "size 'big' is not possible"),  # of the wrong kind
        ("seed = true", "seed True is not possible"),  # a bool is not a number here
        ("learning_rate = nan", "learning_rate nan is not possible"),  # not a number
        ('resize = "squash"', "resize 'squash' is not one of"),  # a word that is not one of them
        ('colour = "cmyk"', "colour 'cmyk' is not one of"),
        ("augmentation = 3", "augmentation 3 is not possible: give a table"),  # no table
        ("network_options = 3", "network_options 3 is not possible: give a table"),
        ('classes = "dress"', "classes 'dress' is not possible: give a list of names"),  # a text, not its letters
        ("classes = [3]", "classes (3,) is not possible: give a list of names"),
        ("size = ", "is not TOML"),  # not TOML at all
    ],
)
def test_what_is_wrong_is_one_line_that_says_so(tmp_path, text, said):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(EdgennError, match=None) as caught:
        Recipe.load(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(EdgennError, match="cannot be read"):
        Recipe.load(tmp_path / "none.toml")
    (tmp_path / "picture.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgennError, match="not a text file"):
        Recipe.load(tmp_path / "picture.toml")


def test_what_is_left_open_is_chosen_by_network_and_mode():
    scratch, transfer = Recipe().resolved(), Recipe(network="mobilenet_v2", weights="imagenet").resolved()
    assert (scratch.size, transfer.size) == (networks.network("simple_cnn").size, networks.network("mobilenet_v2").size)
    for resolved, mode in ((scratch, "scratch"), (transfer, "transfer")):
        assert resolved.mode == mode
        assert {name: getattr(resolved, name) for name in DEFAULTS[mode]} == DEFAULTS[mode]
        assert None not in resolved.to_dict().values()
    assert Recipe(size=40, epochs=3, ema=0.0).resolved().replace(seed=1).differences(
        Recipe(size=40, epochs=3).resolved()
    ) == (("ema", "seed") if DEFAULTS["scratch"]["ema"] else ("seed",))
    assert DEFAULTS["scratch"].keys() == DEFAULTS["transfer"].keys()


@pytest.mark.parametrize(
    ("recipe", "photos", "epochs"),
    [
        (Recipe(), 3068, 40),  # 96 steps an epoch are enough
        (Recipe(), 180, 200),  # 6 steps an epoch
        (Recipe(batch=8), 180, 53),  # 23 of a smaller batch
        (Recipe(), 1, 1200),  # one photo is one step
        (Recipe(epochs=3), 180, 3),  # who gives a number gets it
        (Recipe(network="mobilenet_v2", weights="imagenet"), 180, 8),  # starts from trained weights
    ],
)
def test_few_photos_from_scratch_come_in_more_epochs(recipe, photos, epochs):
    resolved = recipe.resolved(photos)
    assert resolved.epochs == epochs
    usual = recipe.resolved()
    assert resolved.patience / resolved.epochs == pytest.approx(usual.patience / usual.epochs, abs=0.02)
    assert resolved.warmup / resolved.epochs == pytest.approx(usual.warmup / usual.epochs, abs=0.01)
    assert resolved.resolved(7) == resolved


def test_a_choice_is_kept_and_a_resolved_recipe_stays_as_it_is():
    chosen = Recipe(size=48, epochs=7, learning_rate=0.5, mixup=0.3)
    resolved = chosen.resolved()
    assert (resolved.size, resolved.epochs, resolved.learning_rate, resolved.mixup) == (48, 7, 0.5, 0.3)
    assert resolved.resolved() == resolved
    assert Recipe.from_dict(resolved.to_dict()) == resolved
    assert Recipe.from_dict(Recipe().to_dict()) == Recipe(), "what is open stays open"


def test_a_whole_number_may_be_written_with_a_point():
    recipe = Recipe(size=32.0, views=8.0, epochs=5.0, seed=1.0)
    assert recipe == Recipe(size=32, views=8, epochs=5, seed=1)
    assert all(isinstance(value, int) for value in (recipe.size, recipe.views, recipe.epochs, recipe.seed))


def test_settings_that_contradict_each_other_are_one_line():
    with pytest.raises(EdgennError, match=r"--fine-tune-from block_3 needs trained weights: give --weights too"):
        Recipe(fine_tune_from="block_3").resolved()
    with pytest.raises(EdgennError, match="leaves the size to the network"):
        Recipe().input  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"balance": "fair"}, "balance 'fair' is not one of none, weights, sampling"),
        ({"precision": "half"}, "precision 'half' is not one of"),
        ({"epochs": 2.5}, "epochs 2.5 is not possible: give a whole number"),
        ({"weights": 3}, "weights 3 is not possible: give a text"),
        ({"ema": 1.0}, "ema 1.0 is not possible"),
        ({"views": 0}, "views 0 is not possible"),
        ({"distill_weight": 1.5}, "distill_weight 1.5 is not possible"),
    ],
)
def test_a_setting_of_training_that_cannot_be_is_one_line(settings, said):
    with pytest.raises(EdgennError) as caught:
        Recipe(**settings)
    assert said in str(caught.value)
