"""The switch from a delegate to its CPU twin and back: a real runtime, and a real delegate told to fail or hang."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_in_library import build

from edgenn_device import golden, standby
from edgenn_device.cameras import open_source
from edgenn_device.card import Card
from edgenn_device.classifier import Classifier
from edgenn_device.delegate_process import DelegateFailed, DelegateProcess
from edgenn_device.errors import EdgennError
from edgenn_device.health import Health
from edgenn_device.model_file import ModelFile, attach, load
from edgenn_device.pipeline import Pipeline
from edgenn_device.standby import Standby, twin_of

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"
SOON = 30.0  # for waits that end at once unless the code is broken


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("delegate") / "stand_in.so", "-DNO_EDGE_TPU")


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """tell(word): what the delegate is to do from now on."""
    word = tmp_path / "word"
    monkeypatch.setenv("STAND_IN", str(word))

    def told(text: str) -> None:
        word.with_suffix(".new").write_text(text)
        word.with_suffix(".new").rename(word)

    told("")
    return told


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of a service, short."""
    for name, seconds in (("_FIRST", 0.05), ("_LONGEST", 0.2), ("_LOOK", 0.02), ("_HUNG", 0.3), ("_HUNG_TIMES", 1.0)):
        monkeypatch.setattr(standby, name, seconds)


@pytest.fixture
def opened(library: Path, tell: Callable[[str], None]) -> Iterator[Callable[..., Standby]]:
    made: list[Standby] = []

    def opens(model: str | Path = GARMENTS, **options: object) -> Standby:
        made.append(Standby(model, **{"delegate": str(library), **options}))  # type: ignore[arg-type]
        return made[-1]

    yield opens
    for one in made:
        one.close()


def on_delegate(classifier: Standby) -> bool:
    return isinstance(classifier.interpreter, DelegateProcess)


def test_the_delegate_answers_as_the_cpu_does(opened: Callable[..., Standby]) -> None:
    health = Health("porch")
    classifier, bare = opened(health=health), Classifier(GARMENTS)
    assert on_delegate(classifier)
    assert "stand_in.so" in classifier.interpreter.description
    assert classifier.interpreter.input == bare.interpreter.input
    assert classifier.labels == bare.labels
    picture = np.full((90, 70, 3), 99, np.uint8)
    assert classifier.classify(picture).top == bare.classify(picture).top
    until(lambda: health.snapshot()["delegate"] == "stand_in.so")
    assert health.snapshot()["reasons"] == []
    assert classifier.verify() is True


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("fail", "failed: the stand-in was told to fail"),
        ("hang", "has hung: no answer within"),
        ("crash", "its process crashed (SIGABRT)"),
    ],
)
def test_the_twin_answers_the_same_frame_and_the_delegate_is_taken_back(
    opened: Callable[..., Standby], tell: Callable[[str], None], word: str, reason: str
) -> None:
    health = Health("porch")
    classifier = opened(health=health)
    tensor = golden.inputs(classifier.model.input)[0]
    expected = Classifier(GARMENTS).scores(tensor)
    np.testing.assert_array_equal(classifier.scores(tensor), expected)
    tell(word)
    np.testing.assert_array_equal(classifier.scores(tensor), expected)
    assert not on_delegate(classifier)
    until(lambda: health.part("delegate")[0] == "degraded")
    assert reason in health.part("delegate")[1]
    assert health.snapshot()["delegate"] == "cpu"
    tell("")
    until(lambda: on_delegate(classifier) and health.part("delegate") == ("ok", ""))
    np.testing.assert_array_equal(classifier.scores(tensor), expected)
    assert health.snapshot()["delegate"] == "stand_in.so"


def test_one_that_computes_something_else_is_not_taken_back(
    opened: Callable[..., Standby], tell: Callable[[str], None]
) -> None:
    health = Health("porch")
    tell("wrong")
    classifier = opened(health=health)
    assert not on_delegate(classifier)
    assert "something else than its twin" in health.part("delegate")[1]
    tell("")
    until(lambda: on_delegate(classifier))


def test_one_that_is_missing_at_the_start_is_taken_when_it_comes(
    opened: Callable[..., Standby], library: Path, tmp_path: Path
) -> None:
    health = Health("porch")
    place = tmp_path / "later.so"
    classifier = opened(delegate=str(place), health=health)
    assert not on_delegate(classifier)
    assert health.part("delegate") == ("degraded", f"{place} is not there: there is no such library; the CPU answers")
    assert classifier.classify(np.zeros((8, 8, 3), np.uint8)).label in classifier.labels
    place.symlink_to(library)
    until(lambda: on_delegate(classifier))


