"""Trained rows of the words' table: what is said with them, generated with them, merged, and refused."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import randomised
from conftest import CONFIGS, some_inputs

from graftax import Adapter, Generator, GraftaxError, LoRA, Recipe, Sampling, TrainableTokens, load_adapter, merge, train_many
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone

IDS = (79, 9)


@functools.cache
def speaker(tied: bool) -> Backbone:
    return random_backbone({**CONFIGS["llama"], "tie_word_embeddings": tied}, seed=7)


def adapter_of(backbone: Backbone, method: TrainableTokens, seed: int = 0) -> Adapter:
    made = Adapter.create((method,), backbone.sites, task="lm", fingerprint=backbone.fingerprint)
    return randomised(made, seed=seed)


def state_of(backbone: Backbone, adapter: Adapter | None, room: Adapter | None = None) -> Any:
    return Layout.of([a for a in (adapter, room) if a], backbone.sites).stack(adapter, backbone.sites).state


def said(backbone: Backbone, state: Any, slots: Any = None) -> np.ndarray:
    hidden = backbone.encode(backbone.params, state, some_inputs(backbone), slots).hidden
    return np.asarray(backbone.next_token(backbone.params, state, hidden, slots))


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_a_table_with_other_rows(tied: bool) -> None:
    """Where the table is tied the rows are said too; merging gives the same, and a fresh adapter nothing, to the bit."""
    backbone = speaker(tied)
    adapter = adapter_of(backbone, TrainableTokens(ids=IDS))
    ours, base = said(backbone, state_of(backbone, adapter)), said(backbone, state_of(backbone, None, adapter))
    whole, rest = merge(backbone, adapter)
    assert rest.methods == ()
    np.testing.assert_allclose(ours, said(whole, {}), atol=1e-5)
    (rows,) = (own["rows"] for own, _ in adapter.states["trainable_tokens"].values())
    np.testing.assert_array_equal(whole.arrays()["word_embeddings.table"][list(IDS)], rows)
    others = np.delete(np.arange(97), IDS)
    row = 0  # whose text has neither token
    np.testing.assert_array_equal(ours[row, :3, others], base[row, :3, others])
    assert (np.abs(ours - base)[row, :3, list(IDS)].min() > 1e-3) == tied
    fresh = Adapter.create((TrainableTokens(ids=IDS),), backbone.sites, task="lm")
    np.testing.assert_array_equal(said(backbone, state_of(backbone, fresh)), base)


def test_a_projection_of_its_own_is_another_target() -> None:
    backbone = speaker(False)
    adapter = adapter_of(backbone, TrainableTokens(ids=IDS, targets=("lm_head",)))
    assert {site.path for site in adapter.states["trainable_tokens"]} == {"lm_head"}
    change = said(backbone, state_of(backbone, adapter)) - said(backbone, {})
    assert set(np.flatnonzero(np.abs(change).max(axis=(0, 1)) > 1e-3)) == set(IDS)
    np.testing.assert_allclose(said(merge(backbone, adapter)[0], {}), said(backbone, state_of(backbone, adapter)), atol=1e-5)


def test_the_likelihood_of_what_is_said() -> None:
    """It, and its gradient by the rows, are those of the logits of all tokens at once."""
    backbone = speaker(True)
    adapter, inputs = adapter_of(backbone, TrainableTokens(ids=IDS)), some_inputs(backbone)
    state, targets = state_of(backbone, adapter), jnp.where(some_inputs(backbone).mask, 79, 9)

    def kept(state: Any) -> jax.Array:
        return backbone.likelihood(backbone.params, state, inputs, targets)[0].mean()

    def plain(state: Any) -> jax.Array:
        logits = backbone.next_token(backbone.params, state, backbone.encode(backbone.params, state, inputs).hidden)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1).mean()

    one, other = (jax.value_and_grad(f, allow_int=True)(state) for f in (kept, plain))
    rows = [np.asarray(g["word_embeddings"]["trainable_tokens"]["rows"]) for _, g in (one, other)]
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)
    np.testing.assert_allclose(*rows, atol=1e-5)
    assert np.abs(rows[0]).min() > 0.0


def test_generated_in_a_mixed_batch(teller: Backbone) -> None:
    """Each row says what it says alone, with rows of its own or none."""
    adapters = {f"a{i}": adapter_of(teller, TrainableTokens(ids=ids), i) for i, ids in enumerate([(80, 81), (82,)])}
    generator = Generator(teller)
    for name, adapter in adapters.items():
        generator.load(name, adapter)
    prompts, names = ["apple", "pear", "plum"], ["a0", None, "a1"]
    mixed = [c.tokens for c in generator.generate(prompts, names, Sampling(max_new_tokens=5))]
    for prompt, name, tokens in zip(prompts, names, mixed, strict=True):
        whole = merge(teller, adapters[name])[0] if name else teller
        (alone,) = Generator(whole).generate([prompt], sampling=Sampling(max_new_tokens=5))
        assert tokens == alone.tokens


def test_both_towers_have_rows(towers: Backbone) -> None:
    """Of an encoder-decoder: two sets, of which the decoder's are said; the one table cannot hold both, so none is merged."""
    adapter = adapter_of(towers, TrainableTokens(ids=IDS))
    assert {site.name for site in adapter.states["trainable_tokens"]} == {
        "encoder.word_embeddings",
        "decoder.word_embeddings",
    }
    with pytest.raises(GraftaxError, match="cannot be merged: the same table"):
        merge(towers, adapter)


@pytest.fixture(scope="module")
def towers() -> Backbone:
    config = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "vocab_size": 97}
    config |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40}
    return random_backbone({"model_type": "bart", **config, "eos_token_id": 2, "pad_token_id": 1}, seed=7)


def test_a_reserved_token_is_learnt(teller: Backbone, tmp_path: Any) -> None:
    """Training moves the rows that were named, beside a LoRA, and stores nothing else of the table."""
    texts = [{"text": "apple " * n} for n in (2, 3, 4, 5)]
    methods = (LoRA(r=2), TrainableTokens(ids=(100, 270)))
    result = train_many(
        teller, {"a": texts}, tmp_path / "out", method=methods, task="lm", recipe=Recipe(epochs=1, lr=1e-2, max_length=32)
    )["a"]
    adapter = load_adapter(result.directory, teller)
    ((site, (own, _)),) = adapter.states["trainable_tokens"].items()
    assert own["rows"].shape == (2, 32)
    moved = np.abs(own["rows"] - site.weights().table[[100, 270]]).max(axis=1)
    assert (moved > 1e-4).all()  # the projection is tied, so what is never said is unlearnt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no tokens. Give their ids"),
        ({"ids": (97,)}, r"embed_tokens has 97 rows and none for id 97\. .*reserve, or resize"),
        ({"ids": (5,), "targets": ("q_proj",)}, "matches no site"),
    ],
)
def test_refused_for_a_backbone(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        Adapter.create((TrainableTokens(**options),), speaker(True).sites)


@pytest.mark.parametrize("ids", [(5, -1), (5, 5), "5", (1.0,), (True,)])
def test_refused_at_once(ids: Any) -> None:
    with pytest.raises(GraftaxError, match=r"ids must be a list, .* a whole number|named twice"):
        TrainableTokens(ids=ids)
