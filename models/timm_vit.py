"""ViT, DeiT and DINOv2 with timm's names, whose layers have one projection for query, key and value (`qkv`).

What is not in `config.json` follows from the architecture that it names (`timm_config.py`). Heads read the class token. What
timm has of these families with a mean over the patches, a second head or other norms is not here, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import timm_config, vit
from .config_keys import activation, epsilon, flag, layers, number, only, pair, sides, size
from .family import Family
from .parts import Part
from .picture_transformer import PictureTransformerConfig, embedding_parts, final_norm_part, layer_parts, stacks

LAYER = {
    "attention_norm": "norm1",
    "qkv": "attn.qkv",
    "attention": "attn",
    "attention_out": "attn.proj",
    "attention_branch": "attn",
    "ffn_norm": "norm2",
    "ffn_in": "mlp.fc1",
    "ffn_out": "mlp.fc2",
    "ffn_branch": "mlp",
    "output": "",
}
SCALES = {"attention_scale": "ls1.gamma", "ffn_scale": "ls2.gamma"}
EMBEDDINGS = {
    "patch_embedding": "patch_embed.proj",
    "class_token": "cls_token",
    "register_tokens": "reg_token",
    "position_embeddings": "pos_embed",
}

#: What timm's class takes, with its defaults.
KEYS = {
    "embed_dim": size(768, "hidden_size"),
    "depth": layers(12, "num_layers"),
    "num_heads": size(12, "num_heads"),
    "mlp_ratio": number(4.0),
    "img_size": sides(224),
    "patch_size": sides(16),
    "num_channels": size(3, "num_channels"),
    "qkv_bias": flag(True),
    "act_layer": activation("gelu"),
    "norm_eps": epsilon(1e-6),
    "layer_scale": flag(False, "layer_scale"),
    "gated": flag(False, "gated"),
    "reg_tokens": size(0, "registers", least=0),
    "no_embed_class": flag(False, "patches_alone"),
}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    wide, gated = int(values["embed_dim"] * values["mlp_ratio"]), values["gated"]
    known = {"image_size": pair(values["img_size"]), "patch_size": pair(values["patch_size"]), "fused_gate": gated}
    return {**known, "intermediate_size": wide // 2 if gated else wide, "unbiased": () if values["qkv_bias"] else ("qkv",)}


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    names = LAYER | (SCALES if c.layer_scale else {})
    return (*embedding_parts(c, EMBEDDINGS), *layer_parts(c, names), final_norm_part("norm", c.hidden_size))


_SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"embed_dim": 192, "num_heads": 3},
    "small": {"embed_dim": 384, "num_heads": 6},
    "base": {},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}
_GIANT = {"embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 2.66667 * 2, "gated": True, "act_layer": "silu"}
_DINO = {"img_size": 518, "patch_size": 14, "layer_scale": True}
_REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
_ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    **{
        f"vit_{name}_patch{patch}_{side}": {**_SIZES[name], "patch_size": patch, "img_size": side}
        for name, patches in {
            "tiny": (16,),
            "small": (8, 16, 32),
            "base": (8, 16, 32),
            "large": (14, 16, 32),
            "huge": (14,),
        }.items()
        for patch in patches
        for side in (224, 384)
    },
    **{f"deit_{name}_patch16_224": _SIZES[name] for name in ("tiny", "small", "base")},
    "deit_base_patch16_384": {"img_size": 384},
    **{
        f"vit_{name}_patch14_{registers}dinov2": {**sizes, **_DINO, **(_REGISTERS if registers else {})}
        for name, sizes in {**{name: _SIZES[name] for name in ("small", "base", "large")}, "giant": _GIANT}.items()
        for registers in ("", "reg4_")
    },
}

FAMILY: Family = replace(
    vit.VIT,
    model_types=("timm_vit",),
    summary="ViT, DeiT and DINOv2 with timm's names",
    task_model="",
    prefix="",
    keys=KEYS,
    older={**timm_config.BESIDE, "global_pool": only("token")},
    modules=(),
    architectures=_ARCHITECTURES,
    defaults={"fused": True},
    stacks=stacks("blocks.{}"),
    parts=parts,
    read=read,
    head=replace(vit.VIT.head, modules=("head",)),
)
