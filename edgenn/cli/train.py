"""`edgenn train`: labelled photos become a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn.extras import check_installed, require
from edgenn.training.recipe import DEFAULTS, Recipe
from edgenn.training.watcher import Watcher

from . import options as shared

if TYPE_CHECKING:
    from edgenn import data
    from edgenn.training.fit import Epoch

# Pieces of advice that are printed; the report has all.
_MOST_ADVICE = 3


def _default(setting: str) -> str:
    """What help says of a default that goes with what training starts from."""
    scratch, transfer = DEFAULTS["scratch"][setting], DEFAULTS["transfer"][setting]
    more = ", more where photos are few" if setting in ("epochs", "patience") else ""
    with_weights = "" if scratch == transfer else f"; with --weights {transfer:g}"
    return f"[default: {scratch:g}{more}{with_weights}]"


@click.command(
    epilog="""\b
Examples:
  edgenn train photos --out runs/first
  edgenn train photos --out runs/three --classes t-shirt,shirt,outwear --size 96
  edgenn train photos --out runs/again --recipe runs/recipe.toml --seed 1
  edgenn train photos --out runs/best --network mobilenet_v2 --weights imagenet
  edgenn train photos --out runs/best --resume"""
)
@click.argument("photos", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the run; it must not exist yet.",
)
@click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file with settings; the options here win."
)
@click.option(
    "--network",
    metavar="NAME",
    help=f"One of `edgenn networks`, or a file with a network of your own.  [default: {Recipe.network}]",
)
@click.option("--width", type=int, metavar="N", help="Width of the network: channels of its first convolution.")
@click.option("--depth", type=int, metavar="N", help="Depth of the network: number of its blocks.")
@click.option("--dropout", type=shared.Number(), metavar="SHARE", help="Share of features dropped in training.")
@click.option("--weights", metavar="imagenet|PATH|none", help="Trained weights to start from.  [default: none]")
@click.option("--fine-tune-from", metavar="LAYER", help="With --weights: train from this layer or block on; head, all.")
@click.option("--distill", metavar="TEACHER", help="A run or .keras model whose answers are learnt too.")
@click.option("--size", type=int, metavar="PIXELS", help="Side of the square input.  [default: the network's own]")
@click.option(
    "--resize",
    type=click.Choice(["stretch", "crop", "pad"]),
    help=f"How a photo becomes a square.  [default: {Recipe.resize}]",
)
@shared.classes
@click.option(
    "--epochs",
    type=int,
    metavar="N",
    help=f"Most epochs; training stops earlier when validation no longer gains.  {_default('epochs')}",
)
@click.option(
    "--patience", type=int, metavar="N", help=f"Epochs without gain after which to stop.  {_default('patience')}"
)
@click.option("--batch", type=int, metavar="N", help=f"Photos a step.  {_default('batch')}")
@click.option(
    "--learning-rate",
    type=shared.Number(),
    metavar="RATE",
    help=f"Peak of the learning rate.  {_default('learning_rate')}",
)
@click.option(
    "--weight-decay", type=shared.Number(), metavar="RATE", help=f"Weight decay of AdamW.  {_default('weight_decay')}"
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help=f"Of the weights, the order of photos and the augmentation.  [default: {Recipe.seed}]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed"]),
    help=f"auto: mixed where it is faster.  [default: {Recipe.precision}]",
)
@click.option("--resume", is_flag=True, help="Go on with the unfinished run at --out.")
@shared.overwrite
@shared.as_json
def command(
    photos: Path, out: Path, recipe: Path | None, overwrite: bool, resume: bool, as_json: bool, **settings: Any
) -> None:
    """Train a network on PHOTOS.

    PHOTOS holds a folder for each class, or train, validation and test folders with class folders in them. Without a
    validation folder a fifth of each class is kept for validation, chosen by content. A run that was killed or stopped
    by Ctrl-C goes on with --resume. What has no option is set in a --recipe file.
    """
    check_installed("tensorflow")
    from edgenn.training import train
    from edgenn.training.report import read

    if resume and overwrite:
        raise click.UsageError("--resume goes on with a run and --overwrite replaces it: give one of them")
    chosen = None if resume and recipe is None else Recipe.load(recipe) if recipe else Recipe()
    result = train(
        photos,
        out,
        recipe=chosen,
        overwrite=overwrite,
        resume=resume,
        report=True,
        watcher=_Screen(),
        **_changes(chosen, settings),
    )
    told = read(result.path)
    if as_json:
        document = {
            "run": str(result.path),
            "network": result.network,
            "parameters": result.parameters,
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "seconds": round(result.seconds, 1),
            "validation": {"accuracy": result.accuracy, "pictures": result.pictures},
            "report": str(told[0]) if told else None,
            "advice": [{"fact": item.fact, "do": item.do, "command": item.command} for item in told[1]] if told else [],
        }
        click.echo(json.dumps(document))
        return
    click.echo(
        f"validation accuracy {result.accuracy:.3f} on {result.pictures} photos (epoch {result.best_epoch} of "
        f"{result.epochs}, {result.seconds:.0f} s)\n"
        f"written to {result.path}: model.keras, run.json, history.csv, curves.png, confusion.png\n"
        f"next: edgenn convert {result.path}"
    )
    if told:
        click.echo(f"is it any good? {told[0]} says, and what to do next:")
        for number, item in enumerate(told[1][:_MOST_ADVICE], 1):
            click.echo(f"{number}. {item.fact}\n   {item.do} {item.command}".rstrip())


def _changes(recipe: Recipe | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The options of the command line as settings of a recipe."""
    options = {name: settings.pop(name) for name in ("width", "depth", "dropout")}
    chosen = {name: value for name, value in options.items() if value is not None}
    if chosen:
        settings["network_options"] = {**(recipe.network_options if recipe else {}), **chosen}
    return {name: value for name, value in settings.items() if value is not None}


