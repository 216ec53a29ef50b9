"""BEiT (Bao et al., 2021, arXiv:2106.08254): ViT whose scores know how the patches lie to one another.

To the score of two tokens a number is added, for each attention head and each way in which two patches can lie to one another
(`grids.py`); the class token has three of its own. The table is a layer's, or one for all. Keys have no bias. Heads read the
mean over the patches, which is normed behind it, or as in ViT the class token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import vit
from .config_keys import Key, flag, is_number, unread_all
from .family import Family
from .parts import Part, Weight
from .picture_transformer import (
    PictureTransformerConfig,
    embedding_parts,
    final_norm_part,
    layer_parts,
    read_sides,
)

_TABLE = "relative_position_bias.relative_position_bias_table"
SCALES = {"attention_scale": "lambda_1", "ffn_scale": "lambda_2"}
EMBEDDINGS = vit.EMBEDDINGS | {"distances": f"encoder.{_TABLE}"}

#: What BeitConfig declares.
KEYS = {
    **vit.OF_ALL,
    "use_absolute_position_embeddings": flag(False, "positions"),
    "use_relative_position_bias": flag(False, "distances"),
    "use_shared_relative_position_bias": flag(False, "shared_distances"),
    "layer_scale_init_value": Key(0.1, is_number, "a number"),
    "use_mean_pooling": flag(True),
    # of training, of tokens for masked patches, and of a head for segmentation
    **unread_all(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.02, drop_path_rate=0.1),
    **unread_all(vocab_size=8192, use_mask_token=False, pool_scales=(1, 2, 3, 6), use_auxiliary_head=True),
    **unread_all(auxiliary_loss_weight=0.4, auxiliary_channels=256, auxiliary_num_convs=1, auxiliary_concat_input=False),
    **unread_all(semantic_loss_ignore_index=255, _out_features=None, _out_indices=None, add_fpn=False),
    **unread_all(reshape_hidden_states=True),
}
#: And what is written beside.
OLDER = {**vit.OLDER, **unread_all(out_features=None, out_indices=None, stage_names=None, segmentation_indices=None)}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    mean = values["use_mean_pooling"]
    pooled = {"pooling": "mean" if mean else "first", "final_norm": not mean, "pooled_norm": mean}
    return {**read_sides(values), **pooled, "layer_scale": values["layer_scale_init_value"] > 0}


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    d, names = c.hidden_size, dict(vit.LAYER)
    names |= SCALES if c.layer_scale else {}
    names |= {"distances": f"attention.attention.{_TABLE}"} if c.distances else {}
    norm = (
        replace(final_norm_part("pooler.layernorm", d), name="pooled_norm")
        if c.pooled_norm
        else final_norm_part("layernorm", d)
    )
    return (*embedding_parts(c, EMBEDDINGS), *layer_parts(c, names), norm)


def absent(c: PictureTransformerConfig, weight: Weight) -> Callable[[], np.ndarray] | None:
    """The norm of what is pooled, as transformers begins it: a checkpoint of another task than classifying has none."""
    if weight.part != "pooled_norm":
        return None
    return lambda: np.full(weight.stored_shape, weight.leaf == "scale", np.float32)


FAMILY: Family = replace(
    vit.VIT,
    model_types=("beit",),
    defaults={"unbiased": ("key",)},
    summary="BEiT: relative positions, heads read the patches' mean",
    task_model="Beit",
    prefix="beit",
    keys=KEYS,
    older=OLDER,
    read=read,
    parts=parts,
    absent=absent,
)
