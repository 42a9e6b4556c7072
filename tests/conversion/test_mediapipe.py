"""The file that `convert` writes, in the hands of MediaPipe Tasks and tflite-support; and their files in ours.

Both run in an environment of their own (.venv-mediapipe): MediaPipe brings another OpenCV, tflite-support an old
protobuf. What crosses is files and JSON.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgenn
from edgenn_device import metadata, model_file
from edgenn_device.classifier import Classifier
from edgenn_device.interpreter import Interpreter
from tests.conftest import CLASSES, draw

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-mediapipe" / "bin" / "python"
CORAL = ROOT.parent / "shared" / "models" / "coral"
GARMENTS = ROOT / "models" / "garments" / "garments.tflite"
pytestmark = pytest.mark.skipif(
    not (PYTHON.parents[1] / ".installed").exists(), reason="NO MEDIAPIPE HERE: make test makes .venv-mediapipe"
)

_CLASSIFY = """
import json, sys
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision
model, folder, out = sys.argv[1:]
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model))
try:
    classifier = vision.ImageClassifier.create_from_options(options)
except Exception as error:
    json.dump({"error": str(error)}, open(out, "w"))
    sys.exit()
import pathlib
answers = {}
for path in sorted(pathlib.Path(folder).iterdir()):
    found = classifier.classify(mediapipe.Image.create_from_file(str(path))).classifications[0].categories
    answers[path.name] = {category.category_name: category.score for category in found}
classifier.close()
json.dump(answers, open(out, "w"))
"""

_READ = """
import json, sys
from tflite_support import metadata
shown = metadata.MetadataDisplayer.with_model_file(sys.argv[1])
files = shown.get_packed_associated_file_list()
labels = shown.get_associated_file_buffer("labels.txt").decode()
print(json.dumps({"metadata": json.loads(shown.get_metadata_json()), "files": files, "labels": labels}))
"""

_WRITE = """
import sys
from tflite_support.metadata_writers import image_classifier, writer_utils
model, labels, mean, std, out = sys.argv[1:]
content = writer_utils.load_file(model)
create = image_classifier.MetadataWriter.create_for_inference
writer_utils.save_file(create(content, [float(mean)], [float(std)], [labels]).populate(), out)
"""


def ask(code: str, *arguments: object) -> str:
    """What the other environment prints."""
    done = subprocess.run([PYTHON, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def mediapipe_says(model: Path, photos: Path, tmp_path: Path) -> dict:
    ask(_CLASSIFY, model, photos, tmp_path / "answers.json")
    return json.loads((tmp_path / "answers.json").read_text())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 drawn shapes, PNG, of the model's size; and garments' drawings of theirs."""
    from edgenn_device.garments import LABELS
    from edgenn_device.garments import draw as garment

    folder = tmp_path_factory.mktemp("mediapipe")
    (folder / "shapes").mkdir()
    (folder / "garments").mkdir()
    for index in range(24):
        cv2.imwrite(str(folder / "shapes" / f"{index:02}.png"), draw(CLASSES[index % 3], 6000 + index))
        picture = garment(LABELS[index % len(LABELS)], index)
        cv2.imwrite(str(folder / "garments" / f"{index:02}.png"), picture)
    return folder


@pytest.mark.parametrize("which", ["uint8", "float32", "garments"])
def test_mediapipe_gives_the_same_labels(which, tiny, photos, tmp_path):
    model = {"uint8": tiny / "run" / "model.tflite", "garments": GARMENTS}.get(which)
    if model is None:
        model = edgenn.convert(tiny / "run", quantization="float32", out=tmp_path / "float.tflite", max_drop=100).model
    folder = photos / ("garments" if which == "garments" else "shapes")
    theirs = mediapipe_says(model, folder, tmp_path)
    classifier = Classifier(model)
    assert len(theirs) >= 24
    same, sure = 0, set()
    for path in sorted(folder.iterdir()):
        ours = dict(zip(classifier.labels, classifier.classify(path).scores.tolist(), strict=True))
        assert set(theirs[path.name]) == set(ours)
        best, second = sorted(ours, key=ours.get, reverse=True)[:2]
        same += max(theirs[path.name], key=theirs[path.name].get) == best
        if which != "garments":  # these are larger than the model's input, and the two shrink them differently
            assert ours == pytest.approx(theirs[path.name], abs=0.02)
        if ours[best] - ours[second] > 0.04:
            sure.add(best)
    assert same >= len(theirs) - 2, "but for near ties"
    assert len(sure) > 1, "else any classifier would pass"


def test_mediapipe_refuses_int8_at_the_ends_as_our_docs_say(tiny, photos, tmp_path):
    signed = edgenn.convert(tiny / "run", io="int8", out=tmp_path / "signed.tflite", max_drop=100).model
    said = mediapipe_says(signed, photos / "shapes", tmp_path)
    assert "uint8" in said["error"]


