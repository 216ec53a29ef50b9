"""GPT-2 (Radford et al., 2019), hence DistilGPT-2 and DialoGPT: learned positions, layer norms, one projection for q, k and v.

Its layers are `Conv1D`s, linear layers whose kernels checkpoints hold as they are here, `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapters.sites import IN_OUT, OUT_IN
from .config_keys import activation, epsilon, flag, layers, nullable, only, padding, size, tokens, unread_all
from .decoder import Decoder, DecoderConfig
from .family import Family, TaskHead
from .llama import fitted, head_parts
from .llama_config import special_of
from .parts import Layers, Part, in_stack

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


def layer_parts(c: DecoderConfig, names: Mapping[str, str], axes: tuple[int, ...] = OUT_IN) -> tuple[Part, ...]:
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
            parts.append(Part("linear", name, path, shape, bias=bias, axes=axes))
        else:
            parts.append(Part(other.get(name, "branch"), name, path, (d,)))
    return in_stack("layers", parts)


def parts(c: DecoderConfig) -> tuple[Part, ...]:
    d = c.hidden_size
    return (
        Part("input", "input", "wte", (d,)),
        Part("embedding", "word_embeddings", "wte", (c.vocab_size, d)),
        Part("embedding", "position_embeddings", "wpe", (c.max_positions, d)),
        *layer_parts(c, LAYER, IN_OUT),
        Part("norm", "final_norm", "ln_f", (d,), above="layers"),
        *head_parts(c),
    )


#: What GPT2Config declares.
KEYS = {
    "vocab_size": size(50257, "vocab_size"),
    "n_positions": size(1024, "max_positions"),
    "n_embd": size(768, "hidden_size"),
    "n_layer": layers(12, "num_layers"),
    "n_head": size(12, "num_heads"),
    "n_inner": nullable(size(None)),
    "activation_function": activation("gelu_new"),
    "layer_norm_epsilon": epsilon(1e-5),
    "tie_word_embeddings": flag(True, "tied"),
    "pad_token_id": padding(None),
    "eos_token_id": tokens(50256),
    "scale_attn_weights": only(True),
    "scale_attn_by_inverse_layer_idx": only(False),
    "reorder_and_upcast_attn": only(False),
    "add_cross_attention": only(False),
    **unread_all(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, initializer_range=0.02, use_cache=True, bos_token_id=50256),
    **unread_all(summary_type="cls_index", summary_use_proj=True, summary_activation=None, summary_proj_to_labels=True),
    **unread_all(summary_first_dropout=0.1),
}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**special_of(values), "intermediate_size": values["n_inner"] or 4 * values["n_embd"]}


FAMILY = Family(
    model_types=("gpt2",),
    summary="GPT-2, DistilGPT-2, DialoGPT: learned positions, one projection for query, key and value",
    task_model="GPT2",
    prefix="transformer",
    keys=KEYS,
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    defaults={"norm": "layer", "gated": False, "fused": True, "qkv_bias": True, "out_bias": True, "ffn_bias": True},
    stacks=lambda c: (Layers("layers", c.num_layers, "h.{}".format, c.hidden_size),),
    parts=parts,
    head=TaskHead(features="last", hidden="none", modules=("score",), bias=False),
    config=DecoderConfig,
    module=Decoder,
    read=read,
    copies={"lm_head.weight": "wte.weight"},
    fitted=fitted,
)
