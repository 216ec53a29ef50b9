"""CLIP (Radford et al., 2021, arXiv:2103.00020): a tower for pictures and one for texts, whose vectors can be compared.

The tower of pictures is a ViT whose patches and class token are normed before the first layer. Its vector is the class token,
normed and projected; the task model's classifier reads the mean over the patches as it leaves the last layer. That of texts
(`text_tower.py`) sees to the left, and its vector is the last token, normed and projected. A checkpoint of a tower alone may
lack the projection, and then its vector is what would be projected.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from ..adapters.geometry import Geometry
from .config_keys import activation, epsilon, layers, nullable, padding, sides, size, tokens, unread_all
from .family import Family, TaskHead
from .llama_config import special_of
from .parts import Part
from .picture_transformer import (
    HEAD,
    PictureTransformer,
    PictureTransformerConfig,
    final_norm_part,
    layer_parts,
    read_sides,
    stacks,
)
from .pictures import Pictures
from .text_tower import TextTower, TextTowerConfig, text_parts

LAYER = {
    "attention_norm": "layer_norm1",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention": "self_attn",
    "attention_out": "self_attn.out_proj",
    "attention_branch": "self_attn",
    "ffn_norm": "layer_norm2",
    "ffn_in": "mlp.fc1",
    "ffn_out": "mlp.fc2",
    "ffn_branch": "mlp",
    "output": "",
}
#: What a tower's layers are, of pictures and of texts.
LAYERS = {
    "hidden_size": size(768, "hidden_size"),
    "num_hidden_layers": layers(12, "num_layers"),
    "num_attention_heads": size(12, "num_heads"),
    "intermediate_size": size(3072, "intermediate_size"),
    "hidden_act": activation("quick_gelu"),
    "layer_norm_eps": epsilon(1e-5),
}
_TRAINING = unread_all(attention_dropout=0.0, initializer_range=0.02, initializer_factor=1.0)

#: What CLIPVisionConfig declares.
KEYS = {
    **LAYERS,
    "image_size": sides(224),
    "patch_size": sides(32),
    "num_channels": size(3, "num_channels"),
    "projection_dim": size(512, "projection"),
    **_TRAINING,
}
#: And CLIPTextConfig.
TEXT_KEYS = {
    **LAYERS,
    "hidden_size": size(512, "hidden_size"),
    "num_attention_heads": size(8, "num_heads"),
    "intermediate_size": size(2048, "intermediate_size"),
    "vocab_size": size(49408, "vocab_size"),
    "max_position_embeddings": size(77, "max_positions"),
    "projection_dim": nullable(size(512, "projection")),
    "pad_token_id": padding(1),
    "eos_token_id": tokens(49407),
    **unread_all(bos_token_id=49406),
    **_TRAINING,
}
#: The head of a tower of texts, of which transformers has no task model.
TEXT_HEAD = TaskHead(features="last", hidden="none", modules=("classifier",))


def embedding_parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    """Patches, the class token and positions, which checkpoints have as rows of a table."""
    d, kernel = c.hidden_size, (*c.patch_size, c.num_channels, c.hidden_size)
    parts = [
        Part("input", "input", "embeddings", (d,)),
        Part(
            "conv",
            "patch_embedding",
            "embeddings.patch_embedding",
            kernel,
            bias=c.patch_bias,
            geometry=Geometry(stride=c.patch_size),
        ),
    ]
    if c.class_token:
        parts.append(Part("constant", "class_token", "embeddings.class_embedding", (d,)))
    shape = (c.placed + math.prod(c.grid), d)
    return (*parts, Part("constant", "position_embeddings", "embeddings.position_embedding.weight", shape))


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    d = c.hidden_size
    found = [
        *embedding_parts(c),
        Part("norm", "embedding_norm", "pre_layrnorm", (d,)),
        *layer_parts(c, LAYER),
        replace(final_norm_part("post_layernorm", d), name="vector_norm"),
    ]
    if c.projection:
        found.append(_projection("visual_projection", c))
    return tuple(found)


def _text_parts(c: TextTowerConfig) -> tuple[Part, ...]:
    found = text_parts(c, LAYER)
    return (*found, _projection("text_projection", c)) if c.projection else found


def _projection(path: str, c: PictureTransformerConfig | TextTowerConfig) -> Part:
    return Part("linear", "projection", path, (c.hidden_size, c.projection), bias=False, above="layers", task=True)


def _fitted(path: str) -> Any:
    """`Family.fitted`, of a tower whose checkpoint may lack its projection."""

    def fitted(config: Any, keys: Container[str]) -> Any:
        return config if f"{path}.weight" in keys else replace(config, projection=0)

    return fitted


def _read_text(values: Mapping[str, Any]) -> dict[str, Any]:
    return special_of(values)


PICTURES = Family(
    model_types=("clip_vision_model",),
    summary="CLIP's tower of pictures: a ViT, whose vectors can be compared with those of texts",
    task_model="CLIP",
    prefix="vision_model",
    keys=KEYS,
    defaults={
        "patch_bias": False,
        "embedding_norm": True,
        "final_norm": False,
        "pooling": "mean",
        "vector": "first",
    },
    stacks=stacks("encoder.layers.{}"),
    parts=parts,
    head=HEAD,
    config=PictureTransformerConfig,
    module=PictureTransformer,
    read=read_sides,
    fitted=_fitted("visual_projection"),
    task="image-classify",
    processor=Pictures,
    past_key_values=False,
)
TEXTS = Family(
    model_types=("clip_text_model",),
    summary="CLIP's tower of texts: a decoder, whose vectors can be compared with those of pictures",
    prefix="text_model",
    keys=TEXT_KEYS,
    defaults={"norm": "layer", "gated": False},
    stacks=stacks("encoder.layers.{}"),
    parts=_text_parts,
    head=TEXT_HEAD,
    config=TextTowerConfig,
    module=TextTower,
    read=_read_text,
    fitted=_fitted("text_projection"),
    past_key_values=False,
)
FAMILIES = (PICTURES, TEXTS)
