"""Does `profile --compare` find what is there and nothing else? Same against same, and an invoke made 5% slower.

    python tools/bench_profiler_compare.py MODEL [--seconds 3] [--pairs 10] [--noise] [--json]

Each repetition makes two measurements of one model, with an interpreter each, in the two ways that a person can: in
turns within one measurement (`--compare A.tflite B.tflite`), and one after the other (`--compare A.json B.json`). The
second is twice the same model as it is and then once with 5% of its median burnt after every invoke, by a loop that
looks at the clock. Counted are false alarms, slowdowns found, and 95% intervals that overlap.
--noise starts a neighbour: a process that works and rests in random spells of up to 0.2 s
and strides through 64 MB meanwhile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

from edgenn_device.model_file import load
from edgenn_device.profiler import compare, state, steady, sweep
from edgenn_device.profiler.report import SCHEMA, variant_dict

SLOWER = 0.05
_SPELL = 0.2


@dataclass
class Score:
    """Counts of one way to compare."""

    same: int = 0
    alarms: int = 0
    overlaps: int = 0
    slowed: int = 0
    found: int = 0
    half_widths: list[float] = field(default_factory=list)

    def count(self, difference: compare.Difference, slowed: bool) -> None:
        verdict = difference.verdict
        if difference.low is not None and difference.high is not None:
            self.half_widths.append((difference.high - difference.low) / 2)
        if slowed:
            self.slowed += 1
            self.found += verdict == "slower"
        else:
            self.same += 1
            self.alarms += verdict != "no difference shown"


def slowed(invoke: Callable[[], object], seconds: float) -> Callable[[], object]:
    """`invoke`, and then `seconds` more of work."""
    clock = time.perf_counter_ns
    extra = int(seconds * 1e9)

    def both() -> None:
        invoke()
        end = clock() + extra
        while clock() < end:
            pass

    return both


def measured(subjects: list[sweep.Subject], extra: list[float], seconds: float) -> dict[str, Any]:
    """A document with as much of a profile as `compare` reads."""
    plain = sweep.invocation
    burnt = {id(subject): more for subject, more in zip(subjects, extra, strict=True)}

    def invocation(subject: sweep.Subject) -> Callable[[], object]:
        invoke, more = plain(subject), burnt[id(subject)]
        return slowed(invoke, more) if more else invoke

    with patch.object(sweep, "invocation", invocation):
        variants = sweep.measure(
            subjects, runs=None, seconds=seconds, fewest=steady.FEWEST_RUNS, width=steady.WIDTH, between=state.Watch()
        )
    return {
        "schema": SCHEMA,
        "session": uuid4().hex,
        "environment": {},
        "disturbances": [],
        "variants": [variant_dict(variant) for variant in variants],
    }


def neighbour() -> None:
    """Work and rest by turns, each for a random time."""
    memory = bytearray(64 << 20)
    while True:
        end = time.monotonic() + random.uniform(0, _SPELL)
        while time.monotonic() < end:
            for place in range(0, len(memory), 4096 * 64):
                memory[place] = (memory[place] + 1) & 255
        time.sleep(random.uniform(0, _SPELL))


@contextmanager
def noise(wanted: bool) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=neighbour, daemon=True) if wanted else None
    if process:
        process.start()
    try:
        yield
    finally:
        if process:
            process.terminate()
            process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--labels")
    parser.add_argument("--seconds", type=float, default=3.0, help="budget of each measurement (default 3)")
    parser.add_argument("--pairs", type=int, default=10, help="repetitions slowed; twice as many same against same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--noise", action="store_true", help="with a noisy neighbour")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    model = load(arguments.model, labels=arguments.labels)
    before = state.state()
    in_turns, apart = Score(), Score()
    with noise(arguments.noise):
        for number in range(3 * arguments.pairs):
            slow = number % 3 == 2
            # An interpreter each: two of one model differ a little, as two processes' do.
            subjects = [sweep.subjects([model], threads=[arguments.threads])[0] for _ in range(2)]
            first = measured(subjects[:1], [0.0], arguments.seconds)
            extra = SLOWER * first["variants"][0]["invoke_ms"]["p50"] / 1e3 if slow else 0.0
            second = measured(subjects[1:], [extra], arguments.seconds)
            one_after_the_other = compare.compare(first, second).differences[0][1]
            apart.count(one_after_the_other, slow)
            if not slow:
                (_, a_high), (b_low, b_high) = _bounds(first), _bounds(second)
                apart.overlaps += _bounds(first)[0] <= b_high and b_low <= a_high
            together = measured(subjects, [0.0, extra], arguments.seconds)
            one, other = ({**together, "variants": [variant]} for variant in together["variants"])
            found = compare.compare(one, other).differences[0][1]
            in_turns.count(found, slow)
            if not slow:
                (a_low, a_high), (b_low, b_high) = (_interval(entry) for entry in together["variants"])
                in_turns.overlaps += a_low <= b_high and b_low <= a_high
            print(
                f"{number + 1:3} {'slowed' if slow else 'same  '} in turns {found.short()}; "
                f"apart {one_after_the_other.short()}",
                file=sys.stderr,
            )
        # Before the neighbour ends: afterwards its time counts as this process's own.
        busy = state.busy_by_others(before, state.state())
    scores = {"in turns": in_turns, "one after the other": apart}
    good = in_turns.alarms * 20 <= in_turns.same and in_turns.found * 10 >= 9 * in_turns.slowed
    if arguments.json:
        figures = {name: {**vars(score), "half_widths": sorted(score.half_widths)} for name, score in scores.items()}
        print(json.dumps({"model": Path(arguments.model).name, "busy_by_others": busy, "scores": figures}, indent=1))
        return 0 if good else 1
    print(f"{Path(arguments.model).name}, {arguments.seconds:g} s each, other programs took {busy or 0:.0%} of the CPU")
    for name, score in scores.items():
        middle = sorted(score.half_widths)[len(score.half_widths) // 2] if score.half_widths else float("nan")
        print(
            f"{name:20} false alarms {score.alarms} of {score.same}   5% slowdowns found {score.found} of "
            f"{score.slowed}   intervals overlap {score.overlaps} of {score.same}   change known to ±{middle:.1%}"
        )
    return 0 if good else 1


def _bounds(document: dict[str, Any]) -> tuple[float, float]:
    return _interval(document["variants"][0])


def _interval(variant: dict[str, Any]) -> tuple[float, float]:
    low, high = variant["invoke_ms"]["p50_interval"]
    return low, high


if __name__ == "__main__":
    sys.exit(main())
