"""The health document: what each part says, what follows from it, and that it is JSON."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgenn_device import health as room
from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.health import Health
from edgenn_device.model_file import load
from edgenn_device.pipeline import Result

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"


def result(label: str = "shirt", confidence: float = 0.9, latency: float = 0.01) -> Result:
    classification = Classification(label, confidence, ((label, confidence),), np.array([confidence], np.float32))
    return Result(Frame(b"", 0.0, 0), classification, {}, latency)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that the test sets."""
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


class Sink:
    name = "mqtt"

    def __init__(self, **said: Any) -> None:
        self.said = said

    def state(self) -> dict[str, Any]:
        return self.said


@pytest.mark.parametrize(
    ("parts", "frames", "state", "reasons"),
    [
        # Nothing has happened yet, and then it has.
        ([], 0, "starting", []),
        ([], 1, "ok", []),
        # A part that is well says nothing.
        ([("delegate", "ok", "")], 1, "ok", []),
        # It works, with less than it could have.
        ([("delegate", "degraded", "usb is not there")], 1, "degraded", ["delegate: usb is not there"]),
        # The worst of all is what counts, also before the first frame.
        (
            [("source", "failed", "0 is gone"), ("model", "degraded", "rubbish")],
            0,
            "failed",
            ["model: rubbish", "source: 0 is gone"],
        ),
        # What a part said last holds.
        ([("source", "failed", "0 is gone"), ("source", "ok", "")], 1, "ok", []),
        # No reason given: the word itself.
        ([("model", "degraded", "")], 1, "degraded", ["model: degraded"]),
    ],
)
def test_what_follows_from_the_parts(
    parts: list[tuple[str, Any, str]], frames: int, state: str, reasons: list[str]
) -> None:
    health = Health("porch")
    for part in parts:
        health.set(*part)
    for _ in range(frames):
        health.frame(result())
    document = health.snapshot()
    assert (document["state"], document["reasons"]) == (state, reasons)
    assert json.loads(json.dumps(document)) == document


def test_every_part_has_a_word_of_its_own() -> None:
    """What an alert is made of: which part it is, also while all is well."""
    health = Health("porch")
    health.describe(sinks=[Sink(error=None)])
    assert health.snapshot()["parts"] == {"source": "ok", "model": "ok", "sink:mqtt": "ok"}
    health.set("source", "failed", "0 is gone")
    health.set("delegate", "ok")
    health.describe(sinks=[Sink(error="Connection refused")])
    assert health.snapshot()["parts"] == {
        "source": "failed",
        "model": "ok",
        "sink:mqtt": "degraded",
        "delegate": "ok",
    }


def test_a_part_is_asked_for_by_name() -> None:
    health = Health("porch")
    assert health.part("source") == ("ok", "")
    health.set("source", "failed", "gone")
    assert health.part("source") == ("failed", "gone")
    with pytest.raises(ValueError, match="not 'well'"):
        health.set("source", "well")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("every", "ago", "fps"),
    [
        (10.0, 0.001, 0.1),  # a frame just now
        (10.0, 9.9, 0.05),  # the next one is due
        (10.0, 25.0, 0.0),  # and does not come
        (2.0, 0.001, 0.5),  # two or three in a window
        (1.0, 0.001, 1.0),
        (1.0, 0.9, 0.82),  # five in 4.9 s
        (0.1, 0.001, 10.0),
    ],
)
def test_frames_a_second_of_slow_sources(clock: SimpleNamespace, every: float, ago: float, fps: float) -> None:
    health = Health("porch")
    for _ in range(100):
        clock.now += every
        health.frame(result())
    clock.now += ago
    assert health.snapshot()["fps"] == pytest.approx(fps, rel=0.03)


def test_one_frame_has_no_rate(clock: SimpleNamespace) -> None:
    health = Health("porch")
    health.frame(result())
    clock.now += 0.001
    assert health.snapshot()["fps"] == 0


