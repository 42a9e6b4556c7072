"""Cards: recognised, written, and read back with the readers that devices have (TOML, YAML, cloud-init's schema)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgenn.cli import image as verb
from edgenn.deployment import image, packages
from edgenn.deployment.image import Card, Settings, Wifi, card, custom_toml, first_boot, network_config, user_data
from edgenn.deployment.packages import Packages, Platform, Wheel
from edgenn.deployment.plan import Wanted
from edgenn_device.errors import EdgennError

MODEL = Path(__file__).parents[2] / "models/garments/garments.tflite"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIJO+dphpZNXYPtUgKT0LlmTsfEoWTbkJxwk+CLVCXfe me@here"
# As pi-gen writes them (stage1/00-boot-files); PARTUUID is put in when the image is made.
BOOKWORM = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet "
    "init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
)
TRIXIE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n"
)
SETTINGS = Settings("porch", (KEY,))
# An SSID that YAML and TOML would like to read as something else.
AWKWARD = Settings("porch", (KEY,), "pi", Wifi('no: "1" #', "ab" * 32, "GB", hidden=True), "Europe/London")


def written(folder: Path, suite: str = "bookworm", *, bits: int = 64, command_line: str | None = None) -> Path:
    """A folder like the boot partition of an image."""
    folder.mkdir(exist_ok=True)
    for name in ("config.txt", "issue.txt", "kernel8.img", *(("kernel7.img",) if bits == 32 else ())):
        (folder / name).write_text("")
    (folder / "cmdline.txt").write_text(command_line or (BOOKWORM if suite == "bookworm" else TRIXIE))
    if suite == "trixie":
        for name in ("meta-data", "user-data", "network-config"):
            (folder / name).write_text("# the image's own\n")
    return folder


@pytest.mark.parametrize(
    ("suite", "bits", "platform"),
    [
        ("bookworm", 64, Platform("aarch64", (3, 11), (2, 36))),
        ("bookworm", 32, Platform("armv7l", (3, 11), (2, 36))),
        ("trixie", 64, Platform("aarch64", (3, 13), (2, 41))),
    ],
)
def test_a_card_is_recognised(tmp_path: Path, suite: str, bits: int, platform: Platform) -> None:
    boot = written(tmp_path / "bootfs", suite, bits=bits)
    assert card(boot) == Card(boot, suite, platform)


def test_what_is_no_fresh_card(tmp_path: Path) -> None:
    with pytest.raises(EdgennError, match="No such file"):
        card(tmp_path / "none")
    with pytest.raises(EdgennError, match="is no boot partition"):
        card(tmp_path)
    # Bookworm's first boot has removed itself from there; custom.toml would never be read.
    started = written(tmp_path / "started", command_line=BOOKWORM.replace(" init=/usr/lib", " was=/usr/lib"))
    with pytest.raises(EdgennError, match="has been started before"):
        card(started)


def test_the_key_of_a_wifi_network() -> None:
    # IEEE 802.11-2020, annex J.4.2, test case 1
    assert image.wifi_key("IEEE", "password") == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert image.wifi_key("IEEE", "AB" * 32) == "ab" * 32
    for wrong in ("short", "x" * 64, "pass\nword"):
        with pytest.raises(EdgennError):
            image.wifi_key("IEEE", wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Porch"},
        {"name": "po rch"},
        {"name": "-porch"},
        {"name": "porch.local"},
        {"name": ""},
        {"user": "root"},
        {"user": "pi:x"},
        {"keys": ()},
        {"timezone": "Europe/London; reboot"},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(EdgennError):
        Settings(**{"name": "porch", "keys": (KEY,), **wrong})


@pytest.mark.parametrize("wrong", [{"ssid": ""}, {"ssid": "x" * 33}, {"country": "gb"}, {"country": ""}])
def test_wifi_that_cannot_be(wrong: dict[str, str]) -> None:
    with pytest.raises(EdgennError):
        Wifi(**{"ssid": "home", "key": "", "country": "GB", **wrong})


def test_public_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{KEY}\n\necdsa-sha2-nistp256 AAAA= you\n")
    assert image.public_keys(file) == (KEY, "ecdsa-sha2-nistp256 AAAA= you")
    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(EdgennError, match=r"is a private key.*give .*keys\.pub"):
        image.public_keys(file)
    file.write_text("PuTTY-User-Key-File-3\n")
    with pytest.raises(EdgennError, match="is no public SSH key"):
        image.public_keys(file)


def test_custom_toml_is_what_init_config_reads() -> None:
    """Its keys: raspberrypi-sys-mods, init_config; an unknown one is only warned of, on a screen that nobody sees."""
    said = tomllib.loads(custom_toml(AWKWARD))
    assert said == {
        "config_version": 1,
        "system": {"hostname": "porch"},
        "user": {"name": "pi"},
        "ssh": {"enabled": True, "password_authentication": False, "authorized_keys": [KEY]},
        "wlan": {
            "ssid": 'no: "1" #',
            "password": "ab" * 32,
            "password_encrypted": True,
            "hidden": True,
            "country": "GB",
        },
        "locale": {"timezone": "Europe/London"},
    }
    assert "wlan" not in tomllib.loads(custom_toml(SETTINGS))


def test_cloud_init_files_are_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    said = yaml.safe_load(user_data(AWKWARD))
    assert said["hostname"] == "porch"
    assert said["users"][0]["ssh_authorized_keys"] == [KEY]
    assert said["users"][0]["lock_passwd"] is True
    assert said["ssh_pwauth"] is False
    assert AWKWARD.wifi is not None
    assert yaml.safe_load(network_config(AWKWARD.wifi)) == {
        "network": {
            "version": 2,
            "wifis": {
                "wlan0": {
                    "dhcp4": True,
                    "regulatory-domain": "GB",
                    "access-points": {'no: "1" #': {"password": "ab" * 32, "hidden": True}},
                    "optional": True,
                }
            },
        }
    }


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="cloud-init is not installed (apt-get install it)")
@pytest.mark.parametrize("settings", [SETTINGS, AWKWARD])
def test_user_data_passes_cloud_inits_own_check(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "user-data"
    file.write_text(user_data(settings))
    done = subprocess.run(["cloud-init", "schema", "--config-file", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout + done.stderr
    file.write_text(user_data(settings).replace('"hostname": "porch"', '"hostname": 7'))
    assert subprocess.run(["cloud-init", "schema", "--config-file", file], capture_output=True).returncode != 0


def test_the_kernels_command_line(tmp_path: Path) -> None:
    boot = written(tmp_path / "b")
    files = first_boot(card(boot), SETTINGS, "20261122-153012-3f2a9c1b")
    # What makes the first boot read the rest is written last.
    assert [*files] == ["custom.toml", "cmdline.txt"]
    assert files["cmdline.txt"] == (
        BOOKWORM.strip() + " systemd.run=/boot/firmware/edgenn/first-boot.sh systemd.run_success_action=reboot "
        "systemd.unit=kernel-command-line.target\n"
    )
    (boot / "cmdline.txt").write_text(files["cmdline.txt"])
    assert first_boot(card(boot), SETTINGS, "20261122-153012-3f2a9c1b") == files  # a second time adds nothing

    # A card that Imager has given settings: the instance in the kernel's command line would hold against meta-data.
    boot = written(tmp_path / "t", "trixie", command_line=TRIXIE.strip() + " ds=nocloud;i=rpi-imager-17 regdom=GB\n")
    files = first_boot(card(boot), AWKWARD, "20261122-153012-3f2a9c1b")
    assert [*files] == ["user-data", "network-config", "meta-data", "cmdline.txt"]
    assert files["meta-data"] == "instance-id: edgenn-20261122-153012-3f2a9c1b\n"
    assert files["cmdline.txt"] == (TRIXIE.strip() + " regdom=GB ds=nocloud;i=edgenn-20261122-153012-3f2a9c1b\n")
    # Without Wi-Fi it is what the image's own says (pi-gen, stage2/04-cloud-init/files): Ethernet by DHCP.
    assert json.loads(first_boot(card(boot), SETTINGS, "x")["network-config"]) == {
        "network": {"version": 2, "ethernets": {"eth0": {"dhcp4": True, "optional": True}}}
    }


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of those that would be fetched: one small file."""
    wheel = tmp_path / "edgenn-0.1.0-py3-none-any.whl"
    shutil.make_archive(str(wheel.with_suffix("")), "zip", MODEL.parent)
    wheel.with_suffix(".zip").rename(wheel)

    def made(platform: Platform, **options: Any) -> Packages:
        return Packages(platform, (Wheel(wheel, "ab" * 32),), ())

    monkeypatch.setattr(packages, "packages", made)
    return wheel


