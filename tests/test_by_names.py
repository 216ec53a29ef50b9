"""Pairs of towers trained as classifiers by names: CoOp as its paper has it, and all that is trained with its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import Graftax
from contract import assert_same_states
from PIL import Image
from refusals import refused
from tiny import FRUIT, METAL
from torch_towers import NAMES
from tower_pairs import kept, rows

from graftax import Adapter, LoRA, Predictor, Recipe, learned_context, load_adapter, pair, train_many, zero_shot
from graftax.adapters.adapter import Layout, join
from graftax.data.batches import Planned, Shape
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.models.pairs import tokenizer_of, tower_of
from graftax.tasks.read_examples import read_examples
from graftax.tasks.task_registry import task_named
from graftax.train.step import hyper

TASK = task_named("contrastive-names")


def test_loss_and_gradient_are_those_of_the_paper(clip_in_torch: Any) -> None:
    """Cross-entropy over all classes, those too that the batch has no picture of, by torch; vectors behind the first token."""
    model, image, text = clip_in_torch
    both = pair(image, text)
    method, prompts = learned_context(both, NAMES, tokens=3)
    labels = [1, 0, 1]
    x = np.random.default_rng(3).integers(0, 3, (4, 16, 16, 3), np.uint8)
    data = [{"image": picture, "text": prompts[NAMES[label]]} for picture, label in zip(x, [*labels, 2], strict=True)]
    prepared = TASK.prepare(read_examples(data, Columns(), TASK, both.processor), (), both.processor, 12)
    planned, shape = Planned((0, 1, 2), ((0, 0), (1, 0), (2, 0))), Shape(4, 4, 12, shared=False)
    inputs = both.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)
    laid = TASK.output.lay(prepared, planned, shape, 0)
    adapter = Adapter.create((method,), both.sites, task=TASK.name)
    stacked = Layout.of([adapter], both.sites).stack(adapter, both.sites)

    def loss(trainable: Any) -> jax.Array:
        outputs = TASK.output.compute(both, both.params, join(trainable, stacked.fixed), inputs, laid)
        return TASK.loss(outputs, laid, hyper(Recipe(), 1, 0), jnp.array([1.0, 1.0, 1.0, 0.0]))

    found, gradient = jax.jit(jax.value_and_grad(loss))(stacked.trainable)
    ((key, states),) = stacked.trainable["text.word_embeddings"].items()
    context = torch.tensor(np.array(states["rows"]), requires_grad=True)
    embed = model.text_model.embeddings.token_embedding
    hook = embed.register_forward_hook(
        lambda module, given, y: torch.cat([y[:, :1], context.expand(len(y), -1, -1), y[:, 4:]], 1)
    )
    read = text.processor([f"plum plum plum {name}." for name in NAMES], max_length=12)
    told = text.processor.pad(read, 3, max(map(len, read)))
    mask = torch.tensor(told.mask.astype(np.int64))
    pixels = torch.tensor(x[:3].astype(np.float32).transpose(0, 3, 1, 2))
    logits = model(input_ids=torch.tensor(told.ids.astype(np.int64)), attention_mask=mask, pixel_values=pixels).logits_per_image
    hook.remove()
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    wanted.backward()
    assert context.grad is not None
    assert context.grad.abs().max() > 1e-2
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-4)
    ours = gradient["text.word_embeddings"][key]["rows"]
    np.testing.assert_allclose(ours, context.grad.numpy(), atol=1e-4)


def right(both: Backbone, adapter: Any, prompts: dict[str, str]) -> float:
    """How often the classifier of all four names, which follows from an adapter, is right."""
    image = tower_of(both, "image")
    return knows(image, zero_shot(image, both, FRUIT[:4], prompts=prompts, adapter=adapter))


def knows(image: Backbone, named: Any) -> float:
    """How often a classifier of them is right."""
    predictor, fresh = Predictor(image), rows(24, seed=5)
    predictor.load("a", named)
    said = predictor.predict([row["image"] for row in fresh], "a")
    return float(np.mean([row["text"].endswith(answer.label) for row, answer in zip(fresh, said, strict=True)]))


@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_words_are_learnt(each: bool, clip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unified and class-specific, where pictures are seen once; and the classifier says so that follows from them."""
    method, prompts = learned_context(clip, FRUIT[:4], tokens=4, each=each)
    assert len(method.ids) == (16 if each else 4)
    data = [{**row, "text": prompts[row["text"].split()[-1]]} for row in rows(32)]
    recipe = Recipe(epochs=30, lr=3e-2, batch_size=8, max_length=20)
    shapes = kept(clip, monkeypatch)
    settings: dict[str, Any] = {"task": TASK.name, "recipe": recipe, "method": method, "val": 0.25, "progress": False}
    run = train_many(clip, {"fruit": data}, tmp_path, **settings)
    assert shapes == [(16,)]
    assert run["fruit"].metrics["val_image_to_text"] > 0.9
    fresh = Adapter.create((method,), clip.sites, task=TASK.name)
    before, after = (right(clip, adapter, prompts) for adapter in (fresh, tmp_path / "fruit"))
    assert before < 0.6
    assert after > 0.9


