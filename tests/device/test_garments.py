"""Drawn garments: the same seed is the same picture, another seed another one, and every cut of every label draws."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn_device.errors import EdgennError
from edgenn_device.garments import LABELS, SPACES, draw, seed_in
from edgenn_device.garments.fabric import PATTERNS, Fabric, tile
from edgenn_device.garments.jacket import STYLES
from edgenn_device.garments.moving import Moving
from edgenn_device.garments.scene import CUTS


def test_labels_are_in_the_order_of_folders() -> None:
    assert LABELS == ("jacket", "shirt", "t-shirt")
    assert list(LABELS) == sorted(LABELS)


@settings(max_examples=25, deadline=None)
@given(
    label=st.sampled_from(LABELS), seed=st.integers(0, 2**40), height=st.integers(16, 300), width=st.integers(16, 300)
)
def test_every_seed_and_size_draws(label: str, seed: int, height: int, width: int) -> None:
    picture = draw(label, seed, (height, width))
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    # Something is to be seen: neither one colour nor black or white from edge to edge.
    assert picture.std() > 2


def test_same_seed_same_bytes() -> None:
    for label in LABELS:
        np.testing.assert_array_equal(draw(label, 11), draw(label, 11))
        np.testing.assert_array_equal(draw(label, 11), draw(LABELS.index(label), 11))


def test_same_seed_same_bytes_in_another_process() -> None:
    code = (
        "import zlib; from edgenn_device.garments import draw;"
        "print([zlib.crc32(draw(label, 5, 96).tobytes()) for label in range(3)])"
    )
    first, second = (subprocess.check_output([sys.executable, "-c", code]) for _ in range(2))
    assert first == second


def test_order_of_drawing_does_not_matter() -> None:
    alone = draw("shirt", 8, 96)
    draw("jacket", 9, 96)
    np.testing.assert_array_equal(draw("shirt", 8, 96), alone)


def test_seeds_and_labels_give_different_pictures() -> None:
    pictures = [draw(label, seed, 64) for label in LABELS for seed in range(12)]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_a_seed_says_nothing_about_what_is_behind_the_garment() -> None:
    # Were the background shared between labels of one seed, or a label tied to one, a network could learn it instead.
    corners = np.array([[draw(label, seed, 64)[:8, :8].mean((0, 1)) for label in LABELS] for seed in range(20)])
    assert np.abs(corners[:, 0] - corners[:, 1]).mean() > 10
    assert np.abs(corners.mean(0) - corners.mean((0, 1))).max() < 40


@pytest.mark.parametrize("label", LABELS)
def test_cuts_have_many_styles(label: str) -> None:
    styles = {CUTS[label](np.random.default_rng((seed, 0))).style for seed in range(120)}
    assert len(styles) >= 3
    if label == "jacket":
        assert styles == set(STYLES)


def test_small_pictures_are_large_ones_shrunk() -> None:
    # Seams and buttons need room: below it a picture is not drawn coarser but made smaller.
    small, large = draw("jacket", 4, 80), draw("jacket", 4, 160)
    assert np.abs(cv2.resize(large, (80, 80), interpolation=cv2.INTER_AREA).astype(int) - small).mean() < 12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_repeat_without_a_seam(pattern: str) -> None:
    fabric = Fabric((40, 80, 120), pattern, second=(200, 210, 220), third=(20, 20, 200))
    side = tile(fabric, 64).astype(int)
    assert side.shape == (64, 64, 3)
    assert side.std() > 3
    # The step across the border is no larger than the largest step inside.
    for axis in (0, 1):
        inside = np.abs(np.diff(side, axis=axis)).max()
        border = np.abs(side.take(0, axis) - side.take(-1, axis)).max()
        assert border <= inside


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sock", 0), "jacket, shirt, t-shirt"),  # no such garment
        ((3, 0), "no garment 3"),  # no such index
        ((-1, 0), "no garment -1"),  # indices do not count from the end
        (("shirt", -1), "below 0"),  # a generator takes no negative seed
        (("shirt", 0, 8), "8x8"),  # too small to show anything
        (("shirt", 0, (240, 5000)), "240x5000"),  # too large for a camera
    ],
)
def test_wrong_requests_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(EdgennError, match=words):
        draw(*arguments)


def test_no_two_pictures_share_a_seed() -> None:
    # Neighbouring seeds and the ends of each space: where ranges would overlap if they did.
    places = [(space, seed, number) for space in SPACES for seed in range(30) for number in (0, 1, 999_999)]
    assert len({seed_in(*place) for place in places}) == len(places)


@pytest.mark.parametrize("place", [("holdout", 0, 0), ("train", -1, 0), ("train", 0, 1_000_000), ("train", 0, -1)])
def test_seeds_outside_of_a_space_are_refused(place: tuple[str, int, int]) -> None:
    with pytest.raises(EdgennError):
        seed_in(*place)


def test_moving_scene_moves_smoothly() -> None:
    scene = Moving("t-shirt", 3, (120, 160))
    views = [scene.view(second / 30).astype(int) for second in range(31)]
    steps = [np.abs(b - a).mean() for a, b in pairwise(views)]
    assert scene.label == "t-shirt"
    assert views[0].shape == (120, 160, 3)
    # It moves, by little from frame to frame, and by more over a second.
    assert max(steps) > 0
    assert np.median(steps) < np.abs(views[30] - views[0]).mean()
    np.testing.assert_array_equal(scene.view(0.5), Moving("t-shirt", 3, (120, 160)).view(0.5))


def test_frames_are_the_readers_own() -> None:
    scene = Moving("shirt", 1, 96)
    first = scene.view(0.0)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(scene.view(0.0), kept)
