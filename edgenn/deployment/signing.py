"""Signing models for devices that accept no others: keys and signatures in minisign's formats.

`minisign` reads what is written here and the other way round, keys with a password included. Nothing here sends
anything, and a key that exists is never written over.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import struct
import time
from collections.abc import Callable
from getpass import getpass
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.signature import TRUSTED, UNTRUSTED, PublicKey

# What follows the name of a signed file.
SUFFIX = ".sig"
# Of a secret key file, after base64: algorithm, key derivation, checksum algorithm, salt, its two limits; then, under
# the password if there is one: number, seed, public key, checksum (minisign.h, SeckeyStruct).
_HEAD = struct.Struct("<2s2s2s32sQQ")
_BODY = struct.Struct("<8s32s32s32s")
_PLAIN, _SCRYPT = b"\0\0", b"Sc"
# What scrypt may take. `minisign -G` asks for 1 GiB, and 128 MiB where that is not to be had.
_MOST_MEMORY = 2 << 30


def new_key(path: str | os.PathLike[str]) -> PublicKey:
    """Make a pair of keys: the secret one in `path`, readable by its owner alone, the public one in `path`.pub.

    The secret key has no password, so that it can sign where nobody sits; `minisign -G` makes one that has.

    Raises:
      EdgennError: one of the two exists, or the folder cannot be written.
    """
    secret, public = Path(path), Path(f"{path}.pub")
    for existing in (secret, public):
        if existing.exists() or existing.is_symlink():
            raise EdgennError(f"{existing} exists, and a key is never written over: choose another name")
    # A secret key is 32 random bytes (RFC 8032, 5.1.5).
    seed = secrets.token_bytes(32)
    key = PublicKey(secrets.token_bytes(8), _public_half(seed))
    body = _BODY.pack(key.number, seed, key.raw, _checksum(key.number, seed, key.raw))
    packed = base64.b64encode(_HEAD.pack(b"Ed", _PLAIN, b"B2", bytes(32), 0, 0) + body).decode()
    try:
        secret.parent.mkdir(parents=True, exist_ok=True)
        # Never readable by others, not even for a moment; O_EXCL because another may have made it meanwhile.
        handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(f"{UNTRUSTED}minisign secret key {key.name}, without a password\n{packed}\n")
                file.flush()
                os.fsync(file.fileno())
            write_atomically(public, f"{UNTRUSTED}minisign public key {key.name}\n{key.line()}\n")
        except BaseException:
            # Half of a pair is of no use, and would be refused as a key that exists when this is tried again.
            secret.unlink()
            raise
    except OSError as error:
        raise EdgennError(f"{secret} cannot be written: {error.strerror or error}") from None
    return key


def sign(
    model: str | os.PathLike[str], key: str | os.PathLike[str], *, password: Callable[[str], str] = getpass
) -> Path:
    """Sign a model.

    Args:
      model: a .tflite, which is signed byte for byte.
      key: a secret key of `new_key` or of `minisign -G`.
      password: asked with a prompt when the key has one.

    Returns:
      The signature: `model` with ".sig" behind it.

    Raises:
      EdgennError: no such file, no .tflite, no such key, or the wrong password.
    """
    try:
        content = Path(model).read_bytes()
    except OSError as error:
        raise EdgennError(f"{model} cannot be read: {error.strerror or error}") from None
    if content[4:8] != b"TFL3":
        raise EdgennError(f"{model} is not a .tflite, and a device takes nothing else: sign what edgenn convert wrote")
    text = signature(content, Path(model).name, key, password=password)
    return write_atomically(f"{os.fspath(model)}{SUFFIX}", text)


def signature(
    content: bytes, name: str, key: str | os.PathLike[str], *, password: Callable[[str], str] = getpass
) -> str:
    """The four lines of a signature; arguments and errors as of `sign`, `name` stands in the trusted comment."""
    public, seed = _secret(Path(key), password)
    private = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)
    signed = private.sign(hashlib.blake2b(content).digest())
    comment = f"timestamp:{int(time.time())}\tfile:{_one_line(name)}\thashed"
    over_all = private.sign(signed + comment.encode())
    lines = (
        f"{UNTRUSTED}signature of key {public.name}",
        base64.b64encode(b"ED" + public.number + signed).decode(),
        f"{TRUSTED}{comment}",
        base64.b64encode(over_all).decode(),
    )
    return "\n".join(lines) + "\n"


def _secret(path: Path, password: Callable[[str], str]) -> tuple[PublicKey, bytes]:
    """The public half and the 32 bytes of the seed."""
    no_key = EdgennError(f"{path} is no signing key: make one with `edgenn sign --new-key {path}`")
    try:
        lines = path.read_text().split("\n")
        if path.stat().st_mode & 0o077:
            raise EdgennError(f"others can read the key {path}: chmod 600 {path}")
        raw = base64.b64decode(lines[1], validate=True)
    except FileNotFoundError:
        raise EdgennError(f"there is no key {path}: make one with `edgenn sign --new-key {path}`") from None
    except OSError as error:
        raise EdgennError(f"key {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, IndexError):  # of UTF-8 and of base64
        raise no_key from None
    if len(raw) != _HEAD.size + _BODY.size:
        raise no_key
    algorithm, derivation, checking, salt, operations, memory = _HEAD.unpack_from(raw)
    body = raw[_HEAD.size :]
    if algorithm != b"Ed" or checking != b"B2" or derivation not in (_PLAIN, _SCRYPT):
        raise no_key
    if derivation == _SCRYPT:
        try:
            said = password(f"password of {path}: ").encode()
        except (EOFError, OSError):
            raise EdgennError(f"key {path} has a password, and there is no terminal to ask for it") from None
        mask = _scrypt(said, salt, operations, memory, len(body), path)
        body = bytes(a ^ b for a, b in zip(body, mask, strict=True))
    number, seed, public, checksum = _BODY.unpack(body)
    if not secrets.compare_digest(checksum, _checksum(number, seed, public)):
        raise EdgennError(f"wrong password of {path}") if derivation == _SCRYPT else no_key
    return PublicKey(number, public), seed


def _checksum(number: bytes, seed: bytes, public: bytes) -> bytes:
    return hashlib.blake2b(b"Ed" + number + seed + public, digest_size=32).digest()


def _scrypt(password: bytes, salt: bytes, operations: int, memory: int, length: int, path: Path) -> bytes:
    """libsodium's crypto_pwhash_scryptsalsa208sha256 (its pickparams): N, r and p from the two limits."""
    operations, r = max(operations, 32768), 8
    few = operations < memory // 32
    most = operations // (r * 4) if few else memory // (r * 128)
    power = next((n for n in range(1, 63) if 1 << n > most // 2), 63)
    p = 1 if few else min((operations // 4) >> power, 0x3FFFFFFF) // r
    needed = 128 * r * ((1 << power) + p + 2)
    if needed > _MOST_MEMORY or p < 1:
        raise EdgennError(f"key {path} asks for {needed >> 20} MiB to read its password: make another")
    try:
        return hashlib.scrypt(password, salt=salt, n=1 << power, r=r, p=p, maxmem=needed + (1 << 20), dklen=length)
    except (ValueError, MemoryError):
        raise EdgennError(f"key {path} needs {needed >> 20} MiB of memory to read its password") from None


def _one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _public_half(seed: bytes) -> bytes:
    private = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    # `public_bytes_raw` is not there in Debian 12's version.
    return bytes(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise EdgennError(
            "cryptography is missing; this needs the deploy extra: pip install 'edgenn[deploy]'"
        ) from None
    return ed25519
