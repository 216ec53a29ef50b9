"""The projection to the vocabulary where it is the words' table: a site of its own, for adapters whose targets name it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import randomised
from conftest import CONFIGS, ENCODER_DECODERS, some_inputs

from graftax import Adapter, DoRA, Full, Generator, GraftaxError, LoRA, Method, Sampling, TrainableTokens, merge
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone


@functools.cache
def speaker(family: str = "llama") -> Backbone:
    return random_backbone({**(CONFIGS | ENCODER_DECODERS)[family], "tie_word_embeddings": True}, seed=7)


def adapter_of(backbone: Backbone, method: Method, seed: int = 0) -> Adapter:
    task = "seq2seq" if backbone.family.encodes else "lm"
    return randomised(Adapter.create((method,), backbone.sites, task=task, fingerprint=backbone.fingerprint), seed=seed)


def state_of(backbone: Backbone, adapter: Adapter) -> Any:
    return Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_what_is_said_and_not_what_is_read(family: str) -> None:
    """The states stay, to the bit; the logits are those of the table with the change, at the projection alone."""
    backbone, inputs = speaker(family), some_inputs(speaker(family))
    adapter = adapter_of(backbone, LoRA(r=3, alpha=7.0, targets=("lm_head",)))
    ((site, (own, fixed)),) = adapter.states["lora"].items()
    assert (site.name, site.tied, site.shape) == ("lm_head", True, (32, 97))
    state = state_of(backbone, adapter)
    hidden, base = (backbone.encode(backbone.params, s, inputs).hidden for s in (state, {}))
    np.testing.assert_array_equal(hidden, base)
    kernel = site.weights().kernel
    change = fixed["scale"] * own["a"].T @ own["b"]
    said, before = (np.asarray(backbone.next_token(backbone.params, s, hidden)) for s in (state, {}))
    np.testing.assert_allclose(said - before, np.asarray(hidden) @ change, atol=1e-5)
    names = {s.name for s in backbone.sites if s.role == "word_embeddings"}
    tables = [s.weights().table for s in backbone.sites if s.name in names]
    for table in tables:
        np.testing.assert_array_equal(kernel, table.T)


def test_only_where_targets_name_it() -> None:
    """The weights are there once, and methods that act everywhere count them once."""
    sites = speaker().sites
    assert not any(site.tied for method in (Full(), LoRA()) for site in method.select(sites))
    rows = TrainableTokens(ids=(5,), targets=("embed_tokens", "lm_head"))  # whose rows are said, too
    assert [site.name for site in rows.select(sites)] == ["word_embeddings"]


@pytest.mark.parametrize("method", [LoRA(r=2, targets=("lm_head",)), Full(targets=("lm_head", "embed_tokens"))])
def test_the_likelihood_of_what_is_said(method: Method) -> None:
    """It, and its gradient by what acts at the projection, are those of the logits of all tokens at once."""
    backbone, inputs = speaker(), some_inputs(speaker())
    state, targets = state_of(backbone, adapter_of(backbone, method)), jnp.where(inputs.mask, 79, 9)

    def kept(state: Any) -> jax.Array:
        return backbone.likelihood(backbone.params, state, inputs, targets)[0].mean()

    def plain(state: Any) -> jax.Array:
        logits = backbone.next_token(backbone.params, state, backbone.encode(backbone.params, state, inputs).hidden)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1).mean()

    one, other = (jax.value_and_grad(f)(state) for f in (kept, plain))
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one[1], other[1])
    (leaves,) = one[1]["lm_head"].values()
    assert all(np.abs(leaves[name]).max() > 0.0 for name in {"a", "b", "kernel"} & leaves.keys())


def test_generated_in_a_mixed_batch(teller: Backbone) -> None:
    """Each row says what it says alone, also under a method that a bank prepares from the weights."""
    assert teller.config.tied
    methods = {"a": LoRA(r=2, alpha=9.0, targets=("lm_head",)), "b": DoRA(r=2, targets=("lm_head", "q_proj"))}
    prompts, names = ["apple", "pear", "plum"], ["a", None, "b"]

    def said(prompts: list[str], names: list[Any]) -> list[Any]:
        generator = Generator(teller)
        for seed, (name, method) in enumerate(methods.items()):
            generator.load(name, adapter_of(teller, method, seed))
        return [c.tokens for c in generator.generate(prompts, names, Sampling(max_new_tokens=5))]

    assert said(prompts, names) == [said([prompt], [name])[0] for prompt, name in zip(prompts, names, strict=True)]


def test_it_is_not_merged() -> None:
    with pytest.raises(GraftaxError, match=r"lora at lm_head cannot be merged: the same table is used elsewhere"):
        merge(speaker(), adapter_of(speaker(), LoRA(r=2, targets=("lm_head",))))
