"""`edgenn convert`: a run's model, or somebody else's, becomes a checked .tflite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgenn.conversion.targets import TARGETS
from edgenn.extras import check_installed

from . import options as shared

if TYPE_CHECKING:
    from edgenn.conversion.runtimes import Ran


@click.command(
    epilog="""\b
Examples:
  edgenn convert runs/first
  edgenn convert runs/first --quantization qat --epochs 3
  edgenn convert runs/first --quantization auto --max-drop 0.5
  edgenn convert runs/first --target coral --out first-coral.tflite
  edgenn convert runs/first --quantization float32
  edgenn convert theirs.h5 --photos photos --out mine.tflite"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--quantization",
    type=click.Choice(["int8", "equalized", "qat", "mixed", "auto", "float16", "dynamic", "float32"]),
    default="int8",
    show_default=True,
    help="int8: post-training; equalized: the same, channels evened out first; qat: quantization-aware training; "
    "mixed: int8 with as few layers in float as pass (for pi); auto: the first of these that passes; float16 and "
    "dynamic: weights only.",
)
@click.option("--target", type=click.Choice(TARGETS), default="pi", show_default=True, help="What it will run on.")
@click.option(
    "--io",
    type=click.Choice(["uint8", "int8"]),
    default="uint8",
    show_default=True,
    help="Element type at both ends; uint8 takes camera bytes as they are.",
)
@click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "mse"]),
    default="minmax",
    show_default=True,
    help="How the ends of activations are chosen.",
)
@click.option("--keep-float", multiple=True, metavar="LAYER", help="A layer not to quantize; repeatable.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    default=3,
    show_default=True,
    help="Of quantization-aware training.",
)
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the photos are now, if they were moved; a model without a run needs them.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For a model without a run: its labels, one a line.  [default: the class folders of --photos, sorted]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The .tflite to write.  [default: RUN/model.tflite]"
)
@click.option(
    "--max-drop",
    type=shared.NumberRange(min=0),
    metavar="POINTS",
    default=1,
    show_default=True,
    help="Of validation accuracy that int8 may cost.",
)
@shared.overwrite
@shared.as_json
def command(run: Path, as_json: bool, **options: object) -> None:
    """Quantize the model of RUN and check it against the float model.

    RUN is what `edgenn train` wrote; or a .keras, an .h5 or the folder of a SavedModel, with --photos.

    Exit status 1 if it fails the check; the file is then kept as *.rejected.tflite.
    """
    check_installed("tensorflow")
    from edgenn.conversion.converter import check_passed, convert

    result = convert(run, progress=lambda line: click.echo(line, err=True), **options)  # type: ignore[arg-type]
    if as_json:
        document = {
            "model": str(result.model),
            "quantization": result.quantization,
            "target": result.target,
            "bytes": result.bytes,
            "float": {"accuracy": result.float_accuracy},
            "int8": {"accuracy": result.int8_accuracy, "runtime": result.runtime},
            "agreement": result.agreement,
            "p_value": result.p_value,
            "scheme": result.scheme,
            "float_layers": list(result.float_layers),
            "calibration": {"pictures": result.calibration_pictures, "reach": result.reach},
            "pictures": result.pictures,
            "passed": result.passed,
            "reasons": list(result.reasons),
            "notes": list(result.notes),
            "runtimes": [
                {"name": ran.runtime, "ok": ran.ok, "detail": ran.detail, "remedy": ran.remedy}
                for ran in result.runtimes
            ],
            "edge_tpu": result.edge_tpu
            and {**result.edge_tpu.to_dict(), "compiled": str(result.compiled or "") or None},
            "seconds": round(result.seconds, 1),
        }
        click.echo(json.dumps(document))
    else:
        kilobytes, before = result.bytes / 1000, result.float_bytes / 1000
        click.echo(
            f"float      {result.float_accuracy:.3f} on {result.pictures} validation photos, {before:,.0f} kB\n"
            f"{result.quantization:10s} {result.int8_accuracy:.3f} with {result.runtime}, {kilobytes:,.0f} kB\n"
            f"agreement  {result.agreement:.3f} of photos get the same label from both"
        )
        if result.p_value < 1:
            certain = "a real difference" if result.p_value < 0.05 else "may be chance"
            click.echo(f"           McNemar p = {result.p_value:.2g} that both are equally accurate: {certain}")
        if result.reach is not None:
            click.echo(
                f"ranges     from {result.calibration_pictures} training photos, which reach {result.reach:.0%} or "
                "more of every activation's range on validation"
            )
        for line in _ran(result.runtimes):
            click.echo(line)
        for index, line in enumerate(result.edge_tpu.lines() if result.edge_tpu else ()):
            click.echo(f"{'' if index else 'Edge TPU':10s} {line}")
        for note in result.notes:
            click.echo(f"note       {note}")
        if result.passed:
            both = f"{result.model} and {result.compiled}" if result.compiled else result.model
            click.echo(f"written to {both}, checked for {result.target}\nnext: edgenn run {result.model} --source 0")
    check_passed(result)


def _ran(runtimes: tuple[Ran, ...]) -> Iterator[str]:
    """Which runtimes ran the file, and why another did not."""
    names = ", ".join(ran.runtime for ran in runtimes if ran.ok)
    if names:
        yield f"ran in     {names}"
    for ran in runtimes:
        if not ran.ok:
            yield f"           {ran.runtime}: {ran.detail}"
        if ran.remedy:
            yield f"           to run it there too: {ran.remedy}"
