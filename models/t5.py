"""T5 (Raffel et al., 2019, arXiv:1910.10683) and mT5: encoder-decoders without positions, but for distances in the scores.

| model type | feed-forward | projection to the vocabulary                   |
|------------|--------------|------------------------------------------------|
| t5         | not gated    | the words' table, of h / sqrt(hidden)          |
| t5, 1.1    | gated        | of h, one of its own                           |
| mt5        | gated        | of h, one of its own                           |

Linear layers have no biases, norms are RMS norms before each branch, and scores are not divided by sqrt(head). Which of a
tower's distances gets what is a table in its first layer that all its layers use.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

from ..errors import GraftaxError
from .bart import words
from .encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from .family import HEADLESS, Family
from .layers import ACTIVATIONS
from .llama import eos_of
from .parts import Part

FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "num_heads": "encoder_heads",
    "d_kv": "head_dim",
    "d_ff": "encoder_wide",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "far",
    "layer_norm_epsilon": "norm_eps",
    "decoder_start_token_id": "start_id",
}

#: Rates and starts of training, and what `feed_forward_proj` says too.
_UNREAD = ("dropout_rate", "initializer_factor", "n_positions", "is_gated_act", "dense_act_fn")

ATTENTION = {"query": "q", "key": "k", "value": "v"}


def parts(c: EncoderDecoderConfig) -> tuple[Part, ...]:
    made = [Part("input", "encoder.input", "encoder.embed_tokens", (c.hidden_size,))]
    for tower, heads, wide in (("encoder.", c.encoder_heads, c.encoder_wide), ("decoder.", c.decoder_heads, c.decoder_wide)):
        made += _tower(c, tower, heads, wide)
    if c.own_head:
        made.append(Part("linear", "lm_head", "lm_head", (c.hidden_size, c.vocab_size), bias=False, above=True, task=True))
    return tuple(made)


def _tower(c: EncoderDecoderConfig, tower: str, heads: int, wide: int) -> list[Part]:
    d, inner, last = c.hidden_size, heads * (c.head_dim or c.hidden_size // heads), 1 if tower == "encoder." else 2

    def part(kind: str, name: str, path: str, *shape: int) -> Part:
        return Part(kind, f"{tower}layers.{name}", path, shape, bias=False)

    def attention(name: str, number: int, module: str) -> list[Part]:
        path = f"layer.{number}.{module}"
        return [
            *(part("linear", f"{name}{own}", f"{path}.{theirs}", d, inner) for own, theirs in ATTENTION.items()),
            part("linear", f"{name}attention_out", f"{path}.o", inner, d),
            part("attention", f"{name}attention", path, inner),
            part("branch", f"{name}attention_branch", path, d),
            part("norm", f"{name}attention_norm", f"layer.{number}.layer_norm", d),
        ]

    path = f"layer.{last}.DenseReluDense"
    feed_forward = [part("linear", "ffn_gate", f"{path}.wi_0", d, wide)] if c.gated else []
    distances = f"{tower}block.0.layer.0.SelfAttention.relative_attention_bias"
    return [
        words(c, tower),
        Part("embedding", f"{tower}relative_positions", distances, (c.buckets, heads)),
        *attention("", 0, "SelfAttention"),
        *(attention("cross.", 1, "EncDecAttention") if last == 2 else []),
        *feed_forward,
        part("linear", "ffn_in", f"{path}.wi_1" if c.gated else f"{path}.wi", d, wide),
        part("linear", "ffn_out", f"{path}.wo", wide, d),
        part("branch", "ffn_branch", path, d),
        part("norm", "ffn_norm", f"layer.{last}.layer_norm", d),
        part("stream", "output", "", d),
        Part("norm", f"{tower}final_norm", f"{tower}final_layer_norm", (d,), bias=False, above=True),
    ]


def read(raw: dict[str, Any]) -> dict[str, Any]:
    for key in _UNREAD:
        raw.pop(key, None)
    said = raw.pop("tie_word_embeddings", None) is not False
    scaled = raw.pop("scale_decoder_outputs", said)  # as transformers 5 says it, for which all tie
    kind = raw.pop("feed_forward_proj", None) or "relu"
    gate, _, activation = kind.rpartition("-")
    activation = "gelu_new" if kind == "gated-gelu" else activation
    if gate not in ("", "gated") or activation not in ACTIVATIONS:
        raise GraftaxError(f"config.json: feed_forward_proj={kind!r}: not supported.")
    width = raw.get("d_model")
    return {
        "eos_ids": eos_of(raw),
        "gated": bool(gate),
        "activation": activation,
        "decoder_layers": raw.pop("num_decoder_layers", None) or raw.get("num_layers"),
        "decoder_heads": raw.get("num_heads"),
        "decoder_wide": raw.get("d_ff"),
        "output_scale": width**-0.5 if scaled and isinstance(width, int) else 1.0,
        "own_head": not said,
    }


def read_mt5(raw: dict[str, Any]) -> dict[str, Any]:
    raw.setdefault("feed_forward_proj", "gated-gelu")
    return {**read(raw), "output_scale": 1.0}


def fitted(config: EncoderDecoderConfig, tensors: Container[str]) -> EncoderDecoderConfig:
    """Whether the projection has weights of its own is what the checkpoint says: configs say that it has none, or nothing."""
    return replace(config, own_head="lm_head.weight" in tensors)


def _family(model_type: str, summary: str, task_model: str, read: Any) -> Family:
    return Family(
        model_types=(model_type,),
        summary=summary,
        task_model=task_model,
        prefix="",
        fields=FIELDS,
        defaults={
            "buckets": 32,
            "head_dim": 64,
            "norm": "rms",
            "norm_eps": 1e-6,
            "pre_norm": True,
            "query_scale": 1.0,
            "eos_ids": (1,),
        },
        layer_path=lambda config, index: f"block.{index}",
        parts=parts,
        head=HEADLESS,
        config=EncoderDecoderConfig,
        module=EncoderDecoder,
        required={"is_decoder": False},
        read=read,
        copies={f"{tower}.embed_tokens.weight": "shared.weight" for tower in ("encoder", "decoder")},
        fitted=fitted,
    )


FAMILIES = (
    _family("t5", "T5, Flan-T5: encoder-decoders with distances for positions", "T5", read),
    _family("mt5", "mT5: T5 in many languages", "MT5", read_mt5),
)
