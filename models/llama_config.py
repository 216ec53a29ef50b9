"""How configs of the Llama line are read: the keys of each class, and the fields that follow from several of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import GraftaxError
from .config_keys import (
    Key,
    activation,
    epsilon,
    flag,
    layers,
    names,
    nullable,
    number,
    only,
    padding,
    settings,
    size,
    tokens,
    unread,
    unread_all,
)
from .rope import Rope


def _without(keys: Mapping[str, Key], *names: str) -> dict[str, Key]:
    return {name: key for name, key in keys.items() if name not in names}


#: How a config says rotary positions: as transformers 5 does, and as before.
ROPE = {
    "rope_theta": number(10_000.0),
    "rope_scaling": settings(),
    "partial_rotary_factor": nullable(number(None)),
    "original_max_position_embeddings": nullable(size(None)),
}

#: What LlamaConfig declares.
LLAMA = {
    "vocab_size": size(32000, "vocab_size"),
    "hidden_size": size(4096, "hidden_size"),
    "intermediate_size": size(11008, "intermediate_size"),
    "num_hidden_layers": layers(32, "num_layers"),
    "num_attention_heads": size(32, "num_heads"),
    "num_key_value_heads": nullable(size(None, "num_kv_heads")),
    "head_dim": nullable(size(None, "head_dim", most=1 << 16)),
    "hidden_act": activation("silu"),
    "max_position_embeddings": size(2048, "max_positions"),
    "rms_norm_eps": epsilon(1e-6),
    "tie_word_embeddings": flag(False, "tied"),
    "rope_parameters": settings(),
    "attention_bias": flag(False),
    "mlp_bias": flag(False, "ffn_bias"),
    "pad_token_id": padding(None),
    "eos_token_id": tokens(2),
    **unread_all(attention_dropout=0.0, initializer_range=0.02, use_cache=True, bos_token_id=1, pretraining_tp=1),
}
_SHARED = _without(LLAMA, "attention_bias", "mlp_bias", "pretraining_tp")

#: What MistralConfig declares.
MISTRAL = {
    **_SHARED,
    "intermediate_size": size(14336, "intermediate_size"),
    "num_key_value_heads": size(8, "num_kv_heads"),
    "max_position_embeddings": size(131072, "max_positions"),
    "sliding_window": nullable(size(4096, "window")),
}
MISTRAL_OLDER = {**ROPE, "layer_types": names()}

#: What Qwen2Config and Qwen3Config declare.
QWEN3 = {
    **_SHARED,
    "vocab_size": size(151936, "vocab_size"),
    "intermediate_size": size(22016, "intermediate_size"),
    "num_key_value_heads": nullable(size(32, "num_kv_heads")),
    "head_dim": size(128, "head_dim", most=1 << 16),
    "max_position_embeddings": size(32768, "max_positions"),
    "attention_bias": flag(False),
    "use_sliding_window": flag(False),
    "sliding_window": nullable(size(4096)),
    "max_window_layers": size(28, least=0),
    "layer_types": names(),
    "eos_token_id": tokens(None),
    **unread_all(bos_token_id=None),
}
QWEN2 = _without(QWEN3, "head_dim", "attention_bias")

#: What GemmaConfig, Gemma2Config and Gemma3TextConfig declare.
GEMMA = {
    **_SHARED,
    "vocab_size": size(256000, "vocab_size"),
    "hidden_size": size(3072, "hidden_size"),
    "intermediate_size": size(24576, "intermediate_size"),
    "num_hidden_layers": layers(28, "num_layers"),
    "num_attention_heads": size(16, "num_heads"),
    "num_key_value_heads": size(16, "num_kv_heads"),
    "head_dim": size(256, "head_dim", most=1 << 16),
    "hidden_act": activation("gelu_pytorch_tanh"),
    "max_position_embeddings": size(8192, "max_positions"),
    "tie_word_embeddings": flag(True, "tied"),
    "attention_bias": flag(False),
    "use_bidirectional_attention": replace(nullable(only(False)), default=None),
    "pad_token_id": padding(0),
    "eos_token_id": tokens(1),
    **unread_all(bos_token_id=2),
}
GEMMA2 = {
    **_without(GEMMA, "hidden_act"),
    "hidden_size": size(2304, "hidden_size"),
    "intermediate_size": size(9216, "intermediate_size"),
    "num_hidden_layers": layers(26, "num_layers"),
    "num_attention_heads": size(8, "num_heads"),
    "num_key_value_heads": size(4, "num_kv_heads"),
    "hidden_activation": activation("gelu_pytorch_tanh"),
    "query_pre_attn_scalar": number(256),
    "sliding_window": nullable(size(4096)),
    "layer_types": names(),
    "final_logit_softcapping": nullable(number(30.0, "logit_cap")),
    "attn_logit_softcapping": nullable(number(50.0, "attention_cap")),
}
GEMMA3 = {
    **GEMMA2,
    "vocab_size": size(262_208, "vocab_size"),
    "max_position_embeddings": size(131_072, "max_positions"),
    "final_logit_softcapping": nullable(number(None, "logit_cap")),
    "attn_logit_softcapping": nullable(only(None)),  # its class declares it, and its model has no such cap
    "use_bidirectional_attention": nullable(only(False)),
}
GEMMA3_OLDER = {
    "rope_theta": number(1_000_000.0),
    "rope_local_base_freq": number(10_000.0),
    "rope_scaling": settings(),
    "partial_rotary_factor": nullable(only(1.0)),
    "sliding_window_pattern": size(6),
    "_sliding_window_pattern": unread(6),  # a copy that transformers writes
}

#: What Phi3Config declares.
PHI3 = {
    **_without(_SHARED, "head_dim"),
    "vocab_size": size(32064, "vocab_size"),
    "hidden_size": size(3072, "hidden_size"),
    "intermediate_size": size(8192, "intermediate_size"),
    "max_position_embeddings": size(4096, "max_positions"),
    "original_max_position_embeddings": size(4096),
    "rms_norm_eps": epsilon(1e-5),
    "sliding_window": nullable(size(None, "window")),
    "pad_token_id": padding(32000),
    "eos_token_id": tokens(32000),
    **unread_all(resid_pdrop=0.0, embd_pdrop=0.0),
}
#: Where a class does not declare it and its model reads it.
HEAD_DIM = {"head_dim": LLAMA["head_dim"]}


def special_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The ids that end a text, and the one that fills batch rows. Those of a default may lie outside a small vocabulary."""
    eos = values["eos_token_id"]
    several = eos if isinstance(eos, list) else [] if eos is None else [eos]
    vocabulary = range(values["vocab_size"])
    return {"eos_ids": tuple(i for i in several if i in vocabulary), "pad_id": max(0, values["pad_token_id"] or 0)}


