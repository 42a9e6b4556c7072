"""Runs one benchmark: its command in a scratch folder, within a time limit, all that it says kept in a file.

Refuses nothing and raises nothing for what a command does: an end before its time is a reason in the result.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgenn_device.profiler.state import cpu_time

from .benchmark import Benchmark, NotFound, Outcome, Page, Recorded, meets
from .places import ROOT, Places

# A benchmark may take so many times what it is declared to take, and never less than a few minutes.
_PATIENCE, _LEAST = 4.0, 600.0
# Seconds for which the machine is watched before a benchmark begins.
_WATCHED = 2.0
# Seconds that a command has to tidy up (containers, servers) after it was asked to end.
_GRACE = 60.0


@dataclass(frozen=True)
class Row:
    """One figure of one benchmark.

    `recorded` is None where the page does not have it, `now` where it could not be read; `why` explains either.
    """

    name: str
    recorded: Recorded | None = None
    now: float | None = None
    met: bool | None = None
    was_met: bool | None = None
    reproduced: bool | None = None
    tolerance: str = ""
    unit: str = ""
    why: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a benchmark: `why` is "" if it ran, "not run: …" or "failed: …"; `when` it began, in UTC; `busy` is
    the share of the processors' time, 0..1, that other programs took just before."""

    benchmark: str
    command: str
    when: str
    why: str = ""
    seconds: float | None = None
    busy: float | None = None
    rows: tuple[Row, ...] = ()

    @property
    def good(self) -> bool:
        """Nothing failed and every figure is what the page says."""
        return not self.why.startswith("failed") and all(row.reproduced for row in self.rows)


def measured(benchmark: Benchmark, page: Page, places: Places, out: Path, under: float) -> Result:
    """Run it, unless something is missing or it takes more than `under` minutes, and compare it with the page."""
    about = (benchmark.name, benchmark.shown, f"{datetime.now(UTC):%Y-%m-%d %H:%M}")
    if why := places.missing(benchmark):
        return Result(*about, f"not run: {why}")
    if benchmark.minutes > under:
        return Result(
            *about, f"not run: it takes about {benchmark.minutes:g} minutes; give --under {benchmark.minutes:g}"
        )
    busy, began = busy_share(), time.monotonic()
    log = out / "output" / f"{benchmark.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix="tmp-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        limit = max(_LEAST, _PATIENCE * 60 * benchmark.minutes)
        ended, peak = executed(places.script(benchmark), folder, log, limit, cold=benchmark.cold)
        seconds = time.monotonic() - began
        outcome = Outcome(log.read_text(errors="replace"), folder, peak)
        rows = compared(benchmark, page, outcome)
    unread = [row for row in rows if row.now is None]
    # Many tools end with 1 when their target is missed: what they measured counts.
    if unread and ended:
        last = [line.strip() for line in outcome.text.splitlines() if line.strip()][-1]
        return Result(*about, f"failed: {ended}; {last[:300]}", seconds, busy)
    why = f"failed: {unread[0].name}: {unread[0].why}" if unread else ""
    return Result(*about, why, seconds, busy, rows)


def busy_share() -> float | None:
    """Share of all processors' time, 0..1, that programs take while this one waits; None where that is not known.

    The load average would still have the last benchmark in it.
    """
    before = cpu_time(Path("/"))
    time.sleep(_WATCHED)
    (working, ticks), (worked, passed) = cpu_time(Path("/")), before
    if working is None or ticks is None or worked is None or passed is None or ticks <= passed:
        return None
    return (working - worked) / (ticks - passed)


def executed(script: str, folder: Path, log: Path, limit: float, *, cold: bool) -> tuple[str, int]:
    """Run a script in a folder.

    Returns:
      "" or how it ended otherwise, and the most resident bytes that one of its processes had.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "TIMEFORMAT": "took %R s",
        **({"XDG_CACHE_HOME": str(folder / "cache")} if cold else {}),
    }
    late = threading.Event()

    def out_of_time() -> None:
        late.set()
        end(process.pid)

    with log.open("w") as output:
        output.write("".join(f"$ {line}\n" for line in script.splitlines()))
        output.flush()
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timer = threading.Timer(limit, out_of_time)
        timer.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            # Beside it, since a process that has ended is there until it is waited for.
            threading.Thread(target=end, args=(process.pid,)).start()
            os.wait4(process.pid, 0)
            raise
        finally:
            timer.cancel()
            timer.join()
            # What it has left behind would disturb the next.
            end(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
    if late.is_set():
        return f"it took more than {limit / 60:.0f} minutes and was ended", used.ru_maxrss * 1024
    # getrusage(2): kilobytes on Linux.
    return f"exit status {process.returncode}" if process.returncode else "", used.ru_maxrss * 1024


def end(group: int) -> None:
    """Ask a group of processes to end as Ctrl-C does, so that they tidy up; then end them."""
    deadline = time.monotonic() + _GRACE
    try:
        os.killpg(group, signal.SIGINT)
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.2)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def compared(benchmark: Benchmark, page: Page, outcome: Outcome) -> tuple[Row, ...]:
    """The figures of an outcome beside the page's."""
    rows = []
    for figure in benchmark.figures:
        row = Row(figure.name, tolerance=str(figure.tolerance), unit=figure.unit)
        try:
            recorded = page.recorded(benchmark.section, figure)
        except NotFound as error:
            rows.append(replace(row, why=str(error)))
            continue
        try:
            now = figure.now(outcome)
        except (NotFound, LookupError, ValueError, TypeError, OSError) as error:
            rows.append(replace(row, recorded=recorded, why=f"not in the output ({error})"))
            continue
        target = recorded.target
        rows.append(
            replace(
                row,
                recorded=recorded,
                now=now,
                met=meets(now, target) if target else None,
                was_met=meets(recorded.value, target) if target else None,
                reproduced=figure.tolerance.holds(now, recorded.value),
            )
        )
    return tuple(rows)
