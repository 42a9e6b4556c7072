"""Pictures over the cores of one machine: worker processes, each with a model of its own, and records in order.

The parent sends paths and receives records; it decodes nothing. Each process is a program of its own
(`edgenn.tagging.worker`) rather than a fork or a multiprocessing child: the caller's `__main__` is not imported again,
no native thread is forked, and a process that a damaged picture or the memory killer ends takes only itself: its
pictures are tried again one by one, and one that ends a process twice becomes a record that says so.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Self

from edgenn_device import model_file
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from .listing import pictures
from .records import Tagged
from .tagger import Rules

# Pictures sent at once: the hand-over costs 0.1 ms, a picture 2 to 20, and few are lost when a process dies.
_BATCH = 16
# Batches sent to a process before it has answered the first: it never waits for the parent.
_SENT_AHEAD = 2
# Batches for each process that may be done before an earlier one: one slow picture does not stop the others, and
# memory stays bounded.
_WINDOW = 8


def tag(
    model: str | os.PathLike[str] | ModelFile,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    labels: str | os.PathLike[str] | None = None,
    top: int = 3,
    minimum_confidence: float | None = None,
    runtime: str = "auto",
    workers: int | None = None,
) -> Iterator[Tagged]:
    """Tag pictures, and yield a record of each in the order of `paths`.

    Args:
      model: a .tflite.
      paths: files, folders (with all folders in them, sorted), globs, or URLs that fsspec opens; one or many, also a
        generator: neither the listing nor the results are held in memory.
      labels: a file with one label a line, for a model that carries none.
      top: how many of the best labels a record holds.
      minimum_confidence: below it a picture is "unknown" (0..1); None takes the one in the model's card, if any.
      runtime: as for `edgenn_device.Interpreter`.
      workers: processes; None takes one for each core.

    Raises:
      EdgennError: the model cannot be used, or a path names nothing. A picture that cannot be read is a record whose
        `error` says why.

    >>> labels = [tagged.label for tagged in tag("model.tflite", "photos/*.jpg")]        # doctest: +SKIP
    """
    loaded = model if isinstance(model, ModelFile) else model_file.load(model, labels=labels)
    rules = rules_for(loaded, top, minimum_confidence, runtime)
    names = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    with Workers(loaded, rules, workers) as crew:
        yield from crew.tag(pictures(os.fspath(name) for name in names))


def rules_for(model: ModelFile, top: int, minimum_confidence: float | None, runtime: str) -> Rules:
    """Rules with the card's minimum confidence where none is given.

    Raises:
      EdgennError: `top` or the confidence is out of range.
    """
    if top < 1:
        raise EdgennError(f"the best {top} labels cannot be given: --top takes 1 or more")
    if minimum_confidence is None:
        minimum_confidence = model.card.minimum_confidence if model.card else None
    elif not 0 <= minimum_confidence <= 1:
        raise EdgennError(f"a minimum confidence of {minimum_confidence} is not possible: 0 to 1")
    return Rules(top, minimum_confidence, runtime)


class Workers:
    """Processes that tag; a context manager.

    Args:
      model: a verified model file; every process gets these bytes, whatever happens to the file meanwhile.
      rules: how to tag.
      count: processes; None takes one for each core that this process may use.

    Raises:
      EdgennError: on entry, if no runtime can execute the model.
    """

    def __init__(self, model: ModelFile, rules: Rules, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise EdgennError(f"{count} processes cannot tag anything: --workers takes 1 or more")
        self.count = count or len(os.sched_getaffinity(0))
        self._model = model
        self._rules = rules
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self.count):  # all start at once, then each is waited for
                self._workers.append(_Worker(self._model, self._rules))
            for worker in self._workers:
                worker.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def tag(self, paths: Iterable[str]) -> Iterator[Tagged]:
        """Records in the order of `paths`, which may be endless; at most a window of both is held.

        One call at a time: a later one ends what an earlier one has not finished.
        """
        for worker in self._workers:
            if worker.batches:
                self._replace(worker)
        rest = iter(paths)
        numbers = itertools.count()
        done: dict[int, list[Tagged]] = {}
        following, sent, exhausted = 0, 0, False
        while True:
            for ahead in range(1, _SENT_AHEAD + 1):  # breadth first: a short list reaches every process
                for worker in self._workers:
                    if exhausted or len(worker.batches) >= ahead or sent - following >= _WINDOW * self.count:
                        continue
                    batch = [*itertools.islice(rest, _BATCH)]
                    exhausted = not batch
                    if batch:
                        worker.send(next(numbers), batch)
                        sent += 1
            if following == sent:
                return
            busy = {worker.connection: worker for worker in self._workers if worker.batches}
            for ready in wait([*busy]):
                done.update(self._received(busy[ready]))  # type: ignore[index]
            while following in done:
                yield from done.pop(following)
                following += 1

    def _received(self, worker: _Worker) -> dict[int, list[Tagged]]:
        try:
            return worker.receive()
        except (EOFError, ConnectionError):
            pass
        # The first batch ended the process, or something else did while it was at it. The others are as good as new.
        (number, suspects), *others = worker.batches
        self._replace(worker)
        records = [self._carefully(worker, path) for path in suspects]
        for number_, paths in others:
            worker.send(number_, paths)
        return {number: records}

    def _carefully(self, worker: _Worker, path: str) -> Tagged:
        """The record of a picture that may have ended a process."""
        try:
            worker.send(0, [path])
            return worker.receive()[0][0]
        except (EOFError, ConnectionError):
            how = worker.how_it_ended()
            self._replace(worker)
            return Tagged(path, error=f"ended the process that read it ({how}): damaged, or too large for the memory")

    def _replace(self, worker: _Worker) -> None:
        worker.end()
        worker.__init__(self._model, self._rules)  # type: ignore[misc]
        worker.ready()


class _Worker:
    """One process and the socket to it. `batches` are those it has not answered, oldest first."""

    def __init__(self, model: ModelFile, rules: Rules) -> None:
        self.batches: deque[tuple[int, list[str]]] = deque()
        ours, theirs = socket.socketpair()
        # The package is found wherever this process found it, also when it is not installed.
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgenn.tagging.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self.connection: Connection = Connection(ours.detach())
        self._setup = model, rules

    def ready(self) -> None:
        """Hand over the model and wait until it is loaded.

        Raises:
          EdgennError: it could not be.
        """
        try:
            self.connection.send(self._setup)
            refusal = self.connection.recv()
        except (EOFError, ConnectionError):
            raise EdgennError(f"a process ended while it loaded the model ({self.how_it_ended()})") from None
        if refusal is not None:
            raise EdgennError(refusal)

    def send(self, number: int, paths: list[str]) -> None:
        self.batches.append((number, paths))
        try:
            self.connection.send(paths)
        except ConnectionError:
            pass  # it has ended: told by the next receive, which knows what to do

    def receive(self) -> dict[int, list[Tagged]]:
        """The records of the oldest batch, by its number.

        Raises:
          EOFError, ConnectionError: the process has ended.
        """
        records = self.connection.recv()
        return {self.batches.popleft()[0]: records}

    def how_it_ended(self) -> str:
        status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def end(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()
