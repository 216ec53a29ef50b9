"""Encoder-decoders against transformers' torch models: layer by layer, sources padded on either side, step by step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from conftest import SHARED, needs_assets
from safetensors.numpy import load_file, save_file

from graftax import GraftaxError, load_backbone
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs
from graftax.models.registry import family_of

TRANSLITERATION = SHARED / "backbones" / "aren-transliteration"
TINY: dict[str, Any] = {"vocab_size": 97, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2}
TINY |= {"encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 64}
TINY |= {"max_position_embeddings": 40, "eos_token_id": 2, "pad_token_id": 1, "forced_eos_token_id": None}

SHAPES: dict[str, dict[str, Any]] = {
    "bart": {"model_type": "bart", **TINY, "decoder_start_token_id": 2},
    "bart-untied": {"model_type": "bart", **TINY, "tie_word_embeddings": False, "scale_embedding": True},
    "pegasus": {"model_type": "pegasus", **TINY, "decoder_start_token_id": 0, "scale_embedding": True},
    "pegasus-untied": {"model_type": "pegasus", **TINY, "tie_word_embeddings": False, "activation_function": "relu"},
}

T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "pad_token_id": 0, "eos_token_id": 1}
T5 |= {"decoder_start_token_id": 0}
SHAPES |= {
    "t5": {"model_type": "t5", **T5},
    "t5-1.1": {"model_type": "t5", **T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": {"model_type": "mt5", **T5, "tie_word_embeddings": False},
}
OWN_HEAD = ("t5-1.1", "mt5")  # as checkpoints have it, whatever configs say


def torch_model(shape: str, seed: int = 0) -> Any:
    """transformers' model of a shape; no weight is left at zero or one."""
    raw = dict(SHAPES[shape])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    torch.manual_seed(seed)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
    if shape in OWN_HEAD:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.add_(torch.randn_like(model.final_logits_bias))
    return model.eval()


def pair(shape: str, directory: Path) -> tuple[Backbone, Any]:
    model = torch_model(shape)
    model.save_pretrained(directory)
    return load_backbone(directory), model


def rows(backbone: Backbone) -> Inputs:
    """Three random sources, padded on the right, and again on the left, with a target each."""
    random = np.random.default_rng(0)
    tokens, lengths = 11, (11, 8, 3)
    index = np.arange(tokens)
    mask = np.concatenate([index < np.array(lengths)[:, None], index >= tokens - np.array(lengths)[:, None]])
    ids = np.where(mask, random.integers(3, backbone.config.vocab_size, mask.shape), backbone.config.pad_id).astype(np.int32)
    target = random.integers(3, backbone.config.vocab_size, (6, 7)).astype(np.int32)
    target[:, 0] = backbone.config.start_id
    read = Inputs(target, np.ones(target.shape, bool), np.zeros_like(target))
    return Inputs(ids, mask, np.zeros_like(ids), target=read)


def run(backbone: Backbone, inputs: Inputs) -> Any:
    """Logits of every token of the target, and the states of both towers."""

    def forward(params: Any, inputs: Inputs) -> Any:
        out = backbone.encode(params, {}, inputs, intermediates=True)
        assert out.encoder is not None
        return backbone.next_token(params, {}, out.hidden), out.encoder.layers, out.layers

    return jax.tree.map(np.asarray, jax.jit(forward)(backbone.params, inputs))


def of_torch(model: Any, inputs: Inputs) -> Any:
    ids, mask, target = (torch.tensor(np.asarray(x, np.int64)) for x in (inputs.ids, inputs.mask, inputs.target.ids))
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=target, output_hidden_states=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_transformers(shape: str, tmp_path: Path) -> None:
    backbone, model = pair(shape, tmp_path)
    inputs = rows(backbone)
    ours, encoder, decoder = run(backbone, inputs)
    theirs = of_torch(model, inputs)
    close = partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4)
    for mine, one in zip(encoder, theirs.encoder_hidden_states, strict=True):
        close(mine[inputs.mask], one.numpy()[inputs.mask])
    for mine, one in zip(decoder, theirs.decoder_hidden_states, strict=True):
        close(mine, one.numpy())
    close(ours, theirs.logits.numpy())
    assert np.abs(ours).max() > 0.5


@pytest.mark.parametrize("shape", ["bart", "pegasus", "t5-1.1"])
def test_cache_step_by_step(shape: str, tmp_path: Path) -> None:
    """Tokens fed one by one behind a prefill give the logits of the whole target."""
    backbone, _ = pair(shape, tmp_path)
    inputs = rows(backbone)
    whole, *_ = run(backbone, inputs)
    prefill = jax.jit(partial(backbone.prefill, columns=inputs.target.ids.shape[1] + 2))
    step = jax.jit(backbone.step)
    found, cache = prefill(backbone.params, backbone.layers, {}, inputs._replace(target=None))
    np.testing.assert_allclose(found, whole[:, 0], atol=1e-4, rtol=1e-4)
    for column in range(1, inputs.target.ids.shape[1]):
        found, cache = step(backbone.params, backbone.layers, {}, jnp.asarray(inputs.target.ids[:, column]), cache)
        np.testing.assert_allclose(found, whole[:, column], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["bart", "pegasus", "t5"])
def test_older_checkpoints(shape: str, tmp_path: Path) -> None:
    """With the shared table at every place, without what transformers makes itself; copies that differ are refused."""
    backbone, model = pair(shape, tmp_path / "new")
    inputs = rows(backbone)
    directory = tmp_path / "old"
    model.save_pretrained(directory)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    made = [key for key in tensors if shape == "pegasus" and key.endswith("embed_positions.weight")]
    tensors = {key: t for key, t in tensors.items() if key not in [*made, "final_logits_bias"]}
    prefix = "" if shape == "t5" else "model."
    copies = {f"{prefix}{tower}.embed_tokens.weight": tensors[f"{prefix}shared.weight"] for tower in ("encoder", "decoder")}
    save_file({**tensors, **copies}, file)
    theirs = of_torch(transformers.AutoModelForSeq2SeqLM.from_pretrained(directory).eval(), inputs).logits
    np.testing.assert_allclose(run(load_backbone(directory), inputs)[0], theirs.numpy(), atol=1e-4, rtol=1e-4)
    key = f"{prefix}decoder.embed_tokens.weight"
    save_file({**tensors, **copies, key: copies[key] + 1.0}, file)
    with pytest.raises(GraftaxError, match=r"decoder\.embed_tokens\.weight is not shared\.weight"):
        load_backbone(directory)


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ("bart", {"normalize_before": True}, "normalize_before=True"),
        ("pegasus", {"static_position_embeddings": False}, "static_position_embeddings=False"),
        ("bart", {"activation_function": "swoosh"}, "activation_function='swoosh'"),
        ("bart", {"rope_theta": 1.0}, "rope_theta"),
        ("bart", {"decoder_attention_heads": 5}, "not a multiple of 5 heads"),
        ("t5", {"feed_forward_proj": "gated-swoosh"}, "feed_forward_proj='gated-swoosh'"),
    ],
)
def test_configs_that_are_refused(shape: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        family_of(SHAPES[shape]["model_type"]).configure({**SHAPES[shape], **change})


@needs_assets
def test_transliteration_equals_transformers() -> None:
    backbone = load_backbone(TRANSLITERATION)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(TRANSLITERATION).eval()
    inputs = rows(backbone)
    np.testing.assert_allclose(run(backbone, inputs)[0], of_torch(model, inputs).logits.numpy(), atol=1e-3, rtol=1e-5)
