"""How one talks to a device: OpenSSH's own client, so that the user's configuration, agent, jump hosts and known hosts
hold as they do in a terminal.

Host keys are always checked and never learned here, no password is ever asked for, and nothing secret stands on a
command line. One authenticated connection is shared by all commands to a device.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from edgenn_device.errors import EdgennError

from .hosts import Host

# The ssh command, for those who need another configuration (`ssh -F fleet/ssh_config`), as GIT_SSH_COMMAND is git's.
ENVIRONMENT = "EDGENN_SSH"
# Seconds for TCP and for the handshake: a Pi Zero takes 3.
_CONNECT = 15
# What nothing here may weaken. Multiplexing: a handshake costs a small board a second, a further command 20 ms.
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={_CONNECT}",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
)
# Seconds that the shared connection outlives its last command, should nobody be left to end it.
_LEFT_OPEN = 60
# For both and a jump host before them.
_PATIENCE = 60
_FAILED = 255
# sudo's own words, and those of sudo-rs (Debian 14, Ubuntu 25.10).
_SUDO_ASKS = re.compile(r"^sudo(-rs)?: .*(password|authentication|terminal)", re.MULTILINE)
# As root at once, or by sudo; -n: never asks for a password.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -n -- "$@"; fi'


class Unreachable(EdgennError):
    """The device does not answer, or not as the one that is known; the text says what to type."""


@dataclass(frozen=True)
class Done:
    """A command that has ended on a device: its exit status, and what it wrote."""

    status: int
    stdout: str
    stderr: str


class Connection:
    """Entered before commands are run; leaving it ends the shared connection.

    Args:
      host: the device.

    Raises:
      Unreachable: by every method, when the device cannot be reached or its key is not known.

    >>> with Connection(host("pi@porch.local")) as device:          # doctest: +SKIP
    ...     device.run(["uname", "-m"]).stdout
    'aarch64\\n'
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._open = False
        self._folder = tempfile.TemporaryDirectory(prefix="edgenn-ssh-")
        command = shlex.split(os.environ.get(ENVIRONMENT, "")) or ["ssh"]
        if shutil.which(command[0]) is None:
            raise EdgennError(f"{command[0]} is missing: sudo apt install -y openssh-client")
        options = [*_OPTIONS, f"ControlPath={self._folder.name}/%C"]
        self._ssh = [*command, *(part for option in options for part in ("-o", option))]
        self.ssh = [*self._ssh]
        if host.port is not None:
            self.ssh += ["-p", str(host.port)]
        if host.identity is not None:
            self.ssh += ["-i", host.identity]

    def __enter__(self) -> Self:
        return self

    def open(self) -> None:
        """Make the connection that all commands share, if there is none yet.

        Raises:
          Unreachable: it cannot be made, or the device's key is not the known one.
        """
        if self._open:
            return
        with tempfile.TemporaryFile() as errors:
            # In the background once the device has let us in. Its errors go to a file, since it keeps them open.
            master = ("-o", "ControlMaster=yes", "-o", f"ControlPersist={_LEFT_OPEN}", "-fN")
            argv = [*self.ssh, *master, "--", self.host.destination]
            try:
                done = subprocess.run(
                    # Without a terminal: the process for a jump host would ask there whether it may trust.
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    timeout=_PATIENCE,
                    start_new_session=True,
                )
            except subprocess.TimeoutExpired:
                raise Unreachable(f"{self.host.name} has not let us in within {_PATIENCE} s") from None
            errors.seek(0)
            if done.returncode:
                raise Unreachable(self._why(errors.read().decode(errors="replace")))
        self._open = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the shared connection, if there is one; the next command makes another."""
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            subprocess.run([*self.ssh, "-O", "exit", "--", self.host.destination], capture_output=True)

    def command(self, argv: Sequence[str], *, sudo: bool = False) -> list[str]:
        """The command line of this machine that runs `argv` there, for whoever reads its output as it comes."""
        words = ["sh", "-c", _AS_ROOT, "sh", *argv] if sudo else argv
        return [*self.ssh, "--", self.host.destination, shlex.join(words)]

    def run(
        self,
        argv: Sequence[str],
        *,
        sudo: bool = False,
        input: bytes | IO[bytes] | None = None,
        timeout: float = 120.0,
        told: Callable[[str], None] | None = None,
    ) -> Done:
        """Run a command there.

        Args:
          argv: its words; no shell takes them apart.
          sudo: as root.
          input: for its standard input.
          timeout: in seconds.
          told: is given each line of its standard error as it comes, on a thread of its own.

        Returns:
          How it ended, whatever its exit status.

        Raises:
          Unreachable: no connection, or none within the time.
          EdgennError: sudo asks for a password there.
        """
        self.open()
        given = subprocess.DEVNULL if input is None else subprocess.PIPE if isinstance(input, bytes) else input
        process = subprocess.Popen(
            self.command(argv, sudo=sudo), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        errors: list[str] = []

        def listen() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                text = line.decode(errors="replace").rstrip()
                errors.append(text)
                if told is not None:
                    told(text)

        def feed() -> None:
            assert process.stdin is not None
            assert isinstance(input, bytes)
            try:
                with process.stdin as pipe:
                    pipe.write(input)
            except OSError:
                pass  # It ended without reading all; its status says why.

        threads = [threading.Thread(target=listen, daemon=True)]
        if isinstance(input, bytes):
            threads.append(threading.Thread(target=feed, daemon=True))

        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()
            # The shared connection holds the pipes of what still runs there.
            self._end()

        timer = threading.Timer(timeout, give_up)
        for thread in (*threads, timer):
            thread.start()
        try:
            assert process.stdout is not None
            with process.stdout as pipe:
                stdout = pipe.read().decode(errors="replace")
            status = process.wait()
        finally:
            timer.cancel()
            for thread in threads:
                thread.join()
        stderr = "\n".join(errors)
        if late.is_set() and status < 0:
            raise Unreachable(f"{self.host.name} has not answered within {timeout:.0f} s: is it on, and near enough?")
        if status == _FAILED:
            raise Unreachable(self._why(stderr))
        if sudo and status == 1 and _SUDO_ASKS.search(stderr):
            raise EdgennError(_no_sudo(self.host))
        return Done(status, stdout, stderr)

    def put(
        self,
        folder: str,
        files: Iterable[tuple[str, bytes | Path]],
        *,
        sudo: bool = False,
        timeout: float = 3600.0,
    ) -> None:
        """Write files below a folder of the device, in one stream; what is written only its owner can read.

        Args:
          folder: is made if it is not there.
          files: (name below the folder, content or the file of this machine).
          sudo: as root.

        Raises:
          EdgennError: they cannot be written there.
        """
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                for name, content in files:
                    info = tarfile.TarInfo(name)
                    info.mode = 0o600
                    if isinstance(content, bytes):
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
                    else:
                        info.size = content.stat().st_size
                        with content.open("rb") as file:
                            archive.addfile(info, file)
            packed.seek(0)
            parent = str(PurePosixPath(folder).parent)
            script = 'mkdir -p -- "$2" && umask 077 && mkdir -p -- "$1" && exec tar -xf - --no-same-owner -C "$1"'
            done = self.run(["sh", "-c", script, "sh", folder, parent], sudo=sudo, input=packed, timeout=timeout)
        if done.status:
            raise EdgennError(f"{self.host.name}: {folder} cannot be written: {_last(done.stderr)}")

    def get(self, path: str, *, sudo: bool = False, timeout: float = 600.0) -> bytes:
        """The content of a file there.

        Raises:
          EdgennError: there is none, or it cannot be read.
        """
        self.open()
        argv = self.command(["cat", "--", path], sudo=sudo)
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self.host.name} has not answered within {timeout:.0f} s") from None
        stderr = done.stderr.decode(errors="replace")
        if done.returncode == _FAILED:
            raise Unreachable(self._why(stderr))
        if done.returncode:
            raise EdgennError(f"{self.host.name}: {path} cannot be read: {_last(stderr)}")
        return done.stdout

    def _why(self, stderr: str) -> str:
        """One line of what ssh said, with the line to type."""
        why = _known_reason(stderr, self.host.name, self.typed(self.host, "ssh-copy-id"))
        if why:
            return why
        # Of what keeps it from the jump host ssh says nothing: that one is asked by itself.
        jump = self._configured(self.host.destination).get("proxyjump", "").split(",")[0]
        if jump:
            argv = [*self._ssh, "-o", "ControlPath=none", "--", jump, "true"]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode == _FAILED:
                why = _known_reason(done.stderr, jump, f"ssh-copy-id {jump}") or _last(done.stderr)
                return f"{self.host.name} is behind the jump host {jump}: {why}"
        return f"{self.host.name} cannot be reached: {_last(stderr).removeprefix('ssh: ')}{_what_to_do(stderr)}"

    def _configured(self, destination: str) -> dict[str, str]:
        """What the user's configuration says of a destination (`ssh -G`)."""
        done = subprocess.run([*self._ssh, "-G", "--", destination], capture_output=True, text=True)
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    @staticmethod
    def typed(host: Host, command: str = "ssh") -> str:
        """What a person types to get there."""
        port = f" -p {host.port}" if host.port else ""
        identity = f" -i {shlex.quote(host.identity)}" if host.identity else ""
        return f"{command}{port}{identity} {host.destination}"


