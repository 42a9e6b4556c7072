import json

import numpy as np
import pytest

import edgenn
from edgenn import networks
from edgenn.training import distill, photos
from edgenn.training.augment import vary, view_draws
from edgenn.training.fit import _divergence, fit, predict
from edgenn.training.run import Run
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from tests.conftest import CLASSES
from tests.training.samples import recipe, shapes


@pytest.fixture(scope="module")
def keras():
    from edgenn.extras import require

    return require("keras")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def asked(keras, size=32, columns=(0, 1, 2), seed=0) -> distill.Teacher:
    keras.utils.set_random_seed(seed)
    model = networks.build("simple_cnn", (size, size, 3), 3, width=4, depth=2, dropout=0.0)
    return distill.Teacher(model, f"digest {seed}", InputSpec(size, size), columns)


def test_the_teacher_answers_the_very_view_that_the_student_sees(keras):
    how = recipe(views=3)
    feed = shapes(6, 0, how)
    teacher = asked(keras, columns=(2, 0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "photo_feed", lambda *given: (feed, ()))  # the same size: no second decoding
        answers = distill.answers(teacher, feed, how)
    taught = distill.TaughtFeed(feed, answers)
    views = set()
    for x, _, weight, soft in taught.batches(8, training=True, seed=4):
        said = teacher.model(x, training=False).numpy()[:, (2, 0, 1)]
        assert soft.numpy()[weight > 0] == pytest.approx(said[weight > 0], abs=2e-3)
        views |= {photo.tobytes() for photo in x.numpy()}
    again = {photo.tobytes() for x, *_ in taught.batches(8, training=True, seed=5) for photo in x.numpy()}
    assert views & again, "views are the same few in every epoch"
    assert views - again, "and chosen anew"


def test_a_teacher_of_another_size_is_shown_the_same_view(keras, photos_of, tmp_path):
    run, folder = photos_of
    how = recipe(views=2)
    pictures = edgenn.data.scan(folder).splits["train"]
    small, _ = photos.photo_feed(pictures, how.input, 3, how)
    teacher = distill.teacher(str(run), CLASSES, how.input)
    assert teacher.input.shape == (24, 24, 3)
    told = []
    answers = distill.answers(teacher, small, how, lambda *given: told.append(given))
    assert told[-1] == (2 * small.count, 2 * small.count)
    large, _ = photos.photo_feed(pictures, teacher.input, 3, how)
    pixels = large.tensors.astype("float32")
    for view in range(2):
        seen = vary(pixels, view_draws(large.names, view), how.augmentation)
        assert answers[view] == pytest.approx(teacher.model(seen, training=False).numpy(), abs=2e-3)
    told.clear()
    assert np.array_equal(distill.answers(teacher, small, how, lambda *given: told.append(given)), answers)
    assert not told, "the next run asks nothing again"
    more = distill.answers(teacher, small, how.replace(views=3), lambda *given: told.append(given))
    assert np.array_equal(more[:2], answers)
    assert told[-1] == (small.count, small.count), "only the third view was asked"


def test_answers_stand_in_the_rows_of_their_photos_or_not_at_all(keras, photos_of):
    run, folder = photos_of
    how = recipe(views=1)
    pictures = edgenn.data.scan(folder).splits["train"]
    small, _ = photos.photo_feed(pictures, how.input, 3, how)
    teacher = distill.teacher(str(run), CLASSES, how.input)
    away = pictures[0].path.rename(folder / "away.png")
    with pytest.raises(EdgennError, match="cannot be read"):
        distill.answers(teacher, small, how)
    away.rename(pictures[0].path)
    answers = distill.answers(teacher, small, how)
    assert answers.shape == (1, small.count, 3)
    # A file of fewer rows, as an earlier version kept them, is not taken.
    kept = next((folder.parent / "cache").rglob("view000.npy"))
    np.save(kept, answers[0, 1:])
    assert np.array_equal(distill.answers(teacher, small, how), answers)


@pytest.fixture
def photos_of(tmp_path):
    """A trained run of 24 pixels and its photos."""
    from tests.conftest import write_photos

    folder = write_photos(tmp_path / "photos", each=12)
    options = {"width": 4, "depth": 1, "dropout": 0.0}
    run = edgenn.train(folder, tmp_path / "teacher", size=24, epochs=1, batch=16, network_options=options)
    return run.path, folder


def test_a_student_learns_from_a_teacher_by_command(photos_of, tmp_path):
    teacher, folder = photos_of
    options = {"width": 4, "depth": 1, "dropout": 0.0}
    run = edgenn.train(
        folder, tmp_path / "run", size=16, epochs=2, batch=16, views=2, distill=str(teacher), network_options=options
    )
    assert run.recipe.distill == str(teacher)
    with pytest.raises(EdgennError, match="tells apart circle, cross, square, and these photos circle, square"):
        edgenn.train(folder, tmp_path / "two", size=16, epochs=1, classes=("circle", "square"), distill=str(teacher))
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),  # no such thing
        (lambda path: path.mkdir(), "does not exist"),  # a folder that is no run
        (lambda path: path.write_bytes(b"no model"), "no model that Keras loads"),  # a file that is no model
    ],
)
def test_what_cannot_teach_is_one_line(tmp_path, make, said):
    make(tmp_path / "teacher.keras")
    with pytest.raises(EdgennError) as caught:
        distill.teacher(str(tmp_path / "teacher.keras"), CLASSES, recipe().input)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bare_model_teaches_in_the_order_of_its_outputs(keras, tmp_path):
    model = asked(keras, size=16).model
    model.save(tmp_path / "mine.keras")
    teacher = distill.teacher(str(tmp_path / "mine.keras"), CLASSES, recipe(resize="crop").input)
    assert (teacher.input.shape, teacher.input.resize, teacher.columns) == ((16, 16, 3), "crop", (0, 1, 2))
    with pytest.raises(EdgennError, match="tells apart 3 classes"):
        distill.teacher(str(tmp_path / "mine.keras"), CLASSES[:2], recipe().input)


