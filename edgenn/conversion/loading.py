"""Somebody else's Keras file as a keras.Model: a .keras, or an .h5 of Keras 2 that Keras 3 alone would refuse.

Nothing in the file is run: what brings Python code or another file along (Lambda and its like) is refused by name, and
so are layers that are not Keras's own. Old settings that say nothing are dropped in a copy, and calls of TensorFlow
that only scale pixels become the Rescaling that they are; what would change the network is never guessed.
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

HDF5 = (".h5", ".hdf5")
# Layers whose config holds code, or the address of a program.
_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "SavedNetwork"}
# Settings that Keras 2 wrote and Keras 3 does not take: with these values, or whatever their value, they say nothing.
_SAYS_NOTHING: dict[str, tuple[Any, ...] | None] = {
    "groups": (1,),
    "noise_shape": (None,),
    "rng_type": None,  # how random numbers were made in training
    "kernel_initializer": None,  # of SeparableConv2D, which has depthwise_ and pointwise_ ones
    "kernel_regularizer": None,
    "kernel_constraint": None,
    "trainable": None,  # of layers without weights
}
# What Keras 2 kept of `x / 127.5` and the like in a network: the function, and (scale, offset) of its constant.
_ARITHMETIC = {
    "math.truediv": lambda y: (1 / y, 0.0),
    "math.divide": lambda y: (1 / y, 0.0),
    "math.multiply": lambda y: (y, 0.0),
    "math.subtract": lambda y: (1.0, -y),
    "math.add": lambda y: (1.0, y),
    "__operators__.add": lambda y: (1.0, y),
}


def load(path: Path) -> Any:
    """Load a .keras or .h5 file.

    Returns:
      A keras.Model, not compiled.

    Raises:
      EdgennError: it is damaged, holds weights only, or has a layer that is code or not Keras's own.
    """
    return _load_hdf5(path) if path.suffix in HDF5 else _load_keras(path)


def _load_keras(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, RecursionError) as error:
        raise EdgennError(f"{path} is not a .keras file ({error}): save the model again with model.save") from None
    if any(str(entry.get("registered_name")).startswith("edgenn>") for entry in _entries(config)):
        from .fake_quant import layers  # noqa: F401 - registers them with Keras
    _check(config, path)
    return _by_keras(path, path)


def _load_hdf5(path: Path) -> Any:
    h5py = require("h5py")
    with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as folder:
        copy = Path(folder) / "model.h5"
        try:
            shutil.copyfile(path, copy)
            with h5py.File(copy, "r+") as file:
                if "model_config" not in file.attrs:
                    raise EdgennError(
                        f"{path} holds weights without their network: load them into it and save it with model.save"
                    )
                config = json.loads(file.attrs["model_config"])
                _check(config, path)
                for entry in _entries(config):
                    _mend(entry, path)
                file.attrs["model_config"] = json.dumps(config)
        except (OSError, ValueError, KeyError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise EdgennError(f"{path} is not a Keras .h5 file ({reason[:200]}): save the model again") from None
        return _by_keras(copy, path)


def _by_keras(file: Path, path: Path) -> Any:
    keras = require("keras")
    try:
        return keras.saving.load_model(file, compile=False)
    except MemoryError:
        raise
    except Exception as error:  # Keras has no one type for what it refuses
        reason = " ".join(str(error).split())
        raise EdgennError(f"{path} cannot be loaded by Keras {keras.__version__}: {reason[:300]}") from None


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """Every object of a config that names a class, outermost first."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        for value in config.values():
            yield from _entries(value)
    elif isinstance(config, list):
        for value in config:
            yield from _entries(value)


def _check(config: Any, path: Path) -> None:
    """Refuse what would run code."""
    keras = require("keras")
    for entry in _entries(config):
        kind, module = entry["class_name"], entry.get("module")
        settings = entry.get("config")
        name = settings.get("name", kind) if isinstance(settings, dict) else kind
        if kind in _CODE:
            raise EdgennError(
                f"layer {name!r} ({kind}) of {path} is code that the file brings along, and is not run: replace it by "
                "layers of Keras, or give a SavedModel (model.export)"
            )
        known = entry.get("registered_name") or kind
        own = isinstance(module, str) and module.partition(".")[0] not in ("keras", "builtins", "edgenn")
        if own and keras.saving.get_registered_object(known) is None:
            raise EdgennError(
                f"layer {name!r} ({kind}) of {path} is not one of Keras's own: give a SavedModel (model.export) instead"
            )


def _mend(entry: dict[str, Any], path: Path) -> None:
    """Make one layer of a Keras 2 config one that Keras 3 understands."""
    settings = entry.get("config")
    if not isinstance(settings, dict):
        return
    if entry["class_name"] == "TFOpLambda":
        _to_rescaling(entry, settings, path)
        return
    if isinstance(settings.get("layers"), list):
        _renumber_calls(settings)
    layer = getattr(require("keras").layers, entry["class_name"], None)
    if not inspect.isclass(layer):
        return
    taken = _parameters(layer)
    for key in [key for key in settings if key in _SAYS_NOTHING and key not in taken]:
        silent = _SAYS_NOTHING[key]
        if silent is None or settings[key] in silent:
            del settings[key]


def _renumber_calls(network: dict[str, Any]) -> None:
    """Count the calls of a network inside a network from 0, as Keras 3 does when it reads the old form.

    Keras 2 counted the network's own making as its first call.
    """
    layers = [layer for layer in network["layers"] if isinstance(layer, dict)]
    calls = {
        layer.get("name"): len(layer.get("inbound_nodes", ()))
        for layer in layers
        if layer["class_name"] in ("Functional", "Model", "Sequential")
    }
    references = [
        reference
        for layer in layers
        for node in layer.get("inbound_nodes", ())
        if isinstance(node, list)
        for reference in ([node] if node and isinstance(node[0], str) else node)
        if isinstance(reference, list) and reference[0] in calls
    ]
    highest: dict[Any, int] = {}
    for name, number, *_ in references:
        highest[name] = max(number, highest.get(name, 0))
    for reference in references:
        if highest[reference[0]] >= calls[reference[0]]:
            reference[1] -= 1


def _parameters(layer: type) -> set[str]:
    """Settings that a layer takes: its own, and its base classes' where it passes on what it does not know."""
    found: set[str] = set()
    for kind in layer.__mro__:
        if "__init__" not in vars(kind):
            continue
        parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        found |= set(parameters)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def _to_rescaling(entry: dict[str, Any], settings: dict[str, Any], path: Path) -> None:
    """`x / 127.5`, `x - 1` and so on, each of which Keras 2 kept as a call of TensorFlow, as a Rescaling."""
    nodes = entry.get("inbound_nodes")
    function = settings.get("function")
    try:
        (name, node, tensor, given) = nodes[0]  # type: ignore[index]
        constant = given["y"]
        scale, offset = _ARITHMETIC[function](float(constant))  # type: ignore[index,no-untyped-call]
        if len(nodes) != 1:  # type: ignore[arg-type]
            raise ValueError(function)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise EdgennError(
            f"layer {settings.get('name')!r} of {path} calls tf.{function}, which Keras 3 cannot load: "
            "export it as a SavedModel (model.save with save_format='tf') with the Keras that made it"
        ) from None
    entry["class_name"] = "Rescaling"
    entry["config"] = {"name": settings["name"], "scale": scale, "offset": offset}
    entry["inbound_nodes"] = [[[name, node, tensor, {}]]]
