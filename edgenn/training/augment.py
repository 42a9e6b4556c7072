"""Photos varied at random, inside the TensorFlow graph and a whole batch at a time.

All geometry is one resampling by one affine map a photo, so a photo is blurred once and not once for each change.
Everything is drawn from the seed that is given: the same seed gives the same photos.
"""

from __future__ import annotations

import math
from typing import Any

from edgenn.extras import require

from .recipe import Augmentation


def augment(photos: Any, seed: Any, how: Augmentation) -> Any:
    """Vary a batch.

    Args:
      photos: float32 tensor (batch, height, width, channels) of 0..255.
      seed: int32 or int64 tensor of shape (2,).
      how: how far.

    Returns:
      A tensor of the same shape and range.
    """
    tf = require("tensorflow")

    batch = tf.shape(photos)[0]
    seeds = tf.unstack(tf.random.split(seed, 9))

    def uniform(index: int, low: float, high: float, shape: tuple[int, ...] = ()) -> Any:
        return tf.random.stateless_uniform([batch, *shape], seeds[index], low, high)

    if how.flip or how.rotation or how.shift or how.zoom:
        photos = _move(tf, photos, how, uniform)
    if how.brightness:
        photos += uniform(4, -255 * how.brightness, 255 * how.brightness)[:, None, None, None]
    if how.contrast:
        mean = tf.reduce_mean(photos, [1, 2, 3], keepdims=True)
        photos = mean + (photos - mean) * uniform(5, 1 - how.contrast, 1 + how.contrast)[:, None, None, None]
    if how.saturation and photos.shape[-1] == 3:
        grey = tf.reduce_mean(photos, -1, keepdims=True)
        photos = grey + (photos - grey) * uniform(6, 1 - how.saturation, 1 + how.saturation)[:, None, None, None]
    if how.erase:
        photos = _erase(tf, photos, how.erase, uniform(7, 0.0, 1.0, (2,)), uniform(8, 0.0, 1.0))
    return tf.clip_by_value(photos, 0.0, 255.0)


def _move(tf: Any, photos: Any, how: Augmentation, uniform: Any) -> Any:
    """Mirror, turn, zoom and shift about the centre; what comes from outside the photo mirrors its edge."""
    height, width = photos.shape[1], photos.shape[2]
    angle = uniform(0, -how.rotation, how.rotation) * (math.pi / 180)
    reach = math.log1p(how.zoom / (1 - how.zoom)) if how.zoom else 0.0
    scale = tf.exp(uniform(1, -reach, reach))
    mirror = tf.where(uniform(2, 0.0, 1.0) < 0.5, -1.0, 1.0) if how.flip else tf.ones_like(angle)
    shift = uniform(3, -how.shift, how.shift, (2,)) * [float(width), float(height)]
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    # Output pixel -> input pixel, rows (a0 a1 a2) and (b0 b1 b2) of the projective transform with c0 = c1 = 0.
    a0, a1, b0, b1 = mirror * cosine, -mirror * sine, sine, cosine
    a2 = centre_x + shift[:, 0] - a0 * centre_x - a1 * centre_y
    b2 = centre_y + shift[:, 1] - b0 * centre_x - b1 * centre_y
    zero = tf.zeros_like(a0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=photos,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], 1),
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )


def _erase(tf: Any, photos: Any, side: float, centre: Any, chance: Any) -> Any:
    """Paint a square of `side` of the picture grey (127.5), in half of the photos; it may reach over the edge."""
    rows = tf.linspace(0.0, 1.0, photos.shape[1])[None, :]
    columns = tf.linspace(0.0, 1.0, photos.shape[2])[None, :]
    inside = (tf.abs(rows - centre[:, :1]) < side / 2)[:, :, None] & (tf.abs(columns - centre[:, 1:]) < side / 2)[
        :, None, :
    ]
    painted = inside & (chance < 0.5)[:, None, None]
    return tf.where(painted[..., None], 127.5, photos)
