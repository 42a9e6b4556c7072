"""Destinations as people type them, and inventories: what is merged, and each thing that is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.deployment.hosts import Host, chosen, host, inventory
from edgenn_device.errors import EdgennError

EXAMPLE = Path(__file__).parents[2] / "docs/pis.toml"


@pytest.mark.parametrize(
    ("text", "user", "hostname", "port"),
    [
        ("porch", None, "porch", None),  # an alias of ssh_config
        ("pi@porch.local", "pi", "porch.local", None),
        ("pi@porch.local:2222", "pi", "porch.local", 2222),
        ("ssh://pi@porch.local:2222/", "pi", "porch.local", 2222),
        ("pi@192.168.1.7:22", "pi", "192.168.1.7", 22),
        ("fe80::1%wlan0", None, "fe80::1%wlan0", None),  # every colon belongs to the address
        ("pi@[fe80::1%wlan0]:22", "pi", "fe80::1%wlan0", 22),
        ("[::1]", None, "::1", None),
        (r"FARM\pi@porch", r"FARM\pi", "porch", None),  # of a directory
        ("pi@farm.example@porch", "pi@farm.example", "porch", None),  # the last @ is the one
    ],
)
def test_a_destination(text: str, user: str | None, hostname: str, port: int | None) -> None:
    assert host(text) == Host(text, hostname, user, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@porch",
        "pi@",
        "-oProxyCommand=id",  # ssh would run it
        "pi@-oProxyCommand=id",
        "-l@porch",
        "-v",
        "pi@-v:22",
        "porch:",
        "porch:ssh",
        "porch:0",
        "porch:65536",
        "[::1",
        "[::1]22",
        "[::1]:",
        "porch; reboot",  # a ProxyCommand with %h goes through a shell
        "$(id)",
        "po\nrch",
        "pi@porch/",
    ],
)
def test_no_destination(text: str) -> None:
    with pytest.raises(EdgennError):
        host(text)


@given(st.text(max_size=30))
def test_whatever_is_typed_ssh_never_takes_it_for_an_option(text: str) -> None:
    try:
        found = host(text)
    except EdgennError:
        return
    assert not found.destination.startswith("-")
    assert not found.hostname.startswith("-")
    assert not set(found.destination) & set(" \t\n;|&`'\"<>(){}*?!~#")


def write(folder: Path, text: str) -> Path:
    path = folder / "pis.toml"
    path.write_text(text)
    return path


def test_the_example_of_the_docs_is_an_inventory() -> None:
    found = inventory(EXAMPLE)
    assert len(found) > 2
    assert all(one.options["source"] for one in found)
    assert {group for one in found for group in one.groups}


def test_host_holds_against_groups_and_these_against_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [defaults]
        user = "pi"
        source = "picamera"
        keep-uncertain = "unsure"
        [groups.outdoor]
        source = "0"
        rotate = 90
        [groups.coral]
        delegate = "usb"
        rotate = 180
        port = 2222
        [hosts.porch]
        address = "root@porch.local:22"
        groups = ["outdoor", "coral"]
        keep_uncertain = "frames"
        identity = "keys/porch"
        [hosts.shed]
        groups = ["outdoor"]
        name = "the shed"
        [hosts]
        gate = "gate.local"
        """,
    )
    porch, shed, gate = inventory(path)
    # What stands in the address is the host's own; the last group wins; a relative path is the inventory's.
    assert (porch.user, porch.hostname, porch.port) == ("root", "porch.local", 22)
    assert porch.identity == str(tmp_path / "keys/porch")
    assert porch.groups == ("outdoor", "coral")
    assert porch.options == {
        "source": "0",
        "keep-uncertain": "frames",
        "rotate": 180,
        "delegate": "usb",
        "name": "porch",
    }
    # Without an address the name is one.
    assert (shed.name, shed.destination, shed.port, shed.options["name"]) == ("shed", "pi@shed", None, "the shed")
    assert (gate.destination, gate.options["source"], gate.groups) == ("pi@gate.local", "picamera", ())


def test_labels_are_a_file_of_this_machine(tmp_path: Path) -> None:
    path = write(tmp_path, '[hosts.porch]\nlabels = "garments.txt"')
    with pytest.raises(EdgennError, match=r"labels .*garments\.txt is no file"):
        inventory(path)
    (tmp_path / "garments.txt").write_text("coat\n")
    assert inventory(path)[0].options["labels"] == str(tmp_path / "garments.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[hosts.porch", "is not TOML"),
        ("", "names no device"),
        ("[host.porch]", "unknown key 'host', is it 'hosts'?"),
        ('[hosts.porch]\nsorce = "0"', r"\[hosts.porch\]: unknown key 'sorce', is it 'source'?"),
        ("[hosts.porch]\nrotate = 45", r"\[hosts.porch\].*45"),  # what the device would refuse is refused here
        ('[hosts.porch]\nmodel = "m.tflite"', "unknown key 'model'"),  # the model is the command's
        ("[hosts.porch]\nlimit = 5", "unknown key 'limit'"),  # a service does not end
        ('[hosts.porch]\ngroups = ["outdor"]\n[groups.outdoor]', "no group 'outdor', is it 'outdoor'?"),
        ('[hosts.porch]\ngroups = "outdoor"', "groups is a list"),
        ('[hosts.porch]\naddress = "-oProxyCommand=id"', r"\[hosts.porch\]: address"),
        ("[hosts.porch]\naddress = 7", "address is a text"),
        ('[hosts.porch]\nport = "22"', "port is a whole number"),
        ("[hosts.porch]\nport = true", "port is a whole number"),
        ("[hosts.porch]\nport = 0", "port 0 is not possible"),
        ('[hosts.porch]\nuser = "-oX"', "user '-oX' is not possible"),
        ('[hosts."../porch"]', "a name is letters"),  # it becomes a file name
        ("[hosts]\nporch = 7", "is no table"),
        ('[defaults]\naddress = "porch"', r"\[defaults\] has address"),
        ('[groups.a]\ngroups = ["b"]\n[hosts.porch]', r"\[groups.a\] has groups"),
        ("[groups.porch]\n[hosts.porch]", "porch is a group too"),
        ('hosts = ["porch"]', "is no table"),
        ('[hosts]\nporch = "pi@a"\nshed = "pi@a"', "porch and shed are one device, pi@a"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(EdgennError, match=said):
        inventory(write(tmp_path, text))


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgennError, match="cannot be read"):
        inventory(tmp_path / "none.toml")


def test_which_devices_a_command_means(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[groups.outdoor]\n[groups.empty]\n[hosts.a]\ngroups=["outdoor"]\n[hosts.b]\n[hosts.c]\ngroups=["outdoor"]',
    )

    def names(*wanted: str) -> list[str]:
        return [one.name for one in chosen(wanted, path)]

    assert names() == ["a", "b", "c"]
    assert names("outdoor") == ["a", "c"]
    assert names("b", "outdoor", "a") == ["b", "a", "c"]  # each once
    assert [one.name for one in inventory(path, "outdoor")] == ["a", "c"]
    with pytest.raises(EdgennError, match="no device or group 'outdor', is it 'outdoor'"):
        chosen(["outdor"], path)
    with pytest.raises(EdgennError, match="no group 'indoor'"):
        inventory(path, "indoor")
    assert [one.hostname for one in chosen(["pi@a", "pi@b:22", "pi@a"])] == ["a", "b"]
    with pytest.raises(EdgennError, match="no device: name one"):
        chosen([])
