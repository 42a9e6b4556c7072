"""The same tagging on a Ray cluster: Ray Data reads the listing, keeps actors with a model each, writes Parquet.

Ray starts the actors, spreads the work, and does again what a lost worker or machine had not finished; nothing of that
is done here. Every machine of the cluster must see the pictures under the same paths: object storage, or a shared file
system. Rows carry their place in the listing (`row`), in whose order they are written.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from .catalogue import Summary
from .listing import pictures
from .optional import optional
from .output import parquet_row, schema
from .records import UNKNOWN
from .tagger import ReadAhead, Rules, Tagger

# Pictures that are done again when an actor is lost, and pictures of one file.
_BLOCK = 512
_FILE = 50_000
# Of each CPU. Actors keep theirs as long as the run lasts: with the whole of it they would leave none for the tasks
# that write the rows, and all would wait for ever.
_ACTOR_CPUS, _WRITER_CPUS = 0.8, 0.1


class TagBlock:
    """An actor: a model, one thread; the place of a block of the listing in, rows of records out."""

    def __init__(self, model: ModelFile, rules: Rules, listing: str) -> None:
        self._tagger = Tagger(model, rules)
        self._listing = listing

    def __call__(self, places: dict[str, Any]) -> Iterator[Any]:
        import pyarrow as arrow

        for file, block in zip(places["file"], places["block"], strict=True):
            rows, paths = _read_block(f"{self._listing}/{file}", int(block))
            ahead = ReadAhead(self._tagger)
            try:
                ahead.put(paths)
                table = arrow.Table.from_pylist([parquet_row(record) for record in ahead.results()], schema())
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
      EdgennError: Ray is missing or cannot be reached, `out` exists, or rows are missing at the end.
    """
    began = time.monotonic()
    ray = optional("ray", "scale", "--engine ray")
    data = optional("ray.data", "scale", "--engine ray")
    fsspec = optional("fsspec", "scale", "--engine ray")
    arrow_fs = optional("pyarrow.fs", "scale", "--engine ray")
    system, place = fsspec.core.url_to_fs(out)
    if not overwrite and system.exists(place) and (system.isfile(place) or system.ls(place)):
        raise EdgennError(f"{out} exists: give --overwrite, or another place with --out")
    _connect(ray)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = sys.stderr.isatty()
    aside = f"{out.rstrip('/')}.partial"
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
                fn_constructor_args=(model, rules, f"{aside}/listing"),
                batch_size=1,
                concurrency=min(actors, len(blocks)),
                num_cpus=_ACTOR_CPUS,
            )
            .write_parquet(
                rows, filesystem=storage, min_rows_per_file=_FILE, ray_remote_args={"num_cpus": _WRITER_CPUS}
            )
        )
    except ray.exceptions.RayError as error:
        raise EdgennError(f"Ray gave up: {' '.join(str(error).split())[:300]}") from None
    unreadable, unknown = _checked(storage, rows, count, out)
    if system.exists(place):
        system.rm(place, recursive=True)
    system.mv(rows, place, recursive=True)
    system.rm(aside, recursive=True)
    return Summary(Path(out), count, unreadable, unknown, count, time.monotonic() - began)


def _connect(ray: Any) -> None:
    if ray.is_initialized():
        return
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
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
    import fsspec
    import pyarrow.parquet as parquet

    with fsspec.open(url, "rb") as file:
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
