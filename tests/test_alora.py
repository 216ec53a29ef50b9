"""aLoRA: where it is called, that the base is untouched before that, and that it is PEFT's when texts are continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers
from cases import compiled, logits, randomised
from conftest import GetBackbone, some_inputs
from test_encoder_decoders import SHAPES

from graftax import (
    Adapter,
    ALoRA,
    Average,
    Generator,
    GraftaxError,
    LoRA,
    Recipe,
    Sampling,
    Stack,
    load_adapter,
    save_adapter,
    train_many,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.methods.alora import called
from graftax.adapters.structure import Cut
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs, text_positions
from graftax.models.random import random_backbone
from graftax.models.tokens import Tokenizer
from graftax.serve.bank import Bank
from graftax.serve.composition import laid, plan_of

PLACES = ("q_proj", "v_proj", "down_proj")


def language(backbone: Backbone, method: ALoRA | LoRA, seed: int = 1) -> Adapter:
    """A random adapter of a language model."""
    return randomised(Adapter.create((method,), backbone.sites, task="lm", fingerprint=backbone.fingerprint), seed)


def classifier(backbone: Backbone, method: ALoRA | LoRA, seed: int = 1) -> Adapter:
    """The same under a head that all of them have."""
    head = backbone.head(3)
    made = randomised(Adapter.create((method, head), backbone.sites_for(head), labels=("a", "b", "c")), seed)
    return Adapter(made.methods, made.states | {head.key: randomised(made, 99).states[head.key]}, labels=made.labels)


@pytest.mark.parametrize("invocation", [(1,), (1, 2), (2, 2), (1, 2, 1)], ids=str)
def test_where_it_is_called(invocation: tuple[int, ...]) -> None:
    """From the last occurrence on, searched text by text as one would by hand; ids of zero and filling are no matches."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 3, (40, 12)).astype(np.int32)
    segments = np.sort(random.integers(0, 4, (40, 12)), axis=1).astype(np.int32)  # what lies in front of the texts is in none
    ids[segments == 0] = np.where(random.random((segments == 0).sum()) < 0.5, -1, 1)
    expected = np.zeros(ids.shape, bool)
    for row in range(len(ids)):
        for text in (1, 2, 3):
            (own,) = np.nonzero(segments[row] == text)
            begins = [
                i for i in own if tuple(ids[row, i : i + len(invocation)]) == invocation and i + len(invocation) - 1 in own
            ]
            expected[row, own] = own >= begins[-1] if begins else False
    leaf = np.asarray(invocation, np.int32) + np.int32(1)
    for filled in (leaf, np.pad(leaf, (0, 5))):
        np.testing.assert_array_equal(
            called(jnp.asarray(filled), jnp.asarray(ids), text_positions(jnp.asarray(segments))), expected
        )
    assert expected.any()
    assert not expected.all(axis=1).all()
    assert not called(jnp.zeros(4, jnp.int32), jnp.asarray(ids), text_positions(jnp.asarray(segments))).any()


def test_before_it_is_called_the_base_is_untouched(backbone_of: GetBackbone) -> None:
    """Every layer's output there, and of a text without the invocation altogether; from there on it is a LoRA's."""
    backbone, inputs = backbone_of("llama"), some_inputs(backbone_of("llama"))
    adapter = language(backbone, ALoRA(r=3, alpha=7.0, invocation=(52, 29)))
    layout = Layout.of([adapter], backbone.sites)

    @jax.jit
    def run(params: Any, state: Any, inputs: Inputs) -> jax.Array:
        return backbone.encode(params, state, inputs, intermediates=True).layers

    mine, base = (run(backbone.params, layout.stack(a, backbone.sites).state, inputs) for a in (adapter, None))
    np.testing.assert_array_equal(mine[:, 0, :2], base[:, 0, :2])
    np.testing.assert_array_equal(mine[:, 1:], base[:, 1:])
    assert np.abs(mine[1:, 0, 2:] - base[1:, 0, 2:]).max(axis=-1).min() > 1e-3


