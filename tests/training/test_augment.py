import numpy as np
import pytest

from edgenn.training.augment import DRAWS, augment, mixup, vary, view_draws
from edgenn.training.recipe import Augmentation
from tests.training.samples import STILL, shapes


@pytest.fixture(scope="module")
def tf():
    from edgenn.extras import require

    return require("tensorflow")


def test_no_augmentation_changes_nothing(tf):
    photos = shapes(3, 0).tensors.astype("float32")
    assert np.array_equal(augment(photos, np.array([1, 2]), STILL).numpy(), photos)


def test_augmented_photos_stay_photos(tf):
    photos = shapes(10, 0).tensors.astype("float32")
    varied = augment(photos, np.array([3, 4]), Augmentation(True, 90, 0.4, 0.6, 0.9, 0.9, 0.9, 0.5)).numpy()
    assert varied.shape == photos.shape
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert not np.array_equal(varied, photos)


def test_flip_mirrors_left_and_right_and_nothing_else(tf):
    photos = shapes(20, 0).tensors.astype("float32")
    varied = augment(photos, np.array([5, 6]), Augmentation(True, 0, 0, 0, 0, 0, 0, 0)).numpy()
    kept = [np.allclose(v, p, atol=1e-2) for v, p in zip(varied, photos, strict=True)]
    mirrored = [np.allclose(v, p[:, ::-1], atol=1e-2) for v, p in zip(varied, photos, strict=True)]
    assert all(k or m for k, m in zip(kept, mirrored, strict=True))
    assert 10 < sum(mirrored) < 50


def test_a_crop_shows_a_part_of_the_photo_and_nothing_else(tf):
    # A ramp from left to right: what is shown of it tells where the window was.
    ramp = np.broadcast_to(np.linspace(0, 255, 64, dtype="float32")[None, None, :, None], (200, 64, 64, 1))
    shown = augment(ramp, np.array([7, 8]), Augmentation(False, 0, 0, 0, 0, 0, 0, 0, crop=0.5)).numpy()[:, 32, :, 0]
    width = (shown[:, -1] - shown[:, 0]) / 255
    assert (np.diff(shown, axis=1) > -1e-3).all(), "mirrored at an edge: the window reached over it"
    assert 0.55 < width.min() < 0.75
    assert width.max() == pytest.approx(1, abs=0.02)


def test_the_same_draws_show_the_same_view_at_another_size(tf):
    how = Augmentation(True, 20, 0.1, 0.2, 0.2, 0.2, 0.2, 0.3, crop=0.3)
    large = np.repeat(np.repeat(shapes(8, 0).tensors.astype("float32"), 2, 1), 2, 2)
    small = large.reshape(24, 32, 2, 32, 2, 3).mean((2, 4))
    draws = view_draws(np.arange(24, dtype=np.uint64), 3)
    seen_large = vary(large, draws, how).numpy().reshape(24, 32, 2, 32, 2, 3).mean((2, 4))
    seen_small = vary(small, draws, how).numpy()
    other = vary(small, view_draws(np.arange(24, dtype=np.uint64), 4), how).numpy()
    assert np.abs(seen_large - seen_small).mean() < 6
    assert np.abs(seen_large - other).mean() > 20


def test_view_draws_are_uniform_and_belong_to_photo_and_view():
    names = np.random.default_rng(0).integers(0, 2**63, 4000).astype(np.uint64)
    draws = view_draws(names, 0)
    assert draws.shape == (4000, DRAWS)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(draws.T) - np.eye(DRAWS)).max() < 0.08
    assert np.array_equal(view_draws(names[7:9], np.array([0, 5]))[0], draws[7])
    assert not np.isclose(view_draws(names, 1), draws).any(1).all()


def test_mixup_mixes_pictures_and_labels_by_one_share(tf):
    x = np.eye(4, dtype="float32")[:, None] * 100
    y = np.eye(4, dtype="float32")
    weight = np.array([1, 1, 1, 0], "float32")  # the last one only fills the batch
    mixed_x, mixed_y, total = (t.numpy() for t in mixup(x, y, weight, [], tf.constant([1, 2]), 1.0))
    share = mixed_x[:, 0].max(1) / 100
    assert mixed_x.sum((1, 2)) == pytest.approx(np.full(4, 100))
    # Pairs in which both count have labels in the same proportion as pixels, and count as one.
    assert mixed_y[1:3] == pytest.approx(mixed_x[1:3, 0] / 100, abs=1e-5)
    assert total[1:3] == pytest.approx(1)
    # The partner of one that does not count keeps its own label, and counts by its share of the picture.
    assert mixed_y[0] == pytest.approx(y[0])
    assert total[0] == pytest.approx(mixed_x[0, 0, 0] / 100, abs=1e-5)
    assert 0.5 <= share.max() <= 1
