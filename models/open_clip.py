"""CLIP as open_clip trains and saves it (Ilharco et al., 2021): the towers of `clip.py` under other names.

What they compute is CLIP's, with GELU or its quick form. Query, key and value are one array of torch's MultiheadAttention,
`attn.in_proj_weight`, which is a site like any other (`qkv`), as timm's one projection for three is; what projects vectors is
an array beside the layers. PEFT finds no module for these, so adapters of them are saved in files of graftax's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..adapters.sites import IN_OUT
from ..errors import GraftaxError
from . import clip
from .config_keys import Key, flag, layers, nullable, number, only, pair, sides, size, token, unread_all
from .family import Family, as_said
from .open_clip_config import OPEN_CLIP_CONFIG, PREPROCESSING
from .parts import Part
from .picture_transformer import PictureTransformerConfig, final_norm_part, layer_parts, stacks
from .text_tower import TextTowerConfig, text_parts

LAYER = {
    "attention_norm": "ln_1",
    "qkv": "attn.in_proj",
    "attention": "attn",
    "attention_out": "attn.out_proj",
    "attention_branch": "attn",
    "ffn_norm": "ln_2",
    "ffn_in": "mlp.c_fc",
    "ffn_out": "mlp.c_proj",
    "ffn_branch": "mlp",
    "output": "",
}
SCALES = {"attention_scale": "ls_1.gamma", "ffn_scale": "ls_2.gamma"}
#: Paths outside the layers, of pictures
PATHS = {
    "input": "conv1",
    "patch_embedding": "conv1",
    "class_token": "class_embedding",
    "position_embeddings": "positional_embedding",
}
#: and of texts.
TEXT_PATHS = {
    "input": "token_embedding",
    "word_embeddings": "token_embedding",
    "position_embeddings": "positional_embedding",
    "final_norm": "ln_final",
}
#: By role, what is an array and no module (`Part.suffixes`); and the module that MultiheadAttention does not call, but reads.
ARRAYS = {"qkv": {"kernel": "_weight", "bias": "_bias"}, "projection": {"kernel": ""}, "position_embeddings": {"table": ""}}
UNCALLED = ("attention_out",)

_NOTHING = nullable(only(None))
#: What open_clip's classes of both towers' configs declare.
LAYERS: Mapping[str, Key] = {
    "layers": layers(12, "num_layers"),
    "mlp_ratio": number(4.0),
    "ls_init_value": nullable(number(None)),
    "act_kwargs": _NOTHING,
    "norm_kwargs": _NOTHING,
    "block_type": nullable(only("default")),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), only(False)
    ),
    **unread_all(output_tokens=False, final_ln_after_pool=False),  # the vector is the same
}
#: What the whole config says of both.
SHARED: Mapping[str, Key] = {
    "embed_dim": size(512, "projection"),
    "quick_gelu": flag(False),
    **unread_all(**{PREPROCESSING: None}),
}
KEYS: Mapping[str, Key] = {
    **LAYERS,
    **SHARED,
    "width": size(768, "hidden_size"),
    "head_width": size(64),
    "patch_size": sides(16),
    "image_size": sides(224),
    "no_ln_pre": only(False),
    "pool_type": only("tok"),
    # of training; of a table that checkpoints hold, however it was made; of towers that are refused (`open_clip_config.py`)
    **unread_all(patch_dropout=0.0, pos_embed_type="learnable"),
    **unread_all(attentional_pool=False, attn_pooler_queries=256, attn_pooler_heads=8),
    **unread_all(timm_model_name=None, timm_model_pretrained=False, timm_pool="avg", timm_proj="linear"),
    **unread_all(timm_proj_bias=False, timm_drop=0.0, timm_drop_path=None),
}
TEXT_KEYS: Mapping[str, Key] = {
    **LAYERS,
    **SHARED,
    "context_length": size(77, "max_positions"),
    "vocab_size": size(49408, "vocab_size"),
    "width": size(512, "hidden_size"),
    "heads": size(8, "num_heads"),
    "pad_id": token(0, "pad_id"),
    "pool_type": only("argmax"),
    "embed_cls": only(False),
    "no_causal_mask": only(False),
    "proj_type": only("linear"),
    "proj_bias": only(False),
    "tokenizer_mode": _NOTHING,
    "tokenizer_kwargs": nullable(only({})),
    **unread_all(eos_id=2, hf_tokenizer_name=None, hf_model_name=None, hf_model_pretrained=True),
    **unread_all(hf_proj_type="mlp", hf_pooler_type="mean_pooler"),
}


def _read_layers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "intermediate_size": int(values["width"] * values["mlp_ratio"]),
        "activation": "quick_gelu" if values["quick_gelu"] else "gelu",
        "layer_scale": values["ls_init_value"] is not None,
    }


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    heads, across = divmod(values["width"], values["head_width"])
    if across:
        raise GraftaxError(f"{OPEN_CLIP_CONFIG}: width={values['width']} is no multiple of head_width={values['head_width']}.")
    known = {"image_size": pair(values["image_size"]), "patch_size": pair(values["patch_size"])}
    return {**_read_layers(values), **known, "num_heads": heads}


def _read_text(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ends a text is its largest id, by which open_clip finds the token that is pooled."""
    return {**_read_layers(values), "eos_ids": (values["vocab_size"] - 1,)}


