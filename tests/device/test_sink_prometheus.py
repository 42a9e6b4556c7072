"""Metrics fetched over real HTTP, read by Prometheus' own parser."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sink_samples import ABOUT, event, result, until

from edgenn_device.errors import EdgennError
from edgenn_device.health import Health
from edgenn_device.sinks import open_sink, prometheus
from edgenn_device.sinks.prometheus import BUCKETS, Prometheus


def fetch(sink):
    host = f"[{sink.host}]" if ":" in sink.host else sink.host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host}:{sink.port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_of_a_run(monkeypatch):
    with Prometheus("0", ABOUT) as sink:
        assert sink.host == "127.0.0.1"
        for index in (4, 5, 8):  # two were dropped in between
            sink.write(result(index, confidence=0.5 + index / 100))
        sink.event(event(1))
        sink.event(event(1, ended=True))
        sink.event(event(2, label="a label the model did not name"))
        found = fetch(sink)
    assert found[("edgenn_frames_total",)] == 3
    assert found[("edgenn_dropped_frames_total",)] == 2
    assert found[("edgenn_confidence",)] == pytest.approx(0.58)
    assert found[("edgenn_label_info", ("label", "shirt"))] == 1
    assert found[("edgenn_events_total", ("label", "shirt"))] == 1
    assert found[("edgenn_events_total", ("label", "jacket"))] == 0
    assert found[("edgenn_events_total", ("label", "unknown"))] == 0
    assert found[("edgenn_events_total", ("label", "a label the model did not name"))] == 1
    about = (("device", "porch"), ("model", "garments"), ("runtime", "litert 2.3"))
    assert found[("edgenn_info", *about, ("source", "camera 0"), ("version", "0.1.0"))] == 1
    assert 0 <= found[("edgenn_last_frame_age_seconds",)] < 60
    assert not [name for name in found if "health" in name[0]]


def test_latency_is_a_cumulative_histogram():
    latencies = [0.001, 0.002, 0.0021, 0.04, 9.0]
    with Prometheus("0", ABOUT) as sink:
        for index, latency in enumerate(latencies):
            frame = result(index)
            sink.write(type(frame)(frame.frame, frame.classification, frame.stages, latency))
        found = fetch(sink)
    counts = {
        dict(name[1:])["le"]: value for name, value in found.items() if name[0] == "edgenn_latency_seconds_bucket"
    }
    assert len(counts) == len(BUCKETS) + 1
    # A value on an edge belongs to it ("le": less or equal).
    assert [counts[edge] for edge in ("0.002", "0.005", "0.02", "0.05", "5.0", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert found[("edgenn_latency_seconds_count",)] == 5
    assert found[("edgenn_latency_seconds_sum",)] == pytest.approx(sum(latencies))


def test_health_is_told_where_it_is_known():
    class Counts:
        dropped, bad, trouble = 7, 3, ""

    health = Health("porch")
    health.describe(counts=Counts())
    health.set("source", "degraded", "camera 0 is gone")
    with open_sink("prometheus:127.0.0.1:0", ABOUT, health=health.snapshot) as sink:
        found = fetch(sink)
        assert found[("edgenn_health_state", ("state", "degraded"))] == 1
        assert found[("edgenn_health_state", ("state", "ok"))] == 0
        assert found[("edgenn_dropped_frames_total",)] == 7
        assert found[("edgenn_bad_frames_total",)] == 3
        health.set("source", "ok")
        health.frame(result())
        assert fetch(sink)[("edgenn_health_state", ("state", "ok"))] == 1
    # Before the first frame there is no label to tell.
    assert not [name for name in found if name[0] in ("edgenn_label_info", "edgenn_confidence")]


def test_a_label_in_any_script_is_told_as_it_is():
    odd = 'T-Shirt "été"\n\\ シャツ'
    with Prometheus("0", ABOUT) as sink:
        sink.write(result(label=odd))
        assert fetch(sink)[("edgenn_label_info", ("label", odd))] == 1


@pytest.mark.parametrize(
    ("place", "host"),
    [
        ("0", "127.0.0.1"),
        (":0", "127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("0.0.0.0:0", "0.0.0.0"),
    ],
)
def test_it_listens_where_it_is_told_and_otherwise_on_this_machine_alone(place, host):
    try:
        with Prometheus(place, ABOUT) as sink:
            assert sink.host == host
            assert sink._server.server_address[0] == host
            assert ("edgenn_frames_total",) in fetch(sink)
    except EdgennError:
        assert host == "::1"
        pytest.skip("no IPv6 here")


def test_a_port_that_is_taken_is_one_line():
    with Prometheus("0", ABOUT) as sink:
        with pytest.raises(EdgennError, match=r"port \d+ is not to be had .*: give another"):
            Prometheus(str(sink.port), ABOUT).open()
        assert ("edgenn_frames_total",) in fetch(sink)


def test_a_client_that_says_nothing_or_reads_nothing_is_put_out(monkeypatch, capfd):
    monkeypatch.setattr(prometheus, "_TIMEOUT", 0.05)
    before = threading.active_count()
    with Prometheus("0", ABOUT) as sink:
        clients = [socket.create_connection((sink.host, sink.port)) for _ in range(20)]
        for client in clients[:5]:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            client.close()
        sink.write(result())
        assert fetch(sink)[("edgenn_frames_total",)] == 1
        # Only the one that serves is left.
        until(lambda: threading.active_count() <= before + 1)
        for client in clients[5:]:
            assert client.recv(10) == b""
            client.close()
    until(lambda: threading.active_count() <= before)
    assert capfd.readouterr().err == ""


def test_two_runs_in_one_process_do_not_share_figures():
    with Prometheus("0", ABOUT) as one, Prometheus("0", ABOUT) as other:
        one.write(result())
        assert fetch(one)[("edgenn_frames_total",)] == 1
        assert fetch(other)[("edgenn_frames_total",)] == 0
    one.close()


class Disk:
    """A sink as health sees it, behind its queue."""

    name = "sqlite:events.db"

    def state(self):
        return {
            "error": "No space left on device",
            "queued": {"results": 1, "events": 2},
            "dropped": {"results": 3, "events": 4},
            # Of those that keep a file of what a receiver has not taken.
            "spooled": 10,
            "spool_dropped": 20,
        }


def test_an_alert_can_name_the_part_that_is_not_well():
    health = Health("porch")
    health.describe(sinks=[Disk()])
    with Prometheus("0", ABOUT, health=health.snapshot) as sink:
        found = fetch(sink)
    parts = {dict(labels)["part"]: value for (name, *labels), value in found.items() if name == "edgenn_part_ok"}
    assert parts == {"source": 1, "model": 1, "sink:sqlite:events.db": 0}
    assert found[("edgenn_sink_waiting", ("sink", "sqlite:events.db"))] == 13
    assert found[("edgenn_sink_dropped_total", ("sink", "sqlite:events.db"))] == 27


def test_clients_that_drip_hold_a_few_threads_and_make_way(monkeypatch):
    with Prometheus("0", ABOUT) as sink:
        dripping = [socket.create_connection((sink.host, sink.port)) for _ in range(40)]
        for client in dripping:
            client.sendall(b"G")
        # Beyond those that are answered at the same time all others are hung up on at once.
        until(lambda: sum(hung_up(client) for client in dripping) == 40 - prometheus._MOST)
        assert len(sink._server._since) == prometheus._MOST
        # When theirs is over the next that asks gets its answer, whatever they still send.
        monkeypatch.setattr(prometheus, "_TIMEOUT", 0.0)
        assert fetch(sink)[("edgenn_frames_total",)] == 0
        until(lambda: not sink._server._since)
        for client in dripping:
            client.close()


def hung_up(client):
    try:
        return client.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
