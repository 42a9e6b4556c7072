"""How devices are talked to: OpenSSH, with the user's configuration in force, and sshd processes of the test's own."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenn.deployment.connection import ENVIRONMENT, Connection, Unreachable
from edgenn.deployment.engine import Engine
from edgenn.deployment.hosts import Host
from edgenn.deployment.releases import rollback
from edgenn.deployment.remote import journal
from edgenn.deployment.status import status
from edgenn_device.errors import EdgennError

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)")
ME = getpass.getuser()
GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"


class Here:
    """Two sshd of this machine, `near` and `far`, and a configuration that reaches far by way of near."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.servers: list[subprocess.Popen[bytes]] = []
        for name in ("user", "near", "far", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        for name in ("near", "far"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[name] = free.getsockname()[1]
            (folder / f"{name}_config").write_text(
                f"ListenAddress 127.0.0.1:{self.ports[name]}\nHostKey {folder}/{name}\n"
                f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n"
                f"PermitRootLogin yes\nSetEnv PATH={folder}/tools:/usr/local/bin:/usr/bin:/bin\n"
            )
            if ME == "root":
                Path("/run/sshd").mkdir(exist_ok=True)
            assert SSHD is not None
            argv = [SSHD, "-D", "-e", "-f", str(folder / f"{name}_config")]
            self.servers.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
        (folder / "tools").mkdir()
        for server, port in zip(self.servers, self.ports.values(), strict=True):
            deadline = time.monotonic() + 30
            while server.poll() is None and time.monotonic() < deadline:
                with socket.socket() as trying:
                    if trying.connect_ex(("127.0.0.1", port)) == 0:
                        break
        self.configure()

    def known(self, name: str, key: str | None = None) -> str:
        return f"[127.0.0.1]:{self.ports[name]} {(self.folder / f'{key or name}.pub').read_text()}"

    def configure(self, *, known: str | None = None, user: str = ME, identity: str = "user") -> str:
        """The ssh command that takes this configuration."""
        (self.folder / "known").write_text(self.known("near") + self.known("far") if known is None else known)
        (self.folder / "ssh_config").write_text(
            f"Host near\n Port {self.ports['near']}\nHost far\n Port {self.ports['far']}\n ProxyJump near\n"
            f"Host *\n HostName 127.0.0.1\n User {user}\n IdentityFile {self.folder}/{identity}\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {self.folder}/known\n GlobalKnownHostsFile none\n"
        )
        return f"ssh -F {self.folder}/ssh_config"

    def tool(self, name: str, text: str) -> None:
        """A program that is found first on the device."""
        (self.folder / "tools" / name).write_text(text)
        (self.folder / "tools" / name).chmod(0o755)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    made = Here(tmp_path_factory.mktemp("ssh"))
    yield made
    for server in made.servers:
        server.kill()
        server.wait()


@pytest.fixture
def here(machine: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setenv(ENVIRONMENT, machine.configure())
    yield machine
    for tool in (machine.folder / "tools").iterdir():
        tool.unlink()


def host(name: str = "near") -> Host:
    return Host(name, name)


@pytest.mark.parametrize("name", ["near", "far"])  # directly, and by way of a jump host
def test_words_arrive_as_they_were_given(here: Here, name: str) -> None:
    words = ["printf", "%s|", "a b", "'", '"$(id)"', "ä", ""]
    with Connection(host(name)) as connection:
        assert connection.run(words).stdout == 'a b|\'|"$(id)"|ä||'
        done = connection.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], input=b"\x00\xff" * 3)
    assert (done.status, done.stderr) == (3, "wrong")


def test_one_login_serves_all_commands(here: Here) -> None:
    with Connection(host()) as connection:
        ports = {connection.run(["sh", "-c", "echo $SSH_CONNECTION"]).stdout for _ in range(3)}
    assert len(ports) == 1


def test_lines_are_told_as_they_come(here: Here) -> None:
    told: list[str] = []
    with Connection(host()) as connection:
        connection.run(["sh", "-c", "echo one >&2; echo two >&2"], told=told.append)
    assert told == ["one", "two"]


def test_a_command_that_never_ends_is_given_up(here: Here) -> None:
    with Connection(host()) as connection, pytest.raises(Unreachable, match="has not answered within 0 s"):
        connection.run(["sleep", "600"], timeout=0.3)


def test_files_are_carried_and_nobody_else_reads_them(here: Here, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(300_000))
    target = tmp_path / "there/deep"
    with Connection(host()) as connection:
        connection.put(str(target), [("a b", b"x"), ("sub/big", tmp_path / "big")])
        assert connection.get(f"{target}/a b") == b"x"
        with pytest.raises(EdgennError, match=r"cannot be read: .*No such file"):
            connection.get(f"{target}/nothing")
    assert (target / "sub/big").read_bytes() == (tmp_path / "big").read_bytes()
    assert target.stat().st_mode & 0o777 == 0o700
    assert (target / "a b").stat().st_mode & 0o777 == 0o600
    with Connection(host()) as connection, pytest.raises(EdgennError, match="cannot be written"):
        connection.put("/proc/nowhere", [("a", b"x")])


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("near", "near"),  # the device itself
        ("far", "far"),  # the device behind a jump host
        ("far", "near"),  # the jump host
    ],
)
def test_an_unknown_host_key_is_refused_with_the_line_to_type(here: Here, name: str, unknown: str) -> None:
    here.configure(known=here.known("far" if unknown == "near" else "near"))
    known = (here.folder / "known").read_text()
    with Connection(host(name)) as connection, pytest.raises(Unreachable) as refused:
        connection.run(["true"])
    port = here.ports[unknown]
    said = str(refused.value)
    assert f"ssh-keyscan -p {port} 127.0.0.1 | tee -a ~/.ssh/known_hosts | ssh-keygen -lf -" in said
    assert "compare" in said
    assert len(said.splitlines()) == 1
    # And not learned by the way.
    assert (here.folder / "known").read_text() == known


