"""Backbones with kernels of 8 or 4 bits: the same sites, files and results as the floats they stand for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import CONFIGS, some_inputs, some_texts

from graftax import Generator, GraftaxError, LoRA, Recipe, Sampling, load_adapter, load_backbone, train_many
from graftax.adapters.adapter import Adapter, Layout
from graftax.adapters.merging import merged_arrays
from graftax.models.backbone import Backbone
from graftax.models.quantised import QTYPES, dense, product, quantiser
from graftax.models.random import random_backbone
from graftax.models.stack import REMAT
from graftax.serve import evaluate_language

LLAMA = {**CONFIGS["llama"], "hidden_size": 64, "intermediate_size": 128}
#: How far a normal kernel may be from what it is held as, relative to its length.
ERROR = {"int8": 0.01, "nf4": 0.1}


def unrounded(backbone: Backbone) -> Backbone:
    """The float backbone with the kernels that this one stands for."""
    known = {name: getattr(backbone, name) for name in ("fingerprint", "name", "hf_config", "directory")}
    return Backbone.build(backbone.family, backbone.config, backbone.arrays(), **known)


def a_state(backbone: Backbone) -> Any:
    lora = LoRA(r=3, alpha=7.0, targets=r".*(q_proj|query|q_lin|down_proj|ffn|lin2)")
    adapter = Adapter.create((lora, backbone.head(4)), backbone.sites)
    random = np.random.default_rng(0)
    for states in adapter.states.values():
        for own, _ in states.values():
            for name in own:
                own[name] = random.normal(0.0, 0.1, own[name].shape).astype(np.float32)
    return Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state


@pytest.mark.parametrize("qtype", QTYPES)
def test_a_kernel_is_near(qtype: str) -> None:
    """Also where 64 inputs do not go into them; and they take the bits they say."""
    kernel = np.random.default_rng(0).standard_normal((96, 40)).astype(np.float32)
    held = quantiser(qtype, np.float32)(kernel)
    error = np.linalg.norm(dense(held) - kernel) / np.linalg.norm(kernel)
    assert ERROR[qtype] / 10 < error < ERROR[qtype]
    size = jax.jit(dense).lower(held).compile().memory_analysis().argument_size_in_bytes
    assert size < kernel.nbytes / (3.5 if qtype == "int8" else 6)


@pytest.mark.parametrize("qtype", QTYPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_that_of_the_floats(qtype: str, dtype: str) -> None:
    """And a kernel's floats are to the bit those that qwix makes of it."""
    import qwix

    random = np.random.default_rng(1)
    x, held = random.standard_normal((5, 128)).astype(dtype), quantiser(qtype, dtype)(random.standard_normal((128, 24)))
    with jax.numpy_dtype_promotion("standard"):
        floats = qwix.dequantize(held)
    np.testing.assert_array_equal(dense(held), floats)
    found = np.asarray(product(x, held), np.float64)
    assert product(x, held).dtype == dtype
    exact = np.asarray(x, np.float64) @ np.asarray(floats, np.float64)
    np.testing.assert_allclose(found, exact, atol=2e-5 if dtype == "float32" else 0.2)


def test_sums_of_whole_numbers_do_not_overflow_half_floats() -> None:
    """Of 8 bits the scale comes behind the sum, which is then of numbers up to 127."""
    kernel = np.full((1024, 8), 0.1, np.float32)
    found = product(np.ones((2, 1024), np.float16), quantiser("int8", np.float16)(kernel))
    np.testing.assert_allclose(np.asarray(found, np.float32), 102.4, rtol=ERROR["int8"])


PAIRS = [pytest.param(f, q, marks=() if (f, q) == ("llama", "nf4") else pytest.mark.slow) for f in CONFIGS for q in QTYPES]