def test_a_card_is_written(tmp_path: Path, wheels: Path) -> None:
    boot = written(tmp_path / "bootfs", "trixie")
    (tmp_path / "key.pub").write_text(KEY)
    (tmp_path / "password").write_text("password\n")
    arguments = [str(MODEL), "--boot", str(boot), "--name", "porch", "--ssh-key", str(tmp_path / "key.pub")]
    arguments += ["--wifi", "IEEE", "--country", "gb", "--wifi-password-file", str(tmp_path / "password"), "--json"]
    done = CliRunner().invoke(verb.command, arguments, catch_exceptions=False)
    said = json.loads(done.stdout)
    assert said["suite"] == "trixie"
    # Raspberry Pi OS Lite has no picamera2.
    assert said["system_packages"] == ["python3-picamera2"]
    incoming = boot / "edgenn/incoming"
    assert (incoming / "model.tflite").read_bytes() == MODEL.read_bytes()
    assert (incoming / "wheels" / wheels.name).read_bytes() == wheels.read_bytes()
    options = tomllib.loads((incoming / "run.toml").read_text())
    assert options == {"model": "/opt/edgenn/current/model.tflite", "name": "porch", "source": "picamera"}
    assert (boot / "edgenn/release").read_text().strip() == said["release"]
    assert (boot / "edgenn/packages").read_text() == "python3-picamera2\n"
    # The password itself is nowhere on the card; its key is.
    everything = {path: path.read_bytes() for path in boot.rglob("*") if path.is_file() and path.suffix != ".whl"}
    assert not [path for path, content in everything.items() if b'"password"' in content.replace(b'"password":', b"")]
    assert b"f42c6fc52df0ebef" in everything[boot / "network-config"]
    assert not [path for path in everything if path.name.endswith(".new")]
    # Again, over what is there, and without the network: neither it nor its key stays.
    at = arguments.index("--wifi")
    del arguments[at : at + 6]
    assert CliRunner().invoke(verb.command, arguments, catch_exceptions=False).exit_code == 0
    everything = {path: path.read_bytes() for path in boot.rglob("*") if path.is_file() and path.suffix != ".whl"}
    assert not [path for path, content in everything.items() if b"IEEE" in content or b"f42c6fc52df0ebef" in content]


def test_a_card_without_room_is_left_as_it_was(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = written(tmp_path / "bootfs")
    there = card(boot)
    made = image.release(there, SETTINGS, Wanted(MODEL, source="synthetic"), packages.packages(there.platform))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 50 << 20))
    with pytest.raises(EdgennError, match="50 MB free"):
        image.write(there, SETTINGS, made)
    assert not (boot / "edgenn").exists()
    assert (boot / "cmdline.txt").read_text() == BOOKWORM


def test_options_of_wifi_belong_together(tmp_path: Path) -> None:
    run = CliRunner().invoke
    begin = [str(MODEL), "--boot", str(tmp_path), "--name", "porch"]
    assert "belong to --wifi" in run(verb.command, [*begin, "--country", "GB"]).output
    assert "needs --country" in run(verb.command, [*begin, "--wifi", "home"]).output
