"""The contract of methods: files keep every bit and every setting of an adapter, and what is wrong in them is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cases import (
    LABELS,
    ROUNDED,
    as_saved,
    logits,
    random_adapter,
)
from conftest import CONFIGS, GetBackbone, some_inputs
from contract import (
    FAST,
    assert_same_states,
    cross,
    digest,
)
from make_golden import GOLDEN, golden_backbone
from safetensors.numpy import load_file, save_file
from tiny import edited

from graftax import (
    BOFT,
    HRA,
    IA3,
    OFT,
    SSF,
    AdaLoRA,
    Adapter,
    AdaptFormer,
    ALoRA,
    BitFit,
    Bottleneck,
    Compacter,
    DiReFT,
    DoRA,
    FourierFT,
    Full,
    GraftaxError,
    HiRA,
    Invertible,
    LayerNormTuning,
    LoHa,
    LoKr,
    LoRA,
    LoRAFA,
    LoReFT,
    MiSS,
    Prefix,
    PromptTuning,
    PTuning,
    RandLoRA,
    RepAdapter,
    RoAd,
    SHiRA,
    TrainableTokens,
    VeRA,
    load_adapter,
    save_adapter,
)
from graftax.models.random import random_backbone


@cross(FAST)
def test_round_trip(family: str, name: str, head: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariants 4, 10: every tensor bitwise, the config as a typed object, and what is known about the adapter."""
    backbone = backbone_of(family)
    before = digest(backbone)
    adapter = dataclasses.replace(random_adapter(backbone, name, head == "tokens"), metrics={"f1": 0.5}, recipe={"lr": 1e-3})
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    within = ROUNDED.get(name, 0.0)
    assert_same_states(loaded, as_saved(adapter), within)
    for field in dataclasses.fields(Adapter):
        if field.name not in ("states", "source"):
            assert getattr(loaded, field.name) == getattr(adapter, field.name)
    weights = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    assert (adapter.source, loaded.source) == (None, hashlib.sha256(weights).hexdigest())
    assert digest(backbone) == before
    if (family, name, head) in FAST:
        inputs = some_inputs(backbone)
        ours, theirs = logits(backbone, loaded, inputs), logits(backbone, adapter, inputs)
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=10 * within)


