"""Frames come home: each once, whole, where its label says, and from devices that lie nothing else does."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.deployment import frame_sender, frames
from edgenn.deployment.connection import Unreachable
from edgenn.deployment.frames import JOURNAL, Brought, bring
from edgenn.deployment.hosts import host
from edgenn_device.errors import EdgennError

HOST = host("pi@porch.local:22")


def jpeg(seed: int, size: int = 16) -> bytes:
    picture = np.random.RandomState(seed).randint(0, 256, (size, size, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", picture)[1])


class Device:
    """A made-up device's folders; answers as the script that is sent to one, through JSON as over SSH."""

    def __init__(self, root: Path, keep: str = 'keep-uncertain = "unsure"') -> None:
        self.root = root
        self.folder = root / "var/lib/edgenn/unsure"
        (root / "opt/edgenn/current").mkdir(parents=True)
        (root / "opt/edgenn/current/run.toml").write_text(f'source = "0"\n{keep}\n')
        self.asked: list[str] = []

    def keep(self, place: str, content: bytes) -> Path:
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.with_suffix(".json").write_text("{}")
        return path

    def ask(self, asked: Any) -> Any:
        self.asked.append(asked["do"])
        return json.loads(json.dumps(frame_sender.main(json.loads(json.dumps(asked)), self.root)))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path / "device")
    device.keep("unlabelled/20261122T153012-250.jpg", jpeg(1))
    device.keep("unlabelled/20261122T153013-250.jpg", jpeg(2))
    device.keep("unlabelled/none of them/20261122T153014-250.jpg", jpeg(3))
    device.keep("t-shirt/20261122T153015-250.jpg", jpeg(4))
    return device


def brought(device: Device, out: Path, **options: Any) -> Brought:
    return bring([HOST], out, asking=lambda one: device.ask, **options)[0]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_frames_come_where_their_labels_say(tmp_path: Path, device: Device) -> None:
    out = tmp_path / "out"
    assert brought(device, out) == Brought(HOST.name, frames=4)
    assert files(out) == {
        "unlabelled/pi-porch.local-22-20261122T153012-250.jpg": jpeg(1),
        "unlabelled/pi-porch.local-22-20261122T153013-250.jpg": jpeg(2),
        "unlabelled/none of them/pi-porch.local-22-20261122T153014-250.jpg": jpeg(3),
        "t-shirt/pi-porch.local-22-20261122T153015-250.jpg": jpeg(4),
    }
    assert len(list(device.folder.rglob("*.jpg"))) == 4  # nothing was removed there


def test_none_comes_twice(tmp_path: Path, device: Device) -> None:
    out = tmp_path / "out"
    brought(device, out)
    # Labelled here by moving it, thrown away here, and another that is new.
    here = sorted((out / "unlabelled").glob("*.jpg"))
    (out / "coat").mkdir()
    here[0].rename(out / "coat" / here[0].name)
    here[1].unlink()
    before = files(out)
    device.keep("unlabelled/20261123T080000-000.jpg", jpeg(5))
    device.asked.clear()
    assert brought(device, out) == Brought(HOST.name, frames=1, known=4)
    assert device.asked == ["list", "send"]
    assert files(out) == {**before, "unlabelled/pi-porch.local-22-20261123T080000-000.jpg": jpeg(5)}


def test_a_frame_that_was_labelled_on_the_device_since_gets_its_label_here(tmp_path: Path, device: Device) -> None:
    out = tmp_path / "out"
    brought(device, out)
    (device.folder / "coat").mkdir()
    name = "20261122T153012-250.jpg"
    (device.folder / "unlabelled" / name).rename(device.folder / "coat" / name)
    assert brought(device, out) == Brought(HOST.name, known=4)
    assert (out / f"coat/pi-porch.local-22-{name}").read_bytes() == jpeg(1)
    assert not (out / f"unlabelled/pi-porch.local-22-{name}").exists()


