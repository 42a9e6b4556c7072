"""The same tagging on a Ray cluster: Ray Data reads the listing, keeps actors with a model each, writes Parquet.

Ray starts the actors, spreads the work, and does again what a lost worker or machine had not finished; nothing of that
is done here. Every machine of the cluster must see the pictures under the same paths: object storage, or a shared file
system. Rows carry their place in the listing (`row`), in whose order they are written.
"""

# ruff: noqa: PTH100, PTH118 - of paths as they were typed, and of URLs

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from .catalogue import Summary
from .listing import pictures
from .optional import optional
from .output import parquet_row, schema
from .reading import file_system, is_remote
from .records import UNKNOWN
from .tagger import ReadAhead, Rules, Tagger

# Pictures that are done again when an actor is lost, and pictures of one file.
_BLOCK = 512
_FILE = 50_000
# Of each CPU. Actors keep theirs as long as the run lasts: with the whole of it they would leave none for the tasks
# that write the rows, and all would wait for ever.
_ACTOR_CPUS, _WRITER_CPUS = 0.8, 0.1
# Ray itself tries for ever to reach a cluster that is not there.
_CONNECT = 10


class TagBlock:
    """An actor: a model, one thread; the place of a block of the listing in, rows of records out.

    Args:
      listing: the listing's folder, absolute.
      current: the folder from which local paths of the listing count. An actor's own is another one.
    """

    def __init__(self, model: ModelFile, rules: Rules, listing: str, current: str) -> None:
        self._tagger = Tagger(model, rules)
        self._listing = listing
        self._current = current

    def __call__(self, places: dict[str, Any]) -> Iterator[Any]:
        import pyarrow as arrow

        for file, block in zip(places["file"], places["block"], strict=True):
            rows, paths = _read_block(f"{self._listing}/{file}", int(block))
            ahead = ReadAhead(self._tagger)
            try:
                ahead.put([path if is_remote(path) else os.path.join(self._current, path) for path in paths])
                records = (replace(record, path=path) for path, record in zip(paths, ahead.results(), strict=True))
                table = arrow.Table.from_pylist([*map(parquet_row, records)], schema())
            finally:
                ahead.close()
            yield table.append_column("row", rows)