def test_one_that_freezes_at_the_start_holds_nobody_up(
    opened: Callable[..., Standby], tell: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process it would: a runtime creates a delegate with Python's lock held.
    monkeypatch.setattr(standby, "_HEAD_START", 0.1)
    tell("freeze")
    classifier = opened()
    assert not on_delegate(classifier)
    assert classifier.classify(np.zeros((8, 8, 3), np.uint8)).label in classifier.labels
    tell("")
    until(lambda: on_delegate(classifier))


def test_closing_ends_a_child_that_is_frozen(
    opened: Callable[..., Standby], tell: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "_HEAD_START", 0.1)
    tell("freeze")
    classifier = opened()
    until(lambda: classifier._child is not None)
    child = classifier._child
    assert child is not None
    classifier.close()
    classifier.close()
    assert child._child.poll() == -signal.SIGKILL
    assert not classifier._thread.is_alive()
    # Whoever still asks is answered.
    assert classifier.classify(np.zeros((8, 8, 3), np.uint8)).label in classifier.labels


def test_an_edge_tpu_that_is_unplugged_and_plugged_in_again(
    opened: Callable[..., Standby], tell: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "lib/libedgetpu.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
    root, away = tmp_path / "root", tmp_path / "away"
    device = root / "sys/bus/usb/devices/1-2"
    device.mkdir(parents=True)
    for name, text in (("idVendor", "1a6e"), ("idProduct", "089a"), ("busnum", "1"), ("devnum", "3")):
        (device / name).write_text(text)
    for name in ("garments.tflite", "garments_edgetpu.tflite"):
        (tmp_path / name).write_bytes(GARMENTS.read_bytes())
    health = Health("porch")
    classifier = opened(tmp_path / "garments_edgetpu.tflite", delegate="usb", health=health, root=root)
    until(lambda: health.snapshot()["delegate"] == "Edge TPU usb (/sys/bus/usb/devices/1-2, libedgetpu runtime 14)")
    tensor = golden.inputs(classifier.model.input)[0]
    expected = classifier.scores(tensor)
    device.rename(away)
    tell("fail")
    np.testing.assert_array_equal(classifier.scores(tensor), expected)
    until(lambda: health.part("delegate")[0] == "degraded")
    tell("")
    # It would work again, but nothing is attached: no process is spent on trying.
    until(lambda: classifier._child is None)
    assert not on_delegate(classifier)
    away.rename(device)
    until(lambda: on_delegate(classifier))
    np.testing.assert_array_equal(classifier.scores(tensor), expected)


def test_no_picture_is_lost_while_the_delegate_comes_and_goes(
    opened: Callable[..., Standby], tell: Callable[[str], None], tmp_path: Path
) -> None:
    random = np.random.RandomState(0)
    for number in range(40):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), random.randint(0, 256, (5, 5, 3)).astype(np.uint8))
    expected = [r.classification.top for r in Pipeline(open_source(str(tmp_path)), Classifier(GARMENTS)).results()]
    classifier = opened()
    told = {10: "crash", 20: "", 25: "fail", 35: ""}
    tops, answered_by = [], set()
    for number, result in enumerate(Pipeline(open_source(str(tmp_path)), classifier).results()):
        tops.append(result.classification.top)
        answered_by.add(on_delegate(classifier))
        if number in told:
            tell(told[number])
            if told[number] == "":
                until(lambda: on_delegate(classifier))
    assert tops == expected
    assert len(expected) == 40
    assert answered_by == {True, False}


