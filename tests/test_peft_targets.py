"""Targets, ranks and scales in PEFT's config choose the modules that they choose in PEFT (invariant 24)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
from peft_pairs import Pair, Pairs, make

from graftax import LoRA, load_adapter

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
    """Invariant 24: targets, exclusions, layers."""
    family, settings = TARGETS[case]
    pair = pairs(family)
    model, path = make(pair, tmp_path, peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=5, **settings))
    assert_same_modules(pair, path, model)


@pytest.mark.parametrize("case", RANKS)
def test_same_ranks_and_scales_as_peft(case: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 24: rank and alpha patterns, with rsLoRA."""
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
