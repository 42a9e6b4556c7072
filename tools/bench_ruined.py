"""Networks that int8 ruins, what restores each, and whether `debug` names the guilty layer.

    python tools/bench_ruined.py [--seed 0] [--out FILE.json]

Trains a small network on drawn garments and spoils copies of it in three ways at one layer, with little effect in float
(`float` is measured for each). Each is then converted in every way that `edgenn convert` has, by
`edgenn.convert` itself, and `debug` is asked about the int8 file. About two minutes on two cores.

channels   its channels are scaled by e⁻⁵ to e⁵, and what reads them back: one scale cannot hold them
outlier    one channel is zero but at one place in two thousand, where it goes up to 1000 times all others, unheeded
constant   one channel is 10,000 everywhere and nothing behind it heeds it: no gradient would make it smaller
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgenn
from edgenn import data
from edgenn.conversion.debug import diagnose
from edgenn.data import garments
from edgenn.extras import require
from edgenn.training.run import Run
from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically

# The layer that is spoilt, its normalisation, and the layer that alone reads it.
GUILTY, NORM, READER = "block2_conv1", "block2_conv1_norm", "block2_conv2"
SETTINGS: dict[str, Any] = {"size": 64, "epochs": 20, "network_options": {"width": 10, "depth": 4}}
PER_CLASS = 300
# Share of an outlying channel's values that are zero.
RARE = 0.9995
# What is tried: a name, and options of `edgenn.convert`.
WAYS: dict[str, dict[str, Any]] = {
    "int8": {"quantization": "int8"},
    "percentile": {"quantization": "int8", "ranges": "percentile"},
    "equalized": {"quantization": "equalized"},
    "qat": {"quantization": "qat"},
    "mixed": {"quantization": "mixed"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON to write besides")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="edgenn-ruined-") as name:
        folder = Path(name)
        garments.write(folder / "photos", PER_CLASS, seed=options.seed, size=96)
        edgenn.train(folder / "photos", folder / "healthy", seed=options.seed, **SETTINGS)
        spoils: dict[str, Callable[[Any, NDArray[np.uint8]], None] | None]
        spoils = {"healthy": None, "channels": channels, "outlier": outlier, "constant": constant}
        for kind, spoil in spoils.items():
            run = folder / kind
            if spoil:
                spoilt(folder / "healthy", run, spoil)
            results.append({"network": kind, **tried(run, tuple(WAYS) if spoil else ("int8",))})
            print(line(results[-1]), flush=True)
    if options.out:
        write_atomically(options.out, json.dumps(results, indent=1))


def spoilt(healthy: Path, run: Path, spoil: Callable[[Any, NDArray[np.uint8]], None]) -> None:
    """A copy of a run with its network spoilt."""
    shutil.copytree(healthy, run)
    of = Run.load(run)
    photos = data.scan(of.photos, of.labels).splits
    loaded = data.load((*photos["train"], *photos["validation"]), of.recipe.input)
    model = require("keras").models.load_model(of.model, compile=False)
    spoil(model, loaded.tensors)
    model.save(of.model)


def channels(model: Any, pictures: NDArray[np.uint8]) -> None:
    norm, reader = model.get_layer(NORM), model.get_layer(READER)
    factor = np.exp(np.linspace(-5, 5, norm.gamma.shape[0])).astype(np.float32)
    norm.gamma.assign(norm.gamma * factor)
    norm.beta.assign(norm.beta * factor)
    reader.kernel.assign(reader.kernel / factor[:, None])


def outlier(model: Any, pictures: NDArray[np.uint8]) -> None:
    keras, norm = require("keras"), model.get_layer(NORM)
    given = keras.Model(model.input, norm.output).predict(pictures.astype(np.float32), verbose=0)
    rare, highest = np.quantile(given[..., 0], RARE), given[..., 0].max()
    gain = 1000 * float(np.abs(given).max() / (highest - rare))
    first = np.arange(norm.gamma.shape[0]) == 0
    norm.gamma.assign(np.where(first, norm.gamma * gain, norm.gamma))
    norm.beta.assign(np.where(first, (norm.beta - rare) * gain, norm.beta))
    unheeded(model)


def constant(model: Any, pictures: NDArray[np.uint8]) -> None:
    norm = model.get_layer(NORM)
    first = np.arange(norm.gamma.shape[0]) == 0
    norm.gamma.assign(np.where(first, 0.0, norm.gamma))
    norm.beta.assign(np.where(first, 1e4, norm.beta))
    unheeded(model)


def unheeded(model: Any) -> None:
    """Nothing that reads the first channel has a weight for it."""
    reader = model.get_layer(READER)
    kernel = reader.kernel.numpy()
    kernel[:, :, 0] = 0
    reader.kernel.assign(kernel)


def tried(run: Path, ways: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"ways": {}}
    for name in ways:
        try:
            made = edgenn.convert(run, out=run.with_name(f"{run.name}-{name}.tflite"), **WAYS[name])
        except EdgennError as error:
            found["ways"][name] = {"refused": str(error)}
            continue
        found["float"], found["pictures"], found["runtime"] = made.float_accuracy, made.pictures, made.runtime
        found["ways"][name] = {
            "accuracy": made.int8_accuracy,
            "agreement": made.agreement,
            "passed": made.passed,
            "float_layers": made.float_layers,
            "seconds": made.seconds,
        }
        if name == "int8":
            verdict = diagnose(made.model, run=run).verdict
            found["debug"] = {"guilty": verdict.guilty, "cause": verdict.cause, "healthy": verdict.healthy}
            found["named"] = verdict.healthy if run.name == "healthy" else verdict.guilty == GUILTY
    return found


def line(result: dict[str, Any]) -> str:
    tried = ", ".join(f"{name} {said_of(way)}" for name, way in result["ways"].items())
    if "debug" not in result:
        return f"{result['network']:9} {tried}"
    debug = result["debug"]
    said = "healthy" if debug["healthy"] else f"{debug['guilty'] or 'no layer'} ({debug['cause']})"
    return f"{result['network']:9} float {result['float']:.3f} of {result['pictures']}; {tried}; debug says {said}"


def said_of(way: dict[str, Any]) -> str:
    if "refused" in way:
        return "refused"
    kept = f" with {' and '.join(way['float_layers'])} in float" if way["float_layers"] else ""
    return f"{way['accuracy']:.3f} ({way['agreement']:.3f}){'' if way['passed'] else ' rejected'}{kept}"


if __name__ == "__main__":
    main()
