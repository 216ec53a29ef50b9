"""Training with augmentation: what its stream follows from, packs and interruptions, the loss of mixed labels, refusals."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PICTURES
from noted import noted
from refusals import refused
from runs import interrupt, stop_after, tensors
from tiny import toy_rows

from graftax import Recipe, train_many
from graftax.models.augment import Augment
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.random import random_backbone
from graftax.tasks.task_registry import task_named
from graftax.train import Interrupted
from graftax.train.augmentation import Draws, Mixture, augmented_inputs, mean_loss
from graftax.train.pack import Pack
from graftax.train.step import hyper

RECIPE = Recipe(epochs=3, lr=0.05, batch_size=4, optimizer="sgd", augment="crop+flip")
DATA: dict[str, Any] = {
    name: [
        {"image": np.random.default_rng([i, seed]).integers(0, 256, (8, 8, 3), np.uint8), "label": "xyz"[i % 3]}
        for i in range(count)
    ]
    for seed, (name, count) in enumerate({"a": 7, "b": 6, "c": 8}.items())
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone(PICTURES["cifar_resnet"] | {"image_size": 8}, seed=7)


def run(backbone: Backbone, out: Path, **changes: Any) -> dict[str, dict[str, np.ndarray]]:
    settings: dict[str, Any] = {"method": None, "task": "image-classify", "recipe": RECIPE}
    settings |= {"val": 0.25, "pack_size": 2, "progress": False} | changes
    data = settings.pop("data", DATA)
    train_many(backbone, data, out, **settings)
    return {name: tensors(out / name) for name in data}


@pytest.fixture(scope="module")
def trained(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What three adapters become in a pack of two."""
    return run(backbone, tmp_path_factory.mktemp("trained"))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], within: float = 0.0) -> bool:
    assert one.keys() == other.keys()
    return all(np.allclose(one[key], other[key], rtol=0.0, atol=within) for key in one)