def test_figures_of_the_frames(clock: SimpleNamespace) -> None:
    health = Health("porch")
    for number in range(100):
        clock.now += 0.1
        health.frame(result(confidence=0.5, latency=(number + 1) / 1000))
    document = health.snapshot()
    assert document["latency_ms"] == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert document["fps"] == pytest.approx(10, rel=0.05)
    assert (document["frames"], document["label"], document["confidence"]) == (100, "shirt", 0.5)
    assert document["last_frame_age_s"] == 0
    # A source that stops is seen to slow down before it is seen to have stopped.
    clock.now += 2.5
    assert 4 < document["fps"] > health.snapshot()["fps"] > 3
    clock.now += 5
    assert health.snapshot()["fps"] == 0


def test_silence_is_worth_a_word_when_nobody_explains_it(clock: SimpleNamespace) -> None:
    health = Health("porch")
    health.frame(result())
    clock.now += room.QUIET - 1
    assert health.snapshot()["state"] == "ok"
    clock.now += 2
    assert health.snapshot()["reasons"] == ["source: no frame for 11 s"]
    health.set("source", "failed", "0 is gone")
    assert health.snapshot()["reasons"] == ["source: 0 is gone"]


@pytest.mark.parametrize(
    ("said", "quiet", "state", "reason"),
    [
        # Its pictures are bad, whatever it says of its connection.
        (("ok", ""), 0, "degraded", "is the lens covered?"),
        # One that gives nothing to classify has its reason in that.
        (("ok", ""), room.QUIET + 1, "degraded", "is the lens covered?"),
        # It gives none at all: that is worse.
        (("failed", "0 is gone"), 0, "failed", "0 is gone"),
        # What it says of itself goes before.
        (("degraded", "5 fps only"), 0, "degraded", "5 fps only"),
    ],
)
def test_bad_pictures_and_a_lost_camera_do_not_hide_each_other(
    clock: SimpleNamespace, said: tuple[Any, str], quiet: float, state: str, reason: str
) -> None:
    health = Health("porch")
    health.describe(counts=SimpleNamespace(dropped=0, bad=0, trouble="is the lens covered?"))
    health.frame(result())
    clock.now += quiet
    health.set("source", *said)
    document = health.snapshot()
    assert (document["source"]["state"], document["parts"]["source"]) == (state, state)
    assert document["reasons"] == [f"source: {reason}"]


def test_what_the_sinks_say() -> None:
    health = Health("porch")
    health.describe(sinks=[Sink(error=None, queued=0)])
    health.frame(result())
    assert health.snapshot()["state"] == "ok"
    health.describe(sinks=[Sink(error="Connection refused", queued=7)])
    document = health.snapshot()
    assert document["sinks"] == {"mqtt": {"error": "Connection refused", "queued": 7}}
    assert (document["state"], document["reasons"]) == ("degraded", ["sink:mqtt: Connection refused"])
    # What the run itself says of a sink goes before that.
    health.set("sink:mqtt", "failed", "wrong password")
    assert health.snapshot()["reasons"] == ["sink:mqtt: wrong password"]


def test_what_runs(tmp_path: Path) -> None:
    (tmp_path / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("51234\n")
    health = Health("porch", "1.2", root=tmp_path)
    model = load(GARMENTS)
    health.describe(
        model=model, source="camera 0", runtime="litert", counts=SimpleNamespace(dropped=3, bad=1, trouble="")
    )
    health.describe(delegate="Edge TPU usb")
    document = health.snapshot()
    assert model.card is not None
    assert document["model"] == {"name": "garments.tflite", "sha256": model.card.sha256}
    assert document["source"] == {"name": "camera 0", "state": "ok"}
    assert (document["device"], document["version"], document["runtime"]) == ("porch", "1.2", "litert")
    assert (document["delegate"], document["dropped"], document["bad"]) == ("Edge TPU usb", 3, 1)
    assert document["temperature_c"] == pytest.approx(51.234)


def test_many_threads_at_once() -> None:
    health = Health("porch")

    def work(number: int) -> None:
        for _ in range(500):
            health.frame(result())
            health.set(f"sink:{number}", "ok")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert health.snapshot()["state"] in ("starting", "ok")
    for thread in threads:
        thread.join()
    assert health.snapshot()["frames"] == 2000
