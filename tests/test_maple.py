"""MaPLe on a pair of towers: its loss and gradients in torch, its half at the tower of pictures, batches, files, a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cases import randomised
from conftest import GetBackbone, Graftax
from contract import assert_same_states
from PIL import Image
from refusals import refused
from safetensors.numpy import load_file
from tiny import FRUIT
from torch_towers import NAMES
from tower_pairs import PIXELS, rows

from graftax import Adapter, LoRA, MaPLe, Method, Predictor, Recipe, load_adapter, pair, save_adapter, train_many, zero_shot
from graftax.adapters.adapter import Layout, join
from graftax.adapters.sites import Site
from graftax.data.batches import Planned, Shape
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.models.pairs import tokenizer_of, tower_of
from graftax.tasks.read_examples import read_examples
from graftax.tasks.task_registry import task_named
from graftax.train.step import hyper

TASK = task_named("contrastive-names")


def an_adapter(both: Backbone, method: Method, seed: int = 0) -> Adapter:
    fresh = Adapter.create((method,), both.sites, task=TASK.name, fingerprint=both.fingerprint)
    return randomised(fresh, seed)


def layer_of(site: Site) -> int:
    """The layer that reads what is put there."""
    return 0 if site.layer is None else site.layer + 1


def before(module: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A hook that changes what enters a module."""
    return module.register_forward_pre_hook(lambda module, given: (change(given[0]), *given[1:]))


class InTorch:
    """What the paper's equations say, put into transformers' CLIP: two prompts, those of pictures behind the patches."""

    def __init__(self, model: Any, adapter: Adapter):
        self.model = model
        states = adapter.states["maple:2:24"].items()
        held = {(site.tower, layer_of(site)): own for site, (own, _) in states}
        self.prompts = torch.tensor(held["text", 0]["prompts"], requires_grad=True)
        self.kernels, self.biases = (
            [torch.tensor(held["image", i][name], requires_grad=True) for i in range(2)] for name in ("kernel", "bias")
        )
        text, image = model.text_model, model.vision_model
        self.hooks = [
            text.embeddings.token_embedding.register_forward_hook(lambda module, given, y: self.in_text(y, 0)),
            before(text.encoder.layers[1], lambda x: self.in_text(x, 1)),
            before(image.pre_layrnorm, lambda x: torch.cat([x, self.beside(x, 0)], 1)),
            before(image.encoder.layers[1], lambda x: torch.cat([x[:, :-2], self.beside(x, 1)], 1)),
        ]

    def in_text(self, y: torch.Tensor, layer: int) -> torch.Tensor:
        return torch.cat([y[:, :1], self.prompts[layer].expand(len(y), -1, -1), y[:, 3:]], 1)

    def beside(self, y: torch.Tensor, layer: int) -> torch.Tensor:
        return (self.prompts[layer] @ self.kernels[layer] + self.biases[layer]).expand(len(y), -1, -1)


def test_loss_and_gradients_are_those_of_the_papers_equations(clip_in_torch: Any) -> None:
    """Of the prompts what both towers have to say of them, of the couplings each layer's own; in room for more of them."""
    model, image, text = clip_in_torch
    both = pair(image, text)
    labels = [1, 0, 1]
    x = np.random.default_rng(3).integers(0, 3, (4, 16, 16, 3), np.uint8)
    data = [{"image": one, "text": f"a red {NAMES[label]}."} for one, label in zip(x, [*labels, 2], strict=True)]
    prepared = TASK.prepare(read_examples(data, Columns(), TASK, both.processor), (), both.processor, 12)
    planned, shape = Planned((0, 1, 2), ((0, 0), (1, 0), (2, 0))), Shape(4, 4, 12, shared=False)
    inputs = both.processor.lay([prepared.items[i] for i in planned.items], planned.places, shape)
    laid = TASK.output.lay(prepared, planned, shape, 0)
    adapter = an_adapter(both, MaPLe(tokens=2, depth=2))
    layout = Layout.of([adapter], both.sites, bucket=True)
    stacked = layout.stack(adapter, both.sites)

    def loss(trainable: Any, fixed: Any) -> jax.Array:
        outputs = TASK.output.compute(both, both.params, join(trainable, fixed), inputs, laid)
        return TASK.loss(outputs, laid, hyper(Recipe(), 1, 0), jnp.array([1.0, 1.0, 1.0, 0.0]))

    found, gradient = jax.jit(jax.value_and_grad(loss))(stacked.trainable, stacked.fixed)
    theirs = InTorch(model, adapter)
    read = text.processor([f"a red {name}." for name in NAMES], max_length=12)
    told = text.processor.pad(read, 3, max(map(len, read)))
    logits = model(
        input_ids=torch.tensor(told.ids.astype(np.int64)),
        attention_mask=torch.tensor(told.mask.astype(np.int64)),
        pixel_values=torch.tensor(x[:3].astype(np.float32).transpose(0, 3, 1, 2)),
    ).logits_per_image
    for hook in theirs.hooks:
        hook.remove()
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    wanted.backward()
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-4)
    ours = layout.unstack(adapter, gradient, both.sites)["maple:2:24"]
    every = sum(own["prompts"] for own, _ in ours.values())
    assert theirs.prompts.grad is not None
    assert min(theirs.prompts.grad[layer].abs().max() for layer in range(2)) > 1e-2
    np.testing.assert_allclose(every, theirs.prompts.grad.numpy(), atol=1e-4)
    for site, (own, _) in ours.items():
        for name, there in (("kernel", theirs.kernels), ("bias", theirs.biases)) if site.tower == "image" else ():
            slope = there[layer_of(site)].grad
            assert slope is not None
            np.testing.assert_allclose(own[name], slope.numpy(), atol=1e-4)


