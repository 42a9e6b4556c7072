import io
import json
import os
import time

import numpy as np
import pytest

from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.pipeline import Result
from edgenn_device.sinks import JsonLines, Terminal, terminal

SUMMARY = {"frames": 2, "dropped": 0, "fps": 30.0, "seconds": 0.07}


def result(index: int = 0, label: str = "shirt", confidence: float = 0.75, **frame: str) -> Result:
    top = ((label, confidence), ("jacket", 1 - confidence))
    classification = Classification(label, confidence, top, np.array([confidence, 1 - confidence], np.float32))
    return Result(Frame(b"picture", time.monotonic() - 2.0, index, **frame), classification, {"invoke": 0.004}, 0.0123)


class Screen(io.StringIO):
    """A text stream that says it is a terminal, of the given encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding

    def write(self, text: str) -> int:
        text.encode(self._encoding)  # as a real stream does: what it cannot encode it refuses
        return super().write(text)

    def isatty(self) -> bool:
        return True


def test_json_is_one_document_a_line_and_the_summary_last():
    stream = io.StringIO()
    with JsonLines(stream) as sink:
        sink.write(result(7))
        sink.write(result(8, path="photos/shirt/1.jpg", truth="shirt"))
        sink.finish(SUMMARY)
    first, second, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert list(first) == ["time", "frame", "label", "confidence", "top", "latency_ms"]
    assert (first["frame"], first["label"], first["confidence"], first["latency_ms"]) == (7, "shirt", 0.75, 12.3)
    assert first["top"] == [["shirt", 0.75], ["jacket", 0.25]]
    # Unix time of capture, two seconds before it was written.
    assert 1.9 < time.time() - first["time"] < 60
    assert (second["path"], second["truth"]) == ("photos/shirt/1.jpg", "shirt")
    assert last == {"summary": SUMMARY}
    assert not stream.closed


def test_json_passes_any_label_through_any_encoding():
    stream = Screen("ascii")
    JsonLines(stream).write(result(label='chemise d\'été "été"\n\x1b[2J'))
    assert json.loads(stream.getvalue())["label"] == 'chemise d\'été "été"\n\x1b[2J'
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("sink", [JsonLines, Terminal])
def test_a_reader_that_has_gone_shows_as_a_broken_pipe(sink):
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    with pytest.raises(BrokenPipeError):
        sink(stream).write(result())
    with pytest.raises(BrokenPipeError):
        stream.close()  # still full of what nobody read


def test_in_a_pipe_a_camera_gives_one_line_per_change_of_label():
    stream = io.StringIO()
    with Terminal(stream) as sink:
        for index, label in enumerate(["shirt", "shirt", "jacket", "jacket", "shirt"]):
            sink.write(result(index, label))
        sink.finish(SUMMARY)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["frame", "0", "shirt"],
        ["frame", "2", "jacket"],
        ["frame", "4", "shirt"],
    ]
    assert "\x1b" not in stream.getvalue()
    assert "75.0%" in lines[0]


@pytest.mark.parametrize("stream", [io.StringIO(), Screen()])
def test_pictures_get_a_line_each_wherever_it_goes(stream):
    with Terminal(stream) as sink:
        for index in range(3):
            sink.write(result(index, path=f"photos/{index}.jpg"))
    lines = stream.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [[f"photos/{index}.jpg", "shirt"] for index in range(3)]


def test_on_a_terminal_a_camera_keeps_one_line(monkeypatch):
    monkeypatch.setattr(terminal, "_REDRAW", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    stream = Screen()
    with Terminal(stream) as sink:
        sink.write(result(0))
        sink.write(result(1, "jacket", 1.0))
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1
    first, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert first.startswith("shirt ")
    assert first.count("█") == 15  # three quarters of 20
    assert second.count("█") == 20
    assert "fps" in first
    assert "12.3 ms" in first


def test_the_live_line_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Screen()
    Terminal(stream).write(result(label="a label of uncommon length, much longer than thirty"))
    assert len(stream.getvalue().split("\r\x1b[K")[1]) == 29


def test_the_live_line_is_not_redrawn_faster_than_it_can_be_read():
    stream = Screen()
    sink = Terminal(stream)
    for index in range(100):
        sink.write(result(index))
    assert stream.getvalue().count("\r") < 50


@pytest.mark.parametrize(
    ("encoding", "label", "shown"),
    [
        ("ascii", "été", "?t?"),  # a terminal that cannot show it
        ("utf-8", "été", "été"),  # one that can
        ("utf-8", "\x1b[2Jshirt\nroot#", "?[2Jshirt?root#"),  # a label that would clear the screen
    ],
)
def test_a_label_is_shown_as_text_and_nothing_else(encoding, label, shown):
    stream = Screen(encoding)
    Terminal(stream).write(result(label=label))
    Terminal(stream).write(result(label=label, path="x\x1b[0m.jpg"))
    assert stream.getvalue().count(shown) == 2
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x1b[0m" not in stream.getvalue()
