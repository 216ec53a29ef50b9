"""Our files are PEFT's and PEFT's are ours: same modules, same logits, both ways (invariants 11 and 24)."""

from __future__ import annotations

import csv
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import peft
import pytest
import torch
import transformers
from cases import LABELS, METHODS, ROUNDED, logits, random_adapter
from conftest import MINILM, SHARED, needs_assets, some_inputs
from reference import saved, torch_logits, torch_model
from safetensors.numpy import load_file, save_file

from graftax import IA3, Adapter, GraftaxError, LoRA, Recipe, load_adapter, load_backbone, save_adapter
from graftax.adapters import starts
from graftax.adapters.combining import deltas
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs
from graftax.models.tokens import Tokenizer, Tokens
from graftax.train import Examples, train
from graftax.train.batches import Shape
from graftax.train.measure import Measure
from graftax.train.rows import Rows
from graftax.train.tasks import task_named

TASKS = {"pooled": ("SequenceClassification", "SEQ_CLS"), "tokens": ("TokenClassification", "TOKEN_CLS")}


class Pair(NamedTuple):
    """One set of weights, as ours and as a maker of torch task models."""

    backbone: Backbone
    model: Callable[[], Any]  # a new one each time: PEFT changes the model it is given


Pairs = Callable[..., Pair]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A pair by family and kind of head; `pooler=False`: the checkpoint has none."""

    @functools.cache
    def encoder(family: str, pooler: bool) -> tuple[Path, Backbone]:
        path = tmp_path_factory.mktemp(family)
        saved(torch_model(family) if pooler or family == "distilbert" else torch_model(family, pooler=False), path)
        return path, load_backbone(path)

    def get(family: str, head: str = "pooled", pooler: bool = True) -> Pair:
        path, backbone = encoder(family, pooler)
        auto = getattr(__import__("transformers"), f"AutoModelFor{TASKS[head][0]}")
        return Pair(backbone, lambda: auto.from_pretrained(path, num_labels=len(LABELS), dtype=torch.float32).eval())

    return get


def make(pair: Pair, directory: Path, config: Any) -> tuple[Any, Path]:
    """An adapter made by PEFT: every vector and factor of it random, saved by PEFT."""
    torch.manual_seed(3)
    model = peft.get_peft_model(pair.model(), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return model.eval(), directory


@pytest.fixture(autouse=True)
def butterflies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PEFT's CUDA extension for BOFT computes, without which it takes one factor for any number of them."""
    blocks = SimpleNamespace(
        forward=lambda factors: [torch.stack([torch.block_diag(*factor) for factor in factors])],
    )
    monkeypatch.setattr("peft.tuners.boft.layer._FBD_CUDA", blocks)


def rows(backbone: Backbone) -> Inputs:
    return some_inputs(backbone, seed=5)


# -- ours, read by PEFT ----------------------------------------------------------------------------------------------------

IN_PEFT: tuple[str, ...] = ("lora", "rslora", "lora-dense", "lora-regex", "lora-embedding", "ia3", "ia3-targets")
IN_PEFT += ("dora", "dora-everywhere", "vera", "vera-dense", "loha", "loha-whole", "lokr", "lokr-both", "miss", "miss-mini")
IN_PEFT += ("hira", "adalora", "oft", "oft-cayley", "boft", "boft-1", "hra", "hra-gs", "fourierft", "road", "road_2", "road_4")
IN_PEFT += ("ln_tuning", "shira", "prefix", "prompt", "p_tuning", "lora_fa", "randlora", "randlora-dense")
WRITTEN = [(f, m, h) for f in ("bert", "roberta", "distilbert", "albert") for m in IN_PEFT for h in TASKS]
WRITTEN = [(f, m, h) for f, m, h in WRITTEN if m != "prefix" or f in ("bert", "roberta")]
#: "ffn", the name of a dense layer in ALBERT, is a whole module in DistilBERT, and PEFT refuses it.
WRITTEN = [
    (f, m, h) for f, m, h in WRITTEN if f != "distilbert" or not any(t.targets and "ffn" in t.targets for t in METHODS[m])
]
FAST_WRITTEN = {("bert", name, "pooled") for name in IN_PEFT}
FAST_WRITTEN |= {("roberta", "lora-dense", "tokens"), ("roberta", "prefix", "tokens")}
FAST_WRITTEN |= {("distilbert", "lora-embedding", "pooled"), ("albert", "rslora", "pooled"), ("bert", "lora-dense", "tokens")}
FAST_WRITTEN |= {("roberta", "p_tuning", "tokens"), ("albert", "p_tuning", "pooled")}
FAST_WRITTEN |= {("roberta", "prompt", "pooled"), ("distilbert", "prompt", "tokens"), ("albert", "prompt", "pooled")}
FAST_WRITTEN |= {("roberta", "lora-dense", "pooled"), ("albert", "ia3-targets", "tokens"), ("distilbert", "ia3", "tokens")}


