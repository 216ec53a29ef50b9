"""Frozen encoders equal transformers' (invariant 30), and loading one is strict: one clear error, whatever is in the files."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from conftest import CONFIGS, MINILM, needs_assets, some_inputs, some_texts
from parity import assert_parity
from reference import ENCODER_SHAPES, SHAPES, saved, torch_inputs, torch_model
from safetensors.numpy import save_file

from graftax import GraftaxError, load_backbone
from graftax.models import fingerprint
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs, Outputs
from graftax.models.random import random_backbone, random_tensors

Tensors = dict[str, np.ndarray]
BERT = CONFIGS["bert"]


def encode(backbone: Backbone, inputs: Inputs, **options: bool) -> Outputs:
    """The backbone's own outputs, without an adapter, as NumPy arrays."""
    run = jax.jit(lambda params, rows: backbone.encode(params, {}, rows, **options))
    return jax.device_get(run(backbone.params, inputs))


def assert_states_are_torchs(backbone: Backbone, model: Any, inputs: Inputs) -> None:
    """Every hidden state, the last one and the pooled one equal the torch model's within 1e-4."""
    ours = encode(backbone, inputs, intermediates=True)
    with torch.no_grad():
        theirs = model(**torch_inputs(inputs, model), output_hidden_states=True)
    assert len(ours.layers) == len(theirs.hidden_states)
    for mine, reference in zip(ours.layers, theirs.hidden_states, strict=True):
        assert_parity(backbone, mine, reference)
    assert_parity(backbone, ours.hidden, theirs.last_hidden_state)
    pooled = getattr(theirs, "pooler_output", None)
    assert (ours.pooled is None) == (pooled is None)
    if pooled is not None:
        assert_parity(backbone, ours.pooled, pooled)


@pytest.mark.parametrize("shape", ENCODER_SHAPES)
def test_hidden_states_equal_transformers(shape: str, tmp_path: Path) -> None:
    """Padding, token types, RoBERTa's position offset, shared layers; DistilBERT has no pooler."""
    model = torch_model(shape)
    backbone = load_backbone(saved(model, tmp_path))
    assert backbone.config.pooler == (shape != "distilbert")
    assert_states_are_torchs(backbone, model, some_inputs(backbone))


@pytest.mark.parametrize("shape", ["bert", "albert"])
def test_checkpoint_without_a_pooler(shape: str, tmp_path: Path) -> None:
    model = torch_model(shape, pooler=False)
    backbone = load_backbone(saved(model, tmp_path))
    assert not backbone.config.pooler
    assert_states_are_torchs(backbone, model, some_inputs(backbone))


@pytest.mark.parametrize("shape", ["bert", "distilbert", "albert-groups"])
def test_pooled_path_equals_the_full_one(shape: str) -> None:
    """The last layer at one position only is the last layer at that position."""
    backbone = random_backbone(SHAPES[shape])
    inputs = some_inputs(backbone)
    full, cut = encode(backbone, inputs), encode(backbone, inputs, pooled=True)
    assert cut.hidden.shape[1] == 1
    np.testing.assert_allclose(cut.first, full.first, atol=1e-6)
    if backbone.config.pooler:
        np.testing.assert_allclose(cut.pooled, full.pooled, atol=1e-6)


def test_longest_row_equals_transformers(tmp_path: Path) -> None:
    """The last position RoBERTa has; its table starts at pad_id + 1."""
    model = torch_model("roberta")
    backbone = load_backbone(saved(model, tmp_path))
    assert backbone.config.max_tokens == SHAPES["roberta"]["max_position_embeddings"] - 2
    assert_states_are_torchs(backbone, model, some_texts(backbone, tokens=backbone.config.max_tokens))


@needs_assets
def test_minilm_equals_transformers() -> None:
    model = transformers.AutoModel.from_pretrained(MINILM, dtype=torch.float32).eval()
    backbone = load_backbone(MINILM)
    assert_states_are_torchs(backbone, model, some_texts(backbone, rows=4, tokens=24))


def test_bfloat16_backbone_is_near() -> None:
    config = {**BERT, "num_hidden_layers": 2}
    exact, rough = random_backbone(config), random_backbone(config, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(rough.params)} == {np.dtype(ml_dtypes.bfloat16)}
    inputs = some_inputs(exact)
    np.testing.assert_allclose(encode(rough, inputs).hidden.astype(np.float32), encode(exact, inputs).hidden, atol=0.1)


# -- checkpoints that are the same backbone ------------------------------------------------------------------------------