def test_tflite_support_reads_our_metadata(tiny):
    path = tiny / "run" / "model.tflite"
    read, model = json.loads(ask(_READ, path)), model_file.load(path)
    assert read["files"] == ["labels.txt", "edgenn.json"]
    assert tuple(read["labels"].splitlines()) == model.labels
    (graph,) = read["metadata"]["subgraph_metadata"]
    (picture,), (scores,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    properties = picture["content"]["content_properties"]
    assert properties["color_space"] == "RGB"
    assert properties["default_size"] == {"width": model.input.width, "height": model.input.height}
    options = picture["process_units"][0]["options"]
    # The run's normalisation: byte / 128 - 1.
    assert (options["mean"], options["std"]) == ([128.0], [pytest.approx(128.0, rel=1e-4)])
    assert scores["associated_files"][0]["type"] == "TENSOR_AXIS_LABELS"
    ours = metadata.parse(model.graph.metadata[metadata.ENTRY])
    assert (ours.name, ours.label_file) == (read["metadata"]["name"], "labels.txt")


def foreign(model: Path, labels: str, mean: float, std: float, tmp_path: Path) -> Path:
    """The model with metadata by tflite-support's writer."""
    (tmp_path / "labels.txt").write_text(labels)
    ask(_WRITE, model, tmp_path / "labels.txt", mean, std, tmp_path / "foreign.tflite")
    return tmp_path / "foreign.tflite"


@pytest.mark.parametrize(
    ("name", "mean", "std", "first"),
    [
        ("tiny_int8", 127.5, 127.5, (200, "uint8")),  # bytes go in as they are, whatever the metadata's mean
        ("tiny_float", 127.5, 127.5, ((200 - 127.5) / 127.5, "float32")),  # −1 to 1
        ("tiny_float", 0.0, 255.0, (200 / 255, "float32")),  # 0 to 1
        ("tiny_float", 0.0, 1.0, (200.0, "float32")),  # bytes as floats
        ("signed", 0.0, 1.0, (200 - 128, "int8")),  # what no MediaPipe takes
    ],
)
def test_a_foreign_model_with_metadata_is_read_right(name, mean, std, first, tiny, tmp_path):
    model = ROOT / "tests" / "data_files" / f"{name}.tflite"
    if name == "signed":
        model = edgenn.convert(tiny / "run", io="int8", out=tmp_path / "signed.tflite", max_drop=100).model
        content = model_file.load(model).content
        bare = tmp_path / "bare.tflite"
        bare.write_bytes(content[content.find(b"TFL3", 8) - 4 :])  # without the metadata that was put in front
        model = bare
    read = model_file.load(foreign(model, "eins\nzwei\ndrei\n", mean, std, tmp_path))
    assert read.card is None
    assert read.labels == ("eins", "zwei", "drei")
    classifier = Classifier(read)
    picture = np.full((32, 32, 3), 200, np.uint8)
    tensor = classifier.preprocess(picture)
    assert (tensor.flat[0], tensor.dtype) == (pytest.approx(first[0]), first[1])
    raw = Interpreter(read).invoke_raw(tensor).astype(np.float32)
    output = read.graph.tensors[read.graph.outputs[0]]
    if output.scales:
        raw = (raw - output.zero_points[0]) * np.float32(output.scales[0])
    np.testing.assert_allclose(classifier.scores(tensor), raw, rtol=1e-6)
    assert classifier.scores(tensor).sum() == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not CORAL.exists(), reason="Coral's test models are not here")
def test_a_model_of_1001_classes_and_background_is_read_as_mediapipe_reads_it(tmp_path):
    lines = (CORAL / "imagenet_labels.txt").read_text().splitlines()
    names = "\n".join(line.split(maxsplit=1)[1] for line in lines)
    model = foreign(CORAL / "mobilenet_v2_1.0_224_quant.tflite", names, 128.0, 128.0, tmp_path)
    classifier = Classifier(model)
    assert len(classifier.labels) == 1001
    assert classifier.labels[0] == "background"
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("cat.bmp", "grace_hopper.bmp", "parrot.jpg", "sunflower.bmp"):
        cv2.imwrite(str(folder / f"{Path(name).stem}.png"), cv2.imread(str(CORAL / name)))
    theirs = mediapipe_says(model, folder, tmp_path)
    for path in sorted(folder.iterdir()):
        ours = classifier.classify(path)
        best = max(theirs[path.name], key=theirs[path.name].get)
        assert ours.confidence == pytest.approx(theirs[path.name][ours.label], abs=0.1)
        assert ours.label == best or ours.confidence - dict(ours.top)[ours.top[1][0]] < 0.1
