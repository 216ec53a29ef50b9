"""Attention by the kernels of accelerators, computed without one: Splash step by step, and the way to cuDNN's by plain XLA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_adapter
from configs import WHOLE
from conftest import CONFIGS

from graftax import LoRA, Method, Prefix
from graftax.adapters.adapter import Layout
from graftax.models import fused_attention
from graftax.models.fused_attention import SameText, cudnn, splash
from graftax.models.inputs import TextInputs, Texts
from graftax.models.ops import attention
from graftax.models.random import random_backbone
from graftax.notes import GraftaxNote
from graftax.platforms import compiling_for, platform

TEXTS = np.array([[0, 0, 1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], np.int32)  # two rows, padding on either side

ONES = np.ones((2, 10), np.int32)


def heads(count: int, tokens: int, seed: int, slots: tuple[int, ...] = ()) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*slots, 2, count, tokens, 8)), jnp.float32)


def mask_of(same_text: SameText) -> jax.Array:
    """What it says, as a mask `[rows, queries, keys]`."""
    of_queries, of_keys = np.asarray(same_text.queries), np.asarray(same_text.keys)
    seen = of_queries[:, :, None] == of_keys[:, None, :]
    behind = np.arange(of_queries.shape[1])[:, None] + of_keys.shape[1] - of_queries.shape[1] - np.arange(of_keys.shape[1])
    if same_text.causal:
        seen &= behind >= 0
    if same_text.window:
        seen &= behind < same_text.window
    return jnp.asarray(seen)


CASES: dict[str, SameText] = {
    "texts behind one another": SameText(TEXTS, TEXTS),
    "causal": SameText(TEXTS, TEXTS, causal=True),
    "causal, a window": SameText(TEXTS, TEXTS, causal=True, window=3),
    "keys in front": SameText(ONES, np.concatenate([np.array([[1, 1, 1], [0, 1, 1]], np.int32), ONES], axis=1), causal=True),
}


def value_and_slopes(attend: Any, arrays: Any, weight: jax.Array) -> Any:
    """Of one number made of what `attend` makes, so that all of its derivatives count; real queries alone do."""
    return jax.value_and_grad(lambda arrays: (weight * attend(*arrays)).sum())(arrays)


def assert_alike(found: Any, wanted: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), found, wanted)


@pytest.mark.parametrize("case", CASES)
def test_splash_is_attention(case: str) -> None:
    same_text, cap = CASES[case], 0.5 if case == "causal" else None
    keys = same_text.keys.shape[1]
    arrays = heads(4, 10, 1), heads(2, keys, 2), heads(2, keys, 3)
    real = np.asarray(same_text.queries > 0)[:, None, :, None]
    weight = jnp.where(real, heads(4, 10, 4), 0.0)

    def plain(q: Any, k: Any, v: Any) -> Any:
        mixed = attention(q, k, v, mask_of(same_text), scale=0.3, cap=cap)
        return mixed.reshape(2, 10, 4, 8).swapaxes(1, 2)

    def by_splash(q: Any, k: Any, v: Any) -> Any:
        return splash(0.3 * q, k, v, same_text, cap, interpret=True)

    assert_alike(value_and_slopes(by_splash, arrays, weight), value_and_slopes(plain, arrays, weight))


@pytest.mark.parametrize("case", CASES)
def test_the_way_to_cudnn_is_attention(case: str) -> None:
    """With odd numbers of queries and keys, too, and one mask for all queries."""
    same_text = CASES[case]
    queries, keys = 9, same_text.keys.shape[1] - 1
    mask = mask_of(same_text)[:, :queries, :keys]
    if case == "keys in front":
        mask = mask[:, :1]
    arrays, weight = (heads(4, queries, 1), heads(2, keys, 2), heads(2, keys, 3)), heads(4, queries, 4)
    weight = jnp.where(np.asarray(mask).any(-1)[:, None, :, None], weight, 0.0)

    def plain(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, mask, scale=0.3).reshape(2, queries, 4, 8).swapaxes(1, 2)

    def through(q: Any, k: Any, v: Any) -> Any:
        return cudnn(q, k, v, mask, 0.3, same_text.causal and queries == keys, by="xla")

    assert_alike(value_and_slopes(through, arrays, weight), value_and_slopes(plain, arrays, weight))


def test_slots_are_further_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `vmap` the kernel is called once, for the rows of all slots; what the slots share is shared out."""
    called, wanted_kernel = [], jax.nn.dot_product_attention

    def counted(query: jax.Array, *args: Any, **options: Any) -> Any:
        called.append(query.shape)
        return wanted_kernel(query, *args, **options)

    mask = mask_of(CASES["causal"])
    arrays, weight = (heads(4, 10, 1, (3,)), heads(2, 10, 2), heads(2, 10, 3, (3,))), heads(4, 10, 4, (3,))

    def one(query: Any, value: Any, weight: Any) -> Any:
        return value_and_slopes(partial(cudnn, mask=mask, scale=0.3, causal=True, by="xla"), (query, arrays[1], value), weight)

    wanted = [one(arrays[0][slot], arrays[2][slot], weight[slot]) for slot in range(3)]
    fused_attention._by_jax.cache_clear()
    monkeypatch.setattr(jax.nn, "dot_product_attention", counted)
    found = jax.vmap(one)(arrays[0], arrays[2], weight)
    assert_alike(found, jax.tree.map(lambda *each: jnp.stack(each), *wanted))
    assert (6, 10, 4, 8) in called
    assert all(len(shape) == 4 for shape in called)