def biases_of(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"qkv_bias": values["attention_bias"], "out_bias": values["attention_bias"]}


def rope_of(values: Mapping[str, Any], head_dim: int, partial: bool = False) -> Rope:
    """Rotary positions of all layers. `partial`: whether only some channels of an attention head can be turned."""
    said = dict(values["rope_scaling"] or values["rope_parameters"] or {})
    said.setdefault("rope_theta", values["rope_theta"])
    if values["partial_rotary_factor"] is not None:
        said.setdefault("partial_rotary_factor", values["partial_rotary_factor"])
    if values["original_max_position_embeddings"] is not None:
        said["original_max_position_embeddings"] = values["original_max_position_embeddings"]
    rope = Rope.read(said, head_dim, values["max_position_embeddings"])
    if rope.dim != head_dim and not partial:
        raise GraftaxError(f"config.json: partial_rotary_factor {said['partial_rotary_factor']!r} is not supported here.")
    return rope


def windowed_of(values: Mapping[str, Any], default: Callable[[int], bool]) -> dict[str, Any]:
    """The window, and the layers that have it: `layer_types`, or else those of which `default` says so."""
    window, types, count = values["sliding_window"], values["layer_types"], values["num_hidden_layers"]
    if types is None:
        windowed = tuple(default(i) for i in range(count))
    else:
        unknown = sorted({*types} - {"full_attention", "sliding_attention"})
        if unknown:
            raise GraftaxError(f"config.json: layer_types {', '.join(unknown)}: not supported.")
        if len(types) != count:
            raise GraftaxError(f"config.json: {len(types)} layer_types for {count} layers.")
        windowed = tuple(kind == "sliding_attention" for kind in types)
    if not any(windowed):
        return {}
    if window is None:
        raise GraftaxError("config.json: layers with a window (layer_types), and no sliding_window.")
    return {"window": window, "windowed": windowed}


