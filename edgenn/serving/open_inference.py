"""The Open Inference Protocol (KServe v2) over HTTP, with its binary tensor data extension: bytes in, bytes out.

A request gives one input, `image` (BYTES, an encoded picture) or `tensor` (the model's own shape and dtype), and may
ask for `scores` (FP32), `label` (BYTES), and, by Triton's classification extension, for the best k classes by name.
Binary is the protocol's fast way; JSON tensors are understood for clients that know nothing else. One picture a
request: .tflite models have a batch of 1. No shared memory, no sequences, no model repository.

Source: https://github.com/kserve/open-inference-protocol (inference_rest.md) and Triton's protocol extensions
(extension_binary_data.md, extension_classification.md). Works on whole bodies, away from the event loop.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn_device.card import InputSpec

from .limits import Refusal

VERSION = "1"
EXTENSIONS = ("binary_tensor_data", "classification")
IMAGE, TENSOR = "image", "tensor"
SCORES, LABEL = "scores", "label"

_DATATYPES = {"uint8": "UINT8", "int8": "INT8", "float32": "FP32"}
# The protocol's binary data is little-endian.
_DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "int8": np.dtype("i1"), "float32": np.dtype("<f4")}
# Commas and opening brackets of a request's JSON beside those of its tensor.
_BESIDES = 10_000


@dataclass(frozen=True)
class Wanted:
    """An output that the client asked for; `best` > 0 asks for that many classes by name instead of numbers."""

    name: str
    binary: bool
    best: int = 0


@dataclass(frozen=True)
class Request:
    """An inference request: `content` is an encoded picture or the input tensor (1, height, width, channels)."""

    id: str | None
    content: bytes | NDArray[Any]
    outputs: tuple[Wanted, ...]


def metadata(name: str, spec: InputSpec, labels: tuple[str, ...]) -> dict[str, Any]:
    """The model's metadata. The two inputs are alternatives."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "tflite",
        "inputs": [
            {"name": IMAGE, "datatype": "BYTES", "shape": [1]},
            {"name": TENSOR, "datatype": _DATATYPES[spec.dtype], "shape": [1, *spec.shape]},
        ],
        "outputs": [
            {"name": SCORES, "datatype": "FP32", "shape": [1, len(labels)]},
            {"name": LABEL, "datatype": "BYTES", "shape": [1]},
        ],
        "parameters": {"labels": list(labels)},
    }


def parse(body: bytes, header_length: str | None, spec: InputSpec) -> Request:
    """Read an inference request.

    Args:
      body: all of it.
      header_length: the HTTP header Inference-Header-Content-Length: where JSON ends and binary data begins.
      spec: the model's input.

    Raises:
      Refusal: 400, with what is wrong in the request.
    """
    text, binary = _split(body, header_length)
    _check_size(text, spec)
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(400, "the request is not JSON: see the Open Inference Protocol") from None
    if not isinstance(request, dict):
        raise Refusal(400, "the request is not a JSON object: see the Open Inference Protocol")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refusal(400, f"exactly one input is needed: {IMAGE!r} (an encoded picture) or {TENSOR!r}")
    given = inputs[0]
    if given.get("name") == IMAGE:
        content: bytes | NDArray[Any] = _image(given, binary)
    elif given.get("name") == TENSOR:
        content = _tensor(given, binary, spec)
    else:
        raise Refusal(400, f"there is no such input: give {IMAGE!r} (an encoded picture) or {TENSOR!r}")
    identity = request.get("id")
    # Half a surrogate pair stands in JSON and in no answer.
    if identity is not None and (not isinstance(identity, str) or re.search("[\ud800-\udfff]", identity)):
        raise Refusal(400, "the request's id is not text")
    return Request(identity, content, _outputs(request))


def response(
    name: str, request: Request, scores: NDArray[np.float32], labels: tuple[str, ...]
) -> tuple[bytes, int | None]:
    """The answer to a request.

    Args:
      name: of the model.
      request: what was asked.
      scores: float32 of shape (classes,), finite.
      labels: of the classes.

    Returns:
      The body, and how many of its bytes are JSON if binary data follows (else None).
    """
    outputs, binary = [], []
    for wanted in request.outputs:
        if wanted.best:
            best = np.argsort(-scores, kind="stable")[: wanted.best]
            # Triton's form of a class: value, index, label.
            datatype, shape = "BYTES", [1, len(best)]
            data: list[Any] = [f"{scores[index]:f}:{index}:{labels[index]}" for index in best]
        elif wanted.name == LABEL:
            datatype, shape, data = "BYTES", [1], [labels[int(scores.argmax())]]
        else:
            datatype, shape, data = "FP32", [1, len(scores)], []
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            raw = scores.astype("<f4").tobytes() if datatype == "FP32" else b"".join(map(_with_length, data))
            output["parameters"] = {"binary_data_size": len(raw)}
            binary.append(raw)
        else:
            output["data"] = scores.tolist() if datatype == "FP32" else data
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": name, "model_version": VERSION}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps({**answer, "outputs": outputs}, ensure_ascii=False).encode()
    return (b"".join([text, *binary]), len(text)) if binary else (text, None)


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 12):
        raise Refusal(400, "Inference-Header-Content-Length is not a number")
    length = int(header_length)
    if length > len(body):
        raise Refusal(400, f"Inference-Header-Content-Length is {length} and the body has {len(body)} bytes")
    return body[:length], body[length:]


