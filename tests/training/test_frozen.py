"""The cache of frozen outputs: found again, computed anew when anything changes, bounded, and never half a file."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgenn.data import Picture
from edgenn.extras import require
from edgenn.training import Augmentation, Recipe
from edgenn.training import frozen as module
from edgenn.training.augment import vary, view_draws
from edgenn.training.frozen import FrozenPart, Views
from edgenn.training.photos import ArrayFeed

SIDE = 16
RECIPE = Recipe(size=SIDE).resolved()


def part(kernel: float = 0.1, kind: str = "Conv2D") -> FrozenPart:
    keras = require("keras")
    pictures = keras.Input((SIDE, SIDE, 3), name="pictures")
    x = keras.layers.Rescaling(1 / 128, -1.0, name="normalisation")(pictures)
    constant = keras.initializers.Constant(kernel)
    if kind == "Conv2D":
        x = keras.layers.Conv2D(3, 3, 4, use_bias=False, kernel_initializer=constant, name="convolution")(x)
    else:
        x = keras.layers.DepthwiseConv2D(3, 4, use_bias=False, depthwise_initializer=constant, name="convolution")(x)
    return FrozenPart(keras.Model(pictures, x))


def photos(count: int = 70, seed: int = 0, recipe: Recipe = RECIPE) -> ArrayFeed:
    tensors = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    pictures = [Picture(Path(f"{i}.png"), i % 2, hashlib.sha256(row).hexdigest()) for i, row in enumerate(tensors)]
    return ArrayFeed(tensors, pictures, 2, recipe)


def direct(frozen: FrozenPart, seen: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = frozen.model(seen, training=False).numpy()
    return result


def test_features_are_what_the_part_gives_for_each_view(tmp_path: Path) -> None:
    frozen, feed = part(), photos()
    views = Views(frozen, feed, RECIPE, [None, 3], folder=tmp_path)
    assert views.computed == 2
    plain = direct(frozen, feed.tensors.astype(np.float32))
    varied = vary(feed.tensors.astype(np.float32), view_draws(feed.names, 3), RECIPE.augmentation).numpy()
    for features, expected in zip(views.features, (plain, direct(frozen, varied)), strict=True):
        assert features.dtype == np.float16
        assert isinstance(features, np.memmap)
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert np.abs(views.features[0].astype(np.float32) - views.features[1]).max() > 0.1


def test_a_part_that_is_not_proven_to_convert_runsin_tensorflow(tmp_path: Path) -> None:
    keras = require("keras")

    class Doubled(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, inputs: object) -> object:
            return inputs * 2.0

    inner = part().model
    frozen = FrozenPart(keras.Model(inner.input, Doubled()(inner.output)))
    assert module.in_litert(frozen.model, 1) is None
    views = Views(frozen, photos(), RECIPE, [None], folder=tmp_path)
    expected = direct(frozen, photos().tensors.astype(np.float32))
    np.testing.assert_allclose(views.features[0], expected, rtol=1e-3, atol=1e-2)


def test_values_beyond_float16_are_cut_off(tmp_path: Path) -> None:
    views = Views(part(kernel=1e5), photos(), RECIPE, [None], folder=tmp_path)
    assert np.isfinite(views.features[0]).all()
    assert views.features[0].max() == np.finfo(np.float16).max


def test_the_next_run_computes_only_what_is_missing(tmp_path: Path) -> None:
    assert Views(part(), photos(), RECIPE, range(2), folder=tmp_path).computed == 2
    again = Views(part(), photos(), RECIPE, range(3), folder=tmp_path)
    assert again.computed == 1
    told: list[tuple[int, int]] = []
    warm = Views(part(), photos(), RECIPE, range(3), lambda *said: told.append(said), folder=tmp_path)
    assert (warm.computed, told) == (0, [])
    for one, other in zip(again.features, warm.features, strict=True):
        np.testing.assert_array_equal(one, other)


def test_progress_counts_views_of_photos(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    Views(part(), photos(40), RECIPE, range(2), lambda *said: told.append(said), folder=tmp_path)
    assert told == [(32, 80), (40, 80), (72, 80), (80, 80)]


@pytest.mark.parametrize(
    "changed",
    [
        lambda: {"frozen": part(kernel=0.2)},  # other weights
        lambda: {"frozen": part(kind="DepthwiseConv2D")},  # another structure
        lambda: {"feed": photos(seed=1)},  # other photos
        lambda: {"feed": photos(count=69)},  # one fewer
        lambda: {"recipe": RECIPE.replace(resize="crop")},  # decoded in another way
        lambda: {"recipe": RECIPE.replace(augmentation=Augmentation(flip=False))},  # varied in another way
        lambda: {"view": 1},  # another view
        lambda: {"view": None},  # the photo as it is
    ],
)
def test_a_change_of_anything_that_matters_is_another_file(
    tmp_path: Path, changed: Callable[[], dict[str, object]]
) -> None:
    asked: dict[str, object] = {"frozen": part(), "feed": photos(), "recipe": RECIPE, "view": 0}

    def computed(values: dict[str, object]) -> int:
        arguments = values["frozen"], values["feed"], values["recipe"], [values["view"]]
        return Views(*arguments, folder=tmp_path).computed  # type: ignore[arg-type]

    assert computed(asked) == 1
    assert computed(asked) == 0
    assert computed({**asked, **changed()}) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 7},  # views depend on the photo and their number only
        {"epochs": 3},  # nothing of how the rest is trained
        {"learning_rate": 0.5},
    ],
)
def test_what_does_not_matter_finds_the_same_file(tmp_path: Path, changed: dict[str, float]) -> None:
    Views(part(), photos(), RECIPE, [0], folder=tmp_path)
    assert Views(part(), photos(), RECIPE.replace(**changed), [0], folder=tmp_path).computed == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],  # cut short
        lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],  # one bit
        lambda data: data + b"\0",  # something behind it
        lambda data: b"",  # empty
        lambda data: b"not an array" * 100,  # something else
    ],
)
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: object) -> None:
    sound = Views(part(), photos(), RECIPE, [0], folder=tmp_path).features[0].copy()
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    mended = Views(part(), photos(), RECIPE, [0], folder=tmp_path)
    assert mended.computed == 1
    np.testing.assert_array_equal(mended.features[0], sound)


def test_the_cache_is_bounded_and_forgets_what_was_used_least_recently(tmp_path: Path) -> None:
    def ask(view: int, most: int) -> int:
        return Views(part(), photos(), RECIPE, [view], folder=tmp_path, most=most).computed

    ask(0, 10**9)
    size = next(tmp_path.glob("*.npy")).stat().st_size
    ask(1, 10**9)
    for path in tmp_path.glob("*.npy"):  # long ago
        os.utime(path, (1, 1))
    ask(0, 10**9)  # used just now
    ask(2, 2 * size + 10)  # room for two: 1 has to go
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert ask(0, 10**9) == 0
    assert ask(1, 10**9) == 1


def test_what_is_asked_for_stays_even_beyond_the_bound(tmp_path: Path) -> None:
    views = Views(part(), photos(), RECIPE, range(3), folder=tmp_path, most=1)
    assert len(views.features) == len(list(tmp_path.glob("*.npy"))) == 3


def test_room_is_a_share_of_the_disk_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10**18)
    free = os.statvfs(tmp_path)
    assert module.room(tmp_path / "not" / "there") <= free.f_frsize * free.f_bfree
    monkeypatch.setattr(module, "MOST", 5)
    assert module.room(tmp_path) == 5


def test_a_process_killed_while_writing_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_frozen as t
        slow = t.part()
        run = slow.__class__.__call__
        t.FrozenPart.__call__ = lambda self, photos: (time.sleep(0.2), run(self, photos))[1]
        def tell(done, total):
            if done > 300:
                print("written", flush=True)
        t.Views(slow, t.photos(2000), t.RECIPE, range(2), tell, folder=Path({str(tmp_path)!r}))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert not list(tmp_path.glob("[!.]*"))
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    assert Views(part(), photos(), RECIPE, [0], folder=tmp_path).computed == 1
    assert not left.exists()


def test_a_stopped_run_stops_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    frozen, computed = part(), []
    frozen.prepare()
    run = frozen._run
    frozen._run = lambda seen: (computed.append(len(seen)), run(seen))[1]  # type: ignore[func-returns-value, misc]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Views(frozen, photos(3000), RECIPE, [0], stop, folder=tmp_path)
    assert len(computed) < 90  # of 94 parts
    assert list(tmp_path.iterdir()) == []


def test_what_another_run_is_writing_is_left_alone(tmp_path: Path) -> None:
    import fcntl

    writing = tmp_path / ".abc-1.npy"
    with writing.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.utime(writing, (1, 1))
        Views(part(), photos(), RECIPE, [0], folder=tmp_path)
        assert writing.exists()