def test_called_by_the_first_token_it_is_a_lora(backbone_of: GetBackbone) -> None:
    backbone, inputs = backbone_of("bert"), some_inputs(backbone_of("bert"))
    inputs.ids[:, 0] = 4
    one = classifier(backbone, ALoRA(r=3, alpha=7.0, invocation=(4,)))
    lora = LoRA(r=3, alpha=7.0)
    states = {s: (own, lora.fixed(s)) for s, (own, _) in one.states["alora"].items() if s.kind == "linear"}
    other = Adapter((lora, one.methods[1]), {"lora": states, one.methods[1].key: one.states[one.methods[1].key]})
    np.testing.assert_allclose(logits(backbone, one, inputs), logits(backbone, other, inputs), atol=1e-6)


def test_features_of_frozen_layers_serve_it(backbone_of: GetBackbone) -> None:
    """An adapter of the last layer alone reads the ids, though what enters that layer is known."""
    backbone, inputs = backbone_of("bert"), some_inputs(backbone_of("bert"))
    adapter = classifier(backbone, ALoRA(r=3, alpha=7.0, invocation=(52, 29), targets=r".*layer\.2\..*(query|value)"))
    layout = Layout.of([adapter], backbone.sites)
    cut = layout.cut(backbone.structure)
    assert cut == Cut("layers", 2, top=False)
    known = inputs._replace(types=None, hidden=np.asarray(backbone.frozen(backbone.params, inputs, cut, pooled=True)))
    state = layout.stack(adapter, backbone.sites).state
    found = compiled(backbone)(backbone.params, state, known).pooled
    np.testing.assert_allclose(found, logits(backbone, adapter, inputs), atol=1e-6)


@pytest.mark.parametrize("family", ["llama", pytest.param("bert", marks=pytest.mark.slow)])
def test_each_of_a_rows_adapters_has_an_invocation_of_its_own(family: str, backbone_of: GetBackbone) -> None:
    """In an average one that is not called has no part; in a stack neither, whatever stands before it."""
    backbone, inputs = backbone_of(family), some_inputs(backbone_of(family))
    methods = {"a": (52, 29), "b": (83,), "c": (84,), "half": (52, 29)}  # the first row calls all but c
    bank, made = Bank(backbone), {}
    for seed, (name, invocation) in enumerate(methods.items()):
        alpha = 3.0 if name == "half" else 6.0
        made[name] = classifier(backbone, ALoRA(r=3, alpha=alpha, invocation=invocation), 0 if name == "half" else seed)
        bank.add(name, made[name])

    def answers(*asked: Any) -> np.ndarray:
        plans = [plan_of(what) for what in asked for _ in inputs.ids]
        rows = jax.tree.map(lambda leaf: np.concatenate([leaf] * len(asked)), inputs)
        slots = laid(plans, ["a"] * len(plans), bank.slot, len(plans), inputs.ids.shape[1])
        return np.split(np.asarray(compiled(backbone)(backbone.params, bank.state, rows, slots).pooled)[:, :3], len(asked))

    half, averaged, stacked, other, both, alone = answers(
        "half", Average("a", "c"), Stack("a", "c"), Stack("c", "a"), Average("a", "b"), "a"
    )
    np.testing.assert_allclose(averaged, half, atol=1e-5)
    np.testing.assert_allclose(stacked, alone, atol=1e-5)
    np.testing.assert_allclose(other, alone, atol=1e-5)
    np.testing.assert_allclose(alone, logits(backbone, made["a"], inputs), atol=1e-5)
    assert np.abs(both - half).max() > 1e-3


