"""T5 (Raffel et al., 2019, arXiv:1910.10683) and mT5: encoder-decoders without positions, but for distances in the scores.

| model type | feed-forward | projection to the vocabulary                   |
|------------|--------------|------------------------------------------------|
| t5         | not gated    | the words' table, of h / sqrt(hidden)          |
| t5, 1.1    | gated        | of h, one of its own                           |
| mt5        | gated        | of h, one of its own                           |

Linear layers have no biases, norms are RMS norms before each branch, and scores are not divided. Which of a
tower's distances gets what is a table in its first layer that all its layers use.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import GraftaxError
from .activations import ACTIVATIONS
from .bart import stacks, words
from .config_keys import Key, activation, epsilon, flag, layers, nullable, only, padding, size, text, token, tokens, unread_all
from .encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from .family import HEADLESS, Family
from .llama_config import special_of
from .parts import Part, in_stack, in_tower, projection

#: What T5Config and MT5Config declare.
T5 = {
    "vocab_size": size(32128, "vocab_size"),
    "d_model": size(512, "hidden_size"),
    "d_kv": size(64, "head_dim", most=1 << 16),
    "d_ff": size(2048),
    "num_layers": layers(6, "encoder_layers"),
    "num_decoder_layers": nullable(layers(None)),
    "num_heads": size(8),
    "relative_attention_num_buckets": size(32, "buckets"),
    "relative_attention_max_distance": size(128, "far"),
    "layer_norm_epsilon": epsilon(1e-6),
    "feed_forward_proj": text("relu"),
    "pad_token_id": padding(0),
    "eos_token_id": tokens(1),
    "is_decoder": only(False),
    **unread_all(dropout_rate=0.1, classifier_dropout=0.0, initializer_factor=1.0, use_cache=True, is_encoder_decoder=True),
}
MT5 = {
    **T5,
    "vocab_size": size(250112, "vocab_size"),
    "d_ff": size(1024),
    "num_layers": layers(8, "encoder_layers"),
    "num_heads": size(6),
    "feed_forward_proj": text("gated-gelu"),
    "decoder_start_token_id": nullable(token(0, "start_id")),
    **unread_all(tie_word_embeddings=True, bos_token_id=None),
}
#: What `feed_forward_proj` says too, and the more exactly, and where the decoder begins.
_OLDER = {"is_gated_act": nullable(flag(None)), "dense_act_fn": nullable(activation(None, field=""))}
_OLDER |= {"decoder_start_token_id": nullable(token(0, "start_id"))}
#: Whether what is projected to the vocabulary is scaled, as transformers 5 says it, for which all tie, and as before.
_SCALED = {"scale_decoder_outputs": nullable(flag(None)), "tie_word_embeddings": nullable(flag(True))}

ATTENTION = {"query": "q", "key": "k", "value": "v"}


def parts(c: EncoderDecoderConfig) -> tuple[Part, ...]:
    return (
        *in_tower("encoder", [Part("input", "input", "embed_tokens", (c.hidden_size,))]),
        *_tower(c, "encoder", c.encoder_heads, c.encoder_wide),
        *_tower(c, "decoder", c.decoder_heads, c.decoder_wide),
        projection(c.hidden_size, c.vocab_size, "decoder.layers", c.projecting_table),
    )


def _tower(c: EncoderDecoderConfig, tower: str, heads: int, wide: int) -> tuple[Part, ...]:
    d, inner, stack = c.hidden_size, heads * (c.head_dim or c.hidden_size // heads), f"{tower}.layers"
    last = 1 if tower == "encoder" else 2
    path = f"layer.{last}.DenseReluDense"
    distances = "block.0.layer.0.SelfAttention.relative_attention_bias"
    layer = [
        *_attention("", "layer.0", "SelfAttention", d, inner),
        *(_attention("cross.", "layer.1", "EncDecAttention", d, inner) if tower == "decoder" else []),
        *([_part("linear", "ffn_gate", f"{path}.wi_0", d, wide)] if c.gated else []),
        _part("linear", "ffn_in", f"{path}.wi_1" if c.gated else f"{path}.wi", d, wide),
        _part("linear", "ffn_out", f"{path}.wo", wide, d),
        _part("branch", "ffn_branch", path, d),
        _part("norm", "ffn_norm", f"layer.{last}.layer_norm", d),
        _part("stream", "output", "", d),
    ]
    below = [words(c, tower), Part("embedding", "relative_positions", distances, (c.buckets, heads))]
    above = [Part("norm", "final_norm", "final_layer_norm", (d,), bias=False, above=stack)]
    return (*in_tower(tower, below), *in_stack(stack, layer, tower), *in_tower(tower, above))


def _attention(within: str, sublayer: str, module: str, d: int, inner: int) -> list[Part]:
    """The parts of an attention; `within`: how their names begin, "cross." where it is to the source."""
    path = f"{sublayer}.{module}"
    every = [
        *(_part("linear", own, f"{path}.{theirs}", d, inner) for own, theirs in ATTENTION.items()),
        _part("linear", "attention_out", f"{path}.o", inner, d),
        _part("attention", "attention", path, inner),
        _part("branch", "attention_branch", path, d),
        _part("norm", "attention_norm", f"{sublayer}.layer_norm", d),
    ]
    return [replace(part, name=f"{within}{part.name}", role=part.name) for part in every]


def _part(kind: str, name: str, path: str, *shape: int) -> Part:
    return Part(kind, name, path, shape, bias=False)


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    kind = values["feed_forward_proj"]
    gate, _, activation = kind.rpartition("-")
    activation = values["dense_act_fn"] or ("gelu_new" if kind == "gated-gelu" else activation)
    if gate not in ("", "gated"):
        raise GraftaxError(f"config.json: feed_forward_proj={kind!r}: not supported; an activation, or gated- and one.")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise GraftaxError(f"config.json: feed_forward_proj={kind!r}: {activation!r} is none of {known}.")
    return {
        **special_of(values),
        "gated": bool(gate) if values["is_gated_act"] is None else values["is_gated_act"],
        "activation": activation,
        "decoder_layers": values["num_decoder_layers"] or values["num_layers"],
        **dict.fromkeys(("encoder_heads", "decoder_heads"), values["num_heads"]),
        **dict.fromkeys(("encoder_wide", "decoder_wide"), values["d_ff"]),
    }


def read_t5(values: Mapping[str, Any]) -> dict[str, Any]:
    scaled = values["scale_decoder_outputs"]
    if scaled is None:
        scaled = values["tie_word_embeddings"] is not False
    return {**read(values), "output_scale": values["d_model"] ** -0.5 if scaled else 1.0}


def fitted(config: EncoderDecoderConfig, tensors: Container[str]) -> EncoderDecoderConfig:
    """Whether the projection has weights of its own is what the checkpoint says: configs say that it has none, or nothing."""
    return replace(config, own_projection="lm_head.weight" in tensors)


_ALIASES = {"hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers", "head_dim": "d_kv"}


def _family(
    model_type: str, summary: str, task_model: str, keys: Mapping[str, Key], older: Mapping[str, Key], read: Any
) -> Family:
    return Family(
        model_types=(model_type,),
        summary=summary,
        task_model=task_model,
        prefix="",
        keys=keys,
        older=older,
        aliases=_ALIASES,
        defaults={"norm": "rms", "pre_norm": True, "query_scale": 1.0},
        stacks=partial(stacks, path="block"),
        parts=parts,
        head=HEADLESS,
        config=EncoderDecoderConfig,
        module=EncoderDecoder,
        read=read,
        copies={f"{tower}.embed_tokens.weight": "shared.weight" for tower in ("encoder", "decoder")},
        fitted=fitted,
    )


FAMILIES = (
    _family("t5", "T5, Flan-T5: encoder-decoders with distances for positions", "T5", T5, _OLDER | _SCALED, read_t5),
    _family("mt5", "mT5: T5 in many languages", "MT5", MT5, _OLDER, read),
)
