"""What a release has to prove before it is switched to, with a real model, key and runtime."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgenn.deployment.signing import new_key, sign
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import load
from edgenn_device.release_proof import prove
from tools.model_variants import lying

GARMENTS = Path(__file__).parents[2] / "models" / "garments" / "garments.tflite"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(GARMENTS, folder / "model.tflite")
    # It names the model by way of `current`, which is still the release before.
    (folder / "run.toml").write_text('model = "/opt/edgenn/current/model.tflite"\nsource = "synthetic"\n')
    return folder


def test_a_model_that_computes_what_its_card_says(release: Path, tmp_path: Path) -> None:
    said = prove(release, tmp_path / "accept.pub")
    assert said["golden"] is True
    assert said["sha256"] == hashlib.sha256(load(GARMENTS).content).hexdigest()
    assert said["runtime"].startswith("ai-edge-litert")


def test_a_model_that_computes_something_else_is_refused(release: Path, tmp_path: Path) -> None:
    lying(GARMENTS, release / "model.tflite")
    with pytest.raises(EdgennError, match="golden vectors do not match"):
        prove(release, tmp_path / "accept.pub")


def test_only_what_an_accepted_key_signed_is_tried(release: Path, tmp_path: Path) -> None:
    for name in ("accept", "stranger"):
        new_key(tmp_path / name)
    with pytest.raises(EdgennError, match="is not signed, and this device accepts signed models alone"):
        prove(release, tmp_path / "accept.pub")
    sign(release / "model.tflite", tmp_path / "stranger")
    with pytest.raises(EdgennError, match="which this device does not accept"):
        prove(release, tmp_path / "accept.pub")
    (release / "model.tflite.sig").unlink()
    sign(release / "model.tflite", tmp_path / "accept")
    assert prove(release, tmp_path / "accept.pub")["golden"] is True
    with (release / "model.tflite").open("ab") as model:
        model.write(b"\0")
    with pytest.raises(EdgennError, match="is not what key"):
        prove(release, tmp_path / "accept.pub")


def test_the_answer_is_one_document(release: Path) -> None:
    (release / "model.tflite").write_bytes(b"nothing of the kind")
    done = subprocess.run(
        [sys.executable, "-m", "edgenn_device.release_proof", str(release)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert list(json.loads(done.stdout)) == ["refused"]
