"""The model zoo: what stands in models/ is what it says it is."""

from pathlib import Path

from edgenn.data import garments as garments_set
from edgenn.demo.road import RECIPE
from edgenn.training import Recipe
from edgenn_device import golden, model_file
from edgenn_device.cameras.synthetic import SyntheticSource
from edgenn_device.classifier import Classifier
from edgenn_device.interpreter import Interpreter

MODELS = Path(__file__).parents[1] / "models"
GARMENTS = MODELS / "garments" / "garments.tflite"


def test_the_recipe_in_the_zoo_is_the_demo_s():
    assert Recipe.load(MODELS / "garments" / "recipe.toml") == RECIPE


def test_every_recipe_can_be_read():
    recipes = sorted(MODELS.glob("*/recipe.toml"))
    assert recipes
    for path in recipes:
        Recipe.load(path)


def test_the_garments_model_is_small_complete_and_computes_here_what_it_did_where_it_was_made():
    assert GARMENTS.stat().st_size < 300_000
    model = model_file.load(GARMENTS)
    assert model.labels == ("jacket", "shirt", "t-shirt")
    assert not [tensor for tensor in model.graph.tensors if tensor.dtype.startswith("float")]
    for kernels in ("default", "builtin"):
        assert golden.check(model, Interpreter(model, kernels=kernels)) is True


def test_the_garments_model_names_garments_it_has_never_seen(tmp_path):
    """Ten scenes of the live camera, each by one frame: chance would name three or four."""
    classifier = Classifier(GARMENTS)
    source = SyntheticSource(seed=7, fps=2, fast=True)
    right, scenes, before = 0, 0, None
    with source:
        while scenes < 10:
            frame = source.read()
            if frame.truth != before:
                before, scenes = frame.truth, scenes + 1
                right += classifier.classify(frame.image).label == frame.truth
    assert right >= 7


def test_the_test_photos_of_the_demo_give_the_stated_accuracy_or_nearly(tmp_path):
    garments_set.write(tmp_path / "photos", per_class=40, seed=1, size=(240, 320))
    import edgenn

    assert edgenn.evaluate(GARMENTS, tmp_path / "photos", split="test").accuracy > 0.7
