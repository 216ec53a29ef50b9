"""transformers' torch models, tiny and random: what backbones and adapter files are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from conftest import CONFIGS, DECODERS

from graftax.models.inputs import Inputs

transformers.logging.set_verbosity_error()

#: Configs of every shape the loader must get right, by name.
SHAPES: dict[str, dict[str, Any]] = {
    **CONFIGS,
    "roberta-2-types": {**CONFIGS["roberta"], "type_vocab_size": 2},
    "xlm-roberta": {**CONFIGS["roberta"], "model_type": "xlm-roberta"},
    "bert-relu": {**CONFIGS["bert"], "hidden_act": "relu", "layer_norm_eps": 1e-5},
    "albert-groups": {**CONFIGS["albert"], "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
}
ENCODER_SHAPES = tuple(shape for shape in SHAPES if shape not in DECODERS)


def torch_model(shape: str, task: str = "", seed: int = 0, pooler: bool | None = None, **changes: Any) -> Any:
    """transformers' model of a shape, `AutoModel` or `AutoModelFor<task>`; no weight is left at zero or one."""
    raw = dict(SHAPES[shape])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw, **changes)
    auto = getattr(transformers, f"AutoModelFor{task}" if task else "AutoModel")
    torch.manual_seed(seed)
    model = auto.from_config(config, **({} if pooler is None else {"add_pooling_layer": pooler}))
    return stirred(model, 0.05)


@torch.no_grad()
def stirred(model: Any, size: float = 0.1) -> Any:
    """A model of which nothing that can be trained is at a value at which it does nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(size * torch.randn_like(parameter))
    return model.eval()


def saved(model: Any, directory: Path, **options: Any) -> Path:
    model.save_pretrained(directory, **options)
    return directory


def torch_inputs(inputs: Inputs, model: Any) -> dict[str, torch.Tensor]:
    """The same rows for a torch model; token types only where its forward knows them."""
    rows = {"input_ids": inputs.ids, "attention_mask": inputs.mask, "token_type_ids": inputs.types}
    if getattr(model.config, "type_vocab_size", 0) < 1:
        del rows["token_type_ids"]
    return {name: torch.tensor(np.asarray(row, np.int64)) for name, row in rows.items()}


@torch.no_grad()
def torch_logits(model: Any, inputs: Inputs) -> np.ndarray:
    return model(**torch_inputs(inputs, model)).logits.numpy()
