"""Keras layers that compute in float what an int8 device computes: weights and activations rounded to 256 steps.

Registered with Keras, so that a network of them is saved and loaded as any other; importing this module loads Keras.
The rounding is TensorFlow's fake_quant operation, whose gradient passes inside the range and is cut off outside it
(Jacob et al. 2018, arXiv:1712.05877, section 3), and which TensorFlow's converter turns into scale and zero point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgenn.extras import require

keras = require("keras")
tf = require("tensorflow")

# Share of the old range that is kept after a step of training: ranges follow the weights within some hundred steps and
# not the single batch.
MOMENTUM = 0.99
# A channel's range is at least this share of its bias. The bias is int32 in steps of (input scale × weight scale): of a
# channel whose weights are next to nothing it would overflow, and what such weights add to it is below its rounding.
LEAST_OF_BIAS = 1e-3
_LEAST = 1e-6

_per_tensor = tf.quantization.fake_quant_with_min_max_vars
_per_channel = tf.quantization.fake_quant_with_min_max_vars_per_channel


def _register(layer: type) -> type:
    registered: type = keras.saving.register_keras_serializable(package="edgenn")(layer)
    return registered


@_register
class FakeQuant(keras.layers.Layer):  # type: ignore[misc,name-defined]
    """Rounds activations to 256 steps between two bounds, of which zero is one.

    TFLite wants one scale for what a pooling or a concatenation reads and gives. So the layer may be called at several
    `site`s: each keeps bounds of its own, and all round by the widest of them.

    Args:
      sites: number of places where it is called.
      fixed: (low, high) where the range is known, as of a softmax; None follows a moving average in training.
    """

    def __init__(self, sites: int = 1, fixed: tuple[float, float] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.sites = sites
        self.fixed = tuple(fixed) if fixed else None
        self.rounding = True

    def build(self, input_shape: Any) -> None:
        low, high = self.fixed or (0.0, 0.0)
        for name, value in (("low", low), ("high", high)):
            start = keras.initializers.Constant(value)
            setattr(self, name, self.add_weight((self.sites,), start, name=name, trainable=False))

    def bounds(self) -> tuple[float, float]:
        """The range that is rounded to, before zero is made one of its steps."""
        return float(self.low.numpy().min()), max(float(self.high.numpy().max()), _LEAST)

    def scale(self) -> tuple[float, int]:
        """Scale and zero point of the int8 tensor (Jacob et al. 2018, section 2.1), zero being one of its steps."""
        low, high = self.bounds()
        scale = (high - low) / 255
        return scale, int(np.floor(-low / scale + 0.5)) - 128

    def set_bounds(self, site: int, low: float, high: float) -> None:
        """Give a site its range; one that does not hold zero is widened to it."""
        for variable, value in ((self.low, min(low, 0.0)), (self.high, max(high, 0.0))):
            values = variable.numpy()
            values[site] = value
            variable.assign(values)

    def call(self, x: Any, site: int = 0, training: bool | None = None) -> Any:
        if training and not self.fixed:
            keep = MOMENTUM * tf.one_hot(site, self.sites) + (1 - tf.one_hot(site, self.sites))
            take = (1 - MOMENTUM) * tf.one_hot(site, self.sites)
            self.low.assign(keep * self.low + take * tf.minimum(tf.reduce_min(x), 0.0))
            self.high.assign(keep * self.high + take * tf.maximum(tf.reduce_max(x), 0.0))
        if not self.rounding:
            return x
        low, high = tf.reduce_min(self.low.value), tf.maximum(tf.reduce_max(self.high.value), _LEAST)
        return _per_tensor(x, low, high, num_bits=8)

    def compute_output_spec(self, x: Any, site: int = 0, training: bool | None = None) -> Any:
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sites": self.sites, "fixed": self.fixed}


def set_rounding(model: Any, rounding: bool) -> None:
    """Let the layers of a network round, or compute in float. Functions that were traced keep what they did."""
    for layer in model.layers:
        if isinstance(layer, FakeQuant | _Rounds):
            layer.rounding = rounding


class _Rounds:
    """What the layers with kernels share: the kernel, rounded or in float."""

    rounding = True
    kernel: Any
    bias: Any

    def rounded_kernel(self) -> Any:
        """The kernel as the device has it: −127…127 steps, with one scale for each output channel."""
        kernel = self.kernel.value
        reach = tf.reduce_max(tf.abs(kernel), list(range(len(kernel.shape) - 1)))
        reach = no_less_than_bias(reach, self.bias.value)
        return _per_channel(kernel, -reach, reach, num_bits=8, narrow_range=True)

    def current_kernel(self) -> Any:
        return self.rounded_kernel() if self.rounding else self.kernel.value


def no_less_than_bias(reach: Any, bias: Any) -> Any:
    return tf.stop_gradient(tf.maximum(tf.maximum(reach, LEAST_OF_BIAS * tf.abs(bias)), _LEAST))


@_register
class QuantizedConv2D(_Rounds, keras.layers.Conv2D):  # type: ignore[misc,name-defined]
    """Conv2D whose kernel has 8 bits, a scale for each output channel."""

    def call(self, x: Any) -> Any:
        strides = list(self.strides)
        x = keras.ops.conv(x, self.current_kernel(), strides, self.padding, dilation_rate=self.dilation_rate)
        return self.activation(tf.nn.bias_add(x, self.bias.value))


@_register
class QuantizedDepthwiseConv2D(_Rounds, keras.layers.DepthwiseConv2D):  # type: ignore[misc,name-defined]
    """DepthwiseConv2D whose kernel has 8 bits, a scale for each output channel."""

    def rounded_kernel(self) -> Any:
        kernel = self.kernel.value
        height, width, channels, multiplier = kernel.shape
        flat = tf.reshape(kernel, [height, width, channels * multiplier])
        reach = no_less_than_bias(tf.reduce_max(tf.abs(flat), [0, 1]), self.bias.value)
        return tf.reshape(_per_channel(flat, -reach, reach, num_bits=8, narrow_range=True), kernel.shape)

    def call(self, x: Any) -> Any:
        kernel = self.current_kernel()
        x = keras.ops.depthwise_conv(x, kernel, self.strides, self.padding, dilation_rate=self.dilation_rate)
        return self.activation(tf.nn.bias_add(x, self.bias.value))


@_register
class QuantizedDense(_Rounds, keras.layers.Dense):  # type: ignore[misc,name-defined]
    """Dense whose kernel has 8 bits and one scale, which every runtime and the Edge TPU compute."""

    def rounded_kernel(self) -> Any:
        kernel, bias = self.kernel.value, self.bias.value
        reach = no_less_than_bias(tf.reduce_max(tf.abs(kernel)), tf.reduce_max(tf.abs(bias)))
        return _per_tensor(kernel, -reach, reach, num_bits=8, narrow_range=True)

    def call(self, x: Any) -> Any:
        return self.activation(tf.nn.bias_add(tf.matmul(x, self.current_kernel()), self.bias.value))