@pytest.mark.parametrize(
    "method",
    [
        LoRA(r=3, alpha=7.5, dropout=0.1, targets=("query",), rank_pattern={"query": 2}, alpha_pattern={"query": 5.0}),
        LoRA(r=3, alpha=7.0, targets=("query", "value")),
        LoRA(r=3, alpha=7.0, targets=r".*layer\.2\..*dense"),
        LoRAFA(r=3, alpha=7.0, dropout=0.1, targets=("query", "dense")),
        DoRA(r=3, alpha=7.0, rslora=True, targets=("query", "word_embeddings"), rank_pattern={"query": 2}),
        LoHa(r=3, alpha=7.5, targets=("query",), rank_pattern={"query": 2}, alpha_pattern={"query": 5.0}),
        LoKr(r=3, alpha=7.5, targets=("query", "dense"), rank_pattern={"query": 9}, decompose_both=True, decompose_factor=4),
        VeRA(r=7, d_initial=0.2, dropout=0.1, projection_prng_key=5, targets=("query", "dense")),
        RandLoRA(r=6, alpha=9.0, dropout=0.1, projection_prng_key=5, targets=("query", "intermediate.dense")),
        MiSS(r=5, dropout=0.1, targets=("query",)),
        MiSS(r=8, mini_r=16, targets=r".*key"),
        HiRA(r=3, targets=("query",)),
        AdaLoRA(
            init_r=3,
            target_r=1,
            alpha=7.5,
            dropout=0.1,
            tinit=2,
            tfinal=3,
            deltaT=4,
            beta1=0.8,
            beta2=0.9,
            orth_reg_weight=0.1,
            total_step=20,
            targets=("query",),
            rank_pattern={f"bert.encoder.layer.{i}.attention.self.query.lora_E": [i > 0, False, i == 2] for i in range(3)},
        ),
        ALoRA(r=3, alpha=7.5, targets=("query",), rank_pattern={"query": 2}, invocation=(5, 6)),
        IA3(targets=("key", "output.dense"), feedforward=("output.dense",)),
        IA3(targets=r".*key"),
        Bottleneck(width=3, activation="silu", place="pfeiffer"),
        Bottleneck(width=3, place="parallel", scaling="channel"),
        Bottleneck(width=3, place="plus", scaling=2.5),
        Bottleneck(width=3, place="post", activation="tanh"),
        Bottleneck(width=3, place="pfeiffer", normed=True),
        AdaptFormer(width=3, activation="gelu", scaling="learned"),
        RepAdapter(width=8, groups=4, scale=0.5, targets=("query",)),
        SSF(targets=("query", "LayerNorm")),
        Compacter(width=8, normed=True),
        Compacter(width=8, n=2, activation="relu", place="pfeiffer"),
        Invertible(reduction=4, activation="silu"),
        BitFit(targets=("LayerNorm",)),
        Full(targets=("word_embeddings", "query")),
        Prefix(tokens=3),
        Prefix(tokens=3, shifted=False),
        PromptTuning(tokens=3),
        PTuning(tokens=3),
        PTuning(tokens=3, encoder_hidden_size=5),
        PromptTuning(tokens=3, post=True),
        LoReFT(r=3, targets=("layer.2",)),
        DiReFT(r=3, prefix_positions=4, suffix_positions=2),
        LayerNormTuning(targets=("output.LayerNorm",)),
        OFT(r=4, oft_block_size=0, targets=("query",), block_share=True, num_cayley_neumann_terms=6),
        HRA(r=3, apply_GS=True, targets=("query",)),
        RoAd(variant="road_4", group_size=8, targets=("query",)),
        FourierFT(n_frequency=7, scaling=3.0, random_loc_seed=1, init_weights=True, targets=("query",)),
        SHiRA(r=2, random_seed=4, targets=("query",)),
        TrainableTokens(ids=(7, 5)),
        BOFT(boft_block_size=0, boft_block_num=4, boft_n_butterfly_factor=2, targets=("query",)),
    ],
    ids=lambda method: method.name,
)
def test_typed_config_survives(method: Any, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 10: every field, the head's too."""
    backbone = backbone_of("bert")
    head = backbone.head(3, dropout=0.25)
    adapter = Adapter.create((method, head), backbone.sites_for(head), labels=LABELS)
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    assert loaded.methods == adapter.methods
    assert_same_states(loaded, as_saved(adapter))


def test_two_methods_never_share_a_key(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 10: two methods of one adapter that hold a leaf of one name at one site keep both."""
    backbone = backbone_of("bert")
    adapter = random_adapter(backbone, (Full(), BitFit()))
    assert_same_states(load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone), adapter)


def spoilt(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """An adapter directory with its tensors changed and its checksum put right."""
    file = directory / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    facts = json.loads((directory / "graftax.json").read_text())
    facts["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (directory / "graftax.json").write_text(json.dumps(facts))
    return directory


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Any], str], dict[str, Any]], str]] = {
    "missing": (lambda tensors, key: {k: t for k, t in tensors.items() if k != key}, "missing KEY"),
    "extra": (lambda tensors, key: tensors | {f"{key}.more": tensors[key]}, "unexpected KEY.more"),
    "misshapen": (lambda tensors, key: tensors | {key: np.concatenate([tensors[key]] * 2)}, "KEY has shape"),
    "flat": (lambda tensors, key: tensors | {key: tensors[key].ravel()[:1]}, "KEY has shape"),
    "dtype": (lambda tensors, key: tensors | {key: tensors[key].astype(np.int32)}, "KEY \\(I32\\)"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("name", ["rslora", "lora-embedding", "ia3", "houlsby", "bitfit", "shira", "full", "prefix", "probe"])
def test_wrong_tensor_is_named(name: str, which: int, fault: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 13: one missing, extra, misshapen or wrong-dtype tensor."""
    change, message = TENSOR_FAULTS[fault]
    backbone = backbone_of("roberta")
    path = save_adapter(random_adapter(backbone, name), tmp_path / "a", backbone)
    tensors = load_file(path / "adapter_model.safetensors")
    key = [k for k in sorted(tensors) if tensors[k].size > 1][which]
    if fault in ("misshapen", "flat") and key.endswith("classifier.out_proj.weight"):
        message = "classifier.out_proj"  # the classifier's own rows say how many labels there are
    short = re.escape(key.replace("base_model.model.", "").replace("base_model.", ""))
    with pytest.raises(GraftaxError, match=message.replace("KEY", rf"\S*{short}")):
        load_adapter(spoilt(path, lambda tensors: change(tensors, key)), backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda indices: indices.astype(np.float32), r"shira_indices \(F32\), expected I32"),
        (lambda indices: indices + 32, "point outside"),
        (lambda indices: -indices, "point outside"),
        (lambda indices: indices.astype(bool), r"shira_indices \(BOOL\)"),
    ],
    ids=["float", "high", "negative", "bool"],
)
def test_wrong_indices_are_refused(change: Any, message: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 13: integers are read where a method has them, and checked."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "shira"), tmp_path / "a", backbone)
    changed = spoilt(path, lambda tensors: {k: change(t) if k.endswith("indices") else t for k, t in tensors.items()})
    with pytest.raises(GraftaxError, match=message):
        load_adapter(changed, backbone)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lora", {"use_dora": True}, "missing .*lora_magnitude_vector"),
        ("lora", {"brand_new_switch": 3}, "brand_new_switch=3"),
        ("lora", {"peft_type": "POLY"}, "'POLY' is not supported; supported are LORA, .*IA3, .*PREFIX_TUNING"),
        ("lora", {"peft_type": None}, "None is not supported"),
        ("lora", {"target_modules": ["no_such"]}, "matches no site. Sites there are: .*attention.self.query"),
        ("lora", {"target_modules": None}, "target_modules"),
        ("lora", {"r": 0}, "r must be a whole number, at least 1"),
        ("lora", {"r": "eight"}, "r"),
        ("lora", {"target_modules": "("}, "target_modules|regex|regular expression"),
        ("lora", {"target_modules": 3}, "target_modules"),
        ("prefix", {"num_virtual_tokens": 0}, "at least 1"),
        ("prefix", {"num_virtual_tokens": 9}, "shape"),
        ("houlsby", {"methods": [{"method": "bottleneck", "depth": 2}]}, "no such key: depth; there are .*width"),
        ("houlsby", {"methods": [{"method": "magic"}]}, "unknown method 'magic'"),
        ("houlsby", {"methods": [{"method": "bottleneck", "width": 0}]}, "width must be a whole number, at least 1"),
        ("houlsby", {"methods": "bottleneck"}, "methods"),
        ("houlsby", {"methods": []}, "an adapter has methods"),
    ],
)
def test_wrong_config_is_named(
    name: str, changes: dict[str, Any], message: str, backbone_of: GetBackbone, tmp_path: Path
) -> None:
    """Invariant 13."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, name), tmp_path / "a", backbone)
    edited(path / "adapter_config.json", **changes)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_an_edited_peft_config_counts(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """PEFT's config is what PEFT reads, so it is what we read, whatever graftax.json remembers."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    edited(path / "adapter_config.json", lora_alpha=9.0)
    method = load_adapter(path, backbone).method("lora")
    assert isinstance(method, LoRA)
    assert method.alpha == 9.0