REFUSED = {
    "float32": (("cuda", jnp.float32), {}, "float32"),
    "added": (("tpu", jnp.bfloat16), {"added": jnp.zeros((1, 4, 10, 10), jnp.bfloat16)}, "something is added"),
    "capped": (("cuda", jnp.bfloat16), {"cap": 2.0}, "capped"),
    "a mask alone": (("tpu", jnp.bfloat16), {}, "by a mask alone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_kernel_computes_is_said_once_and_computed(case: str) -> None:
    (where, dtype), more, said = REFUSED[case]
    q, k, v = (heads(4, 10, seed).astype(dtype) for seed in (1, 2, 3))
    mask = mask_of(CASES["causal"])
    fused_attention._not_fused.cache_clear()
    with compiling_for(where), pytest.warns(GraftaxNote, match=said):
        found = attention(q, k, v, mask, **more)
    with compiling_for(where), warnings.catch_warnings():
        warnings.simplefilter("error")
        attention(q, k, v, mask, **more)
        attention(
            q[:, :, :1], k, v, mask[:, :1], **{**more, "added": None} if "added" in more else more
        )  # one query needs none
    np.testing.assert_array_equal(found, attention(q, k, v, mask, **more))
    assert platform() == "cpu"
    assert math.isfinite(float(jnp.sum(found.astype(jnp.float32))))


def texts_of(together: bool) -> TextInputs:
    """Random texts: two in a batch row each, the shorter padded on the left, or three in one."""
    random = np.random.default_rng(0)
    alone, in_one = [[1] * 9, [0] * 4 + [1] * 5], [[0] + [1] * 6 + [2] * 5 + [3] * 2 + [0] * 2]
    segments = np.array(in_one if together else alone, np.int32)
    ids = np.where(segments > 0, random.integers(8, 97, segments.shape), 0).astype(np.int32)
    texts = Texts(segments, np.array([1, 7, 12], np.int32)) if together else None
    return TextInputs(ids, segments > 0, np.zeros_like(ids), texts)


def hidden_states(family: str, method: Method, inputs: TextInputs) -> Callable[[], np.ndarray]:
    """What computes them, anew in each call, with an adapter on a backbone of one or two layers."""
    backbone = random_backbone({**(CONFIGS.get(family) or WHOLE[family]), **LAYERS.get(family, {"num_hidden_layers": 1})})
    adapter = random_adapter(backbone, (method,))
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state

    def made() -> np.ndarray:
        run = jax.jit(lambda *args: backbone.encode(args[0], args[1], inputs, layers=args[2]).hidden)
        return np.asarray(run(backbone.params, state, backbone.layers))

    return made


LAYERS = {"gemma2": {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}}
BACKBONES: dict[str, tuple[str, bool, Method]] = {
    "texts alone": ("bert", False, LoRA(r=2)),
    "texts in one row": ("bert", True, LoRA(r=2)),
    "causal, a prefix": ("llama", False, Prefix(tokens=3)),
    "windows in some layers, caps": ("gemma2", True, LoRA(r=2)),
    "windows": ("mistral", False, LoRA(r=2)),
}


@pytest.mark.parametrize("case", BACKBONES)
def test_a_backbone_says_what_its_tokens_see(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hidden states of real tokens are on a TPU those of a CPU."""
    family, together, method = BACKBONES[case]
    inputs = texts_of(together)
    hidden = hidden_states(family, method, inputs)
    on_cpu = hidden()
    monkeypatch.setattr(fused_attention, "splash", partial(splash, interpret=True))
    with compiling_for("tpu"), warnings.catch_warnings():
        warnings.simplefilter("error", GraftaxNote)
        found = hidden()
    np.testing.assert_allclose(found[inputs.mask], on_cpu[inputs.mask], atol=2e-5)
    assert np.abs(on_cpu).max() > 0.5


def test_a_prefix_is_seen_from_beyond_a_window() -> None:
    """Which no kernel computes: it is said, and the same as on a CPU."""
    hidden = hidden_states("mistral", Prefix(tokens=3), texts_of(together=False))
    fused_attention._not_fused.cache_clear()
    on_cpu = hidden()
    with compiling_for("tpu"), pytest.warns(GraftaxNote, match="beyond its window"):
        found = hidden()
    np.testing.assert_allclose(found, on_cpu, atol=1e-5)
