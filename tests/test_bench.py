"""`make bench` (tools/bench): it knows every command of BENCHMARKS.md, finds every figure that stands there, and one
benchmark that fails, lies or hangs costs no other one its result."""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from edgenn.cli import cli
from tools.bench import __main__ as bench
from tools.bench import measure, table
from tools.bench.benchmark import (
    Benchmark,
    Figure,
    NotFound,
    Outcome,
    Page,
    Recorded,
    Tolerance,
    cell,
    meets,
    number,
    one_line,
    printed,
    told,
)
from tools.bench.places import NEEDS, ROOT, Places

TEXT = (ROOT / "BENCHMARKS.md").read_text()
PAGE = Page(TEXT)
COMMANDS = [(one.name, line) for one in bench.BENCHMARKS for line in one.shown.splitlines()]
FIGURES = [(one, figure) for one in bench.BENCHMARKS for figure in one.figures]
# A page as small as can be.
SMALL = Page(
    "# B\n\n## Pace\n\n| | target | measured |\n|---|---|---|\n"
    "| frames | ≥ .9 | **.950** (.9 to 1) |\n| bytes | | 7 |\n\nIt took 3\ns.\n"
)
FRAMES = Figure("frames", "| frames | {target} | {} (", printed(r"^frames ([\d.]+)"), Tolerance(share=0.15))
TOOK = Figure("took", "It took {} s", printed(r"^took ([\d.]+)"), Tolerance(), "≤ 4", "s")


@pytest.fixture(autouse=True)
def watched_for_an_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_WATCHED", 0.0)


def of_shell(name: str, command: str, *figures: Figure) -> Benchmark:
    return Benchmark(name, "Pace", command, 1, figures)


# The page and the list.


def test_every_command_of_the_page_is_run_or_left_out_for_a_reason() -> None:
    listed = {one_line(line) for one in bench.BENCHMARKS for line in one.command.splitlines()}
    found = PAGE.commands()
    assert len(found) > 30
    assert [command for command in found if command not in listed and command not in bench.LEFT_OUT] == []


def test_every_command_of_the_list_stands_on_the_page() -> None:
    page = one_line(TEXT)
    listed = [one_line(line) for one in bench.BENCHMARKS for line in one.command.splitlines()]
    assert [command for command in [*listed, *bench.LEFT_OUT] if command not in page] == []


@pytest.mark.parametrize(("one", "figure"), FIGURES, ids=[f"{one.name}-{figure.name}" for one, figure in FIGURES])
def test_every_figure_stands_on_the_page_once(one: Benchmark, figure: Figure) -> None:
    recorded = PAGE.recorded(one.section, figure)
    if recorded.target:
        assert meets(recorded.value, recorded.target) in (True, False)
    if figure.target:  # it is not beside the figure; the page has it all the same
        said = figure.target[1:].strip().lstrip("−")
        assert figure.value is not None or said in PAGE.sections[one.section]


def test_benchmarks_have_names_of_their_own_and_figures() -> None:
    names = [one.name for one in bench.BENCHMARKS]
    assert len(set(names)) == len(names)
    assert all(one.figures and one.minutes > 0 and set(one.needs) <= NEEDS.keys() for one in bench.BENCHMARKS)


def test_what_a_run_is_taken_from_comes_before() -> None:
    places = Places(ROOT / "no-such", *[ROOT] * 3)
    coming: set[str] = set()
    for one in bench.BENCHMARKS:
        assert "there is no run" not in places.missing(one, coming), one.name
        coming |= places.makes(one)


class _Parsed(Exception):
    pass


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(COMMANDS)])
def test_every_command_is_understood(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tool's own parser takes the words, and each file of the checkout that they name is there."""
    words = [word for word in shlex.split(line.partition(" > ")[0]) if word != "time"]
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    assert not re.search(r"…|\.\.\.|\[|\b(MODEL|SOURCE|RUN|N)\b", line), "a placeholder is left"
    for word in words:
        if word.startswith(("tools/", "models/", "tests/")):
            assert (ROOT / word).exists()
    if words[0] == "edgenn":
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None
        command.make_context(words[1], words[2:])
        return
    assert words[0] == "python"
    if words[1:3] == ["-m", "pytest"]:
        return
    tool, arguments = ROOT / words[1], words[2:]
    if words[1] == "-m":
        place, arguments = ROOT / words[2].replace(".", "/"), words[3:]
        tool = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if not arguments and "argparse" not in tool.read_text():
        return
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, args: None = None, namespace: None = None) -> None:
        parse(self, args, namespace)
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [str(tool), *arguments])
    monkeypatch.syspath_prepend(tool.parent)
    with pytest.raises(_Parsed):
        if words[1] == "-m":
            runpy.run_module(words[2], run_name="__main__")
        runpy.run_path(str(tool), run_name="__main__")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("| frames | {target} | {} fps", "does not stand"),  # another unit
        ("| frame | {target} | {} (", "does not stand"),  # another row
        (cell("frames", 6), "does not stand"),  # a column that is not there, and not the next row's
        ("{}", "stands 6 times"),  # nothing that tells it from others
    ],
)
def test_a_figure_that_is_not_on_the_page_is_told(words: str, why: str) -> None:
    with pytest.raises(NotFound, match=why):
        SMALL.recorded("Pace", Figure("frames", words, printed("x"), Tolerance()))
    with pytest.raises(NotFound, match="no section"):
        SMALL.recorded("Peace", FRAMES)


