"""`edgenn sign`: keys and signatures for devices that accept signed models alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options as shared

# Looked at here, all of them, so that none is signed when one is not there.
_MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    "sign",
    epilog="Example: edgenn sign --new-key ~/.edgenn/garments.key && edgenn deploy --sign ~/.edgenn/garments.key …",
)
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=_MODEL)
@click.option("--new-key", type=click.Path(path_type=Path), metavar="KEY", help="Make KEY, which signs, and KEY.pub.")
@click.option("--key", type=click.Path(path_type=Path), metavar="KEY", help="Sign MODEL with KEY: MODEL.sig.")
@shared.as_json
def command(models: tuple[Path, ...], new_key: Path | None, key: Path | None, as_json: bool) -> None:
    """Make a pair of keys, or sign models with one.

    A device whose /etc/edgenn/accept.pub holds the line of KEY.pub refuses every model that KEY has not signed. Keys
    and signatures are those of minisign, which makes keys with a password (`minisign -G`) and verifies by hand.
    """
    if (new_key is None) == (key is None):
        raise click.UsageError("give either --new-key KEY or --key KEY")
    if new_key is not None and models:
        raise click.UsageError("--new-key makes a key and signs nothing: sign with --key afterwards")
    if key is not None and not models:
        raise click.UsageError("give a MODEL to sign")
    from edgenn.deployment import signing

    if new_key is not None:
        made = signing.new_key(new_key)
        if as_json:
            click.echo(json.dumps({"key": str(new_key), "public": f"{new_key}.pub", "line": made.line()}))
            return
        click.echo(f"{new_key} signs: keep it to yourself. A device accepts its models once it has been told:\n")
        click.echo(f"    sudo mkdir -p /etc/edgenn && echo {made.line()} | sudo tee -a /etc/edgenn/accept.pub")
        return
    assert key is not None
    signed = [signing.sign(model, key) for model in models]
    click.echo(json.dumps({"signatures": [str(path) for path in signed]}) if as_json else "\n".join(map(str, signed)))
