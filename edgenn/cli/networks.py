"""`edgenn networks`: which networks there are, and what each costs on a device."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from . import options as shared

if TYPE_CHECKING:
    from edgenn.networks import Network

_CLASSES = 10


@dataclass(frozen=True)
class _Row:
    network: Network
    options: dict[str, Any]
    size: int
    parameters: int
    macs: int
    int8_bytes: int
    edgetpu: bool
    reason: str


@click.command(
    epilog="""\b
Examples:
  edgenn networks
  edgenn networks --size 96 --classes 3 --json"""
)
@click.option(
    "--size",
    type=click.IntRange(8, 1024),
    metavar="PIXELS",
    help="Side of the pictures in pixels, instead of each one's own.",
)
@click.option(
    "--classes", type=click.IntRange(2, 100_000), metavar="N", help=f"Classes to tell apart.  [default: {_CLASSES}]"
)
@shared.as_json
def command(size: int | None, classes: int | None, as_json: bool) -> None:
    """The networks that `edgenn train --network` takes, with what they cost.

    MACs are multiplications with an addition, for one picture; kB is the int8 model. With --size or --classes the
    networks are built and counted, which takes some seconds.
    """
    rows = list(_known() if size is None and classes is None else _counted(size, classes or _CLASSES))
    if as_json:
        click.echo(json.dumps({"classes": classes or _CLASSES, "networks": [_document(row) for row in rows]}))
    else:
        _tell(rows, classes or _CLASSES)


def _known() -> Iterator[_Row]:
    """From the figures that stand in the registry: nothing is built. The Edge TPU takes all of edgenn's networks."""
    from edgenn import networks

    for name in networks.names():
        network = networks.network(name)
        for it in network.figures:
            options = {**network.options, **it.options}
            yield _Row(network, options, it.size, it.parameters, it.macs, it.int8_bytes, True, "")


def _counted(size: int | None, classes: int) -> Iterator[_Row]:
    from edgenn import networks
    from edgenn.networks import figures

    for row in _known():
        side = size or row.size
        least = row.network.smallest(**row.options)
        if side < least:
            click.echo(f"left out: {row.network.name} needs pictures of {least} pixels or more", err=True)
            continue
        model = networks.build(row.network.name, (side, side, 3), classes, **row.options)
        able, reason = figures.edgetpu(model)
        cost = model.count_params(), figures.macs(model), figures.int8_size(model)
        yield _Row(row.network, row.options, side, *cost, able, reason)


def _document(row: _Row) -> dict[str, Any]:
    network = row.network
    return {
        "name": network.name,
        "options": row.options,
        "size": row.size,
        "sizes": list(network.sizes),
        "smallest": network.smallest(**row.options),
        "parameters": row.parameters,
        "macs": row.macs,
        "int8_bytes": row.int8_bytes,
        "edgetpu": {"ok": row.edgetpu, "reason": row.reason},
        "imagenet": network.imagenet is not None,
        "cuts": list(network.cuts(**row.options)),
        "cut": network.cut(**row.options),
        "source": network.source,
    }


def _tell(rows: list[_Row], classes: int) -> None:
    head = f"{'network':<19} {'options':<18} {'size':>4} {'parameters':>10} {'MACs':>8} {'int8 kB':>8}  Edge TPU"
    click.echo(click.style(head, bold=True))
    for row in rows:
        # What distinguishes rows is the width and depth of a network; dropout costs a device nothing.
        options = " ".join(f"{name}={value}" for name, value in row.options.items() if name != "dropout")
        click.echo(
            f"{row.network.name:<19} {options:<18} {row.size:>4} {row.parameters:>10,} {_millions(row.macs):>8} "
            f"{row.int8_bytes / 1000:>8,.0f}  {'yes' if row.edgetpu else f'no: {row.reason}'}"
        )
    click.echo(f"\nFor {classes} classes, colour pictures and other options: --size, --classes.\n")
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    for network in dict.fromkeys(row.network.name for row in rows):
        found = next(row.network for row in rows if row.network.name == network)
        weights = "; ImageNet weights with --weights imagenet" if found.imagenet else ""
        text = f"{found.source}; sizes {', '.join(map(str, found.sizes))}{weights}"
        for index, line in enumerate(textwrap.wrap(text, max(40, width - 20))):
            click.echo(f"{network if not index else '':<19} {line}")


def _millions(macs: int) -> str:
    return f"{macs / 1e6:.1f} M" if macs < 1e8 else f"{macs / 1e6:.0f} M"
