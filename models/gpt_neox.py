"""GPT-NeoX (Black et al., 2022, arXiv:2204.06745), hence Pythia: rotary positions on some channels, branches side by side.

    h = h + attention(N1(h)) + feed-forward(N2(h))          with `use_parallel_residual`; else one behind the other

One projection makes query, key and value of a head, then those of the next: its channels are [heads, 3, size].
"""

from __future__ import annotations

from typing import Any

from .decoder import Decoder, DecoderConfig
from .family import Family, HeadLayout
from .gpt2 import head_parts, layer_parts
from .llama import eos_of, head_dim_of, rope_of
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
        Part("norm", "final_norm", "final_layer_norm", (d,), above=True),
        *head_parts(c),
    )


def read(raw: dict[str, Any]) -> dict[str, Any]:
    share, theta = raw.pop("rotary_pct", None), raw.pop("rotary_emb_base", None)  # as older configs say them
    raw.pop("is_decoder", None)  # it is one, whatever the config says
    bias = raw.pop("attention_bias", True)
    raw |= {"partial_rotary_factor": 0.25 if share is None else share, "rope_theta": theta or 10_000.0}
    return {
        **rope_of(raw, head_dim_of(raw)),
        "eos_ids": eos_of(raw),
        "qkv_bias": bool(bias),
        "out_bias": bool(bias),
    }


FAMILY = Family(
    model_types=("gpt_neox",),
    summary="GPT-NeoX, Pythia: branches side by side, rotary positions on some channels",
    task_model="GPTNeoX",
    prefix="gpt_neox",
    fields={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "intermediate_size",
        "max_position_embeddings": "max_positions",
        "hidden_act": "activation",
        "layer_norm_eps": "norm_eps",
        "use_parallel_residual": "parallel",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "max_positions": 2048,
        "activation": "gelu",
        "norm_eps": 1e-5,
        "norm": "layer",
        "gated": False,
        "fused": True,
        "interleaved": True,
        "ffn_bias": True,
        "parallel": True,
    },
    layer_path=lambda config, index: f"layers.{index}",
    parts=parts,
    head=HeadLayout(features="last", hidden="none", modules=("score",), bias=False),
    config=DecoderConfig,
    module=Decoder,
    required={},
    read=read,
    renamed={"embed_out.weight": "lm_head.weight"},
)