def marked(cases: list[tuple[str, str, str]], fast: set[tuple[str, str, str]]) -> list[Any]:
    return [pytest.param(*c, id="-".join(c), marks=() if c in fast else pytest.mark.slow) for c in cases]


def read_by_peft(pair: Pair, path: Path) -> np.ndarray:
    """PEFT's logits with our adapter at the real tokens; every tensor of the file, and no other, is in its model."""
    model = peft.PeftModel.from_pretrained(pair.model(), path).eval()
    ours = set(load_file(path / "adapter_model.safetensors"))
    theirs = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    assert ours == {key for key in theirs if "original_module" not in key}
    return at_tokens(torch_logits(model, rows(pair.backbone)), pair)


def at_tokens(logits: np.ndarray, pair: Pair) -> np.ndarray:
    """Logits of rows as they are; those of tokens without the padding, where nobody reads them, and without a prompt's."""
    mask = rows(pair.backbone).mask
    return logits if logits.ndim == 2 else logits[:, -mask.shape[1] :][mask]


@pytest.mark.parametrize(("family", "name", "head"), marked(WRITTEN, FAST_WRITTEN))
def test_peft_reads_our_files(family: str, name: str, head: str, pairs: Pairs, tmp_path: Path) -> None:
    """11: every tensor of the file finds its place, and the logits are the same."""
    pair = pairs(family, head)
    adapter = random_adapter(pair.backbone, name, tokens=head == "tokens")
    path = save_adapter(adapter, tmp_path / "a", pair.backbone)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["task_type"] == TASKS[head][1]
    ours = logits(pair.backbone, adapter, rows(pair.backbone))
    np.testing.assert_allclose(read_by_peft(pair, path), at_tokens(ours, pair), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in IN_PEFT])
def test_what_peft_has_no_words_for(name: str, pairs: Pairs, tmp_path: Path) -> None:
    """Those files say so, so that PEFT refuses them instead of reading nonsense."""
    for family in ("distilbert", "albert"):
        backbone = pairs(family).backbone
        path = save_adapter(random_adapter(backbone, name), tmp_path / family, backbone)
        assert json.loads((path / "adapter_config.json").read_text())["peft_type"] == "GRAFTAX"
        with pytest.raises((KeyError, ValueError)):
            peft.PeftConfig.from_pretrained(path)


@pytest.mark.parametrize("family", ["distilbert", "albert"])
def test_prefix_where_transformers_takes_none(family: str, pairs: Pairs, tmp_path: Path) -> None:
    backbone = pairs(family).backbone
    path = save_adapter(random_adapter(backbone, "prefix"), tmp_path / "a", backbone)
    assert json.loads((path / "adapter_config.json").read_text())["peft_type"] == "GRAFTAX"


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_pooler_that_is_trained_with_the_head(family: str, pairs: Pairs, tmp_path: Path) -> None:
    """A checkpoint without a pooler: it belongs to the head, in our files and in PEFT's."""
    pair = pairs(family, pooler=False)
    assert not pair.backbone.config.pooler
    adapter = random_adapter(pair.backbone, "lora")
    path = save_adapter(adapter, tmp_path / "a", pair.backbone)
    ours = logits(pair.backbone, adapter, rows(pair.backbone))
    np.testing.assert_array_equal(logits(pair.backbone, load_adapter(path, pair.backbone), rows(pair.backbone)), ours)
    assert json.loads((path / "adapter_config.json").read_text())["modules_to_save"] == [f"{family}.pooler", "classifier"]
    np.testing.assert_allclose(read_by_peft(pair, path), ours, atol=1e-4)


# -- PEFT's, read by us ----------------------------------------------------------------------------------------------------


