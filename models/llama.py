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

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from .config_keys import Key
from .decoder import Decoder, DecoderConfig
from .family import Family, TaskHead
from .llama_config import (
    GEMMA,
    GEMMA2,
    GEMMA3,
    GEMMA3_OLDER,
    HEAD_DIM,
    LLAMA,
    MISTRAL,
    MISTRAL_OLDER,
    PHI3,
    QWEN2,
    QWEN3,
    ROPE,
    read_gemma,
    read_gemma2,
    read_gemma3,
    read_llama,
    read_mistral,
    read_phi3,
    read_qwen2,
    read_qwen3,
)
from .parts import Layers, Part, in_stack, projection, text_site


def head_parts(c: DecoderConfig) -> tuple[Part, ...]:
    """The projection to the vocabulary, where there is one, and the site where methods read the text."""
    own = (projection(c.hidden_size, c.vocab_size, "layers", c.projecting_table),) if c.speaks else ()
    return (*own, text_site(c.hidden_size, "layers"))


def stacks(c: DecoderConfig) -> tuple[Layers, ...]:
    return (Layers("layers", c.num_layers, "layers.{}".format, c.hidden_size),)


def fitted(c: DecoderConfig, tensors: Container[str]) -> DecoderConfig:
    """Whether it is a language model: task models without one save no projection."""
    return c if c.tied else replace(c, speaks="lm_head.weight" in tensors or "embed_out.weight" in tensors)


def parts(c: DecoderConfig) -> tuple[Part, ...]:
    d, q, kv, wide, norm = c.hidden_size, c.num_heads * c.size, c.kv_heads * c.size, c.intermediate_size, c.norm == "layer"

    def linear(name: str, path: str, shape: tuple[int, int], bias: bool) -> Part:
        return Part("linear", name, path, shape, bias=bias)

    def normed(name: str, path: str, size: int = d) -> Part:
        return Part("norm", name, path, (size,), bias=norm)

    layer = [normed("attention_norm", "input_layernorm")]
    if c.fused:
        layer.append(linear("qkv", "self_attn.qkv_proj", (d, q + 2 * kv), c.qkv_bias))
    else:
        layer.append(linear("query", "self_attn.q_proj", (d, q), c.qkv_bias))
        layer.append(linear("key", "self_attn.k_proj", (d, kv), c.qkv_bias))
        layer.append(linear("value", "self_attn.v_proj", (d, kv), c.qkv_bias))
    if c.qk_norm:
        layer += [normed("query_norm", "self_attn.q_norm", c.size), normed("key_norm", "self_attn.k_norm", c.size)]
    layer.append(Part("attention", "attention", "self_attn", (kv,)))
    layer.append(linear("attention_out", "self_attn.o_proj", (q, d), c.out_bias))
    if c.post_norms:
        layer.append(normed("attention_post_norm", "post_attention_layernorm"))
        layer.append(normed("ffn_norm", "pre_feedforward_layernorm"))
    else:
        layer.append(normed("ffn_norm", "post_attention_layernorm"))
    layer.append(Part("branch", "attention_branch", "self_attn", (d,)))
    if c.fused_gate:
        layer.append(linear("ffn_in", "mlp.gate_up_proj", (d, 2 * wide), c.ffn_bias))
    else:
        layer.append(linear("ffn_gate", "mlp.gate_proj", (d, wide), c.ffn_bias))
        layer.append(linear("ffn_in", "mlp.up_proj", (d, wide), c.ffn_bias))
    layer.append(linear("ffn_out", "mlp.down_proj", (wide, d), c.ffn_bias))
    if c.post_norms:
        layer.append(normed("ffn_post_norm", "post_feedforward_layernorm"))
    layer.append(Part("branch", "ffn_branch", "mlp", (d,)))
    layer.append(Part("stream", "output", "", (d,)))
    return (
        Part("input", "input", "embed_tokens", (d,)),
        Part("embedding", "word_embeddings", "embed_tokens", (c.vocab_size, d)),
        *in_stack("layers", layer),
        Part("norm", "final_norm", "norm", (d,), bias=norm, above="layers"),
        *head_parts(c),
    )


def _family(
    model_type: str,
    summary: str,
    task_model: str,
    keys: Mapping[str, Key],
    older: Mapping[str, Key],
    read: Any,
    **defaults: Any,
) -> Family:
    return Family(
        model_types=(model_type,),
        summary=summary,
        task_model=task_model,
        prefix="model",
        keys=keys,
        older=older,
        defaults=defaults,
        stacks=stacks,
        parts=parts,
        head=TaskHead(features="last", hidden="none", modules=("score",), bias=False, tokens="score"),
        config=DecoderConfig,
        module=Decoder,
        read=read,
        copies={"lm_head.weight": "embed_tokens.weight"},
        fitted=fitted,
    )


_GEMMA: dict[str, Any] = {"norm_offset": True}
_GEMMA2 = {**_GEMMA, "post_norms": True}

FAMILIES = (
    _family("llama", "Llama 1 to 3, SmolLM, TinyLlama: decoder language models", "Llama", LLAMA, ROPE, read_llama),
    _family("mistral", "Mistral: a window in every layer", "Mistral", MISTRAL, MISTRAL_OLDER, read_mistral),
    _family("qwen2", "Qwen 2: biased queries, keys and values", "Qwen2", QWEN2, ROPE | HEAD_DIM, read_qwen2, qkv_bias=True),
    _family("qwen3", "Qwen 3: normed queries and keys", "Qwen3", QWEN3, ROPE, read_qwen3, qk_norm=True),
    _family("gemma", "Gemma 1", "Gemma", GEMMA, ROPE, read_gemma, **_GEMMA),
    _family("gemma2", "Gemma 2: soft caps, a window in every other layer", "Gemma2", GEMMA2, ROPE, read_gemma2, **_GEMMA2),
    _family("gemma3_text", "Gemma 3, its text part", "Gemma3", GEMMA3, GEMMA3_OLDER, read_gemma3, qk_norm=True, **_GEMMA2),
    _family("phi3", "Phi 3: fused projections", "Phi3", PHI3, ROPE | HEAD_DIM, read_phi3, fused=True, fused_gate=True),
)