class _Screen(Watcher):
    """Tells on stderr what training does: a line for each epoch, a bar within it where stderr is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def photos(self, dataset: data.Dataset) -> None:
        counts = ", ".join(f"{len(part)} {name}" for name, part in dataset.splits.items())
        self._say(f"photos     {dataset.root}: {counts}; {len(dataset.labels)} classes, split by {dataset.split_rule}")
        if dataset.duplicates:
            first = " = ".join(str(path.relative_to(dataset.root)) for path in dataset.duplicates[0][:2])
            self._say(
                f"warning    {len(dataset.duplicates)} pictures stand in more than one split or class ({first}): "
                "figures will be too good or labels wrong"
            )

    def decoding(self, done: int, total: int) -> None:
        self._advance("decoding", done, total)

    def unreadable(self, problems: tuple[data.Problem, ...]) -> None:
        from edgenn.data import told

        self._finish()
        for line in told(problems):
            self._say(f"left out   {line}")

    def network(self, recipe: Recipe, parameters: int) -> None:
        options = "".join(f" {name} {value}" for name, value in recipe.network_options.items())
        self._say(f"network    {recipe.network}{options}, {recipe.size}×{recipe.size}, {parameters:,} parameters")

    def teaching(self, done: int, total: int) -> None:
        self._advance("teacher", done, total)

    def caching(self, done: int, total: int) -> None:
        self._advance("frozen part", done, total)

    def surveying(self, done: int, total: int) -> None:
        self._advance("report", done, total)
        if done == total:
            self._finish()

    def no_report(self, reason: str) -> None:
        self._say(f"warning    the report could not be written ({reason})")

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        self._advance(f"epoch {epoch:3d}", step, steps, f"loss {loss:.3f} accuracy {accuracy:.3f}")

    def epoch(self, epoch: Epoch) -> None:
        self._finish()
        self._say(
            f"epoch {epoch.epoch:4d}  loss {epoch.loss:.3f}  accuracy {epoch.accuracy:.3f}   "
            f"validation loss {epoch.val_loss:.3f}  accuracy {epoch.val_accuracy:.3f}   {epoch.seconds:.1f} s"
        )

    def _advance(self, what: str, done: int, total: int, detail: str = "") -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None or self._bar.desc.strip(": ") != what.strip():
            self._finish()
            self._bar = require("tqdm").tqdm(total=total, desc=what, leave=False, unit="", dynamic_ncols=True)
        self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._bar.n)

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, line: str) -> None:
        self._finish()
        click.echo(line, err=True)