def test_labels_in_another_order_are_put_in_order(photos_of):
    run, _ = photos_of
    turned = ("square", "circle", "cross")
    assert distill.teacher(str(run), turned, recipe().input).columns == (2, 0, 1)
    assert json.loads((run / "run.json").read_text())["labels"] == list(CLASSES) == list(Run.load(run).labels)


def test_the_divergence_is_that_of_tempered_logits(keras):
    from edgenn.extras import require

    tf = require("tensorflow")
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 5, 4)).astype("float32") * 3
    softmax = lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)  # noqa: E731
    p, q = softmax(teacher / 4.0), softmax(student / 4.0)
    expected = 16 * (p * np.log(p / q)).sum(-1)
    assert _divergence(tf, softmax(teacher), softmax(student), 4.0).numpy() == pytest.approx(expected, rel=1e-3)


def test_a_student_of_nothing_but_the_teacher_becomes_like_it(keras):
    how = recipe(views=2, epochs=20, batch=12, warmup=0.0, learning_rate=0.01, distill_weight=1.0, patience=20)
    feed, validation = shapes(16, 0, how), shapes(10, 700, how)
    # A teacher that calls everything a cross: the labels say otherwise and must not count.
    answers = np.tile(np.array([0.05, 0.9, 0.05], np.float16), (2, feed.count, 1))
    keras.utils.set_random_seed(3)
    student = networks.build("simple_cnn", (32, 32, 3), 3, width=4, depth=2, dropout=0.0)
    seen = []
    epochs = fit(student, distill.TaughtFeed(feed, answers), validation, how, on_epoch=seen.append)
    assert epochs[-1].loss < 0.05
    assert epochs == seen
    assert predict(student, validation).shape == (30, 3)
