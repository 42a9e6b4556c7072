"""`edgenn debug`: why int8 loses, layer by layer and picture by picture."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn.extras import check_installed, require
from edgenn_device.errors import EdgennError

from . import options as shared

if TYPE_CHECKING:
    from edgenn.conversion.debug import Diagnosis

PAGE, FIGURES = "report.html", "debug.json"
_MOST_LAYERS, _MOST_CLASSES, _MOST_FLIPS, _MOST_WEIGHTS = 20, 5, 5, 5


@click.command(
    epilog="""\b
Examples:
  edgenn debug runs/first
  edgenn debug runs/first/model.rejected.tflite --out why
  edgenn debug elsewhere.tflite --run runs/first --json"""
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--photos", type=click.Path(path_type=Path), metavar="DIR", help="Where the photos are now, if they were moved."
)
@click.option(
    "--run", type=click.Path(path_type=Path), metavar="DIR", help="The run, if MODEL does not lie in its folder."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help=f"Folder to write {PAGE} and {FIGURES} to.")
@shared.overwrite
@shared.as_json
def command(
    model: Path, photos: Path | None, run: Path | None, out: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Say why the int8 model MODEL loses accuracy, and what to do.

    MODEL is a .tflite that `edgenn convert` made, also a *.rejected.tflite, or the folder of a run. It is compared with
    the run's float model on the validation photos: which layer adds most noise, which classes and photos pay for it.
    """
    check_installed("tensorflow")
    _writable(out, overwrite)
    from edgenn.conversion.debug import diagnose

    with _bars() as progress:
        found = diagnose(model, run=run, photos=photos, progress=progress)
    document = json.dumps(found.to_dict())
    if out:
        from edgenn.conversion.debug.page import page
        from edgenn_device.files import write_atomically

        write_atomically(out / PAGE, page(found))
        write_atomically(out / FIGURES, document)
    if as_json:
        click.echo(document)
    else:
        _tell(found)
    if out:
        click.echo(f"written to {click.format_filename(out / PAGE)}", err=as_json)
    elif not as_json:
        click.echo("next: --out DIR writes a page with all layers, ranges and pictures")


def _writable(out: Path | None, overwrite: bool) -> None:
    """Refuse a folder that could not be written, before the work is done and not after."""
    if out is None:
        return
    for module in ("jinja2", "matplotlib"):
        require(module)
    if out.exists() and not out.is_dir():
        raise EdgennError(f"--out {out} is a file: give a folder")
    for name in (PAGE, FIGURES):
        if (out / name).exists() and not overwrite:
            raise EdgennError(f"{out / name} exists: give --overwrite, or another folder with --out")


def _tell(found: Diagnosis) -> None:
    click.echo(
        f"float      {found.float_accuracy:.3f} on {found.pictures} validation photos\n"
        f"int8       {found.int8_accuracy:.3f} with {found.runtime}"
    )
    if found.p_value < 1:
        click.echo(f"           McNemar p = {found.p_value:.2g} that both are equally accurate")
    click.echo(f"agreement  {found.agreement:.3f} of photos get the same label from both")
    _tell_layers(found)
    lost = [entry for entry in found.classes if entry.int8_right < entry.float_right]
    if lost:
        click.echo("\nclasses that lost                  photos  float   int8")
        for entry in lost[:_MOST_CLASSES]:
            before, after = entry.float_right / entry.pictures, entry.int8_right / entry.pictures
            click.echo(f"  {_line(entry.label):32} {entry.pictures:6}  {before:5.3f}  {after:5.3f}")
    if found.flips:
        click.echo("\nphotos that flipped")
        for flip in found.flips[:_MOST_FLIPS]:
            click.echo(
                f"  is {_line(flip.true)}: float {_line(flip.float_label)} {flip.float_score:.3f}, "
                f"int8 {_line(flip.int8_label)} {flip.int8_score:.3f}  "
                f"{_line(click.format_filename(flip.path))}"
            )
        if len(found.flips) > _MOST_FLIPS:
            click.echo(f"  and {len(found.flips) - _MOST_FLIPS} more")
    _tell_size(found)
    click.echo()
    for sentence in found.verdict.why:
        click.echo(sentence)
    if found.verdict.mend:
        click.echo(f"What to do, cheapest first (options of edgenn convert {click.format_filename(found.run)}):")
    for number, sentence in enumerate(found.verdict.mend, 1):
        click.echo(f"  {number}. {sentence}")
    for note in found.notes:
        click.echo(f"note: {note}")


def _tell_layers(found: Diagnosis) -> None:
    if not found.layers:
        return
    width = max(5, *(len(layer.name) for layer in found.layers[:_MOST_LAYERS]))
    click.echo(
        f"\nsignal to rounding noise in dB, {found.layer_pictures} photos; the layer that costs most first\n"
        f"{'layer':{width}}  share  alone  weights  activation  together  outlier  channels"
    )
    for layer in found.layers[:_MOST_LAYERS]:
        share = "–" if layer.share is None else f"{layer.share:.0%}"
        values = layer.activation
        click.echo(
            f"{_line(layer.name):{width}}  {share:>5}  {_ratio(layer.ratio):>5}  {_ratio(layer.ratio_weights):>7}  "
            f"{_ratio(layer.ratio_activation):>10}  {_ratio(layer.accumulated):>8}  "
            f"{_times(values.outlier) if values else '–':>7}  {_times(values.channels) if values else '–':>8}"
        )
    if len(found.layers) > _MOST_LAYERS:
        click.echo(f"and {len(found.layers) - _MOST_LAYERS} more that cost less (--json lists all)")


def _tell_size(found: Diagnosis) -> None:
    from edgenn.conversion.debug.page import kilobytes

    size = found.size
    largest = sorted(size.operators, key=lambda entry: -entry.weights)[:_MOST_WEIGHTS]
    named = ", ".join(f"{_line(entry.name)} {entry.weights / max(1, size.weights):.0%}" for entry in largest)
    inside = f"; LiteRT's own {kilobytes(size.measured)}" if size.measured is not None else ""
    click.echo(
        f"\nfile       {kilobytes(size.file)}: weights {kilobytes(size.weights)}, around them "
        f"{kilobytes(size.structure)}, labels and card {kilobytes(size.attached)}\n"
        f"           most weights in {named}\n"
        f"arena      {kilobytes(size.arena)}, fullest at {_line(size.busiest)}{inside}"
    )


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None or math.isinf(ratio) else f"{ratio:.1f}"


def _times(factor: float) -> str:
    return f"{factor:.3g}×"


def _line(text: str) -> str:
    """Printable: a label is whatever somebody called a folder, and a terminal obeys control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar for each step on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    shown: dict[str, Any] = {}

    def progress(step: str, done: int, total: int) -> None:
        if step not in shown:
            shown[step] = click.progressbar(length=total, label=f"{step:30}", file=sys.stderr)
            shown[step].__enter__()
        shown[step].update(done - shown[step].pos)
        if done == total:
            shown[step].__exit__(None, None, None)

    yield progress
