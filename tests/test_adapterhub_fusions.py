"""Fusions in AdapterHub's files: several directories, read as one adapter and refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapterhub_cases import FUSIONS, fused
from cases import LABELS, logits, random_adapter
from conftest import GetBackbone, some_inputs

from graftax import Bottleneck, Fuse, GraftaxError, Method, export_adapter, load_adapter
from graftax.adapters.inspect import describe


@pytest.mark.parametrize("case", FUSIONS)
def test_fusions_are_several_directories(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """The same logits read from the whole or among its adapters, and the same files the second time."""
    backbone = backbone_of("bert")
    adapter, inputs = fused(backbone, case), some_inputs(backbone)
    path = export_adapter(adapter, tmp_path / "first", backbone, name="mine")
    again = load_adapter(path, backbone)
    assert (again.labels, again.methods[0].key) == (LABELS, adapter.methods[0].key)
    np.testing.assert_allclose(logits(backbone, again, inputs), logits(backbone, adapter, inputs), atol=1e-5)
    second = export_adapter(again, tmp_path / "second", backbone, name="mine")
    files = {file.relative_to(path) for file in path.rglob("*") if file.is_file()}
    members = "mine_0,mine_1,mine_2" if case == "fused-normed" else "mine_0,mine_1"
    assert {file.parts[0] for file in files} == {"adapter_setup.json", "mine", members, *members.split(",")}
    for file in files:
        assert (second / file).read_bytes() == (path / file).read_bytes()
    for file in (path / "mine").iterdir():
        file.rename(path / members / file.name)
    (path / "adapter_setup.json").unlink()
    np.testing.assert_array_equal(
        logits(backbone, load_adapter(path / members, backbone), inputs), logits(backbone, again, inputs)
    )


def test_a_fusion_is_described(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """With its adapters, from the setup or from the fusion's own directory."""
    path = export_adapter(fused(backbone_of("bert"), "fused"), tmp_path / "a", backbone_of("bert"), name="mine")
    page = describe(path)
    for part in ("a fusion of 2 adapters", "query_before_ln", "adapter_fusion_layer", "mine_0  (AdapterHub, ", "adapter_down"):
        assert part in page
    assert describe(path / "mine_0,mine_1") == page
    (path / "mine_1" / "adapter.safetensors").unlink()
    with pytest.raises(GraftaxError, match=r"mine_1: no adapter\.safetensors there"):
        describe(path)


REFUSED_FUSIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "queries": ("config", {"query": False}, "not supported: query=False"),
    "residual": ("config", {"residual_before": True}, "residual_before=True"),
    "temperature": ("config", {"temperature": True}, "temperature=True"),
    "unknown": ("config", {"tomorrows_switch": 3}, "tomorrows_switch=3"),
    "no-values": ("config", {"value": False}, r"unexpected .*adapter_fusion_layer\.mine_0,mine_1\.value\.weight"),
    "elsewhere": ("", {"adapter_names": ["mine_0", "../mine_1"]}, "expected the settings of a fusion"),
    "one": ("", {"adapter_names": ["mine_0"]}, "two or more adapters"),
    "backbone": ("", {"model_type": "roberta"}, "made for roberta"),
}


@pytest.mark.parametrize("case", REFUSED_FUSIONS)
def test_fusions_refused_by_name(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    (part, changes, message), backbone = REFUSED_FUSIONS[case], backbone_of("bert")
    path = export_adapter(fused(backbone, "fused"), tmp_path / "a", backbone, name="mine")
    file = path / "mine_0,mine_1" / "adapter_fusion_config.json"
    content = json.loads(file.read_text())
    (content[part] if part else content).update(changes)
    file.write_text(json.dumps(content))
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_setups_that_are_no_fusion(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(fused(backbone, "fused"), tmp_path / "a", backbone, name="mine")
    single = {"type": "single", "children": ["mine_0"]}
    for setup in (
        {"type": "Stack", "children": [single]},
        {"type": "Fuse", "children": [{"type": "Stack", "children": [single]}]},
    ):
        (path / "adapter_setup.json").write_text(json.dumps({"adapter_setup": setup, "head_setup": None}))
        with pytest.raises(GraftaxError, match="not a Fuse of single adapters"):
            load_adapter(path, backbone)
    (path / "adapter_setup.json").unlink()
    weights = path / "mine_0,mine_1" / "model_adapter_fusion.safetensors"
    weights.rename(weights.with_name("pytorch_model_adapter_fusion.bin"))
    with pytest.raises(GraftaxError, match=r"no model_adapter_fusion\.safetensors there; .* is a pickle"):
        load_adapter(weights.parent, backbone)


@pytest.mark.parametrize(
    ("members", "normed", "message"),
    [
        (Bottleneck(width=3, place="parallel"), False, "adds the residual stream once more"),
        (Bottleneck(width=3, targets=r".*layer\.[02]\.output"), False, "acts in every layer"),
        (Bottleneck(width=3), True, "only where the adapters read it"),
    ],
)
def test_fusions_the_library_cannot_hold(
    members: Method, normed: bool, message: str, backbone_of: GetBackbone, tmp_path: Path
) -> None:
    backbone = backbone_of("bert")
    trained = tuple(random_adapter(backbone, (members,), seed=seed) for seed in (3, 4))
    fusion = random_adapter(backbone, (Fuse(trained=trained, query_normed=normed),))
    with pytest.raises(GraftaxError, match=message):
        export_adapter(fusion, tmp_path / "a", backbone, name="mine")
