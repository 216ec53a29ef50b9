"""Adapters between a hub and other places: directories and OCI artefacts on a disk. The others: `test_hub_elsewhere.py`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapterhub_cases import fused
from cases import logits, random_adapter
from conftest import GetBackbone, Graftax, some_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax import BitFit, GraftaxError, Hub, LoRA, export_adapter, load_adapter, save_adapter
from graftax.hub.exchange import Address, InLayout, InRegistry, Repository, parse_address, take
from graftax.hub.model_pack import ARTEFACT_TYPE, CONFIG_TYPE, unpack
from graftax.hub.oci import IMAGE_MANIFEST
from graftax.hub.oci_layout import layout_at
from graftax.models.backbone import Backbone
from graftax.notes import GraftaxNote


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hub(tmp_path / "hub")


@pytest.fixture(scope="module")
def bert(backbone_of: GetBackbone) -> Backbone:
    return backbone_of("bert")


@pytest.fixture(scope="module")
def of_graftax(bert: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """graftax's directory of a LoRA, with a card and a license."""
    folder = save_adapter(random_adapter(bert, (LoRA(r=3, alpha=5.0),)), tmp_path_factory.mktemp("of") / "bank", bert)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Bank\n\nIntents of a bank's customers.\n")
    (folder / "LICENSE").write_text("MIT")
    return folder


@pytest.fixture(scope="module")
def of_peft(of_graftax: Path) -> Path:
    """The same as PEFT would have saved it."""
    folder = of_graftax.parent / "peft"
    shutil.copytree(of_graftax, folder, ignore=shutil.ignore_patterns("graftax.json", "README.md", "LICENSE"))
    return folder


@pytest.fixture(scope="module")
def of_adapterhub(bert: Backbone, of_graftax: Path) -> Path:
    return export_adapter(load_adapter(of_graftax, bert), of_graftax.parent / "adapterhub", bert)


def notes_of(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in said if one.category is GraftaxNote]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def without_card(files: dict[str, bytes]) -> dict[str, bytes]:
    """The hub writes one, and renews one that is there."""
    return {path: content for path, content in files.items() if path != "README.md"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf://user/bank", Repository("user/bank", "main")),
        ("hf://user/bank@v2", Repository("user/bank", "v2")),
        ("oci:out", InLayout(Path("out"), None)),
        ("oci:out:v2", InLayout(Path("out"), "v2")),
        ("oci:../a:b/out.tar:3", InLayout(Path("../a:b/out.tar"), "3")),
        ("oci:/a/b:c/out", InLayout(Path("/a/b:c/out"), None)),
        ("oci://localhost:5000/team/bank:v2", InRegistry("localhost:5000", "team/bank", "v2")),
        ("oci://ghcr.io/team/bank", InRegistry("ghcr.io", "team/bank", None)),
        ("adapters/bank", Path("adapters/bank")),
    ],
)
def test_addresses(text: str, meant: Address) -> None:
    assert parse_address(text) == meant