def head_dim_of(values: Mapping[str, Any]) -> int:
    return int(values["head_dim"] or values["hidden_size"] // values["num_attention_heads"])


def read_llama(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**special_of(values), **biases_of(values), "rope": rope_of(values, head_dim_of(values))}


def read_mistral(values: Mapping[str, Any]) -> dict[str, Any]:
    kind = "full_attention" if values["sliding_window"] is None else "sliding_attention"
    if {*(values["layer_types"] or ())} - {kind}:  # its model does not read them
        raise GraftaxError(f"config.json: layer_types of a mistral whose layers are all of {kind}: not supported.")
    return {**special_of(values), "rope": rope_of(values, head_dim_of(values))}


def read_qwen2(values: Mapping[str, Any]) -> dict[str, Any]:
    window = values["sliding_window"] if values["use_sliding_window"] else None
    upper = values["max_window_layers"]
    windowed = windowed_of({**values, "sliding_window": window}, lambda i: window is not None and i >= upper)
    return {**windowed, **special_of(values), "rope": rope_of(values, head_dim_of(values))}


def read_qwen3(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**read_qwen2(values), **biases_of(values)}


def read_gemma(values: Mapping[str, Any]) -> dict[str, Any]:
    """Configs of the first releases say `gelu` and mean its approximation by tanh."""
    meant = {"activation": "gelu_pytorch_tanh"} if values["hidden_act"] == "gelu" else {}
    return {**read_llama(values), **meant, "embedding_scale": math.sqrt(values["hidden_size"])}


def read_gemma2(values: Mapping[str, Any]) -> dict[str, Any]:
    scales = {"embedding_scale": math.sqrt(values["hidden_size"]), "query_scale": values["query_pre_attn_scalar"] ** -0.5}
    return {**windowed_of(values, lambda i: i % 2 == 0), **read_llama(values), **scales}


def read_gemma3(values: Mapping[str, Any]) -> dict[str, Any]:
    pattern = values["sliding_window_pattern"]
    windowed = windowed_of(values, lambda i: (i + 1) % pattern != 0)
    scales = {"embedding_scale": math.sqrt(values["hidden_size"]), "query_scale": values["query_pre_attn_scalar"] ** -0.5}
    return {**windowed, **special_of(values), **biases_of(values), **scales, **ropes_of(values)}


def ropes_of(values: Mapping[str, Any]) -> dict[str, Rope]:
    """Rotary positions of either kind of layer: by its name in `rope_parameters`, or as configs said them before that."""
    kinds, said = ("full_attention", "sliding_attention"), values["rope_parameters"] or {}
    wrong = sorted(said.keys() - {*kinds}) + [kind for kind in kinds if not isinstance(said.get(kind) or {}, dict)]
    if wrong:
        raise GraftaxError(f"config.json: rope_parameters {', '.join(wrong)} is not supported; it has {' and '.join(kinds)}.")
    full, local = (dict(said.get(kind) or {}) for kind in kinds)
    full |= values["rope_scaling"] or {}
    full.setdefault("rope_theta", values["rope_theta"])
    local.setdefault("rope_theta", values["rope_local_base_freq"])
    longest, head_dim = values["max_position_embeddings"], values["head_dim"]
    ropes = {"rope": Rope.read(full, head_dim, longest), "local_rope": Rope.read(local, head_dim, longest)}
    if any(rope.dim != head_dim for rope in ropes.values()):
        raise GraftaxError("config.json: a partial_rotary_factor is not supported here.")
    return ropes


def read_phi3(values: Mapping[str, Any]) -> dict[str, Any]:
    rope = rope_of(values, head_dim_of(values), partial=True)
    if rope.kind != "default":  # the one other that its class takes is `longrope`
        raise GraftaxError(f"config.json: rope_type {rope.kind!r} is not supported in phi3.")
    return {**special_of(values), "rope": rope}
