"""Adapters between a hub and other places: directories and OCI artefacts on a disk. The others: `test_hub_elsewhere.py`."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from adapterhub_cases import fused
from artefacts import Layout, blob, contents, without_card
from cases import logits, random_adapter
from conftest import GetBackbone, Graftax, some_inputs
from noted import noted

from graftax import BitFit, GraftaxError, Hub, LoRA, export_adapter, load_adapter, save_adapter
from graftax.hub.exchange import Address, InLayout, InRegistry, Repository, parse_address, take
from graftax.hub.model_pack import ARTEFACT_TYPE, CONFIG_TYPE
from graftax.hub.oci import IMAGE_MANIFEST
from graftax.hub.oci_layout import TAG, LayoutDirectory
from graftax.models.backbone import Backbone


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hub(tmp_path / "hub")


@pytest.fixture(scope="module")
def of_adapterhub(bert: Backbone, of_graftax: Path) -> Path:
    return export_adapter(load_adapter(of_graftax, bert), of_graftax.parent / "adapterhub", bert)


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
    said = noted(lambda: hub.import_("bank/unknown", of_peft))
    assert len(said) == 1
    assert "whether it fits is not known" in said[0]
    version = hub.import_("bank/known", of_peft, backbone=bert)
    assert (version.methods, version.fingerprint, version.model_type) == (("lora", "head"), bert.fingerprint, "bert")
    assert [str(found) for found in hub.search(fits=bert)] == ["bank/known:1"]
    assert without_card(contents(hub.pull("bank/known"))) == contents(of_peft)


def test_where_it_was_found_is_kept(hub: Hub, of_peft: Path, of_graftax: Path, tmp_path: Path) -> None:
    """Of what graftax did not write; such a manifest is of the next schema, and others are what they were before it."""
    theirs = hub.import_("theirs", of_peft)
    assert "imported from  peft:peft" in hub.show("theirs")
    assert b"imported from: `peft:peft`" in hub.store.files(theirs)["README.md"]
    assert hub.store.manifest(theirs).schema == 2
    layout = Layout(tmp_path / "layout")
    where = layout.artefact(layout.files(of_peft))
    manifest = hub.store.manifest(hub.import_("packed", where))
    digest = json.loads((layout.path / "index.json").read_text())["manifests"][0]["digest"]
    assert manifest.imported_from == f"oci:layout@{digest}"
    assert [str(found) for found in hub.search(digest)] == ["packed:1"]
    manifest = hub.store.manifest(hub.import_("ours", of_graftax))
    assert (manifest.schema, manifest.imported_from, "imported_from" in manifest.text()) == (1, None, False)
    other = Hub(tmp_path / "other")
    again = other.import_("again", hub.export("packed", f"oci:{tmp_path / 'out'}"))
    assert again.digest == hub.resolve("packed").digest


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
    assert noted(lambda: other.import_("intent", where)) == []
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


def test_exports_into_one_layout_at_once(hub: Hub, of_graftax: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads the index and writes it again: none may write over what another has added, nor over a whole layout."""
    hub.push("bank", of_graftax)
    read = LayoutDirectory.entries
    monkeypatch.setattr(LayoutDirectory, "entries", lambda layout: (read(layout), time.sleep(0.05))[0])
    tags = [f"v{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda tag: hub.export("bank", f"oci:{tmp_path / 'layout'}:{tag}"), tags))
    there = [descriptor.annotations[TAG] for descriptor, _ in LayoutDirectory(tmp_path / "layout", None).entries()]
    assert sorted(there) == tags


def test_a_layout_whose_writer_was_killed_is_gone_on_with(hub: Hub, of_graftax: Path, tmp_path: Path) -> None:
    (tmp_path / "layout" / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "layout" / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"half")
    version = hub.push("bank", of_graftax)
    assert take(hub.export("bank", f"oci:{tmp_path / 'layout'}"), "bank")[0].digest == version.digest


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