def peft_config(name: str, family: str, head: str) -> Any:
    """PEFT's own config of a kind, with its names for this family's modules."""
    query, value, out, wide = {
        "distilbert": ("q_lin", "v_lin", "ffn.lin2", "lin1"),
        "albert": ("query", "value", "ffn_output", "ffn"),
    }.get(family, ("query", "value", "output.dense", "intermediate.dense"))
    lora = functools.partial(peft.LoraConfig, task_type=TASKS[head][1], r=3, lora_alpha=7)
    match name:
        case "lora":
            known = family in ("bert", "roberta")  # where PEFT has targets of its own
            return lora(lora_dropout=0.1, target_modules=None if known else [query, value])
        case "rslora":
            return lora(use_rslora=True, target_modules=[query, value], rank_pattern={query: 5}, alpha_pattern={value: 2})
        case "regex":
            return lora(target_modules=rf".*({query}|{wide})")
        case "dense":
            return lora(target_modules=["dense", "out_lin", wide])
        case "all-linear":
            return lora(target_modules="all-linear")
        case "layers":
            return lora(target_modules=[query, wide], layers_to_transform=[0, 2], exclude_modules=[f"1.attention.self.{query}"])
        case "embedding":
            return lora(target_modules=["word_embeddings", value])
        case "dora":
            return lora(use_dora=True, target_modules=["word_embeddings", value, wide])
        case "loha":
            patterns = {"rank_pattern": {query: 5}, "alpha_pattern": {value: 2}}
            return peft.LoHaConfig(task_type=TASKS[head][1], r=3, alpha=7, target_modules=[query, value, wide], **patterns)
        case "lokr":
            return peft.LoKrConfig(task_type=TASKS[head][1], r=3, alpha=7, target_modules=[query, value, wide])
        case "lokr-both":
            cut = {"decompose_both": True, "decompose_factor": 8, "init_weights": "lycoris"}
            return peft.LoKrConfig(task_type=TASKS[head][1], r=2, alpha=5, target_modules=[query, out], **cut)
        case "vera":
            return peft.VeraConfig(task_type=TASKS[head][1], r=5, target_modules=[query, value, wide])
        case "randlora":
            bases = {"target_modules": [query, value, wide]}
            return peft.RandLoraConfig(task_type=TASKS[head][1], r=5, randlora_alpha=2, **bases)
        case "randlora-sparse":
            bases = {"target_modules": [out], "sparse": True}
            return peft.RandLoraConfig(task_type=TASKS[head][1], r=8, randlora_alpha=3, **bases)
        case "miss":
            return peft.MissConfig(task_type=TASKS[head][1], r=6, target_modules=[query, value, wide])
        case "miss-mini":
            return peft.MissConfig(task_type=TASKS[head][1], r=8, mini_r=4, init_weights="mini", target_modules=[query, wide])
        case "hira":
            return peft.HiraConfig(task_type=TASKS[head][1], r=3, target_modules=[query, value, wide])
        case "adalora":
            return peft.AdaLoraConfig(
                task_type=TASKS[head][1], init_r=5, target_r=2, lora_alpha=7, total_step=9, target_modules=[query, value, wide]
            )
        case "ia3":
            return peft.IA3Config(task_type=TASKS[head][1], target_modules=[query, value, out], feedforward_modules=[out])
        case "prompt":
            # PEFT does not find them in DistilBERT's config, and takes ALBERT's hidden size for its embedding's
            sizes = {"num_layers": 3, "num_attention_heads": 4, "token_dim": 16 if family == "albert" else 32}
            return peft.PromptTuningConfig(task_type=TASKS[head][1], num_virtual_tokens=4, **sizes)
        case "p_tuning" | "p_tuning-lstm":
            sizes = {"num_layers": 3, "num_attention_heads": 4, "token_dim": 16 if family == "albert" else 32}
            network = {"encoder_hidden_size": 6, "encoder_reparameterization_type": "MLP" if name == "p_tuning" else "LSTM"}
            return peft.PromptEncoderConfig(task_type=TASKS[head][1], num_virtual_tokens=4, **network, **sizes)
        case "ln_tuning":
            return peft.LNTuningConfig(
                task_type=TASKS[head][1],
                target_modules=["LayerNorm", "sa_layer_norm"],
                exclude_modules=["embeddings.LayerNorm"],
            )
        case "oft":
            return peft.OFTConfig(task_type=TASKS[head][1], target_modules=[query, out], oft_block_size=6)
        case "oft-terms":
            return peft.OFTConfig(
                task_type=TASKS[head][1], target_modules=[value], r=8, oft_block_size=0, num_cayley_neumann_terms=3
            )
        case "oft-cayley":
            return peft.OFTConfig(
                task_type=TASKS[head][1],
                target_modules=["dense", "out_lin", wide],
                oft_block_size=8,
                block_share=True,
                use_cayley_neumann=False,
            )
        case "hra":
            return peft.HRAConfig(task_type=TASKS[head][1], target_modules=[query, out], r=4)
        case "hra-gs":
            return peft.HRAConfig(task_type=TASKS[head][1], target_modules=[query, wide], r=3, apply_GS=True)
        case "road" | "road_2" | "road_4":
            variant = "road_1" if name == "road" else name
            return peft.RoadConfig(task_type=TASKS[head][1], target_modules=[query, wide], variant=variant, group_size=8)
        case "fourierft":
            return peft.FourierFTConfig(task_type=TASKS[head][1], target_modules=[query, wide], n_frequency=50, scaling=30.0)
        case "shira":
            return peft.ShiraConfig(task_type=TASKS[head][1], target_modules=[query, wide], r=4)
        case "boft":
            return peft.BOFTConfig(
                task_type=TASKS[head][1], target_modules=[query, wide], boft_block_size=4, boft_n_butterfly_factor=3
            )
        case "boft-1":
            return peft.BOFTConfig(task_type=TASKS[head][1], target_modules=[query, out], boft_block_size=0, boft_block_num=4)
        case _:
            return peft.PrefixTuningConfig(task_type=TASKS[head][1], num_virtual_tokens=4)


