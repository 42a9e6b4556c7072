"""How good a model is: `evaluate` photos, `predict` tensors, the figures in `metrics`, and the pages people look at.

Importing this loads NumPy and OpenCV; TensorFlow, matplotlib and Jinja are loaded by the functions that need them.
"""

from .evaluate import Confused, Evaluation, Mistake, evaluate
from .model import Model, input_spec, opened
from .predict import Predictions, predict

__all__ = [
    "Confused",
    "Evaluation",
    "Mistake",
    "Model",
    "Predictions",
    "evaluate",
    "input_spec",
    "opened",
    "predict",
]
