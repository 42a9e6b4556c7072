"""Labelled photos on disk: found, audited, split, and decoded once into arrays that a network is fed from.

Knows folders and files, not networks: nothing here imports TensorFlow, and no picture is changed on disk.

>>> from edgenn.data import load, scan                              # doctest: +SKIP
>>> dataset = scan("photos")                                        # doctest: +SKIP
>>> train = load(dataset.splits["train"], InputSpec(96, 96))        # doctest: +SKIP
>>> train.tensors.shape                                             # doctest: +SKIP
(3068, 96, 96, 3)
"""

from .calibration import calibration
from .dataset import Dataset, Loaded, Picture, Problem, Progress, among, told
from .folders import check_apart
from .load import load
from .scan import scan
from .split import VALIDATION_SHARE

__all__ = [
    "VALIDATION_SHARE",
    "Dataset",
    "Loaded",
    "Picture",
    "Problem",
    "Progress",
    "among",
    "calibration",
    "check_apart",
    "load",
    "scan",
    "told",
]
