"""The token: made private, demanded where it must be, never shown."""

import os
import stat
import subprocess

import pytest

from edgenn.serving import access
from edgenn_device.errors import EdgennError
from edgenn_device.token import is_loopback, stored_token

TOKEN = "a-token-of-enough-characters"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),  # the whole network is this machine
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # every interface
        ("::", False),
        ("192.168.1.2", False),
        ("127.0.0.1.example.org", False),  # a name that looks like an address
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_a_token_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "new" / "token"
    made = stored_token(path)
    assert len(made) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored_token(path) == made
    assert stored_token(tmp_path / "another") != made


def test_a_full_disk_leaves_no_token_file_and_the_next_start_makes_one(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        (disk / "fill").write_bytes(b"x" * 65536)
        with pytest.raises(EdgennError, match=r"cannot be stored in .*: No space left on device"):
            stored_token(disk / "token")
        assert [entry.name for entry in disk.iterdir()] == ["fill"]
        (disk / "fill").unlink()
        assert len(stored_token(disk / "token")) >= 40
        assert [entry.name for entry in disk.iterdir()] == ["token"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_of_two_that_start_together_both_have_the_token_of_the_first(tmp_path, monkeypatch):
    path = tmp_path / "token"
    link, first = os.link, []

    def meanwhile(aside, target):
        monkeypatch.setattr(os, "link", link)
        first.append(stored_token(path))
        link(aside, target)

    monkeypatch.setattr(os, "link", meanwhile)
    assert stored_token(path) == first[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "token", 0o600)
    with pytest.raises(EdgennError, match="is not a regular file"):
        stored_token(tmp_path / "token")


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (TOKEN, 0o644, "chmod 600"),  # everybody reads it
        (TOKEN, 0o640, "chmod 600"),  # the group reads it
        ("short", 0o600, "16"),
        ("", 0o600, "no token"),
        ("two words of some length", 0o600, "no token"),
        ("ümlauts-in-a-token-here", 0o600, "no token"),
        ("x" * 5000, 0o600, "no token"),
    ],
)
def test_a_token_file_that_will_not_do_is_refused(tmp_path, content, mode, said):
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(EdgennError, match=said) as error:
        stored_token(path)
    assert not content or len(content) < 10 or content not in str(error.value)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),  # the scheme's case does not matter (RFC 9110, 11.1)
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer ü", False),
        ("Bearer ", False),
        (None, False),
    ],
)
def test_only_the_token_opens(header, allowed):
    assert access.allows(header, TOKEN) is allowed


def test_everything_but_health_demands_the_token(start, picture):
    with start(token=TOKEN) as server:
        for method, path in (
            ("POST", "/classify"),
            ("POST", "/v2/models/tiny/infer"),
            ("GET", "/v2/models/tiny"),
            ("GET", "/v2"),
            ("GET", "/metrics"),
        ):
            refused = server.ask(method, path, picture)
            assert refused.status == 401, path
            assert refused.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in refused.content.decode()
            assert server.ask(method, path, picture, Authorization="Bearer " + "x" * len(TOKEN)).status == 401
        assert server.ask("GET", "/v2/health/live").status == 200
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.post(picture, Authorization=f"Bearer {TOKEN}").status == 200