ASKED: list[dict[str, Any]] = [{"text": f"a red {FRUIT[0]}."}, {"image": rows(1)[0]["image"]}, {"text": f"an old {FRUIT[1]}."}]


def test_adapters_of_unlike_sizes_in_one_batch_and_in_files(clip: Backbone, tmp_path: Path) -> None:
    """Each says beside others and none what it says alone; the file holds the prompts once, and every bit of them."""
    made: dict[str, Adapter] = {
        "two": an_adapter(clip, MaPLe(tokens=2, depth=2), 1),
        "three": an_adapter(clip, MaPLe(tokens=3, depth=2), 2),
        "lora": an_adapter(clip, LoRA(r=2), 3),
    }
    for name, adapter in made.items():
        again = load_adapter(save_adapter(adapter, tmp_path / name, clip), clip)
        assert_same_states(again, adapter, 0.0)
    held = load_file(tmp_path / "two" / "adapter_model.safetensors")
    assert [tensor.shape for key, tensor in held.items() if "prompts" in key] == [(2, 2, 32)]
    assert sum(tensor.size for tensor in held.values()) == made["two"].parameters == 2 * 2 * 32 + 2 * 33 * 32
    together, alone = Predictor(clip), Predictor(clip)
    for name, adapter in made.items():
        together.load(name, adapter)
    alone.load("three", made["three"])
    asked = [(row, name) for name in ("three", "two", "lora", None) for row in ASKED]
    found = together.embed([row for row, _ in asked], [name for _, name in asked])
    np.testing.assert_allclose(found[: len(ASKED)], alone.embed(ASKED, "three"), atol=1e-5)
    of_nobody = found[-len(ASKED) :]
    assert np.abs(found[: -len(ASKED)] - np.tile(of_nobody, (3, 1))).max(-1).min() > 1e-2


def test_at_pictures_alone_it_is_vpt(clip: Backbone, tmp_path: Path) -> None:
    """The classifier by names needs no texts, and sees pictures as the pair does; from its file, too."""
    adapter, image = an_adapter(clip, MaPLe(tokens=2, depth=1)), tower_of(clip, "image")
    named = zero_shot(image, clip, FRUIT[:3], prompts=["a red {}."], adapter=adapter)
    assert [method.name for method in named.methods] == ["vpt", "head"]
    of_tower, of_pair = Predictor(image), Predictor(clip)
    of_tower.load("a", save_adapter(named, tmp_path / "named", image))
    of_pair.load("a", adapter)
    seen = [row["image"] for row in rows(4)]
    ours, wanted = of_tower.embed(seen, "a"), of_pair.embed([{"image": one} for one in seen], "a")
    np.testing.assert_allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), wanted, atol=1e-5)


def test_it_is_trained_by_commands(clip: Backbone, graftax: Graftax, tmp_path: Path) -> None:
    """It learns, and remembers its prompt, which the classifier that follows says (`named_classes.py`)."""
    for number, row in enumerate(rows(24)):
        folder = tmp_path / "fruit" / row["text"].split()[-1]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row["image"]).save(folder / f"{number}.png")
    towers = ("-b", clip.name, "--tower", "both")
    method = ("--method", "maple", "--option", "depth=2", "--column", "text=the old {label}.")
    train = (
        "train",
        *towers,
        "--task",
        TASK.name,
        "--data",
        tmp_path / "fruit",
        *method,
        "--max-length",
        16,
        "--batch-size",
        8,
    )
    trained = graftax(*train, "--lr", 5e-2, "--epochs", 8, "-o", tmp_path / "learnt")
    assert trained.code == 0, trained.err
    losses = [json.loads(line)["loss"] for line in (tmp_path / "learnt" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 8
    assert losses[-1] < 0.3 * losses[0]
    assert load_adapter(tmp_path / "learnt" / "fruit", clip).recipe["text"] == "the old {label}."


def test_its_first_prompt_begins_as_the_words_that_it_replaces(clip: Backbone) -> None:
    ids = tokenizer_of(clip).ids(["the old plum", "the old iron"])
    data: Any = SimpleNamespace(ids=ids)
    adapter = Adapter.create((MaPLe(depth=2),), clip.sites, training=data)
    table = next(site for site in clip.sites if site.name == "text.word_embeddings").weights().table
    for own, _ in adapter.states["maple:2:32"].values():
        np.testing.assert_allclose(own["prompts"][0], table[ids[0][1:3]], atol=1e-6)
        assert 0.01 < own["prompts"][1].std() < 0.03


def test_where_it_cannot_be(clip: Backbone, unlike: Backbone, backbone_of: GetBackbone, tmp_path: Path) -> None:
    few, short = Recipe(max_length=16), [{"image": np.zeros((PIXELS, PIXELS, 3), np.uint8), "text": "plum"}] * 2
    for call, why in (
        (lambda: MaPLe().select(backbone_of("vit").sites), "couples the prompts of a pair's texts and pictures"),
        (lambda: MaPLe().select(unlike.sites), "of Transformers both"),
        (lambda: MaPLe().select(clip.sites), "depth 9, and the tower of texts has 2 layers"),
        (
            lambda: train_many(clip, {"a": short}, tmp_path, task=TASK.name, method=MaPLe(depth=2), recipe=few, progress=False),
            "a text of 3 tokens has no room for 2 that are learnt",
        ),
    ):
        said = refused(call)
        assert said is not None, why
        assert why in said
