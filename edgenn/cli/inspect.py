"""`edgenn inspect`: what is in a model, which targets can run it, and why not."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options as shared

if TYPE_CHECKING:
    from edgenn.conversion.targets import Verdict
    from edgenn_device.card import InputSpec
    from edgenn_device.graph import Tensor
    from edgenn_device.model_file import ModelFile

_FEW = 5
_GOLDEN = {
    True: "this machine computes what the workstation did, on {}",
    False: "this machine computes something else than the workstation did, on {}: do not use it here",
    None: "not compared: {}",
}


@click.command(
    epilog="""\b
Examples:
  edgenn inspect runs/first/model.tflite
  edgenn inspect mobilenet.tflite --labels imagenet_labels.txt --json"""
)
@click.argument("model", type=click.Path(path_type=Path))
@shared.labels
@shared.as_json
def command(model: Path, labels: str | None, as_json: bool) -> None:
    """What is in MODEL, a .tflite, and which targets can run it.

    The file is verified. If its card has golden vectors, it is also run on them, to see whether this machine computes
    what the workstation computed.
    """
    from edgenn.conversion import targets
    from edgenn_device import model_file

    found = model_file.load(model, labels)
    verdicts = {target: targets.check(found, target) for target in targets.TARGETS}
    golden = _golden(found)
    if as_json:
        click.echo(json.dumps(_document(found, verdicts, golden)))
    else:
        _tell(found, verdicts, golden)


def _golden(model: ModelFile) -> dict[str, Any]:
    """Whether this machine computes the card's golden outputs (None: there is nothing to compare), and with what."""
    if model.card is None or not model.card.golden:
        return {"ok": None, "runtime": None}
    from edgenn_device import golden
    from edgenn_device.errors import EdgennError
    from edgenn_device.interpreter import Interpreter

    try:
        interpreter = Interpreter(model)
    except EdgennError as error:
        return {"ok": None, "runtime": None, "reason": str(error)}
    return {"ok": golden.check(model, interpreter), "runtime": interpreter.description}


def _document(model: ModelFile, verdicts: dict[str, Verdict], golden: dict[str, Any]) -> dict[str, Any]:
    graph = model.graph
    return {
        "model": str(model.path),
        "name": model.card.name if model.card else model.path.stem,
        "bytes": model.path.stat().st_size,
        "inputs": [_tensor(graph.tensors[index]) for index in graph.inputs],
        "outputs": [_tensor(graph.tensors[index]) for index in graph.outputs],
        "input": asdict(model.input),
        "operators": [
            {"name": name, "version": version, "count": count} for (name, version), count in _operators(model).items()
        ],
        "float_tensors": [tensor.name for tensor in _floats(model)],
        "parameter_bytes": _parameter_bytes(model),
        "labels": list(model.labels),
        "targets": {target: {"ok": it.ok, "reasons": list(it.reasons)} for target, it in verdicts.items()},
        "card": model.card.to_dict() if model.card else None,
        "assumed": list(model.assumed),
        "golden": golden,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scales[0] if tensor.scales else None,
        "zero_point": tensor.zero_points[0] if tensor.zero_points else None,
    }


def _operators(model: ModelFile) -> Counter[tuple[str, int]]:
    """How many of each name and version, in the graph's order."""
    return Counter((operator.name, operator.version) for operator in model.graph.operators)


def _floats(model: ModelFile) -> list[Tensor]:
    """Tensors of a float type that are computed: an all-int8 model has none."""
    return [tensor for tensor in model.graph.tensors if "float" in tensor.dtype and not tensor.constant]


def _parameter_bytes(model: ModelFile) -> int:
    return sum(tensor.bytes for tensor in model.graph.tensors if tensor.constant)