def _layer(c: PictureTransformerConfig | TextTowerConfig) -> Mapping[str, str]:
    return LAYER | (SCALES if c.layer_scale else {})


def _called(found: Iterable[Part], paths: Mapping[str, str]) -> tuple[Part, ...]:
    """Parts as open_clip has them; `paths`: of those that have other names so far."""
    return tuple(
        replace(
            part,
            path=paths.get(part.name, part.path),
            suffixes=ARRAYS.get(part.role or part.name, {}),
            module=(part.role or part.name) not in (*ARRAYS, *UNCALLED),
        )
        for part in found
    )


def _projection(path: str, c: PictureTransformerConfig | TextTowerConfig) -> Part:
    return Part("linear", "projection", path, (c.hidden_size, c.projection), bias=False, above="layers", axes=IN_OUT)


def parts(c: PictureTransformerConfig) -> tuple[Part, ...]:
    norms = Part("norm", "embedding_norm", "ln_pre", (c.hidden_size,)), final_norm_part("ln_post", c.hidden_size)
    above = replace(norms[1], name="vector_norm"), _projection("proj", c)
    return _called((*clip.embedding_parts(c), norms[0], *layer_parts(c, _layer(c)), *above), PATHS)


def _text_parts(c: TextTowerConfig) -> tuple[Part, ...]:
    return _called((*text_parts(c, _layer(c)), _projection("text_projection", c)), TEXT_PATHS)


PICTURES: Family = replace(
    clip.PICTURES,
    model_types=("open_clip_vision_model",),
    summary="CLIP's tower of pictures with open_clip's names",
    task_model="",
    prefix="visual",
    keys=KEYS,
    defaults={**clip.PICTURES.defaults, "fused": True, "norm_eps": 1e-5, "num_channels": 3},
    stacks=stacks("transformer.resblocks.{}"),
    parts=parts,
    read=_read,
    fitted=as_said,
)
TEXTS: Family = replace(
    clip.TEXTS,
    model_types=("open_clip_text_model",),
    summary="CLIP's tower of texts with open_clip's names",
    prefix="",
    keys=TEXT_KEYS,
    defaults={**clip.TEXTS.defaults, "fused": True, "norm_eps": 1e-5},
    stacks=stacks("transformer.resblocks.{}"),
    parts=_text_parts,
    read=_read_text,
    fitted=as_said,
)
FAMILIES = (PICTURES, TEXTS)