def test_an_interrupted_run_goes_on_with_the_same_bits(
    backbone: Backbone, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopping:
        stop_after(stopping, 4, interrupt)
        with pytest.raises(Interrupted):
            run(backbone, tmp_path)
    found = run(backbone, tmp_path)
    assert all(same(found[name], trained[name]) for name in DATA)


def test_neither_neighbours_nor_slots_matter(backbone: Backbone, trained: Any, tmp_path: Path) -> None:
    """In another slot of another queue the same bits; alone, which is another program, to a tolerance."""
    turned = run(backbone, tmp_path / "turned", data={name: DATA[name] for name in ("c", "b", "a")})
    assert all(same(turned[name], trained[name]) for name in DATA)
    alone = run(backbone, tmp_path / "alone", data={"b": DATA["b"]}, pack_size=1)
    assert same(alone["b"], trained["b"], within=1e-4)


def augmenting(backbone: Backbone, said: str) -> Any:
    """The inputs of a batch, and what they are made of, compiled as in a step."""
    return jax.jit(partial(augmented_inputs, backbone.processor, Augment.of(said)))


def batch(backbone: Backbone, said: str, epoch: int, items: list[int], seed: int = 3) -> np.ndarray:
    """Pictures 0 to 5, those of these numbers, as they are trained on in an epoch."""
    pixels = np.random.default_rng(0).standard_normal((6, 8, 8, 3), np.float32)[items]
    draws = Draws(np.uint32(epoch), np.asarray(items, np.uint32))
    weight = np.ones(len(items), np.float32)
    return np.asarray(augmenting(backbone, said)(ImageInputs(pixels), weight, draws, np.uint32(seed)).inputs.pixels)


def test_a_stream_for_each_epoch_and_item(backbone: Backbone) -> None:
    """The same wherever an item lies; another in another epoch, of another item, of another seed."""
    first = batch(backbone, "crop+colour", 0, [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(batch(backbone, "crop+colour", 0, [4, 1, 0]), first[[4, 1, 0]], atol=1e-4)
    for other in (
        batch(backbone, "crop+colour", 1, [0, 1, 2, 3, 4, 5]),
        batch(backbone, "crop+colour", 0, [0, 1, 2, 3, 4, 5], seed=4),
    ):
        assert not any(np.array_equal(one, another) for one, another in zip(first, other, strict=True))


def test_what_is_kept_of_pixels(backbone: Backbone) -> None:
    """As floats of the checkpoint's statistics: what is not changed is what it was."""
    levels = backbone.processor.preparation.levels
    pixels = levels[np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)), np.arange(3)]
    draws = Draws(np.uint32(0), np.arange(2, dtype=np.uint32))
    given = (ImageInputs(pixels), np.ones(2, np.float32), draws, np.uint32(0))
    varied = augmenting(backbone, "flip=0")(*given)
    np.testing.assert_allclose(np.asarray(varied.inputs.pixels), pixels, atol=1e-6)
    assert varied.mixture is None
    turned = augmenting(backbone, "flip=1")(*given)
    np.testing.assert_allclose(np.asarray(turned.inputs.pixels), pixels[:, :, ::-1], atol=1e-6)


def test_filling_is_nobody_s_partner(backbone: Backbone) -> None:
    weight = np.array([1, 1, 1, 0, 0], np.float32)
    draws = Draws(np.uint32(0), np.arange(5, dtype=np.uint32))
    inputs = ImageInputs(np.zeros((5, 8, 8, 3), np.float32))
    mixture = augmenting(backbone, "cutmix")(inputs, weight, draws, np.uint32(0)).mixture
    assert mixture is not None
    assert np.asarray(mixture.partners).tolist() == [2, 1, 0, 3, 4]


@pytest.mark.parametrize("task", ["image-classify", "multilabel", "regress"])
def test_the_loss_of_two_labels(task: str) -> None:
    """Of every item that of its own and of its partner's, by their shares; filling counts nowhere."""
    random = np.random.default_rng(0)
    outputs, weight = jnp.asarray(random.standard_normal((4, 8), np.float32)), jnp.array([1, 1, 1, 0], jnp.float32)
    labels: Any = {
        "image-classify": np.array([0, 2, 1, 0], np.int32),
        "multilabel": random.integers(0, 2, (4, 8)).astype(np.float32),
        "regress": random.standard_normal(4).astype(np.float32),
    }[task]
    settings, learnt = hyper(RECIPE, 10, 3), task_named(task)
    share, partners = jnp.array([0.3, 1.0, 0.9, 0.5], jnp.float32), jnp.array([2, 1, 0, 3])

    one = jax.jit(learnt.loss)

    def alone(i: int, label: Any) -> float:
        return float(one(outputs[i : i + 1], label[None], settings, jnp.ones(1, jnp.float32)))

    expected = [share[i] * alone(i, labels[i]) + (1 - share[i]) * alone(i, labels[partners[i]]) for i in range(3)]
    found = jax.jit(partial(mean_loss, learnt))(outputs, jnp.asarray(labels), settings, weight, Mixture(share, partners))
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


def test_programs_without_it_have_nothing_of_it(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a probe, whose features are kept without it, keeps none with it, and says so."""
    packs: list[Pack] = []
    begin = Pack.__init__

    def seen(self: Pack, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        packs.append(self)

    monkeypatch.setattr(Pack, "__init__", seen)
    said = noted(lambda: run(backbone, tmp_path / "with", method=None, data={"b": DATA["b"]}))
    assert "b: augmented pictures are others in every epoch: what frozen layers make of them is not kept" in said[0]
    said = noted(lambda: run(backbone, tmp_path / "without", method=None, data={"b": DATA["b"]}, recipe=Recipe(epochs=1)))
    assert said == []
    with_it, without = packs
    assert (with_it.features is None, without.features is None) == (True, False)
    assert (with_it.programs.augment, without.programs.augment) == (Augment.of("crop+flip"), None)


@pytest.mark.slow
def test_all_of_it_at_once(backbone: Backbone, tmp_path: Path) -> None:
    said = "crop+flip+colour+randaugment+mixup+cutmix"
    changes: dict[str, Any] = {"recipe": RECIPE.replace(augment=said, epochs=1)}
    found, again = run(backbone, tmp_path / "one", **changes), run(backbone, tmp_path / "again", **changes)
    for name, adapter in found.items():
        assert all(np.isfinite(tensor).all() for tensor in adapter.values())
        assert same(again[name], adapter)


def test_what_is_refused(backbone: Backbone, tiny: Backbone, tmp_path: Path) -> None:
    line = refused(lambda: Recipe(augment="crop+turn"))
    assert line is not None
    assert line.startswith("augment 'crop+turn': 'turn' is none of crop, flip, colour")
    line = refused(lambda: train_many(tiny, {"a": toy_rows()}, tmp_path, recipe=Recipe(augment="flip"), progress=False))
    assert line == "a: augment is for pictures, and this backbone reads input of kind 'text'."
