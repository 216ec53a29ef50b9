"""transformers' torch Transformers of pictures, tiny and random, and what they make of some pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from feature_maps import to_torch
from reference import stirred

from graftax.models.family_registry import FAMILIES

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
TINY |= {"image_size": 16, "patch_size": 4}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4}
#: Of stages, whose hidden states are feature maps.
SWINS: dict[str, dict[str, Any]] = {
    "swin": {"model_type": "swin", **_SWIN},
    "swin-placed": {"model_type": "swin", **_SWIN, "use_absolute_embeddings": True, "qkv_bias": False, "mlp_ratio": 1.5},
    "swin-three": {"model_type": "swin", **_SWIN, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "window_size": 3},
}
CLASSIFIER = "ForImageClassification"

_DINO = {key: value for key, value in TINY.items() if key != "intermediate_size"}
#: By model type, and what a shape of it has besides.
SHAPES: dict[str, dict[str, Any]] = {
    "vit": {"model_type": "vit", **TINY},
    "vit-oblong": {"model_type": "vit", **TINY, "image_size": [12, 16], "patch_size": [4, 2], "qkv_bias": False},
    "vit-narrow": {"model_type": "vit", **TINY, "head_dim": 6},
    "vit-grey": {"model_type": "vit", **TINY, "num_channels": 1, "hidden_act": "relu", "layer_norm_eps": 1e-3},
    "deit": {"model_type": "deit", **TINY},
    "dinov2": {"model_type": "dinov2", **_DINO, "mlp_ratio": 2},
    "dinov2-gated": {"model_type": "dinov2", **_DINO, "mlp_ratio": 3, "use_swiglu_ffn": True, "qkv_bias": False},
    "registers": {"model_type": "dinov2_with_registers", **_DINO, "num_register_tokens": 3},
    "beit": {"model_type": "beit", **TINY, "use_relative_position_bias": True, "use_mask_token": True},
    "beit-shared": {
        "model_type": "beit",
        **TINY,
        "image_size": 12,
        "use_shared_relative_position_bias": True,
        "use_absolute_position_embeddings": True,
        "use_mean_pooling": False,
        "layer_scale_init_value": 0.0,
    },
    "beit-both": {
        "model_type": "beit",
        **TINY,
        "use_shared_relative_position_bias": True,
        "use_relative_position_bias": True,
    },
    "dinov3": {"model_type": "dinov3_vit", **TINY, "num_register_tokens": 2},
    "dinov3-gated": {
        "model_type": "dinov3_vit",
        **TINY,
        "use_gated_mlp": True,
        "hidden_act": "silu",
        "query_bias": False,
        "proj_bias": False,
        "mlp_bias": False,
        "rope_theta": 20.0,
    },
    **SWINS,
}


def torch_model(shape: str, task: str = "", seed: int = 0, **changes: Any) -> Any:
    """transformers' model of a shape, bare or for a task, no weight of which is at the value at which it does nothing."""
    raw = {**SHAPES[shape], **changes}
    kind = raw.pop("model_type")
    config = transformers.AutoConfig.for_model(kind, **raw)
    torch.manual_seed(seed)
    if task == CLASSIFIER:  # of which DeiT has two
        model = getattr(transformers, f"{FAMILIES[kind].task_model}{task}")(config)
    else:
        model = transformers.AutoModel.from_config(config, attn_implementation="eager")
    return stirred(model, 0.05)


def pictures(shape: str, rows: int = 2, size: tuple[int, int] | None = None, seed: int = 0) -> np.ndarray:
    """Of the size that a shape is for, or another."""
    raw = SHAPES[shape]
    side = raw["image_size"]
    height, width = size or ((side, side) if isinstance(side, int) else side)
    return np.random.default_rng(seed).standard_normal((rows, height, width, raw.get("num_channels", 3)), np.float32)


@torch.no_grad()
def outputs(model: Any, x: np.ndarray, **options: Any) -> Any:
    return model(pixel_values=to_torch(x), output_hidden_states=True, **options)
