"""DINOv3's ViT (Simeoni et al., 2025, arXiv:2508.10104): rotary positions of rows and columns, registers, factors of branches.

Patches have no positions of their own: their queries and keys are turned by where they lie in the picture (`grids.angles`), the
class token's and the registers' are not. transformers has no task model of it; heads read the class token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import dinov2, vit
from .config_keys import activation, epsilon, flag, layers, number, sides, size, unread_all
from .family import Family
from .parts import Part
from .picture_transformer import (
    PictureTransformerConfig,
    embedding_parts,
    final_norm_part,
    layer_parts,
    read_sides,
    stacks,
)

LAYER = dinov2.LAYER | {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "attention": "attention",
    "attention_out": "attention.o_proj",
    "ffn_in": "mlp.up_proj",
    "ffn_out": "mlp.down_proj",
}
EMBEDDINGS = vit.EMBEDDINGS | {"patch_embedding": "embeddings.patch_embeddings"}
#: By key of the config: the linear layers that have a bias where it is true.
BIASES = {
    "query_bias": ("query",),
    "key_bias": ("key",),
    "value_bias": ("value",),
    "proj_bias": ("attention_out",),
    "mlp_bias": ("ffn_gate", "ffn_in", "ffn_out"),
}

#: What DINOv3ViTConfig declares.
KEYS = {
    "patch_size": sides(16),
    "hidden_size": size(384, "hidden_size"),
    "intermediate_size": size(1536, "intermediate_size"),
    "num_hidden_layers": layers(12, "num_layers"),
    "num_attention_heads": size(6, "num_heads"),
    "hidden_act": activation("gelu"),
    "layer_norm_eps": epsilon(1e-5),
    "rope_theta": number(100.0, "rope_theta"),
    "image_size": sides(224),
    "num_channels": size(3, "num_channels"),
    **{name: flag(name != "key_bias") for name in BIASES},
    "use_gated_mlp": flag(False, "gated"),
    "num_register_tokens": size(0, "registers", least=0),
    # of training, of what else the checkpoint is for, and where a factor for each channel began
    **unread_all(attention_dropout=0.0, initializer_range=0.02, drop_path_rate=0.0, layerscale_value=1.0),
    **unread_all(pos_embed_shift=None, pos_embed_jitter=None, pos_embed_rescale=2.0),
    **unread_all(apply_layernorm=True, reshape_hidden_states=True, _out_features=None, _out_indices=None),
}
#: And what is written beside.
OLDER = unread_all(out_features=None, out_indices=None, stage_names=None, return_class_token=None)


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    unbiased = tuple(part for key, parts in BIASES.items() if not values[key] for part in parts)
    return {**read_sides(values), "unbiased": unbiased}


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    names = LAYER | ({"ffn_gate": "mlp.gate_proj"} if c.gated else {})
    return (*embedding_parts(c, EMBEDDINGS), *layer_parts(c, names), final_norm_part("norm", c.hidden_size))


FAMILY: Family = replace(
    vit.VIT,
    model_types=("dinov3_vit",),
    summary="DINOv3's ViT: rotary positions, registers",
    task_model="",
    prefix="",
    keys=KEYS,
    older=OLDER,
    modules=(("layer.", "model.layer."),),
    defaults={"layer_scale": True, "positions": False},
    read=read,
    stacks=stacks("layer.{}"),
    parts=parts,
)
