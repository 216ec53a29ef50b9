"""What frozen blocks make of pictures, kept: adapters whose cut lies in any of a ResNet's stacks train as they do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTURES
from runs import interrupt, stop_after, tensors

from graftax import Adapter, BitFit, Bottleneck, LoRA, Method, Recipe, large, train_many
from graftax.adapters.adapter import Layout
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.train import Interrupted
from graftax.train.features import FeatureStore

#: A method, and the shape of what is kept of a picture of 12 x 12 pixels below it: the map that enters the first changed block.
CUTS: dict[str, tuple[Method | None, tuple[int, ...]]] = {
    "second-block": (LoRA(r=2, alpha=3.0, targets=r"layer1\.1\..*conv.*"), (12, 12, 4)),
    "second-stack": (LoRA(r=2, alpha=3.0, targets=r"layer2\.0\..*"), (12, 12, 4)),
    "third-stack": (BitFit(targets=r"layer2\.1\..*"), (6, 6, 6)),
    "fourth-stack": (Bottleneck(width=2, targets=r"layer3\.0\..*"), (6, 6, 6)),
    "last-stack": (LoRA(r=2, alpha=3.0, targets=r"layer3\.1\..*"), (3, 3, 10)),
    "first-and-last": (LoRA(r=2, alpha=3.0, targets=r"layer(1\.1|3\.1)\..*conv2"), (12, 12, 4)),
    "probe": (None, (10,)),
}
FAST = ("first-and-last", "last-stack", "probe")
SGD = Recipe(epochs=3, lr=0.05, batch_size=4, optimizer="sgd")
DATA: dict[str, Any] = {
    name: [
        {"image": np.random.default_rng([i, seed]).integers(0, 256, (12, 12, 3), np.uint8), "label": "xyz"[i % 3]}
        for i in range(count)
    ]
    for seed, (name, count) in enumerate({"a": 13, "b": 9, "c": 14}.items())
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone(PICTURES["cifar_resnet"] | {"image_size": 12}, seed=7)


def run(backbone: Backbone, out: Path, method: Method | None) -> dict[str, dict[str, np.ndarray]]:
    settings: dict[str, Any] = {"method": method, "task": "image-classify", "recipe": SGD, "val": 0.25, "pack_size": 2}
    train_many(backbone, DATA, out, **settings, progress=False)
    return {name: tensors(out / name) for name in DATA}


def assert_same(one: Any, other: Any, within: float = 0.0) -> None:
    for name, own in other.items():
        assert one[name].keys() == own.keys()
        for key, tensor in own.items():
            np.testing.assert_allclose(one[name][key], tensor, rtol=0.0, atol=within, err_msg=f"{name} {key}")


def kept_shapes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, ...]]:
    """The shapes of what is kept of an item, as jobs come to have it from now on."""
    kept: set[tuple[int, ...]] = set()
    expect = FeatureStore.expect

    def seen(self: FeatureStore, job: Any) -> None:
        expect(self, job)
        assert self._like is not None
        kept.add(self._like.shape)

    monkeypatch.setattr(FeatureStore, "expect", seen)
    return kept


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in CUTS])
def test_kept_maps_train_the_same(case: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-5 of the run that computes them anew in every step; on disk, and once stopped, bit for bit as in memory."""
    (method, shape), kept = CUTS[case], kept_shapes(monkeypatch)
    found = run(backbone, tmp_path / "kept", method)
    assert kept == {shape}
    monkeypatch.setattr(large, "IN_MEMORY", 0)
    assert_same(run(backbone, tmp_path / "disk", method), found)
    monkeypatch.undo()
    if case == "last-stack":
        with monkeypatch.context() as stopping:
            stop_after(stopping, 9, interrupt)
            with pytest.raises(Interrupted):
                run(backbone, tmp_path / "cut", method)
        assert_same(run(backbone, tmp_path / "cut", method), found)
    monkeypatch.setattr(Backbone, "has_frozen_layers", lambda self, cut: False)
    anew = run(backbone, tmp_path / "anew", method)
    assert_same(found, anew, within=1e-5)


def test_what_acts_below_all_blocks_keeps_nothing(backbone: Backbone) -> None:
    stem = Adapter.create((LoRA(targets=("conv1",)), backbone.head(3)), backbone.sites)
    assert not backbone.has_frozen_layers(Layout.of([stem], backbone.sites).cut(backbone.structure))