@pytest.mark.parametrize(
    "text", ["s3://bucket/bank", "hf://bank", "hf:ada/bank", "oci:", "oci://host", "oci://host/Team:1", "oci://../x:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(GraftaxError, match="expected"):
        parse_address(text)


def test_a_path_with_a_colon_that_is_there_is_that_path(tmp_path: Path) -> None:
    (tmp_path / "out:v2").mkdir()
    assert parse_address(f"oci:{tmp_path}/out:v2") == InLayout(tmp_path / "out:v2", None)


# -- directories ---------------------------------------------------------------------------------------------------------


def test_what_comes_from_peft_fits_what_it_was_loaded_for(hub: Hub, of_peft: Path, bert: Backbone) -> None:
    """Its directory has no fingerprint: without a backbone that is said, with one it is known from then on."""
    said = notes_of(lambda: hub.import_("bank/unknown", of_peft))
    assert len(said) == 1
    assert "whether it fits is not known" in said[0]
    version = hub.import_("bank/known", of_peft, backbone=bert)
    assert (version.methods, version.fingerprint, version.model_type) == (("lora", "head"), bert.fingerprint, "bert")
    assert [str(found) for found in hub.search(fits=bert)] == ["bank/known:1"]
    assert without_card(contents(hub.pull("bank/known"))) == contents(of_peft)


def test_what_does_not_fit_is_not_kept(hub: Hub, of_peft: Path, of_graftax: Path, backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match="made for random-bert, read for random-roberta"):
        hub.import_("bank", of_peft, backbone=backbone_of("roberta"))
    with pytest.raises(GraftaxError, match="made for another backbone"):
        hub.import_("bank", of_graftax, backbone=backbone_of("roberta"))
    assert not hub.store.exists()


def test_a_directory_comes_out_as_it_went_in(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    version = hub.import_("bank", of_graftax)
    assert version == hub.push("bank", of_graftax)
    for format in (None, "graftax", "peft"):
        where = hub.export("bank", tmp_path / f"as {format}", format=format)
        assert contents(Path(where)) == hub.store.files(version)
    assert without_card(contents(Path(where))) == without_card(contents(of_graftax))
    with pytest.raises(GraftaxError, match="exists already"):
        hub.export("bank", tmp_path / "as None")
    assert hub.export("bank", tmp_path / "as None", overwrite=True)


def test_formats_are_turned_into_each_other(
    hub: Hub, of_graftax: Path, of_adapterhub: Path, backbone_of: GetBackbone, bert: Backbone, tmp_path: Path
) -> None:
    hub.import_("ours", of_graftax)
    with pytest.raises(GraftaxError, match="its backbone is needed"):
        hub.export("ours", tmp_path / "theirs", format="adapters")
    with pytest.raises(GraftaxError, match=r"^ours:1: made for another backbone"):
        hub.export("ours", tmp_path / "theirs", format="adapters", backbone=backbone_of("roberta"))
    theirs = Path(hub.export("ours", tmp_path / "theirs", format="adapters", backbone=bert))
    assert {"adapter.safetensors", "README.md", "LICENSE"} <= contents(theirs).keys()
    assert json.loads((theirs / "adapter_config.json").read_text())["name"] == "ours"

    hub.import_("theirs", of_adapterhub, backbone=bert)
    own = Path(hub.export("theirs", tmp_path / "own", format="adapters"))
    assert without_card(contents(own)) == contents(of_adapterhub)
    back = load_adapter(hub.export("theirs", tmp_path / "back", format="peft", backbone=bert), bert)
    inputs = some_inputs(bert)
    np.testing.assert_allclose(logits(bert, back, inputs), logits(bert, load_adapter(of_graftax, bert), inputs), atol=1e-5)


def test_a_fusion_is_several_directories(hub: Hub, bert: Backbone, tmp_path: Path) -> None:
    """On its way through an artefact, too."""
    path = export_adapter(fused(bert, "fused"), tmp_path / "fused", bert, name="mine")
    version = hub.import_("fused", path, backbone=bert)
    assert (version.methods, version.fingerprint) == (("fusion", "head"), bert.fingerprint)
    where = hub.export("fused", f"oci:{tmp_path / 'layout.tar'}")
    assert hub.import_("again", where).digest == version.digest
    assert without_card(contents(hub.pull("again"))) == contents(path)
    with pytest.raises(GraftaxError, match="PEFT has no files for fusion"):
        hub.export("again", tmp_path / "out", format="peft", backbone=bert)


def test_what_peft_has_not_is_not_exported_as_its(hub: Hub, bert: Backbone, tmp_path: Path) -> None:
    hub.push("bias", save_adapter(random_adapter(bert, (BitFit(),)), tmp_path / "bias", bert))
    with pytest.raises(GraftaxError, match="PEFT has no files for bitfit"):
        hub.export("bias", tmp_path / "out", format="peft")
    assert not (tmp_path / "out").exists()


# -- OCI artefacts on a disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["layout", "layout.tar"])
def test_an_artefact_comes_back_as_the_same_version(
    hub: Hub, of_peft: Path, bert: Backbone, target: str, tmp_path: Path
) -> None:
    """To the digest, with what the files do not say: the backbone that it was loaded for."""
    version = hub.import_("bank/intent", of_peft, backbone=bert)
    where = hub.export("bank/intent", f"oci:{tmp_path / target}:v1")
    other = Hub(tmp_path / "other")
    assert notes_of(lambda: other.import_("intent", where)) == []
    again = other.resolve("intent")
    assert (again.digest, again.fingerprint) == (version.digest, bert.fingerprint)
    assert contents(other.pull("intent")) == contents(hub.pull("bank/intent"))
    assert other.import_("intent", where, backbone=bert).version == 1  # nothing is added by loading it


def test_an_artefact_is_what_model_pack_says(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    version = hub.import_("bank/intent", of_graftax)
    assert hub.export("bank/intent", tmp_path / "layout", format="oci") == f"oci:{tmp_path / 'layout'}:1"
    assert json.loads((tmp_path / "layout" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "1"}
    manifest = json.loads(blob(tmp_path / "layout", entry["digest"]))
    assert (manifest["mediaType"], manifest["artifactType"]) == (IMAGE_MANIFEST, ARTEFACT_TYPE)
    kinds = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]}
    assert kinds == {
        "LICENSE": "application/vnd.cncf.model.doc.v1.raw",
        "README.md": "application/vnd.cncf.model.doc.v1.raw",
        "adapter_config.json": "application/vnd.cncf.model.weight.config.v1.raw",
        "adapter_model.safetensors": "application/vnd.cncf.model.weight.v1.raw",
        "graftax.json": "application/vnd.cncf.model.weight.config.v1.raw",
    }
    for layer in manifest["layers"]:
        path = hub.pull("bank/intent") / layer["annotations"]["org.opencontainers.image.title"]
        assert blob(tmp_path / "layout", layer["digest"]) == path.read_bytes()
    config = json.loads(blob(tmp_path / "layout", manifest["config"]["digest"]))
    assert manifest["config"]["mediaType"] == CONFIG_TYPE
    assert config["descriptor"] | {"name": "bank/intent", "version": "1", "family": "bert"} == config["descriptor"]
    assert config["config"] == {"format": "safetensors", "paramSize": f"{version.parameters / 1000:.1f}k"}
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}
    told = manifest["annotations"]
    assert told["graftax.fingerprint"] == version.fingerprint
    assert told["graftax.digest"] == f"sha256:{version.digest}"
    assert (told["graftax.task"], told["graftax.methods"]) == ("classify", "lora+head")


def test_a_layout_holds_several(hub: Hub, of_graftax: Path, of_peft: Path, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path / 'layout'}"
    first = hub.push("bank", of_graftax)
    hub.export("bank:1", f"{layout}:old")
    second = hub.push("bank", of_peft)
    hub.export("bank:2", f"{layout}:new")
    hub.export("bank:1", f"{layout}:old")  # it is there already
    assert [take(f"{layout}:{tag}", "bank")[0].digest for tag in ("old", "new")] == [first.digest, second.digest]
    with pytest.raises(GraftaxError, match="2 artefacts there; oci:PATH:TAG says which; its tags: new, old"):
        take(layout, "bank")
    with pytest.raises(GraftaxError, match="no artefacts of tag newest; its tags: new, old"):
        take(f"{layout}:newest", "bank")
    with pytest.raises(GraftaxError, match="the tag old is another artefact's"):
        hub.export("bank:2", f"{layout}:old")
    hub.export("bank:2", f"{layout}:old", overwrite=True)
    assert take(f"{layout}:old", "bank")[0].digest == second.digest


def test_archives_are_the_same_wherever_they_are_made(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    hub.push("bank", of_graftax)
    for name in ("one.tar", "two.tar"):
        hub.export("bank", f"oci:{tmp_path / name}")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with pytest.raises(GraftaxError, match="exists already"):
        hub.export("bank", f"oci:{tmp_path / 'one.tar'}")


def test_what_is_too_large_to_be_read_is_not_written(
    hub: Hub, of_graftax: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.push("bank", of_graftax)
    monkeypatch.setattr("graftax.hub.model_pack._MOST", 1000)
    with pytest.raises(GraftaxError, match="an OCI artefact holds 1,000 and"):
        hub.export("bank", f"oci:{tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_an_empty_directory_becomes_a_layout(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    version = hub.push("bank", of_graftax)
    (tmp_path / "empty").mkdir()
    assert take(hub.export("bank", f"oci:{tmp_path / 'empty'}"), "bank")[0].digest == version.digest


def test_other_things_are_not_taken_for_a_layout(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    hub.push("bank", of_graftax)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    for call in (lambda: hub.export("bank", f"oci:{tmp_path / 'other'}"), lambda: take(f"oci:{tmp_path / 'other'}", "bank")):
        with pytest.raises(GraftaxError, match="no OCI image layout"):
            call()
    with pytest.raises(GraftaxError, match="neither a directory nor a tar archive"):
        take(f"oci:{tmp_path / 'nowhere'}", "bank")
    with pytest.raises(GraftaxError, match="holds a version's own files, not AdapterHub's"):
        hub.export("bank", f"oci:{tmp_path / 'layout'}", format="adapters")
    with pytest.raises(GraftaxError, match="an OCI artefact is put into oci:PATH"):
        hub.export("bank", "hf://user/bank", format="oci")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


# -- artefacts by other tools, and by nobody one would trust -------------------------------------------------------------


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


class Layout:
    """A layout whose artefact a test may write as it likes."""

    def __init__(self, path: Path):
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(self, content: bytes, media_type: str, title: str | None = None) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(content)
        descriptor: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
        return descriptor | ({} if title is None else {"annotations": {"org.cncf.model.filepath": title}})

    def index(self, manifest: dict[str, Any]) -> str:
        entry = self.add(json.dumps(manifest).encode(), IMAGE_MANIFEST)
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return f"oci:{self.path}"

    def artefact(self, layers: Any, **changes: Any) -> str:
        config = self.add(b"{}", CONFIG_TYPE)
        plain = {"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "artifactType": ARTEFACT_TYPE}
        return self.index(plain | {"config": config, "layers": layers} | changes)

    def files(self, folder: Path) -> list[dict[str, Any]]:
        kind = "application/vnd.cncf.model.weight.v1.raw"
        return [self.add(path.read_bytes(), kind, path.name) for path in sorted(folder.iterdir())]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def tarred(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                archive.addfile(member)
    return made.getvalue()


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
    said = notes_of(lambda: taken.update(take(where, "bank")[1]))
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
        ({"annotations": {"graftax.manifest": '{"schema": 2, "files": {}}'}}, "schema 2 is newer than this graftax"),
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


# -- the command line ----------------------------------------------------------------------------------------------------


def test_commands(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    saved = save_adapter(random_adapter(tiny, (LoRA(r=3, alpha=5.0),)), tmp_path / "bank", tiny)
    (saved / "graftax.json").unlink()
    code, out, _ = graftax("hub", "import", "bank", saved, "--backbone", tiny_dir, "--tag", "prod")
    assert code == 0
    assert "bank:1" in out
    assert "lora" in out
    code, out, _ = graftax("hub", "export", "bank:prod", f"oci:{tmp_path / 'out.tar'}")
    assert (code, out) == (0, f"oci:{tmp_path / 'out.tar'}:1\n")
    code, out, err = graftax("hub", "import", "again", f"oci:{tmp_path / 'out.tar'}", "--json")
    assert code == 0
    assert json.loads(out)["fingerprint"] == tiny.fingerprint
    assert err == ""
    code, out, err = graftax("hub", "export", "bank", tmp_path / "theirs", "--format", "adapters")
    assert code == 2
    assert "--backbone" in err
    assert len(err.splitlines()) == 1
