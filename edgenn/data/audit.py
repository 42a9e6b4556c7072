"""What photos show before any network judges them: near-copies, blur, and sides shorter than the input.

Works on the pixels that a network is fed with, which are decoded already; only the sides are read from the files. Finds
copies that were encoded, resized or lightened anew, not those that were cropped, turned or mirrored, and not another
photo of the same thing. Says which photos, and changes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgenn_device.errors import EdgennError
from edgenn_device.likeness import fingerprint
from edgenn_device.picture_header import read_header

from .dataset import Picture
from .parallel import in_parallel

# Two photos are near-copies if their fingerprints differ in at most so many of 64 bits and their thumbnails correlate
# so well. Measured on 3,409 photos of clothing at 96x96: of copies encoded at JPEG quality 40, halved in size, given
# noise or lightened by 15%, 99%, 100%, 99% and 96% were found; of the 5.8 million pairs of photos two, of which one is
# the same photo. (By the fingerprint alone there are a thousand: shirts on one bed sheet.)
ALIKE_BITS = 7
ALIKE_CORRELATION = 0.99
# A thumbnail whose values vary less than this (standard deviation) shows nothing that could be compared.
_FLAT = 2.0
_THUMBNAIL = 10
_THUMBNAIL_BYTES = 3 * _THUMBNAIL**2

# Below this a photo counts as blurred. At 96x96 none of the same photos is below 10, and with a Gaussian blur of 8
# pixels in 533 99% are below 7; with one of 4 pixels, which hardly shows at that size, less than half. At 256x256 none
# of 400 is below 14, and with a blur of 4 pixels half are below 2.
BLURRED = 7.0
_BLUR_AGAIN = 1.5

_BANDS = 4
# Pairs compared at once: some 100 MB.
_MOST_PAIRS = 1 << 21
_ONES = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)
_NOBODY = np.iinfo(np.int64).max
_INDEX_BITS = 40


@dataclass(frozen=True, eq=False)
class Looks:
    """What is kept of how n photos look, some 310 bytes each.

    Attributes:
      fingerprints: uint64 (n,), see `edgenn_device.likeness`.
      thumbnails: uint8 (n, 300), 10 by 10 pixels in colour.
      sharpness: float32 (n,), by how much the variance of the Laplacian falls when the photo is blurred once more.
    """

    fingerprints: npt.NDArray[np.uint64]
    thumbnails: npt.NDArray[np.uint8]
    sharpness: npt.NDArray[np.float32]

    @property
    def blurred(self) -> npt.NDArray[np.bool_]:
        """Which of them are blurred, (n,)."""
        blurred: npt.NDArray[np.bool_] = self.sharpness < BLURRED
        return blurred

    @classmethod
    def joined(cls, parts: Sequence[Looks]) -> Looks:
        """Several as one, in order."""
        return cls(
            np.concatenate([np.empty(0, np.uint64), *(part.fingerprints for part in parts)]),
            np.concatenate([np.empty((0, _THUMBNAIL_BYTES), np.uint8), *(part.thumbnails for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.sharpness for part in parts)]),
        )


def look(tensors: npt.NDArray[np.uint8]) -> Looks:
    """How photos look.

    Args:
      tensors: uint8 (n, height, width, 3 or 1), RGB or grey.
    """
    results = in_parallel(_look, tensors)  # type: ignore[arg-type]
    return Looks(
        np.array([bits for bits, _, _ in results], np.uint64),
        np.array([thumbnail for _, thumbnail, _ in results], np.uint8).reshape(-1, _THUMBNAIL_BYTES),
        np.array([sharp for _, _, sharp in results], np.float32),
    )


def shorter_sides(pictures: Sequence[Picture]) -> npt.NDArray[np.int64]:
    """The shorter side in pixels of each photo's file, (n,); 0 for a file that cannot be read any more."""

    def side(picture: Picture) -> int:
        try:
            header = read_header(picture.path.read_bytes())
        except (OSError, EdgennError):
            return 0
        return min(header.height, header.width)

    return np.array(in_parallel(side, pictures), np.int64)


