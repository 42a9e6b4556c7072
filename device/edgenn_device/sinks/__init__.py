"""Where results and events go: one file per kind of output, and the words by which a person names one.

Nothing is opened here, and what a sink needs is loaded only for that sink.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..addresses import hidden
from ..errors import EdgennError
from ..home import expanded
from .base import About, Sink
from .jsonl import JsonLines
from .terminal import Terminal

if TYPE_CHECKING:
    from .queued import Queued

__all__ = ["About", "JsonLines", "Queued", "Sink", "Terminal", "open_sink", "open_sinks"]

ACCEPTED = (
    "jsonl:PATH, csv:PATH, sqlite:PATH[?days=31], mqtt://[USER@]HOST[:PORT][/PREFIX], mqtts://…, "
    "http(s)://… (webhook), prometheus:[HOST:]PORT, video:FOLDER"
)
# Third-party sinks: the name is the scheme, the object is called with (spec, about) and returns a Sink.
ENTRY_POINTS = "edgenn.sinks"


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: a run that only prints needs no queue.
    if name == "Queued":
        from .queued import Queued

        return Queued
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_sink(spec: str, about: About, *, health: Callable[[], dict[str, Any]] | None = None) -> Sink:
    """The sink that `spec` names, not yet entered; behind a queue where it could block or fail.

    Args:
      spec: one of `ACCEPTED`, or SCHEME:… of an installed entry point in the group "edgenn.sinks".
      about: who is speaking.
      health: `Health.snapshot`, for sinks that tell it.

    Raises:
      EdgennError: `spec` is none of these, or what it needs is not installed. The message never holds the spec of
        an address, which may hold a secret.
    """
    scheme, separator, rest = spec.partition(":")
    scheme = scheme.lower()
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise EdgennError(f"{hidden(spec)[:100]!r} is no sink: use {ACCEPTED}")
    if scheme == "prometheus":
        from .prometheus import Prometheus

        # Not behind a queue: it only counts.
        return Prometheus(rest, about, health=health)
    from .queued import Queued

    sink = _sink(scheme, rest, spec, about, health)
    return sink if isinstance(sink, Queued) else Queued(sink)


def open_sinks(
    specs: Iterable[str], about: About, *, health: Callable[[], dict[str, Any]] | None = None
) -> tuple[Sink, ...]:
    """As `open_sink` each; where several would have one name (two webhooks at one host), the later ones get a number.

    Health, metrics and log go by the name: what is wrong with one must not be hidden by another.
    """
    sinks: dict[str, Sink] = {}
    for spec in specs:
        sink = open_sink(spec, about, health=health)
        name, number = sink.name, 1
        while name in sinks:
            number += 1
            name = f"{sink.name} {number}"
        if number > 1:
            # What stands behind the queue logs, too. Somebody else's may not let itself be renamed.
            with suppress(AttributeError):
                getattr(sink, "sink", sink).name = name
            sink.name = name
        sinks[name] = sink
    return tuple(sinks.values())


def _sink(scheme: str, rest: str, spec: str, about: About, health: Callable[[], dict[str, Any]] | None) -> Sink:
    if scheme in ("mqtt", "mqtts"):
        from .mqtt import MqttSink

        return MqttSink(spec, about, health=health)
    if scheme in ("http", "https"):
        from .webhook import Webhook

        return Webhook(spec, about)
    if scheme not in ("jsonl", "csv", "sqlite", "video"):
        return _third_party(scheme, spec, about)
    if not rest:
        raise EdgennError(f"{scheme}: names no place: use {ACCEPTED}")
    rest = expanded(rest)
    if scheme == "jsonl":
        from .jsonl import JsonLinesFile

        return JsonLinesFile(rest)
    if scheme == "csv":
        from .csv_file import CsvFile

        return CsvFile(rest)
    if scheme == "video":
        from .recording import Recording

        return Recording(rest, about)
    return _sqlite(rest, about)


def _sqlite(rest: str, about: About) -> Sink:
    from .sqlite import DAYS, SqliteEvents

    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    days = options.pop("days", str(DAYS))
    if options:
        raise EdgennError(f"sqlite: has no option {next(iter(options))!r}: the only one is ?days=31")
    try:
        kept = float(days)
    except ValueError:
        raise EdgennError(f"sqlite:{path}?days={days}: days is a number, as in ?days=31") from None
    return SqliteEvents(path, about, days=kept)


def _third_party(scheme: str, spec: str, about: About) -> Sink:
    # Only here: it brings fifty modules, of which a plain run needs none.
    from importlib.metadata import entry_points

    for found in entry_points(group=ENTRY_POINTS, name=scheme):
        try:
            sink = found.load()(spec, about)
        except EdgennError:
            raise
        except Exception as error:
            # Its words may hold the spec, or the part of it that it stumbled over.
            reason = "" if "@" in spec else f": {' '.join(str(error).split())[:200]}"
            raise EdgennError(
                f"the sink {scheme!r} ({found.value}) does not load ({type(error).__name__}{reason}): "
                "install it anew, or ask its author"
            ) from None
        if not isinstance(sink, Sink):
            raise EdgennError(f"the sink {scheme!r} ({found.value}) is no edgenn_device.sinks.Sink: ask its author")
        return sink
    raise EdgennError(f"there is no sink {scheme!r}: use {ACCEPTED}")
