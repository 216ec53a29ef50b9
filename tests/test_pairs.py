"""A pair of towers: against transformers' CLIP and SigLIP, and two of unlike models joined by an adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cases import randomised
from conftest import some_texts
from contract import assert_same_states
from reference import saved
from refusals import refused
from tiny import FRUIT
from torch_towers import pictures, texts, torch_pair
from tower_pairs import PIXELS, kept, rows

from graftax import (
    Adapter,
    Average,
    Joint,
    LoRA,
    Predictor,
    Recipe,
    load_adapter,
    load_backbone,
    pair,
    save_adapter,
    train_many,
    zero_shot,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.structure import Cut, Structure
from graftax.models.backbone import Backbone
from graftax.models.inputs import Compared, ImageInputs, PairInputs, TextInputs
from graftax.models.pairs import Pair, tower_of
from graftax.models.random import random_backbone
from graftax.serve import export_merged
from graftax.serve.bank import Bank
from graftax.serve.evaluation import evaluate_language
from graftax.tasks.task_registry import task_named
from graftax.train.step import hyper

TASKS = {"clip": "contrastive", "siglip": "contrastive-sigmoid"}


def inputs_of(kind: str) -> tuple[PairInputs, dict[str, Any]]:
    """Pictures and texts for a pair, and the same for transformers' model."""
    (ids, mask), x = texts(), pictures()
    seen = np.ones_like(mask) if kind == "siglip" else mask  # SigLIP's tower sees the padding
    told = {} if kind == "siglip" else {"attention_mask": torch.tensor(mask.astype(np.int64))}
    theirs = {"input_ids": torch.tensor(ids.astype(np.int64)), "pixel_values": torch.tensor(x.transpose(0, 3, 1, 2)), **told}
    return PairInputs(ImageInputs(x), TextInputs(ids, seen, np.zeros_like(ids))), theirs


def vectors(both: Backbone, adapter: Adapter | None, inputs: PairInputs) -> Compared:
    state = {} if adapter is None else Layout.of([adapter], both.sites).stack(adapter, both.sites).state
    found: Compared = jax.jit(both.encode)(both.params, state, inputs)
    return found


def logits(found: Compared) -> np.ndarray:
    """Of each picture and each text."""
    both = np.asarray(found.together)
    return both[:, 0] @ both[:, 1].T


@pytest.mark.parametrize("kind", TASKS)
def test_logits_and_loss_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = torch_pair(kind)
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        if kind == "siglip":
            model.logit_bias.fill_(-2.5)
    both = load_backbone(saved(model, tmp_path), tower="both")
    ours, theirs = inputs_of(kind)
    with torch.no_grad():
        wanted = model(**theirs, return_loss=True)
    found = vectors(both, None, ours)
    assert np.ptp(wanted.logits_per_image.numpy()) > 0.1
    np.testing.assert_allclose(logits(found), wanted.logits_per_image.numpy(), atol=1e-4)
    labels = np.repeat(np.arange(3, dtype=np.int32)[:, None], 3, axis=1)
    loss = task_named(TASKS[kind]).loss(found.together, labels, hyper(Recipe(), 1, 0), jnp.ones(3))
    np.testing.assert_allclose(loss, wanted.loss.numpy(), atol=1e-4)


