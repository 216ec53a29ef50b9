"""Decoders against transformers' torch models: layer by layer, padded, several texts in a batch row, step by step."""

from __future__ import annotations

from collections.abc import Container, Iterable
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
from parity import assert_parity
from reference import stirred
from safetensors.numpy import save_file

from graftax import GraftaxError, load_backbone
from graftax.models.backbone import Backbone
from graftax.models.family_registry import family_of
from graftax.models.inputs import TextInputs, Texts
from graftax.models.rope import Rope

TINY = {"vocab_size": 97, "num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY |= {"intermediate_size": 64, "max_position_embeddings": 64, "eos_token_id": 2, "pad_token_id": 0}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LOCAL = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}
LOCAL |= {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}

#: What the families differ in, with a window shorter than the rows.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama-3": {"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "rope_theta": 500_000.0, **LLAMA3}},
    "llama-linear": {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "llama-yarn": {"model_type": "llama", "rope_parameters": YARN},
    "llama-wide-heads": {"model_type": "llama", "head_dim": 16, "num_key_value_heads": 4},
    "mistral": {"model_type": "mistral", "sliding_window": 5},
    "mistral-whole": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma": {"model_type": "gemma", "head_dim": 16},
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 24},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 5, "rope_parameters": LOCAL},
    "phi3": {"model_type": "phi3", "sliding_window": 6},
    "phi3-partial": {"model_type": "phi3", "partial_rotary_factor": 0.5},
}
SHAPES = {name: {**TINY, **shape} for name, shape in SHAPES.items()}

GPT2 = {"model_type": "gpt2", "vocab_size": 97, "n_layer": 4, "n_embd": 32, "n_head": 4, "n_positions": 64, "eos_token_id": 2}
NEOX = {name: value for name, value in TINY.items() if name != "num_key_value_heads"} | {"model_type": "gpt_neox"}
SHAPES |= {
    "gpt2": {**GPT2, "pad_token_id": 0},
    "gpt2-untied": {**GPT2, "n_inner": 48, "activation_function": "relu", "tie_word_embeddings": False, "pad_token_id": 0},
    "neox": NEOX,
    "neox-behind": {**NEOX, "use_parallel_residual": False, "tie_word_embeddings": True, "attention_bias": False},
    "neox-whole": {**NEOX, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 1.0}},
}


#: Compared every time; the others differ from these in a switch of the same code.
MAIN = ("llama-3", "llama-yarn", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "neox")


def some_slow(shapes: Iterable[str], fast: Container[str]) -> list[Any]:
    return [pytest.param(shape, marks=() if shape in fast else pytest.mark.slow) for shape in shapes]


def torch_model(shape: str, seed: int = 0) -> Any:
    """transformers' language model of a shape; no weight is left at zero or one."""
    raw = dict(SHAPES[shape])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return stirred(model)


def pair(shape: str, directory: Path) -> tuple[Backbone, Any]:
    model = torch_model(shape)
    model.save_pretrained(directory)
    return load_backbone(directory), model


def laid(texts: list[np.ndarray], left: bool = False) -> TextInputs:
    """Texts as rows padded on one side."""
    tokens = max(map(len, texts))
    ids, mask = np.zeros((len(texts), tokens), np.int32), np.zeros((len(texts), tokens), bool)
    for i, text in enumerate(texts):
        there = slice(tokens - len(text), None) if left else slice(0, len(text))
        ids[i, there], mask[i, there] = text, True
    return TextInputs(ids, mask, np.zeros_like(ids))


def rows(backbone: Backbone) -> TextInputs:
    """Three random texts, padded on the right, and again on the left."""
    random = np.random.default_rng(0)
    texts = [random.integers(3, backbone.config.vocab_size, count).astype(np.int32) for count in (12, 8, 3)]
    return jax.tree.map(lambda *sides: np.concatenate(sides), laid(texts), laid(texts, left=True))


