"""Our files, read by PEFT: every tensor finds its place, and the logits are the same (invariant 11)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import peft
import pytest
from cases import METHODS, logits, random_adapter
from contract import NOT_ON_TEXTS
from peft_pairs import TASKS, Pairs, at_tokens, marked, read_by_peft, rows

from graftax import load_adapter, save_adapter

pytestmark = pytest.mark.usefixtures("butterflies")

IN_PEFT: tuple[str, ...] = ("lora", "rslora", "lora-dense", "lora-regex", "lora-embedding", "ia3", "ia3-targets")
IN_PEFT += ("dora", "dora-everywhere", "vera", "vera-dense", "loha", "loha-whole", "lokr", "lokr-both", "miss", "miss-mini")
IN_PEFT += (
    "hira",
    "adalora",
    "oft",
    "oft-cayley",
    "boft",
    "boft-1",
    "boft-2",
    "hra",
    "hra-gs",
    "fourierft",
    "road",
    "road_2",
    "road_4",
)
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


@pytest.mark.parametrize(("family", "name", "head"), marked(WRITTEN, FAST_WRITTEN))
def test_peft_reads_our_files(family: str, name: str, head: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: every tensor of the file finds its place, and the logits are the same."""
    pair = pairs(family, head)
    adapter = random_adapter(pair.backbone, name, tokens=head == "tokens")
    path = save_adapter(adapter, tmp_path / "a", pair.backbone)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["task_type"] == TASKS[head][1]
    ours = logits(pair.backbone, adapter, rows(pair.backbone))
    np.testing.assert_allclose(read_by_peft(pair, path), at_tokens(ours, pair), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in IN_PEFT and name not in NOT_ON_TEXTS])
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
