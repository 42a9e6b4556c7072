"""Events to a real HTTP server: once each, through faults of the server, of the network and of this process."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import signal
import ssl
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sink_samples import ABOUT, event, result, until

from edgenn_device.errors import EdgennError
from edgenn_device.sinks import Queued, queued, webhook
from edgenn_device.sinks.spool import Spool
from edgenn_device.sinks.webhook import Webhook


class Receiver:
    """A server that notes what it gets, and answers with what is in `answers`, then with 204."""

    def __init__(self, port=0, context=None):
        self.requests = []
        self.answers = []
        self.silent = threading.Event()
        self.dripping = threading.Event()
        self.over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), json.loads(body)))
                if receiver.silent.is_set():
                    receiver.over.wait(20)
                    return
                if receiver.dripping.is_set():
                    with suppress(OSError):
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                        while not receiver.over.wait(0.02):
                            self.wfile.write(b"x")
                    return
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def keys(self):
        return [headers["Idempotency-Key"] for _, headers, _ in self.requests]

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(queued, "_SHORTEST_WAIT", 0.005)
    monkeypatch.setattr(queued, "_LONGEST_WAIT", 0.05)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hook(receiver, tmp_path):
    return Webhook(f"http://127.0.0.1:{receiver.port}/hook?key=SECRET#here", ABOUT, folder=tmp_path)


def began(number):
    return f"{event(number).id}.began"


def ended(number):
    return f"{event(number).id}.ended"


def test_an_event_is_posted_when_it_begins_and_when_it_has_ended(receiver, hook):
    with Queued(hook) as sink:
        sink.event(event(1))
        sink.write(result())
        sink.event(event(1, ended=True, thumbnail=None))
        until(lambda: sink.state()["sent"] == 2)
    (path, headers, first), (_, _, second) = receiver.requests
    assert path == "/hook?key=SECRET"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "edgenn/0.1.0"
    assert receiver.keys() == [began(1), ended(1)]
    started = event(1).started
    assert first == {
        "event": "began",
        "id": event(1).id,
        "label": "shirt",
        "confidence": 0.9,
        "started": started,
        "ended": None,
        "frames": 1,
        "device": "porch",
        "model": "garments",
        "source": "camera 0",
        "version": "0.1.0",
        "thumbnail": base64.b64encode(b"jpeg").decode(),
    }
    assert (second["event"], second["ended"], second["thumbnail"]) == ("ended", started + 10, None)


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}),  # a defect over there
        (503, {"Retry-After": "0"}),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),  # a moment that is past
        (429, {"Retry-After": "soon"}),  # is no moment at all
        (401, {}),  # somebody will put the token right
        (404, {}),
        (301, {"Location": "/elsewhere"}),  # a POST must not become a GET
    ],
)
def test_what_is_not_taken_is_sent_again_with_the_same_key(answer, receiver, hook, caplog):
    receiver.answers = [answer] * 3
    with Queued(hook) as sink:
        sink.event(event(1))
        sink.event(event(1, ended=True))
        until(lambda: sink.state()["sent"] == 2)
        assert sink.state()["error"] is None
    assert receiver.keys() == [began(1)] * 4 + [ended(1)]
    assert {path for path, _, _ in receiver.requests} == {"/hook?key=SECRET"}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"HTTP {answer[0]}" in said[0]
    assert "answers again" in said[1]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_message_that_is_refused_does_not_hold_up_the_others(status, receiver, hook):
    receiver.answers = [(status, {})]
    with Queued(hook) as sink:
        sink.event(event(1))
        sink.event(event(2))
        until(lambda: sink.state()["sent"] == 1)
        assert sink.state()["refused"] == 1
    assert receiver.keys() == [began(1), began(2)]


def test_a_receiver_that_asks_for_rest_gets_it(receiver, hook, monkeypatch):
    asked = []
    monkeypatch.setattr(hook._ending, "wait", lambda seconds: asked.append(seconds))
    receiver.answers = [(503, {"Retry-After": "120"}), (503, {"Retry-After": "99999"})]
    with hook:
        hook.event(event(1))
        until(lambda: hook.state()["sent"] == 1)
    assert asked == [120.0, 600.0]


def test_a_receiver_that_is_away_is_waited_for(receiver, tmp_path):
    port = receiver.port
    receiver.close()
    sink = Queued(Webhook(f"http://127.0.0.1:{port}/", ABOUT, folder=tmp_path))
    with sink:
        for number in range(10):
            sink.event(event(number))
        until(lambda: sink.state()["error"] and sink.state()["spooled"] == 10)
        assert sink.state()["error"] == "Connection refused"
        back = Receiver(port)
        until(lambda: sink.state()["sent"] == 10)
        assert sink.state()["error"] is None
    assert back.keys() == [began(number) for number in range(10)]
    back.close()


def test_a_receiver_that_never_answers_stalls_nobody_and_is_given_up(receiver, hook, monkeypatch):
    monkeypatch.setattr(webhook, "_TIMEOUT", 0.05)
    receiver.silent.set()
    with Queued(hook) as sink:
        for number in range(50):
            sink.event(event(number))
        until(lambda: sink.state()["error"] == "timed out" and sink.state()["spooled"] == 50)
        receiver.silent.clear()
        receiver.over.set()
        until(lambda: sink.state()["sent"] == 50)
    keys = receiver.keys()
    assert sorted(set(keys)) == [began(number) for number in range(50)]


def test_a_receiver_that_drips_its_answer_is_given_up(receiver, hook, monkeypatch):
    monkeypatch.setattr(webhook, "_WHOLE", 0.2)
    receiver.dripping.set()
    with hook:
        hook.event(event(1))
        until(lambda: hook.state()["error"] == "timed out")
        assert hook.state()["sent"] == 0
        receiver.dripping.clear()
        until(lambda: hook.state()["sent"] == 1)
    assert set(receiver.keys()) == {began(1)}


def test_an_error_that_nobody_foresaw_does_not_end_the_sending(receiver, tmp_path, monkeypatch, caplog):
    address = f"http://127.0.0.1:{receiver.port}/"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)
        # urllib raises a ValueError that shows it.
        patch.setenv("http_proxy", "http:/hunter2@proxy")
        sink = Webhook(address, ABOUT, folder=tmp_path)
        with sink:
            sink.event(event(1))
            until(lambda: sink.state()["error"])
            assert sink.state()["error"] == "cannot be sent (ValueError)"
            patch.delenv("http_proxy")
            sink._opener = Webhook(address, ABOUT, folder=tmp_path)._opener
            until(lambda: sink.state()["sent"] == 1)
    assert receiver.keys() == [began(1)]
    assert "cannot be sent" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGENN_WEBHOOK_TOKEN", "hunter2€")
    with pytest.raises(EdgennError, match=r"^EDGENN_WEBHOOK_TOKEN holds a character") as refusal:
        Webhook("http://127.0.0.1/", ABOUT, folder=tmp_path)
    assert "hunter2" not in str(refusal.value)
    assert "€" not in str(refusal.value)


def test_two_devices_on_one_machine_post_to_one_address(receiver, tmp_path):
    address = f"http://127.0.0.1:{receiver.port}/"
    with Webhook(address, ABOUT, folder=tmp_path):
        with pytest.raises(EdgennError, match="give each its own device name"):
            Webhook(address, ABOUT, folder=tmp_path).open()
        with Webhook(address, replace(ABOUT, device="garden"), folder=tmp_path) as other:
            other.event(event(1))
            until(lambda: other.state()["sent"] == 1)


@pytest.mark.parametrize("held", [False, True])
def test_what_waits_under_the_name_of_earlier_versions_is_sent(held, receiver, tmp_path):
    address = f"http://127.0.0.1:{receiver.port}/"
    former = Webhook(address, ABOUT, folder=tmp_path)._former_path
    # The name as it was: a hash of the address alone.
    assert former.name == f"webhook-{hashlib.sha256(address.encode()).hexdigest()[:12]}.db"
    spool = Spool(former)
    spool.put(began(1), b"{}")
    if not held:
        spool.close()
    with Webhook(address, ABOUT, folder=tmp_path) as sink:
        sink.event(event(2))
        until(lambda: sink.state()["sent"] and not sink.state()["spooled"])
    assert receiver.keys() == ([] if held else [began(1)]) + [began(2)]
    assert former.exists() == held
    if held:
        assert len(spool) == 1
        spool.close()


def test_what_was_not_sent_is_sent_by_the_next_run(receiver, tmp_path):
    address = f"http://127.0.0.1:{receiver.port}/"
    receiver.answers = [(500, {})] * 1000
    with Webhook(address, ABOUT, folder=tmp_path) as sink:
        sink.event(event(1))
        sink.event(event(1, ended=True))
        until(lambda: receiver.requests)
    assert sink.state()["sent"] == 0
    receiver.answers.clear()
    receiver.requests.clear()
    with Webhook(address, ABOUT, folder=tmp_path) as sink:
        until(lambda: sink.state()["sent"] == 2)
    assert receiver.keys() == [began(1), ended(1)]
    with Webhook(address, ABOUT, folder=tmp_path) as sink:
        sink.event(event(2))
        until(lambda: sink.state()["sent"] == 1)
    assert receiver.keys() == [began(1), ended(1), began(2)]


def test_sigkill_loses_nothing_and_what_comes_twice_has_the_same_key(receiver, tmp_path):
    address = f"http://127.0.0.1:{receiver.port}/"
    acknowledged = []
    for kill in range(8):
        # Some of the time nobody answers, so that messages pile up in the file.
        receiver.answers = [(500, {})] * (kill % 3) * 2
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                sink = Webhook(address, ABOUT, folder=tmp_path)
                sink.open()
                number = 1000 * kill
                while True:
                    sink.event(event(number))
                    os.write(write, f"{number}\n".encode())
                    number += 1
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as reports:
            acknowledged += [reports.readline() for _ in range(kill + 1)]
            os.kill(child, signal.SIGKILL)
            acknowledged += list(reports)
        os.waitpid(child, 0)
    with Webhook(address, ABOUT, folder=tmp_path) as sink:
        until(lambda: sink.state()["spooled"] == 0)
    received = set(receiver.keys())
    wanted = {began(int(number)) for number in acknowledged}
    assert wanted <= received
    # Written, but killed before it was reported.
    assert len(received - wanted) <= 8
    by_key = {}
    for _, headers, body in receiver.requests:
        assert by_key.setdefault(headers["Idempotency-Key"], body) == body


def test_the_end_does_not_wait_for_a_receiver_that_hangs(receiver, hook, monkeypatch):
    monkeypatch.setattr(webhook, "_PATIENCE", 0.05)
    receiver.silent.set()
    with hook:
        hook.event(event(1))
        until(lambda: receiver.requests)
    assert hook._thread.is_alive()
    receiver.over.set()


@pytest.mark.parametrize(
    ("user", "token", "expected"),
    [
        ("", None, None),
        ("me:pass%40word@", None, "Basic " + base64.b64encode(b"me:pass@word").decode()),
        ("", "t0ken", "Bearer t0ken"),
        ("me:password@", "t0ken", "Bearer t0ken"),  # the environment is the safer place
    ],
)
def test_it_shows_who_it_is(user, token, expected, receiver, tmp_path, monkeypatch):
    if token is not None:
        monkeypatch.setenv("EDGENN_WEBHOOK_TOKEN", token)
    with Webhook(f"http://{user}127.0.0.1:{receiver.port}/", ABOUT, folder=tmp_path) as sink:
        sink.event(event(1))
        until(lambda: sink.state()["sent"] == 1)
    _, headers, _ = receiver.requests[0]
    assert headers.get("Authorization") == expected
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"


def test_no_secret_is_shown_anywhere(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("EDGENN_WEBHOOK_TOKEN", "hunter2")
    closed = Receiver()
    closed.close()
    with caplog.at_level(logging.DEBUG):
        sink = Queued(Webhook(f"http://u:hunter2@127.0.0.1:{closed.port}/hunter2?a=hunter2", ABOUT, folder=tmp_path))
        with sink:
            sink.event(event(1))
            until(lambda: sink.state()["error"])
    shown = caplog.text + sink.name + json.dumps(sink.state()) + " ".join(map(str, tmp_path.iterdir()))
    assert caplog.text
    assert "hunter2" not in shown
    assert not any(b"hunter2" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ask = "openssl req -x509 -nodes -days 1 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=127.0.0.1"
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    made = subprocess.run([*ask.split(), *where], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(context=context)
    address = f"https://127.0.0.1:{receiver.port}/"
    with Webhook(address, ABOUT, folder=tmp_path) as sink:
        sink.event(event(1))
        until(lambda: sink.state()["error"])
        assert "certificate verify failed" in sink.state()["error"].lower()
    assert receiver.requests == []
    # And taken where the system is told to trust it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        with Webhook(address, ABOUT, folder=tmp_path) as sink:
            until(lambda: sink.state()["sent"] == 1)
    assert receiver.keys() == [began(1)]
    receiver.close()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_opening_and_closing_leaves_nothing_behind(receiver, hook):
    before = threading.active_count(), descriptors()
    for _ in range(10):
        with hook:
            pass
    until(lambda: threading.active_count() <= before[0])
    assert descriptors() <= before[1]