@pytest.mark.parametrize(("family", "qtype"), PAIRS)
def test_forward_and_gradient_are_those_of_the_floats(family: str, qtype: str) -> None:
    config = LLAMA if family == "llama" else CONFIGS[family]
    held = random_backbone(config, quantize=qtype)
    plain, inputs, state = unrounded(held), some_inputs(held), a_state(held)
    assert held.fingerprint == random_backbone(config).fingerprint

    def results(backbone: Backbone, layers: Any) -> Any:
        def loss(state: Any, params: Any, layers: Any) -> jax.Array:
            logits = backbone.forward(params, state, inputs, layers=layers).pooled
            assert logits is not None
            return (logits**2).sum()

        return jax.jit(jax.value_and_grad(loss))(state, backbone.params, layers)

    found, wanted = results(held, held.unrolled), results(plain, plain.unrolled)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), found, wanted)


@pytest.mark.slow
def test_recomputing_changes_no_gradient_and_keeps_less() -> None:
    config = {**CONFIGS["bert"], "num_hidden_layers": 8}

    def run(how: str) -> tuple[Any, int]:
        backbone = random_backbone(config, remat=how)
        inputs, state = some_texts(backbone, rows=16, tokens=32), a_state(backbone)

        def loss(state: Any, params: Any, layers: Any) -> jax.Array:
            logits = backbone.forward(params, state, inputs, layers=layers).pooled
            assert logits is not None
            return (logits**2).sum()

        compiled = jax.jit(jax.value_and_grad(loss)).lower(state, backbone.params, backbone.unrolled).compile()
        return compiled(state, backbone.params, backbone.unrolled), compiled.memory_analysis().temp_size_in_bytes

    (wanted, most), *others = (run(how) for how in REMAT)
    for found, _ in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), found, wanted)
    (_, products), (_, layers) = others
    assert layers < 0.7 * products < 0.6 * most


@pytest.mark.slow
@pytest.mark.parametrize("qtype", QTYPES)
def test_trains_generates_and_its_files_are_the_floats_own(qtype: str, teller_dir: Path, tmp_path: Path) -> None:
    held = load_backbone(teller_dir, quantize=qtype)
    plain = unrounded(held)
    data = [{"text": text} for text in ("the boat is on the sea", "a boat, a sea, a sail")] * 4
    recipe = Recipe(epochs=6, lr=2e-2, batch_size=4, max_length=32)
    settings: dict[str, Any] = {"task": "lm", "recipe": recipe, "progress": False}
    result = train_many(held, {"sea": data}, tmp_path, val={"sea": data}, **settings)["sea"]
    perplexity = result.metrics["val_perplexity"]
    assert perplexity < 150  # of 259 tokens
    assert perplexity == pytest.approx(evaluate_language(plain, tmp_path / "sea", data)["perplexity"], rel=1e-3)
    said = []
    for backbone in (held, plain):
        generator = Generator(backbone)
        generator.load("sea", tmp_path / "sea")
        said.append([one.tokens for one in generator.generate(["the boat", "a"], "sea", Sampling(max_new_tokens=8))])
    assert said[0] == said[1]
    assert len({*said[0][0]}) > 2
    load_adapter(tmp_path / "sea", load_backbone(teller_dir))  # of the same fingerprint


def test_merging_into_rounded_weights_is_refused() -> None:
    backbone = random_backbone(CONFIGS["bert"], quantize="int8")
    with pytest.raises(GraftaxError, match="held as int8, rounded: load it without quantize"):
        merged_arrays(backbone, Adapter.create((LoRA(),), backbone.sites))


def test_wrong_settings_are_one_line(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraftaxError, match="quantize 'int4' is not supported; use int8 or nf4"):
        load_backbone(tiny_dir, quantize="int4")
    with pytest.raises(GraftaxError, match="remat 'all' is not supported; use none, products, layers"):
        load_backbone(tiny_dir, remat="all")
    monkeypatch.setitem(sys.modules, "qwix", None)
    quantiser.cache_clear()
    with pytest.raises(GraftaxError, match=r"pip install 'graftax\[quantize\]'"):
        load_backbone(tiny_dir, quantize="nf4")
