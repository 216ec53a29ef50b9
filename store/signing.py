"""Signatures: who vouches for a version, with the Ed25519 keys that people have for SSH anyway.

What is signed is what a version is called, and the digest of its manifest, which names every file by its own digest: a
signature vouches for all of a version, under that name and number and no other. Whom to trust is a file of public keys, one on
a line as in `~/.ssh/authorized_keys`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GraftaxError
from ..json_files import read_bytes
from ..paths import expect_file
from .damage import Damaged, Untrusted
from .events import Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_KIND = "ssh-ed25519"


class Signer:
    """A private key in OpenSSH's format (`ssh-keygen -t ed25519`).

    Raises GraftaxError where the file holds no such key, or one behind a password.
    """

    def __init__(self, key_file: Path):
        _expect_library(str(key_file))
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        expect_file(key_file)
        try:
            key = serialization.load_ssh_private_key(read_bytes(key_file), password=None)
        except Exception as error:  # of many kinds, by what is wrong with it
            raise GraftaxError(f"{key_file}: no private key that can be read without a password ({error}).") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise GraftaxError(f"{key_file}: signatures are made with Ed25519 keys (ssh-keygen -t ed25519).")
        self._private = key
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.key = public.decode()  # the public one, as people name it

    def sign(self, reference: str, digest: str) -> Signature:
        """A signature of what a version is called, such as bank/intent:3, and of its manifest's digest."""
        return Signature(self.key, base64.b64encode(self._private.sign(_message(reference, digest))).decode())


def check_signature(signature: Signature, reference: str, digest: str) -> bool:
    """Whether a version's signature vouches for its name and number too, or as the first ones did for its content alone.

    Raises Damaged, which begins with the reference, where the key that it names has made it of neither.
    """
    _expect_library(reference)
    from cryptography.exceptions import InvalidSignature

    key = _public(signature.key, reference)
    try:
        value = base64.b64decode(signature.value, validate=True)
        with suppress(InvalidSignature):
            key.verify(value, _message(reference, digest))
            return True
        key.verify(value, _message_of_content(digest))
    except (InvalidSignature, ValueError) as error:
        raise Damaged(f"{reference}: its signature is not of this manifest under this name.") from error
    return False


def trusted_keys(file: Path) -> tuple[str, ...]:
    """The public keys in a file, without the comments behind them."""
    expect_file(file)
    lines = [line.split() for line in read_bytes(file).decode(errors="replace").splitlines()]
    keys = tuple(" ".join(words[:2]) for words in lines if words and not words[0].startswith("#"))
    for key in keys:
        _public(key, str(file))
    return keys


def refuse_untrusted(signature: Signature | None, trusted: Sequence[str], what: str) -> None:
    """Untrusted unless one of the trusted keys is named in the signature, which was checked."""
    if signature is None:
        raise Untrusted(f"{what}: not signed, and only what a trusted key has signed is taken.")
    if signature.key not in trusted:
        raise Untrusted(f"{what}: signed with {signature.key}, which is none of the trusted keys.")


def _public(key: str, what: str) -> Ed25519PublicKey:
    _expect_library(what)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = serialization.load_ssh_public_key(key.encode())
    except Exception as error:
        raise GraftaxError(f"{what}: {key[:60]!r} is no public key of OpenSSH's.") from error
    if not isinstance(public, Ed25519PublicKey):
        raise GraftaxError(f"{what}: {key[:60]!r} is no {_KIND} key.")
    return public


def _expect_library(what: str) -> None:
    if find_spec("cryptography") is None:
        raise GraftaxError(f"{what}: signatures need the package cryptography: pip install 'graftax[hub]'.")


def _message(reference: str, digest: str) -> bytes:
    """What is signed; it begins with what it is for, because the key signs other things elsewhere."""
    return f"graftax hub version {reference} sha256:{digest}".encode()


def _message_of_content(digest: str) -> bytes:
    """What was signed before names were."""
    return f"graftax hub manifest sha256:{digest}".encode()