KINDS: tuple[str, ...] = ("lora", "rslora", "regex", "dense", "all-linear", "layers", "embedding", "ia3", "prefix", "prompt")
KINDS += ("dora", "loha", "lokr", "lokr-both", "vera", "miss", "miss-mini", "hira", "adalora", "ln_tuning", "shira")
KINDS += ("oft", "oft-terms", "oft-cayley", "boft", "boft-1", "hra", "hra-gs", "fourierft", "road", "road_2", "road_4")
KINDS += ("randlora", "randlora-sparse", "p_tuning", "p_tuning-lstm")
READ = [(f, k, h) for f in ("bert", "roberta", "distilbert", "albert") for k in KINDS for h in TASKS]
#: PEFT's own limits: prefixes need cached keys and values; all-linear takes the classifier too where it does not know its name.
PEFT_CANNOT = {("distilbert", "prefix"), ("albert", "prefix"), ("albert", "layers"), ("distilbert", "all-linear")}
READ = [(f, k, h) for f, k, h in READ if (f, k) not in PEFT_CANNOT and (k, h) != ("all-linear", "tokens")]
FAST_READ = {("bert", kind, "pooled") for kind in KINDS} | {("bert", "dense", "tokens"), ("roberta", "all-linear", "pooled")}
FAST_READ |= {("roberta", "prompt", "pooled"), ("bert", "prompt", "tokens")}
FAST_READ |= {("roberta", "prefix", "tokens"), ("distilbert", "dense", "pooled"), ("albert", "all-linear", "pooled")}


@pytest.mark.parametrize(("family", "kind", "head"), marked(READ, FAST_READ))
def test_we_read_pefts_files(family: str, kind: str, head: str, pairs: Pairs, tmp_path: Path) -> None:
    """11: adapters made and saved by PEFT give PEFT's logits, and go back as they came."""
    pair = pairs(family, head)
    model, path = make(pair, tmp_path, peft_config(kind, family, head))
    adapter = load_adapter(path, pair.backbone)
    assert (adapter.fingerprint, adapter.task) == (None, "tag" if head == "tokens" else "classify")
    ours = logits(pair.backbone, adapter, rows(pair.backbone))
    theirs = torch_logits(model, rows(pair.backbone))
    np.testing.assert_allclose(at_tokens(ours, pair), at_tokens(theirs, pair), atol=1e-4)
    back = load_file(save_adapter(adapter, tmp_path / "back", pair.backbone) / "adapter_model.safetensors")
    for key, tensor in load_file(path / "adapter_model.safetensors").items():
        if not key.endswith("base_layer.weight"):
            np.testing.assert_allclose(back[key], tensor, rtol=0.0, atol=ROUNDED.get(kind, 0.0), err_msg=key)


def test_adalora_that_peft_has_pruned(pairs: Pairs, tmp_path: Path) -> None:
    """11: the singular values that PEFT's schedule has left, one site without any, and the scale of the first rank."""
    pair, config = pairs("bert"), peft_config("adalora", "bert", "pooled")
    stem, random = "bert.encoder.layer.{}.attention.self.{}.lora_E", np.random.default_rng(0)
    left = {stem.format(i, name): (random.random(5) < 0.5).tolist() for i in range(3) for name in ("query", "value")}
    left[stem.format(1, "query")] = [False] * 5
    config.target_modules, config.rank_pattern = {"query", "value"}, left
    _, path = make(pair, tmp_path, config)
    adapter = load_adapter(path, pair.backbone)
    assert {f"{s.path}.lora_E": len(at["e"]) for s, (at, _) in adapter.states["adalora"].items()} == {
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


# -- starts ----------------------------------------------------------------------------------------------------------------


def lora_from(began: Any, **changes: Any) -> Any:
    settings = {"task_type": "SEQ_CLS", "r": 4, "lora_alpha": 7, "target_modules": ["query", "output.dense"], **changes}
    return peft.LoraConfig(init_lora_weights=began, **settings)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "rank_pattern": {"query": 2}, "alpha_pattern": {"dense": 3}}])
