"""transformers' CLIP and SigLIP, tiny and random: whole, and what their towers make of pictures and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from feature_maps import to_torch
from reference import saved, stirred
from tiny import tokenizer_json

from graftax import load_backbone

_LAYERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
PICTURE = {**_LAYERS, "image_size": 16, "patch_size": 4}
TEXT = {**_LAYERS, "hidden_size": 24, "num_hidden_layers": 2, "vocab_size": 97, "max_position_embeddings": 12}
TEXT |= {"eos_token_id": 96, "bos_token_id": 95, "pad_token_id": 1}
PAIRS: dict[str, dict[str, Any]] = {
    "clip": {"vision_config": PICTURE, "text_config": TEXT, "projection_dim": 20},
    "siglip": {"vision_config": PICTURE, "text_config": {**TEXT, "projection_size": 32}},
}
NAMES = ["apple", "iron", "old plum"]  # of classes
_MODELS = {"clip": "CLIP", "siglip": "Siglip"}


def torch_pair(kind: str, task: str = "Model", seed: int = 0, **changes: Any) -> Any:
    """transformers' model of a kind, whole or for a task, no weight of which is at the value at which it does nothing."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{_MODELS[kind]}Config")(**{**PAIRS[kind], **changes})
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{_MODELS[kind]}{task}")(config)
    return stirred(model, 0.05)


def pictures(rows: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 16, 16, 3), np.float32)


def texts(lengths: tuple[int, ...] = (12, 5, 9), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids that end in the token that ends texts, and their mask."""
    ids = np.random.default_rng(seed).integers(5, 95, (len(lengths), max(lengths))).astype(np.int32)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids[np.arange(len(lengths)), np.array(lengths) - 1] = 96
    return np.where(mask, ids, 1), mask


@torch.no_grad()
def of_pictures(model: Any, x: np.ndarray, **options: Any) -> Any:
    return model(pixel_values=to_torch(x), output_hidden_states=True, **options)


@torch.no_grad()
def of_texts(model: Any, ids: np.ndarray, mask: np.ndarray | None) -> Any:
    told = {} if mask is None else {"attention_mask": torch.tensor(mask.astype(np.int64))}
    return model(input_ids=torch.tensor(ids.astype(np.int64)), output_hidden_states=True, **told)


def with_towers(kind: str, directory: Path) -> tuple[Any, Any, Any]:
    """transformers' model, and its two towers here, with a tokenizer."""
    text = {**PAIRS[kind]["text_config"], "vocab_size": 160, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    model = torch_pair(kind, text_config=text)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    saved(model, directory)
    (directory / "tokenizer.json").write_text(tokenizer_json())
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return model, *(load_backbone(directory, tower=tower) for tower in ("image", "text"))


@torch.no_grad()
def similarities(kind: str, model: Any, texts: Any, rows: list[str], x: np.ndarray) -> np.ndarray:
    """What transformers' model says of each picture and text."""
    read = texts.processor(rows, max_length=12)
    inputs = texts.processor.pad(read, len(read), max(map(len, read)))
    told = {"attention_mask": torch.tensor(inputs.mask.astype(np.int64))} if kind == "clip" else {}
    ids = torch.tensor(inputs.ids.astype(np.int64))
    found = model(input_ids=ids, pixel_values=torch.tensor(x.transpose(0, 3, 1, 2)), **told)
    logits: np.ndarray = found.logits_per_image.numpy()
    return logits
