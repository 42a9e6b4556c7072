"""POST /classify and what stands beside it, over real HTTP."""

import json
import struct
import threading
from itertools import islice

import cv2
import numpy as np
import pytest

from edgenn_device.classifier import Classifier
from edgenn_device.picture_header import read_header
from tests.serving.conftest import until
from tools.malformed_bodies import malformed


def form(*parts: tuple[str, bytes], last: bytes = b"--b--\r\n") -> bytes:
    head = b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n"
    return b"".join(head % (disposition.encode(), content) for disposition, content in parts) + last


FORM = "multipart/form-data; boundary=b"
FILE = 'name="image"; filename="a.png"'


def test_a_picture_gets_what_the_classifier_says(server, model, picture):
    expected = Classifier(model, threads=1).classify(picture)
    answer = server.post(picture, Content_Type="image/png")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    said = answer.json
    assert said.pop("latency_ms") > 0
    assert said == {
        "label": expected.label,
        "confidence": expected.confidence,
        "top": [list(pair) for pair in expected.top],
        "model": "tiny",
    }
    assert len(server.post(picture, "/classify?top=1").json["top"]) == 1


@pytest.mark.parametrize(
    "parts",
    [
        [(FILE, b"PICTURE")],  # curl -F image=@a.png
        [('name="anything"; filename="x"', b"PICTURE"), ('name="note"', b"text")],  # other fields are passed over
        [('name="image"', b"PICTURE")],  # a field, of a client that gives no file name
    ],
)
def test_a_form_gets_the_same_answer(server, picture, parts):
    parts = [(disposition, content.replace(b"PICTURE", picture)) for disposition, content in parts]
    assert server.post(form(*parts), Content_Type=FORM).json["top"] == server.post(picture).json["top"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"", {}, 400, "empty"),  # nothing
        (b"hello", {}, 400, "not a picture"),  # text
        (form((FILE, b"")), {"Content_Type": FORM}, 400, "empty"),  # an empty file
        (form((FILE, b"x"), (FILE, b"y")), {"Content_Type": FORM}, 400, "2 files"),  # two pictures
        (form(), {"Content_Type": FORM}, 400, "0 files"),  # none
        (form((FILE, b"x"), last=b""), {"Content_Type": FORM}, 400, "last boundary"),  # a form cut short
        (b"xx", {"Content_Type": "multipart/form-data"}, 400, "boundary"),  # no boundary declared
        (b"x", {"Content_Encoding": "gzip"}, 415, "compressed"),  # compression could hide any size
    ],
)
def test_what_is_wrong_is_one_line(server, body, headers, status, said):
    answer = server.post(body, **headers)
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert said in answer.json["error"]
    assert "\n" not in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/classify", 405),  # the wrong method
        ("GET", "/", 404),  # no such path
        ("POST", "/classify?top=0", 400),  # no labels
        ("POST", "/classify?top=-1", 400),
        ("POST", "/classify?top=" + "9" * 5000, 400),  # more digits than int() takes
        ("GET", "/%ff%00", 404),  # no text
    ],
)
def test_a_wrong_request_is_an_error_in_json(server, picture, method, path, status):
    answer = server.ask(method, path, picture)
    assert answer.status == status
    assert list(answer.json) == ["error"]


def test_below_the_cards_confidence_it_is_unknown(start, picture):
    with start() as server:
        server.service._minimum = 1.1
        said = server.post(picture).json
    assert said["label"] == "unknown"
    assert said["top"][0][1] == said["confidence"]


def test_more_pixels_than_allowed_are_not_decoded(start):
    picture = cv2.imencode(".png", np.zeros((100, 101, 3), np.uint8))[1].tobytes()
    assert read_header(picture).width == 101
    with start(pixels=10_100) as server:
        assert server.post(picture).status == 200
    with start(pixels=10_099) as server:
        answer = server.post(picture)
        assert (answer.status, "101x100" in answer.json["error"]) == (413, True)
        # So many that nothing here decodes them: a header of BMP that says so.
        size = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 8, 1, *[0] * 5)
        answer = server.post(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + size)
        assert (answer.status, "0.010099 million" in answer.json["error"]) == (413, True)


@pytest.mark.parametrize("coding", ["identity", "Identity", "IDENTITY "])
def test_a_body_that_is_called_uncompressed_is_read(server, picture, coding):
    assert server.post(picture, Content_Encoding=coding).status == 200


