"""One process of the engine: `python -m edgenn.tagging.worker FD`, a socket to the parent as its only file.

The parent sends a model and rules, then batches of paths; each batch is answered by its records. The end of the
socket ends the process, so none outlives its parent, however that ended. Ctrl-C is the parent's to handle.
"""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

from edgenn_device.errors import EdgennError

# Batches that are taken in before they are worked on, so that what is remote is fetched early.
_AHEAD = 2


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    try:
        _serve(connection)
    except (EOFError, ConnectionError):
        pass  # the parent has gone, or wants no more


def _serve(connection: Connection) -> None:
    from .tagger import ReadAhead, Tagger

    model, rules = connection.recv()
    try:
        batches = ReadAhead(Tagger(model, rules))
    except EdgennError as error:
        connection.send(str(error))
        return
    connection.send(None)
    try:
        while True:
            while not batches or (len(batches) < _AHEAD and connection.poll()):
                batches.put(connection.recv())
            connection.send([*batches.results()])
    finally:
        batches.close()


if __name__ == "__main__":
    main()
