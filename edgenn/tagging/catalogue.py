"""A whole catalogue into one file of labels, and the same command again after whatever ended it.

While it lasts everything stands in OUT.partial: the request, the listing (taken once, so that a folder that changes
does not shift what is done), the rows and their journal. OUT appears when all is in it. Another request for the same
OUT is refused, and so is a second process; nothing is held in memory that grows with the catalogue.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeAlias

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically, written_aside
from edgenn_device.model_file import ModelFile

from . import output
from .engine import Workers
from .journal import Journal, Progress, last_entries
from .listing import pictures
from .optional import optional
from .reading import is_remote
from .records import Tagged
from .sorting import Sorter
from .tagger import Rules

SCHEMA = 1
REVIEW_PAGE = "report.html"

# Called with what is being done, how many pictures of it are done, and how many there are (None: not known yet).
Report: TypeAlias = Callable[[str, int, int | None], None]

_PIECE = 1 << 16
# What a run puts into its folder, and what is left there when it is killed while it writes a file aside.
_OWN = {"lock", "request.json", "listing", "listing.json", "rows", "journal", "finished.json"}
_OWN_ASIDE = re.compile(r"\.(request|listing|finished)-[a-z0-9_]{8}(\.json)?")


@dataclass(frozen=True)
class Request:
    """What is to be tagged, how, and where the labels go.

    Attributes:
      model: a verified model file.
      rules: how to tag.
      paths: as for `listing.pictures`; "-" stands for the list on stdin.
      out: a .csv, .jsonl or .parquet.
      sort_to: folder with {label} in it, or None.
      link: sort by symbolic links instead of moving.
      review: write report.html beside `out`.
      overwrite: an `out` that exists is replaced, and an unfinished run of another request is dropped.
      workers: processes; None takes one for each core.
    """

    model: ModelFile = field(repr=False)
    rules: Rules
    paths: tuple[str, ...]
    out: Path
    sort_to: str | None = None
    link: bool = False
    review: bool = False
    overwrite: bool = False
    workers: int | None = None

    @property
    def form(self) -> str:
        return output.form_of(self.out)

    @property
    def page(self) -> Path:
        """Where the review goes."""
        return self.out.with_name(REVIEW_PAGE)

    def identity(self) -> dict[str, Any]:
        """All that decides what the rows are, in JSON's types."""
        return {
            "schema": SCHEMA,
            **identity_of_model(self.model),
            **asdict(self.rules),
            "paths": list(self.paths),
            "folder": str(Path.cwd()),
            "sort_to": self.sort_to,
            "link": self.link,
            "review": self.review,
        }


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
      out: the file; on Ray the folder, or its URL as it was given.
      pictures, unreadable, unknown: rows in it, and how many of them are that.
      tagged: how many of them this run did; the others were done before it.
      seconds: wall time of this run.
      pages: what else was written.
    """

    out: Path | str
    pictures: int
    unreadable: int
    unknown: int
    tagged: int
    seconds: float
    pages: tuple[Path, ...] = ()

    @property
    def per_second(self) -> float:
        return self.tagged / self.seconds if self.seconds else 0.0


def identity_of_model(model: ModelFile) -> dict[str, str]:
    """Digests of a model and its labels."""
    return {
        "model": hashlib.sha256(model.content).hexdigest(),
        "labels": hashlib.sha256("\n".join(model.labels).encode()).hexdigest(),
    }


def tag_catalogue(request: Request, *, stdin: IO[bytes] | None = None, report: Report | None = None) -> Summary:
    """Tag a catalogue into a file, or go on with it.

    Raises:
      EdgennError: the model, a path or the place cannot be used; `out` exists; or an unfinished run of another
        request, a running one, or files of others stand in its way.
    """
    began = time.monotonic()
    form = request.form
    if request.sort_to is not None:
        Sorter(request.sort_to, request.link)  # refuses a pattern that cannot be
    if request.review:
        optional("jinja2", "tag", "--review")
    partial = request.out.with_name(request.out.name + ".partial")
    begun = partial.exists()
    if not begun:
        _refuse_existing(request)
    _refuse_others(partial)
    with _claimed(partial):
        _prepare(request, partial, begun)
        finished = partial / "finished.json"
        before = done.pictures if (done := _finished(finished)) else last_entries(partial / "journal")[1].pictures
        if done is None:
            try:
                _list(request, partial, stdin, report)
            except EdgennError:
                if not (partial / "listing.json").exists():
                    _remove(partial)  # nothing was begun: the command put right is not to be refused for it
                raise
            _tag(request, partial, form, report)
            _finish(request, partial, form, report)
            done = _finished(finished)
            assert done is not None
        _remove(partial)
    seconds = time.monotonic() - began
    pages = (request.page,) if request.review else ()
    return Summary(request.out, done.pictures, done.unreadable, done.unknown, done.pictures - before, seconds, pages)


def _refuse_existing(request: Request) -> None:
    for place in (request.out, *([request.page] if request.review else ())):
        if place.exists() and not request.overwrite:
            raise EdgennError(f"{place} exists: give --overwrite, or another place with --out")


def _is_own(entry: Path) -> bool:
    named = entry.name in _OWN or _OWN_ASIDE.fullmatch(entry.name)
    return bool(named) and not entry.is_dir()


def _refuse_others(partial: Path) -> None:
    """The folder is emptied at the end: what this package did not put there must not be in it."""
    for entry in sorted(partial.iterdir()) if partial.is_dir() else ():
        if not _is_own(entry):
            raise EdgennError(
                f"{entry} was not put there by edgenn tag: move it away, or give another place with --out"
            )


@contextmanager
def _claimed(partial: Path) -> Iterator[None]:
    """Hold the folder against a second process; the claim ends with this one, however that ends."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = open(partial / "lock", "w")  # noqa: SIM115
    except OSError as error:
        raise EdgennError(f"{partial} cannot be written ({error.strerror}): choose another place with --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EdgennError(f"{partial} is being written by another edgenn tag: wait for it, or end it") from None
        yield


def _prepare(request: Request, partial: Path, begun: bool) -> None:
    """Leave in the folder a run of this very request, new, begun or finished.

    Raises:
      EdgennError: it holds the run of another request, or `out` exists.
    """
    identity = request.identity()
    kept = next((place for name in ("finished", "request") if (place := partial / f"{name}.json").exists()), None)
    if kept is not None:
        found = json.loads(kept.read_text())
        others = [name for name in identity if found.get(name) != identity[name]]
        if not others:
            if kept.name == "request.json" and not _complete(partial):  # else what exists was put there by this run
                _refuse_existing(request)
            return
        if not request.overwrite:
            raise EdgennError(
                f"{partial} holds an unfinished run with another {_listed(others)}: repeat that command, "
                "give another place with --out, or --overwrite to begin anew"
            )
    elif begun:
        _refuse_existing(request)
    for entry in partial.iterdir():
        if entry.name != "lock" and _is_own(entry):
            entry.unlink()
    write_atomically(partial / "request.json", json.dumps(identity, indent=1))


def _complete(partial: Path) -> bool:
    """Whether all pictures have their row."""
    listed = partial / "listing.json"
    return (
        listed.exists() and last_entries(partial / "journal")[1].pictures == json.loads(listed.read_text())["pictures"]
    )


def _listed(names: list[str]) -> str:
    words = {"sort_to": "--move-to or --link", "folder": "current folder", "paths": "list of PATHS"}
    return " and ".join(words.get(name, name.replace("_", " ")) for name in names)


class _Hashed:
    """A stream and the digest of what has been read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._hash.update(piece)
        return piece

    def digest(self) -> str:
        """Of all of it: what is left is read."""
        while self.read(_PIECE):
            pass
        return self._hash.hexdigest()


def _list(request: Request, partial: Path, stdin: IO[bytes] | None, report: Report | None) -> None:
    """Write the listing, each path ended by a null character, unless that was done."""
    listed = partial / "listing.json"
    stream = _Hashed(stdin) if stdin is not None and "-" in request.paths else None
    if listed.exists():
        if stream and json.loads(listed.read_text())["stdin"] != stream.digest():
            raise EdgennError(
                f"{partial} holds an unfinished run of another list on stdin: repeat that command, "
                "give another place with --out, or --overwrite with that folder removed"
            )
        return
    count = 0
    with written_aside(partial / "listing") as aside, open(aside, "wb") as file:
        for path in pictures(request.paths, stream):  # type: ignore[arg-type]
            if request.sort_to and is_remote(path):
                raise EdgennError(f"{path} is not a local file: --move-to and --link sort only those")
            file.write(os.fsencode(path) + b"\0")
            count += 1
            if report and count % 1024 == 0:
                report("listing", count, None)
    write_atomically(listed, json.dumps({"pictures": count, "stdin": stream.digest() if stream else None}))


def _tag(request: Request, partial: Path, form: str, report: Report | None) -> None:
    """Tag what has no row yet, and sort it."""
    total = json.loads((partial / "listing.json").read_text())["pictures"]
    rows, entries = partial / "rows", partial / "journal"
    sorter = Sorter(request.sort_to, request.link, resuming=rows.exists()) if request.sort_to else None
    if sorter and rows.exists():
        # What follows the last checkpoint may not have happened.
        earlier, last = last_entries(entries)
        again = output.read(rows, _text(form), earlier.rows_end)
        sorter.release(itertools.islice(again, last.pictures - earlier.pictures))
    if _complete(partial):
        return
    encode = output.ENCODERS[form]
    with (
        Workers(request.model, request.rules, request.workers) as crew,
        Journal(rows, entries, output.header(form)) as journal,
    ):
        uncertain: list[Tagged] = []
        for record in crew.tag(_rest(partial / "listing", journal.progress.listing_end)):
            if sorter:
                record = placed(sorter, record)
                uncertain.append(record)
            journal.append(encode(record), record, len(os.fsencode(record.path)) + 1)
            if report:
                report("tagging", journal.done.pictures, total)
            if journal.due:
                journal.checkpoint()
                _release(sorter, uncertain)
        journal.checkpoint()
        _release(sorter, uncertain)


def placed(sorter: Sorter, record: Tagged) -> Tagged:
    """The record of a picture that was put in its label's folder, if it could be read."""
    if record.error:
        return record
    try:
        return replace(record, sorted_to=sorter.place(record))
    except FileNotFoundError:
        return replace(record, error="gone before it could be sorted")


def _release(sorter: Sorter | None, uncertain: list[Tagged]) -> None:
    if sorter:
        sorter.release(uncertain)
        uncertain.clear()


def _rest(listing: Path, start: int) -> Iterator[str]:
    with open(listing, "rb") as file:
        file.seek(start)
        left = b""
        while piece := file.read(_PIECE):
            *whole, left = (left + piece).split(b"\0")
            yield from map(os.fsdecode, whole)


def _text(form: str) -> str:
    """The form of the rows while the run lasts."""
    return "csv" if form == "csv" else "jsonl"


def _finish(request: Request, partial: Path, form: str, report: Report | None) -> None:
    """Write the review and put the rows in place."""
    rows = partial / "rows"
    if rows.exists():
        if request.review:
            from .review import write_page

            if report:
                report("writing the review", 0, None)
            write_page(request.page, output.read(rows, _text(form)), request.model)
        if report and form == "parquet":
            report("assembling", 0, None)
        output.publish(rows, form, request.out)
    found = {**request.identity(), "progress": asdict(last_entries(partial / "journal")[1])}
    write_atomically(partial / "finished.json", json.dumps(found, indent=1))


def _finished(place: Path) -> Progress | None:
    """What a finished run did; None before it has."""
    return Progress(**json.loads(place.read_text())["progress"]) if place.exists() else None


def _remove(partial: Path) -> None:
    """Remove the folder, or from it what is its own; that it is finished is known until the end."""
    finished = partial / "finished.json"
    for entry in partial.iterdir():
        if entry != finished and _is_own(entry):
            entry.unlink()
    if {*partial.iterdir()} <= {finished}:
        shutil.rmtree(partial)
    else:
        finished.unlink(missing_ok=True)