def test_another_host_key_than_before_is_refused(here: Here) -> None:
    here.configure(known=here.known("near", "other"))
    with Connection(host()) as connection, pytest.raises(Unreachable, match=r"another host key than before.*keygen"):
        connection.run(["true"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"identity": "other"}, "ssh-copy-id near"),  # a key that the device does not know
        ({"user": "nobody-of-that-name"}, "ssh-copy-id near"),  # nor the user
    ],
)
def test_who_is_not_let_in_is_told_how(here: Here, more: dict[str, str], said: str) -> None:
    here.configure(**more)  # type: ignore[arg-type]
    with Connection(host()) as connection, pytest.raises(Unreachable, match=said):
        connection.run(["true"])


def test_who_has_no_key_yet_is_told_to_make_one(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new home: there is no ~/.ssh for known hosts either."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    here.configure(known="")
    with Connection(host()) as connection, pytest.raises(Unreachable, match=r"mkdir -m 700 ~/\.ssh; ssh-keyscan"):
        connection.run(["true"])
    here.configure(identity="other")
    with (
        Connection(host()) as connection,
        pytest.raises(Unreachable, match="ssh-keygen -t ed25519 && ssh-copy-id near"),
    ):
        connection.run(["true"])
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").touch()
    with Connection(host()) as connection, pytest.raises(Unreachable, match="without a password: ssh-copy-id near"):
        connection.run(["true"])


def test_ctrl_c_says_what_becomes_of_the_device_and_nothing_else(here: Here, tmp_path: Path) -> None:
    there = tmp_path / "there"
    # The first thing that is asked of a device begins with it.
    here.tool("mktemp", f"#!/bin/sh\ntouch {there}\nexec sleep 600\n")
    with subprocess.Popen(
        [sys.executable, "-c", "from edgenn.cli import main; main()", "deploy", str(GARMENTS), "near"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores it, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as deploying:
        deadline = time.monotonic() + 60
        while not there.exists() and deploying.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        deploying.send_signal(signal.SIGINT)
        try:
            out, said = deploying.communicate(timeout=60)
        finally:
            deploying.kill()
    assert (deploying.returncode, out) == (130, "")
    assert said.split("\n") == [
        "",
        "a device that was about to switch finishes that by itself: edgenn status near",
        "",
        "edgenn: interrupted",
        "",
    ]


def test_a_device_that_is_away_is_one_line(here: Here) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = Host("away", "127.0.0.1", port=free.getsockname()[1])
    with (
        Connection(away) as connection,
        pytest.raises(Unreachable, match=r"away cannot be reached: .*refused; .* enable"),
    ):
        connection.run(["true"])


def test_a_name_that_nobody_knows_says_to_give_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").write_text("")
    monkeypatch.setenv(ENVIRONMENT, f"ssh -F {tmp_path / 'empty'}")
    with (
        Connection(Host("away", "nowhere.invalid")) as connection,
        pytest.raises(Unreachable, match=r"Could not resolve .*give its address"),
    ):
        connection.run(["true"])


@pytest.mark.skipif(ME == "root", reason="root needs no sudo")
def test_sudo_is_used_by_others() -> None:
    assert "sudo -n" in " ".join(Connection(host()).command(["true"], sudo=True))


def test_sudo_that_asks_for_a_password_is_one_line_and_a_line_to_type(here: Here) -> None:
    # Root's own commands go without: as another user would see it.
    here.tool("id", "#!/bin/sh\necho 1000\n")
    here.tool("sudo", "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    near = Host("near", "near", user=ME)
    with Connection(near) as connection, pytest.raises(EdgennError) as refused:
        connection.run(["true"], sudo=True)
    assert f'echo "{ME} ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/010-edgenn' in str(refused.value)
    # Where the device's name stands in front already it is not said again, and the journal's reader says the same.
    told = [status([near])[0].reasons[0], rollback([near])[0].reason, next(journal([near], lines=1, follow=False)).text]
    assert told == [str(refused.value).removeprefix("near: ")] * 3


def test_the_options_of_a_person_hold_and_no_password_is_asked_for(here: Here) -> None:
    words = Connection(Host("porch", "porch.local", "pi", 2222, "/keys/porch")).command(["true"])
    line = shlex.join(words)
    assert line.startswith(f"ssh -F {here.folder}/ssh_config ")
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "-p 2222", "-i /keys/porch", "-- pi@porch.local"):
        assert option in line


def test_facts_of_several_devices_at_once_by_pyinfra(here: Here) -> None:
    """The tool itself, which needs nothing there but Python; one device that is away does not keep the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = Host("away", "127.0.0.1", port=free.getsockname()[1])
    connections = {one.name: Connection(one) for one in (host("near"), away, host("far"))}
    try:
        with Engine(connections) as engine:
            said = engine.facts()
            assert {name: (found["bits"], found["current"]) for name, found in said.items()} == {
                "near": (64, None),
                "far": (64, None),
            }
            assert engine.failures["away"].reached is False
            assert "refused" in engine.failures["away"].reason
    finally:
        for connection in connections.values():
            connection.close()


def test_a_device_that_cannot_say_what_it_is_says_why(here: Here) -> None:
    here.tool("mktemp", "#!/bin/sh\necho 'mktemp: No space left on device' >&2\nexit 1\n")
    connections = {"near": Connection(host())}
    with Engine(connections) as engine:
        assert engine.facts() == {}
        assert engine.failures["near"].reached
        assert engine.failures["near"].reason == "near: mktemp: No space left on device"
    connections["near"].close()
