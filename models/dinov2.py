"""DINOv2 (Oquab et al., 2023, arXiv:2304.07193), and with registers (Darcet et al., 2023, arXiv:2309.16588).

ViT's layers with a factor for each channel of a branch, in the largest with a gated feed-forward. Heads read the class token
and the mean over the patches, one behind the other. Registers are tokens without a position, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import vit
from .config_keys import activation, epsilon, flag, layers, number, sides, size, unread_all
from .family import Family
from .parts import Part
from .picture_transformer import (
    PictureTransformerConfig,
    embedding_parts,
    final_norm_part,
    layer_parts,
)

LAYER = {
    "attention_norm": "norm1",
    **{name: vit.LAYER[name] for name in ("query", "key", "value", "attention", "attention_out")},
    "attention_scale": "layer_scale1.lambda1",
    "attention_branch": "layer_scale1",
    "ffn_norm": "norm2",
    "ffn_in": "mlp.fc1",
    "ffn_out": "mlp.fc2",
    "ffn_scale": "layer_scale2.lambda1",
    "ffn_branch": "layer_scale2",
    "output": "",
}
GATED = LAYER | {"ffn_in": "mlp.weights_in", "ffn_out": "mlp.weights_out"}

#: What both configs declare,
_BOTH = {
    "hidden_size": size(768, "hidden_size"),
    "num_hidden_layers": layers(12, "num_layers"),
    "num_attention_heads": size(12, "num_heads"),
    "mlp_ratio": number(4),
    "hidden_act": activation("gelu", field=""),
    "layer_norm_eps": epsilon(1e-6),
    "image_size": sides(224),
    "num_channels": size(3, "num_channels"),
    "qkv_bias": flag(True),
    "use_swiglu_ffn": flag(False, "gated"),
    # of training, of what else the checkpoint is for, and where a factor for each channel began
    **unread_all(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.02, drop_path_rate=0.0),
    **unread_all(layerscale_value=1.0, apply_layernorm=True, reshape_hidden_states=True, _out_features=None, _out_indices=None),
}
#: each of them,
KEYS = {**_BOTH, "patch_size": sides(14), **unread_all(use_mask_token=True)}
WITH_REGISTERS = {**_BOTH, "patch_size": sides(16), "num_register_tokens": size(4, "registers", least=0)}
#: and what is written beside.
OLDER = {**vit.OLDER, **unread_all(out_features=None, out_indices=None, stage_names=None)}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    gated, wide = values["use_swiglu_ffn"], int(values["hidden_size"] * values["mlp_ratio"])
    inner = (int(wide * 2 / 3) + 7) // 8 * 8 if gated else wide
    act = "silu" if gated else values["hidden_act"]
    return {**vit.read(values), "intermediate_size": inner, "activation": act, "fused_gate": gated}


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    layer = layer_parts(c, GATED if c.gated else LAYER)
    return (*embedding_parts(c, vit.EMBEDDINGS), *layer, final_norm_part("layernorm", c.hidden_size))


DINOV2 = replace(
    vit.VIT,
    model_types=("dinov2",),
    summary="DINOv2: heads read the class token and the patches' mean",
    task_model="Dinov2",
    prefix="dinov2",
    keys=KEYS,
    older=OLDER,
    modules=(*vit.MODULES[1:5], ("mlp.weights_out", "mlp.down_proj")),
    defaults={"layer_scale": True, "pooling": "both"},
    read=read,
    parts=parts,
)
REGISTERS: Family = replace(
    DINOV2,
    model_types=("dinov2_with_registers",),
    summary="DINOv2 with registers",
    task_model="Dinov2WithRegisters",
    prefix="dinov2_with_registers",
    keys=WITH_REGISTERS,
    defaults={**DINOV2.defaults, "antialias": True},
)
FAMILIES = (DINOV2, REGISTERS)