def logits(backbone: Backbone, inputs: TextInputs) -> tuple[np.ndarray, np.ndarray]:
    """Next-token logits of every token, and the states of every layer."""

    def run(params: Any, inputs: TextInputs) -> Any:
        out = backbone.encode(params, {}, inputs, intermediates=True)
        return backbone.next_token(params, {}, out.hidden), out.layers

    return jax.tree.map(np.asarray, jax.jit(run)(backbone.params, inputs))


@pytest.mark.parametrize("shape", some_slow(SHAPES, MAIN))
def test_equals_transformers(shape: str, tmp_path: Path) -> None:
    backbone, model = pair(shape, tmp_path)
    inputs = rows(backbone)
    ids, mask = (torch.tensor(np.asarray(x, np.int64)) for x in (inputs.ids, inputs.mask))
    positions = (mask.cumsum(1) - 1).clamp(min=0)  # as `generate` has them
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    ours, states = logits(backbone, inputs)
    assert len(states) == len(theirs.hidden_states)
    for mine, one in zip(states, theirs.hidden_states, strict=True):
        assert_parity(backbone, mine[inputs.mask], one[inputs.mask], relative=1e-4)
    assert_parity(backbone, ours[inputs.mask], theirs.logits[inputs.mask], relative=1e-4)
    assert np.abs(ours).max() > 0.5


@pytest.mark.parametrize("shape", some_slow(["llama", "gemma3", "gpt2", "neox"], ["gemma3"]))
def test_texts_of_one_row_do_not_meet(shape: str, tmp_path: Path) -> None:
    backbone, _ = pair(shape, tmp_path)
    inputs = jax.tree.map(lambda both: both[:3], rows(backbone))
    lengths = inputs.mask.sum(1)
    packed = np.zeros((1, 32), np.int32)
    segments, first, begin = np.zeros((1, 32), np.int32), [], 1
    for i, length in enumerate(lengths):
        packed[0, begin : begin + length], segments[0, begin : begin + length] = inputs.ids[i, :length], i + 1
        first.append(begin)
        begin += length
    together = TextInputs(packed, segments > 0, np.zeros_like(packed), Texts(segments, np.array(first, np.int32)))
    alone, _ = logits(backbone, inputs)
    found, _ = logits(backbone, together)
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(found[0, first[i] : first[i] + length], alone[i, :length], atol=1e-5)
    for one, both in zip(*(ends(backbone, batch) for batch in (inputs, together)), strict=True):
        np.testing.assert_allclose(both, one, atol=1e-5)


def ends(backbone: Backbone, inputs: TextInputs) -> tuple[np.ndarray, np.ndarray]:
    """Each text's last position, from all tokens and computed alone."""

    def run(params: Any, inputs: TextInputs) -> Any:
        return tuple(backbone.encode(params, {}, inputs, pooled=pooled).first for pooled in (False, True))

    whole, cut = jax.tree.map(np.asarray, jax.jit(run)(backbone.params, inputs))
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    return whole, cut


