"""Times every operator inside LiteRT, in a process of its own: `python litert_child.py '{"threads": 2, …}' < MODEL`.

The Python Interpreter has no profiler, the C interface of libLiteRt.so has one. Wrong arguments to a C function end
the process, so this is a program, not a module to import: it needs nothing but the standard library, takes the model
on stdin and prints one JSON document. It interprets nothing; `operators` makes sense of what it saw.

Signatures: litert/c/litert_{environment,model,options,opaque_options,compiled_model,tensor_buffer,profiler}.h and
litert_profiler_event.h, LiteRT 2.1 to 2.3. The option texts are what litert/cc's option classes write (TOML under the
identifiers "runtime_options_string" and "xnnpack").
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
# LiteRtCpuKernelMode: 0 delegate (XNNPACK), 2 TFLite's built-in kernels.
_KERNEL_MODES = {"xnnpack": 0, "builtin": 2}
_MOST_RUNS = 500


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", c_uint32, 7),
        ("has_strides", c_uint32, 1),
        ("dimensions", c_int32 * 8),
        ("strides", c_uint32 * 8),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element", c_int32), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("index", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int),
    )


class _LiteRt:
    """libLiteRt.so; a call that answers anything but 0 raises RuntimeError with the function's name."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def __call__(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype = c_int
        status = function(*arguments)
        if status:
            raise RuntimeError(f"{name} answered {status}")

    def new(self, name: str, *arguments: Any) -> c_void_p:
        """Handle that a function writes through its last argument."""
        handle = c_void_p()
        self(name, *arguments, byref(handle))
        return handle


def measure(model: bytes, threads: int, kernels: str, seconds: float, summary: bool = False) -> dict[str, Any]:
    """Run `model` (bytes of a flatbuffer) for about `seconds` and record every run's events.

    Returns:
      {"runs": [{"wall_us": float, "events": [[tag, kind, index, subgraph, elapsed_us], …]}, …], "summary": str}, the
      summary being LiteRT's own of all runs, "" unless asked for.
    """
    found = importlib.util.find_spec("ai_edge_litert")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("ai-edge-litert is not installed")
    litert = _LiteRt(Path(found.submodule_search_locations[0]) / "libLiteRt.so")
    environment = litert.new("LiteRtCreateEnvironment", 0, None)
    content = ctypes.create_string_buffer(model, len(model))  # LiteRT does not copy it: it must outlive the model
    handle = litert.new("LiteRtCreateModelFromBuffer", environment, content, c_size_t(len(model)))
    options = litert.new("LiteRtCreateOptions")
    litert("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
    _add(litert, options, b"runtime_options_string", "enable_profiling = true\n")
    _add(litert, options, b"xnnpack", f"num_threads = {threads}\nkernel_mode = {_KERNEL_MODES[kernels]}\n")
    compiled = litert.new("LiteRtCreateCompiledModel", environment, handle, options)
    signature = litert.new("LiteRtGetModelSignature", handle, c_size_t(0))
    inputs = _buffers(litert, environment, compiled, signature, "Input")
    outputs = _buffers(litert, environment, compiled, signature, "Output")
    for buffer in inputs:
        _fill(litert, buffer)
    run = (compiled, c_size_t(0), c_size_t(len(inputs)), inputs, c_size_t(len(outputs)), outputs)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds / 5:  # warm up
        litert("LiteRtRunCompiledModel", *run)
    profiler = litert.new("LiteRtCompiledModelGetProfiler", compiled)
    runs: list[dict[str, Any]] = []
    told = ""
    started = time.perf_counter()
    while len(runs) < 3 or (time.perf_counter() - started < seconds and len(runs) < _MOST_RUNS):
        litert("LiteRtResetProfiler", profiler)
        litert("LiteRtStartProfiler", profiler)
        before = time.perf_counter()
        litert("LiteRtRunCompiledModel", *run)
        wall = time.perf_counter() - before
        litert("LiteRtStopProfiler", profiler)
        if summary:  # LiteRT adds a run to its summary whenever it is asked for it
            text = c_char_p()
            litert("LiteRtGetProfileSummary", profiler, compiled, byref(text))
            told = (text.value or b"").decode(errors="replace")
        runs.append({"wall_us": wall * 1e6, "events": _events(litert, profiler)})
    return {"runs": runs, "summary": told}


def _add(litert: _LiteRt, options: c_void_p, identifier: bytes, text: str) -> None:
    c = ctypes.CDLL(None)
    c.strdup.restype = c_void_p
    payload = c_void_p(c.strdup(text.encode()))  # LiteRT frees it with the function it is handed
    opaque = litert.new("LiteRtCreateOpaqueOptions", identifier, payload, ctypes.cast(c.free, c_void_p))
    litert("LiteRtAddOpaqueOptions", options, opaque)


def _buffers(
    litert: _LiteRt, environment: c_void_p, compiled: c_void_p, signature: c_void_p, side: str
) -> ctypes.Array[c_void_p]:
    count = c_size_t()
    litert(f"LiteRtGetNumSignature{side}s", signature, byref(count))
    buffers = []
    for index in range(count.value):
        tensor = litert.new(f"LiteRtGetSignature{side}TensorByIndex", signature, c_size_t(index))
        kind = _TensorType()
        litert("LiteRtGetRankedTensorType", tensor, byref(kind))
        needs = litert.new(f"LiteRtGetCompiledModel{side}BufferRequirements", compiled, c_size_t(0), c_size_t(index))
        buffers.append(litert.new("LiteRtCreateManagedTensorBufferFromRequirements", environment, byref(kind), needs))
    return (c_void_p * len(buffers))(*buffers)


def _fill(litert: _LiteRt, buffer: int | None) -> None:
    """Bytes that are neither constant nor, read as float32, too small for fast arithmetic (denormal)."""
    size = c_size_t()
    litert("LiteRtGetTensorBufferPackedSize", c_void_p(buffer), byref(size))
    address = c_void_p()
    litert("LiteRtLockTensorBuffer", c_void_p(buffer), byref(address), _WRITE)
    pattern = bytes((index * 37 % 61) + 1 for index in range(61)) * (size.value // 61 + 1)
    ctypes.memmove(address, pattern, size.value)
    litert("LiteRtUnlockTensorBuffer", c_void_p(buffer))


def _events(litert: _LiteRt, profiler: c_void_p) -> list[list[Any]]:
    count = c_int()
    litert("LiteRtGetNumProfilerEvents", profiler, byref(count))
    events = (_Event * count.value)()
    litert("LiteRtGetProfilerEvents", profiler, count.value, ctypes.cast(events, POINTER(_Event)))
    return [
        [event.tag.decode(errors="replace"), event.kind, event.index, event.subgraph, event.elapsed_us]
        for event in events
        if event.tag
    ]


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    try:
        answer = measure(sys.stdin.buffer.read(), **request)
    except (RuntimeError, AttributeError, OSError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)
