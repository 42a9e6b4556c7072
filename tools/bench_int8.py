"""What int8 costs: accuracy and agreement of trained runs, on LiteRT and the same file on tflite-runtime.

    python -m tools.bench_int8 RUN... --photos PHOTOS [--schemes int8,qat] [--out FILE.json]

Each RUN is a folder with a model.keras; several are one network's seeds. Each is converted with each scheme by the
pieces of `edgenn convert` and judged on the validation photos. Every result is appended to FILE.json as it comes, and
one that stands there already is not computed again. "simulated" compares the fake-quant network in Keras with the
int8 file, photo by photo; tflite-runtime's columns stay empty where no Python with it is found. Nothing is written
into the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgenn.conversion import attempt, gate, interchange, runtimes
from edgenn.conversion.quantize import FULL_INTEGER, Scheme
from edgenn.evaluation import metrics, predict
from edgenn_device.card import Card
from edgenn_device.files import write_atomically
from edgenn_device.model_file import ModelFile, attach

TARGET = "pi"
# Seconds for tflite-runtime, whose built-in kernels take a tenth of a second a photo on a busy x86 machine.
PATIENCE = 1800.0
_CHILD = """
import sys
import numpy
from edgenn_device import model_file
from edgenn_device.interpreter import Interpreter
interpreter = Interpreter(model_file.load(sys.argv[1]), runtime="tflite-runtime", threads=2)
tensors = numpy.load(sys.argv[2], mmap_mode="r")
numpy.save(sys.argv[3], [interpreter.invoke(numpy.ascontiguousarray(one[None])).argmax() for one in tensors])
print(interpreter.description)
"""
_COLUMNS = {
    "float": ("float", ".3f"),
    "int8": ("LiteRT", ".3f"),
    "drop_points": ("drop", "+.2f"),
    "agreement": ("same label", ".3f"),
    "tflite_runtime": ("tflite-rt", ".3f"),
    "tflite_runtime_drop_points": ("drop", "+.2f"),
    "tflite_runtime_agreement": ("same label", ".3f"),
    "simulated_agreement": ("as simulated", ".3f"),
    "simulated_agreement_tflite_runtime": ("on tflite-rt", ".3f"),
    "seconds": ("seconds", ".0f"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--photos", type=Path, help="where the photos are, if not where they were in training")
    parser.add_argument("--schemes", default="int8,qat", help="of int8, equalized, qat (default: int8,qat)")
    parser.add_argument("--out", type=Path, default=Path("bench_int8.json"), help="(default: bench_int8.json)")
    options = parser.parse_args()
    schemes = options.schemes.split(",")
    if unknown := [scheme for scheme in schemes if scheme not in FULL_INTEGER]:
        parser.error(f"no scheme {unknown[0]!r}: choose of {', '.join(FULL_INTEGER)}")
    results: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    for run in options.runs:
        known = {result["scheme"] for result in results if result["run"] == str(run.resolve())}
        for result in measured(run, options.photos, [cast(Scheme, name) for name in schemes if name not in known]):
            results.append(result)
            write_atomically(options.out, json.dumps(results, indent=1))
    wanted = {str(run.resolve()) for run in options.runs}
    for scheme in schemes:
        table(scheme, [result for result in results if result["run"] in wanted and result["scheme"] == scheme])


def measured(run: Path, photos: Path | None, schemes: list[Scheme]) -> Iterator[dict[str, Any]]:
    """One result a scheme."""
    if not schemes:
        return
    with interchange.opened(run, photos, None, said) as original:
        calibration, validation = attempt.pictures(original)
        quantizer = attempt.quantizer_for(original, calibration, validation, target=TARGET, say=said)
        judge = gate.Judge(original.model, validation.tensors, validation.labels, TARGET, gate.MAX_DROP)
        for scheme in schemes:
            said(f"{run}: {scheme}")
            began = time.perf_counter()
            made = attempt.quantized(quantizer, scheme, TARGET)
            seconds = time.perf_counter() - began
            card = attempt.card_of(original, "model", made, scheme, TARGET, "uint8")
            file = attempt.loaded(made.content, card)
            verdict = judge.judge(file, in_float=())
            right = validation.labels
            result = {
                "run": str(run.resolve()),
                "scheme": scheme,
                "fingerprint": original.training.get("fingerprint"),
                "seed": original.recipe.seed,
                "pictures": len(right),
                "bytes": len(file.content),
                "float": verdict.before,
                "int8": verdict.after,
                "runtime": verdict.actual.runtime,
                "drop_points": 100 * (verdict.before - verdict.after),
                "agreement": verdict.agreement,
                "p_value": verdict.p_value,
                "reasons": verdict.reasons,
                "seconds": seconds,
            }
            simulated = predict(made.simulated, validation.tensors).top1 if made.simulated is not None else None
            if simulated is not None:
                result["simulated"] = float(np.mean(simulated == right))
                result["simulated_agreement"] = metrics.agreement(simulated, verdict.actual.top1)
            other = in_tflite_runtime(file, card, validation.tensors)
            if other is not None:
                said_there, name = other
                after = float(np.mean(said_there == right))
                result["tflite_runtime_version"] = name
                result["tflite_runtime"] = after
                result["tflite_runtime_drop_points"] = 100 * (verdict.before - after)
                result["tflite_runtime_agreement"] = metrics.agreement(verdict.expected.top1, said_there)
                if simulated is not None:
                    result["simulated_agreement_tflite_runtime"] = metrics.agreement(simulated, said_there)
            yield result


def in_tflite_runtime(file: ModelFile, card: Card, tensors: NDArray[np.uint8]) -> tuple[NDArray[np.int64], str] | None:
    """The class of each picture and the runtime's description; None where there is no Python with tflite-runtime."""
    python, why = runtimes.python_with_tflite_runtime()
    if python is None:
        said(f"tflite-runtime: {why}")
        return None
    with tempfile.TemporaryDirectory(prefix="edgenn-bench-") as folder:
        given, got = Path(folder) / "tensors.npy", Path(folder) / "classes.npy"
        np.save(given, tensors)
        content = attach(file.content, card)
        child = runtimes.run_beside(python, _CHILD, content, str(given), str(got), patience=PATIENCE)
        if child.returncode:
            said(f"tflite-runtime: {(child.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
            return None
        classes: NDArray[np.int64] = np.load(got)
        return classes, child.stdout.strip().splitlines()[-1]


def table(scheme: str, results: list[dict[str, Any]]) -> None:
    """A row a run, then mean and range."""
    if not results:
        return
    names = [Path(result["run"]).name for result in results]
    width = max(12, *map(len, names))
    print(f"\n{scheme} ({results[0]['pictures']} validation photos; {results[0]['runtime']})")
    print(f"{'':{width}}  " + "  ".join(f"{title:>12}" for title, _ in _COLUMNS.values()))
    columns = {key: [result.get(key) for result in results] for key in _COLUMNS}
    for row, name in enumerate(names):
        print(line(name, width, [columns[key][row] for key in _COLUMNS]))
    if len(results) > 1:
        known = {key: [value for value in values if value is not None] for key, values in columns.items()}
        for name, figure in (("mean", statistics.fmean), ("least", min), ("most", max)):
            print(line(name, width, [figure(known[key]) if known[key] else None for key in _COLUMNS]))


def line(name: str, width: int, values: list[float | None]) -> str:
    forms = [form for _, form in _COLUMNS.values()]
    shown = ["–" if value is None else format(value, form) for value, form in zip(values, forms, strict=True)]
    return f"{name:{width}}  " + "  ".join(f"{text:>12}" for text in shown)


def said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