@pytest.mark.parametrize(
    "shape", some_slow(["llama-biased", "mistral", "gemma2", "gemma3", "phi3-partial", "gpt2", "neox"], ["gemma3", "gpt2"])
)
def test_cache_step_by_step(shape: str, tmp_path: Path) -> None:
    """Tokens fed one by one behind a prefill give the logits of the whole rows; rows end where they end."""
    backbone, _ = pair(shape, tmp_path)
    inputs, more = rows(backbone), np.random.default_rng(1).integers(3, 97, (6, 6)).astype(np.int32)
    prefill = jax.jit(partial(backbone.prefill, columns=inputs.ids.shape[1] + 6))
    step = jax.jit(backbone.step)
    found, cache = prefill(backbone.params, backbone.layers, {}, inputs)
    said = [found]
    for column in range(6):
        found, cache = step(backbone.params, backbone.layers, {}, jnp.asarray(more[:, column]), cache)
        said.append(found)
    texts = [np.concatenate([ids[own], new]) for ids, own, new in zip(inputs.ids, inputs.mask, more, strict=True)]
    whole, _ = logits(backbone, laid(texts))
    for i, found in enumerate(said):
        expected = np.stack([whole[row, len(text) - 7 + i] for row, text in enumerate(texts)])
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["gpt2", "neox"])
def test_older_checkpoints(shape: str, tmp_path: Path) -> None:
    """With the causal mask among the weights, GPT-2's without a prefix, GPT-NeoX's with the head's older name."""
    backbone, model = pair(shape, tmp_path / "new")
    tensors = {key: np.ascontiguousarray(tensor) for key, tensor in model.state_dict().items()}
    if shape == "gpt2":
        tensors = {key.removeprefix("transformer."): tensor for key, tensor in tensors.items() if key != "lm_head.weight"}
        tensors |= {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 64, 64), np.float32)) for i in range(4)}
    else:
        tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
        tensors |= {f"gpt_neox.layers.{i}.attention.bias": np.ones((1, 1, 64, 64), bool) for i in range(4)}
        tensors |= {f"gpt_neox.layers.{i}.attention.masked_bias": np.array(-1e9, np.float32) for i in range(4)}
    (tmp_path / "old").mkdir()
    save_file(tensors, tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "new" / "config.json").read_text())
    assert load_backbone(tmp_path / "old").fingerprint == backbone.fingerprint


#: config.json as published, less what says nothing here.
GPT2_SMALL = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_embd": 768, "n_head": 12}
GPT2_SMALL |= {"n_layer": 12, "n_positions": 1024, "summary_type": "cls_index", "vocab_size": 50257, "_num_labels": 1}
PYTHIA = {"hidden_act": "gelu", "hidden_size": 512, "intermediate_size": 2048, "layer_norm_eps": 1e-05, "vocab_size": 50304}
PYTHIA |= {"max_position_embeddings": 2048, "num_attention_heads": 8, "num_hidden_layers": 6, "rotary_emb_base": 10000}
PYTHIA |= {"rotary_pct": 0.25, "tie_word_embeddings": False, "use_parallel_residual": True, "eos_token_id": 0}


def test_configs_as_published() -> None:
    gpt2, pythia = family_of("gpt2").configure(GPT2_SMALL), family_of("gpt_neox").configure(PYTHIA)
    assert (gpt2.intermediate_size, gpt2.norm_eps, gpt2.tied, gpt2.rope) == (3072, 1e-5, True, None)
    assert (pythia.parallel, pythia.tied, pythia.eos_ids, pythia.size) == (True, False, (0,), 64)
    assert pythia.rope == Rope(16)
    for switch in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
        with pytest.raises(GraftaxError, match=f"{switch}=True"):
            family_of("gpt2").configure({**GPT2_SMALL, switch: True})


@needs_assets
def test_stories_equal_transformers() -> None:
    path = SHARED / "backbones" / "stories260K"
    backbone = load_backbone(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = np.random.default_rng(0).integers(3, 512, (2, 40)).astype(np.int32)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(ids.astype(np.int64))).logits.numpy()
    ours, _ = logits(backbone, TextInputs(ids, np.ones_like(ids, bool), np.zeros_like(ids)))
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_parameters": {"rope_type": "ours", "rope_theta": 1e4}}, "rope_type 'ours' is not supported"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "lacks factor"),
        ({"hidden_act": "swoosh"}, "hidden_act='swoosh'"),
        ({"num_attention_heads": None}, "num_attention_heads"),
    ],
)
def test_configs_that_are_refused(change: dict[str, Any], said: str) -> None:
    from graftax.models.random import random_backbone

    with pytest.raises(GraftaxError, match=said):
        random_backbone({**SHAPES["llama"], **change})
