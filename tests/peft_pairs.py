"""One set of weights as ours and as transformers', and adapters that PEFT puts on the latter: for tests/test_peft_*.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import peft
import pytest
import torch
import transformers
from cases import LABELS
from conftest import some_inputs
from reference import saved, torch_logits, torch_model
from safetensors.numpy import load_file

from graftax import load_backbone
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs

#: By kind of head: transformers' task model, and PEFT's name of the task.
TASKS = {"pooled": ("SequenceClassification", "SEQ_CLS"), "tokens": ("TokenClassification", "TOKEN_CLS")}


class Pair(NamedTuple):
    """One set of weights, as ours and as a maker of torch task models."""

    backbone: Backbone
    model: Callable[[], Any]  # a new one each time: PEFT changes the model it is given


class Pairs:
    """A pair by family and kind of head; `pooler=False`: the checkpoint has none. Each checkpoint is made once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: dict[Path, Backbone] = {}

    def __call__(self, family: str, head: str = "pooled", pooler: bool = True) -> Pair:
        path = self.directory / (family if pooler else f"{family}-without-pooler")
        if path not in self.made:
            without = {} if pooler or family == "distilbert" else {"pooler": False}
            self.made[path] = load_backbone(saved(torch_model(family, **without), path))
        auto = getattr(transformers, f"AutoModelFor{TASKS[head][0]}")
        return Pair(self.made[path], lambda: auto.from_pretrained(path, num_labels=len(LABELS), dtype=torch.float32).eval())


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


def rows(backbone: Backbone) -> Inputs:
    return some_inputs(backbone, seed=5)


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
