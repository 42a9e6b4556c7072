"""Records in order from several processes, each as one interpreter gives them, whatever a picture does."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgenn
from edgenn.evaluation import evaluate
from edgenn.tagging.engine import Workers, rules_for, tag
from edgenn.tagging.listing import pictures
from edgenn.tagging.tagger import Rules
from edgenn_device import model_file
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError


def test_every_record_is_what_a_classifier_says_in_the_order_of_the_listing(model, catalogue):
    records = [*tag(model, catalogue, workers=2, minimum_confidence=0)]
    assert [record.path for record in records] == [*pictures([str(catalogue)])]
    classifier = Classifier(model)
    readable = [record for record in records if not record.error]
    assert len(readable) == 120
    for record in readable:
        said = classifier.classify(record.path)
        assert (record.label, record.top[0][0]) == (said.label, said.label)
        assert record.confidence == pytest.approx(said.confidence, abs=1e-6)
        assert len(record.top) == 3
        assert (record.width, record.height, record.bytes) == (32, 32, Path(record.path).stat().st_size)
        assert len(record.sha256) == 64
    reasons = {Path(record.path).name: record.error for record in records if record.error}
    assert {*reasons} == {"empty.jpg", "rubbish.png"}
    assert "empty" in reasons["empty.jpg"]


def test_labels_are_those_of_evaluate_to_the_picture(model, tiny):
    evaluation = evaluate(model, tiny / "photos", split="all")
    records = [*tag(model, map(str, evaluation.paths), minimum_confidence=0)]
    labels = model_file.load(model).labels
    assert [record.label for record in records] == [labels[index] for index in evaluation.predictions.top1]
    right = sum(record.label == labels[index] for record, index in zip(records, evaluation.truth, strict=True))
    assert right / len(records) == evaluation.accuracy


def test_size_is_that_of_the_upright_picture(model, tmp_path):
    # A JPEG of 64x48 whose EXIF says that it is to be turned by 90 degrees.
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    (record,) = tag(model, tmp_path / "turned.jpg", workers=1)
    assert (record.width, record.height) == (48, 64)


def test_below_the_minimum_confidence_a_picture_is_unknown_and_top_still_tells(model, catalogue):
    records = [record for record in tag(model, catalogue / "circle", minimum_confidence=1.0) if not record.error]
    for record in records:
        assert record.label == ("unknown" if record.confidence < 1.0 else record.top[0][0])
    assert any(record.label == "unknown" for record in records)


def test_the_card_s_minimum_confidence_holds_unless_another_is_given(model):
    import dataclasses

    loaded = model_file.load(model)
    loaded = dataclasses.replace(loaded, card=dataclasses.replace(loaded.card, minimum_confidence=0.6))
    assert rules_for(loaded, 3, None, "auto").minimum_confidence == 0.6
    assert rules_for(loaded, 3, 0.0, "auto").minimum_confidence == 0.0


@pytest.mark.parametrize(("top", "least"), [(0, None), (1, 1.5), (1, -0.1)])
def test_rules_out_of_range_are_refused(model, top, least):
    with pytest.raises(EdgennError):
        rules_for(model_file.load(model), top, least, "auto")


def test_it_takes_a_generator_and_gives_records_before_that_ends(model, catalogue):
    path = str(next(catalogue.glob("circle/*.png")))
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield path

    records = edgenn.tagging.tag(model, endless(), workers=2)
    assert [next(records).path for _ in range(100)] == [path] * 100
    records.close()
    assert taken < 1000  # a window, not the whole


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "unreadable link"])
def test_what_is_no_file_is_a_record_and_never_a_wait(model, tmp_path, kind):
    place = tmp_path / "odd.jpg"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "unreadable link":
        place.symlink_to(place)
    with Workers(model_file.load(model), Rules(), 1) as crew:
        (record,) = crew.tag([str(place)])
    assert record.error
    assert record.label == ""


def test_a_process_that_is_killed_loses_nothing(model, catalogue):
    paths = [*pictures([str(catalogue)])] * 3
    with Workers(model_file.load(model), Rules(), 2) as crew:
        records, victims = [], [worker._process.pid for worker in crew._workers]
        for record in crew.tag(paths):
            if len(records) in (5, 150) and victims:
                os.kill(victims.pop(), signal.SIGKILL)
            records.append(record)
    assert not victims
    assert [record.path for record in records] == paths
    assert sum(bool(record.error) for record in records) == 6


def test_a_picture_that_ends_its_process_is_a_record_and_its_neighbours_are_tagged(model, catalogue, monkeypatch):
    # A worker whose decoder ends the process on one picture, as a damaged file may do to native code.
    crash = (
        "import os, edgenn.tagging.tagger as t\n"
        "read = t.picture_bytes\n"
        "t.picture_bytes = lambda path: os.abort() if 'poison' in path else read(path)\n"
        "import edgenn.tagging.worker as w\n"
        "w.main()"
    )
    start = subprocess.Popen
    monkeypatch.setattr(
        "edgenn.tagging.engine.subprocess.Popen",
        lambda command, **options: start([sys.executable, "-c", crash, command[-1]], **options),
    )
    good = [str(path) for path in sorted(catalogue.glob("circle/*.png"))]
    paths = [*good[:10], "/poison.jpg", *good[10:], "/poison.jpg"]
    with Workers(model_file.load(model), Rules(), 2) as crew:
        records = [*crew.tag(paths)]
    assert [record.path for record in records] == paths
    assert [record.path for record in records if record.error] == ["/poison.jpg"] * 2
    assert "SIGABRT" in records[10].error


def test_a_model_that_no_runtime_takes_is_an_error_in_one_line(model):
    with (
        pytest.raises(EdgennError, match="tflite-runtime"),
        Workers(model_file.load(model), Rules(runtime="tflite-runtime"), 2),
    ):
        pass


def test_no_process_outlives_a_parent_that_is_killed(model, catalogue):
    script = (
        "import sys, edgenn.tagging.engine as e, edgenn_device.model_file as m\n"
        "with e.Workers(m.load(sys.argv[1]), e.Rules(), 2) as crew:\n"
        "    print(*[w._process.pid for w in crew._workers], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    children = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()
    import select

    for child in children:
        assert select.select([child], [], [], 30)[0], "a worker is still there"
        os.close(child)


def test_it_works_from_a_thread_and_from_a_script_without_a_main_guard(model, catalogue):
    found = []
    thread = threading.Thread(target=lambda: found.extend(tag(model, catalogue / "square", workers=1)))
    thread.start()
    thread.join()
    assert len(found) == 40
    script = f"import edgenn.tagging; print(len([*edgenn.tagging.tag({str(model)!r}, {str(catalogue / 'square')!r})]))"
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True)
    assert done.stdout.strip() == "40", done.stderr


def test_it_needs_no_extra(model, catalogue):
    script = (
        "import sys\n"
        "for name in 'tensorflow keras pyarrow fsspec watchfiles jinja2 matplotlib tqdm ray'.split():\n"
        "    sys.modules[name] = None\n"
        "from edgenn.cli import tag\n"
        "tag.command.main(sys.argv[1:], standalone_mode=False)\n"
    )
    out = catalogue.parent / "tags.jsonl"
    command = [sys.executable, "-c", script, str(model), str(catalogue), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(out.read_bytes().splitlines()) == 122