def nearest_copies(looks: Looks, group: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """For each photo that near-copy of it in another group which is most like it.

    Does not compare all pairs: two fingerprints are compared if one of four parts of 16 bits is equal in both, which is
    certain up to 3 differing bits, and likely up to `ALIKE_BITS` (Manku, Jain and Das Sarma 2007, "Detecting
    near-duplicates for web crawling", section 3.1).

    Args:
      group: (n,), for instance the split or the label.

    Returns:
      int64 (n,): its place, -1 where there is none.
    """
    count = len(group)
    # The likeness in the upper bits, the place in the lower: the least is the most alike.
    best = np.full(count, _NOBODY, np.int64)
    thumbnails = looks.thumbnails
    comparable = np.flatnonzero(thumbnails.std(axis=1) >= _FLAT) if count else np.empty(0, np.int64)
    # Of every pair of different groups at least one is outside of the largest.
    asking = comparable[group[comparable] != _most_frequent(group[comparable])]
    for band in range(_BANDS):
        keys = _band(looks.fingerprints, band)
        for one, other in _sharing(keys, asking, comparable):
            differ = group[one] != group[other]
            one, other = one[differ], other[differ]
            near = _bits(looks.fingerprints[one] ^ looks.fingerprints[other]) <= ALIKE_BITS
            one, other = one[near], other[near]
            for start in range(0, len(one), 1 << 16):
                a, b = one[start : start + (1 << 16)], other[start : start + (1 << 16)]
                likeness = _correlation(thumbnails[a], thumbnails[b])
                alike = likeness >= ALIKE_CORRELATION
                a, b = a[alike], b[alike]
                unlike = np.round((1 - np.minimum(likeness[alike], 1)) * 1e6).astype(np.int64) << _INDEX_BITS
                np.minimum.at(best, a, unlike | b)
                np.minimum.at(best, b, unlike | a)
    return np.where(best == _NOBODY, -1, best & ((1 << _INDEX_BITS) - 1))


def _look(pixels: npt.NDArray[np.uint8]) -> tuple[int, npt.NDArray[np.uint8], float]:
    colour = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.shape[2] == 1 else cv2.COLOR_RGB2BGR)
    small = cv2.resize(colour, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY).astype(np.float32)
    bits = fingerprint(colour.astype(np.uint8, copy=False))
    return bits, small.reshape(-1).astype(np.uint8, copy=False), _sharpness(grey)


def _sharpness(grey: npt.NDArray[np.float32]) -> float:
    """The variance of the Laplacian over that of the same photo blurred again.

    The variance alone (Pech-Pacheco et al. 2000) says as much of what is in a photo as of its sharpness: a plain shirt
    has fewer edges than a pattern. What is blurred already hardly changes when blurred again (Crété et al. 2007, "The
    blur effect: perception and estimation with a new no-reference perceptual blur metric").
    """
    again = cv2.GaussianBlur(grey, (0, 0), _BLUR_AGAIN)
    # 1: less than one grey level of noise is no edge.
    return float(cv2.Laplacian(grey, cv2.CV_32F).var() / (cv2.Laplacian(again, cv2.CV_32F).var() + 1.0))


def _band(fingerprints: npt.NDArray[np.uint64], band: int) -> npt.NDArray[np.int64]:
    """16 of the 64 bits, every fourth: a plain ground leaves whole rows of bits equal, which would fill one bucket."""
    key = np.zeros(len(fingerprints), np.int64)
    for place in range(16):
        bit = (fingerprints >> np.uint64(_BANDS * place + band)) & np.uint64(1)
        key |= bit.astype(np.int64) << place
    return key


def _sharing(
    keys: npt.NDArray[np.int64], asking: npt.NDArray[np.int64], among: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs (one of `asking`, one of `among`) with equal keys, in blocks."""
    order = among[np.argsort(keys[among], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys[among], minlength=1 << 16))])
    first, many = starts[keys[asking]], starts[keys[asking] + 1] - starts[keys[asking]]
    ends = np.cumsum(many)
    begin = 0
    while begin < len(asking):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _MOST_PAIRS, side="right")))
        length = many[begin:end]
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        yield np.repeat(asking[begin:end], length), order[np.repeat(first[begin:end], length) + within]
        begin = end


def _bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How many bits are set in each."""
    total: npt.NDArray[np.int64] = _ONES[values.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.int64)
    return total


def _correlation(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Of thumbnails, row by row. Over all three colours at once: two shirts of different colours are not alike."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    correlation: npt.NDArray[np.float32] = (a * b).sum(axis=1) / np.maximum(lengths, 1e-6)
    return correlation


def _most_frequent(group: npt.NDArray[np.integer]) -> int:
    values, counts = np.unique(group, return_counts=True)
    return int(values[counts.argmax()]) if len(values) else 0
