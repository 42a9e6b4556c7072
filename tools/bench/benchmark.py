"""What a benchmark is, and what BENCHMARKS.md has recorded of it: declarations alone, nothing is run here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As people write them: ".952", "49,537", "−0.12".
_NUMBER = r"[+−-]?(?:\d[\d,]*)?\.?\d+"
_BOUND = r"[≥≤<>]\s*" + _NUMBER


class NotFound(Exception):
    """A figure is not where it should be, in the page or in an output; the message says what was looked for."""


@dataclass(frozen=True)
class Tolerance:
    """How far a figure may be off the recorded one, to either side, and still be reproduced."""

    share: float = 0.0
    absolute: float = 0.0

    def holds(self, now: float, recorded: float) -> bool:
        # Half a last digit of what a page rounds.
        return abs(now - recorded) <= max(self.absolute, self.share * abs(recorded)) + 1e-9

    def __str__(self) -> str:
        return f"±{self.share:.0%}" if self.share else f"±{self.absolute:g}" if self.absolute else "exact"


# How far off figures of a kind may be. Ratios are of neighbours in time; times alone depend on the machine and on what
# else it does.
RATIO = Tolerance(share=0.15)
TIME = Tolerance(share=0.5)
MEMORY = Tolerance(share=0.1)
SIZE = Tolerance(share=0.02)
EXACT = Tolerance()
# Accuracy and agreement of one and the same network: four photos of 341.
ACCURACY = Tolerance(absolute=0.012)
# Of a network that is trained anew: threads add up in another order each time.
TRAINED = Tolerance(absolute=0.015)
# Points of accuracy that are lost.
POINTS = Tolerance(absolute=1.0)


@dataclass(frozen=True)
class Outcome:
    """What a benchmark left: all its output, its scratch folder, the largest process in bytes."""

    text: str
    folder: Path
    peak: int = 0


Reader = Callable[[Outcome], float]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
      name: as the table has it.
      recorded: the page's words around the figure, `{}` in its place, `{target}` for a bound such as "≥ .9", `…` for
        anything within a cell or sentence, `¶` for the end of a table's row; line breaks and bold type do not count.
      now: reads it from an outcome; raises NotFound, KeyError, IndexError or ValueError where it is not there.
      tolerance: see there.
      target: such as "≥ .9", where the page does not have it beside the figure.
      unit: for people.
      value: of a figure that the page has in words ("none crashed"); `recorded` then has no `{}`.
    """

    name: str
    recorded: str
    now: Reader
    tolerance: Tolerance
    target: str = ""
    unit: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """One command of the page.

    Attributes:
      section: heading of the page.
      command: the lines as the page has them.
      minutes: that it takes, about, on two cores.
      each: what placeholders and other words are replaced with; the command is run once for each mapping.
      before, after: lines for the shell that the page leaves unsaid.
      more: options that are added to the last line.
      needs: names of `places.NEEDS` that do not show in the command itself.
      cold: with an empty cache of its own, in place of the user's.
    """

    name: str
    section: str
    command: str
    minutes: float
    figures: tuple[Figure, ...]
    each: tuple[Mapping[str, str], ...] = ({},)
    before: str = ""
    after: str = ""
    more: str = ""
    needs: tuple[str, ...] = ()
    cold: bool = False

    @property
    def shown(self) -> str:
        """What is run, with the page's words for places: CLOTHING, WEIGHTS, CORAL, runs/…"""
        lines = []
        for puts in self.each:
            line = self.command
            for word, instead in puts.items():
                line, found = re.subn(_whole(word), lambda _, instead=instead: instead, line)
                if not found:
                    raise ValueError(f"{self.name}: its command has no {word!r}")
            lines.append(line + self.more)
        return "\n".join(filter(None, (self.before, *lines, self.after)))


@dataclass(frozen=True)
class Recorded:
    """What the page says: the number, its own spelling of it, and the bound, "" if it has none."""

    value: float
    text: str
    target: str


