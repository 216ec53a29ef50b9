"""The Llama line (Touvron et al., 2023, arXiv:2302.13971): one decoder with switches.

| model type   | as Llama, but                                                                                                |
|--------------|--------------------------------------------------------------------------------------------------------------|
| llama        | Llama 1 to 3, SmolLM, TinyLlama, Yi, ...; rope scaling                                                       |
| mistral      | every layer looks back a window                                                                              |
| qwen2        | biases of query, key and value; upper layers may have a window                                               |
| qwen3        | each head's query and key are normed                                                                         |
| gemma        | tanh GELU, norm scale 1 + w, embeddings times sqrt(hidden)                                                   |
| gemma2       | and norms behind the branches, soft caps, a window in every other layer                                      |
| gemma3_text  | and normed queries and keys, no caps, a window in five of six layers with rotary positions of its own        |
| phi3         | one projection for query, key and value, and one for the gated feed-forward's two                            |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import GraftaxError
from .decoder import Decoder, DecoderConfig
from .family import Family, HeadLayout
from .parts import Part
from .rope import Rope

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_positions",
    "hidden_act": "activation",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tied",
}


def eos_of(raw: dict[str, Any]) -> tuple[int, ...]:
    """The ids that end a text."""
    eos = raw.pop("eos_token_id", None)
    return () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)


def rope_of(raw: dict[str, Any], head_dim: int) -> dict[str, Rope]:
    """Rotary positions as transformers 5 says them (`rope_parameters`, by kind of layer or for all), or as before."""
    said, theta = raw.pop("rope_parameters", None), raw.pop("rope_theta", None) or 10_000.0
    older, local = raw.pop("rope_scaling", None), raw.pop("rope_local_base_freq", None)
    share = raw.pop("partial_rotary_factor", None)
    if said and "full_attention" in said:
        return {
            "rope": Rope.read(said["full_attention"], head_dim),
            "local_rope": Rope.read(said["sliding_attention"], head_dim),
        }
    one = dict(said or older or {})
    if share is not None:
        one.setdefault("partial_rotary_factor", share)
    found = {"rope": Rope.read(one, head_dim, theta)}
    return found if local is None else found | {"local_rope": Rope.read({}, head_dim, local)}


def windows_of(raw: dict[str, Any], default: Callable[[int], bool]) -> dict[str, Any]:
    """The window, and the layers that have it: `layer_types`, or else those of which `default` says so."""
    window, types, layers = raw.pop("sliding_window", None), raw.pop("layer_types", None), raw.get("num_hidden_layers")
    if not window or not isinstance(layers, int):
        return {}
    if types is None:
        return {"window": window, "windowed": tuple(default(i) for i in range(layers))}
    unknown = sorted({str(kind) for kind in types} - {"full_attention", "sliding_attention"})
    if unknown:
        raise GraftaxError(f"config.json: layer_types {', '.join(unknown)}: not supported.")
    if len(types) != layers:
        raise GraftaxError(f"config.json: {len(types)} layer_types for {layers} layers.")
    return {"window": window, "windowed": tuple(kind == "sliding_attention" for kind in types)}


def head_dim_of(raw: Mapping[str, Any], default: int = 0) -> int:
    given = raw.get("head_dim") or default
    try:
        return int(given or raw["hidden_size"] // raw["num_attention_heads"])
    except (KeyError, TypeError, ZeroDivisionError):
        raise GraftaxError("config.json lacks a sound hidden_size or num_attention_heads.") from None


def read_llama(raw: dict[str, Any]) -> dict[str, Any]:
    bias = bool(raw.pop("attention_bias", False))
    return {
        **rope_of(raw, head_dim_of(raw)),
        "eos_ids": eos_of(raw),
        "qkv_bias": bias,
        "out_bias": bias,
        "ffn_bias": bool(raw.pop("mlp_bias", False)),
    }


def read_mistral(raw: dict[str, Any]) -> dict[str, Any]:
    return {**windows_of(raw, lambda i: True), **read_llama(raw)}


def read_qwen(raw: dict[str, Any]) -> dict[str, Any]:
    used, first = raw.pop("use_sliding_window", False), raw.pop("max_window_layers", 28)
    raw["sliding_window"] = raw.get("sliding_window") if used else None
    return {**windows_of(raw, lambda i: i >= first), **read_llama(raw)}


def read_qwen2(raw: dict[str, Any]) -> dict[str, Any]:
    return {**read_qwen(raw), "qkv_bias": True}


def read_gemma(raw: dict[str, Any]) -> dict[str, Any]:
    raw.pop("hidden_activation", None)  # the same whatever older configs say in hidden_act
    raw.pop("hidden_act", None)
    return {**read_llama(raw), "embedding_scale": math.sqrt(raw["hidden_size"])}


def read_gemma2(raw: dict[str, Any]) -> dict[str, Any]:
    scale = raw.pop("query_pre_attn_scalar", 256)
    caps = (raw.pop("attn_logit_softcapping", None), raw.pop("final_logit_softcapping", None))
    return {
        **windows_of(raw, lambda i: i % 2 == 0),
        **read_gemma(raw),
        "query_scale": scale**-0.5,
        "attention_cap": caps[0] or 0.0,
        "logit_cap": caps[1] or 0.0,
    }


def read_gemma3(raw: dict[str, Any]) -> dict[str, Any]:
    said = [raw.pop(key, None) for key in ("sliding_window_pattern", "_sliding_window_pattern")]
    pattern = said[0] or said[1] or 6
    return {**windows_of(raw, lambda i: (i + 1) % pattern != 0), **read_gemma2(raw)}


def read_phi3(raw: dict[str, Any]) -> dict[str, Any]:
    raw.pop("original_max_position_embeddings", None)  # of kinds of rope that are not read
    return read_mistral(raw)


def parts(c: DecoderConfig) -> tuple[Part, ...]:
    d, q, kv, wide, norm = c.hidden_size, c.num_heads * c.size, c.kv_heads * c.size, c.intermediate_size, c.norm == "layer"

    def linear(name: str, path: str, shape: tuple[int, int], bias: bool) -> Part:
        return Part("linear", f"layers.{name}", path, shape, bias=bias)

    def normed(name: str, path: str, size: int = d) -> Part:
        return Part("norm", f"layers.{name}", path, (size,), bias=norm)

    layer = [normed("attention_norm", "input_layernorm")]
    if c.fused:
        layer.append(linear("qkv", "self_attn.qkv_proj", (d, q + 2 * kv), c.qkv_bias))
    else:
        layer.append(linear("query", "self_attn.q_proj", (d, q), c.qkv_bias))
        layer.append(linear("key", "self_attn.k_proj", (d, kv), c.qkv_bias))
        layer.append(linear("value", "self_attn.v_proj", (d, kv), c.qkv_bias))
    if c.qk_norm:
        layer += [normed("query_norm", "self_attn.q_norm", c.size), normed("key_norm", "self_attn.k_norm", c.size)]
    layer.append(Part("attention", "layers.attention", "self_attn", (kv,)))
    layer.append(linear("attention_out", "self_attn.o_proj", (q, d), c.out_bias))
    if c.post_norms:
        layer.append(normed("attention_post_norm", "post_attention_layernorm"))
        layer.append(normed("ffn_norm", "pre_feedforward_layernorm"))
    else:
        layer.append(normed("ffn_norm", "post_attention_layernorm"))
    layer.append(Part("branch", "layers.attention_branch", "self_attn", (d,)))
    if c.fused:
        layer.append(linear("ffn_in", "mlp.gate_up_proj", (d, 2 * wide), c.ffn_bias))
    else:
        layer.append(linear("ffn_gate", "mlp.gate_proj", (d, wide), c.ffn_bias))
        layer.append(linear("ffn_in", "mlp.up_proj", (d, wide), c.ffn_bias))
    layer.append(linear("ffn_out", "mlp.down_proj", (wide, d), c.ffn_bias))
    if c.post_norms:
        layer.append(normed("ffn_post_norm", "post_feedforward_layernorm"))
    layer.append(Part("branch", "layers.ffn_branch", "mlp", (d,)))
    layer.append(Part("stream", "layers.output", "", (d,)))
    own_head = [] if c.tied else [Part("linear", "lm_head", "lm_head", (d, c.vocab_size), bias=False, above=True, task=True)]
    return (
        Part("input", "input", "embed_tokens", (d,)),
        Part("embedding", "word_embeddings", "embed_tokens", (c.vocab_size, d)),
        *layer,
        Part("norm", "final_norm", "norm", (d,), bias=norm, above=True),
        *own_head,
    )


def _family(model_type: str, summary: str, task_model: str, read: Any, **defaults: Any) -> Family:
    return Family(
        model_types=(model_type,),
        summary=summary,
        task_model=task_model,
        prefix="model",
        fields=FIELDS,
        defaults={"max_positions": 2048, **defaults},
        layer_path=lambda config, index: f"layers.{index}",
        parts=parts,
        head=HeadLayout(features="last", hidden="none", modules=("score",), bias=False, tokens="score"),
        config=DecoderConfig,
        module=Decoder,
        required={"use_bidirectional_attention": False},
        read=read,
    )


_GEMMA = {"activation": "gelu_pytorch_tanh", "norm_offset": True, "tied": True, "head_dim": 256}

FAMILIES = (
    _family("llama", "Llama 1 to 3, SmolLM, TinyLlama: decoder language models", "Llama", read_llama),
    _family("mistral", "Mistral: a window in every layer", "Mistral", read_mistral, num_kv_heads=8),
    _family("qwen2", "Qwen 2: biased queries, keys and values", "Qwen2", read_qwen2),
    _family("qwen3", "Qwen 3: normed queries and keys", "Qwen3", read_qwen, qk_norm=True, head_dim=128),
    _family("gemma", "Gemma 1", "Gemma", read_gemma, **_GEMMA),
    _family("gemma2", "Gemma 2: soft caps, a window in every other layer", "Gemma2", read_gemma2, post_norms=True, **_GEMMA),
    _family("gemma3_text", "Gemma 3, its text part", "Gemma3", read_gemma3, post_norms=True, qk_norm=True, **_GEMMA),
    _family("phi3", "Phi 3: fused projections", "Phi3", read_phi3, norm_eps=1e-5, fused=True),
)
