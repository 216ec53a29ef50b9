"""A tiny config of every family in which nothing is as transformers' class has it, and the logits of both sides for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers

from graftax.models.backbone import Backbone
from graftax.models.family_registry import FAMILIES
from graftax.models.inputs import ImageInputs, TextInputs

_ENCODER = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_ENCODER |= {"max_position_embeddings": 40, "type_vocab_size": 3}
_DECODER = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_DECODER |= {"max_position_embeddings": 64, "num_key_value_heads": 2, "head_dim": 10}
_BART = {"vocab_size": 97, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4}
_BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "max_position_embeddings": 40}
_T5 = {"vocab_size": 97, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 48, "d_kv": 6}

#: Sizes, without which a model is as large as the class's own.
SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), _ENCODER),
    "albert": {**_ENCODER, "embedding_size": 16},
    "distilbert": {"vocab_size": 97, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {key: value for key, value in _DECODER.items() if key not in ("num_key_value_heads", "head_dim")},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _DECODER),
    "phi3": {**_DECODER, "pad_token_id": 3},  # the class's own lies beyond a small vocabulary
    **dict.fromkeys(("bart", "pegasus"), _BART),
    **dict.fromkeys(("t5", "mt5"), _T5),
}

_ENDS = {"eos_token_id": [5, 7], "pad_token_id": 3, "bos_token_id": 4}
_ROPE = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0}}
_LLAMA = {**_ENDS, **_ROPE, "rms_norm_eps": 1e-2, "hidden_act": "relu", "tie_word_embeddings": True}
_TYPES = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "sliding_window": 4}
_GEMMA2 = {"hidden_activation": "silu", "query_pre_attn_scalar": 20, "tie_word_embeddings": False, "attention_bias": True}
_GEMMA2 |= {**_TYPES, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.5}
_QWEN = {**_LLAMA, **_TYPES, "use_sliding_window": True, "max_window_layers": 2}

#: And what a class has a default for that makes a difference to what is computed, or to how a text is generated.
OTHERS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_act": "relu", "layer_norm_eps": 1e-2, "pad_token_id": 2},
    "distilbert": {"activation": "relu", "pad_token_id": 2},
    "albert": {"hidden_act": "relu", "layer_norm_eps": 1e-2, "num_hidden_groups": 2, "inner_group_num": 2, "pad_token_id": 2},
    "gpt2": {**_ENDS, "n_inner": 40, "activation_function": "relu", "layer_norm_epsilon": 1e-2, "tie_word_embeddings": False},
    "gpt_neox": {**_ENDS, **_ROPE, "hidden_act": "relu", "layer_norm_eps": 1e-2, "use_parallel_residual": False},
    "llama": {**_LLAMA, "attention_bias": True, "mlp_bias": True},
    "mistral": {**_LLAMA, "sliding_window": 4},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "attention_bias": True},
    "gemma": {**_LLAMA, "tie_word_embeddings": False, "attention_bias": True, "hidden_act": "silu"},
    "gemma2": {**_ENDS, **_ROPE, "rms_norm_eps": 1e-2, **_GEMMA2},
    "phi3": {**_LLAMA, "sliding_window": 4, "partial_rotary_factor": 0.8, "rope_parameters": {"rope_theta": 300.0}},
    "t5": {**_ENDS, "num_decoder_layers": 1, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
    "bart": {**_ENDS, "activation_function": "relu", "scale_embedding": True, "tie_word_embeddings": False},
}
OTHERS["roberta"] = OTHERS["xlm-roberta"] = OTHERS["bert"]
OTHERS["gpt_neox"] |= {"attention_bias": False, "tie_word_embeddings": True}
OTHERS["gemma3_text"] = {**OTHERS["gemma2"], "rope_parameters": {"full_attention": _ROPE["rope_parameters"]}}
del OTHERS["gemma3_text"]["attn_logit_softcapping"]
OTHERS["gemma3_text"]["rope_parameters"]["sliding_attention"] = {"rope_type": "default", "rope_theta": 50.0}
OTHERS["t5"] |= {"layer_norm_epsilon": 1e-2, "feed_forward_proj": "gated-relu", "tie_word_embeddings": False}
OTHERS["mt5"] = {**OTHERS["t5"], "decoder_start_token_id": 9}
OTHERS["bart"] |= {"decoder_start_token_id": 9, "forced_eos_token_id": 5}
OTHERS["pegasus"] = OTHERS["bart"]

SIZES["mobilenet_v2"] = {"depth_multiplier": 0.35, "num_channels": 4}
OTHERS["mobilenet_v2"] = {"depth_divisible_by": 2, "min_depth": 4, "expand_ratio": 2.5, "output_stride": 16}
OTHERS["mobilenet_v2"] |= {"first_layer_is_expansion": False, "finegrained_output": False, "hidden_act": "relu"}
OTHERS["mobilenet_v2"] |= {"tf_padding": False, "layer_norm_eps": 1e-2}

SIZES["mobilenet_v1"] = {"depth_multiplier": 0.2, "num_channels": 4}
OTHERS["mobilenet_v1"] = {"min_depth": 10, "hidden_act": "relu", "tf_padding": False, "layer_norm_eps": 1e-2}

SIZES["resnet"] = {"embedding_size": 6, "hidden_sizes": [8, 12, 16, 20], "depths": [2, 1, 2, 1], "num_channels": 4}
OTHERS["resnet"] = {"layer_type": "basic", "hidden_act": "silu"}
OTHERS["resnet"] |= {"downsample_in_first_stage": True, "downsample_in_bottleneck": True}

SIZES["efficientnet"] = {"width_coefficient": 0.25, "depth_coefficient": 0.6, "hidden_dim": 320, "num_channels": 4}
OTHERS["efficientnet"] = {
    "depth_divisor": 4,
    "kernel_sizes": [5, 3, 3, 3, 5, 5, 3],
    "in_channels": [32, 12, 24, 40, 80, 112, 192],
}
OTHERS["efficientnet"] |= {"out_channels": [12, 24, 40, 80, 112, 192, 300], "depthwise_padding": [1, 4]}
OTHERS["efficientnet"] |= {"strides": [2, 1, 2, 2, 1, 2, 1], "num_block_repeats": [2, 2, 2, 1, 3, 4, 1]}
OTHERS["efficientnet"] |= {"expand_ratios": [2, 1, 3, 6, 2, 2, 4], "squeeze_expansion_ratio": 0.5, "hidden_act": "relu"}
OTHERS["efficientnet"] |= {"pooling_type": "max", "batch_norm_eps": 1e-2}

_PATCHES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_PATCHES |= {"image_size": [33, 40], "patch_size": [8, 10], "num_channels": 4}
SIZES |= dict.fromkeys(("vit", "deit", "dinov3_vit"), _PATCHES)
SIZES["beit"] = {**_PATCHES, "image_size": 40, "patch_size": 10, "use_relative_position_bias": True}
SIZES["dinov2"] = {key: value for key, value in _PATCHES.items() if key != "intermediate_size"}
SIZES["dinov2_with_registers"] = SIZES["dinov2"]
SIZES["swin"] = {"image_size": [33, 40], "patch_size": [3, 5], "num_channels": 4, "embed_dim": 8, "depths": [2, 1]}
SIZES["swin"] |= {"num_heads": [2, 4], "window_size": 3}
OTHERS["vit"] = OTHERS["deit"] = {"hidden_act": "relu", "layer_norm_eps": 1e-2, "qkv_bias": False}
OTHERS["dinov2"] = {**OTHERS["vit"], "mlp_ratio": 2, "use_swiglu_ffn": True}
OTHERS["dinov2_with_registers"] = {**OTHERS["dinov2"], "num_register_tokens": 2}
OTHERS["beit"] = {"hidden_act": "relu", "layer_norm_eps": 1e-2, "use_absolute_position_embeddings": True}
OTHERS["beit"] |= {"use_shared_relative_position_bias": True, "layer_scale_init_value": 0.0, "use_mean_pooling": False}
OTHERS["dinov3_vit"] = {"hidden_act": "relu", "layer_norm_eps": 1e-2, "rope_theta": 20.0, "query_bias": False}
OTHERS["dinov3_vit"] |= {"key_bias": True, "value_bias": False, "proj_bias": False, "mlp_bias": False}
OTHERS["dinov3_vit"] |= {"use_gated_mlp": True, "num_register_tokens": 2}
OTHERS["swin"] = {**OTHERS["vit"], "mlp_ratio": 2.0, "use_absolute_embeddings": True}
SIZES["convnext"] = SIZES["convnextv2"] = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1], "num_channels": 4}
OTHERS["convnextv2"] = {"patch_size": 2, "num_stages": 4, "hidden_act": "relu", "layer_norm_eps": 1e-2}
OTHERS["convnext"] = {**OTHERS["convnextv2"], "layer_scale_init_value": 0.5}

_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES["clip_vision_model"] = SIZES["siglip_vision_model"] = {**_TOWER, "image_size": 24, "patch_size": 8, "num_channels": 4}
SIZES["clip_text_model"] = SIZES["siglip_text_model"] = {**_TOWER, "vocab_size": 97, "max_position_embeddings": 40}
OTHERS["clip_vision_model"] = {"hidden_act": "relu", "layer_norm_eps": 1e-2}
OTHERS["siglip_vision_model"] = {**OTHERS["clip_vision_model"], "vision_use_head": False}
OTHERS["clip_text_model"] = {**OTHERS["clip_vision_model"], "pad_token_id": 3, "eos_token_id": 5}
OTHERS["siglip_text_model"] = {**OTHERS["clip_text_model"], "projection_size": 20}

#: Those that transformers has a class of.
THEIRS = {name: family for name, family in FAMILIES.items() if name in SIZES}
#: Those that read texts.
TEXT_FAMILIES = {name: family for name, family in FAMILIES.items() if family.processor.kind == "text"}
WHOLE = {name: {"model_type": name, **SIZES[name], **OTHERS[name]} for name in THEIRS}


def write_config(directory: Path, config: dict[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_checkpoint(directory: Path, config: dict[str, Any]) -> Any:
    """A random checkpoint with exactly this config.json, and transformers' model of it."""
    read = transformers.AutoConfig.from_pretrained(write_config(directory, config))
    torch.manual_seed(0)
    model = auto_of(config["model_type"]).from_config(read, attn_implementation="eager")
    noise = 0.3 if config["model_type"] in TEXT_FAMILIES else 0.05  # with more, rounding grows through fifty convolutions
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    model.save_pretrained(directory)
    write_config(directory, config)
    return model.eval()