@pytest.mark.slow
def test_continuations_are_pefts(teller_dir: Path, teller: Backbone, tmp_path: Path) -> None:
    """Greedy, in one batch: called once and twice, not called, and by what is generated, which calls nothing."""
    generator, how = Generator(teller), Sampling(max_new_tokens=12)
    (base,) = generator.generate(["the early bird"], sampling=how)
    ids = generator.tokenizer.ids(["one, two", "bird"], special=False)
    methods = {
        "comma": ALoRA(r=3, alpha=7.0, targets=PLACES, invocation=tuple(ids[0][3:5].tolist())),
        "bird": ALoRA(r=2, alpha=5.0, targets=PLACES, invocation=tuple(ids[1].tolist())),
        "said": ALoRA(r=2, alpha=5.0, targets=PLACES, invocation=base.tokens[2:4]),
    }
    for seed, (name, method) in enumerate(methods.items()):
        save_adapter(language(teller, method, seed), tmp_path / name, teller)
        generator.load(name, tmp_path / name)
    asked = [
        ("one, two, three", "comma"),
        ("the early bird", "bird"),
        ("a bird, a bird in", "bird"),
        ("the early bird", "comma"),
        ("the early bird", "said"),
        ("the early bird", None),
        ("a bird, a bird in", Average("bird", "comma", weights=(1.0, 0.0))),
    ]
    found = [list(one.tokens) for one in generator.generate([p for p, _ in asked], [a for _, a in asked], how)]
    assert found[3] == found[4] == found[5] == list(base.tokens)
    assert found[6] == found[2]
    for (prompt, name), mine in zip(asked[:5], found, strict=False):
        assert mine == theirs(teller_dir, tmp_path / str(name), prompt), (prompt, name)
    assert len({tuple(one) for one in found}) == 4
    (plain,) = generator.generate(["a bird, a bird in"], sampling=how)
    assert found[2] != list(plain.tokens)


def theirs(backbone: Path, adapter: Path, prompt: str) -> list[int]:
    """What PEFT's `generate` makes of a prompt."""
    base = transformers.AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    row = transformers.AutoTokenizer.from_pretrained(backbone)(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = model.generate(input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=12, do_sample=False)
    return out[0, row.shape[1] :].tolist()


def test_other_tasks_files_are_our_own(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """PEFT would answer with the base alone."""
    backbone = backbone_of("llama")
    path = save_adapter(classifier(backbone, ALoRA(invocation=(5,))), tmp_path / "a", backbone)
    assert '"GRAFTAX"' in (path / "adapter_config.json").read_text()
    assert load_adapter(path, backbone).methods[0] == ALoRA(invocation=(5,))


@pytest.mark.slow
def test_it_is_trained(teller: Backbone, tmp_path: Path) -> None:
    """Several texts to a row, from the response's first word on; never called it would learn nothing, and is refused."""
    rows = [
        {"prompt": f"{'so ' * i}is it {word}", "completion": f"!! {word}"} for i, word in enumerate(["red", "old", "new"] * 4)
    ]
    (call,) = Tokenizer.of(teller).ids(["!!"], special=False)
    method = ALoRA(invocation=tuple(call.tolist()), targets=PLACES)
    recipe = Recipe(epochs=4, lr=2e-2, batch_size=4, max_length=64)
    (result,) = train_many(teller, {"a": rows}, tmp_path / "out", task="sft", method=method, recipe=recipe).values()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]
    assert load_adapter(result.directory, teller).methods == (method,)
    with pytest.raises(GraftaxError, match=r"the invocation \[9, 9, 9\] is in none of the 12 texts"):
        train_many(teller, {"a": rows}, tmp_path / "b", task="sft", method=ALoRA(invocation=(9, 9, 9)), recipe=recipe)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no invocation. Give the ids"),
        ({"invocation": "<answer>"}, "invocation must be a list, .* got '<answer>'"),
        ({"invocation": (3, -1)}, r"at least 0 .* got \(3, -1\)"),
        ({"invocation": (3,), "targets": ("query", "pooler.dense")}, "cannot at bert.pooler.dense"),
        ({"invocation": (3,), "targets": ("no_such",)}, "matches no site"),
        ({"invocation": (3,), "start": "pissa"}, "start 'pissa' is none of"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str, backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match=message):
        Adapter.create((ALoRA(**settings),), backbone_of("bert").sites)


def test_a_backbone_of_two_texts_is_refused() -> None:
    backbone = random_backbone(SHAPES["bart"], seed=7)
    with pytest.raises(GraftaxError, match="and this one reads two"):
        Adapter.create((ALoRA(invocation=(3,), targets=("q_proj",)),), backbone.sites)