def tag_on_ray(
    model: ModelFile,
    rules: Rules,
    paths: Iterable[str],
    out: str,
    *,
    stdin: IO[bytes] | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Tag a catalogue on the cluster that RAY_ADDRESS names, or on this machine's cores without one.

    Args:
      paths: as for `listing.pictures`; the listing is made here.
      out: a folder, or a URL that fsspec writes to; Parquet files appear in it.
      workers: actors, one thread each; None takes one for each CPU of the cluster.

    Raises:
      EdgennError: Ray is missing or cannot be reached, `out` exists, what is to be replaced is not edgenn's, or rows
        are missing at the end.
    """
    began = time.monotonic()
    ray = optional("ray", "scale", "--engine ray")
    data = optional("ray.data", "scale", "--engine ray")
    optional("fsspec", "scale", "--engine ray")
    arrow_fs = optional("pyarrow.fs", "scale", "--engine ray")
    paths, url = tuple(paths), _absolute(out)
    aside = f"{url}.partial"
    for path in paths:
        if f"{_absolute(path)}/".startswith(f"{url}/"):
            raise EdgennError(f"--out {out} would replace {path}: give another place")
    system, place = file_system(url)
    if not overwrite and system.exists(place) and (system.isfile(place) or system.ls(place)):
        raise EdgennError(f"{out} exists: give --overwrite, or another place with --out")
    _refuse_others(system, url, "*.parquet")
    _refuse_others(system, aside, "/listing/*.parquet", "/rows/*.parquet")
    _connect(ray)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = sys.stderr.isatty()
    if system.exists(aside):
        system.rm(aside, recursive=True)
    count, blocks = _write_listing(pictures(paths, stdin), system, f"{aside}/listing")
    actors = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    storage = arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(system))
    rows = system._strip_protocol(f"{aside}/rows")
    try:
        (
            data.from_items(blocks, override_num_blocks=len(blocks))
            .map_batches(
                TagBlock,
                fn_constructor_args=(model, rules, f"{aside}/listing", str(Path.cwd())),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=min(actors, len(blocks))),
                num_cpus=_ACTOR_CPUS,
            )
            .write_parquet(
                rows, filesystem=storage, min_rows_per_file=_FILE, ray_remote_args={"num_cpus": _WRITER_CPUS}
            )
        )
    except ray.exceptions.RayError as error:
        raise EdgennError(f"Ray gave up: {_cause(error)}") from None
    unreadable, unknown = _checked(storage, rows, count, out)
    _refuse_others(system, url, "*.parquet")  # it may have taken hours
    _put_in_place(system, rows, place)
    system.rm(aside, recursive=True)
    return Summary(out, count, unreadable, unknown, count, time.monotonic() - began)


def _absolute(path: str) -> str:
    """A URL as it is, a local path as it is named from anywhere."""
    return path.rstrip("/") if is_remote(path) else os.path.abspath(path)


def _refuse_others(system: Any, folder: str, *patterns: str) -> None:
    """A folder that is to be removed may hold only what `patterns` name.

    Raises:
      EdgennError: it holds something else.
    """
    root = system._strip_protocol(folder)
    for path in system.find(root):
        name = path.removeprefix(root)
        # A name that ends in a slash is an object store's empty folder.
        if not path.endswith("/") and not any(fnmatchcase(name or root, pattern) for pattern in patterns):
            raise EdgennError(
                f"{folder}{name} was not put there by edgenn tag: move it away, or give another place with --out"
            )


def _put_in_place(system: Any, rows: str, place: str) -> None:
    from fsspec.implementations.local import LocalFileSystem

    if system.exists(place):
        system.rm(place, recursive=True)
    if isinstance(system, LocalFileSystem):
        system.mv(rows, place)
        return
    # Of object stores a folder is only a part of names, which a recursive mv would want to copy too.
    system.makedirs(place, exist_ok=True)
    for path in system.find(rows):
        system.mv(path, place + path.removeprefix(rows))


def _cause(error: Exception) -> str:
    """The last line of a traceback from another machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


def _connect(ray: Any) -> None:
    if ray.is_initialized():
        return
    where = os.environ.get("RAY_ADDRESS", "this machine")
    host, _, port = where.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EdgennError(f"no Ray cluster at {where} ({reason}): check RAY_ADDRESS") from None


def _write_listing(paths: Iterator[str], system: Any, folder: str) -> tuple[int, list[dict[str, Any]]]:
    """Put the listing where every machine can read it: how many pictures, and the places of its blocks."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    system.makedirs(folder, exist_ok=True)
    count = 0
    blocks: list[dict[str, Any]] = []
    while some := [os.fsencode(path) for path in itertools.islice(paths, _FILE)]:
        table = arrow.table({"row": arrow.array(range(count, count + len(some))), "path": some})
        name = f"{count:012d}.parquet"
        with system.open(f"{folder}/{name}", "wb") as file:
            parquet.write_table(table, file, row_group_size=_BLOCK)
        blocks += [{"file": name, "block": block} for block in range(-(-len(some) // _BLOCK))]
        count += len(some)
    return count, blocks


def _read_block(url: str, block: int) -> tuple[Any, list[str]]:
    import pyarrow.parquet as parquet

    system, path = file_system(url)
    with system.open(path, "rb") as file:
        table = parquet.ParquetFile(file).read_row_group(block)
    return table.column("row"), [os.fsdecode(path) for path in table.column("path").to_pylist()]


def _checked(storage: Any, rows: str, count: int, out: str) -> tuple[int, int]:
    """Unreadable and unknown pictures of what was written.

    Raises:
      EdgennError: a row of the listing is missing, or there twice.
    """
    import pyarrow.dataset as dataset

    seen = bytearray(count)
    unreadable = unknown = 0
    if count:
        columns = ["row", "label", "error"]
        for batch in dataset.dataset(rows, filesystem=storage, format="parquet").to_batches(columns=columns):
            for row, label, error in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                seen[row] += 1
                unreadable += bool(error)
                unknown += label == UNKNOWN
    if seen.count(1) != count:
        raise EdgennError(f"of {count:,} pictures {seen.count(1):,} have one row in {out}: run it again")
    return unreadable, unknown
