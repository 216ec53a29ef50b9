"""PEFT's files, read by us: its logits, and the way back (invariant 11)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import peft
import pytest
from cases import ROUNDED, logits, random_adapter
from peft_configs import peft_config
from peft_pairs import TASKS, Pairs, at_tokens, make, marked, read_by_peft, rows
from reference import torch_logits
from safetensors.numpy import load_file, save_file

from graftax import GraftaxError, LoRA, load_adapter, save_adapter

pytestmark = pytest.mark.usefixtures("butterflies")

VARIANTS: tuple[str, ...] = ("lora", "rslora", "regex", "dense", "all-linear", "layers", "embedding", "ia3", "prefix", "prompt")
VARIANTS += ("dora", "loha", "lokr", "lokr-both", "vera", "miss", "miss-mini", "hira", "adalora", "ln_tuning", "shira")
VARIANTS += ("oft", "oft-terms", "oft-cayley", "boft", "boft-1", "hra", "hra-gs", "fourierft", "road", "road_2", "road_4")
VARIANTS += ("randlora", "randlora-sparse", "p_tuning", "p_tuning-lstm")
READ = [(f, k, h) for f in ("bert", "roberta", "distilbert", "albert") for k in VARIANTS for h in TASKS]
#: PEFT's own limits: prefixes need cached keys and values; all-linear takes the classifier too where it does not know its name.
PEFT_CANNOT = {("distilbert", "prefix"), ("albert", "prefix"), ("albert", "layers"), ("distilbert", "all-linear")}
READ = [(f, k, h) for f, k, h in READ if (f, k) not in PEFT_CANNOT and (k, h) != ("all-linear", "tokens")]
FAST_READ = {("bert", variant, "pooled") for variant in VARIANTS} | {
    ("bert", "dense", "tokens"),
    ("roberta", "all-linear", "pooled"),
}
FAST_READ |= {("roberta", "prompt", "pooled"), ("bert", "prompt", "tokens")}
FAST_READ |= {("roberta", "prefix", "tokens"), ("distilbert", "dense", "pooled"), ("albert", "all-linear", "pooled")}


@pytest.mark.parametrize(("family", "variant", "head"), marked(READ, FAST_READ))
def test_we_read_pefts_files(family: str, variant: str, head: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: adapters made and saved by PEFT give PEFT's logits, and go back as they came."""
    pair = pairs(family, head)
    model, path = make(pair, tmp_path, peft_config(variant, family, head))
    adapter = load_adapter(path, pair.backbone)
    assert (adapter.fingerprint, adapter.task) == (None, "tag" if head == "tokens" else "classify")
    ours = logits(pair.backbone, adapter, rows(pair.backbone))
    theirs = torch_logits(model, rows(pair.backbone))
    np.testing.assert_allclose(at_tokens(ours, pair), at_tokens(theirs, pair), atol=1e-4)
    back = load_file(save_adapter(adapter, tmp_path / "back", pair.backbone) / "adapter_model.safetensors")
    for key, tensor in load_file(path / "adapter_model.safetensors").items():
        if not key.endswith("base_layer.weight"):
            np.testing.assert_allclose(back[key], tensor, rtol=0.0, atol=ROUNDED.get(variant, 0.0), err_msg=key)


@pytest.mark.parametrize("variant", ["prefix", "prompt", "lora"])
def test_a_padding_token_within_a_text(variant: str, pairs: Pairs, tmp_path: Path) -> None:
    """RoBERTa's positions pass over it; a prefix in front does not move it, and beside a prompt it counts as any other."""
    pair = pairs("roberta", "pooled")
    model, path = make(pair, tmp_path, peft_config(variant, "roberta", "pooled"))
    inputs = rows(pair.backbone)
    ids = np.array(inputs.ids)
    ids[:, 1] = pair.backbone.config.pad_id
    inputs = inputs._replace(ids=ids)
    ours = logits(pair.backbone, load_adapter(path, pair.backbone), inputs)
    np.testing.assert_allclose(at_tokens(ours, pair), at_tokens(torch_logits(model, inputs), pair), atol=1e-5)


