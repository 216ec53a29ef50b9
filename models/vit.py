"""ViT (Dosovitskiy et al., 2020, arXiv:2010.11929) and DeiT (Touvron et al., 2020, arXiv:2012.12877), which has a second token.

DeiT's distillation token has learnt from a convolutional network. Its task model in transformers reads the class token alone,
as adapters' heads do here; the one with a teacher has two heads, whose mean is no head of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .config_keys import activation, epsilon, flag, layers, nullable, sides, size, unread_all
from .family import Family
from .parts import Part
from .picture_transformer import (
    HEAD,
    PictureTransformer,
    PictureTransformerConfig,
    embedding_parts,
    final_norm_part,
    layer_parts,
    read_sides,
    stacks,
)
from .pictures import Pictures

LAYER = {
    "attention_norm": "layernorm_before",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attention": "attention.attention",
    "attention_out": "attention.output.dense",
    "attention_branch": "attention.output",
    "ffn_norm": "layernorm_after",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_branch": "output",
    "output": "",
}
EMBEDDINGS = {
    "patch_embedding": "embeddings.patch_embeddings.projection",
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "register_tokens": "embeddings.register_tokens",
    "position_embeddings": "embeddings.position_embeddings",
}
#: What is called otherwise since transformers 5.
MODULES = (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)

#: What ViTConfig, DeiTConfig and BeitConfig declare,
OF_ALL = {
    "hidden_size": size(768, "hidden_size"),
    "num_hidden_layers": layers(12, "num_layers"),
    "num_attention_heads": size(12, "num_heads"),
    "intermediate_size": size(3072, "intermediate_size"),
    "hidden_act": activation("gelu"),
    "layer_norm_eps": epsilon(1e-12),
    "image_size": sides(224),
    "patch_size": sides(16),
    "num_channels": size(3, "num_channels"),
}
#: and the first two beside.
KEYS = {
    **OF_ALL,
    "qkv_bias": flag(True),
    # of training, of a decoder of masked patches, and of a pooled token that the task model does not read
    **unread_all(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.02, encoder_stride=16),
    **unread_all(pooler_output_size=None, pooler_act="tanh"),
}
#: And what their models read besides.
OLDER = {"head_dim": nullable(size(None, "head_dim", most=1 << 16))}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**read_sides(values), "unbiased": () if values["qkv_bias"] else ("query", "key", "value")}


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    return (*embedding_parts(c, EMBEDDINGS), *layer_parts(c, LAYER), final_norm_part("layernorm", c.hidden_size))


VIT = Family(
    model_types=("vit",),
    summary="ViT: a picture's patches as tokens",
    task_model="ViT",
    prefix="vit",
    keys=KEYS,
    older=OLDER,
    stacks=stacks("encoder.layer.{}"),
    parts=parts,
    head=HEAD,
    config=PictureTransformerConfig,
    module=PictureTransformer,
    modules=MODULES,
    read=read,
    task="image-classify",
    processor=Pictures,
    past_key_values=False,
)
DEIT = replace(
    VIT,
    model_types=("deit",),
    summary="DeiT: ViT with a distillation token",
    task_model="DeiT",
    prefix="deit",
    defaults={"distilled": True},
)
FAMILIES = (VIT, DEIT)
