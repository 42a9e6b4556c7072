"""Measures which operators tflite-runtime has, and writes edgenn/conversion/targets/tflite_runtime_2_14.json.

A runtime looks up every operator code of a model, by name and version, when its interpreter is made, and whether or
not the graph uses it. So each question is a model without operators and with one operator code; nothing is run.

    make test            # makes .venv-tflite-runtime
    .venv/bin/python tools/tflite_runtime_operators.py .venv-tflite-runtime/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from edgenn_device.operators import CUSTOM, OPERATORS

DATA = Path(__file__).parents[1] / "edgenn" / "conversion" / "targets" / "tflite_runtime_2_14.json"
VERSION = "2.14.0"
HIGHEST = 24  # the highest version of any operator in 2026 is 14 (FULLY_CONNECTED)

# Runs under the runtime's Python, which has neither flatbuffers nor edgenn.
ASK = """
import json, sys
from pathlib import Path
import tflite_runtime
from tflite_runtime.interpreter import Interpreter

def has(path):
    try:
        Interpreter(model_content=path.read_bytes())
    except ValueError as error:
        if "Didn't find op for builtin opcode" in str(error) or "Op builtin_code out of range" in str(error):
            return False
        raise
    return True

answers = {path.stem: has(path) for path in Path(sys.argv[1]).glob("*.tflite")}
json.dump({"version": tflite_runtime.__version__, "answers": answers}, sys.stdout)
"""


def question(code: int, version: int) -> bytes:
    """A model that returns its input and lists one operator code."""
    model = schema.ModelT()
    model.version = 3
    operator = schema.OperatorCodeT()
    operator.deprecatedBuiltinCode, operator.builtinCode, operator.version = min(code, 127), code, version
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "x", [1], schema.TensorType.FLOAT32, 0
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    model.operatorCodes, model.subgraphs, model.buffers = [operator], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(512)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def measure(python: str) -> dict[str, int]:
    """The highest version of each operator that the runtime of `python` has; operators it lacks are left out."""
    with tempfile.TemporaryDirectory() as folder:
        for code, name in enumerate(OPERATORS):
            if code != CUSTOM:
                for version in range(1, HIGHEST + 1):
                    (Path(folder) / f"{name}-{version}.tflite").write_bytes(question(code, version))
        done = subprocess.run([python, "-c", ASK, folder], check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout)
    if result["version"] != VERSION:
        raise SystemExit(f"{python} has tflite-runtime {result['version']}, and {VERSION} is asked for")
    table = {}
    for name in OPERATORS:
        versions = [version for version in range(1, HIGHEST + 1) if result["answers"].get(f"{name}-{version}")]
        # BROADCAST_TO begins with version 2, and no converter writes its version 1.
        if versions and versions != list(range(versions[0], versions[-1] + 1)):
            raise SystemExit(f"{name} has versions {versions}, which one number cannot say")
        if versions and versions[-1] == HIGHEST:
            raise SystemExit(f"{name} has every version up to {HIGHEST}: raise HIGHEST")
        if versions:
            table[name] = versions[-1]
    return table


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("python", help="a Python that has tflite-runtime 2.14")
    DATA.write_text(json.dumps(measure(arguments.parse_args().python), indent=1) + "\n")
    print(f"written to {DATA}")
