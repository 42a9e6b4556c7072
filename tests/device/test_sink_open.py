"""The words by which a person names a sink."""

from __future__ import annotations

import importlib
import sys

import pytest
from sink_samples import ABOUT, result, until

from edgenn_device import extras, sinks
from edgenn_device.errors import EdgennError
from edgenn_device.health import Health
from edgenn_device.sinks import Queued, Sink, open_sink, open_sinks
from edgenn_device.sinks.csv_file import CsvFile
from edgenn_device.sinks.jsonl import JsonLinesFile
from edgenn_device.sinks.prometheus import Prometheus
from edgenn_device.sinks.recording import Recording
from edgenn_device.sinks.secret import secret
from edgenn_device.sinks.sqlite import SqliteEvents
from edgenn_device.sinks.webhook import Webhook


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("jsonl:frames.jsonl", JsonLinesFile, "jsonl:frames.jsonl"),
        ("CSV:/data/a b.csv", CsvFile, "csv:/data/a b.csv"),  # schemes know no case
        ("csv:odd:name?.csv", CsvFile, "csv:odd:name?.csv"),  # only sqlite has options
        ("sqlite:events.db", SqliteEvents, "sqlite:events.db"),
        ("sqlite:events.db?days=7.5", SqliteEvents, "sqlite:events.db"),
        ("https://user:pass@example.org/hook/SECRET?key=SECRET", Webhook, "webhook:example.org"),
        ("http://127.0.0.1:8080/", Webhook, "webhook:127.0.0.1:8080"),
        ("video:videos", Recording, "video:videos"),
        # No shell expands what stands behind a colon.
        ("jsonl:~/x", JsonLinesFile, "jsonl:/home/anna/x"),
        ("csv:~/x", CsvFile, "csv:/home/anna/x"),
        ("sqlite:~/x?days=3", SqliteEvents, "sqlite:/home/anna/x"),
        ("video:~/x", Recording, "video:/home/anna/x"),
        ("video:~nobody here/x", Recording, "video:~nobody here/x"),
    ],
)
def test_a_spec_gives_its_sink_behind_a_queue(spec, kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")
    sink = open_sink(spec, ABOUT)
    assert type(sink) is Queued
    assert type(sink.sink) is kind
    assert sink.name == name
    # Nothing is opened yet.
    assert list(tmp_path.iterdir()) == []


def test_sinks_of_one_name_are_told_apart_everywhere():
    specs = ("http://127.0.0.1/a", "http://127.0.0.1/b", "video:a", "video:b", "http://127.0.0.1/c", "csv:x", "csv:x")
    opened = open_sinks(specs, ABOUT)
    names = [sink.name for sink in opened]
    host = "webhook:127.0.0.1"
    assert names == [host, f"{host} 2", "video:a", "video:b", f"{host} 3", "csv:x", "csv:x 2"]
    # As they log.
    assert [sink.sink.name for sink in opened] == names
    opened[0].sink._error = "HTTP 404 Not Found"
    health = Health("porch")
    health.describe(sinks=opened)
    assert health.snapshot()["reasons"] == [f"sink:{host}: HTTP 404 Not Found"]
    assert list(health.snapshot()["sinks"]) == names


def test_options_reach_the_sink():
    assert open_sink("sqlite:events.db?days=7.5", ABOUT).sink.days == 7.5
    assert open_sink("sqlite:events.db", ABOUT).sink.days == 31


def test_prometheus_only_counts_and_stands_behind_no_queue():
    assert type(open_sink("prometheus:0", ABOUT)) is Prometheus


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("events.csv", "'events.csv' is no sink: use jsonl:PATH, csv:PATH"),  # the scheme was forgotten
        ("", "is no sink: use"),
        (":x", "is no sink: use"),
        ("./a:b", "is no sink: use"),
        ("kafka:topic", "there is no sink 'kafka': use jsonl:PATH"),
        ("csv:", "csv: names no place"),
        ("sqlite:", "sqlite: names no place"),
        ("sqlite:a.db?days=many", "days is a number, as in \\?days=31"),
        ("sqlite:a.db?days=0", "keeps nothing"),
        ("sqlite:a.db?days=nan", "keeps nothing"),
        ("sqlite:a.db?weeks=1", "no option 'weeks'"),
        ("prometheus:", "names no port"),
        ("prometheus:9100:", "names no port"),
        ("prometheus:99999", "names no port"),
        ("http//anna:hunter2@host", "'…@host' is no sink: use"),  # what may be a password is not repeated
        ("https://anna:12/34@host/", "write # as %23, / as %2F"),  # else "12" would be a port, which is shown
        ("http:///path", "a webhook is http://HOST"),
        ("http://host:port/", "a webhook is http://HOST"),
        ("http://host:99999/", "a webhook is http://HOST"),
        ("https://host/with space", "a webhook is http://HOST"),
        ("https://hôte/", "a webhook is http://HOST"),
        ("https://host/\r\nX-Header: 1", "a webhook is http://HOST"),
        ("https://a..b/", "a webhook's host has 1 to 63 letters"),  # Python raises UnicodeError, at each request
        ("https://a%2e.b/", "a webhook's host has 1 to 63 letters"),
        (f"https://{'a' * 64}.org/", "a webhook's host has 1 to 63 letters"),
    ],
)
def test_what_is_no_sink_is_refused_in_one_line(spec, line):
    with pytest.raises(EdgennError, match=line) as refusal:
        open_sink(spec, ABOUT)
    assert "\n" not in str(refusal.value)