def test_removed_is_what_is_home_and_nothing_else(tmp_path: Path, device: Device) -> None:
    out = tmp_path / "out"
    device.keep("unlabelled/broken.jpg", b"no picture")
    (device.folder / "notes.txt").write_text("mine")
    assert brought(device, out, remove=True) == Brought(HOST.name, frames=4, refused=1, removed=4)
    left = sorted(str(path.relative_to(device.folder)) for path in device.folder.rglob("*") if path.is_file())
    assert left == ["notes.txt", "unlabelled/broken.jpg", "unlabelled/broken.json"]
    assert len(files(out)) == 4


def test_what_changed_meanwhile_is_not_removed(device: Device) -> None:
    path = device.folder / "unlabelled/20261122T153012-250.jpg"
    sha256 = hashlib.sha256(jpeg(1)).hexdigest()
    path.write_bytes(jpeg(9))
    asked = {"do": "remove", "files": [["unlabelled/20261122T153012-250.jpg", sha256]]}
    assert device.ask(asked) == []
    assert path.exists()


def test_cut_off_and_again(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_BATCH_FILES", 1)
    out = tmp_path / "out"

    def lost(asked: Any) -> Any:
        if device.asked.count("send") == 2:
            raise Unreachable("porch has not answered within 600 s")
        return device.ask(asked)

    first = bring([HOST], out, asking=lambda one: lost)[0]
    assert (first.frames, first.ok, first.reason) == (2, False, "porch has not answered within 600 s")
    assert len(files(out)) == 2
    device.asked.clear()
    assert brought(device, out) == Brought(HOST.name, frames=2, known=2)
    assert len(files(out)) == 4


def test_a_journal_that_lost_its_last_line(tmp_path: Path, device: Device) -> None:
    """Power fails between a picture and its line, or within the line: it is asked for again, and is there once."""
    out = tmp_path / "out"
    brought(device, out)
    journal = (out / JOURNAL).read_text()
    (out / JOURNAL).write_text(journal[:-100])
    before = files(out)
    assert brought(device, out).frames > 0
    assert files(out) == before
    assert brought(device, out) == Brought(HOST.name, known=4)


def test_two_devices_with_frames_of_one_moment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    devices = {name: Device(tmp_path / name) for name in ("porch", "gate")}
    for seed, device in enumerate(devices.values()):
        device.keep("unlabelled/20261122T153012-250.jpg", jpeg(seed))
    said = bring([host(name) for name in devices], out, asking=lambda one: devices[one.name].ask)
    assert [one.frames for one in said] == [1, 1]
    assert len(files(out)) == 2


def test_nothing_is_written_over(tmp_path: Path, device: Device) -> None:
    out = tmp_path / "out"
    (out / "t-shirt").mkdir(parents=True)
    taken = out / "t-shirt/pi-porch.local-22-20261122T153015-250.jpg"
    taken.write_bytes(b"mine")
    brought(device, out)
    assert taken.read_bytes() == b"mine"
    assert taken.with_name("pi-porch.local-22-20261122T153015-250-2.jpg").read_bytes() == jpeg(4)


def test_a_folder_here_that_leads_elsewhere(tmp_path: Path, device: Device) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/t-shirt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EdgennError, match="t-shirt is a link"):
        brought(device, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_device_that_keeps_nothing(tmp_path: Path) -> None:
    said = brought(Device(tmp_path / "device", keep=""), tmp_path / "out")
    assert said.reason.endswith('keeps no frames: deploy it with keep-uncertain = "unsure"')
    # It keeps some, and has none yet.
    assert brought(Device(tmp_path / "other"), tmp_path / "out2").ok


def test_links_on_the_device_are_not_followed(tmp_path: Path, device: Device) -> None:
    """Somebody who has the service must not read what only others may."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(7))
    (device.folder / "unlabelled/link.jpg").symlink_to(secret)
    (device.folder / "linked").symlink_to(tmp_path)
    (device.folder / "unlabelled/folder.jpg").mkdir()
    assert [path for path, _, _ in device.ask({"do": "list"})["files"] if "link.jpg" in path or "linked" in path] == []
    paths = [
        "unlabelled/link.jpg",
        "linked/secret.jpg",
        "../../../../secret.jpg",
        "unlabelled/folder.jpg",
        "/x.jpg",
        "",
    ]
    assert device.ask({"do": "send", "paths": paths}) == [[path, None] for path in paths]


CONTENT = jpeg(1)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GOOD = ["unlabelled/a.jpg", len(CONTENT), SHA256]
# As long as it, and a JPEG too.
OTHER = CONTENT[:-6] + bytes([CONTENT[-6] ^ 1]) + CONTENT[-5:]


@pytest.mark.parametrize(
    "path",
    [
        "../a.jpg",
        "/etc/a.jpg",
        "unlabelled/../../a.jpg",
        "unlabelled/../a.jpg",
        "a.jpg",  # a frame has a folder
        "x/y/z.jpg",
        "./a.jpg",
        ".ssh/a.jpg",
        "unlabelled/.collected",
        "unlabelled/authorized_keys",
        "unlabelled/-rf.jpg",
        "unlabelled/a.jpg\n",
        "unlabelled/a\x00.jpg",
        "un\x1blabelled/a.jpg",
        "unlabelled\\..\\a.jpg",
        "unlabelled/" + "a" * 300 + ".jpg",
        "x" * 300 + "/a.jpg",
        "unlabelled/a.py",
        "unlabelled/а.jpg",  # Cyrillic
        ".collected/a.jpg",
        "/a.jpg",
        "",
    ],
)
def test_a_path_that_no_service_makes_is_refused(tmp_path: Path, path: str) -> None:
    def lies(asked: Any) -> Any:
        if asked["do"] == "list":
            return {"folder": "/x", "files": [[path, len(CONTENT), SHA256]]}
        return [[path, base64.b64encode(CONTENT).decode()]]

    out = tmp_path / "out"
    assert bring([HOST], out, asking=lambda one: lies)[0] == Brought(HOST.name, refused=1)
    assert [*out.rglob("*")] == []


@pytest.mark.parametrize(
    ("listed", "sent", "refused"),
    [
        (GOOD, base64.b64encode(OTHER).decode(), 1),  # other than announced
        (GOOD, "A" * (1 << 20), 1),  # larger than announced
        (GOOD, "é" * (-(-len(CONTENT) // 3) * 4), 1),
        (GOOD, 7, 1),
        (GOOD, None, 0),  # has made way for another meanwhile
        (["unlabelled/a.jpg", frame_sender.LARGEST + 1, SHA256], "", 1),
        (["unlabelled/a.jpg", -1, SHA256], "", 1),
        (["unlabelled/a.jpg", True, SHA256], "", 1),
        (["unlabelled/a.jpg", 10, "../../x"], "", 1),
        (["unlabelled/a.jpg"], "", 1),
        (None, "", 1),
    ],
)
def test_what_was_announced_is_what_is_taken(tmp_path: Path, listed: Any, sent: Any, refused: int) -> None:
    def lies(asked: Any) -> Any:
        if asked["do"] == "list":
            return {"folder": "/x", "files": [listed]}
        # More than was asked for, and not asked for.
        return [["unlabelled/a.jpg", sent], ["unlabelled/b.jpg", base64.b64encode(CONTENT).decode()], None, [1, 2]]

    out = tmp_path / "out"
    assert bring([HOST], out, asking=lambda one: lies)[0] == Brought(HOST.name, refused=refused)
    assert files(out) == {}


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0", b"#!/bin/sh\n", b"\x89PNG\r\n\x1a\n", CONTENT[:-9]])
def test_only_whole_jpegs_are_taken(tmp_path: Path, content: bytes) -> None:
    device = Device(tmp_path / "device")
    device.keep("unlabelled/a.jpg", content)
    assert brought(device, tmp_path / "out").refused == 1
    assert files(tmp_path / "out") == {}


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(GOOD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["folder", "files"]), inner),
    max_leaves=10,
)


@given(_anything, _anything)
def test_whatever_a_device_says_nothing_but_pictures_is_written(
    tmp_path_factory: pytest.TempPathFactory, listed: Any, sent: Any
) -> None:
    out = tmp_path_factory.mktemp("out")
    answers = {"list": listed, "send": sent, "remove": sent}
    said = bring([HOST], out, remove=True, asking=lambda one: lambda asked: answers[asked["do"]])[0]
    assert said.frames == 0
    assert [*out.rglob("*")] == []
    shutil.rmtree(out)