class SiglipTexts:
    """What transformers' `AutoModel` does not know."""

    from_config = transformers.SiglipTextModel._from_config


def auto_of(model_type: str) -> Any:
    if model_type == "siglip_text_model":
        return SiglipTexts
    family = FAMILIES[model_type]
    if family.encodes:
        return transformers.AutoModelForSeq2SeqLM
    return transformers.AutoModelForCausalLM if family.generates else transformers.AutoModel


def some_pixels(config: Any) -> np.ndarray:
    """`[rows, height, width, channels]`, of the size that a config says; convolutions, ConvNeXt's too, take any."""
    said = config.image_size if hasattr(config, "patch_size") and not hasattr(config, "num_stages") else (33, 40)
    size = (said, said) if isinstance(said, int) else said
    return np.random.default_rng(0).standard_normal((2, *size, config.num_channels), np.float32)


def some_ids() -> np.ndarray:
    return np.random.default_rng(0).integers(10, 97, (2, 14)).astype(np.int32)


@torch.no_grad()
def their_logits(model: Any, ids: np.ndarray | None = None) -> np.ndarray:
    """Of every token; of an encoder its last hidden states, of pictures their tokens or the last feature map."""
    if model.config.model_type not in TEXT_FAMILIES:
        pixels = some_pixels(model.config).transpose(0, 3, 1, 2)
        last: np.ndarray = model(pixel_values=torch.tensor(pixels)).last_hidden_state.numpy()
        return last if last.ndim == 3 else last.transpose(0, 2, 3, 1)
    rows = {"input_ids": torch.tensor((some_ids() if ids is None else ids).astype(np.int64))}
    if model.config.is_encoder_decoder:
        rows["decoder_input_ids"] = rows["input_ids"].flip(1)
    out = model(**rows)
    found: torch.Tensor = out.logits if hasattr(out, "logits") else out.last_hidden_state
    return found.numpy()


def our_logits(backbone: Backbone, ids: np.ndarray | None = None) -> np.ndarray:
    if backbone.family.model_types[0] not in TEXT_FAMILIES:
        pixels = ImageInputs(some_pixels(backbone.config))
        made = jax.jit(lambda params, inputs: backbone.encode(params, {}, inputs).hidden)(backbone.params, pixels)
        positions = backbone.family.model_types[0] == "swin"  # transformers has them one behind another
        return np.asarray(made).reshape(len(made), -1, made.shape[-1]) if positions else np.asarray(made)
    ids = some_ids() if ids is None else ids
    inputs = TextInputs(ids, np.ones(ids.shape, bool), np.zeros_like(ids))
    if backbone.family.encodes:
        inputs = inputs._replace(target=inputs._replace(ids=ids[:, ::-1].copy()))

    def logits(params: Any, inputs: TextInputs) -> jax.Array:
        hidden: jax.Array = backbone.encode(params, {}, inputs).hidden
        return backbone.next_token(params, {}, hidden) if backbone.generates else hidden

    return np.asarray(jax.jit(logits)(backbone.params, inputs))


def assert_same(backbone: Backbone, model: Any, ids: np.ndarray | None = None) -> None:
    theirs = their_logits(model, ids)
    largest = np.abs(theirs).max()  # up to 10, with these weights
    assert largest > 1e-2
    np.testing.assert_allclose(our_logits(backbone, ids), theirs, atol=1e-4 * max(1.0, largest))
