"""What lies in a cache or a draft is called by what people asked for, in pages, errors and notes alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from adapterhub_cases import fused
from cases import random_adapter
from conftest import GetBackbone
from noted import noted
from refusals import refused

from graftax import Hub, LoRA, export_adapter, save_adapter
from graftax.adapters.inspect import describe
from graftax.hub import exchange
from graftax.models.backbone import Backbone


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    return Hub()


def test_a_fusion_on_a_page_and_in_an_error(hub: Hub, bert: Backbone, tmp_path: Path) -> None:
    hub.push("fused", export_adapter(fused(bert, "fused"), tmp_path / "fused", bert, name="mine"))
    page = describe("fused:1")
    assert page.startswith("fused:1/mine_0,mine_1  (AdapterHub, a fusion of 2 adapters)")
    assert "\nfused:1/mine_1  (AdapterHub, " in page
    assert str(tmp_path) not in page
    said = refused(lambda: hub.diff("fused", "fused"))
    assert said == "fused:1: a fusion of adapters, which is compared on a backbone: say which."


def test_two_versions_that_are_compared(hub: Hub, bert: Backbone, backbone_of: GetBackbone, tmp_path: Path) -> None:
    hub.push("ours", save_adapter(random_adapter(bert, (LoRA(r=2),)), tmp_path / "ours", bert))
    found = hub.diff("ours", tmp_path / "ours")
    assert (found.left, found.right) == ("ours:1", str(tmp_path / "ours"))
    said = refused(lambda: hub.diff("ours", "ours", backbone=backbone_of("roberta"))) or ""
    assert said.startswith("ours:1: made for another backbone")


def test_notes_of_an_export_and_of_an_import(hub: Hub, bert: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = replace(random_adapter(bert, (LoRA(r=2),)), recipe={"max_length": 8})
    hub.push("ours", save_adapter(cut, tmp_path / "ours", bert))
    (note,) = noted(lambda: hub.export("ours:1", tmp_path / "theirs", format="adapters", backbone=bert))
    assert note == "ours:1: no file there says that it reads 8 tokens of a text; cut them there (max_length)."
    (tmp_path / "ours" / "notes.txt").write_text("mine")
    monkeypatch.setattr(exchange, "fetch_repository", lambda *_: tmp_path / "ours")  # as if that lay in the Hub's cache
    (note,) = noted(lambda: hub.import_("theirs", "hf://user/ours"))
    assert note == "hf://user/ours: no part of the adapter, and left out: notes.txt."
