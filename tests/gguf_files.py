"""GGUF files of tiny models, written by the `gguf` package as llama.cpp's converter lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save_file
from tiny import CHAT
from tokenizers import pre_tokenizers

from graftax.models.random import random_tensors

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "12 3", "i n", "Ġw in"]

TINY: dict[str, Any] = {"model_type": "llama", "vocab_size": 272, "num_hidden_layers": 2, "hidden_size": 64}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 96}
TINY |= {"rms_norm_eps": 1e-5, "head_dim": 16, "pad_token_id": 0, "tie_word_embeddings": True}
TINY |= {"eos_token_id": [2, 4]}  # </s>, and what llama.cpp ends texts with besides

#: A config of each model type, with its architecture in GGUF files.
MODELS: dict[str, dict[str, Any]] = {
    "llama": TINY,
    "qwen2": {**TINY, "model_type": "qwen2"},
    "qwen3": {**TINY, "model_type": "qwen3", "head_dim": 32},
    "gemma": {**TINY, "model_type": "gemma", "head_dim": 32, "rms_norm_eps": 1e-6},
    "gemma2": {**TINY, "model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8},
    "gemma3": {**TINY, "model_type": "gemma3_text", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8},
    "gpt2": {"model_type": "gpt2", "vocab_size": 272, "n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 96, "n_inner": 96}
    | {"eos_token_id": [2, 4], "pad_token_id": 0},
}

_NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
_NAMES |= {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
_IN_LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_IN_LAYER |= {f"self_attn.{short}_proj": f"attn_{name}" for short, name in zip("qkvo", ("q", "k", "v", "output"), strict=True)}
_IN_LAYER |= {f"self_attn.{short}_norm": f"attn_{short}_norm" for short in "qk"}
_IN_LAYER |= {f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")}
_IN_LAYER |= {"ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output"}
_IN_LAYER |= {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
_POST_NORMS = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm"}
_POST_NORMS |= {"post_feedforward_layernorm": "post_ffw_norm"}


def _gguf_name(key: str, post_norms: bool) -> str:
    module, _, leaf = key.rpartition(".")
    if module in _NAMES:
        return f"{_NAMES[module]}.{leaf}"
    _, layer, rest = module.split(".", 2)
    names = {**_IN_LAYER, **(_POST_NORMS if post_norms else {})}
    return f"blk.{layer}.{names[rest]}.{leaf}"


def _converted(tensor: np.ndarray, name: str, config: Mapping[str, Any]) -> np.ndarray:
    """A checkpoint's tensor as llama.cpp's converter writes it."""
    kind = config["model_type"]
    heads = {"attn_q": config.get("num_attention_heads"), "attn_k": config.get("num_key_value_heads")}
    count = heads.get(name.split(".")[-2])
    if kind == "llama" and count:
        return tensor.reshape(count, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    if kind.startswith("gemma") and "norm" in name:
        return tensor + 1
    return tensor.T if kind == "gpt2" and name.startswith("blk.") and tensor.ndim == 2 else tensor


def tensors_of(config: Mapping[str, Any], seed: int = 7) -> dict[str, np.ndarray]:
    """Of a checkpoint, ten times as large as usual, so that outputs depend on the text."""
    return {key: 10 * t if t.ndim > 1 else t for key, t in random_tensors(config, seed).items()}


def packed(tensor: np.ndarray, kind: Kind, seed: int = 0) -> np.ndarray:
    """The bytes of a tensor in a type; in those that the package cannot make, random bytes with scales near 0.01."""
    try:
        return gguf.quantize(np.ascontiguousarray(tensor, np.float32), kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        bits = np.random.default_rng(seed).integers(0, 256, (tensor.size // block, size), np.uint8)
        places = {Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208,), Kind.Q2_K: (80, 82), Kind.Q3_K: (108,)}
        for at in places.get(kind, (0,)):
            bits[:, at : at + 2] = np.frombuffer(np.float16(0.003).tobytes(), np.uint8)
        if kind == Kind.IQ1_M:  # its scale is apart, in the upper bits of four numbers
            bits[:, 49::2] = bits[:, 49::2] & 15 | np.array([5, 2, 10, 1], np.uint8) << 4
        return bits.reshape(*tensor.shape[:-1], -1)


@cache
def byte_tokens() -> tuple[str, ...]:
    """SPECIAL, the alphabet of bytes, what MERGES make."""
    return (*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES))


def vocabulary(writer: gguf.GGUFWriter, count: int, cut: str = "smollm", chat: str | None = CHAT) -> None:
    """Byte-level pairs, filled up to `count` tokens."""
    tokens = [*byte_tokens(), *(f"[PAD{i}]" for i in range(count))][:count]
    kinds = [3 if token in SPECIAL else 5 if token.startswith("[PAD") else 1 for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    for name in ("bos", "eos"):
        getattr(writer, f"add_{name}_token_id")(tokens.index({"bos": "<s>", "eos": "</s>"}[name]))
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    if chat is not None:
        writer.add_chat_template(chat)


def sizes(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """What the metadata say of a model."""
    if config["model_type"] == "gpt2":
        config = {"num_hidden_layers": config["n_layer"], "hidden_size": config["n_embd"], **config}
        config = {"intermediate_size": config["n_inner"], "num_attention_heads": config["n_head"], **config}
        config = {"max_position_embeddings": config["n_positions"], **config}
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        if config["model_type"] == "gemma3_text":
            writer.add_rope_freq_base(1e6)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)


def write_gguf(
    path: Path,
    config: Mapping[str, Any] = TINY,
    kinds: Mapping[str, Kind] | None = None,
    usual: Kind = Kind.F32,
    seed: int = 7,
    cut: str = "smollm",
    chat: str | None = CHAT,
    more: Mapping[str, Any] | None = None,
    split: int = 0,
) -> Path:
    """A model with random weights.

    Args:
        kinds: types of tensors, by the last part of their name such as "attn_q"; `usual`: of the other matrices.
        more: keys of the metadata beside the usual ones, and tensors (arrays) by name.
        split: tensors in each of several files; 0: all in one.
    """
    architecture = {"gemma3_text": "gemma3"}.get(config["model_type"], config["model_type"])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    writer.add_type("model")
    sizes(writer, config)
    vocabulary(writer, config["vocab_size"], cut, chat)
    post_norms = config["model_type"] in ("gemma2", "gemma3_text")
    for key, tensor in tensors_of(config, seed).items():
        name = _gguf_name(key, post_norms)
        kind = (kinds or {}).get(name.split(".")[-2], usual) if tensor.ndim > 1 else Kind.F32
        writer.add_tensor(name, packed(_converted(tensor, name, config), kind), raw_dtype=kind)
    for name, value in (more or {}).items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(name, value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_checkpoint(directory: Path, config: Mapping[str, Any], seed: int = 7) -> Path:
    """The same model as Hugging Face stores it, without a tokenizer."""
    import json

    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    prefix = "transformer" if config["model_type"] == "gpt2" else "model"
    tensors = {key if key == "lm_head.weight" else f"{prefix}.{key}": t for key, t in tensors_of(config, seed).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory
