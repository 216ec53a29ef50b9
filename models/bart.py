"""BART (Lewis et al., 2019, arXiv:1910.13461) and Pegasus (Zhang et al., 2019, arXiv:1912.08777), two ways to norm.

| model type | positions                                                | norms                                               |
|------------|----------------------------------------------------------|-----------------------------------------------------|
| bart       | learned; the first two rows of the table are of no token | behind each branch, and one behind the embeddings   |
| pegasus    | sines and cosines, which a checkpoint may leave out      | before each branch, and one behind each tower       |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import GraftaxError
from .config_keys import Key, activation, flag, layers, nullable, only, padding, size, token, tokens, unread_all
from .encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from .family import HEADLESS, Family
from .llama_config import special_of
from .parts import Layers, Part, Weight, in_stack, in_tower, projection

#: What BartConfig and PegasusConfig declare.
PEGASUS = {
    "vocab_size": size(50265, "vocab_size"),
    "max_position_embeddings": size(1024, "max_positions", most=1 << 18),
    "d_model": size(1024, "hidden_size", most=1 << 16),
    "encoder_layers": layers(12, "encoder_layers"),
    "encoder_ffn_dim": size(4096, "encoder_wide"),
    "encoder_attention_heads": size(16, "encoder_heads"),
    "decoder_layers": layers(12, "decoder_layers"),
    "decoder_ffn_dim": size(4096, "decoder_wide"),
    "decoder_attention_heads": size(16, "decoder_heads"),
    "activation_function": activation("gelu"),
    "scale_embedding": flag(False),
    "tie_word_embeddings": flag(True, "tied"),
    "decoder_start_token_id": token(0, "start_id"),
    "pad_token_id": padding(0),
    "eos_token_id": tokens(1),
    "forced_eos_token_id": tokens(1),
    "is_decoder": only(False),
    **unread_all(encoder_layerdrop=0.0, decoder_layerdrop=0.0, dropout=0.1, attention_dropout=0.0, activation_dropout=0.0),
    **unread_all(init_std=0.02, use_cache=True, is_encoder_decoder=True),
}
BART = {
    **PEGASUS,
    "decoder_start_token_id": token(2, "start_id"),
    "pad_token_id": padding(1),
    "eos_token_id": tokens(2),
    "forced_eos_token_id": tokens(2),
    **unread_all(bos_token_id=0, classifier_dropout=0.0),
}


def _older(pre_norm: bool) -> dict[str, Key]:
    """What a text is made to begin with; and switches of the first releases, which now follow from the model type."""
    switches: dict[str, Any] = {
        "normalize_before": pre_norm,
        "add_final_layer_norm": pre_norm,
        "normalize_embedding": not pre_norm,
    }
    switches |= {"static_position_embeddings": pre_norm, "extra_pos_embeddings": 1 if pre_norm else 2, "add_bias_logits": False}
    return {"forced_bos_token_id": tokens(None), **{name: nullable(only(value)) for name, value in switches.items()}}


ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "attention_out": "out_proj"}


def parts(c: EncoderDecoderConfig) -> tuple[Part, ...]:
    return (
        *in_tower("encoder", [Part("input", "input", "embed_tokens", (c.hidden_size,))]),
        *_tower(c, "encoder", c.encoder_wide),
        *_tower(c, "decoder", c.decoder_wide),
        projection(c.hidden_size, c.vocab_size, "decoder.layers", c.projecting_table),
        Part("constant", "logits_bias", "final_logits_bias", (1, c.vocab_size), task=True),
    )


def stacks(c: EncoderDecoderConfig, path: str = "layers") -> tuple[Layers, ...]:
    """A tower has one each; `path`: what it is called in the tower's module in Hugging Face's model."""
    counts = {"encoder": c.encoder_layers, "decoder": c.decoder_layers}
    return tuple(
        Layers(f"{tower}.layers", count, f"{tower}.{path}.{{}}".format, c.hidden_size) for tower, count in counts.items()
    )


def words(c: EncoderDecoderConfig, tower: str) -> Part:
    """A tower's table of words; where both have one, checkpoints hold it beside them."""
    stored, tied = ("shared", "") if tower == "encoder" else ("", "encoder.word_embeddings")
    part = Part("embedding", "word_embeddings", "embed_tokens", (c.vocab_size, c.hidden_size))
    return replace(part, stored=stored, tied=tied) if c.tied else part


