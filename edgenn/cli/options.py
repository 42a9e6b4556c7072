"""Options that several verbs have: spelt, explained and defaulted once, so that a name means the same everywhere.

An option of one verb alone stands with that verb; one whose meaning goes with the verb (`--out`, `--source`) does too.
"""

from __future__ import annotations

from pathlib import Path

import click

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
    "--classes", metavar="NAME[,NAME...]", help="Folders to use, with commas between.  [default: all]"
)
runtime = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What executes the model.",
)
