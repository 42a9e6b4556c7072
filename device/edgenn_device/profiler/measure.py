"""One profile of a model on this machine: cold start, stages, steady state, operators, memory, energy.

The order is that in which a device meets them, and the machine's state is read before, during and after, so that a run
on a throttled board or beside busy neighbours says so. Changes nothing of what it measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..classifier import Classifier
from ..errors import EdgennError
from ..model_file import ModelFile, load
from . import SECONDS, memory, operators, power, prefixes, roofline, state, sweep
from .cold_start import cold_start
from .environment import environment
from .histogram import Histogram
from .stages import Stages, stages_of
from .steady import FEWEST_RUNS, WIDTH, Steady, steady_state
from .sweep import Variant
from .timeline import Timeline

# MLPerf Inference Rules 0.5 (20 September 2019), section 3, single stream: 1024 queries and 60 seconds; the metric is
# the 90th percentile.
MLPERF_RUNS = 1024
MLPERF_SECONDS = 60.0
# Means over half a second of undisturbed runs repeat to 1% on an idle machine; the process around them takes as long.
_OPERATOR_SECONDS = 1.0
# Stages vary with pictures more than with time: a hundred frames of a camera.
_STAGE_SECONDS = 4.0
_ENERGY_SECONDS = 3.0


@dataclass(frozen=True)
class Profile:
    """What was measured; `report` turns it into Markdown or JSON, `table` into text, `page` into HTML.

    Attributes:
      session: a name for this measurement: two documents of one session were timed in turns.
      time: when it began, seconds since 1970.
      variants: everything that was timed in turns. The first is what all other figures are of.
      mlperf: whether the steady state followed the rule of MLPerf's single stream.
      cold_start: seconds by stage of a fresh process, None when it could not be measured.
      stages: of the pipeline.
      operators: layer by layer.
      machine: the roof that operators are held against; None where nothing was timed.
      points: where each operator stands below it.
      memory: bytes; see `cold_start` for the first four, weights (the graph's constants), arena (as TFLite's planner
        lays it out; without the kernels' scratch buffers), flatbuffer.
      energy: of the steady state, or why there is none.
      environment: see `environment`.
      before, during, after: the machine's state around and in the course of the measurement.
      disturbances: why the figures are not the model's own, in sentences; empty for a quiet run.
    """

    session: str
    time: float
    variants: tuple[Variant, ...]
    mlperf: bool
    cold_start: dict[str, float] | None
    stages: Stages
    operators: operators.OperatorTimes
    machine: roofline.Machine | None
    points: tuple[roofline.Point, ...]
    memory: dict[str, int | None]
    energy: power.Energy
    environment: dict[str, Any]
    before: state.State
    during: tuple[state.State, ...]
    after: state.State
    disturbances: tuple[str, ...]

    @property
    def model(self) -> str:
        """The file's name."""
        return self.variants[0].model

    @property
    def description(self) -> str:
        """Runtime, version, kernels and threads in one line."""
        return self.variants[0].description

    @property
    def threads(self) -> int:
        """CPU threads of the interpreter."""
        return self.variants[0].threads

    @property
    def steady(self) -> Steady:
        """`invoke` alone: input tensor in, scores out."""
        return self.variants[0].steady

    @property
    def runs(self) -> int:
        """Counted runs of the steady state."""
        return self.steady.latencies.count

    @property
    def quiet(self) -> bool:
        """Whether nothing disturbed the measurement that this machine could tell of."""
        return not self.disturbances

    @property
    def busy_by_others(self) -> float | None:
        """Share (0..1) of the CPU that other programs took meanwhile."""
        return state.busy_by_others(self.before, self.after)


def profile(
    model: str | Path | ModelFile | Sequence[str | Path | ModelFile],
    *,
    runs: int | None = None,
    seconds: float = SECONDS,
    threads: int | Sequence[int | None] | None = None,
    runtime: str | Sequence[str] = "auto",
    kernels: str | Sequence[str] = "default",
    mlperf: bool = False,
    source: str | None = "synthetic",
    labels: str | Path | None = None,
    timeline: Timeline | None = None,
    progress: Callable[[str], None] | None = None,
) -> Profile:
    """Measure a model on this machine.

    Several models, threads, runtimes or kernels are timed in turns, in every combination; the parts beside the steady
    state are measured of the first.

    Args:
      model: path of a .tflite, one already loaded, or several.
      runs: counted runs of the steady state; None: until the median is known to 1% or `seconds` are over.
      seconds: the budget of each steady state; of the pipeline likewise, 4 at most.
      threads, runtime, kernels: as for `Interpreter`.
      mlperf: at least 1024 runs and 60 seconds, as MLPerf's single stream asks for.
      source: where the pipeline's frames come from (see `cameras.open_source`); None measures no pipeline, only
        preprocess of a 640x480 picture and invoke.
      labels: a labels file for models that carry none.
      timeline: is told what the pipeline did.
      progress: called with a few words when a part begins.

    Raises:
      EdgennError: the model, runtime or source cannot be used, or a number makes no sense.
    """
    if runs is not None and runs < 1:
        raise EdgennError(f"{runs} runs measure nothing: --runs takes 1 or more")
    if not 0 < seconds < float("inf"):
        raise EdgennError(f"{seconds} seconds measure nothing: --seconds takes more than 0")
    if mlperf and runs is not None:
        raise EdgennError("--mlperf says itself how many runs it takes: leave --runs out")
    say = progress or (lambda words: None)
    began = time.time()
    named = [model] if isinstance(model, (str, Path, ModelFile)) else list(model)
    models = [one if isinstance(one, ModelFile) else load(one, labels=labels) for one in named]
    counts = [threads] if threads is None or isinstance(threads, int) else list(threads)
    runtimes = [runtime] if isinstance(runtime, str) else list(runtime)
    libraries = [kernels] if isinstance(kernels, str) else list(kernels)
    first = models[0]
    say("cold start")
    started = cold_start(first.path, runtime=runtimes[0], threads=counts[0])
    chosen = sweep.subjects(models, runtimes=runtimes, threads=counts, kernels=libraries)
    interpreter = chosen[0].interpreter
    classifier = Classifier(first, runtime=runtimes[0], threads=counts[0])
    facts = environment(first, interpreter)
    before = state.state()
    say("stages")
    pipeline = stages_of(classifier, source, min(seconds, _STAGE_SECONDS), timeline) if source is not None else None
    say("steady state")
    watch = state.Watch()
    variants = sweep.measure(
        chosen,
        runs=runs,
        seconds=max(seconds, MLPERF_SECONDS) if mlperf else seconds,
        fewest=MLPERF_RUNS if mlperf else FEWEST_RUNS,
        width=None if mlperf else WIDTH,
        between=watch,
    )
    if pipeline is None:
        pipeline = Stages("", {"preprocess": _preprocess(classifier), "invoke": variants[0].steady.latencies})
    after = state.state()
    energy = _energy(chosen[0], seconds, say)
    say("operators")
    timed = _operators(chosen[0], seconds)
    roof = _roof(chosen[0], timed, say)
    return Profile(
        session=uuid4().hex,
        time=began,
        variants=tuple(variants),
        mlperf=mlperf,
        cold_start=started[0] if started else None,
        stages=pipeline,
        operators=timed,
        machine=roof,
        points=roofline.points(timed.layers, roof, first.graph) if roof else (),
        memory=_memory(first, started[1] if started else {}),
        energy=energy,
        environment=facts,
        before=before,
        during=tuple(watch.states),
        after=after,
        disturbances=tuple(
            state.disturbances(before, after, facts["emulated"], variants[0].steady.drift, watch.states)
        ),
    )


def _operators(subject: sweep.Subject, seconds: float) -> operators.OperatorTimes:
    ran = subject.interpreter
    timed, enough = (operators.timed, _OPERATOR_SECONDS) if ran.runtime == "litert" else (prefixes.timed, seconds)
    return timed(
        subject.model, runtime=ran.runtime, threads=ran.threads, kernels=ran.kernels, seconds=min(seconds, enough)
    )


def _roof(
    subject: sweep.Subject, timed: operators.OperatorTimes, say: Callable[[str], None]
) -> roofline.Machine | None:
    if not timed.runs:
        return None
    say("roofline")
    ran = subject.interpreter
    try:
        return roofline.machine(runtime=ran.runtime, version=ran.version, threads=ran.threads, kernels=ran.kernels)
    except EdgennError:
        # The probe is not what was asked for: the profile is whole without it.
        return None


def _energy(subject: sweep.Subject, seconds: float, say: Callable[[str], None]) -> power.Energy:
    meter = power.find_meter()
    if meter is not None:
        say("energy")
    return power.measure(sweep.invocation(subject), meter, seconds=min(seconds, _ENERGY_SECONDS))


def _preprocess(classifier: Classifier) -> Histogram:
    picture = sweep.picture()
    return steady_state(lambda: classifier.preprocess(picture), runs=100, seconds=1.0).latencies


def _memory(model: ModelFile, started: dict[str, int | None]) -> dict[str, int | None]:
    """Of the fresh process where there was one, else of this one, which may hold much besides."""
    own = memory.resident()
    return {
        "python": started.get("python"),
        "imports": started.get("imports"),
        "ready": started.get("ready", own["resident"]),
        "peak": started.get("peak", own["resident_peak"]),
        "weights": memory.weights(model.graph),
        "arena": memory.arena(model.graph).bytes,
        "flatbuffer": len(model.content),
    }