def write(directory: Path, tensors: Tensors, config: dict[str, Any] = BERT) -> Path:
    """A checkpoint directory by hand."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def prefixed(tensors: Tensors) -> Tensors:
    return {f"bert.{key}": tensor for key, tensor in tensors.items()}


def legacy(tensors: Tensors) -> Tensors:
    def name(key: str) -> str:
        return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    return {name(key): tensor for key, tensor in tensors.items()}


HEADS: Tensors = {"cls.predictions.bias": np.ones(97, np.float32), "classifier.weight": np.ones((3, 32), np.float32)}
BUFFER: Tensors = {"embeddings.position_ids": np.arange(48)[None]}
VARIANTS: dict[str, Callable[[Tensors], Tensors]] = {
    "plain": dict,
    "prefix": prefixed,
    "legacy-names": legacy,
    "prefix-and-legacy-names": lambda tensors: prefixed(legacy(tensors)),
    "heads": lambda tensors: prefixed(tensors) | HEADS,
    "heads-without-prefix": lambda tensors: tensors | HEADS,
    "buffers": lambda tensors: tensors | BUFFER,
    "buffers-and-prefix": lambda tensors: prefixed(tensors | BUFFER),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_same_weights_same_backbone(variant: str, stored: Any, tmp_path: Path) -> None:
    """Prefix, legacy names, heads and buffers change neither a weight nor the fingerprint; nor does the dtype in memory."""
    rounded = {key: tensor.astype(stored) for key, tensor in random_tensors(BERT).items()}
    plain = load_backbone(write(tmp_path / "plain", {key: tensor.astype(np.float32) for key, tensor in rounded.items()}))
    path = write(tmp_path / "variant", VARIANTS[variant](rounded))
    backbone = load_backbone(path)
    assert backbone.fingerprint == plain.fingerprint == load_backbone(path, dtype="bfloat16").fingerprint
    jax.tree.map(np.testing.assert_array_equal, backbone.arrays(), plain.arrays())
    assert {array.dtype for array in backbone.arrays().values()} == {np.dtype(np.float32)}


def test_other_weights_other_fingerprint() -> None:
    assert random_backbone(BERT, seed=1).fingerprint != random_backbone(BERT, seed=2).fingerprint


@pytest.mark.parametrize(
    ("shape", "task"),
    [
        ("bert", "SequenceClassification"),
        ("roberta", "TokenClassification"),
        ("distilbert", "SequenceClassification"),
        ("albert-groups", "TokenClassification"),
    ],
)
def test_task_models_hold_the_backbone(shape: str, task: str, tmp_path: Path) -> None:
    """A fine-tuned task model loads as its encoder, in shards too."""
    model = torch_model(shape, task)
    whole = load_backbone(saved(model, tmp_path / "whole"))
    sharded = load_backbone(saved(model, tmp_path / "sharded", max_shard_size="40KB"))
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert sharded.fingerprint == whole.fingerprint
    assert_states_are_torchs(whole, model.base_model, some_inputs(whole))


# -- errors --------------------------------------------------------------------------------------------------------------


def without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: t for k, t in tensors.items() if k != key}


QUERY = "encoder.layer.1.attention.self.query.weight"
TENSOR_FAULTS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "missing": (without(QUERY), rf"missing {QUERY}"),
    "missing-with-prefix": (lambda t: prefixed(without(QUERY)(t)), rf"missing {QUERY}"),
    "misshapen": (lambda t: t | {QUERY: t[QUERY][:-1]}, rf"{QUERY} has shape \(31, 32\)"),
    "transposed": (
        lambda t: t | {"encoder.layer.0.output.dense.weight": t["encoder.layer.0.output.dense.weight"].T},
        r"encoder.layer.0.output.dense.weight has shape \(64, 32\)",
    ),
    "extra": (lambda t: t | {"encoder.layer.0.attention.gate": t[QUERY]}, "unexpected encoder.layer.0.attention.gate"),
    "a-layer-too-many": (lambda t: t | {QUERY.replace("1", "3"): t[QUERY]}, r"unexpected encoder.layer.3"),
    "integers": (lambda t: t | {QUERY: t[QUERY].astype(np.int8)}, rf"{QUERY} has dtype int8"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_wrong_tensor_is_named(fault: str, tmp_path: Path) -> None:
    change, message = TENSOR_FAULTS[fault]
    write(tmp_path, change(random_tensors(BERT)))
    with pytest.raises(GraftaxError, match=message):
        load_backbone(tmp_path)


CONFIG_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unsupported": (
        {"model_type": "convit"},
        "'convit' is not .*supported are albert, bart, .*bert, .*gpt2, gpt_neox, .*llama, .*vit, .*xlm-roberta",
    ),
    "no-type": ({"model_type": None}, "supported are albert"),
    "relative-positions": ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
    "decoder": ({"is_decoder": True}, "is_decoder=True"),
    "heads": ({"num_attention_heads": 5}, "hidden size 32 is not a multiple of 5"),
    "no-heads": ({"num_attention_heads": 0}, "num_attention_heads"),
    "activation": ({"hidden_act": "prelu"}, "hidden_act.*prelu"),
    "not-a-number": ({"hidden_size": "wide"}, "hidden_size"),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_wrong_config_is_named(fault: str, tmp_path: Path) -> None:
    change, message = CONFIG_FAULTS[fault]
    write(tmp_path, random_tensors(BERT), BERT | change)
    with pytest.raises(GraftaxError, match=message):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("vocab_size", r"word_embeddings.weight has shape \(97, 32\), config.json implies \(30522, 32\)"),
        ("hidden_size", r"has shape \(97, 32\), config.json implies \(97, 768\)"),
        ("num_hidden_layers", r"missing encoder.layer.10"),
    ],
)
def test_a_missing_size_is_transformers_default(key: str, message: str, tmp_path: Path) -> None:
    """Which these weights do not have."""
    write(tmp_path, random_tensors(BERT), {k: v for k, v in BERT.items() if k != key})
    with pytest.raises(GraftaxError, match=message):
        load_backbone(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"model_type": ["bert"]}', "\x00\xff"])
def test_broken_config_is_one_error(content: str, tmp_path: Path) -> None:
    write(tmp_path, random_tensors(BERT))
    (tmp_path / "config.json").write_text(content, "latin-1")
    with pytest.raises(GraftaxError):
        load_backbone(tmp_path)


def test_wrong_directory_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path, message in ((tmp_path / "none", "no such directory"), (file, "a directory is wanted"), (tmp_path, "config.json")):
        with pytest.raises(GraftaxError, match=message):
            load_backbone(path)
    write(tmp_path / "empty", {})
    (tmp_path / "empty" / "model.safetensors").unlink()
    with pytest.raises(GraftaxError, match="no such file"):
        load_backbone(tmp_path / "empty")
    with pytest.raises(GraftaxError, match="float16"):
        load_backbone(tmp_path / "empty", dtype="float16")


def test_pickle_is_never_read(tmp_path: Path) -> None:
    """A checkpoint that has only a pickle is refused with the line that converts it."""
    write(tmp_path, random_tensors(BERT))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(GraftaxError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_holds_little_more_than_the_weights(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its peak at most 1.3 times what stays (on a CPU, where XLA's arrays are NumPy's)."""
    monkeypatch.setattr(fingerprint, "_NUMBERS", 1 << 12)
    config = {**BERT, "vocab_size": 4000, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6}
    write(tmp_path, random_tensors(config), config)
    tracemalloc.start()
    try:
        backbone = load_backbone(tmp_path, dtype=dtype)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(backbone.params))
    assert weights < peak < 1.3 * weights


