"""Photos varied at random, inside the TensorFlow graph and a whole batch at a time.

All geometry is one resampling by one affine map a photo, so a photo is blurred once and not once for each change.
Everything follows from numbers drawn beforehand: the same draws give the same view of a photo, at whatever size, which
is how a teacher sees what its student sees.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require

from .recipe import Augmentation

# Numbers in 0..1 that one view of one photo takes, in the order in which `vary` uses them.
DRAWS = 15
_ANGLE, _SCALE, _MIRROR, _SHIFT, _AREA, _ASPECT, _PLACE = 0, 1, 2, slice(3, 5), 5, 6, slice(7, 9)
_BRIGHTNESS, _CONTRAST, _SATURATION, _ERASE, _CENTRE = 9, 10, 11, 12, slice(13, 15)


def augment(photos: Any, seed: Any, how: Augmentation) -> Any:
    """Vary a batch by draws from a seed; see `vary`.

    Args:
      seed: int32 or int64 tensor of shape (2,).
    """
    tf = require("tensorflow")
    return vary(photos, tf.random.stateless_uniform([tf.shape(photos)[0], DRAWS], seed), how)


def view_draws(names: NDArray[np.uint64], views: NDArray[np.integer[Any]] | int) -> NDArray[np.float32]:
    """The draws of a certain view of certain photos: the same wherever and whenever they are asked for.

    A hash of (name, view, position): the finaliser of SplitMix64 (Steele et al. 2014, "Fast Splittable Pseudorandom
    Number Generators", section 5), once for name and view and once for the position.

    Args:
      names: uint64 (n,), what tells the photos apart: the first 8 bytes of their sha256.
      views: number of the view, of all photos or (n,) of each.

    Returns:
      float32 (n, DRAWS), in 0..1.
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        which = _mixed(names ^ (step * (np.asarray(views).astype(np.uint64) + np.uint64(1))))
        mixed = _mixed(which[:, None] + step * np.arange(1, DRAWS + 1, dtype=np.uint64))
    return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def vary(photos: Any, draws: Any, how: Augmentation) -> Any:
    """Vary a batch.

    Args:
      photos: float32 tensor (batch, height, width, channels) of 0..255.
      draws: float32 tensor (batch, DRAWS), uniform in 0..1.
      how: how far.

    Returns:
      A tensor of the same shape and range.
    """
    tf = require("tensorflow")

    def between(which: Any, low: float, high: float) -> Any:
        return low + draws[:, which] * (high - low)

    if how.flip or how.rotation or how.shift or how.zoom or how.crop:
        photos = _move(tf, photos, how, between)
    if how.brightness:
        photos += between(_BRIGHTNESS, -255 * how.brightness, 255 * how.brightness)[:, None, None, None]
    if how.contrast:
        mean = tf.reduce_mean(photos, [1, 2, 3], keepdims=True)
        photos = mean + (photos - mean) * between(_CONTRAST, 1 - how.contrast, 1 + how.contrast)[:, None, None, None]
    if how.saturation and photos.shape[-1] == 3:
        grey = tf.reduce_mean(photos, -1, keepdims=True)
        factor = between(_SATURATION, 1 - how.saturation, 1 + how.saturation)[:, None, None, None]
        photos = grey + (photos - grey) * factor
    if how.erase:
        photos = _erase(tf, photos, how.erase, draws[:, _CENTRE], draws[:, _ERASE])
    return tf.clip_by_value(photos, 0.0, 255.0)


def _move(tf: Any, photos: Any, how: Augmentation, between: Any) -> Any:
    """Crop, mirror, turn, zoom and shift; what comes from outside the photo mirrors its edge."""
    height, width = photos.shape[1], photos.shape[2]
    angle = between(_ANGLE, -how.rotation, how.rotation) * (math.pi / 180)
    reach = math.log1p(how.zoom / (1 - how.zoom)) if how.zoom else 0.0
    scale = tf.exp(between(_SCALE, -reach, reach))
    mirror = tf.where(between(_MIRROR, 0.0, 1.0) < 0.5, -1.0, 1.0) if how.flip else tf.ones_like(angle)
    wide, high = _window(tf, how, between)
    # The centre of what is shown, as distance from the photo's centre in pixels.
    moved = between(_SHIFT, -how.shift, how.shift) + between(_PLACE, -0.5, 0.5) * (1 - tf.stack([wide, high], 1))
    moved *= [float(width), float(height)]
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    # Output pixel -> input pixel, rows (a0 a1 a2) and (b0 b1 b2) of the projective transform with c0 = c1 = 0.
    a0, a1, b0, b1 = mirror * cosine * wide, -mirror * sine * high, sine * wide, cosine * high
    a2 = centre_x + moved[:, 0] - a0 * centre_x - a1 * centre_y
    b2 = centre_y + moved[:, 1] - b0 * centre_x - b1 * centre_y
    zero = tf.zeros_like(a0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=photos,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], 1),
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )


def _window(tf: Any, how: Augmentation, between: Any) -> tuple[Any, Any]:
    """Width and height of the part that is shown, as shares of the photo's."""
    area = between(_AREA, 1 - how.crop, 1.0)
    if not how.crop:
        return area, area
    aspect = tf.exp(between(_ASPECT, -0.5, 0.5) * math.log(4 / 3))
    return tf.minimum(tf.sqrt(area) * aspect, 1.0), tf.minimum(tf.sqrt(area) / aspect, 1.0)


def _erase(tf: Any, photos: Any, side: float, centre: Any, chance: Any) -> Any:
    """Paint a square of `side` of the picture grey (127.5), in half of the photos; it may reach over the edge."""
    rows = tf.linspace(0.0, 1.0, photos.shape[1])[None, :]
    columns = tf.linspace(0.0, 1.0, photos.shape[2])[None, :]
    inside = (tf.abs(rows - centre[:, :1]) < side / 2)[:, :, None] & (tf.abs(columns - centre[:, 1:]) < side / 2)[
        :, None, :
    ]
    painted = inside & (chance < 0.5)[:, None, None]
    return tf.where(painted[..., None], 127.5, photos)


def mixup(x: Any, y: Any, weight: Any, soft: list[Any], seed: Any, alpha: float) -> tuple[Any, ...]:
    """Mix every sample with the one that stands opposite in the (shuffled) batch (Zhang et al. 2018).

    Labels are mixed in proportion to what each sample weighs, so that the loss is exactly the mixture of the two
    weighted losses.

    Args:
      x: float32 (batch, …); y: float32 (batch, classes); weight: float32 (batch,).
      soft: none or one tensor like y: a teacher's probabilities.
      seed: int tensor (2,).
      alpha: of the Beta(alpha, alpha) from which each share is drawn.
    """
    tf = require("tensorflow")
    batch = tf.shape(y)[0]
    # Beta(a, a) as the share of one of two Gamma(a) variates; the seed itself is `augment`'s.
    gamma = tf.random.stateless_gamma([batch, 2], tf.stack([seed[0], seed[1] + (1 << 20)]), alpha) + 1e-12
    share = gamma[:, 0] / tf.reduce_sum(gamma, 1)
    mine, other = share * weight, (1 - share) * weight[::-1]
    total = mine + other

    def opposite(values: Any) -> Any:
        # Values of a batch of features: 0.5 ms, and 3.1 ms as values[::-1].
        return tf.reverse(values, [0])

    def mixed(values: Any) -> Any:
        return tf.math.divide_no_nan(mine[:, None] * values + other[:, None] * opposite(values), total[:, None])

    pixels = tf.reshape(share, [-1, *[1] * (len(x.shape) - 1)])
    return (pixels * x + (1 - pixels) * opposite(x), mixed(y), total, *[mixed(s) for s in soft])