def test_a_figure_is_read_from_the_page_with_its_bound() -> None:
    assert SMALL.recorded("Pace", FRAMES) == Recorded(0.95, ".950", "≥ .9")
    assert SMALL.recorded("Pace", TOOK) == Recorded(3.0, "3", "≤ 4")


@pytest.mark.parametrize(
    ("text", "value"), [("49,537", 49537), (".952", 0.952), ("−0.12", -0.12), ("1.000", 1.0), ("+3", 3)]
)
def test_numbers_as_people_write_them(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("now", "target", "met"),
    [
        (0.9, "≥ .9", True),
        (0.89, "≥ .9", False),
        (10, "< 10", False),
        (10, "≤ 10", True),
        (-0.2, "≥ −0.3", True),
        (1, "> 1", False),
    ],
)
def test_bounds(now: float, target: str, met: bool) -> None:
    assert meets(now, target) is met


@pytest.mark.parametrize(
    ("tolerance", "now", "holds"),
    [
        (Tolerance(share=0.15), 1.15, True),
        (Tolerance(share=0.15), 1.16, False),
        (Tolerance(share=0.15), 0.84, False),  # better or worse: the page is not right
        (Tolerance(absolute=0.01), 1.01, True),
        (Tolerance(absolute=0.01), 1.011, False),
        (Tolerance(), 1.0, True),
        (Tolerance(), 1.001, False),
    ],
)
def test_tolerances(tolerance: Tolerance, now: float, holds: bool) -> None:
    assert tolerance.holds(now, 1.0) is holds


def test_json_is_found_among_other_lines() -> None:
    text = 'a warning {"x"\n{"a": 1}\nround 1\n{\n "a": {"b": 2}\n}\nbye\n'
    assert told("a", "b")(Outcome(text, Path())) == 2
    with pytest.raises(NotFound):
        told("a")(Outcome("{ no\n", Path()))


def test_words_are_replaced_whole_and_must_be_there() -> None:
    one = Benchmark("n", "Pace", "train CLOTHING --seed N --out runs/v2-N", 1, (), each=({"N": "0"}, {"N": "1"}))
    assert one.shown == "train CLOTHING --seed 0 --out runs/v2-0\ntrain CLOTHING --seed 1 --out runs/v2-1"
    with pytest.raises(ValueError, match="MODEL"):
        print(Benchmark("n", "Pace", "train", 1, (), each=({"MODEL": "x"},)).shown)


# Places.


def test_what_is_missing_is_said_with_what_to_give(tmp_path: Path) -> None:
    one = of_shell("one", "look CLOTHING WEIGHTS/a.h5 CORAL/b runs/here/model.tflite")
    assert Places(tmp_path).missing(one) == (
        "give --photos FOLDER of the clothing dataset; give --weights FOLDER of .weights.h5; "
        "give --coral FOLDER of google-coral/edgetpu's test_data; "
        "there is no run here: run what trains it before, or give --runs FOLDER"
    )
    (tmp_path / "theirs" / "here").mkdir(parents=True)
    (tmp_path / "theirs" / "here" / "model.tflite").touch()
    places = Places(tmp_path / "made", tmp_path, tmp_path, tmp_path, tmp_path / "theirs")
    assert places.missing(one) == ""
    assert places.script(one) == f"look {tmp_path} {tmp_path}/a.h5 {tmp_path}/b {tmp_path}/theirs/here/model.tflite"