def test_a_refused_address_is_not_repeated():
    with pytest.raises(EdgennError) as refusal:
        open_sink("https://user:hunter2@host:x/SECRET", ABOUT)
    assert "hunter2" not in str(refusal.value)
    assert "SECRET" not in str(refusal.value)


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """plug_in(source): installs a distribution whose module gives the sink "shout"."""

    def install(source: str) -> None:
        (tmp_path / "shouting_sink.py").write_text(source)
        information = tmp_path / "shouting-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[edgenn.sinks]\nshout = shouting_sink:Shout\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "shouting_sink", raising=False)

    yield install
    sys.modules.pop("shouting_sink", None)


def test_a_third_party_sink_comes_by_entry_point_behind_a_queue(plug_in):
    plug_in(
        "from edgenn_device.sinks import Sink\n"
        "class Shout(Sink):\n"
        "    def __init__(self, spec, about):\n"
        "        self.name, self.about, self.heard = spec, about, []\n"
        "    def write(self, result):\n"
        "        self.heard.append(result.classification.label.upper())\n"
    )
    with open_sink("shout:loud", ABOUT) as sink:
        assert isinstance(sink, Queued)
        assert (sink.name, sink.sink.about) == ("shout:loud", ABOUT)
        sink.write(result())
        until(lambda: sink.sink.heard == ["SHIRT"])


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import no_such_module", "does not load .ModuleNotFoundError: No module named 'no_such_module'"),
        ("Shout = 3", "does not load .TypeError"),
        ("def Shout(spec, about): return None", "is no edgenn_device.sinks.Sink"),
        (
            "from edgenn_device.errors import EdgennError\ndef Shout(spec, about): raise EdgennError('name a room')",
            "^name a room$",
        ),
    ],
)
def test_a_third_party_sink_that_does_not_work_is_one_line(plug_in, source, line):
    plug_in(source)
    with pytest.raises(EdgennError, match=line) as refusal:
        open_sink("shout:loud", ABOUT)
    assert "\n" not in str(refusal.value)


def test_every_sink_has_a_name_and_a_state():
    for spec in ("jsonl:x", "csv:x", "sqlite:x", "http://x/", "prometheus:0"):
        sink = open_sink(spec, ABOUT)
        assert isinstance(sink, Sink)
        assert sink.name in (spec, "webhook:x")
        assert sink.state().get("error") is None
    assert sinks.ACCEPTED.count(":") >= 8


@pytest.mark.parametrize("spec", ["prometheus:0"])
def test_a_missing_library_says_what_to_type(spec, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # what Python itself takes for "not installed"
    with pytest.raises(EdgennError, match=r"^prometheus_client is missing; .*: pip install 'edgenn\[device\]'$"):
        open_sink(spec, ABOUT)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import something_that_is_not_here", "broken_extra is installed but does not load"),
        ("raise ImportError('libx.so: cannot\\nopen')", "does not load .libx.so: cannot open"),
    ],
)
def test_a_library_that_does_not_load_says_why(tmp_path, monkeypatch, source, line):
    (tmp_path / "broken_extra.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EdgennError, match=line) as refusal:
        extras.require("broken_extra")
    assert "\n" not in str(refusal.value)
    assert extras.require("json") is sys.modules["json"]


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    assert secret("EDGENN_TEST_SECRET") is None
    (tmp_path / "secret").write_text("from the file\n")
    monkeypatch.setenv("EDGENN_TEST_SECRET_FILE", str(tmp_path / "secret"))
    assert secret("EDGENN_TEST_SECRET") == "from the file"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGENN_TEST_SECRET_FILE", "~/secret")
    assert secret("EDGENN_TEST_SECRET") == "from the file"
    monkeypatch.setenv("EDGENN_TEST_SECRET", " from the environment ")
    assert secret("EDGENN_TEST_SECRET") == "from the environment"


@pytest.mark.parametrize("content", [None, "", "  \n", "one\ntwo", b"\xff\xfe"])
def test_an_unusable_secret_is_refused_without_showing_it(content, tmp_path, monkeypatch):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("EDGENN_TEST_SECRET_FILE", str(path))
    with pytest.raises(EdgennError, match=r"^EDGENN_TEST_SECRET") as refusal:
        secret("EDGENN_TEST_SECRET")
    assert "two" not in str(refusal.value)