@pytest.mark.parametrize("word", ["", "freeze"])
def test_a_parent_that_is_killed_leaves_no_child_behind(library: Path, tell: Callable[[str], None], word: str) -> None:
    # It would keep the device; one that is frozen does not see that its parent has gone.
    tell(word)
    program = f"""
import sys, time
from edgenn_device import standby
standby._HEAD_START = 2.0
classifier = standby.Standby({str(GARMENTS)!r}, delegate={str(library)!r})
print(classifier._child._child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            # A zombie that nobody waits for yet (the init of a container may not) has let go of everything.
            return "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
        except OSError:
            return True

    until(gone)


def test_signals_of_the_terminal_are_the_parent_s_business(opened: Callable[..., Standby]) -> None:
    classifier = opened()
    assert isinstance(classifier.interpreter, DelegateProcess)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(classifier.interpreter._child.pid, number)
    for tensor in golden.inputs(classifier.model.input):
        classifier.scores(tensor)
    assert on_delegate(classifier)


def test_descriptors_and_threads_are_given_back(opened: Callable[..., Standby], tell: Callable[[str], None]) -> None:
    opened().close()
    gc.collect()  # what earlier tests left behind must not go away between the two counts
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(3):
        classifier = opened()
        assert on_delegate(classifier)
        classifier.close()
        del classifier
    gc.collect()
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


@pytest.mark.parametrize(
    ("path", "twin"),
    [("a/x_edgetpu.tflite", "a/x.tflite"), ("a/x.tflite", "a/x.tflite"), ("edgetpu.tflite", "edgetpu.tflite")],
)
def test_the_twin_stands_beside_it(path: str, twin: str) -> None:
    assert twin_of(Path(path)) == Path(twin)


def test_a_twin_that_is_missing_or_another_network(opened: Callable[..., Standby], tmp_path: Path) -> None:
    compiled = tmp_path / "garments_edgetpu.tflite"
    compiled.write_bytes(GARMENTS.read_bytes())
    with pytest.raises(EdgennError, match=r"has no CPU twin: put garments.tflite, .*, beside it"):
        opened(compiled)
    other = Path(__file__).parents[1] / "data_files/tiny_int8.tflite"
    with pytest.raises(EdgennError, match=r"take different pictures|not a picture"):
        opened(compiled, twin=other)


def test_twins_must_agree(tmp_path: Path) -> None:
    model = load(GARMENTS)
    assert model.card is not None
    with pytest.raises(EdgennError, match="have different labels"):
        standby._agreed(replace(model, labels=("a", "b", "c")), model)
    with pytest.raises(EdgennError, match="prepared differently"):
        standby._agreed(replace(model, input=replace(model.input, resize="pad")), model)
    bare = replace(model, card=None, labels=(), input=replace(model.input, resize="pad"))
    agreed = standby._agreed(bare, model)
    assert (agreed.labels, agreed.input, agreed.card) == (model.labels, model.input, model.card)


def test_a_compiled_file_that_lost_its_labels_takes_those_of_its_twin(
    opened: Callable[..., Standby], tmp_path: Path
) -> None:
    twin = load(GARMENTS)
    (tmp_path / "garments.tflite").write_bytes(GARMENTS.read_bytes())
    # The flatbuffer alone, as a compiler writes it anew; its metadata still names the labels.
    (tmp_path / "garments_edgetpu.tflite").write_bytes(twin.content)
    classifier = opened(tmp_path / "garments_edgetpu.tflite")
    assert classifier.labels == twin.labels
    assert classifier.model.card == twin.card
    assert classifier.model.path.name == "garments_edgetpu.tflite"
    assert on_delegate(classifier)


def bare(path: Path, model: ModelFile, card: Card | None = None) -> Path:
    """The flatbuffer as a compiler writes it anew, and its labels; with a card, that behind it."""
    path.write_bytes(model.content if card is None else attach(model.content, card))
    return path


@pytest.mark.parametrize("word", ["", "wrong"])
def test_without_golden_outputs_the_twin_is_what_the_delegate_is_judged_by(
    opened: Callable[..., Standby], tell: Callable[[str], None], tmp_path: Path, word: str
) -> None:
    """No card on either of the pair: four seeded inputs through the twin say what is right."""
    given = load(GARMENTS)
    (tmp_path / "labels.txt").write_text("\n".join(given.labels) + "\n")
    bare(tmp_path / "garments.tflite", given)
    tell(word)
    classifier = opened(
        bare(tmp_path / "garments_edgetpu.tflite", given), labels=tmp_path / "labels.txt", health=Health("porch")
    )
    assert classifier.model.card is None
    assert on_delegate(classifier) is (word == "")
    # A delegate that computes something else never answers; what the twin does then nobody can confirm.
    assert classifier.verify() is (True if word == "" else None)
    tell("crash")
    classifier.scores(golden.inputs(classifier.model.input)[0])
    assert classifier.verify() is None


@pytest.mark.parametrize("which", ["garments.tflite", "garments_edgetpu.tflite"])
def test_golden_outputs_on_either_card_count(opened: Callable[..., Standby], tmp_path: Path, which: str) -> None:
    given = load(GARMENTS)
    assert given.card is not None
    kernels = [key for key in given.card.golden if key != "runtime"]
    wrong = {key: [[(value + 9) % 256 for value in row] for row in given.card.golden[key]] for key in kernels}
    for name in ("garments.tflite", "garments_edgetpu.tflite"):
        bare(tmp_path / name, given, replace(given.card, golden=wrong if name == which else {}))
    assert opened(tmp_path / "garments_edgetpu.tflite").verify() is False


def test_a_child_that_refuses_says_why_in_one_line() -> None:
    child = DelegateProcess(load(GARMENTS), delegate="/no/such.so")
    try:
        with pytest.raises(DelegateFailed, match=r"there is no /no/such.so on this machine"):
            child.wait()
    finally:
        child.kill()


def test_out_of_processes_is_no_end(opened: Callable[..., Standby], monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health("porch")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("edgenn_device.delegate_process.subprocess.Popen", refuse)
        classifier = opened(health=health)
        assert not on_delegate(classifier)
        assert "Too many open files" in health.part("delegate")[1]
    until(lambda: on_delegate(classifier))
