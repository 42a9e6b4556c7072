"""In which precision a network is trained, and the copy of it that computes so.

The network that is kept is always float32, so that conversion never meets a float16; mixed precision trains a copy
whose layers compute in float16 over the same float32 weights (Micikevicius et al. 2018, arXiv:1710.03740).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgenn.extras import require

# The first generation of NVIDIA GPUs with tensor cores: compute capability 7.0 (Volta). Processors without them, CPUs
# among them, are slower in float16 than in float32.
_TENSOR_CORES = (7, 0)


def computing_copy(model: Any, precision: str) -> tuple[Any, Callable[[], None]]:
    """(the network to train, what brings its weights back into `model`): `model` itself in float32.

    Args:
      precision: "auto", "float32" or "mixed" (see `Recipe`).
    """
    if precision == "float32" or (precision == "auto" and not _has_tensor_cores()):
        return model, lambda: None
    keras = require("keras")
    last = model.layers[-1].name

    def mixed(layer: Any) -> Any:
        values = layer.get_config()
        if layer.name != last:  # probabilities stay float32: float16 has no room for small ones
            values["dtype"] = "mixed_float16"
        copy = type(layer).from_config(values)
        copy.trainable = layer.trainable
        return copy

    twin = keras.models.clone_model(model, clone_function=mixed)
    twin.set_weights(model.get_weights())
    return twin, lambda: model.set_weights(twin.get_weights())


def _has_tensor_cores() -> bool:
    tf = require("tensorflow")
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return bool(gpus) and min(capabilities) >= _TENSOR_CORES