@pytest.mark.parametrize("began", [True, False, "gaussian", "orthogonal", "eva", "mica", "pissa", "olora"])
def test_we_read_what_began_elsewhere(began: Any, options: dict[str, Any], pairs: Pairs, tmp_path: Path) -> None:
    """11, 25: PEFT changes the base again when it loads PiSSA and OLoRA; here they become plain LoRA, which PEFT reads."""
    pair = pairs("bert")
    trained, path = make(pair, tmp_path / "theirs", lora_from(began, **options))
    loaded = peft.PeftModel.from_pretrained(pair.model(), path).eval()
    theirs = torch_logits(loaded, rows(pair.backbone))
    np.testing.assert_allclose(theirs, torch_logits(trained, rows(pair.backbone)), atol=1e-5)
    adapter = load_adapter(path, pair.backbone)
    method = adapter.method("lora")
    assert isinstance(method, LoRA)
    assert method.r == (8 if began in ("pissa", "olora") else 4)
    np.testing.assert_allclose(logits(pair.backbone, adapter, rows(pair.backbone)), theirs, atol=1e-4)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    np.testing.assert_allclose(read_by_peft(pair, back), theirs, atol=1e-4)
    if method.r == 8:  # read as what PEFT trained, it would be something else
        config = json.loads((path / "adapter_config.json").read_text()) | {"init_lora_weights": True}
        (path / "adapter_config.json").write_text(json.dumps(config))
        wrong = logits(pair.backbone, load_adapter(path, pair.backbone), rows(pair.backbone))
        assert np.abs(wrong - theirs).max() > 1e-2


@pytest.mark.parametrize("began", ["pissa", "olora"])
def test_what_peft_converts(began: str, pairs: Pairs, tmp_path: Path) -> None:
    """25: PEFT's own way to plain LoRA, which our refusals name, makes a file (without a head) that is read as it is."""
    pair = pairs("bert")
    model = peft.get_peft_model(pair.model(), lora_from(began, task_type=None))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = began
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    trained = {name: left + scale * b @ a for name, (a, b, scale, left) in began_in_peft(model).items()}
    model.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    found = deltas(load_adapter(tmp_path / "plain", pair.backbone))
    assert {site.path for site in found} == set(trained)
    for site, change in found.items():
        np.testing.assert_allclose(site.weights().kernel + change, trained[site.path].T, atol=1e-4)


@pytest.mark.parametrize("began", ["pissa_niter_4", "corda", "lora_ga", "loftq", "of tomorrow"])
def test_starts_that_no_file_tells(began: Any, lora_of_peft: tuple[Backbone, Path]) -> None:
    backbone, path = lora_of_peft
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": began}))
    message = rf"init_lora_weights={re.escape(repr(began))} changed the base.*path_initial_model_for_weight_conversion"
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_dora_on_a_changed_base(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, lora_from("pissa", use_dora=True))
    with pytest.raises(GraftaxError, match=r"init_lora_weights='pissa' with dora is not supported"):
        load_adapter(path, pair.backbone)


def began_in_peft(model: Any) -> dict[str, tuple[np.ndarray, ...]]:
    """Every module that PEFT's LoRA acts on: A, B, scale, and the weights that are left, [out, in]."""
    found = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            a, b = (layers["default"].weight.detach().numpy() for layers in (module.lora_A, module.lora_B))
            found[name] = (a, b, module.scaling["default"], module.get_base_layer().weight.detach().numpy())
    return found


def assert_begins_as_in_peft(method: LoRA, model: Any, backbone: Backbone, within: float = 1e-5) -> None:
    """The product of the factors, and the weights without it. Not the factors: their signs are anybody's."""
    adapter, theirs = Adapter.create((method,), backbone.sites), began_in_peft(model)
    (states,) = adapter.states.values()
    assert {site.path for site in states} == set(theirs)
    for site, (own, fixed) in states.items():
        a, b, scale, left = theirs[site.path]
        assert fixed["scale"] == pytest.approx(scale)
        change = fixed["scale"] * own["a"].T @ own["b"]
        np.testing.assert_allclose(change, scale * (b @ a).T, atol=within)
        np.testing.assert_allclose(site.weights().kernel - change, left.T, atol=within)
        np.testing.assert_allclose(np.linalg.norm(own["a"], axis=1), np.linalg.norm(a, axis=1), rtol=100 * within)


