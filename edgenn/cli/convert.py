"""`edgenn convert`: a run's model becomes a checked .tflite."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgenn.extras import require


@click.command(
    epilog="""\b
Examples:
  edgenn convert runs/first
  edgenn convert runs/first --target coral --out first-coral.tflite
  edgenn convert runs/first --quantization float32"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--quantization", type=click.Choice(["int8", "float32"]), default="int8", show_default=True)
@click.option(
    "--target", type=click.Choice(["pi", "coral"]), default="pi", show_default=True, help="What it will run on."
)
@click.option(
    "--io",
    type=click.Choice(["uint8", "int8"]),
    default="uint8",
    show_default=True,
    help="Element type at both ends; uint8 takes camera bytes as they are.",
)
@click.option("--photos", type=click.Path(path_type=Path), help="Where the photos are now, if they were moved.")
@click.option("--out", type=click.Path(path_type=Path), help="The .tflite to write.  [default: RUN/model.tflite]")
@click.option(
    "--max-drop", type=float, default=1.0, show_default=True, help="Points of validation accuracy that int8 may cost."
)
@click.option("--overwrite", is_flag=True, help="Replace a file at --out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(run: Path, as_json: bool, **options: object) -> None:
    """Quantize the model of RUN and check it against the float model.

    Exit status 1 if it fails the check; the file is then kept as *.rejected.tflite.
    """
    require("tensorflow")
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
            "pictures": result.pictures,
            "passed": result.passed,
            "reasons": list(result.reasons),
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
        if result.passed:
            click.echo(
                f"written to {result.model}, checked for {result.target}\nnext: edgenn run {result.model} --source 0"
            )
    check_passed(result)
