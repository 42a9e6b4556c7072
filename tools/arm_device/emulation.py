"""Running arm64 programs on another processor: QEMU's user emulation, registered with the kernel while it is needed.

The emulator is Debian's, taken by apt from bookworm-backports into the cache: under the QEMU 7.2 of Bookworm itself
LiteRT crashes in allocate_tensors. Neither the machine's package sources nor its own binfmt entries are touched. amd64
needs none of this; other processors are not emulated.
"""

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.arm_device.unavailable import KEYRING, DeviceUnavailable

ENTRY = "edgenn-aarch64"
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

# An ELF file of 64 bits, little-endian, executable or shared, for machine 0xb7 (EM_AARCH64); the mask lets the OS ABI
# and the lowest bit of the type pass. As in Debian's qemu-user-binfmt.
MAGIC = rb"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# P: argv[0] stays what it was. O: the program is opened by the kernel, also where it may not be read. C: set-user-ID
# counts (sudo). F: the kernel opens the emulator now, so that it need not lie inside the containers.
FLAGS = b"POCF"

# In a mount namespace of its own, and only where the machine has not mounted it. Tells when it is done, and waits.
_MOUNT = """test -e /proc/sys/fs/binfmt_misc/register || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
echo; cat"""


def _folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenn" / "devices" / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _binfmt() -> int:
    """A descriptor of the folder binfmt_misc.

    Where nothing else has it mounted, the kernel forgets the entries in it with the last descriptor.
    """
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", _MOUNT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as mounter:
        assert mounter.stdout is not None
        mounter.stdout.readline()
        folder = os.open(f"/proc/{mounter.pid}/root/proc/sys/fs/binfmt_misc", os.O_RDONLY | os.O_DIRECTORY)
        said = mounter.communicate()[1].decode().strip()
    if not _present(folder, "register"):
        os.close(folder)
        raise DeviceUnavailable(f"binfmt_misc, by which the kernel starts programs of other processors: {said}")
    return folder


def _present(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _write(folder: int, name: str, text: bytes) -> None:
    handle = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(handle, text)
    finally:
        os.close(handle)


def hold(architecture: str) -> list[int]:
    """Register the emulator, and return descriptors: while any process has them open, it stays registered.

    None at all where the architecture is this machine's own. Raises DeviceUnavailable when apt or the kernel does not
    give it.
    """
    if architecture == NATIVE:
        return []
    if (architecture, NATIVE) != ("arm64", "amd64"):
        raise DeviceUnavailable(f"{architecture} is not emulated on {NATIVE}")
    with (_folder() / "register.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        emulator, folder = _emulator(), _binfmt()
        if not _present(folder, ENTRY):
            line = b":" + ENTRY.encode() + b":M::" + MAGIC + b":" + MASK + b":" + bytes(emulator) + b":" + FLAGS
            try:
                _write(folder, "register", line)
            except OSError as error:
                os.close(folder)
                raise DeviceUnavailable(f"binfmt_misc does not take the emulator: {error}") from error
        used = os.open(_folder() / "used.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(used, fcntl.LOCK_SH)
    return [used, folder]


def let_go(architecture: str, held: list[int]) -> None:
    """Close what `hold` gave, if anything, and unregister the emulator unless somebody else holds it."""
    for handle in held:
        os.close(handle)
    if architecture == NATIVE:
        return
    with (_folder() / "register.lock").open("w") as alone, (_folder() / "used.lock").open("a") as used:
        fcntl.flock(alone, fcntl.LOCK_EX)
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        folder = _binfmt()
        if _present(folder, ENTRY):
            _write(folder, ENTRY, b"-1")
        os.close(folder)


@contextmanager
def emulated(architecture: str) -> Iterator[None]:
    """Programs of that architecture run on this machine inside this block."""
    held = hold(architecture)
    try:
        yield
    finally:
        let_go(architecture, held)


def _emulator() -> Path:
    """The emulator's program, linked statically; downloaded once."""
    program = _folder() / "qemu-aarch64"
    if not program.exists():
        package = _download(_folder() / "apt")
        partial = _folder() / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["dpkg", "--extract", package, partial], check=True)
        (partial / "usr/bin/qemu-aarch64").rename(program)
        shutil.rmtree(partial)
        shutil.rmtree(_folder() / "apt")
    return program


def _download(folder: Path) -> Path:
    """qemu-user of bookworm-backports, by an apt whose lists, sources and cache are all in `folder`."""
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm-backports main\n")
    options = [
        f"-oDir::Etc::sourcelist={sources}",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State={folder}",
        "-oDir::State::status=/dev/null",
        f"-oDir::Cache={folder}",
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Languages=none",
    ]
    for words in (["update"], ["download", "qemu-user/bookworm-backports"]):
        done = subprocess.run(["apt-get", *options, *words], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DeviceUnavailable(f"apt did not give qemu-user of bookworm-backports: {done.stderr.strip()[-300:]}")
    return next(folder.glob("qemu-user_*.deb"))
