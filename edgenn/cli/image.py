"""`edgenn image`: a card that comes up as a working device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgenn_device.errors import EdgennError

from . import options as shared

if TYPE_CHECKING:
    from edgenn.deployment.image import Wifi

_OWN_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")


@click.command(
    "image",
    epilog="Example: edgenn image garments.tflite --boot /media/$USER/bootfs --name porch --wifi home --country GB",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--boot", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The card's bootfs.")
@click.option("--name", required=True, metavar="NAME", help="What the device is called: NAME.local on the network.")
@click.option("--source", metavar="SOURCE", help="What the device looks at, as for `edgenn run`.  [default: picamera]")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Options of `edgenn run` for the device (docs/run.toml).",
)
@click.option(
    "--ssh-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Public keys that may log in.  [default: ~/.ssh/id_ed25519.pub or another]",
)
@click.option("--user", default="pi", show_default=True, metavar="NAME", help="The first user; has no password.")
@click.option("--wifi", metavar="SSID", help="Join this network; its password is asked for.")
@click.option("--wifi-password-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the password there.")
@click.option("--country", metavar="XX", help="Where the device is, for Wi-Fi: GB, DE, US ….")
@click.option("--hidden", is_flag=True, help="The Wi-Fi network does not tell its name.")
@click.option("--timezone", metavar="ZONE", help="Such as Europe/London.")
@shared.as_json
def command(
    model: Path,
    boot: Path,
    name: str,
    source: str | None,
    config: Path | None,
    ssh_key: Path | None,
    user: str,
    wifi: str | None,
    wifi_password_file: Path | None,
    country: str | None,
    hidden: bool,
    timezone: str | None,
    as_json: bool,
) -> None:
    """Prepare a card that Raspberry Pi Imager has just written (without settings of its own).

    Put it into the board, wait some minutes, and MODEL classifies: no screen, no login. With the Lite system and a Pi
    camera the board needs the internet once, for picamera2; otherwise everything is on the card.
    """
    if wifi is None and (wifi_password_file or country or hidden):
        raise click.UsageError("--wifi-password-file, --country and --hidden belong to --wifi SSID")
    if wifi is not None and country is None:
        raise click.UsageError("--wifi needs --country XX: without it the radio stays off")
    from edgenn.deployment import image
    from edgenn.deployment.packages import packages
    from edgenn.deployment.plan import Wanted
    from edgenn_device.model_file import load

    card = image.card(boot)
    settings = image.Settings(
        name=name,
        keys=image.public_keys(ssh_key or _own_key()),
        user=user,
        wifi=_wifi(wifi, wifi_password_file, country or "", hidden) if wifi is not None else None,
        timezone=timezone,
    )
    load(model)
    wanted = Wanted(model, None if config is None else _options(config), source)
    if not as_json:
        click.echo(f"{card.suite.capitalize()} for {card.platform}: fetching what is not at hand", err=True)
    made = image.release(card, settings, wanted, packages(card.platform))
    size = image.write(card, settings, made)
    if as_json:
        said = {"boot": str(boot), "suite": card.suite, "platform": str(card.platform), "release": made.id}
        click.echo(json.dumps({**said, "bytes": size, "name": name, "system_packages": list(made.system_packages)}))
        return
    click.echo(f"{size / 1e6:.0f} MB written, release {made.id}: unmount {boot}, and start the board with the card.")
    if made.system_packages:
        click.echo(f"It fetches {', '.join(made.system_packages)} at its first start, unless its system has them.")
    host = f"{name}.local"
    click.echo(f"Some minutes later: ssh-keyscan {host} >> ~/.ssh/known_hosts && edgenn status {user}@{host}")


def _own_key() -> Path:
    folder = Path.home() / ".ssh"
    for name in _OWN_KEYS:
        if (folder / name).is_file():
            return folder / name
    raise EdgennError(f"there is no SSH key in {folder}: ssh-keygen -t ed25519, or give --ssh-key FILE.pub")


def _wifi(ssid: str, password_file: Path | None, country: str, hidden: bool) -> Wifi:
    from edgenn.deployment.image import Wifi, wifi_key

    if password_file is not None:
        try:
            password = password_file.read_text().rstrip("\r\n")
        except (OSError, ValueError):
            raise EdgennError(f"{password_file} cannot be read: the first line is the password of {ssid}") from None
    else:
        asked = f"Password of {ssid} (empty for an open network)"
        password = click.prompt(asked, hide_input=True, default="", show_default=False, err=True)
    return Wifi(ssid, wifi_key(ssid, password) if password else "", country.upper(), hidden)


def _options(path: Path) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgennError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise EdgennError(f"{path} is not TOML: {error}") from None