def test_words_are_learnt_by_commands(clip: Backbone, graftax: Graftax, tmp_path: Path) -> None:
    """Pictures in folders of classes: words in front of the folders' names, which the classifier by names then has, too."""
    for number, row in enumerate(rows(24)):
        folder = tmp_path / "fruit" / row["text"].split()[-1]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row["image"]).save(folder / f"{number}.png")
    towers = ("-b", clip.name, "--tower", "both")
    command = ("train", *towers, "--task", TASK.name, "--data", tmp_path / "fruit", "--context-words", 4)
    recipe = ("--epochs", 15, "--lr", 6e-2, "--batch-size", 8, "--max-length", 20)
    trained = graftax(*command, *recipe, "-o", tmp_path / "learnt")
    assert trained.code == 0, trained.err
    found = load_adapter(tmp_path / "learnt" / "fruit", clip)
    method, prompts = learned_context(clip, FRUIT[:4], tokens=4)
    assert found.methods == (method,)
    assert found.recipe["text"] == prompts[FRUIT[0]].replace(FRUIT[0], "{label}")
    classifier = ("zero-shot", *towers, "-a", tmp_path / "learnt" / "fruit", "--name", *FRUIT[:4])
    named = graftax(*classifier, "-o", tmp_path / "named")
    assert named.code == 0, named.err
    assert knows(tower_of(clip, "image"), tmp_path / "named") > 0.9
    for refusal, why in (
        ((*command, "--column", "text=a {label}"), "leave out one"),
        ((*command, "--task", "contrastive"), "is for --task contrastive-names"),
        ((*classifier, "--prompt", "a {}."), "has learnt words, and no prompt has them"),
    ):
        said = graftax(*refusal, "-o", tmp_path / "no")
        assert said.code == 2, said
        assert why in said.err.splitlines()[-1]


def test_texts_of_neighbours_are_nobody_elses(clip: Backbone, tmp_path: Path) -> None:
    """Jobs of unlike numbers of texts, one after another in the slots of a pack: neither is felt by the other."""
    few = rows(12)
    many = [{**row, "text": f"a red {(FRUIT + METAL)[i]}"} for i, row in enumerate(rows(12))]
    recipe = Recipe(epochs=2, lr=1e-3, batch_size=8, max_length=20)
    settings: dict[str, Any] = {"task": TASK.name, "recipe": recipe, "method": LoRA(r=2), "progress": False}
    train_many(clip, {"few": few, "many": many}, tmp_path / "few first", pack_size=2, **settings)
    train_many(clip, {"many": many, "few": few}, tmp_path / "many first", pack_size=2, **settings)
    for name in ("few", "many"):
        assert_same_states(*(load_adapter(tmp_path / run / name, clip) for run in ("few first", "many first")), 0.0)
    train_many(clip, {"many": many}, tmp_path / "alone", **settings)
    assert_same_states(*(load_adapter(tmp_path / run / "many", clip) for run in ("many first", "alone")), 1e-6)


def test_what_cannot_be_learnt(clip: Backbone) -> None:
    for call, why in (
        (lambda: learned_context(tower_of(clip, "text"), FRUIT), "is no pair of towers"),
        (lambda: learned_context(clip, ["plum", "plum"]), "none of them twice"),
        (lambda: learned_context(clip, FRUIT, tokens=400), "400 are to be learnt"),
        (lambda: learned_context(clip, FRUIT, tokens=21), "is 25 tokens long, and 24 are read"),
        (lambda: zero_shot(tower_of(clip, "image"), clip, FRUIT, prompts={"plum": "a"}), "there is no text for"),
    ):
        line = refused(call)
        assert line is not None, why
        assert why in line
    method, prompts = learned_context(clip, METAL, tokens=7, each=True)  # so many that words of names come next
    words = {word for text in prompts.values() for word in text.split()[:-1]}
    assert len(words) == 42
    assert words & {*FRUIT}
    assert not words & {*METAL}
    ids = tokenizer_of(clip).ids([prompts["iron"]], special=False)[0]
    assert tuple(ids[:7]) == method.ids[:7]