def _tower(c: EncoderDecoderConfig, tower: str, wide: int) -> tuple[Part, ...]:
    d, stack = c.hidden_size, f"{tower}.layers"
    positions = (c.max_positions + c.position_offset, d)
    below = [words(c, tower), Part("embedding", "position_embeddings", "embed_positions", positions)]
    if c.embedding_norm:
        below.append(Part("norm", "embedding_norm", "layernorm_embedding", (d,)))
    layer = [
        *_attention("", "self_attn", d),
        *(_attention("cross.", "encoder_attn", d) if tower == "decoder" else []),
        Part("linear", "ffn_in", "fc1", (d, wide)),
        Part("linear", "ffn_out", "fc2", (wide, d)),
        Part("branch", "ffn_branch", "fc2", (d,)),
        Part("norm", "ffn_norm", "final_layer_norm", (d,)),
        Part("stream", "output", "", (d,)),
    ]
    above = [Part("norm", "final_norm", "layer_norm", (d,), above=stack)] if c.pre_norm else []
    return (*in_tower(tower, below), *in_stack(stack, layer, tower), *in_tower(tower, above))


def _attention(within: str, path: str, d: int) -> list[Part]:
    """The parts of an attention; `within`: how their names begin, "cross." where it is to the source."""
    linear = [Part("linear", own, f"{path}.{theirs}", (d, d)) for own, theirs in ATTENTION.items()]
    around = [("attention", "attention", path), ("branch", "attention_branch", path)]
    around.append(("norm", "attention_norm", f"{path}_layer_norm"))
    every = linear + [Part(kind, own, theirs, (d,)) for kind, own, theirs in around]
    return [replace(part, name=f"{within}{part.name}", role=part.name) for part in every]


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    forced = {field: values[f"forced_{name}_token_id"] for field, name in (("first_id", "bos"), ("last_id", "eos"))}
    if any(isinstance(ids, list) for ids in forced.values()):
        raise GraftaxError("config.json: several ids in forced_bos_token_id or forced_eos_token_id are not supported.")
    return {
        **special_of(values),
        **{field: -1 if token is None else token for field, token in forced.items()},
        "own_projection": not values["tie_word_embeddings"],
        "embedding_scale": math.sqrt(values["d_model"]) if values["scale_embedding"] else 1.0,
    }


def absent(config: EncoderDecoderConfig, weight: Weight) -> Callable[[], np.ndarray] | None:
    """transformers makes these where a checkpoint lacks them."""
    if weight.key == "final_logits_bias":
        return partial(np.zeros, weight.shape, np.float32)
    if config.pre_norm and weight.key.endswith("embed_positions.weight"):
        return partial(sinusoids, *weight.shape)
    return None


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Sines of position / 10000^(2i / width) in the first half of the channels, cosines in the second."""
    angles = np.arange(positions)[:, None] / 10_000.0 ** (2 * np.arange((width + 1) // 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles[:, : width // 2])], axis=1).astype(np.float32)


def _family(model_type: str, summary: str, task_model: str, keys: Mapping[str, Key], **defaults: Any) -> Family:
    return Family(
        model_types=(model_type,),
        summary=summary,
        task_model=task_model,
        prefix="model",
        keys=keys,
        older=_older(pre_norm="pre_norm" in defaults),
        aliases={
            "num_attention_heads": "encoder_attention_heads",
            "hidden_size": "d_model",
            "num_hidden_layers": "encoder_layers",
        },
        defaults={"logits_bias": True, **defaults},
        stacks=stacks,
        parts=parts,
        head=HEADLESS,
        config=EncoderDecoderConfig,
        module=EncoderDecoder,
        read=read,
        copies={f"{tower}.embed_tokens.weight": "shared.weight" for tower in ("encoder", "decoder")},
        absent=absent,
    )


FAMILIES = (
    _family("bart", "BART: encoder-decoders", "Bart", BART, position_offset=2, embedding_norm=True),
    _family("pegasus", "Pegasus: encoder-decoders with norms before the branches", "Pegasus", PEGASUS, pre_norm=True),
)
