"""An interpreter with a delegate in a process of its own, so that the delegate can hang or crash and only it is lost.

Why not a thread: a runtime creates a delegate with Python's lock held, so one that never returns from there (an Edge
TPU that has locked up) stops every thread of the process; a thread that hangs in native code cannot be ended and keeps
the device; and a delegate built for another runtime ends its process. A child can be killed, which also frees the USB
device. The price is a second Python (some 60 MB) and, per frame, one copy of the tensor into shared memory and two
short messages: about 0.1 ms beside the 2 to 10 ms of an Edge TPU.

Run as a program it is the child: it takes tensors until its parent goes away.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .delegates import Delegate
from .errors import EdgennError
from .interpreter import Interpreter, Kernels, TensorSpec
from .model_file import ModelFile

# Seconds. Python and a runtime load in under one on a Pi 4 and in several on a Zero 2; a USB Accelerator that was just
# plugged in is given its firmware first and comes back on the bus as another device.
STARTING = 30.0
# Bytes of a message: an error's one line, or the description of two tensors.
_MESSAGE = 1 << 16
# PR_SET_PDEATHSIG of prctl(2): the kernel kills the child when the thread that started it is gone.
_PR_SET_PDEATHSIG = 1


class DelegateFailed(Exception):
    """The delegate refused, failed, hung or died; the message is one line for a person."""


class DelegateProcess(Interpreter):
    """The face of `Interpreter`, over a child that runs the model.

    Started by a thread that outlives it: when that thread ends, the child is killed. One thread at a time calls
    `invoke`; `kill` may come from any.

    Args:
      model: a verified model file.
      delegate, runtime, threads, kernels: as for `Interpreter`.

    Raises:
      OSError: no process or descriptor is left.
    """

    # Seconds an invoke may take; whoever knows how long one does set it.
    patience: float = STARTING

    def __init__(
        self,
        model: ModelFile,
        *,
        delegate: str,
        runtime: str = "auto",
        threads: int | None = None,
        kernels: Kernels = "default",
    ) -> None:
        spec = model.input
        self._tensor_bytes = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        # Behind the tensor, the scores: eight bytes each are enough for any dtype.
        size = self._tensor_bytes + model.classes * 8
        options = {"delegate": delegate, "runtime": runtime, "threads": threads, "kernels": kernels}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        descriptors: list[int] = []
        try:
            for name, length in (("edgenn-model", 0), ("edgenn-tensors", size)):
                descriptors.append(os.memfd_create(name))
                os.ftruncate(descriptors[-1], length)
            with os.fdopen(os.dup(descriptors[0]), "wb") as file:
                pickle.dump(model, file, pickle.HIGHEST_PROTOCOL)
            self._shared = mmap.mmap(descriptors[1], size)
            passed = (theirs.fileno(), *descriptors)
            # -P: what lies in the working directory is not imported.
            command = [sys.executable, "-P", "-m", __name__, *map(str, passed), str(os.getpid()), json.dumps(options)]
            self._child = subprocess.Popen(
                command, pass_fds=passed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for descriptor in descriptors:
                os.close(descriptor)

    def wait(self, patience: float = STARTING) -> None:
        """Wait until the child has loaded model and delegate; only then the attributes are there.

        Raises:
          DelegateFailed: it refuses, dies, or takes longer than `patience` seconds.
        """
        said = json.loads(self._answer(patience, "did not start"))
        if "error" in said:
            raise DelegateFailed(said["error"])
        self.runtime, self.version, self.threads, self.kernels = said["runtime"]
        self.delegate = Delegate(**said["delegate"]) if said["delegate"] else None
        self._description: str = said["description"]
        self.input, self.output = (_tensor_spec(values) for values in said["tensors"])
        self._tensor = np.frombuffer(self._shared, self.input.dtype, int(np.prod(self.input.shape))).reshape(
            self.input.shape
        )
        self._scores = np.frombuffer(
            self._shared, self.output.dtype, int(np.prod(self.output.shape)), offset=self._tensor_bytes
        )

    @property
    def description(self) -> str:
        return self._description

    def invoke_raw(self, tensor: NDArray[Any], patience: float | None = None) -> NDArray[Any]:
        """Run once, as `Interpreter.invoke_raw` does.

        Args:
          tensor: shape (1, height, width, channels), of the input's dtype.
          patience: seconds after which the delegate counts as hung; None takes the attribute `patience`.

        Raises:
          DelegateFailed: it failed, hung or died. Nothing can be asked of it any more.
        """
        np.copyto(self._tensor, tensor, casting="no")
        try:
            self._socket.send(b"invoke")
        except OSError:
            raise DelegateFailed(self._ending()) from None
        answer = self._answer(self.patience if patience is None else patience, "has hung: no answer")
        if answer:
            raise DelegateFailed(f"failed: {answer}")
        return self._scores.copy()

    def kill(self) -> None:
        """End the child, whatever it is doing. One that hangs in the kernel itself is left behind."""
        self._child.kill()
        try:
            self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            pass
        self._socket.close()

    def _answer(self, patience: float, late: str) -> str:
        try:
            self._socket.settimeout(patience)
            answer = self._socket.recv(_MESSAGE)
        except TimeoutError:
            raise DelegateFailed(f"{late} within {patience:.1f} s") from None
        except OSError:
            answer = b""
        if not answer:
            raise DelegateFailed(self._ending())
        return answer[1:].decode()

    def _ending(self) -> str:
        try:
            status = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            return "its process does not answer any more"
        if status == -signal.SIGKILL:
            return "its process was killed"
        if status < 0:
            name = signal.Signals(-status).name
            return f"its process crashed ({name}): the delegate may have been built for another runtime than this one"
        return f"its process ended with status {status}"


def _tensor_spec(values: dict[str, Any]) -> TensorSpec:
    return TensorSpec(**{**values, "shape": tuple(values["shape"]), "dtype": np.dtype(values["dtype"])})


def _described(interpreter: Interpreter) -> dict[str, Any]:
    tensors = [{**asdict(spec), "dtype": spec.dtype.name} for spec in (interpreter.input, interpreter.output)]
    return {
        "runtime": [interpreter.runtime, interpreter.version, interpreter.threads, interpreter.kernels],
        "delegate": asdict(interpreter.delegate) if interpreter.delegate else None,
        "description": interpreter.description,
        "tensors": tensors,
    }


def _serve(parent: socket.socket, model_descriptor: int, shared_descriptor: int, options: dict[str, Any]) -> None:
    def say(text: str) -> None:
        # Never empty: an empty message is the end of the connection.
        parent.send(b"\n" + text.encode()[: _MESSAGE - 1])

    with os.fdopen(model_descriptor, "rb") as file:
        file.seek(0)
        model: ModelFile = pickle.load(file)
    try:
        interpreter = Interpreter(model, **options)
    except EdgennError as error:
        say(json.dumps({"error": str(error)}))
        return
    shared = mmap.mmap(shared_descriptor, 0)
    spec, out = interpreter.input, interpreter.output
    tensor = np.frombuffer(shared, spec.dtype, int(np.prod(spec.shape))).reshape(spec.shape)
    scores = np.frombuffer(shared, out.dtype, int(np.prod(out.shape)), offset=tensor.nbytes)
    say(json.dumps(_described(interpreter)))
    while parent.recv(_MESSAGE):
        try:
            scores[:] = interpreter.invoke_raw(tensor)
            say("")
        except (EdgennError, ValueError) as error:
            say(" ".join(str(error.__cause__ or error).split()))  # the parent says who it was


def _main(arguments: list[str]) -> None:
    # The terminal's Ctrl-C and systemd's signals are for the parent: what it wants of us it says, or closes the socket.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection, model, shared, parent = map(int, arguments[:4])
    if os.getppid() == parent:
        try:
            _serve(socket.socket(fileno=connection), model, shared, json.loads(arguments[4]))
        except OSError:
            pass
    # Without a native library's own clean-up, which may hang on a device that is gone.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1:])
