"""Copies and blur that are planted are found, and what is merely similar is not."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256
from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn.data import Picture, audit

SIDE = 96


def photo(seed, side=SIDE):
    """Some coloured ellipses on a ground that gets lighter to one side: uint8 RGB."""
    random = np.random.default_rng(seed)
    light = np.linspace(0, 60, side, dtype=np.float32)[None, :, None] * random.uniform(-1, 1, 3)
    picture = np.clip(random.integers(60, 200, 3) + light + np.zeros((side, 1, 1)), 0, 255).astype(np.uint8)
    for _ in range(12):
        place, axes = random.integers(0, side, 2).tolist(), random.integers(side // 16, side // 4, 2).tolist()
        colour = random.integers(0, 256, 3).tolist()
        cv2.ellipse(picture, place, axes, float(random.integers(0, 180)), 0, 360, colour, -1)
    return picture


def photos(count, first=0):
    return np.stack([photo(first + seed) for seed in range(count)])


def encoded(picture):
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


def halved(picture):
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(half, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def lighter(picture):
    return np.clip(picture.astype(np.float32) * 1.1 + 6, 0, 255).astype(np.uint8)


def noisy(picture):
    noise = np.random.default_rng(0).normal(0, 6, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def blurred(picture):
    return cv2.GaussianBlur(picture, (0, 0), 3)


@pytest.mark.parametrize("change", [np.copy, encoded, halved, lighter, noisy])
def test_changed_copies_in_another_group_are_found_and_nothing_else(change):
    originals, copied = photos(60), range(0, 60, 4)
    copies = np.stack([change(originals[index]) for index in copied])
    looks = audit.Looks.joined([audit.look(originals), audit.look(copies)])
    group = np.repeat([0, 1], [60, len(copies)])
    partner = audit.nearest_copies(looks, group)
    expected = np.full(len(group), -1)
    for place, index in enumerate(copied):
        expected[index], expected[60 + place] = 60 + place, index
    found, wanted = partner[60:] == expected[60:], partner[:60][expected[:60] < 0]
    assert found.mean() >= 0.9
    assert (wanted == -1).all(), "photos without a copy were given one"


def test_copies_in_one_group_do_not_count():
    looks = audit.look(np.concatenate([photos(5), photos(5)]))
    assert (audit.nearest_copies(looks, np.zeros(10, np.int64)) == -1).all()


def test_of_several_copies_the_most_alike_is_named():
    original = photo(1)
    looks = audit.look(np.stack([original, noisy(original), original, lighter(original)]))
    assert audit.nearest_copies(looks, np.array([0, 1, 1, 1]))[0] == 2


def shirt(colour, pattern=0):
    """The same shirt on the same sheet, in another colour or with another pattern: uint8 RGB."""
    scene = np.dstack([np.tile(np.linspace(150, 250, SIDE), (SIDE, 1))] * 3).astype(np.uint8)
    cv2.rectangle(scene, (30, 10), (66, 86), colour, -1)
    for row in range(14, 86, 12) if pattern else ():
        cv2.line(scene, (32, row), (64, row), (colour[0] // pattern,) * 3, 6)
    return scene


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (shirt((200, 50, 50)), shirt((50, 127, 50))),  # as light, of another colour
        (shirt((100, 100, 100)), shirt((100, 100, 100), 3)),  # plain and striped
    ],
)
def test_what_is_only_composed_alike_is_no_copy(one, other):
    looks = audit.look(np.stack([one, other, one]))
    assert bin(int(looks.fingerprints[0] ^ looks.fingerprints[1])).count("1") <= audit.ALIKE_BITS
    assert audit.nearest_copies(looks, np.array([0, 1, 2])).tolist() == [2, -1, 0]


def test_empty_photos_are_not_copies_of_each_other():
    shade = np.dstack([np.tile(np.linspace(0, 4, SIDE), (SIDE, 1))] * 3)
    empty = np.stack([np.clip(value + shade, 0, 255) for value in (0, 128, 250)]).astype(np.uint8)
    assert (audit.nearest_copies(audit.look(empty), np.arange(3)) == -1).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 63), max_size=3, unique=True), min_size=2, max_size=12), st.integers(0, 2**32))
def test_no_pair_within_three_bits_is_missed(flips, seed):
    """Against all pairs, on fingerprints that differ in up to three bits from one of two others."""
    random = np.random.default_rng(seed)
    bases = random.integers(0, 2**63, 2, dtype=np.uint64)
    bits = [int(bases[index % 2]) ^ sum(1 << place for place in places) for index, places in enumerate(flips)]
    thumbnail = random.integers(0, 256, 300).astype(np.uint8)
    looks = audit.Looks(
        np.array(bits, np.uint64), np.tile(thumbnail, (len(bits), 1)), np.full(len(bits), 20, np.float32)
    )
    group = random.integers(0, 2, len(bits))
    partner = audit.nearest_copies(looks, group)
    for one, other in combinations(range(len(bits)), 2):
        if group[one] != group[other] and (bits[one] ^ bits[other]).bit_count() <= 3:
            assert partner[one] >= 0
            assert partner[other] >= 0
    for place in np.flatnonzero(partner >= 0):
        assert group[partner[place]] != group[place]


def test_memory_stays_bounded_where_all_fingerprints_share_a_part():
    """Ten million pairs to compare: all at once they would take 700 MB."""
    random, count = np.random.default_rng(0), 20_000
    one_part = np.uint64(sum(1 << (4 * place) for place in range(16)))
    bits = random.integers(0, 2**63, count, dtype=np.uint64) & ~one_part
    looks = audit.Looks(bits, random.integers(0, 256, (count, 300)).astype(np.uint8), np.ones(count, np.float32))
    tracemalloc.start()
    partner = audit.nearest_copies(looks, np.repeat([0, 1], [count - 500, 500]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (partner == -1).all()
    assert peak < 300e6


def test_blurred_photos_are_told_from_sharp_ones():
    sharp = photos(40)
    assert audit.look(sharp).blurred.mean() == 0
    assert audit.look(np.stack([blurred(picture) for picture in sharp])).blurred.mean() == 1


def test_a_plain_sharp_photo_is_not_blurred():
    """The variance of the Laplacian alone would say so: there are few edges, and they are faint."""
    plain = np.full((SIDE, SIDE, 3), 120, np.uint8)
    cv2.circle(plain, (48, 48), 20, (140, 140, 140), -1)
    assert not audit.look(plain[None]).blurred[0]


def test_grey_tensors_are_looked_at_too():
    looks = audit.look(photos(3)[..., :1])
    assert looks.thumbnails.shape == (3, 300)
    assert not looks.blurred.any()


def test_nothing_to_look_at():
    looks = audit.look(np.empty((0, 8, 8, 3), np.uint8))
    assert len(audit.nearest_copies(audit.Looks.joined([looks]), np.empty(0, np.int64))) == 0


def test_shorter_sides_are_those_of_the_file_and_0_where_it_has_gone(tmp_path):
    paths = [tmp_path / name for name in ("wide.png", "high.jpg", "gone.png", "broken.jpg")]
    cv2.imwrite(str(paths[0]), photo(0)[:40])
    cv2.imwrite(str(paths[1]), photo(1)[:, :32])
    paths[3].write_bytes(b"\xff\xd8 not a photo")
    pictures = [Picture(path, 0, sha256(path.name.encode()).hexdigest()) for path in paths]
    assert audit.shorter_sides(pictures).tolist() == [40, 32, 0, 0]
