"""Over real SSH, to an sshd of the test's own on this machine: what is asked, the journal, and what goes wrong."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from edgenn.cli.logs import command as logs
from edgenn.deployment.connection import ENVIRONMENT, Connection, Unreachable
from edgenn.deployment.hosts import Host, host
from edgenn.deployment.remote import ask, journal, printable, profile
from edgenn_device.errors import EdgennError

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)")

# What a device's journal says; the second line comes in two, and steers terminals.
PAST = """\
2026-11-22T15:23:12.000001+0000 edgenn[7]: coat 93%
2026-11-22T15:23:14.000002+0000 edgenn[7]: Traceback
    \x1b[2Jwhat is wrong
"""
# journalctl of systemd 252; with --follow it goes on until it is killed.
JOURNALCTL = f"""\
#!/bin/sh
case "$*" in *--utc*_SYSTEMD_UNIT=edgenn.service*+*_PID=1*+*SYSLOG_IDENTIFIER=edgenn-releases) ;; *) exit 9 ;; esac
cat <<'JOURNAL'
{PAST}JOURNAL
case "$*" in *--follow*) exec sleep 600 ;; esac
"""
SUDO = '#!/bin/sh\nshift 2\nexec "$@"\n'


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A command `ssh -F …` that reaches this machine as `one` and `two`, and a port at which nobody is as `away`."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("journalctl", JOURNALCTL), ("sudo", SUDO)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.socket() as free, socket.socket() as other:
        free.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, nobody = free.getsockname()[1], other.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PidFile none\nStrictModes no\nUsePAM no\nMaxSessions 20\nPermitRootLogin yes\n"
        f"SetEnv PATH={tools}:/usr/local/bin:/usr/bin:/bin\n"
    )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"Host one two\n Port {port}\nHost away\n Port {nobody}\nHost *\n HostName 127.0.0.1\n"
        f" User {getpass.getuser()}\n IdentityFile {folder}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known\n"
    )
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd shuts its unprivileged half in
    assert SSHD is not None
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while server.poll() is None and time.monotonic() < deadline:
            with socket.socket() as trying:
                if trying.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield f"ssh -F {folder}/ssh_config"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def one(here: str, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv(ENVIRONMENT, here)
    return host("one")


def script(folder: Path, text: str) -> ModuleType:
    module = ModuleType("script")
    module.__file__ = str(folder / "script.py")
    Path(module.__file__).write_text(text)
    return module


def test_a_script_is_sent_asked_and_leaves_nothing(tmp_path: Path, one: Host) -> None:
    answers = script(tmp_path, "import json, sys\nprint(json.dumps([json.load(sys.stdin), sys.argv[1:], __name__]))\n")
    with Connection(one) as connection:
        said = ask(connection, answers, {"größe": "\x00' ; \" $(id)"})
    assert said == [{"größe": "\x00' ; \" $(id)"}, [str((tmp_path / "script.py").stat().st_size)], "__main__"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit('no such thing')", "one: no such thing"),
        ("print('hello')", "one: it answers something that is no JSON"),
        ("print('[' * 100000)", "one: it answers something that is no JSON"),  # deeper than Python's stack
        ("import sys\nsys.stderr.write('a\\x1b[2Jb')\nsys.exit(3)", r"one: a \[2Jb"),
    ],
)
def test_a_script_that_fails_is_one_line(tmp_path: Path, one: Host, text: str, said: str) -> None:
    with Connection(one) as connection, pytest.raises(EdgennError, match=said):
        ask(connection, script(tmp_path, text))


def test_journals_are_put_together_by_time(one: Host) -> None:
    entries = list(journal([one, host("two")], lines=5))
    assert [(entry.host, entry.time[17:19], entry.text) for entry in entries] == [
        ("one", "12", "edgenn[7]: coat 93%"),
        ("two", "12", "edgenn[7]: coat 93%"),
        ("one", "14", "edgenn[7]: Traceback"),
        ("one", "14", "     [2Jwhat is wrong"),
        ("two", "14", "edgenn[7]: Traceback"),
        ("two", "14", "     [2Jwhat is wrong"),
    ]


def test_followed_until_nobody_listens(here: str, one: Host) -> None:
    following = journal([one, host("two")], follow=True)
    seen = [next(following) for _ in range(6)]
    assert {entry.host for entry in seen} == {"one", "two"}
    following.close()
    # No ssh of it goes on, nor the connection that it shared; test_fleet_device sees what journalctl does on a device.
    assert not _running(here)


def _running(word: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in said:
            found.append(said)
    return found


def test_a_device_that_is_away_is_one_line_and_stops_nobody(one: Host) -> None:
    entries = list(journal([host("away"), one]))
    assert [entry.host for entry in entries if not entry.time] == ["away"]
    assert "away cannot be reached" in entries[0].text
    assert sum(entry.host == "one" for entry in entries) == 3


def test_the_verb(one: Host) -> None:
    done = CliRunner().invoke(logs, ["one", "-n", "3"], catch_exceptions=False)
    assert done.stdout.splitlines() == [
        "one  2026-11-22 15:23:12.000  edgenn[7]: coat 93%",
        "one  2026-11-22 15:23:14.000  edgenn[7]: Traceback",
        "one  2026-11-22 15:23:14.000       [2Jwhat is wrong",
    ]
    lines = CliRunner().invoke(logs, ["--json", "one"], catch_exceptions=False).stdout.splitlines()
    assert lines[0] == '{"host": "one", "time": "2026-11-22T15:23:12.000001", "text": "edgenn[7]: coat 93%"}'
    assert str(CliRunner().invoke(logs, ["one", "away"]).exception) == "the journal of away could not be read"


def test_a_profile_without_a_release(tmp_path: Path, one: Host) -> None:
    if Path("/opt/edgenn/current").exists():
        pytest.skip("this machine is a device")
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x")
    with pytest.raises(EdgennError, match="one has no release to measure with: edgenn deploy MODEL one"):
        profile(one, [model], [], {"--out.json": "report.json"})
    with pytest.raises(EdgennError, match="there is no file"):
        profile(one, [tmp_path / "none"], [], {})
    with pytest.raises(Unreachable):
        profile(host("away"), [model], [], {})


def test_printable_has_an_end() -> None:
    assert printable("a\x1b]0;title\x07\u202eb\r\n") == "a ]0;title  b"
    assert len(printable("x" * 100_000)) == 4000