def test_a_run_that_is_trained_here_is_never_anothers(tmp_path: Path) -> None:
    """Or `--overwrite` would replace somebody's run."""
    (tmp_path / "theirs" / "one").mkdir(parents=True)
    (tmp_path / "theirs" / "one" / "model.keras").touch()
    places = Places(tmp_path / "made", runs=tmp_path / "theirs")
    made = of_shell("one", "edgenn train x --out runs/one\nedgenn convert runs/one")
    assert places.missing(made) == ""
    assert "theirs" not in places.script(made)
    assert f"--out {tmp_path}/made/one --overwrite" in places.script(made)
    assert places.script(of_shell("two", "edgenn convert runs/one")) == f"edgenn convert {tmp_path}/theirs/one"


def test_paths_with_spaces_reach_the_command(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    (photos / "a").write_text("frames 1\n")
    [done] = bench.run([of_shell("one", "cat CLOTHING/a", FRAMES)], SMALL, Places(tmp_path, photos), tmp_path, 60)
    assert [row.now for row in done.rows] == [1.0]


# Running.


def test_a_benchmark_that_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    chosen = [
        of_shell("breaks", "echo frames 1; echo out of memory >&2; exit 3", FRAMES, TOOK),
        of_shell("says-nothing", "echo hello", FRAMES),
        of_shell("absent", "ls WEIGHTS", FRAMES),
        of_shell("long", "echo frames 1", FRAMES),
        of_shell("misses", "echo frames 0.85; echo took 3; exit 1", FRAMES, TOOK),
        of_shell("differs", "echo frames 0.5; pwd; touch left", FRAMES),
    ]
    chosen[3] = Benchmark(**{**vars(chosen[3]), "minutes": 61})
    results = bench.run(chosen, SMALL, Places(tmp_path / "runs"), tmp_path, 60)
    assert [result.why for result in results] == [
        "failed: exit status 3; out of memory",
        r"failed: frames: not in the output (no line of the output is like '^frames ([\\d.]+)')",
        "not run: give --weights FOLDER of .weights.h5",
        "not run: it takes about 61 minutes; give --under 61",
        "",  # its tool ends with 1 because a target is missed, which is a figure like another
        "",
    ]
    assert [result.good for result in results] == [False, False, True, True, True, False]
    assert (tmp_path / "output" / "breaks.log").read_text().splitlines()[1:] == ["frames 1", "out of memory"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BENCH.md", "output"]  # no scratch folder is left
    rows = (tmp_path / "BENCH.md").read_text().splitlines()
    cells = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1:6] for row in rows if row.startswith("| ")}
    assert cells["breaks"] == ["", "", "failed: exit status 3; out of memory", "", ""]
    assert cells["absent"][2] == "not run: give --weights FOLDER of .weights.h5"
    assert cells["misses: frames"] == ["≥ .9", ".950", ".850", "**missed** (recorded: met)", "yes, ±15%"]
    assert cells["misses: took"] == ["≤ 4", "3 s", "3 s", "met", "yes, exact"]
    assert cells["differs: frames"] == ["≥ .9", ".950", ".500", "**missed** (recorded: met)", "**no**, ±15%"]
    assert "2 of 6 benchmarks ran; 2 of 4 figures are within" in "\n".join(rows)
    assert any("tensorflow" in row and "Python 3." in row for row in rows)


@pytest.mark.parametrize(
    ("ticks", "said", "row"),
    [
        ([(100, 1000), (150, 1100)], "others took 50% of the processors", r"\d\d:\d\d, 50% \|"),
        ([(100, 1000), (105, 1100)], "", r"\d\d:\d\d, 5% \|"),
        ([(100, 1000), (100, 1000)], "", r"\d\d:\d\d \|"),  # no tick has passed
        ([(None, None), (None, None)], "", r"\d\d:\d\d \|"),  # no /proc/stat
    ],
)
def test_what_others_do_beforehand_is_said(
    ticks: list[tuple[float | None, float | None]],
    said: str,
    row: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = list(ticks)
    monkeypatch.setattr(measure, "cpu_time", lambda _: left.pop(0))
    name = bench.BENCHMARKS[0].name
    bench.run([of_shell(name, "echo frames 1", FRAMES)], SMALL, Places(tmp_path), tmp_path, 60)
    err = capsys.readouterr().err
    assert said in err if said else "others took" not in err
    assert re.search(row, (tmp_path / "BENCH.md").read_text())


def test_a_benchmark_that_hangs_is_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"

    class WhenItSleeps(threading.Thread):
        """The time limit, which comes when there is something to end."""

        def __init__(self, limit: float, late: Callable[[], object]) -> None:
            super().__init__()
            self.late = late

        def run(self) -> None:
            while "ready" not in log.read_text().splitlines():
                time.sleep(0.01)
            self.late()

        def cancel(self) -> None:
            pass

    monkeypatch.setattr(threading, "Timer", WhenItSleeps)
    # As `main` does: where the tests were started in the background it is ignored, by children too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    script = "python -c 'import time; print(\"ready\", flush=True); time.sleep(1000)'"
    try:
        ended, _ = measure.executed(script, tmp_path, log, 600.0, cold=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == "it took more than 10 minutes and was ended"
    assert "KeyboardInterrupt" in log.read_text()  # asked as by Ctrl-C, so that it can tidy up


def test_what_a_benchmark_leaves_behind_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_GRACE", 0.1)
    assert measure.executed("sleep 1000 & echo $!", tmp_path, tmp_path / "log", 60.0, cold=False)[0] == ""
    assert gone(int((tmp_path / "log").read_text().splitlines()[-1]))


def gone(process: int) -> bool:
    """Ended, whether or not somebody has waited for it; SIGKILL takes its time."""
    status = Path(f"/proc/{process}/stat")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if status.read_text().rpartition(") ")[2].startswith("Z"):
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_figure_that_left_the_page_is_a_row_that_says_so(tmp_path: Path) -> None:
    gone = Figure("gone", "| gone | {} |", printed(r"(\d)"), Tolerance())
    [done] = bench.run([of_shell("one", "echo frames 1", gone, FRAMES)], SMALL, Places(tmp_path), tmp_path, 60)
    assert not done.good
    assert "one: gone |  |  | '\\| gone \\| {} \\|' does not stand in 'Pace'" in (tmp_path / "BENCH.md").read_text()


def test_parts_make_one_table_and_what_cannot_be_run_replaces_nothing(tmp_path: Path) -> None:
    def part(*chosen: Benchmark) -> str:
        bench.run(chosen, SMALL, Places(tmp_path / "runs"), tmp_path, 60)
        return (tmp_path / "BENCH.md").read_text()

    # Names of the list: others are not looked for.
    first, second = (one.name for one in bench.BENCHMARKS[:2])
    part(of_shell(first, "echo frames 1", FRAMES))
    both = part(of_shell(second, "echo frames 0.9", FRAMES))
    assert both.index(f"{first}: frames") < both.index(f"{second}: frames")
    assert f"| {first}: frames | ≥ .9 | .950 | 1 |" in part(of_shell(first, "ls WEIGHTS", FRAMES))
    assert f"| {first}: frames | ≥ .9 | .950 | .910 |" in part(of_shell(first, "echo frames .91", FRAMES))


def test_a_result_that_another_edition_of_the_tool_kept_is_left_out(tmp_path: Path) -> None:
    first, second = (one.name for one in bench.BENCHMARKS[:2])
    bench.run([of_shell(first, "echo frames 1", FRAMES)], SMALL, Places(tmp_path / "runs"), tmp_path, 60)
    kept = tmp_path / "output" / f"{first}.json"
    kept.write_text(kept.read_text().replace('"busy"', '"load"'))
    bench.run([of_shell(second, "echo frames 1", FRAMES)], SMALL, Places(tmp_path / "runs"), tmp_path, 60)
    said = (tmp_path / "BENCH.md").read_text()
    assert f"| {second}: frames" in said
    assert f"| {first}: frames" not in said


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.952, ".952"), (-0.25, "-.250"), (1.234, "1.23"), (49537.0, "49,537"), (2361.4, "2,361"), (0.0, "0")],
)
def test_figures_are_spelt_as_on_the_page(value: float, text: str) -> None:
    assert table.spelt(value) == text


# The command.


def test_list_says_what_each_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.main(["--list", "--out", str(tmp_path / "bench")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^transfer-v2 +\d+ min  give --photos .*; give --weights", said, re.MULTILINE)
    assert all(one.name in said for one in bench.BENCHMARKS)
    assert all(command in said for command in bench.LEFT_OUT)
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [(["--only", "nothing"], "no benchmark 'nothing'"), (["--photos", "/no/such"], "no folder /no/such")],
)
def test_what_is_mistyped_is_said_before_anything_runs(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main(words)
    assert why in capsys.readouterr().err


def test_modules_of_the_list_are_all_in_it() -> None:
    """A benchmark that is written down and not in the list would never be run."""
    written = [
        one
        for path in sorted((ROOT / "tools" / "bench").glob("*.py"))
        if path.stem not in ("__main__", "__init__")
        for value in vars(importlib.import_module(f"tools.bench.{path.stem}")).values()
        if isinstance(value, tuple)
        for one in value
        if isinstance(one, Benchmark)
    ]
    assert {one.name for one in written} == {one.name for one in bench.BENCHMARKS}
