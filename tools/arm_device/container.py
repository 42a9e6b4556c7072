"""One test device: a copy-on-write disk, a systemd-nspawn container on it, and an SSH port on 127.0.0.1.

Everything it mounts lives in a mount namespace of its own, so that nothing stays behind when it dies. `kill` ends all
processes at the same instant, which to a program is what the loss of power is; but it does not lose what programs wrote
and the kernel has not yet put on the disk.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.arm_device.emulation import NATIVE, hold, let_go
from tools.arm_device.roots import cache, root
from tools.arm_device.unavailable import DeviceUnavailable, cgroup2, require_machine

USER = "pi"
# An emulated one on two busy cores; a native one answers within two seconds.
BOOT_TIMEOUT = 180.0

# A Pi 4's. Unless told otherwise QEMU's can do what no Pi can (SVE, i8mm, SME): LiteRT would choose other code, and
# wheels built for newer processors would run here and crash there.
CPU = "cortex-a72"

# Not started: nobody logs in at a console, and nothing of apt's shall begin in the middle of a test. Also, all devices
# share the machine's 128 inotify instances (fs.inotify.max_user_instances), and these units hold three of seven.
MASKED = (
    "systemd-logind.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
)

# Runs in a mount namespace of its own, and returns when the container is on its way. The shell in the background stays
# as long as the container: it holds the emulator (see emulation.hold), since nspawn closes what it does not know.
_CONTAINER = """
for group in "$@"; do echo $$ > "$group/cgroup.procs" || exit; done
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$DISK/upper,workdir=$DISK/work" "$DISK/root" || exit
mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn || exit
{
    status=133 # as nspawn ends when the system in it reboots
    while [ $status = 133 ]; do
        systemd-nspawn --quiet --boot --directory="$DISK/root" --machine="$NAME" --setenv=QEMU_CPU \\
            --register=no --keep-unit --timezone=off --link-journal=no --console=pipe
        status=$?
    done
    echo "$NAME: the container ended with status $status"
} &
"""


@dataclass(frozen=True)
class Device:
    """A device that was started. `folder` holds its disk; key and known_hosts are those of all started with it."""

    name: str
    suite: str
    arch: str
    port: int
    # The process that stops it when it ends; None: whoever types `stop`.
    owner: int | None
    folder: Path

    @property
    def ssh_destination(self) -> str:
        """pi@127.0.0.1:PORT."""
        return f"{USER}@127.0.0.1:{self.port}"

    @property
    def identity(self) -> Path:
        """The private key that pi's authorized_keys knows."""
        return self.folder.parent / "identity"

    @property
    def known_hosts(self) -> Path:
        """The host keys, for StrictHostKeyChecking=yes."""
        return self.folder.parent / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: every device by its name."""
        return self.folder.parent / "ssh_config"

    @property
    def running(self) -> bool:
        """Whether any of its processes lives."""
        events = self._groups()[0] / "cgroup.events"
        return events.exists() and "populated 1" in events.read_text()

    def ssh(self, *options: str) -> list[str]:
        """The words of an ssh command to this device; append what it shall run there."""
        return ["ssh", "-F", str(self.ssh_config), *options, self.name]

    def run(
        self, command: str, *, input: str | None = None, check: bool = True, timeout: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """A shell command on the device, as pi. Raises CalledProcessError with check, TimeoutExpired."""
        done = subprocess.run(
            [*self.ssh(), command], input=input or "", capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
            error.add_note(f"{self.name} says: {done.stdout[-1000:]}{done.stderr[-3000:]}")
            raise error
        return done

    def put(self, source: Path, target: str) -> None:
        """Copy a file or folder into the folder `target` of the device, as pi. Raises CalledProcessError."""
        pack = ["tar", "--create", "--directory", str(source.parent), source.name]
        unpack = f"mkdir -p {shlex.quote(target)} && tar --extract --no-same-owner --directory {shlex.quote(target)}"
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
            subprocess.run([*self.ssh(), unpack], stdin=packing.stdout, capture_output=True, check=True, timeout=600)

    def boot(self) -> None:
        """Start it, and return when pi can log in. Raises RuntimeError with the end of its console when it does not."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        groups = self._groups()
        for group in groups:
            group.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "LOWER": str(root(self.suite, self.arch)),
            "DISK": str(self.folder),
            "NAME": self.name,
            "QEMU_CPU": CPU,
            # systemd 256 and later start on no other hierarchy.
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            # /tmp on the disk: wheels lie there, and 20 devices share this machine's memory.
            "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
            "SYSTEMD_NSPAWN_LOCK": "0",
        }
        held = hold(self.arch)
        try:
            with (self.folder / "console.log").open("ab") as console:
                subprocess.run(
                    ["unshare", "--mount", "--propagation=private", "sh", "-c", _CONTAINER, "sh", *map(str, groups)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    pass_fds=held,
                    start_new_session=True,
                    check=False,
                )
            self._wait_for_login()
        finally:
            let_go(self.arch, held)

    def _wait_for_login(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        said = "it ended"
        # Asked by SSH itself: the port is open before systemd lets anybody in.
        attempt = [*self.ssh("-o", "ConnectTimeout=20"), "true"]
        while self.running and time.monotonic() < deadline:
            try:
                done = subprocess.run(attempt, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40)
                if done.returncode == 0:
                    return
                said = done.stderr.strip()
            except subprocess.TimeoutExpired:
                said = "no answer"
            time.sleep(0.2)
        console = (self.folder / "console.log").read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"{self.name} ({self.suite} {self.arch}) let nobody in ({said}); its console:\n{console}")

    def kill(self) -> None:
        """SIGKILL to every process of it at once; its disk stays as it is. `boot` starts it from that."""
        groups = self._groups()
        if groups[0].exists():
            (groups[0] / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 60
        while self.running:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: processes in {groups[0]} do not end")
            time.sleep(0.01)
        for group in groups:
            _remove_groups(group)

    def stop(self) -> None:
        """End it and delete its disk; the last of those started together deletes their key too. Twice is once."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        if not list(self.folder.parent.glob("*/device.json")):
            shutil.rmtree(self.folder.parent, ignore_errors=True)
        let_go(self.arch, [])

    def _groups(self) -> list[Path]:
        """Its control groups, cgroup2's first; the other is the one that systemd keeps on the older hierarchies."""
        unified = cgroup2()
        if unified is None:
            raise DeviceUnavailable("no cgroup2 is mounted")
        places = [unified, Path("/sys/fs/cgroup/systemd")]
        return [place / f"edgenn-device-{self.name}" for place in places if (place / "cgroup.procs").exists()]


def _remove_groups(group: Path) -> None:
    """Delete an empty control group with those below it. The kernel may need a moment to see that they are empty."""
    if not group.exists():
        return
    for child in [path for path in group.iterdir() if path.is_dir()]:
        _remove_groups(child)
    for _ in range(500):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.01)


def _running_folder() -> Path:
    folder = cache() / "running"
    folder.mkdir(exist_ok=True)
    return folder


def started() -> list[Device]:
    """All devices that were started and not stopped, by name."""
    found = []
    for record in sorted(_running_folder().glob("*/*/device.json")):
        try:
            found.append(Device(**json.loads(record.read_text()), folder=record.parent))
        except FileNotFoundError:
            continue
    return found


def stop_orphans() -> None:
    """Stop the devices whose owner is gone: a test run that was killed."""
    for one in started():
        if one.owner is not None and not Path(f"/proc/{one.owner}").exists():
            one.stop()


def start(
    *,
    suite: str,
    arch: str,
    name: str | None = None,
    port: int | None = None,
    clones: int = 1,
    owner: int | None = None,
) -> list[Device]:
    """Start devices that share a root, a key and known_hosts, and boot them one after the other.

    Names are NAME, or NAME-01 … NAME-N; ports are free ones, or PORT and those after it. Raises DeviceUnavailable when
    this machine cannot, ValueError when the name is taken, RuntimeError when one does not boot.
    """
    require_machine()
    stop_orphans()
    root(suite, arch)
    if name and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
        raise ValueError(f"{name} is no host name: up to 41 of a-z, 0-9 and -")
    name = name or f"{suite}-{arch}-{os.urandom(2).hex()}"
    group = _running_folder() / name
    try:
        group.mkdir()
    except FileExistsError:
        raise ValueError(f"a device named {name} was started already: python -m tools.arm_device stop {name}") from None
    _make_key(group / "identity")
    found = []
    try:
        for number in range(clones):
            own = name if clones == 1 else f"{name}-{number + 1:02}"
            one = Device(own, suite, arch, port + number if port else _free_port(), owner, group / own)
            found.append(one)
            _prepare_disk(one)
            one.boot()
    except BaseException:
        for one in found:
            one.stop()
        raise
    return found


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _prepare_disk(one: Device) -> None:
    """What differs from device to device, put on its disk before it first boots: name, keys, port."""
    for part in ("upper", "work", "root"):
        (one.folder / part).mkdir(parents=True)
    etc, home = one.folder / "upper/etc", one.folder / "upper/home/pi"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    files = {
        "hostname": f"{one.name}\n",
        "hosts": f"127.0.0.1 localhost\n127.0.1.1 {one.name}\n::1 localhost\n",
        "ssh/sshd_config.d/device.conf": f"Port {one.port}\nListenAddress 127.0.0.1\nUseDNS no\nMaxStartups 100\n",
    }
    _write_all(etc, files | (_emulated_settings(one.suite) if one.arch != NATIVE else {}))
    (etc / "systemd/system").mkdir(parents=True, exist_ok=True)
    for unit in MASKED:
        (etc / "systemd/system" / unit).symlink_to("/dev/null")
    host_key = etc / "ssh/ssh_host_ed25519_key"
    _make_key(host_key)
    (home / ".ssh/authorized_keys").write_text(one.identity.with_suffix(".pub").read_text())
    for path in (home, home / ".ssh", home / ".ssh/authorized_keys"):
        os.chown(path, 1000, 1000)
    public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
    with one.known_hosts.open("a") as known:
        known.write(f"[127.0.0.1]:{one.port} {public}\n")
    with one.ssh_config.open("a") as config:
        config.write(
            f"Host {one.name}\n  HostName 127.0.0.1\n  Port {one.port}\n  User {USER}\n  IdentityFile {one.identity}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {one.known_hosts}\n  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n"
        )
    record = asdict(one)
    del record["folder"]
    (one.folder / "device.json").write_text(json.dumps(record))


def _emulated_settings(suite: str) -> dict[str, str]:
    """What an emulated system needs, by path below /etc."""
    resets = ["LoadCredential=", "SetCredential=", *(["ImportCredential="] if suite != "bookworm" else [])]
    return {
        # Services, whoever logs in, and what these start by sudo.
        "systemd/system.conf.d/emulated.conf": f"[Manager]\nDefaultEnvironment=QEMU_CPU={CPU}\n",
        "environment": f"QEMU_CPU={CPU}\n",
        "sudoers.d/emulated": "Defaults env_keep += QEMU_CPU\n",
        # systemd mounts credentials in a child that it forks into a mount namespace, and QEMU's fork cannot do that:
        # systemd's own services would fail on credentials that are not even there.
        "systemd/system/service.d/emulated.conf": "\n".join(["[Service]", *resets, ""]),
    }


def _write_all(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@contextmanager
def devices(count: int, *, suite: str = "bookworm", arch: str = "arm64") -> Iterator[list[Device]]:
    """`count` devices of one kind, stopped at the end. Raises what `start` raises."""
    found = start(suite=suite, arch=arch, clones=count, owner=os.getpid())
    try:
        yield found
    finally:
        for one in found:
            one.stop()


@contextmanager
def device(suite: str = "bookworm", arch: str = "arm64") -> Iterator[Device]:
    """One device, stopped at the end. Raises what `start` raises."""
    with devices(1, suite=suite, arch=arch) as found:
        yield found[0]


def described(one: Device) -> str:
    """Its line in `status`."""
    state = "running" if one.running else "off"
    return f"{one.name:<24} {state:<8} {one.suite} {one.arch}  {one.ssh_destination}  {shlex.join(one.ssh())}"
