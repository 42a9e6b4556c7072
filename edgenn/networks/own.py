"""A user's own network: a Python file with `build(input_shape, classes)`, or a .keras model.

A Python file is executed with the rights of whoever runs edgenn; a .keras is read in Keras' safe mode, which runs no
code in it. What comes out is checked to be a classifier of pictures, and is otherwise kept as it is: a model without a
normalisation of its own gets bytes 0..255, and so does one that has another.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .registry import Network

SIZE = 96  # of the pictures, where neither the file nor the user says


def network(name: str) -> Network:
    """The network in the file at the path `name`.

    Of a .py, `build(input_shape, classes, **options)` must return a functional or sequential keras.Model; arguments
    with a default are the network's options. Of a .keras, the weights are kept, and its last layer, a Dense, is made
    anew when the number of classes differs.

    Raises:
      EdgennError: there is no such file, or it cannot be used; for an error in Python code with file and line.
    """
    path = Path(name)
    if not path.is_file():
        raise EdgennError(f"there is no network {path}: check the path")
    if path.suffix.lower() == ".keras":
        return _from_keras(name, path)
    return _from_python(name, path)


def _entry(name: str, build: Callable[..., Any], options: dict[str, Any], least: int, size: int) -> Network:
    return Network(
        name=name,
        build=build,
        options=options,
        smallest=lambda **_: least,
        source="your own",
        size=size,
        sizes=(size,),
        cuts=lambda **_: (),
        cut=lambda **_: "",
    )


def _from_python(name: str, path: Path) -> Network:
    module = ModuleType(f"edgenn_own_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    with _blamed(path):
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    make = getattr(module, "build", None)
    if not callable(make):
        raise EdgennError(f"{path} has no function build(input_shape, classes): define it")
    parameters = list(inspect.signature(make).parameters.values())
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) != 2:
        raise EdgennError(
            f"{path}: build({', '.join(required)}) must take input_shape and classes, and a default for anything else"
        )
    options = {p.name: p.default for p in parameters if p.default is not p.empty}

    def build(input_shape: tuple[int, int, int], classes: int, **chosen: Any) -> Any:
        with _blamed(path):
            model = make(tuple(input_shape), classes, **chosen)
        return _checked(model, input_shape, classes, f"{path}: build(input_shape, classes)")

    return _entry(name, build, options, least=1, size=SIZE)


def _from_keras(name: str, path: Path) -> Network:
    height, width, _ = _shape(_load(path), str(path))

    def build(input_shape: tuple[int, int, int], classes: int) -> Any:
        model = _load(path)
        expected = _shape(model, str(path))
        fixed = tuple(mine or given for mine, given in zip(expected, input_shape, strict=True))
        if fixed != tuple(input_shape):
            colours = "grey" if fixed[2] == 1 else f"{fixed[2]} channels" if fixed[2] != 3 else "colour"
            raise EdgennError(
                f"{path} takes pictures of {fixed[0]}x{fixed[1]} in {colours}, not {input_shape[0]}x{input_shape[1]}"
                f"x{input_shape[2]}: give that size and colour, or build another model"
            )
        keras = require("keras")
        if None in expected:
            weights = model.get_weights()
            model = keras.models.clone_model(model, input_tensors=keras.Input(input_shape, name="pictures"))
            model.set_weights(weights)
        if model.output_shape[-1] != classes:
            model = _with_classes(model, classes, path)
        return _checked(model, input_shape, classes, str(path))

    return _entry(name, build, {}, least=1, size=min(height or SIZE, width or height or SIZE))


def _load(path: Path) -> Any:
    keras = require("keras")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever a file from anywhere makes Keras raise
        reason = " ".join(str(error).split())[:200]
        raise EdgennError(
            f"{path} is not a model that Keras {keras.__version__} loads ({reason}): save it again, or give a .py file "
            "with build(input_shape, classes)"
        ) from None
    return _flat(model, str(path))


def _shape(model: Any, what: str) -> tuple[int | None, int | None, int | None]:
    """(height, width, channels) of the model's one input; None where any will do."""
    if len(model.inputs) != 1 or len(model.input_shape) != 4:
        raise EdgennError(f"{what} does not take one picture (height, width, channels): {model.input_shape}")
    height, width, channels = model.input_shape[1:]
    return height, width, channels


def _flat(model: Any, what: str) -> Any:
    """A functional model; a sequential one is turned into it."""
    keras = require("keras")
    if not isinstance(model, keras.Model):
        raise EdgennError(f"{what} gives {type(model).__name__}, not a keras.Model: return the model")
    try:
        # A model of a list of one input warns whenever it is called with that input.
        inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
        return keras.Model(inputs, model.outputs, name=model.name)
    except (AttributeError, TypeError, ValueError):
        raise EdgennError(
            f"{what} gives a model without a graph: build it with keras.Input and keras.Model, not as a subclass"
        ) from None


def _with_classes(model: Any, classes: int, path: Path) -> Any:
    """The model with a new Dense in place of its last layer."""
    keras = require("keras")
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise EdgennError(
            f"{path} tells {model.output_shape[-1]} classes apart and the photos have {classes}; its last layer is a "
            f"{type(last).__name__}, and only a Dense is replaced: save it with one"
        )
    scores = keras.layers.Dense(classes, activation="softmax", name="scores")(last.input)
    return keras.Model(model.input, scores, name=model.name)


def _checked(model: Any, input_shape: tuple[int, int, int], classes: int, what: str) -> Any:
    """The model, if it is what training and conversion take: one picture in, a probability for each class out.

    Its last layer is called "scores" from here on, as in the networks of edgenn.
    """
    model = _flat(model, what)
    if _shape(model, what) != tuple(input_shape):
        raise EdgennError(f"{what} takes pictures of {_shape(model, what)}, not {tuple(input_shape)}: use input_shape")
    if len(model.outputs) != 1 or tuple(model.output_shape) != (None, classes):
        raise EdgennError(f"{what} gives {model.output_shape}, not (None, {classes}): end it in a Dense of `classes`")
    for layer in _all_layers(model):
        if type(layer).__module__.partition(".")[0] != "keras" or type(layer).__name__ == "Lambda":
            raise EdgennError(
                f"{what} has the layer {layer.name!r}, a {type(layer).__name__}, whose code a saved model does not "
                "hold: build it of Keras' own layers"
            )
    noise = np.random.RandomState(0).randint(0, 256, (1, *input_shape)).astype(np.float32)
    scores = np.asarray(model(noise, training=False))
    if not np.all(np.isfinite(scores)) or scores.min() < 0 or abs(scores.sum() - 1) > 1e-3:
        raise EdgennError(f"{what} gives no probabilities (they add up to {scores.sum():.3g}): end it in a softmax")
    if all(layer.name != "scores" for layer in model.layers):
        model.layers[-1].name = "scores"
    return model


def _all_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Run a user's code, with its folder on the path as for a script; an error in it becomes one line with its place.

    Raises:
      EdgennError: what the code raised, with file and line.
    """
    sys.path.insert(0, str(path.resolve().parent))
    try:
        yield
    except SyntaxError as error:
        raise EdgennError(f"{error.filename or path}, line {error.lineno}: {error.msg}") from None
    except EdgennError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {frames[-1].lineno}" if frames else str(path)
        text = next((line for line in str(error).splitlines() if line.strip()), "no reason given").strip()
        raise EdgennError(f"{place}: {type(error).__name__}: {text}") from None
    finally:
        sys.path.remove(str(path.resolve().parent))