def _tell(model: ModelFile, verdicts: dict[str, Verdict], golden: dict[str, Any]) -> None:
    graph, card = model.graph, model.card
    size = model.path.stat().st_size
    rows: list[tuple[str, str]] = [
        (
            "model",
            f"{card.name if card else model.path.stem}, {_size(size)}, {_size(_parameter_bytes(model))} of it weights",
        ),
        ("input", _describe(graph.tensors[graph.inputs[0]])),
        ("", _feeding(model.input)),
        ("output", _describe(graph.tensors[graph.outputs[0]])),
        ("labels", _few(model.labels) if model.labels else f"unknown ({model.classes} classes): give --labels FILE"),
    ]
    floats = _floats(model)
    rows.append(
        (
            "float",
            f"{len(floats)} tensors: {_few([tensor.name.split(';')[0] for tensor in floats])}"
            if floats
            else "no tensor",
        )
    )
    if card:
        rows.extend(_card(model))
        rows.append(("golden", _GOLDEN[golden["ok"]].format(golden.get("runtime") or golden.get("reason"))))
    rows.extend(("assumed" if not index else "", sentence) for index, sentence in enumerate(model.assumed))
    for name, text in rows:
        _echo(name, text)

    click.echo(f"\n{'operator':<28} version  count")
    for (name, version), count in _operators(model).items():
        click.echo(f"{_line(name):<28} {version:>7}  {count:>5}")

    click.echo()
    for target, verdict in verdicts.items():
        answer = click.style("yes", fg="green") if verdict.ok else click.style("no", fg="red")
        click.echo(f"{click.style(f'{target:<9}', bold=True)} {answer}")
        for reason in verdict.reasons:
            _echo("", reason)


def _echo(name: str, text: str) -> None:
    """A row: its name, and a text that may take several lines."""
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    lines = textwrap.wrap(_line(text), max(30, width - 10), break_on_hyphens=False, break_long_words=False) or [""]
    click.echo(f"{click.style(f'{name:<9}', bold=True)} {lines[0]}")
    for line in lines[1:]:
        click.echo(f"{'':<9} {line}")


def _describe(tensor: Tensor) -> str:
    text = f"{tensor.dtype} {'x'.join(map(str, tensor.shape))}"
    if tensor.scales:
        text += f", scale {tensor.scales[0]:.6g}, zero point {tensor.zero_points[0]}"
    return f"{text}  ({tensor.name})"


def _feeding(spec: InputSpec) -> str:
    values = {
        "uint8": "bytes as they are",
        "int8": "byte - 128",
        "float32": f"(byte - {spec.mean:g}) / {spec.std:g}",
    }[spec.dtype]
    how = {"stretch": "stretched", "crop": "cropped and resized", "pad": "padded and resized"}[spec.resize]
    return f"pictures {how} to {spec.height}x{spec.width}, {spec.colour}, {values}"


def _card(model: ModelFile) -> list[tuple[str, str]]:
    card = model.card
    assert card is not None
    rows = []
    network = card.training.get("network")
    if network:
        rows.append(("network", str(network)))
    if card.quantization.get("scheme"):
        pictures = card.quantization.get("calibration_pictures")
        rows.append(("weights", f"{card.quantization['scheme']}" + (f", calibrated on {pictures}" if pictures else "")))
    rows.extend(
        (
            "accuracy" if index == 0 else "",
            f"{kind} {_share(figures['accuracy'])} on {figures.get('runtime', 'an unnamed runtime')}",
        )
        for index, (kind, figures) in enumerate(
            (kind, figures)
            for kind, figures in card.metrics.items()
            if isinstance(figures, dict) and "accuracy" in figures
        )
    )
    if "agreement" in card.metrics:
        rows.append(
            (
                "",
                f"same label as the float model on {_share(card.metrics['agreement'])} of "
                f"{card.metrics.get('pictures', '?')} {card.metrics.get('split', '')} pictures",
            )
        )
    if card.minimum_confidence is not None:
        rows.append(("unknown", f"below a score of {card.minimum_confidence:.2g}"))
    if card.target:
        rows.append(("made for", card.target))
    return rows


def _share(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else str(value)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.0f} kB"


def _few(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


def _line(text: str) -> str:
    """Printable: labels and names are whatever somebody wrote, and a terminal obeys control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