def texts_of(backbone: Backbone) -> Measure:
    """The rows of these tests as those of a job, all in one batch."""
    inputs = rows(backbone)
    texts = [Tokens(ids[own], types[own], None) for ids, own, types in zip(*inputs[:3], strict=True)]
    shape = Shape(len(texts), len(texts), inputs.ids.shape[1], shared=False)
    held = Rows(Examples((), None, None), texts, [np.int32(0)] * len(texts))
    return Measure(backbone, task_named("classify"), Tokenizer.of(backbone), Recipe(), backbone.head(len(LABELS)), held, shape)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
@pytest.mark.parametrize("began", ["pissa", "olora"])
def test_starts_from_weights_are_pefts(began: str, options: dict[str, Any], pairs: Pairs) -> None:
    pair = pairs("bert")
    method = LoRA(r=4, alpha=7.0, start=began, targets=("query", "output.dense"), rslora=bool(options))
    assert_begins_as_in_peft(method, peft.get_peft_model(pair.model(), lora_from(began, **options)), pair.backbone)


def test_lora_ga_is_pefts(pairs: Pairs) -> None:
    """Of the same gradient, at the rank where PEFT's randomised decomposition is exact; up to the signs of the rows."""
    pair, random = pairs("bert"), np.random.default_rng(0)
    model = pair.model()
    config = lora_from("lora_ga", r=8, lora_ga_config=peft.tuners.lora.config.LoraGAConfig(), target_modules=["query"])
    gradients = {}
    for name, module in model.named_modules():
        if name.endswith("query"):
            gradients[name] = random.standard_normal((32, 32)).astype(np.float32)
            module._peft_loraga_grad = torch.tensor(gradients[name].T)
    theirs = began_in_peft(peft.get_peft_model(model, config))
    sites = {site.path: site for site in pair.backbone.sites}
    for path, (a, b, _, _) in theirs.items():
        mine = starts.lora_ga(sites[path], gradients[path], 8)
        np.testing.assert_allclose(np.abs(mine[0]), np.abs(a), atol=1e-3)
        np.testing.assert_allclose(np.abs(mine[1]), np.abs(b.T), atol=1e-3 * np.abs(b).max())


def test_eva_is_pefts(pairs: Pairs) -> None:
    """The same ranks and, as near as its incremental and randomised decomposition comes, the same axes."""
    pair = pairs("bert")
    inputs, targets = rows(pair.backbone), ["key", "output.dense"]
    batch = {"input_ids": inputs.ids, "attention_mask": inputs.mask, "token_type_ids": inputs.types}
    loader = [{name: torch.tensor(np.asarray(part, np.int64)) for name, part in batch.items()}]
    config = lora_from("eva", target_modules=targets, r=2)
    found = peft.get_eva_state_dict(pair.model(), loader, config, show_progress_bar=False)
    method = LoRA(r=2, alpha=7.0, start="eva", targets=tuple(targets))
    adapter = Adapter.create((method,), pair.backbone.sites, rows=texts_of(pair.backbone))
    (states,) = adapter.states.values()
    ranks = {site.path: len(own["a"]) for site, (own, _) in states.items()}
    assert ranks == {name: len(axes) for name, axes in found.items() if len(axes)}
    for site, (own, _) in states.items():
        cosines = np.abs(np.sum(own["a"] * found[site.path].numpy(), axis=1))
        np.testing.assert_allclose(cosines, 1.0, atol=0.02, err_msg=site.path)


# -- targets ---------------------------------------------------------------------------------------------------------------

TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "suffix": ("bert", {"target_modules": ["query"]}),
    "two-suffixes": ("bert", {"target_modules": ["query", "value"]}),
    "dotted-suffix": ("bert", {"target_modules": ["attention.output.dense"]}),
    "ambiguous-suffix": ("bert", {"target_modules": ["dense"]}),
    "part-of-a-name": ("bert", {"target_modules": ["query", "ense"]}),
    "whole-path": ("bert", {"target_modules": ["bert.encoder.layer.1.output.dense"]}),
    "regex": ("bert", {"target_modules": r".*layer\.[01]\..*(query|key)"}),
    "regex-must-match-all": ("bert", {"target_modules": r".*query|bert\.encoder\.layer\.2.*value"}),
    "all-linear": ("bert", {"target_modules": "all-linear"}),
    "exclude-list": ("bert", {"target_modules": ["query", "dense"], "exclude_modules": ["pooler.dense"]}),
    "exclude-regex": ("bert", {"target_modules": ["query", "dense"], "exclude_modules": r".*layer\.0\..*"}),
    "exclude-from-regex": ("bert", {"target_modules": r".*(query|key)", "exclude_modules": r".*layer\.0\..*key"}),
    "exclude-from-all-linear": ("bert", {"target_modules": "all-linear", "exclude_modules": ["query"]}),
    "one-layer": ("bert", {"target_modules": ["query"], "layers_to_transform": 1}),
    "layers": ("bert", {"target_modules": ["query", "dense"], "layers_to_transform": [0, 2]}),
    "no-layers": ("bert", {"target_modules": ["query"], "layers_to_transform": []}),
    "pattern": ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layer"}),
    "patterns": ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": ["blocks", "layer"]}),
    "whole-path-beside-layers": (
        "bert",
        {"target_modules": ["query", "bert.encoder.layer.2.attention.self.value"], "layers_to_transform": [0]},
    ),
    "embedding": ("bert", {"target_modules": ["word_embeddings", "position_embeddings"]}),
    "roberta-dense": ("roberta", {"target_modules": ["dense"]}),
    "roberta-all-linear": ("roberta", {"target_modules": "all-linear"}),
    "distilbert-regex": ("distilbert", {"target_modules": r".*attention\.[qv]_lin"}),
    "distilbert-layers": ("distilbert", {"target_modules": ["lin1", "lin2"], "layers_to_transform": [2]}),
    "albert-names": ("albert", {"target_modules": ["ffn", "dense"]}),
    "albert-all-linear": ("albert", {"target_modules": "all-linear"}),
    "albert-layers": ("albert", {"target_modules": ["query"], "layers_to_transform": [0]}),
}
RANKS: dict[str, dict[str, int]] = {  # foo, ^foo and module.foo of PEFT's documentation, and overlapping keys
    "foo": {"query": 5},
    "^foo": {"^query": 5},
    "^path": {r"^bert\.encoder\.layer\.1\.attention\.self\.query": 5},
    "module.foo": {"self.query": 5},
    "module-foo-of-one-layer": {r"layer\.1\.attention\.self\.query": 5, "query": 6},
    "regex": {r"(query|output\.dense)": 5},
    "part-of-a-name": {"uery": 5},
    "any": {".*": 5},
}


def assert_same_modules(pair: Pair, path: Path, model: Any) -> None:
    """Every module that PEFT adapted is one of ours, at PEFT's rank and scale, and no other."""
    method, layers = load_adapter(path, pair.backbone).method("lora"), {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            layers[name] = (module.r["default"], pytest.approx(module.scaling["default"]))
    assert isinstance(method, LoRA)
    assert {s.path: (method.size(s), method.scale(s)) for s in load_adapter(path, pair.backbone).states["lora"]} == layers


@pytest.mark.parametrize("case", TARGETS)
def test_same_modules_as_peft(case: str, pairs: Pairs, tmp_path: Path) -> None:
    """24: targets, exclusions, layers."""
    family, settings = TARGETS[case]
    pair = pairs(family)
    model, path = make(pair, tmp_path, peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=5, **settings))
    assert_same_modules(pair, path, model)


@pytest.mark.parametrize("case", RANKS)
def test_same_ranks_and_scales_as_peft(case: str, pairs: Pairs, tmp_path: Path) -> None:
    """24: rank and alpha patterns, with rsLoRA."""
    pair = pairs("bert")
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        lora_alpha=5,
        use_rslora=True,
        target_modules=["query", "output.dense"],
        rank_pattern=RANKS[case],
        alpha_pattern={key: rank + 6 for key, rank in RANKS[case].items()},
    )
    model, path = make(pair, tmp_path, config)
    assert_same_modules(pair, path, model)


