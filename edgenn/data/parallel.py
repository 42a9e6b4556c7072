"""One function over many files on every core, in order, with progress, and ending at once on Ctrl-C.

Threads, not processes: reading, hashing, decoding and resizing all happen outside the interpreter lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .dataset import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed to a thread at once: few enough for a smooth progress bar, enough that queueing costs nothing.
_CHUNK = 16


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], progress: Progress | None = None
) -> list[Result]:
    """The results of `work` for every item, in the items' order.

    Raises:
      BaseException: whatever `work` or `progress` raised first; work that had not begun is dropped.
    """
    results: list[Result] = []
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # An exception, here or on a thread, closes map's iterator, and that cancels what has not begun.
        for done in pool.map(lambda chunk: [work(item) for item in chunk], chunks):
            results.extend(done)
            if progress:
                progress(len(results), len(items))
    return results
