"""Whether a model was signed by somebody whom this device trusts.

Reads minisign's formats (https://jedisct1.github.io/minisign/, "Signature format"): Ed25519 over the file (`Ed`) or
over its BLAKE2b-512 (`ED`), and a second signature over the first and the trusted comment. It only verifies: nothing
here can sign, and the library that can (cryptography) is imported when there is something to verify.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import EdgennError

# Of a signature or a file of keys; both are a few lines.
_LIMIT = 64 * 1024
UNTRUSTED, TRUSTED = "untrusted comment: ", "trusted comment: "


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 key.

    Attributes:
      number: 8 bytes by which a signature names its key.
      raw: 32 bytes.
    """

    number: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """As minisign prints it: the number as a hexadecimal, little-endian."""
        return self.number[::-1].hex().upper()

    def line(self) -> str:
        """What a file of keys holds, and `minisign -P` takes."""
        return base64.b64encode(b"Ed" + self.number + self.raw).decode()


def verify(
    model_path: str | os.PathLike[str], signature_path: str | os.PathLike[str], keys_path: str | os.PathLike[str]
) -> str:
    """Check that a file was signed by one of the accepted keys.

    Args:
      model_path: what was signed, byte for byte.
      signature_path: its signature.
      keys_path: a public key a line; comments (`untrusted comment: …`, `#`) and empty lines between them.

    Returns:
      The trusted comment, which was signed too.

    Raises:
      EdgennError: one line that says why this device refuses the file.
    """
    name = Path(model_path).name
    keys = {key.number: key for key in read_keys(keys_path)}
    try:
        text = _read(signature_path)
    except FileNotFoundError:
        raise EdgennError(
            f"{name} is not signed, and this device accepts signed models alone ({keys_path}): deploy with --sign KEY"
        ) from None
    except OSError as error:
        raise EdgennError(f"the signature of {name} cannot be read: {error.strerror or error}") from None
    algorithm, number, signature, comment, over_all = _parse(text, name)
    key = keys.get(number)
    if key is None:
        signer = PublicKey(number, b"").name
        raise EdgennError(f"{name} was signed by key {signer}, which this device does not accept ({keys_path})")
    try:
        content = Path(model_path).read_bytes()
    except OSError as error:
        raise EdgennError(f"{model_path} cannot be read: {error.strerror or error}") from None
    message = hashlib.blake2b(content).digest() if algorithm == b"ED" else content
    if not _holds(key, signature, message):
        raise EdgennError(f"{name} is not what key {key.name} signed: sign it again, and deploy it with --sign KEY")
    if not _holds(key, over_all, signature + comment.encode()):
        raise EdgennError(f"the comment of the signature of {name} was changed after it was signed: sign it again")
    return comment


def read_keys(path: str | os.PathLike[str]) -> list[PublicKey]:
    """The keys of a file, or raise `EdgennError` when it cannot be read, holds none, or holds something else."""
    try:
        lines = _read(path).splitlines()
    except OSError as error:
        raise EdgennError(f"keys {path} cannot be read: {error.strerror or error}") from None
    keys = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith(("#", UNTRUSTED)):
            continue
        raw = _decoded(line)
        if len(raw) != 42 or raw[:2] != b"Ed":
            raise EdgennError(f"{path}:{number} is no public key: paste the line that `edgenn sign --new-key` printed")
        keys.append(PublicKey(raw[2:10], raw[10:]))
    if not keys:
        raise EdgennError(f"{path} holds no key, so no model is accepted: put one in, or remove the file")
    return keys


def _parse(text: str, name: str) -> tuple[bytes, bytes, bytes, str, bytes]:
    """Algorithm, key number, signature, trusted comment, and the signature over the two before."""
    lines = text.splitlines()
    wrong = EdgennError(f"the signature of {name} is damaged: sign it again, and deploy it with --sign KEY")
    if len(lines) != 4 or not lines[0].startswith(UNTRUSTED) or not lines[2].startswith(TRUSTED):
        raise wrong
    first, over_all = _decoded(lines[1]), _decoded(lines[3])
    if len(first) != 74 or len(over_all) != 64 or first[:2] not in (b"Ed", b"ED"):
        raise wrong
    return first[:2], first[2:10], first[10:], lines[2].removeprefix(TRUSTED), over_all


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise EdgennError(
            "signatures cannot be checked, so no model is accepted: sudo apt install -y python3-cryptography"
        ) from None
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(line: str) -> bytes:
    try:
        return base64.b64decode(line.encode("ascii", "replace"), validate=True)
    except binascii.Error:
        return b""


def _read(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return file.read(_LIMIT).decode("utf-8", "replace")