@pytest.mark.parametrize(
    "index", ['{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": {}}', "{}", '{"weight_map": 3}', "["]
)
def test_broken_shard_index_is_one_error(index: str, tmp_path: Path) -> None:
    """Also one that names a file outside the directory."""
    write(tmp_path, random_tensors(BERT))
    write(tmp_path / "inner", random_tensors(BERT))
    (tmp_path / "inner" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(GraftaxError):
        load_backbone(tmp_path / "inner")


def damaged(data: bytes, seed: int) -> bytes:
    """A truncation, or a few bytes of the header changed."""
    random = np.random.default_rng(seed)
    header = 8 + int.from_bytes(data[:8], "little")
    if seed % 4 == 0:
        return data[: int(random.integers(0, len(data)))]
    flipped = bytearray(data)
    for index in random.integers(0, header if seed % 4 == 1 else min(header, 300), int(random.integers(1, 4))):
        flipped[index] = int(random.integers(0, 256)) if seed % 2 else int(random.choice(list(b'0123456789FIUB[]{}",:')))
    return bytes(flipped)


def test_damaged_file_is_one_error(tmp_path: Path) -> None:
    """A fuzzed safetensors file is refused with a GraftaxError, or loads; nothing else ever comes out."""
    config = {**BERT, "num_hidden_layers": 1}
    write(tmp_path, random_tensors(config), config)
    data, loaded = (tmp_path / "model.safetensors").read_bytes(), 0
    for seed in range(200):
        (tmp_path / "model.safetensors").write_bytes(damaged(data, seed))
        with contextlib.suppress(GraftaxError):
            load_backbone(tmp_path)
            loaded += 1
    assert loaded < 20


# -- the Hub's cache -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_hub_id_is_read_from_the_cache(hub_cache: Path) -> None:
    """By branch and by commit, without a network."""
    commit, repository = "0123456789abcdef0123456789abcdef01234567", hub_cache / "models--someone--tiny"
    write(repository / "snapshots" / commit, random_tensors(BERT))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    by_branch, by_commit = load_backbone("someone/tiny"), load_backbone("someone/tiny", revision=commit)
    assert by_branch.fingerprint == by_commit.fingerprint == random_backbone(BERT).fingerprint
    assert by_branch.name == "someone/tiny"
    with pytest.raises(GraftaxError, match="someone/tiny"):
        load_backbone("someone/tiny", revision="v2")


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("name", ["someone/absent", "absent", "not a name!", "a//b"])
def test_hub_id_that_is_not_cached_is_one_error(name: str) -> None:
    with pytest.raises(GraftaxError, match="directory") as caught:
        load_backbone(name)
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
