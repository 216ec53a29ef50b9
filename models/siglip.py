"""SigLIP (Zhai et al., 2023, arXiv:2303.15343): CLIP's two towers, of which each pair of vectors is judged by itself.

The tower of pictures has no class token; its vector is pooled by attention (`attention_pooling.py`). That of texts sees the
whole text, which is padded to the longest that there can be, and the padding is seen: its vector is what the last of these
tokens says (`padded_texts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import clip
from .attention_pooling import pooling_parts
from .config_keys import activation, epsilon, flag, nullable, padding, sides, size, tokens, unread_all
from .family import Family, as_said
from .llama_config import special_of
from .padded_texts import PaddedTexts
from .parts import Part
from .picture_transformer import PictureTransformerConfig, final_norm_part, layer_parts, read_sides
from .text_tower import TextTowerConfig, text_parts

LAYERS = {**clip.LAYERS, "hidden_act": activation("gelu_pytorch_tanh"), "layer_norm_eps": epsilon(1e-6)}
#: What SiglipVisionConfig declares.
KEYS = {
    **LAYERS,
    "image_size": sides(224),
    "patch_size": sides(16),
    "num_channels": size(3, "num_channels"),
    "vision_use_head": flag(True),
    **unread_all(attention_dropout=0.0),
}
#: And SiglipTextConfig.
TEXT_KEYS = {
    **LAYERS,
    "vocab_size": size(32000, "vocab_size"),
    "max_position_embeddings": size(64, "max_positions"),
    "pad_token_id": padding(1),
    "eos_token_id": tokens(49407),
    "projection_size": nullable(size(None)),
    **unread_all(attention_dropout=0.0, bos_token_id=49406),
}


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    found = (*clip.embedding_parts(c), *layer_parts(c, clip.LAYER), final_norm_part("post_layernorm", c.hidden_size))
    return (*found, *pooling_parts(c, "head", "layers")) if c.vector else found


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**read_sides(values), "vector": "attention" if values["vision_use_head"] else ""}


def _text_parts(c: TextTowerConfig) -> tuple[Part, ...]:
    return (*text_parts(c, clip.LAYER), Part("linear", "projection", "head", (c.hidden_size, c.projection), above="layers"))


def _read_text(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**special_of(values), "projection": values["projection_size"] or values["hidden_size"]}


PICTURES: Family = replace(
    clip.PICTURES,
    model_types=("siglip_vision_model",),
    summary="SigLIP's tower of pictures: a ViT that pools by attention, for vectors to be compared with those of texts",
    task_model="Siglip",
    keys=KEYS,
    defaults={"class_token": False, "pooling": "mean"},
    parts=parts,
    read=_read,
    fitted=as_said,
)
TEXTS: Family = replace(
    clip.TEXTS,
    model_types=("siglip_text_model",),
    summary="SigLIP's tower of texts: an encoder, whose vectors can be compared with those of pictures",
    keys=TEXT_KEYS,
    defaults={**clip.TEXTS.defaults, "causal": False},
    parts=_text_parts,
    read=_read_text,
    fitted=as_said,
    processor=PaddedTexts,
)
FAMILIES = (PICTURES, TEXTS)
