"""What the demo came to, as values; where its files stand in its folder. Does nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenn.conversion.converter import Conversion
from edgenn.evaluation import Evaluation
from edgenn.training.run import Run
from edgenn_device.pipeline import Summary
from edgenn_device.profiler import Histogram, Profile
from edgenn_device.profiler.report import percentiles

from .watcher import Step

PHOTOS, RUN, MODEL, VIDEO = "photos", "run", "garments.tflite", "garments.avi"
REPORT, SUMMARY = "report.html", "demo.json"


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame of the feed: uint8 (H, W, 3) BGR, what it is, what it was taken for, and how surely (0..1)."""

    image: Any
    truth: str
    label: str
    confidence: float


@dataclass(frozen=True, eq=False)
class Feed:
    """The video, classified as the camera feed it stands in for.

    Attributes:
      truth: true label of every frame of the video.
      labels: index of a frame -> the label decided for it; dropped frames are missing.
      stages: seconds by stage, and the latency of a whole frame.
      summary: frames, dropped, frames a second.
      shown: one frame of each garment, from when its label has had time to settle.
    """

    truth: tuple[str, ...]
    labels: dict[int, str]
    stages: dict[str, Histogram]
    latency: Histogram
    summary: Summary
    shown: tuple[Shown, ...]

    @property
    def right(self) -> float:
        """Share of the classified frames with the right label, those right after a change of garment included."""
        return sum(label == self.truth[index] for index, label in self.labels.items()) / max(1, len(self.labels))


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo came to; paths are where things are when it has ended."""

    out: Path
    photos: int
    run: Run
    history: dict[str, list[float]]
    conversion: Conversion
    float_test: Evaluation
    int8_test: Evaluation
    feed: Feed
    profile: Profile
    steps: tuple[Step, ...]
    seconds: float

    @property
    def model(self) -> Path:
        """The .tflite, also when the gate rejected it."""
        return self.conversion.model

    @property
    def report(self) -> Path:
        return self.out / REPORT

    def to_dict(self) -> dict[str, Any]:
        """The figures, in JSON's types; what `edgenn demo --json` prints."""
        feed, invoke = self.feed, self.profile.steady.latencies
        return {
            "out": str(self.out),
            "report": str(self.report),
            "model": str(self.model),
            "photos": self.photos,
            "train": {
                "run": str(self.out / RUN),
                "network": self.run.network,
                "parameters": self.run.parameters,
                "epochs": self.run.epochs,
                "seconds": self.run.seconds,
                "validation": {"accuracy": self.run.accuracy, "pictures": self.run.pictures},
            },
            "convert": {
                "bytes": self.conversion.bytes,
                "float_bytes": self.conversion.float_bytes,
                "agreement": self.conversion.agreement,
                "passed": self.conversion.passed,
            },
            "test": {
                "pictures": self.int8_test.pictures,
                "float": {"accuracy": self.float_test.accuracy, "runtime": self.float_test.runtime},
                "int8": {"accuracy": self.int8_test.accuracy, "runtime": self.int8_test.runtime},
            },
            "feed": {
                "video": str(self.out / VIDEO),
                "frames": feed.summary.frames,
                "dropped": feed.summary.dropped,
                "fps": feed.summary.fps,
                "right": feed.right,
                "garments": len(feed.shown),
                "garments_right": sum(shown.label == shown.truth for shown in feed.shown),
                "stages_ms": {name: percentiles(spent) for name, spent in feed.stages.items()},
                "latency_ms": percentiles(feed.latency),
            },
            "invoke_ms": percentiles(invoke),
            "steps": [{"name": step.name, "seconds": step.seconds} for step in self.steps],
            "seconds": self.seconds,
        }
