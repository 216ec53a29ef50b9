"""Adapters between a hub and servers: a registry of OCI artefacts, and the Hugging Face Hub, each on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import hugging_face_server
import pytest
import registry_server
from cases import random_adapter
from hugging_face_server import HuggingFace
from registry_server import NAME, PASSWORD

from graftax import GraftaxError, Hub, LoRA, load_adapter, save_adapter
from graftax.hub.oci import IMAGE_MANIFEST
from graftax.models.backbone import Backbone
from graftax.store.version import Version


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return Hub(tmp_path / "hub")


@pytest.fixture
def directory(bert: Backbone, tmp_path: Path) -> Path:
    folder = save_adapter(random_adapter(bert, (LoRA(r=3, alpha=5.0),)), tmp_path / "bank", bert)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Bank\n\nIntents of a bank's customers.\n")
    return folder


@pytest.fixture
def version(hub: Hub, directory: Path) -> Version:
    return hub.push("bank/intent", directory)


# -- a registry ----------------------------------------------------------------------------------------------------------


def log_in(host: str, password: str, tmp_path: Path) -> None:
    """What `docker login` leaves."""
    (tmp_path / "docker").mkdir()
    auth = base64.b64encode(f"{NAME}:{password}".encode()).decode()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.mark.parametrize("asks", ["none", "basic", "bearer"])
def test_a_registry_gives_back_the_same_version(hub: Hub, version: Version, directory: Path, asks: str, tmp_path: Path) -> None:
    with registry_server.running(asks) as registry:
        if asks != "none":
            log_in(registry.host, PASSWORD, tmp_path)
        assert hub.export("bank/intent", f"oci://{registry.host}/team/bank") == f"oci://{registry.host}/team/bank:1"
        sent = registry.uploads
        hub.export("bank/intent", f"oci://{registry.host}/team/bank:prod")
        assert registry.uploads == sent == len(hub.store.files(version)) + 1  # the second time nothing is sent again
        assert registry.manifests["prod"] == (registry.manifests["1"][0], IMAGE_MANIFEST)
        again = Hub(tmp_path / "other").import_("intent", f"oci://{registry.host}/team/bank:prod")
        assert again.digest == version.digest
        hub.export("bank/intent", f"oci://{registry.host}/team/bank:old")
        (directory / "LICENSE").write_text("MIT")
        hub.push("bank/intent", directory)
        with pytest.raises(GraftaxError, match="team/bank:old is another artefact"):
            hub.export("bank/intent:2", f"oci://{registry.host}/team/bank:old")
        hub.export("bank/intent:2", f"oci://{registry.host}/team/bank:old", overwrite=True)


def test_a_password_is_for_the_registry_alone(hub: Hub, version: Version, tmp_path: Path) -> None:
    """Its blobs may lie with somebody else."""
    with registry_server.running("basic") as registry, registry_server.running() as storage:
        log_in(registry.host, PASSWORD, tmp_path)
        where = hub.export("bank/intent", f"oci://{registry.host}/team/bank")
        storage.blobs, registry.redirected = registry.blobs, storage.host
        assert hub.import_("again", where).digest == version.digest
        assert storage.given == {None}


def test_a_registry_that_refuses_or_lies(hub: Hub, version: Version, tmp_path: Path) -> None:
    with registry_server.running() as registry:
        where = f"oci://{registry.host}/team/bank"
        with pytest.raises(GraftaxError, match="say which artefact"):
            hub.import_("intent", where)
        with pytest.raises(GraftaxError, match=f"{where}:1: there is no such artefact"):
            hub.import_("intent", f"{where}:1")
        registry.location, sound = "file:///etc/hostname", registry.location
        with pytest.raises(GraftaxError, match="the registry sends us to file:///etc/hostname"):
            hub.export("bank/intent", where)
        registry.location = sound
        hub.export("bank/intent", where)
        digest = next(iter(registry.blobs))
        content = registry.blobs[digest]
        registry.blobs[digest] = content + b"!"
        with pytest.raises(GraftaxError, match="sends more than"):
            hub.import_("intent", f"{where}:1")
        registry.blobs[digest] = content[:-1] + bytes([content[-1] ^ 1])
        with pytest.raises(GraftaxError, match=f"the blob {digest} is damaged"):
            hub.import_("intent", f"{where}:1")
        del registry.blobs[digest]
        with pytest.raises(GraftaxError, match=f"the blob {digest} is missing"):
            hub.import_("intent", f"{where}:1")
        registry.asks = "bearer"
        log_in(registry.host, "wrong", tmp_path)
        for call in (lambda: hub.import_("intent", f"{where}:1"), lambda: hub.export("bank/intent", where)):
            with pytest.raises(GraftaxError, match=f"the registry refuses .401.; `docker login {registry.host}`"):
                call()
    with pytest.raises(GraftaxError, match="the registry cannot be reached"):
        hub.import_("intent", f"{where}:1")
    assert [str(one) for one in hub.list()] == ["bank/intent:1"]


# -- the Hugging Face Hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HuggingFace]:
    """A Hugging Face Hub, for huggingface_hub the only one; it has read its environment when it was imported."""
    from huggingface_hub import constants

    with hugging_face_server.running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", hugging_face_server.TOKEN)
        yield server


def test_a_repository_is_made_and_read(
    hub: Hub, version: Version, there: HuggingFace, bert: Backbone, directory: Path, tmp_path: Path
) -> None:
    where = hub.export("bank/intent", "hf://ada/bank")
    assert where == f"{there.url}/ada/bank/commit/{there.revision('ada/bank')}"
    assert there.commits == [f"bank/intent:1, sha256:{version.digest}"]
    assert there.private == {"ada/bank"}
    files = there.repositories["ada/bank"]
    assert files.keys() == {".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "graftax.json"}
    card = files["README.md"].decode()
    assert "library_name: peft" in card
    assert "Intents of a bank's customers." in card

    other = Hub(tmp_path / "other")
    again = other.import_("intent", "hf://ada/bank", backbone=bert)
    assert (again.fingerprint, again.labels, again.parameters) == (version.fingerprint, version.labels, version.parameters)
    assert other.store.manifest(again).imported_from == f"hf://ada/bank@{there.revision('ada/bank')}"
    for file in ("adapter_config.json", "adapter_model.safetensors", "graftax.json"):
        assert other.store.files(again)[file] == files[file]
    assert load_adapter("hf://ada/bank", bert).source == load_adapter(directory, bert).source


def test_a_repository_is_brought_up_to_date(hub: Hub, version: Version, there: HuggingFace) -> None:
    """In one commit, which takes away what would no longer belong to the rest; what people wrote there stays."""
    hub.export("bank/intent", "hf://ada/bank")
    files = there.repositories["ada/bank"]
    files["README.md"] = files["README.md"].replace(b"Intents of a bank's customers.", b"Edited on the Hub.")
    files |= {"head_config.json": b"{}", "notes.txt": b"mine", "checkpoint-1/adapter_config.json": b"{}", "LICENSE": b"MIT"}
    hub.export("bank/intent", "hf://ada/bank@main")
    assert b"Edited on the Hub." in files["README.md"]
    assert "head_config.json" not in files
    assert (files["notes.txt"], files["LICENSE"], files["checkpoint-1/adapter_config.json"]) == (b"mine", b"MIT", b"{}")
    assert len(there.commits) == 2


def test_what_the_hub_refuses_is_one_line(
    hub: Hub, version: Version, there: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.repositories["ada/model"] = {"config.json": b"{}", "model.safetensors": b""}
    there.repositories["ada/pickle"] = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.bin": b"\x80"}
    for source, line in [
        ("hf://ada/nothing", "ada/nothing: neither a directory nor a Hub id that can be reached"),
        ("hf://ada/model@v9", "ada/model: neither a directory nor a Hub id that can be reached"),
        ("hf://ada/model", "hf://ada/model: no adapter: the repository has no adapter_config.json"),
        ("hf://ada/pickle", "hf://ada/pickle: neither adapter_model.safetensors nor adapter.safetensors there"),
    ]:
        with pytest.raises(GraftaxError, match=line):
            hub.import_("intent", source)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(GraftaxError, match=r"hf://ada/bank: .*401"):
        hub.export("bank/intent", "hf://ada/bank")
    assert "ada/bank" not in there.repositories


def test_without_a_network(hub: Hub, version: Version, there: HuggingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.export("bank/intent", "hf://ada/bank")
    online = hub.import_("fetched", "hf://ada/bank")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.import_("fetched", "hf://ada/bank") == online  # from the cache
    with pytest.raises(GraftaxError, match=r"hf://ada/bank: .*offline mode"):
        hub.export("bank/intent", "hf://ada/bank")