# -- refusals --------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "missing .*lora_magnitude_vector"),  # the switch alone
    "dora-alora": ({"use_dora": True, "alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens=\[1, 2\]"),
    "lora-bias": ({"lora_bias": True}, r"missing .*lora_B\.bias"),
    "bias": ({"bias": "all"}, "bias='all'"),
    "lora-only-bias": ({"bias": "lora_only"}, "bias='lora_only'"),
    "replication": ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    "unknown": ({"tomorrows_switch": {"on": 1}}, "tomorrows_switch"),
    "several": ({"use_bdlora": {"nblocks": 2}, "use_qalora": True}, r"use_bdlora=\{'nblocks': 2\}, use_qalora=True"),
    "method": ({"peft_type": "POLY"}, "'POLY' is not supported; supported are LORA, .*IA3, .*PREFIX_TUNING"),
}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("oft", {"coft": True}, "coft=True"),
        ("oft", {"peft_version": "0.17.1"}, "0.17.1"),
        ("oft", {"oft_block_size": 4, "r": 4}, "one of r and oft_block_size"),
    ],
)
def test_refused_by_method(kind: str, changes: dict[str, Any], message: str, pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft_config(kind, "bert", "pooled"))
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, pair.backbone)


@pytest.fixture
def lora_of_peft(pairs: Pairs, tmp_path: Path) -> tuple[Backbone, Path]:
    pair = pairs("bert")
    return pair.backbone, make(pair, tmp_path, peft_config("lora", "bert", "pooled"))[1]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, lora_of_peft: tuple[Backbone, Path]) -> None:
    """A key that would change the result is never dropped."""
    (backbone, path), (changes, message) = lora_of_peft, REFUSED[case]
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_pickle_is_never_read(lora_of_peft: tuple[Backbone, Path]) -> None:
    backbone, path = lora_of_peft
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(GraftaxError, match=r"pickle \(adapter_model\.bin\)"):
        load_adapter(path, backbone)


def test_task_without_a_head_tensor(lora_of_peft: tuple[Backbone, Path]) -> None:
    backbone, path = lora_of_peft
    file = path / "adapter_model.safetensors"
    save_file({key: t for key, t in load_file(file).items() if "classifier" not in key}, file)
    with pytest.raises(GraftaxError, match=r"SEQ_CLS but no tensor classifier\.weight"):
        load_adapter(path, backbone)


def test_ia3_roles_are_read_from_the_file(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft_config("ia3", "bert", "pooled"))
    assert load_adapter(path, pair.backbone).method("ia3") == IA3(
        targets=tuple(json.loads((path / "adapter_config.json").read_text())["target_modules"]), feedforward=("output.dense",)
    )


# -- trained weights -------------------------------------------------------------------------------------------------------


def intents(split: str, rows: int) -> list[dict[str, str]]:
    """Rows of three intents of CLINC150."""
    chosen = ("balance", "translate", "weather")
    with (SHARED / "data" / "clinc150" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["label"] in chosen]
    return found[:: len(found) // rows]


def trained_by_peft(path: Path) -> None:
    """A LoRA adapter with its classifier, a few steps of AdamW on MiniLM, saved by PEFT."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = peft.get_peft_model(minilm(), config).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    rows = intents("train", 48)
    names = sorted({row["label"] for row in rows})
    for begin in range(0, len(rows), 16):
        chunk = rows[begin : begin + 16]
        batch = tokenizer([row["text"] for row in chunk], padding=True, return_tensors="pt")
        model(**batch, labels=torch.tensor([names.index(row["label"]) for row in chunk])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)


def minilm() -> Any:
    auto = transformers.AutoModelForSequenceClassification
    return auto.from_pretrained(MINILM, num_labels=3, dtype=torch.float32)


@needs_assets
@pytest.mark.parametrize("maker", ["graftax", "peft"])
def test_trained_on_clinc150(maker: str, tmp_path: Path) -> None:
    """11: a LoRA trained here and one trained by PEFT, on real weights and rows, give the same logits in both [1e-4]."""
    backbone, path = load_backbone(MINILM), tmp_path / "trained"
    if maker == "peft":
        trained_by_peft(path)
    else:
        recipe = Recipe(epochs=1, lr=5e-3, batch_size=16)
        train(backbone, intents("train", 48), path, method=LoRA(r=4, alpha=12.0), recipe=recipe, progress=False)
    assert all(np.abs(tensor).max() > 1e-3 for tensor in load_file(path / "adapter_model.safetensors").values())
    tokens = Tokenizer.of(backbone)([row["text"] for row in intents("test", 24)])
    inputs = Tokenizer.of(backbone).pad(tokens, len(tokens), 32)
    theirs = torch_logits(peft.PeftModel.from_pretrained(minilm(), path).eval(), inputs)
    np.testing.assert_allclose(logits(backbone, load_adapter(path, backbone), inputs), theirs, atol=1e-4)


@pytest.mark.parametrize("modules", ["graftax", "graftax.train, graftax.serve, graftax.adapters, graftax.models, graftax.cli"])
def test_torch_is_never_imported(modules: str) -> None:
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
