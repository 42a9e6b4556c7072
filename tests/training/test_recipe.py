import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.training import Recipe
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