def _known_reason(stderr: str, name: str, let_in: str) -> str:
    """What can be mended by a line to type; "" for anything else."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
        place = re.search(r"remove with:\s*(ssh-keygen [^\r\n]*)", stderr)
        return (
            f"{name} has another host key than before: somebody else may be answering, or its system is new. "
            f"If you know that it is new: {place[1].strip() if place else f'ssh-keygen -R {name}'}"
        )
    unknown = re.search(r"No \S+ host key is known for (\S+) and you have requested strict checking", stderr)
    if unknown:
        place = re.fullmatch(r"\[(.+)\]:(\d+)", unknown[1])
        scan = f"ssh-keyscan -p {place[2]} {place[1]}" if place else f"ssh-keyscan {unknown[1]}"
        if not (Path.home() / ".ssh").is_dir():
            scan = f"mkdir -m 700 ~/.ssh; {scan}"
        return (
            f"the host key of {unknown[1]} is not known: {scan} | tee -a ~/.ssh/known_hosts | ssh-keygen -lf - and "
            "compare what it shows with what the device shows for ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
        )
    if "Permission denied" in stderr:
        # ssh-copy-id has nothing to copy then.
        key = "" if _has_key() else "ssh-keygen -t ed25519 && "
        return f"{name} does not let you in without a password: {key}{let_in}"
    return ""


def _has_key() -> bool:
    """Whether this user has a key where ssh looks by itself, or an agent that may hold one."""
    return bool(os.environ.get("SSH_AUTH_SOCK")) or any((Path.home() / ".ssh").glob("id_*.pub"))


def _what_to_do(stderr: str) -> str:
    """Of a device that does not answer at all, told by the words of the C library."""
    if "Could not resolve hostname" in stderr:
        return "; check the name, or give its address, as in pi@192.168.1.20"
    if "Connection refused" in stderr:
        return "; on the device type: sudo systemctl enable --now ssh"
    if re.search("timed out|No route to host|Host is down|Network is unreachable", stderr):
        return "; is it on, and in this network?"
    return ""


def _no_sudo(host: Host) -> str:
    user = host.user or "$USER"
    return (
        f"{host.name}: sudo asks {host.user or 'you'} for a password there; on the device type: "
        f'echo "{user} ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/010-edgenn'
    )


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it says nothing"
