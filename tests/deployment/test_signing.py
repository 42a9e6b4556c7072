"""Keys and signatures made here; where `minisign` is installed (apt), each side reads the other's."""

from __future__ import annotations

import base64
import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenn.cli.sign import command
from edgenn.deployment.signing import new_key, sign
from edgenn_device.errors import EdgennError
from edgenn_device.signature import read_keys, verify

minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed (apt-get install it)")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3 something of a model")
    return path


def no_password(prompt: str) -> str:
    raise AssertionError(f"a password was asked for: {prompt}")


def test_what_is_signed_here_is_accepted(tmp_path: Path, model: Path) -> None:
    key = new_key(tmp_path / "k")
    signature = sign(model, tmp_path / "k", password=no_password)
    assert signature == tmp_path / "model.tflite.sig"
    assert "file:model.tflite" in verify(model, signature, tmp_path / "k.pub")
    assert read_keys(tmp_path / "k.pub") == [key]


def test_what_is_no_model_is_not_signed(tmp_path: Path) -> None:
    new_key(tmp_path / "k")
    (tmp_path / "model.keras").write_bytes(b"PK\3\4 a zip")
    with pytest.raises(EdgennError, match=r"model\.keras is not a \.tflite"):
        sign(tmp_path / "model.keras", tmp_path / "k")
    assert not (tmp_path / "model.keras.sig").exists()


def test_a_secret_key_is_its_owners_and_never_written_over(tmp_path: Path, model: Path) -> None:
    new_key(tmp_path / "k")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(EdgennError, match="never written over"):
        new_key(tmp_path / "k")
    (tmp_path / "k").unlink()
    with pytest.raises(EdgennError, match=r"k\.pub exists"):
        new_key(tmp_path / "k")
    (tmp_path / "k").write_bytes(before)
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(EdgennError, match="others can read the key"):
        sign(model, tmp_path / "k")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no key"),
        (b"", "is no signing key"),
        (b"\xff\xfe\n\xff", "is no signing key"),
        (b"untrusted comment: x\nRWQf", "is no signing key"),
        (b"untrusted comment: x\n" + base64.b64encode(bytes(158)), "is no signing key"),
        # scrypt's limits are the file's word: 16 EiB are not tried.
        (
            b"untrusted comment: x\n" + base64.b64encode(b"EdScB2" + bytes(32) + b"\xff" * 16 + bytes(104)),
            "asks for .* MiB",
        ),
    ],
)
def test_what_is_no_key(tmp_path: Path, model: Path, content: bytes | None, said: str) -> None:
    key = tmp_path / "k"
    if content is not None:
        key.write_bytes(content)
        key.chmod(0o600)
    with pytest.raises(EdgennError, match=said):
        sign(model, key, password=lambda prompt: "x")


@pytest.mark.parametrize("full", ["k", "k.pub"])
def test_a_disk_that_fills_up_leaves_no_half_of_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    synced: list[int] = []

    def fsync(handle: int) -> None:
        synced.append(handle)
        if len(synced) == ["k", "k.pub"].index(full) + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(EdgennError, match=r"[Nn]o (space|room) left"):
            new_key(tmp_path / "k")
    assert list(tmp_path.iterdir()) == []
    new_key(tmp_path / "k")


def test_none_is_signed_when_one_is_not_there(tmp_path: Path, model: Path) -> None:
    new_key(tmp_path / "k")
    done = CliRunner().invoke(command, ["--key", str(tmp_path / "k"), str(model), str(tmp_path / "missing.tflite")])
    assert done.exit_code == 2
    assert "missing.tflite" in done.stderr
    assert not Path(f"{model}.sig").exists()


def test_the_verb_tells_what_to_type_on_the_device(tmp_path: Path, model: Path) -> None:
    run = CliRunner().invoke
    made = run(command, ["--new-key", str(tmp_path / "k")], catch_exceptions=False)
    line = (tmp_path / "k.pub").read_text().splitlines()[1]
    assert f"    sudo mkdir -p /etc/edgenn && echo {line} | sudo tee -a /etc/edgenn/accept.pub" in made.output
    assert run(command, ["--key", str(tmp_path / "k"), str(model)], catch_exceptions=False).exit_code == 0
    verify(model, f"{model}.sig", tmp_path / "k.pub")
    assert run(command, []).exit_code == 2
    assert run(command, ["--new-key", "a", "--key", "b"]).exit_code == 2
    assert run(command, ["--key", "b"]).exit_code == 2


@minisign
def test_minisign_verifies_ours(tmp_path: Path, model: Path) -> None:
    new_key(tmp_path / "k")
    signature = sign(model, tmp_path / "k")
    verifying = ["minisign", "-V", "-m", model, "-x", signature, "-p", tmp_path / "k.pub"]
    assert subprocess.run(verifying, capture_output=True).returncode == 0
    model.write_bytes(b"another")
    assert subprocess.run(verifying, capture_output=True).returncode != 0


@minisign
def test_minisign_signs_with_our_key(tmp_path: Path, model: Path) -> None:
    new_key(tmp_path / "k")
    signing = ["minisign", "-S", "-m", model, "-x", tmp_path / "s", "-s", tmp_path / "k"]
    subprocess.run(signing, check=True, capture_output=True)
    verify(model, tmp_path / "s", tmp_path / "k.pub")


@minisign
@pytest.mark.parametrize("hashed", ["-H", "-l"])
def test_we_verify_both_kinds_of_minisigns_signatures(tmp_path: Path, model: Path, hashed: str) -> None:
    making = ["minisign", "-G", "-W", "-p", tmp_path / "p", "-s", tmp_path / "s"]
    subprocess.run(making, check=True, capture_output=True)
    signing = ["minisign", "-S", hashed, "-m", model, "-s", tmp_path / "s", "-t", "by hand", "-x", tmp_path / "sig"]
    subprocess.run(signing, check=True, capture_output=True)
    assert verify(model, tmp_path / "sig", tmp_path / "p") == "by hand"


@minisign
@pytest.mark.slow  # three times scrypt with 1 GiB
def test_a_key_of_minisign_with_a_password(tmp_path: Path, model: Path) -> None:
    # minisign reads passwords from a terminal alone; setsid leaves it without one and it takes stdin.
    making = ["setsid", "minisign", "-G", "-p", tmp_path / "p", "-s", tmp_path / "s"]
    subprocess.run(making, input=b"open\nopen\n", check=True, capture_output=True)
    verify(model, sign(model, tmp_path / "s", password=lambda prompt: "open"), tmp_path / "p")
    with pytest.raises(EdgennError, match="wrong password"):
        sign(model, tmp_path / "s", password=lambda prompt: "closed")
