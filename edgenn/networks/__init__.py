"""Networks by name: a registry that turns a name and a few options into a Keras model.

One file per family; each registers a builder. A builder returns an uncompiled functional model that takes pixels 0..255
(the normalisation is its first layer, so that conversion can absorb it into the input's scale) and ends in a softmax.
"""

from .registry import Figures, Network, build, cut_points, names, network

__all__ = ["Figures", "Network", "build", "cut_points", "names", "network"]
