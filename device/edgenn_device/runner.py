"""Puts a run together: source, classifier, pipeline, gate, events, sinks, live page, keeper, health and service.

Reads options and wires up what they name; every part is loaded only when it is asked for, so that a short run starts as
fast as a script. What a part does is that part's business, and what a person sees on a terminal is the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, cast

from . import installed
from .cameras import open_source
from .classifier import Classifier
from .delegates import CPU
from .errors import EdgennError
from .health import Health
from .options import Options, default_token_file
from .pipeline import Pipeline, Result, Summary

if TYPE_CHECKING:
    from .cameras.base import Condition, Source
    from .events import Events
    from .profiler import Histogram
    from .profiler.timeline import Timeline
    from .sinks.base import About, Sink
    from .uncertain import Keeper
    from .web.live import Live

__all__ = ["Options", "Run"]

_PERCENTILES = (50, 90, 99)


class Run:
    """One run, from its options to its summary.

    Args:
      options: what is asked for.
      out: a sink that is not behind a queue, for whoever waits for every result (a terminal, standard output).
      profile: measure stages and sinks.
      timeline: is told what each stage does when.
      say: is given a line for a person when there is something to be told: where the live page is.

    Attributes:
      pipeline: not run before `go`.
      health: of all parts.
      stopped: SIGTERM has ended it.

    Raises:
      EdgennError: the model is not usable, the source or a sink is none, what one needs is not installed.

    >>> run = Run(Options(model="garments.tflite", source="0", sink=("sqlite:events.db",)))     # doctest: +SKIP
    >>> run.go()                                                                                # doctest: +SKIP
    """

    def __init__(
        self,
        options: Options,
        out: Sink | None = None,
        *,
        profile: bool = False,
        timeline: Timeline | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self._say = say
        self.health = Health(options.name, installed.version("edgenn") or "unknown")
        self._stopwatch = None
        if profile or timeline:
            from .profiler.stages import Stopwatch

            self._stopwatch = Stopwatch(timeline)
        self._timeline = timeline
        self._token_hint = ""
        self._profile = profile
        classifier = self._classifier = self._open_classifier()
        try:
            self._source = self._open_source(classifier)
            self.pipeline = self._put_together(classifier)
            self._out = out
            self._keeper = self._make_keeper()
            self._about = self._introduce()
            self._live = self._make_live()
            self._sinks = self._open_sinks()
        except BaseException:
            classifier.close()
            raise
        if self._live is not None:
            self._sinks = (*self._sinks, self._live)
        self.stopped = False
        self._events: Events | None = None
        if self._sinks:
            from .events import Events

            self._events = Events()
        self.health.describe(
            model=classifier.model,
            source=self._source.name,
            runtime=classifier.interpreter.description,
            counts=self.pipeline,
            sinks=self._sinks if self._keeper is None else (*self._sinks, self._keeper),
        )

    def go(self) -> None:
        """Run until the source ends, the limit is reached, or SIGTERM. Entered on the main thread for the signals.

        Raises:
          EdgennError: the source or a sink does not open, or fails in a way that it cannot mend itself.
          OSError: `out` cannot be written.
        """
        with ExitStack() as parts:
            parts.callback(self._close_classifier)
            if threading.current_thread() is threading.main_thread():
                from .service import Service

                pipeline = self.pipeline
                parts.enter_context(
                    Service(lambda: (pipeline.frames, pipeline.bad), self.health, self.reload, stop=self._stop)
                )
            if self._keeper is not None:
                parts.enter_context(self._keeper)
            everyone = (*self._sinks, self._out) if self._out else self._sinks
            for sink in everyone:
                parts.enter_context(sink)
            if self._live is not None and self._say is not None:
                self._say(f"live page: {self._live.url}{self._token_hint}")
            try:
                with closing(self.pipeline.results(self.options.limit)) as results:
                    for result in results:
                        self._take(result, everyone)
            finally:
                # Also after Ctrl-C, or when the source failed half-way: what was done is told.
                self._end(everyone)

    def reload(self) -> None:
        """Take the model file anew, between two frames; the one before stays when the new one is not usable.

        Raises:
          EdgennError: it is not usable.
        """
        if self._timeline is not None:
            raise EdgennError("a run with --timeline keeps its model: run without it to exchange models")
        from .service import exchange

        exchange(self.pipeline, self._open_classifier, self.health)
        self._classifier = cast(Classifier, self.pipeline.classifier)
        new = self._introduce()
        self._about.model, self._about.labels, self._about.runtime = new.model, new.labels, new.runtime
        if self._keeper is not None:
            self._keeper.labels = new.labels

    def unwritten(self) -> list[str]:
        """Of each sink that has not taken everything by the end: its name and what kept it from that."""
        states = ((sink.name, sink.state()) for sink in self._sinks)
        return [
            f"{name} ({state['error']})"
            for name, state in states
            if state.get("error") and (any(state.get("dropped", {}).values()) or state.get("spool_dropped"))
        ]

    def figures(self) -> dict[str, Any]:
        """The summary, JSON-able: frames, skipped (of these, without the network), dropped, bad, fps, seconds."""
        summary = self.pipeline.summary()
        figures: dict[str, Any] = {
            "frames": summary.frames,
            "skipped": summary.skipped,
            "dropped": summary.dropped,
            "bad": summary.bad,
            "fps": round(summary.fps, 2),
            "seconds": round(summary.seconds, 3),
        }
        if histograms := self._histograms():
            figures["stages"] = {
                stage: {f"p{p}_ms": round(histogram.percentile(p) * 1000, 3) for p in _PERCENTILES}
                for stage, histogram in histograms.items()
            }
        return figures

    def text(self) -> str:
        """The summary as a person reads it."""
        summary = self.pipeline.summary()
        lines = [_line(summary, self.runtime)]
        histograms = self._histograms()
        if histograms and summary.frames:
            width = max(map(len, histograms))
            lines.append("".join([f"{'stage':<{width}}", *(f"{f'p{p} ms':>11}" for p in _PERCENTILES)]))
            for stage, histogram in histograms.items():
                figures = (f"{histogram.percentile(p) * 1000:11.3f}" for p in _PERCENTILES)
                lines.append("".join([f"{stage:<{width}}", *figures]))
        return "\n".join(lines)

    @property
    def runtime(self) -> str:
        """What executes the model now, in words."""
        return self._classifier.interpreter.description

    def _histograms(self) -> dict[str, Histogram]:
        return self._stopwatch.named() if self._stopwatch and self._profile else {}

    def _stop(self) -> None:
        self.stopped = True
        self.pipeline.stop()

    def _take(self, result: Result, sinks: Iterable[Sink]) -> None:
        self.health.frame(result)
        if self._stopwatch and not result.skipped:
            self._stopwatch.write(result, sinks)
        else:
            for sink in sinks:
                sink.write(result)
        if self._events is not None:
            for event in self._events.take(result):
                for sink in self._sinks:
                    sink.event(event)
        if self._keeper is not None:
            self._keeper.take(result)
        if self._live is not None:
            self.pipeline.source.watched = self._live.watched

    def _end(self, sinks: Iterable[Sink]) -> None:
        if self._events is not None:
            for event in self._events.end():
                for sink in self._sinks:
                    sink.event(event)
        if self.pipeline.opened:
            figures = self.figures()
            for sink in sinks:
                sink.finish(figures)

    def _open_classifier(self) -> Classifier:
        options = self.options
        named: dict[str, Any] = {"labels": options.labels, "runtime": options.runtime, "threads": options.threads}
        if options.delegate == CPU:
            return Classifier(options.model, **named)
        from .standby import Standby

        return Standby(options.model, delegate=options.delegate, health=self.health, **named)

    def _close_classifier(self) -> None:
        self._classifier.close()

    def _open_source(self, classifier: Classifier) -> Source:
        options = self.options
        width, height = options.size or (None, None)
        source = open_source(
            options.source,
            fast=options.fast,
            width=width,
            height=height,
            exposure=options.exposure,
            view=options.view,
            input=classifier.model.input,
        )
        self.health.set("source", "ok")
        source.tell = self._tell_of_source
        return source

    def _tell_of_source(self, condition: Condition, reason: str) -> None:
        self.health.set("source", condition, reason)

    def _put_together(self, classifier: Classifier) -> Pipeline:
        source, gate = self._source, None
        wanted = self.options.motion_gate
        if source.live and source.continuous if wanted is None else wanted:
            from .motion import Gate

            gate = Gate()
        if self._timeline is None:
            return Pipeline(source, classifier, top_k=self.options.top, gate=gate)
        watched = self._timeline.source(source)
        watched.tell = self._tell_of_source
        return Pipeline(watched, self._timeline.classifier(classifier), top_k=self.options.top, gate=gate)

    def _make_keeper(self) -> Keeper | None:
        if self.options.keep_uncertain is None:
            return None
        from .uncertain import Keeper

        return Keeper(self.options.keep_uncertain, self._classifier.labels, model=self._classifier.model.path.name)

    def _make_live(self) -> Live | None:
        if self.options.web is None:
            return None
        from .token import is_loopback, stored_token
        from .web.live import Live

        host, port = self.options.web
        token = None
        if self.options.web_token_file is not None or not is_loopback(host):
            from pathlib import Path

            place = Path(self.options.web_token_file or default_token_file())
            token, self._token_hint = stored_token(place), f" (its token is in {place})"
        return Live(self._about, self.health, host=host, port=port, token=token, keeper=self._keeper)

    def _open_sinks(self) -> tuple[Sink, ...]:
        if not self.options.sink:
            return ()
        from .sinks import open_sinks

        return open_sinks(self.options.sink, self._about, health=self.health.snapshot)

    def _introduce(self) -> About:
        from .sinks.base import About

        model = self._classifier.model
        return About(
            device=self.health.device,
            model=model.card.name if model.card else model.path.stem,
            labels=self._classifier.labels,
            runtime=self._classifier.interpreter.description,
            source=self._source.name,
            version=self.health.version,
        )


def _line(summary: Summary, runtime: str) -> str:
    unchanged = f", {summary.skipped} unchanged" if summary.skipped else ""
    unreadable = f", {summary.bad} unreadable" if summary.bad else ""
    return (
        f"{summary.frames} frame{'' if summary.frames == 1 else 's'} in {summary.seconds:.1f} s, "
        f"{summary.fps:.1f} fps, {summary.dropped} dropped{unchanged}{unreadable} ({runtime})"
    )