def test_hundreds_of_malformed_bodies_are_refused_and_it_still_serves(server, picture):
    jpeg = cv2.imencode(".jpg", np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    for request in islice(malformed(jpeg, "/v2/models/tiny/infer", seed=1), 300):
        answer = server.ask("POST", request.path, request.body, **request.headers)
        assert 400 <= answer.status < 500, (request, answer)
        assert list(answer.json) == ["error"]
    assert server.post(picture).status == 200


def test_many_clients_at_once_get_each_their_own_answer(server, tiny, model):
    paths = sorted((tiny / "photos").rglob("*.png"))[::5]
    classifier = Classifier(model, threads=1)
    wrong = []

    def client(mine):
        for path in mine:
            expected = classifier_scores[path]
            if server.post(path.read_bytes()).json["top"] != expected:
                wrong.append(path)

    classifier_scores = {path: [list(pair) for pair in classifier.classify(path).top] for path in paths}
    threads = [threading.Thread(target=client, args=(paths[n:] + paths[:n],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_full_queue_refuses_at_once_and_forgets_nobody(start, picture):
    answers = []
    with start(workers=2, queue=3) as server:
        threads = [threading.Thread(target=lambda: answers.append(server.post(picture).status)) for _ in range(5)]
        with server.stalled():
            for thread in threads:
                thread.start()
            until(lambda: server.service.pool.full)
            assert server.metric("edgenn_queue_depth") == 3
            assert server.metric("edgenn_in_flight") == 5
            refused = server.post(picture)
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"
            assert list(refused.json) == ["error"]
            with server.socket() as connection:  # before it has sent its body, too
                connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 503")
            # The house is full, and alive.
            assert server.ask("GET", "/v2/health/live").status == 200
            assert server.ask("GET", "/v2/health/ready").status == 200
            assert not answers
        for thread in threads:
            thread.join()
        assert answers == [200] * 5
        assert server.metric("edgenn_queue_depth") == server.metric("edgenn_in_flight") == 0
        assert server.post(picture).status == 200
        assert server.service._bodies == 0


def test_a_queue_that_fills_while_a_body_comes_refuses_it_too(start, picture):
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(picture)
    with start(workers=1, queue=1) as server, server.socket() as late:
        late.sendall(head + picture[:10])
        until(lambda: server.service.in_flight == 1)
        with server.stalled(), server.socket() as first, server.socket() as second:
            first.sendall(head + picture)
            second.sendall(head + picture)
            until(lambda: server.service.pool.full)
            late.sendall(picture[10:])
            assert late.recv(65536).startswith(b"HTTP/1.1 503")


def test_who_waited_too_long_is_refused(start, picture):
    with start(workers=1) as server:
        statuses = []
        threads = [threading.Thread(target=lambda: statuses.append(server.post(picture).status)) for _ in range(2)]
        with server.stalled():
            for thread in threads:
                thread.start()
            until(lambda: server.service.pool.depth == 1 and server.service.pool.running == 1)
            server.service.pool.patience = -1.0  # from now on everybody has waited for longer
        for thread in threads:
            thread.join()
        # One was with the interpreter already, the other found it free too late.
        assert sorted(statuses) == [200, 503]
        assert not server.service.pool.full


def test_no_work_is_done_for_who_has_left(start, picture):
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(picture)
    with start(workers=1) as server:
        with server.stalled():
            with server.socket() as connection:
                connection.sendall(head + picture)
                until(lambda: server.service.pool.running == 1)
                with server.socket() as second:
                    second.sendall(head + picture)
                    until(lambda: server.service.pool.depth == 1)
            until(lambda: not server.server.server_state.connections)
        until(lambda: server.service.in_flight == 0)
        assert server.metric('edgenn_requests_total{endpoint="classify",status="499"}') == 2
        assert server.metric('edgenn_stage_seconds_count{stage="invoke"}') == 0
        assert server.post(picture).status == 200


def test_metrics_tell_what_happened(start, picture):
    with start() as server:
        for _ in range(3):
            server.post(picture)
        server.post(b"no picture")
        server.ask("GET", "/nothing")
        answer = server.ask("GET", "/metrics")
    text = answer.content.decode()
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'edgenn_requests_total{endpoint="classify",status="200"} 3.0' in text
    assert 'edgenn_requests_total{endpoint="classify",status="400"} 1.0' in text
    assert 'edgenn_requests_total{endpoint="none",status="404"} 1.0' in text
    assert 'edgenn_request_seconds_count{endpoint="classify"} 3.0' in text
    assert 'edgenn_stage_seconds_count{stage="invoke"} 3.0' in text
    assert "edgenn_queue_depth 0.0" in text
    assert "process_resident_memory_bytes" in text


def test_a_defect_is_one_line_for_the_client(start, picture, caplog, monkeypatch):
    with start() as server:

        def broken(*_):
            raise KeyError("secret detail")

        monkeypatch.setattr(Classifier, "result", broken)
        for _ in range(2):
            answer = server.post(picture)
            assert (answer.status, json.loads(answer.content)) == (500, {"error": "a defect in edgenn: KeyError"})
        monkeypatch.undo()
        assert server.post(picture).status == 200
    assert caplog.text.count("secret detail") == 1  # who can bring it about cannot fill a disk
    assert "Traceback" not in caplog.text
