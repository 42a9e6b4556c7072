"""A recipe written as TOML is read back as it was."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from edgenn.search.recipe_file import to_toml
from edgenn.training import Augmentation, Recipe

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        Recipe,
        network=TEXT,
        weights=TEXT,
        distill=TEXT,
        classes=st.lists(TEXT, max_size=3).map(tuple),
        network_options=st.dictionaries(st.sampled_from(["width", "alpha", "dropout"]), st.floats(0, 1)),
        size=st.none() | st.integers(8, 1024),
        learning_rate=st.none() | st.floats(1e-9, 10.0),
        augmentation=st.builds(Augmentation, flip=st.booleans(), erase=st.floats(0, 1)),
    )
)
def test_there_and_back(recipe):
    text = to_toml(recipe, "a heading\nof two lines")
    assert Recipe.from_dict(tomllib.loads(text)) == recipe
    assert text.startswith("# a heading\n# of two lines\n")
