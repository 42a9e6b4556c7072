"""`edgenn serve` as an operator uses it: a process, its socket and its signals."""

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving.conftest import until

EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]


@pytest.fixture(scope="session")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


@pytest.fixture(scope="session")
def picture(tiny: Path) -> bytes:
    return (tiny / "photos" / "square" / "00.png").read_bytes()


@contextmanager
def serving(model: Path, *arguments: object, **environment: str):
    """A process that accepts connections, and the document it printed."""
    process = subprocess.Popen(
        [*EDGENN, "serve", str(model), "--port", "0", "--json", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()


def ask(told: dict, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(told["url"].removeprefix("http://"), timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.read()


def half_sent(told: dict, picture: bytes) -> socket.socket:
    """A request that is in the house and cannot end before its client sends the rest."""
    host, _, port = told["url"].removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture)}\r\n\r\n"
    connection.sendall(head.encode() + picture[:10])
    until(lambda: b"edgenn_in_flight 1.0" in ask(told, "GET", "/metrics")[1])
    return connection


@pytest.mark.parametrize(
    "name",
    [
        "..",  # clients take it out of a path
        ".",  # this too
        "a/b",  # two names
        "\udcff",  # not UTF-8: no answer could hold it
        "a\nb",  # an answer's head would end within it
    ],
)
def test_a_name_that_cannot_stand_in_an_address_is_refused(model, name):
    done = subprocess.run([*EDGENN, "serve", str(model), "--name", name, "--port", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the name {name!r} cannot stand in an address" in done.stderr


def test_it_serves_and_ends_well(model, picture):
    with serving(model) as (process, told):
        assert told["model"] == "run"
        assert told["url"].startswith("http://127.0.0.1:")
        assert told["workers"] == len(os.sched_getaffinity(0))
        assert told["token_file"] is None
        status, content = ask(told, "POST", "/classify", picture)
        assert (status, set(json.loads(content))) == (200, {"label", "confidence", "top", "latency_ms", "model"})
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_it_ends(model, picture, number):
    with serving(model) as (process, told):
        connection = half_sent(told, picture)
        process.send_signal(number)
        until(lambda: ask(told, "GET", "/v2/health/ready")[0] == 503)
        assert ask(told, "GET", "/v2/health/live")[0] == 200
        assert ask(told, "GET", "/v2/models/run/ready")[0] == 503
        assert ask(told, "POST", "/classify", picture)[0] == 503
        assert process.poll() is None
        connection.sendall(picture[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


def test_who_does_not_finish_does_not_keep_it(model, picture):
    with serving(model, "--drain", "0.2") as (process, told):
        connection = half_sent(told, picture)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 1
        assert "1 requests were cut off" in process.stderr.read()
        connection.close()


def test_a_second_signal_ends_it_at_once(model, picture):
    with serving(model, "--drain", "3600") as (process, told):
        connection = half_sent(told, picture)
        process.send_signal(signal.SIGINT)
        until(lambda: ask(told, "GET", "/v2/health/ready")[0] == 503)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 1
        assert "Traceback" not in process.stderr.read()
        connection.close()


def test_beyond_this_machine_a_token_is_demanded(model, picture, tmp_path):
    with serving(model, "--host", "0.0.0.0", XDG_CONFIG_HOME=str(tmp_path)) as (process, told):
        path = Path(told["token_file"])
        assert path.parent.parent == tmp_path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = path.read_text().strip()
        assert ask(told, "POST", "/classify", picture)[0] == 401
        assert ask(told, "POST", "/classify", picture, Authorization=f"Bearer {token}")[0] == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert token not in out + err + json.dumps(told)


def test_a_token_file_is_demanded_on_this_machine_too(model, picture, tmp_path):
    path = tmp_path / "token"
    path.write_text("a-token-of-enough-characters")
    path.chmod(0o600)
    with serving(model, "--token-file", path) as (_, told):
        assert ask(told, "POST", "/classify", picture)[0] == 401


def test_what_cannot_be_served_is_one_line(model, tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    readable = tmp_path / "token"
    readable.write_text("a-token-of-enough-characters")
    readable.chmod(0o644)
    for arguments, said in (
        (["nowhere.tflite"], "nowhere.tflite"),  # no model
        (
            [model, "--port", taken.getsockname()[1]],
            "(Address already in use): choose another --port",
        ),  # the port is taken
        ([model, "--host", "192.0.2.1"], "192.0.2.1"),  # an address of another machine
        ([model, "--token-file", readable], "chmod 600"),  # a token that others read
        ([model, "--name", "a/b"], "--name"),  # a name that is no path
    ):
        done = subprocess.run(
            [*EDGENN, "serve", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
            timeout=120,
        )
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    taken.close()


def test_without_the_extra_it_says_what_to_install(model):
    code = "import sys; sys.modules['starlette.applications'] = None\nfrom edgenn.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve", str(model)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'edgenn[serve]'" in done.stderr
