"""GGUF bases: the same backbone as the checkpoint of the weights, and the logits that transformers has of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_files import MODELS, TINY, packed, tensors_of, write_checkpoint, write_gguf
from transformers import AutoModelForCausalLM

from graftax import load_backbone
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs

IDS = np.random.default_rng(3).integers(5, 200, (2, 12)).astype(np.int32)


def logits_of(backbone: Backbone, ids: np.ndarray = IDS) -> np.ndarray:
    inputs = TextInputs(ids, np.ones(ids.shape, bool), None)
    hidden = jax.jit(backbone.encode)(backbone.params, {}, inputs).hidden
    return np.asarray(jax.jit(backbone.next_token)(backbone.params, {}, hidden))


def by_transformers(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


@pytest.mark.parametrize("model", MODELS)
def test_a_lossless_file_is_the_checkpoint(model: str, tmp_path: Path) -> None:
    """Its fingerprint too, so adapters of one fit the other; but for Gemma's norms, of which the file has 1 + w, rounded."""
    file = load_backbone(write_gguf(tmp_path / "x.gguf", MODELS[model]))
    checkpoint = load_backbone(write_checkpoint(tmp_path / "hf", MODELS[model]))
    assert file.config == checkpoint.config
    assert np.abs(logits_of(file) - logits_of(checkpoint)).max() < 1e-4
    assert np.abs(logits_of(file)).max() > 1
    if not model.startswith("gemma"):
        assert file.fingerprint == checkpoint.fingerprint


#: What transformers' reading of GGUF files takes for granted: it passes over these keys.
_GRANTED = {"qwen3": {"head_dim": 128}, "gpt2": {"n_inner": 256, "n_positions": 1024}}
_GRANTED |= {model: {"head_dim": 256, "query_pre_attn_scalar": 256} for model in ("gemma2", "gemma3")}


@pytest.mark.parametrize("model", [model for model in MODELS if model != "gemma"])  # which transformers does not read
def test_logits_are_those_of_transformers(model: str, tmp_path: Path) -> None:
    config = {**MODELS[model], **_GRANTED.get(model, {}), "tie_word_embeddings": model not in ("llama", "qwen3")}
    path = write_gguf(tmp_path / "x.gguf", config, usual=Kind.Q8_0)
    with torch.no_grad():
        expected = by_transformers(path)(torch.tensor(IDS.astype(np.int64))).logits.numpy()
    assert np.abs(logits_of(load_backbone(path)) - expected).max() < 1e-4


_NOT_UNPACKED = {Kind.Q8_1, Kind.Q8_K, Kind.Q1_0, Kind.F64, Kind.I8, Kind.I16, Kind.I32, Kind.I64}
_WIDE = {**TINY, "hidden_size": 256, "head_dim": 64, "intermediate_size": 256, "num_hidden_layers": 1}


@pytest.mark.parametrize("kind", sorted({*Kind} - _NOT_UNPACKED), ids=lambda kind: kind.name)
def test_every_type_of_block(kind: Kind, tmp_path: Path) -> None:
    """Each row is what gguf makes of it, at its place: those of the query in the order of a checkpoint."""
    backbone = load_backbone(write_gguf(tmp_path / "x.gguf", _WIDE, {"ffn_down": kind, "attn_q": kind}))
    tensors = tensors_of(_WIDE)
    down = gguf.dequantize(packed(tensors["layers.0.mlp.down_proj.weight"], kind), kind)
    assert np.array_equal(backbone.arrays()["layers.ffn_out.kernel"][0], down.T)
    query = tensors["layers.0.self_attn.q_proj.weight"]
    there = gguf.dequantize(packed(query.reshape(4, 2, 32, 256).swapaxes(1, 2).reshape(256, 256), kind), kind)
    assert np.array_equal(
        backbone.arrays()["layers.query.kernel"][0], there.reshape(4, 32, 2, 256).swapaxes(1, 2).reshape(256, 256).T
    )