def _check_size(text: bytes, spec: InputSpec) -> None:
    """Refuse JSON of more values than the tensor can have: while it is parsed no other thread runs."""
    # Every value but the outermost follows a comma or an opening bracket, whatever else these may stand for. A tensor
    # has a comma less than numbers, however it is nested, and as its shape is at most two lists for each number.
    if len(text) - len(text.translate(None, b",[{")) > 3 * math.prod(spec.shape) + _BESIDES:
        raise Refusal(400, f"the request's JSON holds more values than {TENSOR!r} of shape {[1, *spec.shape]} can have")


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, "parameters are not a JSON object")
    return parameters


def _binary(given: dict[str, Any], binary: bytes) -> bytes | None:
    """The input's binary data, None if its data are in the JSON."""
    parameters = _parameters(given)
    if "shared_memory_region" in parameters:
        raise Refusal(400, "shared memory is not offered: send the data")
    size = parameters.get("binary_data_size")
    if size is None:
        if binary:
            raise Refusal(400, "binary data follow the request and its input has no binary_data_size")
        return None
    if type(size) is not int or size != len(binary):
        raise Refusal(400, f"binary_data_size does not agree with the {len(binary)} bytes that follow the request")
    return binary


def _image(given: dict[str, Any], binary: bytes) -> bytes:
    if given.get("datatype") != "BYTES" or given.get("shape") not in ([1], [1, 1]):
        raise Refusal(400, f"the input {IMAGE!r} is BYTES of shape [1]: one encoded picture a request")
    raw = _binary(given, binary)
    if raw is not None:
        if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != len(raw) - 4:
            raise Refusal(400, f"the input {IMAGE!r} is one element: its length in 4 bytes, then the picture")
        return raw[4:]
    data = _flat(given.get("data"))
    if len(data) != 1 or not isinstance(data[0], str):
        raise Refusal(400, f"the data of {IMAGE!r} are one string in JSON: the picture in base64")
    try:
        return base64.b64decode(data[0], validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(
            400, f"the data of {IMAGE!r} are not base64, which JSON needs: or send it as binary data"
        ) from None


def _tensor(given: dict[str, Any], binary: bytes, spec: InputSpec) -> NDArray[Any]:
    shape, datatype, dtype = [1, *spec.shape], _DATATYPES[spec.dtype], _DTYPES[spec.dtype]
    if given.get("datatype") != datatype or given.get("shape") != shape:
        raise Refusal(400, f"the input {TENSOR!r} is {datatype} of shape {shape}")
    raw = _binary(given, binary)
    if raw is None:
        tensor = _numbers(_flat(given.get("data")), math.prod(shape), spec.dtype).reshape(shape)
    else:
        if len(raw) != math.prod(shape) * dtype.itemsize:
            raise Refusal(400, f"{TENSOR!r} has {len(raw)} bytes and needs {math.prod(shape) * dtype.itemsize}")
        tensor = np.frombuffer(raw, dtype).reshape(shape).astype(spec.dtype, copy=False)
    if spec.dtype == "float32" and not np.isfinite(tensor).all():
        raise Refusal(400, f"{TENSOR!r} holds numbers that are not finite")
    return tensor


def _flat(data: object) -> list[Any]:
    """Nested lists as one, level by level: never more elements than the JSON had."""
    if not isinstance(data, list):
        raise Refusal(400, "the input has no data: a list is needed, or binary_data_size")
    flat: list[Any] = data
    while flat and isinstance(flat[0], list):
        if set(map(type, flat)) != {list}:
            raise Refusal(400, "the input's data are nested unevenly")
        flat = [element for row in flat for element in row]
    return flat


def _numbers(data: list[Any], count: int, dtype: str) -> NDArray[Any]:
    # Counted and checked as Python objects: NumPy would make text of a list with one string in it, every element as
    # long as the longest.
    if len(data) != count:
        raise Refusal(400, f"the input has {len(data)} elements and needs {count}")
    kinds = set(map(type, data))
    if dtype == "float32":
        if kinds <= {int, float}:
            try:
                with np.errstate(over="ignore"):
                    return np.array(data, np.float64).astype(np.float32)
            except OverflowError:
                pass
        raise Refusal(400, "the input's data are not numbers that FP32 can hold")
    lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    if kinds != {int} or min(data) < lowest or max(data) > highest:
        raise Refusal(400, f"the input's data are not whole numbers from {lowest} to {highest}")
    return np.array(data, dtype)


def _outputs(request: dict[str, Any]) -> tuple[Wanted, ...]:
    default = _flag(_parameters(request), "binary_data_output")
    outputs = request.get("outputs") or []
    if not isinstance(outputs, list) or len(outputs) > 2:
        raise Refusal(400, f"the outputs are {SCORES!r} and {LABEL!r}, each at most once")
    wanted = []
    for output in outputs:
        if not isinstance(output, dict) or output.get("name") not in (SCORES, LABEL):
            raise Refusal(400, f"there is no such output: ask for {SCORES!r} or {LABEL!r}")
        parameters = _parameters(output)
        best = parameters.get("classification", 0)
        if type(best) is not int or best < 0 or (best and output["name"] != SCORES):
            raise Refusal(400, f"classification is a number of classes, asked of the output {SCORES!r}")
        wanted.append(Wanted(output["name"], _flag(parameters, "binary_data", default), best))
    if len({output.name for output in wanted}) < len(wanted):
        raise Refusal(400, "an output is asked for twice")
    return tuple(wanted) or (Wanted(SCORES, default), Wanted(LABEL, default))


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} is neither true nor false")
    return value


def _with_length(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw
