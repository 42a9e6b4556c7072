"""Transfer: where a network is cut, that its parts are the whole, what is trained and what stays, how it resumes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenn import networks
from edgenn.data import Picture
from edgenn.extras import require
from edgenn.training import Augmentation, Recipe, transfer
from edgenn.training.checkpoint import Checkpoint
from edgenn.training.photos import ArrayFeed
from edgenn.training.transfer import FeatureFeed, cut_behind, fit_transfer
from edgenn.training.watcher import Watcher
from edgenn_device.errors import EdgennError

SIDE, CLASSES = 24, 2
LAYERS = ("stem", "block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2")
OPTIONS = {"width": 4, "depth": 2, "dropout": 0.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgenn" / "frozen"


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_LEAST_STEPS", 1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    require("keras").utils.set_random_seed(0)


def build(**options: Any) -> Any:
    return networks.build("simple_cnn", (SIDE, SIDE, 3), CLASSES, **{**OPTIONS, **options})


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """From weights with real statistics, three epochs."""
    model = build()
    random = np.random.default_rng(1)
    for layer in transfer._normalisations(model):
        gamma, beta, mean, variance = (random.uniform(0.8, 1.2, weight.shape) for weight in layer.weights)
        layer.set_weights([gamma, beta - 1, mean - 1, variance])
    path = tmp_path / "start.weights.h5"
    model.save_weights(path)
    return Recipe(
        network="simple_cnn", network_options=OPTIONS, size=SIDE, weights=str(path), views=2, epochs=3, batch=8,
        augmentation=Augmentation(brightness=0.0),
    ).resolved()  # fmt: skip


def photos(count: int, recipe: Recipe, seed: int = 0) -> ArrayFeed:
    """Dark ones and bright ones."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    tensors = (random.integers(0, 100, (count, SIDE, SIDE, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    pictures = [
        Picture(Path(f"{i}.png"), int(label), hashlib.sha256(row).hexdigest())
        for i, (row, label) in enumerate(zip(tensors, labels, strict=True))
    ]
    return ArrayFeed(tensors, pictures, CLASSES, recipe)


class Listener(Watcher):
    def __init__(self) -> None:
        self.cached: list[tuple[int, int]] = []
        self.epochs: list[int] = []

    def caching(self, done: int, total: int) -> None:
        self.cached.append((done, total))

    def epoch(self, epoch: Any) -> None:
        self.epochs.append(epoch.epoch)


def weights_of(model: Any) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def changed(before: dict[str, list[np.ndarray]], after: dict[str, list[np.ndarray]]) -> set[str]:
    return {
        name
        for name, arrays in before.items()
        if any(not np.array_equal(one, other) for one, other in zip(arrays, after[name], strict=True))
    }


@pytest.mark.parametrize(
    ("asked", "trained"),
    [
        ("", {"block2_conv1", "block2_conv2", "scores"}),  # the network's own cut
        ("head", {"scores"}),
        ("block2", {"block2_conv1", "block2_conv2", "scores"}),  # a block
        ("block2_conv2", {"block2_conv2", "scores"}),  # a layer
        ("block1", {*LAYERS[1:], *(f"{name}_norm" for name in LAYERS[1:]), "scores"}),  # most of it: norms as well
        ("all", {*LAYERS, *(f"{name}_norm" for name in LAYERS), "scores"}),
    ],
)
def test_only_what_lies_behind_the_cut_is_trained(recipe: Recipe, asked: str, trained: set[str]) -> None:
    recipe = recipe.replace(fine_tune_from=asked)
    model, start = build(), build()
    networks.weights.load(start, networks.network("simple_cnn"), recipe.weights)
    listener = Listener()
    epochs = fit_transfer(model, photos(30, recipe), photos(12, recipe, 1), recipe, watcher=listener)
    start.get_layer("scores").set_weights(build().get_layer("scores").get_weights())
    assert changed(weights_of(start), weights_of(model)) == trained
    assert [epoch.epoch for epoch in epochs] == listener.epochs == [1, 2, 3]
    assert bool(listener.cached) == (asked != "all")
    assert all(layer.trainable for layer in model.layers)


def test_statistics_that_are_not_real_stay(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "folded.weights.h5"
    build().save_weights(path)  # means of 0, variances of 1
    model = build()
    before = weights_of(model)
    recipe = recipe.replace(weights=str(path), fine_tune_from="all", epochs=1)
    fit_transfer(model, photos(30, recipe), photos(12, recipe, 1), recipe)
    assert not {name for name in changed(before, weights_of(model)) if name.endswith("_norm")}
    assert {"stem", "scores"} <= changed(before, weights_of(model))


def test_the_network_learns_and_is_whole(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.replace(epochs=6, learning_rate=0.01)
    model = build()
    train, validation = photos(60, recipe), photos(40, recipe, 1)
    epochs = fit_transfer(model, train, validation, recipe)
    best = max(epoch.val_accuracy for epoch in epochs)
    assert best > 0.9
    # What was measured on cached features is what the whole network does on photos, also once saved and loaded.
    model.save(tmp_path / "model.keras")
    loaded = require("keras").models.load_model(tmp_path / "model.keras")
    scores = loaded(validation.tensors.astype(np.float32), training=False).numpy()
    assert (scores.argmax(1) == validation.labels).mean() == pytest.approx(best, abs=0.026)


def test_the_tail_on_features_gives_what_the_whole_gives_on_photos(recipe: Recipe) -> None:
    model = build()
    pixels = photos(5, recipe).tensors.astype(np.float32)
    part, tail = transfer.parted(model, "block1_pool")
    whole = model(pixels, training=False).numpy()
    np.testing.assert_allclose(tail(part(pixels).astype(np.float32), training=False).numpy(), whole, atol=2e-3)


def test_the_second_run_reads_what_the_first_has_computed(recipe: Recipe, cache: Path) -> None:
    first, second = Listener(), Listener()
    train, validation = photos(30, recipe), photos(12, recipe, 1)
    one = fit_transfer(build(), train, validation, recipe, watcher=first)
    files = {path: path.stat().st_ino for path in cache.iterdir()}
    require("keras").utils.set_random_seed(0)
    other = fit_transfer(build(), train, validation, recipe.replace(learning_rate=1e-4), watcher=second)
    assert len(files) == 1 + recipe.views
    assert {path: path.stat().st_ino for path in cache.iterdir()} == files
    assert first.cached[-1] == (12 + 2 * 30, 12 + 2 * 30)
    assert second.cached == []
    assert len(one) == len(other)


def test_views_that_find_no_room_are_left_out(recipe: Recipe, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = photos(30, recipe), photos(12, recipe, 1)
    part, _ = transfer.parted(build(), "block1_pool")
    monkeypatch.setattr(transfer, "room", lambda folder: (12 + 30) * part.row)
    fit_transfer(build(), train, validation, recipe, answers=np.full((2, 30, CLASSES), 0.5, np.float16))
    assert len(list(cache.iterdir())) == 2  # one view, and validation
    monkeypatch.setattr(transfer, "room", lambda folder: 10)
    model = build()
    before = weights_of(model)
    fit_transfer(model, train, validation, recipe.replace(epochs=1))
    assert len(list(cache.iterdir())) == 2
    assert "block2_conv1" in changed(before, weights_of(model))


def test_a_killed_run_resumes_where_it_was(recipe: Recipe, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Killer(Watcher):
        def epoch(self, epoch: Any) -> None:
            if epoch.epoch == 2:
                raise Killed

    train, validation = photos(30, recipe), photos(12, recipe, 1)
    undisturbed = fit_transfer(build(), train, validation, recipe)
    checkpoint = Checkpoint(tmp_path / "unfinished", {"recipe": {}})
    require("keras").utils.set_random_seed(0)
    with pytest.raises(Killed):
        fit_transfer(build(), train, validation, recipe, watcher=Killer(), checkpoint=checkpoint)
    resumed = fit_transfer(build(), train, validation, recipe, checkpoint=checkpoint)
    assert [epoch.epoch for epoch in resumed] == [1, 2, 3]
    for one, other in zip(undisturbed, resumed, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, rel=0.05)


@pytest.mark.parametrize("asked", ["block7", "pictures", "normalisation"])
def test_a_layer_that_it_cannot_be_trained_from_is_refused(recipe: Recipe, asked: str) -> None:
    with pytest.raises(EdgennError, match=f"cannot be trained from '{asked}' on: give head, all, or one of .*block2"):
        cut_behind(build(), recipe.replace(fine_tune_from=asked))


def test_head_leaves_dropout_to_be_trained(recipe: Recipe) -> None:
    assert cut_behind(build(dropout=0.5), recipe.replace(fine_tune_from="head")) == "pool"


def test_few_photos_come_several_times_an_epoch(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def fit(model: Any, train: Any, validation: Any, *_: Any, **__: Any) -> list[Any]:
        counts.append((train.count, train.steps(8), validation.count))
        (element, *_) = train.batches(8, training=True, seed=1)
        assert element[0].shape == (8, *train.views[0].shape[1:])
        return []

    monkeypatch.setattr(transfer, "_LEAST_STEPS", 64)
    monkeypatch.setattr(transfer, "fit", fit)
    fit_transfer(build(), photos(30, recipe), photos(12, recipe, 1), recipe)
    assert counts == [(16 * 30, 60, 12)]  # 4 steps would be one pass


def test_a_feature_feed_gives_every_view_its_own_answers() -> None:
    labels = np.arange(6) % 2
    views = [np.full((6, 2), view, np.float16) + np.arange(6, dtype=np.float16)[:, None] / 8 for view in range(3)]
    answers = np.stack([np.stack([np.full(6, view / 4), 1 - np.full(6, view / 4)], 1) for view in range(3)])
    recipe = Recipe(label_smoothing=0.0).resolved()
    feed = FeatureFeed(views, labels, 2, recipe, answers.astype(np.float16))
    seen: set[tuple[int, int]] = set()
    for seed in range(20):
        for x, y, _, soft in feed.batches(6, training=True, seed=seed):
            rows = np.rint((x.numpy()[:, 0] % 1) * 8).astype(int)
            chosen = np.floor(x.numpy()[:, 0]).astype(int)
            np.testing.assert_array_equal(y.numpy().argmax(1), labels[rows])
            np.testing.assert_allclose(soft.numpy()[:, 0], chosen / 4)
            seen |= set(zip(rows.tolist(), chosen.tolist(), strict=True))
    assert len(seen) == 18  # every view of every photo
    for x, *rest in feed.batches(6, training=False):
        np.testing.assert_array_equal(x.numpy(), views[0].astype(np.float32))
        assert len(rest) == 2
