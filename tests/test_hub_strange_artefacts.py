"""OCI artefacts by other tools, and by nobody one would trust."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from artefacts import Layout, blob, contents, tarred, without_card
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import noted
from refusals import refused

from graftax import GraftaxError, Hub
from graftax.hub.exchange import take
from graftax.hub.model_pack import CONFIG_TYPE, unpack
from graftax.hub.oci_layout import layout_at


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hub(tmp_path / "hub")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_of_other_tools_are_read(layout: Layout, of_peft: Path, compressed: bool) -> None:
    """A tar layer, with paths that begin with ./ and a folder's own entry, beside layers that are nothing of an adapter's."""
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    archive = tarred({"./": folder, **{f"./{path.name}": path.read_bytes() for path in of_peft.iterdir()}})
    kind = "application/vnd.cncf.model.weight.v1.tar"
    layers = [
        layout.add(gzip.compress(archive), f"{kind}+gzip") if compressed else layout.add(archive, kind),
        layout.add(b"print('hello')", "application/vnd.cncf.model.code.v1.raw", "train.py"),
        layout.add(b"{}", "application/vnd.cncf.model.weight.config.v1.raw", "tokenizer.json"),
    ]
    where = layout.artefact(layers)
    taken: dict[str, bytes] = {}
    said = noted(lambda: taken.update(take(where, "bank")[1]))
    assert without_card(taken) == contents(of_peft)
    assert f"{where}: no part of an adapter, and left out: a layer of code, tokenizer.json." in said


def test_damage_is_found(layout: Layout, of_peft: Path) -> None:
    layers = layout.files(of_peft)
    where = layout.artefact(layers)
    file = layout.path / "blobs" / layers[0]["digest"].replace(":", "/")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"!")
    with pytest.raises(GraftaxError, match=f"the blob {layers[0]['digest']} is damaged"):
        take(where, "bank")
    file.write_bytes(whole[:-1])
    with pytest.raises(GraftaxError, match="is damaged"):
        take(where, "bank")
    file.unlink()
    with pytest.raises(GraftaxError, match=f"the blob {layers[0]['digest']} is missing"):
        take(where, "bank")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"config": {"mediaType": "application/vnd.oci.image.config.v1+json"}}, "no model by ModelPack's specification"),
        ({"config": {"mediaType": "application/vnd.kitops.modelkit.config.v1+json"}}, "its config is application/vnd.kitops"),
        ({"config": {"mediaType": CONFIG_TYPE, "size": 1 << 40}}, "a config of 1,099,511,627,776 bytes"),
        ({"config": None}, "is not the manifest of a model"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}, "is not the manifest of a model"),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "is not the manifest of a model"),
        ({"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar"}]}, "none of ModelPack's media types"),
        ({"layers": [{"mediaType": "application/vnd.cncf.model.weight.v1.tar+zstd"}]}, "compressed with zstd"),
        ({"layers": [{"size": 1 << 40}]}, "at most 4,294,967,296 are read"),
        ({"layers": [{"size": -1}]}, "size must be"),
        ({"layers": [{"digest": "sha256:../../../../etc/passwd"}]}, "digest must be"),
        ({"layers": [{"digest": "md5:900150983cd24fb0d6963f7d28e17f72"}]}, "digest must be"),
        ({"layers": [{"annotations": {}}]}, "has no path"),
        ({"layers": [{"annotations": {"org.cncf.model.filepath": "../adapter_config.json"}}]}, "a path within the directory"),
        ({"layers": [{"annotations": {"org.cncf.model.filepath": "/etc/adapter_config.json"}}]}, "a path within the directory"),
        ({"layers": [{"annotations": {"org.cncf.model.filepath": "..\\adapter_config.json"}}]}, "a path within the directory"),
        ({"layers": [{"annotations": {"org.cncf.model.filepath": "model.safetensors"}}]}, "no adapter there"),
        ({"layers": [{}, {}]}, "adapter_config.json is there twice"),
        ({"layers": [{}] * 1001}, "1,001 layers"),
        ({"layers": "all"}, "layers must be a list"),
        ({"layers": []}, "no adapter there"),
        ({"annotations": {"graftax.manifest": "{"}}, "graftax.manifest: not valid JSON"),
        ({"annotations": {"graftax.manifest": '{"schema": 3, "files": {}}'}}, "schema 3 is newer than this graftax"),
        ({"annotations": {"graftax.manifest": '{"schema": 1, "files": {}}'}}, "graftax.digest is not the digest"),
    ],
)
def test_what_is_no_adapter_is_one_line(layout: Layout, of_peft: Path, change: dict[str, Any], line: str) -> None:
    sound = layout.add(
        (of_peft / "adapter_config.json").read_bytes(), "application/vnd.cncf.model.weight.v1.raw", "adapter_config.json"
    )
    if isinstance(change.get("layers"), list):
        change = {"layers": [sound | layer for layer in change["layers"]]}
    if isinstance(change.get("config"), dict):
        change = {"config": sound | change["config"]}
    where = layout.artefact(**{"layers": [sound], **change})
    said = refused(lambda: take(where, "bank"))
    assert said is not None
    assert line in said
    assert said.startswith(where)


def test_a_manifest_is_of_the_files_that_come_with_it(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    hub.push("bank", of_graftax)
    hub.export("bank", f"oci:{tmp_path / 'true'}")
    (entry,) = json.loads((tmp_path / "true" / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(tmp_path / "true", entry["digest"]))
    changed = Layout(tmp_path / "changed")
    layers = [
        layer for layer in changed.files(hub.pull("bank")) if layer["annotations"]["org.cncf.model.filepath"] != "LICENSE"
    ]
    with pytest.raises(GraftaxError, match="is of other files than the layers are: LICENSE"):
        take(changed.artefact(layers, annotations=manifest["annotations"]), "bank")


def test_a_manifest_does_not_claim_another_backbone(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    """Else what fits one backbone would be found for another that somebody wishes it were for."""
    hub.push("bank", of_graftax)
    text = hub.store.manifest(hub.resolve("bank")).text()
    claimed = text.replace(hub.resolve("bank").fingerprint or "", "0" * 64)
    layout = Layout(tmp_path / "layout")
    told = {"graftax.manifest": claimed, "graftax.digest": f"sha256:{hashlib.sha256(claimed.encode()).hexdigest()}"}
    with pytest.raises(GraftaxError, match="name different fingerprints"):
        take(layout.artefact(layout.files(hub.pull("bank")), annotations=told), "bank")


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ({"../../adapter_config.json": b"{}"}, "a path within the directory"),
        ({"/adapter_config.json": b"{}"}, "a path within the directory"),
        ({"a": link("adapter_config.json", "/etc/passwd")}, "is a link, a device or has holes"),
        ({"a": link("adapter_config.json", "b", tarfile.LNKTYPE)}, "is a link, a device or has holes"),
        ({"a": link("adapter_config.json", "", tarfile.FIFOTYPE)}, "is a link, a device or has holes"),
    ],
)
def test_archives_reach_nothing_outside(layout: Layout, members: dict[str, Any], line: str, tmp_path: Path) -> None:
    where = layout.artefact([layout.add(tarred(members), "application/vnd.cncf.model.weight.v1.tar")])
    with pytest.raises(GraftaxError, match=line):
        take(where, "bank")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout"]


def test_a_small_layer_does_not_become_a_large_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftax.hub.model_pack._MOST_UNPACKED", 1 << 20)
    bomb = gzip.compress(tarred({"adapter_model.safetensors": bytes(1 << 21)}))
    assert len(bomb) < 1 << 13
    with pytest.raises(GraftaxError, match="is of more than 1,048,576 bytes"):
        take(layout.artefact([layout.add(bomb, "application/vnd.cncf.model.weight.v1.tar+gzip")]), "bank")


def test_an_archive_of_countless_members_is_not_read(layout: Layout) -> None:
    archive = tarred({f"{number}": b"" for number in range(1001)})
    with pytest.raises(GraftaxError, match="more than 1,000 members"):
        take(layout.artefact([layout.add(archive, "application/vnd.cncf.model.weight.v1.tar")]), "bank")


def test_weights_are_no_pickle(layout: Layout, of_peft: Path) -> None:
    """Wherever they come from."""
    layers = layout.files(of_peft)
    for layer in layers:
        if layer["annotations"]["org.cncf.model.filepath"] == "adapter_model.safetensors":
            layer["annotations"] = {"org.cncf.model.filepath": "adapter_model.bin"}
    said = refused(lambda: take(layout.artefact(layers), "bank"))
    assert said is not None
    assert "no adapter_model.safetensors there" in said


@pytest.fixture(scope="module")
def archive(of_peft: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """A layout's archive, whose layers are a tar and a tar.gz."""
    layout = Layout(tmp_path_factory.mktemp("fuzz") / "layout")
    kind = "application/vnd.cncf.model.weight.v1.tar"
    config = tarred({"adapter_config.json": (of_peft / "adapter_config.json").read_bytes()})
    weights = tarred({"adapter_model.safetensors": b"not looked at here"})
    layout.artefact([layout.add(config, kind), layout.add(gzip.compress(weights), f"{kind}+gzip")])
    return tarred(contents(layout.path))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_archive_is_one_line(archive: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Or it is read as it was: some bytes of an archive say nothing."""
    damaged = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.sampled_from([len(archive), len(archive) // 2, len(archive) - 3000])) :]
    path = tmp_path_factory.mktemp("damaged") / "layout.tar"
    path.write_bytes(damaged)
    taken: dict[str, bytes] = {}
    said = refused(lambda: taken.update(unpack(layout_at(path, None))[0]))
    assert (said is None) == (taken.keys() == {"adapter_config.json", "adapter_model.safetensors"})
    assert said is not None or taken["adapter_model.safetensors"] == b"not looked at here"