class Page:
    """BENCHMARKS.md."""

    def __init__(self, text: str) -> None:
        parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
        self.sections = {name.strip(): body for name, body in zip(parts[1::2], parts[2::2], strict=True)}

    def recorded(self, section: str, figure: Figure) -> Recorded:
        """Raises NotFound where the words do not stand in the section, or in two places."""
        if section not in self.sections:
            raise NotFound(f"BENCHMARKS.md has no section {section!r}")
        # A sign where a row of a table ends, so that nothing reaches beyond it.
        text = re.sub(r"(?m)^(\|.*)$", r"\1¶", self.sections[section].replace("**", ""))
        text = " ".join(text.split())
        found = list(re.finditer(_pattern(figure.recorded), text))
        if len(found) != 1:
            where = f"stands {len(found)} times" if found else "does not stand"
            raise NotFound(f"{figure.recorded!r} {where} in {section!r} of BENCHMARKS.md")
        groups = found[0].groupdict()
        target = " ".join((groups.get("target") or figure.target).split())
        if figure.value is not None:
            return Recorded(figure.value, f"{figure.value:g}", target)
        return Recorded(number(groups["number"]), groups["number"], target)

    def commands(self) -> list[str]:
        """Every command of the page, in code blocks and within the text, without comments, a line each."""
        found = []
        for body in self.sections.values():
            for line in re.findall(r"(?m)^ {4}(.*)$", body.replace("\\\n", "")):
                found.append(one_line(re.sub(r"\s+# .*", "", line)))
            text = " ".join(body.split())
            found += re.findall(r"`((?:[A-Z_]+=\S+ )?(?:python |pytest |tools/|edgenn [^`\s]+ )[^`]+)`", text)
        return found


def one_line(command: str) -> str:
    """A command with single spaces, lines that end in a backslash joined."""
    return " ".join(command.replace("\\\n", " ").split())


def _whole(word: str) -> str:
    """The N of "--seed N", not that of CLOTHING."""
    before, behind = (r"\b" if letter.isalnum() else "" for letter in (word[0], word[-1]))
    return f"{before}{re.escape(word)}{behind}"


def _pattern(words: str) -> str:
    parts = []
    for part in re.split(r"(\{\}|\{target\}|…|\s+)", words):
        if part == "{}":
            parts.append(f"(?P<number>{_NUMBER})")
        elif part == "{target}":
            parts.append(f"(?P<target>{_BOUND})")
        elif part == "…":
            parts.append(r"[^|¶]*?")
        else:
            parts.append(re.escape(part) if part.strip() else r"\s*" if part else "")
    return "".join(parts)


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def meets(now: float, target: str) -> bool:
    """Whether a figure is within a bound such as "≥ .9"."""
    bound = number(target[1:].strip())
    return {"≥": now >= bound, "≤": now <= bound, "<": now < bound, ">": now > bound}[target[0]]


def cell(row: str, column: int, width: int = 0) -> str:
    """`recorded` of a table's cell that begins with the figure.

    Args:
      row: the row's first cell as the page has it.
      column: counted from 1 behind it.
      width: columns behind it, where tables of other widths have such a row.
    """
    return f"| {row} |" + "…|" * (column - 1) + " {}" + ("…|" * (width - column + 1) + "¶" if width else "")


# Readers of an outcome.


def printed(pattern: str, turn: int = 0) -> Reader:
    """The first group of a line's pattern, of its `turn`th appearance."""

    def read(outcome: Outcome) -> float:
        return every(pattern, outcome)[turn]

    return read


def every(pattern: str, outcome: Outcome) -> list[float]:
    found = [number(value) for value in re.findall(pattern, outcome.text, re.MULTILINE)]
    if not found:
        raise NotFound(f"no line of the output is like {pattern!r}")
    return found


def document(outcome: Outcome) -> Any:
    """The last JSON document in the output."""
    decoder = json.JSONDecoder()
    for start in reversed([found.start() for found in re.finditer(r"^\{", outcome.text, re.MULTILINE)]):
        try:
            return decoder.raw_decode(outcome.text, start)[0]
        except ValueError:
            continue
    raise NotFound("there is no JSON in the output")


def told(*keys: Any) -> Reader:
    """A value of the JSON document in the output."""
    return lambda outcome: float(_down(document(outcome), keys))


def written(name: str, *keys: Any) -> Reader:
    """A value of a JSON file in the scratch folder."""
    return lambda outcome: float(_down(json.loads((outcome.folder / name).read_text()), keys))


def _down(value: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        value = value[key]
    return value