@pytest.mark.parametrize("name", ["lora", "houlsby"])
def test_other_backbone_is_refused(name: str, tmp_path: Path, backbone_of: GetBackbone) -> None:
    """Invariant 14: by fingerprint, unless told otherwise."""
    backbone, other = backbone_of("bert"), random_backbone(CONFIGS["bert"], seed=8)
    path = save_adapter(random_adapter(backbone, name), tmp_path / "a", backbone)
    with pytest.raises(GraftaxError, match=f"another backbone.*{backbone.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        load_adapter(path, other)
    assert_same_states(load_adapter(path, other, any_backbone=True), load_adapter(path, backbone))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_weights_are_refused(damage: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 13: a checksum, and without graftax.json the format itself."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    file = path / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes({"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-9], "empty": b""}[damage])
    with pytest.raises(GraftaxError, match="checksum"):
        load_adapter(path, backbone)
    (path / "graftax.json").unlink()
    if damage != "flip":
        with pytest.raises(GraftaxError, match="corrupt or truncated"):
            load_adapter(path, backbone)


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.glob("*/*") if p.is_dir()))
def test_golden(name: str) -> None:
    """Invariant 12: adapters stored by every release so far load and give the logits stored beside them."""
    (path,) = GOLDEN.glob(f"*/{name}")
    backbone = golden_backbone()
    adapter = load_adapter(path, backbone)
    stored = np.array(json.loads((path / "logits.json").read_text()), np.float32)
    np.testing.assert_allclose(logits(backbone, adapter, some_inputs(backbone)), stored, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_load_as_float32(dtype: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 28."""
    backbone = backbone_of("bert")
    path = save_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    loaded = load_adapter(spoilt(path, lambda tensors: {k: t.astype(np.dtype(dtype)) for k, t in tensors.items()}), backbone)
    leaves = jax.tree.leaves([parts for states in loaded.states.values() for parts in states.values()])
    assert {np.asarray(leaf).dtype for leaf in leaves} == {np.dtype(np.float32)}
