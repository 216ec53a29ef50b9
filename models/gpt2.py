"""GPT-2 (Radford et al., 2019), hence DistilGPT-2 and DialoGPT: learned positions, layer norms, one projection for q, k and v.

Its layers are `Conv1D`s, linear layers whose kernels checkpoints hold as they are here, `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .decoder import Decoder, DecoderConfig
from .family import Family, HeadLayout
from .llama import eos_of
from .parts import Part

LAYER = {
    "attention_norm": "ln_1",
    "qkv": "attn.c_attn",
    "attention": "attn",
    "attention_out": "attn.c_proj",
    "attention_branch": "attn",
    "ffn_norm": "ln_2",
    "ffn_in": "mlp.c_fc",
    "ffn_out": "mlp.c_proj",
    "ffn_branch": "mlp",
    "output": "",
}


def layer_parts(c: DecoderConfig, names: Mapping[str, str], conv1d: bool = False) -> tuple[Part, ...]:
    """The parts of a layer with norms, one projection for query, key and value, and a feed-forward without a gate."""
    d, wide = c.hidden_size, c.intermediate_size
    linear = {
        "qkv": ((d, 3 * d), c.qkv_bias),
        "attention_out": ((d, d), c.out_bias),
        "ffn_in": ((d, wide), c.ffn_bias),
        "ffn_out": ((wide, d), c.ffn_bias),
    }
    other = {"attention": "attention", "output": "stream", "attention_norm": "norm", "ffn_norm": "norm"}
    parts = []
    for name, path in names.items():
        if name in linear:
            shape, bias = linear[name]
            parts.append(Part("linear", f"layers.{name}", path, shape, bias=bias, conv1d=conv1d))
        else:
            parts.append(Part(other.get(name, "branch"), f"layers.{name}", path, (d,)))
    return tuple(parts)


def head_parts(c: DecoderConfig) -> tuple[Part, ...]:
    """The projection to the vocabulary, where it is not the table of the words."""
    shape = (c.hidden_size, c.vocab_size)
    return () if c.tied else (Part("linear", "lm_head", "lm_head", shape, bias=False, above=True, task=True),)


def parts(c: DecoderConfig) -> tuple[Part, ...]:
    d = c.hidden_size
    return (
        Part("input", "input", "wte", (d,)),
        Part("embedding", "word_embeddings", "wte", (c.vocab_size, d)),
        Part("embedding", "position_embeddings", "wpe", (c.max_positions, d)),
        *layer_parts(c, LAYER, conv1d=True),
        Part("norm", "final_norm", "ln_f", (d,), above=True),
        *head_parts(c),
    )


def read(raw: dict[str, Any]) -> dict[str, Any]:
    wide = raw.pop("n_inner", None) or 4 * (raw.get("n_embd") or 0)
    return {"eos_ids": eos_of(raw), "intermediate_size": wide}


FAMILY = Family(
    model_types=("gpt2",),
    summary="GPT-2, DistilGPT-2, DialoGPT: learned positions, one projection for query, key and value",
    task_model="GPT2",
    prefix="transformer",
    fields={
        "vocab_size": "vocab_size",
        "n_embd": "hidden_size",
        "n_layer": "num_layers",
        "n_head": "num_heads",
        "n_positions": "max_positions",
        "activation_function": "activation",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "max_positions": 1024,
        "activation": "gelu_new",
        "norm_eps": 1e-5,
        "tied": True,
        "norm": "layer",
        "gated": False,
        "fused": True,
        "qkv_bias": True,
        "out_bias": True,
        "ffn_bias": True,
    },
    layer_path=lambda config, index: f"h.{index}",
    parts=parts,
    head=HeadLayout(features="last", hidden="none", modules=("score",), bias=False),
    config=DecoderConfig,
    module=Decoder,
    required={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
    read=read,
)