def test_lora_on_both_towers_is_that_of_peft(tmp_path: Path) -> None:
    """As CLIP-LoRA has it: queries, keys and values of either tower; PEFT's directory, and back."""
    import peft

    model = torch_pair("clip")
    both = load_backbone(saved(model, tmp_path / "clip"), tower="both")
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False)
    theirs = peft.get_peft_model(model, config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    adapter = load_adapter(tmp_path / "theirs", both)
    assert (adapter.task, {site.tower for site in adapter.states["lora"]}) == ("contrastive", {"image", "text"})
    ours, told = inputs_of("clip")
    with torch.no_grad():
        wanted = theirs(**told).logits_per_image.numpy()
    found = logits(vectors(both, adapter, ours))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(found - logits(vectors(both, None, ours))).max() > 0.1
    again = save_adapter(adapter, tmp_path / "again", both)
    back = peft.PeftModel.from_pretrained(load_whole(tmp_path / "clip"), again).eval()
    with torch.no_grad():
        np.testing.assert_allclose(back(**told).logits_per_image.numpy(), wanted, atol=1e-5)


def load_whole(directory: Path) -> Any:
    import transformers

    return transformers.CLIPModel.from_pretrained(directory, attn_implementation="eager")


# -- two towers of one model ------------------------------------------------------------------------------------------


def test_trained_it_finds_texts_and_names_classes(clip: Backbone, tmp_path: Path) -> None:
    """With LoRA on both towers, by what is said of texts alone: the classifier is an adapter of the tower of pictures."""
    recipe = Recipe(epochs=12, lr=5e-3, max_length=20)
    run = train_many(clip, {"fruit": rows(96)}, tmp_path, task="contrastive", recipe=recipe, val=0.25, progress=False)
    metrics = run["fruit"].metrics
    assert metrics["val_image_to_text"] > 0.9
    assert metrics["val_text_to_image"] == 1.0
    adapter = load_adapter(tmp_path / "fruit", clip)
    assert json.loads((tmp_path / "fruit" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    fresh = rows(24, seed=5)
    measured = evaluate_language(clip, adapter, fresh)
    assert evaluate_language(clip, Adapter.create((LoRA(),), clip.sites, task="contrastive"), fresh) != measured
    image = tower_of(clip, "image")
    named = zero_shot(image, clip, FRUIT[:4], prompts=["a red {}"], adapter=tmp_path / "fruit")
    save_adapter(named, tmp_path / "named", image)
    predictor = Predictor(image)
    predictor.load("named", tmp_path / "named")
    said = [answer.label for answer in predictor.predict([row["image"] for row in fresh], "named")]
    right = np.mean([row["text"] == f"a red {label}" for row, label in zip(fresh, said, strict=True)])
    assert right == measured["image_to_text"] > 0.9
    assert np.mean([answer == FRUIT[i % 4] for i, answer in enumerate(said)]) == right


def test_a_picture_or_a_text_is_asked(clip: Backbone) -> None:
    """Alone and in one batch; both at once are two vectors, and one was asked for."""
    predictor, few = Predictor(clip), rows(2)
    asked = [{"text": few[0]["text"]}, {"image": few[0]["image"]}, {"image": few[1]["image"]}]
    mixed = predictor.embed(asked)
    np.testing.assert_allclose(mixed, np.concatenate([predictor.embed([one]) for one in asked]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1.0, atol=1e-5)
    image, text = tower_of(clip, "image"), tower_of(clip, "text")
    alone = Predictor(image).embed([one["image"] for one in asked[1:]])
    np.testing.assert_allclose(mixed[1:], alone / np.linalg.norm(alone, axis=1, keepdims=True), atol=1e-5)
    alone = Predictor(text).embed([asked[0]["text"]])
    np.testing.assert_allclose(mixed[:1], alone / np.linalg.norm(alone), atol=1e-5)
    for row in (few[0], few[0]["text"], {}):
        line = refused(lambda row=row: predictor.embed([row]))
        assert line is not None
        assert "one of the two" in line


def test_what_belongs_to_a_pair_alone(clip: Backbone, tmp_path: Path) -> None:
    image, text = tower_of(clip, "image"), tower_of(clip, "text")
    assert (image.fingerprint, text.fingerprint) == (clip.config.image.fingerprint, clip.config.text.fingerprint)
    assert pair(image, text).fingerprint == clip.fingerprint
    assert pair(image, random_backbone(dict(text.hf_config or {}), seed=3)).fingerprint != clip.fingerprint
    few = rows(8)
    for call, why in (
        (lambda: pair(text, image), "reads texts"),
        (lambda: pair(image, image), "reads images"),
        (lambda: train_many(image, {"a": few}, tmp_path / "a", task="contrastive"), "is about pairs"),
        (lambda: train_many(clip, {"a": few}, tmp_path / "a", task="image-classify"), "it can do contrastive"),
        (lambda: train_many(clip, {"a": few}, tmp_path / "a", task="contrastive", method=None), "it needs a method"),
        (lambda: zero_shot(text, clip, FRUIT), "not the tower of pictures"),
        (lambda: load_backbone(str(clip.name), tower="both", text_tower=str(clip.name)), "leave out one"),
    ):
        line = refused(call)
        assert line is not None, why
        assert why in line


# -- two of unlike models ---------------------------------------------------------------------------------------------


def test_unlike_towers_need_an_adapter(unlike: Backbone) -> None:
    """That projects both; and one row names one of these."""
    adapters = [Adapter.create((Joint(dim=size),), unlike.sites, task="contrastive", seed=size) for size in (6, 12)]
    predictor = Predictor(unlike)
    for adapter in adapters:
        predictor.load(str(adapter.methods[0].vector_size), adapter)
    row = {"text": "a red plum"}
    assert [len(predictor.embed([row], name)[0]) for name in ("6", "12")] == [6, 12]
    np.testing.assert_allclose(np.linalg.norm(predictor.embed([row], "6")), 1.0, atol=1e-5)
    for what in (None, Average("6", "12")):
        line = refused(lambda what=what: predictor.embed([row], [what]))
        assert line is not None
        assert "joined by one adapter" in line


def test_one_in_a_bank_answers_as_alone(unlike: Backbone) -> None:
    """Of two whose spaces are of unlike sizes, in one batch; each has a temperature of its own."""
    made = [Adapter.create((Joint(dim=6, scale=2.0), LoRA(r=2)), unlike.sites, task="contrastive", seed=1)]
    made += [Adapter.create((Joint(dim=12, bias=-1.0),), unlike.sites, task="contrastive", seed=2)]
    text = replace(unlike.config.text.config)
    inputs = PairInputs(ImageInputs(pictures(2)[:, :PIXELS, :PIXELS]), some_texts(unlike, 2, config=text))
    bank = Bank(unlike)
    for number, adapter in enumerate(made):
        bank.add(str(number), adapter)
    slots = np.array([bank.slot("0"), bank.slot("1")], np.int32)
    mixed = jax.jit(unlike.encode)(unlike.params, bank.state, inputs, slots)
    for row, adapter in enumerate(made):
        alone, size = vectors(unlike, adapter, inputs), adapter.methods[0].vector_size
        for found, wanted in ((mixed.image, alone.image), (mixed.text, alone.text)):
            np.testing.assert_allclose(found[row, :size], wanted[row], atol=1e-5)
            assert not np.asarray(found[row, size:]).any()
        np.testing.assert_allclose([mixed.scale[row], mixed.bias[row]], [alone.scale[row], alone.bias[row]], atol=1e-5)
    np.testing.assert_allclose(mixed.scale, [2 / 0.07, 1 / 0.07], rtol=1e-5)


def test_what_lies_above_a_tower_is_in_it(clip: Backbone) -> None:
    """Only what joins both is above both: an adapter of a tower's own projection is not kept beside it."""
    cuts = {name: clip.structure.cut(dict.fromkeys(clip.structure.stacks, 0), [name]) for name in (*ABOVE, "comparison")}
    assert {name: cut.top for name, cut in cuts.items()} == {**dict.fromkeys(ABOVE, False), "comparison": True}
    assert [clip.has_frozen_layers(cut) for cut in cuts.values()] == [False, True, True]
    alone = Structure({}, {"text.layers": 2}, {"text.layers": "text"})  # pictures that no stack of layers reads
    assert not Pair.has_frozen(Cut("text.layers", 0, top=False), alone)


ABOVE = ("image.projection", "text.projection")


#: Methods on two unlike towers, and how many numbers of an item are kept while they train: features of both, of the picture.
KEPT: dict[str, tuple[Any, Any]] = {
    "both": (None, [(42,)]),
    "pictures": (LoRA(targets=r"text_model.*query"), [(10,)]),
    "nothing": (LoRA(targets=r"text_model.*query|vision_model.*layer3.*conv2"), []),
}


@pytest.mark.parametrize("case", ["both", *(pytest.param(case, marks=pytest.mark.slow) for case in KEPT if case != "both")])
def test_what_frozen_towers_make_is_kept(case: str, unlike: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the adapter becomes what it becomes where nothing is kept."""
    method, wanted = KEPT[case]
    recipe = Recipe(epochs=2, batch_size=16, max_length=20)
    settings: dict[str, Any] = {"task": "contrastive", "method": method, "recipe": recipe, "val": 0.25, "progress": False}
    shapes = kept(unlike, monkeypatch)
    train_many(unlike, {"a": rows(24)}, tmp_path / "kept", **settings)
    assert shapes == wanted
    monkeypatch.setattr(Pair, "keeps_frozen", False)
    train_many(unlike, {"a": rows(24)}, tmp_path / "anew", **settings)
    first, second = (load_adapter(tmp_path / name / "a", unlike) for name in ("kept", "anew"))
    assert_same_states(first, second, 1e-5)


def test_unlike_towers_name_classes_that_were_not_trained(unlike: Backbone, tmp_path: Path) -> None:
    """The command line: trained, measured, embedded; and the classifier that follows from it is one of the pictures' tower."""
    recipe = Recipe(epochs=30, lr=3e-3, batch_size=16, max_length=20)
    settings: dict[str, Any] = {"recipe": recipe, "method": None, "task": "contrastive-sigmoid", "progress": False}
    train_many(unlike, {"fruit": rows(96)}, tmp_path, **settings)
    adapter, fresh = load_adapter(tmp_path / "fruit", unlike), rows(24, seed=5)
    measured = evaluate_language(unlike, adapter, fresh)
    assert measured["image_to_text"] > 0.9
    image = tower_of(unlike, "image")
    named = zero_shot(image, unlike, FRUIT[:4], prompts=["a red {}"], adapter=adapter)
    save_adapter(named, tmp_path / "named", image)
    both, predictor = Predictor(unlike), Predictor(image)
    both.load("fruit", adapter)
    predictor.load("named", tmp_path / "named")
    answers = predictor.predict([row["image"] for row in fresh], "named")
    u = both.embed([{"image": row["image"]} for row in fresh], "fruit")
    w = both.embed([{"text": f"a red {name}"} for name in FRUIT[:4]], "fruit")
    ((comparison, _),) = (found for site, found in adapter.states["joint"].items() if site.name == "comparison")
    z = np.exp(comparison["log_scale"]) / 0.07 * u @ w.T
    chances = np.exp(z - z.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    np.testing.assert_allclose([[a.probabilities[name] for name in FRUIT[:4]] for a in answers], chances, atol=1e-4)
    line = refused(lambda: export_merged(image, named, tmp_path / "merged"))
    assert line is not None
    assert "joint space" in line


def test_half_an_adapter_is_one_of_a_tower(unlike: Backbone, tmp_path: Path) -> None:
    """What it has in the pictures' layers goes with the projection, by its own targets too; and the file is read again."""
    methods = (Joint(dim=24), LoRA(r=2, targets=r".*vision_model.*conv2|.*text_model.*query"))
    known = {"task": "contrastive", "fingerprint": unlike.fingerprint}
    adapter = randomised(Adapter.create(methods, unlike.sites, **known), size=0.1)
    image, x = tower_of(unlike, "image"), [row["image"] for row in rows(6)]
    made = zero_shot(image, unlike, FRUIT, adapter=adapter)
    saved_there = save_adapter(made, tmp_path / "named", image)
    assert json.loads((saved_there / "adapter_config.json").read_text())["peft_type"] == "GRAFTAX"
    assert made.parameters < 24 * image.config.features + 6 * 25 + 3000
    both, predictor = Predictor(unlike), Predictor(image)
    both.load("a", adapter)
    predictor.load("named", saved_there)
    u = both.embed([{"image": one} for one in x], "a")
    w = both.embed([{"text": f"a photo of a {name}."} for name in FRUIT], "a")
    wanted = [FRUIT[index] for index in (u @ w.T).argmax(1)]
    assert [answer.label for answer in predictor.predict(x, "named")] == wanted
    bare = zero_shot(image, unlike, FRUIT, adapter=replace(adapter, states={**adapter.states, "lora": half_lora(adapter)}))
    predictor.load("bare", bare)
    chances = [[a.score for a in predictor.predict(x, name)] for name in ("named", "bare")]
    assert np.abs(np.subtract(*chances)).max() > 1e-3


def half_lora(adapter: Adapter) -> Any:
    """A LoRA's leaves that change nothing."""
    zeroed = {}
    for site, (leaves, fixed) in adapter.states["lora"].items():
        zeroed[site] = ({name: np.zeros_like(leaf) for name, leaf in leaves.items()}, fixed)
    return zeroed
