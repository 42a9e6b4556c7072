"""What a device refuses: nothing signed, signed by a stranger, changed afterwards, damaged; and what it says then."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn_device.errors import EdgennError
from edgenn_device.signature import PublicKey, read_keys, verify

# Made once with minisign 0.11 (`minisign -S -l` and `-S -H`), so that this does not rest on edgenn's own signing.
CONTENT = b"TFL3 model"
KEYS = """untrusted comment: minisign public key 36A5192CBB9BAFC4
RWTEr5u7LBmlNkwiQWGkyMxLwQAK5nnvSePwCg9JEvvUaOqaRNlQCYIO
"""
LEGACY = """untrusted comment: signature from minisign secret key
RWTEr5u7LBmlNg6b/3Lcl87Yarij5WO1jbktCNP4bT3J3LCfvMFozCYmbvN4iuli6vbcncVa+2e1oc4SwpQfHNEXpzEYsd/5uQ8=
trusted comment: a comment
PO9clRkA1jgPamfRhVEp/SezsnB/R/bvNLKdCSght7wYL4aBw28a36lnUM2xB3rTNWSW2FxVV3ihCaFHmYQnBQ==
"""
HASHED = """untrusted comment: signature from minisign secret key
RUTEr5u7LBmlNjZfRKzBWGczt+7MYDHY6hF4ICIdXXm5UiLqp4NTCkyguFK7GptlIWFGIhhB7i+C9/5Xt0xAao6N49vuO1VeQA4=
trusted comment: a comment
hZvqXGI0WNUhtcjj4favYJCAMAZ1SY8l+O8gnv4ZVTikVS9T1LK4td9Z7N8+lGmF29LzeqKpniMPC80MsW7sCQ==
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "m.tflite").write_bytes(CONTENT)
    (tmp_path / "m.tflite.sig").write_text(HASHED)
    (tmp_path / "accept.pub").write_text(KEYS)
    return tmp_path


def check(place: Path) -> str:
    return verify(place / "m.tflite", place / "m.tflite.sig", place / "accept.pub")


@pytest.mark.parametrize("signature", [LEGACY, HASHED, HASHED.replace("\n", "\r\n")])
def test_a_signature_holds(place: Path, signature: str) -> None:
    (place / "m.tflite.sig").write_text(signature, newline="")
    assert check(place) == "a comment"


def test_one_of_several_keys_is_enough(place: Path) -> None:
    other = PublicKey(b"another.", bytes(32)).line()
    (place / "accept.pub").write_text(f"# the old one\n{other}\n\n{KEYS}")
    assert len(read_keys(place / "accept.pub")) == 2
    check(place)


def test_a_model_without_signature(place: Path) -> None:
    (place / "m.tflite.sig").unlink()
    with pytest.raises(EdgennError, match=r"m\.tflite is not signed.*--sign KEY"):
        check(place)


def test_a_signature_of_a_stranger(place: Path) -> None:
    (place / "accept.pub").write_text(PublicKey(b"another.", bytes(32)).line())
    with pytest.raises(EdgennError, match=f"key {read_name()}, which this device does not accept"):
        check(place)


def test_the_strangers_key_under_an_accepted_number(place: Path) -> None:
    number = next(iter(read_keys(place / "accept.pub"))).number
    (place / "accept.pub").write_text(PublicKey(number, bytes(31) + b"\1").line())
    with pytest.raises(EdgennError, match=r"is not what key"):
        check(place)


def test_a_model_that_was_changed(place: Path) -> None:
    (place / "m.tflite").write_bytes(CONTENT + b"\0")
    with pytest.raises(EdgennError, match=r"is not what key .* signed"):
        check(place)


def test_a_trusted_comment_that_was_changed(place: Path) -> None:
    (place / "m.tflite.sig").write_text(HASHED.replace("a comment", "another"))
    with pytest.raises(EdgennError, match=r"comment .* was changed"):
        check(place)


@given(at=st.integers(0, len(HASHED) - 1), sign=st.characters())
def test_no_change_of_the_signature_is_accepted(tmp_path_factory: pytest.TempPathFactory, at: int, sign: str) -> None:
    changed = HASHED[:at] + sign + HASHED[at + 1 :]
    # The untrusted comment is not signed; one end of a line is as good as another; and the last digit of base64 before
    # its padding has bits that mean nothing.
    if changed == HASHED or at < HASHED.index("\n") or HASHED[at] == "\n" or HASHED[at + 1] == "=":
        return
    place = tmp_path_factory.mktemp("changed")
    (place / "m.tflite").write_bytes(CONTENT)
    (place / "m.tflite.sig").write_text(changed, encoding="utf-8", errors="surrogatepass", newline="")
    (place / "accept.pub").write_text(KEYS)
    with pytest.raises(EdgennError):
        check(place)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (None, "cannot be read"),
        ("", "holds no key, so no model is accepted"),  # an empty file does not open the door
        ("# later\n", "holds no key"),
        ("RWQf6LRC", r"accept\.pub:1 is no public key"),
        ("untrusted comment: x\nééé", r"accept\.pub:2 is no public key"),
    ],
)
def test_keys_that_are_none(place: Path, keys: str | None, said: str) -> None:
    (place / "accept.pub").unlink()
    if keys is not None:
        (place / "accept.pub").write_text(keys)
    with pytest.raises(EdgennError, match=said):
        check(place)


def test_without_the_library_nothing_is_accepted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(EdgennError, match="apt install -y python3-cryptography"):
        check(place)


def read_name() -> str:
    return KEYS.splitlines()[0].rsplit(" ", 1)[1]