def test_adalora_that_peft_has_pruned(pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: the singular values that PEFT's schedule has left, a site without any, and the scale of the first rank."""
    pair, config = pairs("bert"), peft_config("adalora", "bert", "pooled")
    stem, random = "bert.encoder.layer.{}.attention.self.{}.lora_E", np.random.default_rng(0)
    left = {stem.format(i, name): (random.random(5) < 0.5).tolist() for i in range(3) for name in ("query", "value")}
    left[stem.format(1, "query")] = [False] * 5
    config.target_modules, config.rank_pattern = {"query", "value"}, left
    _, path = make(pair, tmp_path, config)
    adapter = load_adapter(path, pair.backbone)
    assert {f"{s.path}.lora_E": len(leaves["e"]) for s, (leaves, _) in adapter.states["adalora"].items()} == {
        key: sum(kept) for key, kept in left.items()
    }
    theirs = peft.PeftModel.from_pretrained(pair.model(), path).eval()
    ours = logits(pair.backbone, adapter, rows(pair.backbone))
    np.testing.assert_allclose(ours, torch_logits(theirs, rows(pair.backbone)), atol=1e-4)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    np.testing.assert_allclose(read_by_peft(pair, back), ours, atol=1e-4)


def test_lora_fa_is_a_lora_to_others(pairs: Pairs, tmp_path: Path) -> None:
    """Its directory is a LoRA's: without graftax.json it is one here too, and with it A stays frozen."""
    backbone = pairs("bert").backbone
    adapter = random_adapter(backbone, "lora_fa")
    path = save_adapter(adapter, tmp_path / "a", backbone)
    again = load_adapter(path, backbone)
    assert again.methods == adapter.methods
    assert [set(leaves) for leaves, _ in again.states["lora_fa"].values()] == [{"b"}] * 6
    (path / "graftax.json").unlink()
    lora = load_adapter(path, backbone)
    assert isinstance(lora.method("lora"), LoRA)
    assert [set(leaves) for leaves, _ in lora.states["lora"].values()] == [{"a", "b"}] * 6
    ours = logits(backbone, adapter, rows(backbone))
    np.testing.assert_allclose(logits(backbone, lora, rows(backbone)), ours, atol=1e-6)


def test_vera_without_its_projections(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft.VeraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], save_projection=False))
    with pytest.raises(GraftaxError, match=r"save_projection=false.*cannot be reproduced"):
        load_adapter(path, pair.backbone)


def test_randlora_without_its_bases(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    settings = {"r": 4, "target_modules": ["query"], "save_projection": False}
    _, path = make(pair, tmp_path, peft.RandLoraConfig(task_type="SEQ_CLS", **settings))
    with pytest.raises(GraftaxError, match=r"save_projection=false.*cannot be reproduced"):
        load_adapter(path, pair.backbone)


def test_randlora_with_two_kinds_of_bases(pairs: Pairs, tmp_path: Path) -> None:
    """PEFT's files hold the shared bases many times over; they must say the same."""
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft_config("randlora", "bert", "pooled"))
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[next(key for key in tensors if key.endswith("1.attention.self.query.randlora_A"))] += 1.0
    save_file(tensors, file)
    with pytest.raises(GraftaxError, match="copies of the random bases are not the same"):
        load_adapter(path, pair.backbone)


def test_miss_of_the_third_kind(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft.MissConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], init_weights="bat"))
    with pytest.raises(GraftaxError, match="init_weights='bat'"):
        load_adapter(path, pair.backbone)


MINIMAL = {"peft_type": "LORA", "target_modules": ["query"], "r": 2, "lora_alpha": 8}


def test_minimal_config(pairs: Pairs, tmp_path: Path) -> None:
    """Four keys, no head, no metadata, no graftax.json."""
    backbone, random = pairs("bert").backbone, np.random.default_rng(0)
    stem = "base_model.model.bert.encoder.layer.{}.attention.self.query.lora_{}.weight"
    shapes = {"A": (2, 32), "B": (32, 2)}
    tensors = {stem.format(i, f): random.standard_normal(s).astype(np.float32) for i in range(3) for f, s in shapes.items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(MINIMAL))
    adapter = load_adapter(tmp_path, backbone)
    assert adapter.methods == (LoRA(r=2, alpha=8, targets=("query",)),)
    for site, (leaves, fixed) in adapter.states["lora"].items():
        np.testing.assert_array_equal(leaves["b"].T, tensors[stem.format(site.layer, "B")])
        assert fixed["scale"] == 4.0
