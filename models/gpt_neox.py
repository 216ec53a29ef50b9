"""GPT-NeoX (Black et al., 2022, arXiv:2204.06745), hence Pythia: rotary positions on some channels, branches side by side.

    h = h + attention(N1(h)) + feed-forward(N2(h))          with `use_parallel_residual`; else one behind the other

One projection makes query, key and value of an attention head, then those of the next: its channels are [heads, 3, size].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import GraftaxError
from .config_keys import (
    activation,
    epsilon,
    flag,
    layers,
    nullable,
    number,
    padding,
    settings,
    size,
    tokens,
    unread,
    unread_all,
)
from .decoder import Decoder, DecoderConfig
from .family import Family, TaskHead
from .gpt2 import layer_parts
from .llama import fitted, head_parts, stacks
from .llama_config import biases_of, head_dim_of, rope_of, special_of
from .parts import Part

LAYER = {
    "attention_norm": "input_layernorm",
    "qkv": "attention.query_key_value",
    "attention": "attention",
    "attention_out": "attention.dense",
    "attention_branch": "attention",
    "ffn_norm": "post_attention_layernorm",
    "ffn_in": "mlp.dense_h_to_4h",
    "ffn_out": "mlp.dense_4h_to_h",
    "ffn_branch": "mlp",
    "output": "",
}


def parts(c: DecoderConfig) -> tuple[Part, ...]:
    d = c.hidden_size
    return (
        Part("input", "input", "embed_in", (d,)),
        Part("embedding", "word_embeddings", "embed_in", (c.vocab_size, d)),
        *layer_parts(c, LAYER),
        Part("norm", "final_norm", "final_layer_norm", (d,), above="layers"),
        *head_parts(c),
    )


#: What GPTNeoXConfig declares.
KEYS = {
    "vocab_size": size(50432, "vocab_size"),
    "hidden_size": size(6144, "hidden_size"),
    "num_hidden_layers": layers(44, "num_layers"),
    "num_attention_heads": size(64, "num_heads"),
    "intermediate_size": size(24576, "intermediate_size"),
    "hidden_act": activation("gelu"),
    "max_position_embeddings": size(2048, "max_positions"),
    "layer_norm_eps": epsilon(1e-5),
    "use_parallel_residual": flag(True, "parallel"),
    "attention_bias": flag(True),
    "tie_word_embeddings": flag(False, "tied"),
    "rope_parameters": settings(),
    "pad_token_id": padding(None),
    "eos_token_id": tokens(2),
    "is_decoder": unread(False),  # it is one, whatever the config says
    **unread_all(attention_dropout=0.0, hidden_dropout=0.0, classifier_dropout=0.1, initializer_range=0.02),
    **unread_all(use_cache=True, bos_token_id=0),
}
#: How it says its rotary positions otherwise.
OLDER = {
    "rotary_emb_base": number(10_000.0),
    "rotary_pct": number(0.25),
    "rope_scaling": settings(),
    "original_max_position_embeddings": nullable(size(None)),
    "head_dim": nullable(size(None)),
}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    said = {**values, "rope_theta": values["rotary_emb_base"], "partial_rotary_factor": values["rotary_pct"]}
    size = values["hidden_size"] // values["num_attention_heads"]
    if head_dim_of(values) != size:
        raise GraftaxError(f"config.json: head_dim={values['head_dim']} is not supported here; it is {size}.")
    return {**special_of(values), **biases_of(values), "rope": rope_of(said, size, partial=True)}


FAMILY = Family(
    model_types=("gpt_neox",),
    summary="GPT-NeoX, Pythia: branches side by side, rotary positions on some channels",
    task_model="GPTNeoX",
    prefix="gpt_neox",
    keys=KEYS,
    older=OLDER,
    defaults={"norm": "layer", "gated": False, "fused": True, "interleaved": True, "ffn_bias": True},
    stacks=stacks,
    parts=parts,
    head=TaskHead(features="last", hidden="none", modules=("score",), bias=False),
    config=DecoderConfig,
    module=Decoder,
    read=read,
    renamed={"embed_out.weight": "lm_head.weight"},
    copies={"lm_head.weight": "embed_in.weight"},
    fitted=fitted,
)
