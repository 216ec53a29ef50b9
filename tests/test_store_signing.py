"""Who vouches for a version: what a trusted key has signed is taken; all else is one line."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from stores import FILES, about, digest, pulled, store_of

from graftax.hub.page import page_of
from graftax.store import signing
from graftax.store.events import Pushed, Signature, event_text, parse_event
from graftax.store.store import Store

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")


def write_key(key: Any, file: Path) -> Path:
    """A pair of keys as `ssh-keygen` leaves them."""
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    file.write_bytes(key.private_bytes(*private))
    file.with_suffix(".pub").write_bytes(key.public_key().public_bytes(*public) + b" somebody@somewhere\n")
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(ed25519.Ed25519PrivateKey.generate(), tmp_path / "id")


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    return write_key(ed25519.Ed25519PrivateKey.generate(), tmp_path / "other")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "hub", tmp_path / "machine")


def trusting(tmp_path: Path, *keys: Path) -> Store:
    (tmp_path / "trusted").write_text("# whom we trust\n\n" + "".join(key.with_suffix(".pub").read_text() for key in keys))
    return store_of(tmp_path / "hub", tmp_path / "other machine", trusted=tmp_path / "trusted")


def test_signed_and_trusted(store: Store, key: Path, other_key: Path, tmp_path: Path) -> None:
    version, _ = store.push("x", about("signed"), FILES, key_file=key)
    assert version.signer == " ".join(key.with_suffix(".pub").read_text().split()[:2])
    for one in (store, trusting(tmp_path, other_key, key)):
        assert one.files(one.resolve("x")) == FILES


def test_signed_by_another(store: Store, key: Path, other_key: Path, tmp_path: Path) -> None:
    store.push("x", about("signed"), FILES, key_file=key)
    one = trusting(tmp_path, other_key)
    assert "which is none of the trusted keys" in str(refused(lambda: one.pull(one.resolve("x"))))


def test_not_signed(store: Store, key: Path, tmp_path: Path) -> None:
    """And the same pushed again with a key is signed: it is another version."""
    store.push("x", about("unsigned"), FILES)
    one = trusting(tmp_path, key)
    assert "not signed, and only what a trusted key has signed is taken" in str(refused(lambda: one.pull(one.resolve("x"))))
    assert store.push("x", about("unsigned"), FILES, key_file=key)[0].version == 2
    assert store.push("x", about("unsigned"), FILES, key_file=key)[1] is False
    assert one.files(one.resolve("x")) == FILES


def test_every_version_that_is_not_signed_is_told(store: Store, key: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        store.push(name, about("unsigned"), FILES)
    store.push("z", about("signed"), FILES, key_file=key)
    found = trusting(tmp_path, key).verify()
    assert [str(one.version) for one in found] == ["x:1", "y:1"]
    assert {one.problem for one in found} == {"not signed, and only what a trusted key has signed is taken."}


def test_a_digest_finds_the_version_that_is_signed(store: Store, key: Path, other_key: Path, tmp_path: Path) -> None:
    """Whoever pushes the same after it, unsigned, with another key or a false signature, does not hide it."""
    signed, _ = store.push("x", about("same"), FILES, key_file=key)
    store.push("y", about("same"), FILES)
    store.push("z", about("same"), FILES, key_file=other_key)
    store.push("false", about("same"), FILES, key_file=key)
    file = tmp_path / "hub" / "ledger" / "000000" / "000000005.json"
    event, previous = parse_event(file.read_text(), "")
    assert isinstance(event, Pushed)
    file.write_text(event_text(replace(event, signature=signing.Signer(key).sign("false:1", "0" * 64)), previous))
    one = trusting(tmp_path, key)
    assert str(one.resolve(f"sha256:{signed.digest}")) == "x:1"
    assert one.files(one.resolve(f"sha256:{signed.digest}")) == FILES
    assert str(store_of(tmp_path / "hub", tmp_path / "third").resolve(f"sha256:{signed.digest}")) == "false:1"


def test_what_was_pulled_before_it_was_distrusted(store: Store, key: Path, other_key: Path, tmp_path: Path) -> None:
    """A kept directory is not given out past the file of trusted keys."""
    store.push("x", about("signed"), FILES, key_file=key)
    one = trusting(tmp_path, key)
    one.pull(one.resolve("x"))
    one = trusting(tmp_path, other_key)
    assert "which is none of the trusted keys" in str(refused(lambda: one.pull(one.resolve("x"))))


@pytest.mark.parametrize("forged", ["manifest", "signature", "signer", "no signature at all"])
def test_forged(store: Store, key: Path, other_key: Path, tmp_path: Path, forged: str) -> None:
    """Whoever may write to the hub, and has not the key, cannot make a version that is taken."""
    store.push("x", about("signed"), FILES, key_file=key)
    file = tmp_path / "hub" / "ledger" / "000000" / "000000002.json"
    event, previous = parse_event(file.read_text(), "")
    assert isinstance(event, Pushed)
    assert event.signature is not None
    if forged == "manifest":
        text = event.manifest.replace("signed", "forged")
        event = replace(event, manifest=text, digest=digest(text.encode()))
    elif forged == "signature":
        event = replace(event, signature=Signature(event.signature.key, "AAAA" + event.signature.value[4:]))
    elif forged == "signer":
        theirs = signing.Signer(other_key).sign("x:1", event.digest)
        event = replace(event, signature=Signature(event.signature.key, theirs.value))
    else:
        event = replace(event, signature=Signature(event.signature.key, "no base64!"))
    file.write_text(event_text(event, previous))
    one = trusting(tmp_path, key)
    assert "its signature is not of this manifest under this name" in str(refused(lambda: one.pull(one.resolve("x"))))
    assert [damage.version.name for damage in one.verify()] == ["x"]


def test_what_was_signed_is_not_taken_under_another_name(store: Store, key: Path, tmp_path: Path) -> None:
    """Nor under another number: who may write to the hub, and has not the key, could make the newest of an old one."""
    store.push("x", about("signed"), FILES, key_file=key)
    store.push("x", about("mended"), FILES, key_file=key)
    file = tmp_path / "hub" / "ledger" / "000000" / "000000002.json"
    event, _ = parse_event(file.read_text(), "")
    assert isinstance(event, Pushed)
    for name, number in (("y", 1), ("x", 3)):
        store._add(lambda index, name=name, number=number: replace(event, name=name, version=number, nonce=name))
    one = trusting(tmp_path, key)
    for reference in ("y", "x"):
        line = str(refused(lambda reference=reference: one.pull(one.resolve(reference))))
        assert "its signature is not of this manifest under this name" in line
    assert [str(damage.version) for damage in one.verify()] == ["y:1", "x:3"]
    assert pulled(one.pull(one.resolve("x:2"))) == FILES


def test_what_was_signed_before_names_were(store: Store, key: Path, tmp_path: Path) -> None:
    """It is taken for what it is, and said to be."""
    version, _ = store.push("x", about("signed"), FILES, key_file=key)
    assert store.is_name_signed(version)
    assert "under any name" not in page_of(store, version)
    file = tmp_path / "hub" / "ledger" / "000000" / "000000002.json"
    event, previous = parse_event(file.read_text(), "")
    assert isinstance(event, Pushed)
    private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    value = base64.b64encode(private.sign(b"graftax hub manifest sha256:" + event.digest.encode())).decode()
    file.write_text(event_text(replace(event, signature=Signature(version.signer or "", value)), previous))
    one = trusting(tmp_path, key)
    assert not one.is_name_signed(one.resolve("x"))
    assert "under any name" in page_of(one, one.resolve("x"))
    assert one.files(one.resolve("x")) == FILES


def test_keys_that_cannot_sign(store: Store, tmp_path: Path, key: Path) -> None:
    def push(file: Path) -> str:
        return str(refused(lambda: store.push("x", about("signed"), FILES, key_file=file)))

    of_rsa = write_key(rsa.generate_private_key(65537, 2048), tmp_path / "rsa")
    assert push(of_rsa) == f"{of_rsa}: signatures are made with Ed25519 keys (ssh-keygen -t ed25519)."
    assert push(key.with_suffix(".pub")).startswith(f"{key.with_suffix('.pub')}: no private key")
    assert "does not exist" in push(tmp_path / "nowhere") or "no such file" in push(tmp_path / "nowhere").lower()
    assert not (tmp_path / "hub").exists()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not there")
def test_a_key_behind_a_password(store: Store, tmp_path: Path) -> None:
    key = tmp_path / "behind"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "password", "-f", str(key)], check=True)
    line = str(refused(lambda: store.push("x", about("signed"), FILES, key_file=key)))
    assert line.startswith(f"{key}: no private key that can be read without a password")


@pytest.mark.parametrize("line", ["ssh-rsa AAAA", "ssh-ed25519 AAAA", "garbage", "\x00\xff"])
def test_no_file_of_keys(tmp_path: Path, line: str) -> None:
    (tmp_path / "trusted").write_text(line)
    assert str(tmp_path / "trusted") in str(refused(lambda: store_of(tmp_path / "hub", tmp_path, trusted=tmp_path / "trusted")))


def test_without_the_library(store: Store, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that says what to install; what is not signed needs it not."""
    store.push("signed", about("signed"), FILES, key_file=key)
    store.push("x", about("unsigned"), FILES)
    find = importlib.util.find_spec
    monkeypatch.setattr(signing, "find_spec", lambda name: None if name == "cryptography" else find(name))
    assert "pip install 'graftax[hub]'" in str(refused(lambda: store.pull(store.resolve("signed"))))
    assert "pip install 'graftax[hub]'" in str(refused(lambda: store.push("y", about("y"), FILES, key_file=key)))
    assert store.files(store.resolve("x")) == FILES