def test_no_tensor_is_unpacked_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way to bfloat16 no array of float32 is larger than the piece that is unpacked, whatever the tensor."""
    path = write_gguf(tmp_path / "x.gguf", {**TINY, "vocab_size": 4096, "hidden_size": 128}, usual=Kind.Q4_0)
    asked = []
    dequantize = gguf.dequantize
    monkeypatch.setattr(gguf, "dequantize", lambda data, kind: asked.append(data.size) or dequantize(data, kind))
    monkeypatch.setattr("graftax.models.fingerprint._NUMBERS", 1 << 16)
    monkeypatch.setattr("graftax.models.gguf_file._AT_ONCE", 1 << 14)
    backbone = load_backbone(path, dtype="bfloat16")
    block, size = gguf.GGML_QUANT_SIZES[Kind.Q4_0]
    assert backbone.dtype == "bfloat16"
    assert max(asked) <= max((1 << 14) // block * size, 4 << 14)
    assert sum(n for n in asked if n % size == 0) >= 4096 * 128 // block * size


LONGER = {"rope_theta": 10_000.0, "original_max_position_embeddings": 2048}


@pytest.mark.parametrize(
    ("more", "rope"),
    [
        ({"llama.rope.scaling.type": "none"}, {"rope_type": "default"}),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"llama.rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),  # as files said it before
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 8.0,
                "llama.rope.scaling.original_context_length": 2048,
            },
            {"rope_type": "yarn", "factor": 8.0},
        ),
        ({"rope_freqs.weight": np.ones(8, np.float32)}, {"rope_type": "default"}),
    ],
)
def test_scaled_rotary_positions(more: dict[str, Any], rope: dict[str, Any], tmp_path: Path) -> None:
    file = load_backbone(write_gguf(tmp_path / "x.gguf", more=more))
    checkpoint = load_backbone(write_checkpoint(tmp_path / "hf", {**TINY, "rope_parameters": LONGER | rope}))
    assert file.config == checkpoint.config


def test_the_factors_of_llama_3_are_its_settings(tmp_path: Path) -> None:
    """What llama.cpp's converter computes for Llama 3.2: from 1 for short waves to 32 for long ones."""
    waves = 2 * np.pi * 500_000.0 ** (np.arange(0, 64, 2) / 64)
    smooth = (8192 / waves - 1) / 3
    factors = np.where(waves < 8192 / 4, 1, np.where(waves > 8192, 32, 1 / ((1 - smooth) / 32 + smooth)))
    config = {**TINY, "head_dim": 64}
    more = {"rope_freqs.weight": factors.astype(np.float32), "llama.rope.freq_base": 500_000.0}
    file = load_backbone(write_gguf(tmp_path / "x.gguf", config, more=more))
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
    assert file.hf_config is not None
    assert file.hf_config["rope_parameters"] == scaling
    assert file.config == load_backbone(write_checkpoint(tmp_path / "hf", {**config, "rope_parameters": scaling})).config


def test_biases_of_llama_are_in_the_order_of_their_rows(tmp_path: Path) -> None:
    config = {**TINY, "attention_bias": True, "mlp_bias": True}
    file = load_backbone(write_gguf(tmp_path / "x.gguf", config))
    assert file.fingerprint == load_backbone(write_checkpoint(tmp_path / "hf", config)).fingerprint


def test_parts_are_one_model(tmp_path: Path) -> None:
    whole = load_backbone(write_gguf(tmp_path / "whole" / "x.gguf"))
    write_gguf(tmp_path / "split" / "y.gguf", split=7)
    files = sorted((tmp_path / "split").iterdir())
    assert len(files) == 3
    assert load_backbone(files[0]).fingerprint == whole.fingerprint
    assert load_backbone(tmp_path / "split").fingerprint == whole.fingerprint  # a directory that holds one model
