"""Options that several verbs have: spelt, explained and defaulted once, so that a name means the same everywhere.

An option of one verb alone stands with that verb; one whose meaning goes with the verb (`--out`, `--source`) does too.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click


class Number(click.types.FloatParamType):
    """A number. click takes nan and inf for one too, and nan gets past every limit: no comparison with it holds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class NumberRange(click.FloatRange, Number):
    """A number within limits."""


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """A callback: what stands between commas."""
    if value is None:
        return None
    found = tuple(name.strip() for name in value.split(",") if name.strip())
    if not found:
        # As of a variable of the shell that is empty: all of them would be another model than was asked for.
        raise click.UsageError(f"{param.opts[0]} names none: give them with commas between, or leave it out", ctx)
    return found


# Threads or processes. More are slower on any machine, and thousands never get ready.
MOST_PARALLEL = 256
PARALLEL = click.IntRange(1, MOST_PARALLEL)
RUNTIMES = ("auto", "litert", "tflite-runtime", "tensorflow")

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
inventory = click.option(
    "--inventory", type=click.Path(path_type=Path), metavar="FILE", help="Devices by name (docs/pis.toml)."
)
labels = click.option(
    "--labels",
    type=click.Path(),
    metavar="FILE",
    help="A file with one label a line, for a model that carries none.",
)
classes = click.option(
    "--classes",
    metavar="NAME[,NAME...]",
    callback=names,
    help="Folders to use, with commas between.  [default: all]",
)
runtime = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What executes the model.",
)
