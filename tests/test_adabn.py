"""AdaBN: batch norms with the statistics of the rows, as torch estimates them, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from conftest import GetBackbone
from feature_maps import to_torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch_resnet import RESNET, ResNet, resnet

from graftax import AdaBN, Adapter, Columns, GraftaxError, Recipe, load_adapter, load_backbone, merge, save_adapter
from graftax.adapters.adapter import Layout
from graftax.data.batches import Shape, plan_epoch
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.tasks.read_examples import read_examples
from graftax.tasks.task_registry import task_named
from graftax.train.calibration import Calibration

SIZE = 16


def made(directory: Path, **changes: Any) -> tuple[ResNet, Backbone]:
    """A small ResNet in torch and here, which says how pictures are prepared."""
    model = resnet(directory)
    config = RESNET | {"image_size": SIZE, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]} | changes
    (directory / "config.json").write_text(json.dumps(config))
    return model, load_backbone(directory)


def some_rows(count: int) -> list[dict[str, Any]]:
    """Pictures of few colours each, so that no two batches have the same statistics."""
    random = np.random.default_rng(3)
    tints = random.integers(0, 200, (count, 1, 1, 3))
    pixels = (tints + random.integers(0, 56, (count, SIZE, SIZE, 3))).astype(np.uint8)
    return [{"image": picture, "label": "abc"[i % 3]} for i, picture in enumerate(pixels)]


def laid(backbone: Backbone, rows: list[dict[str, Any]]) -> np.ndarray:
    """The rows as the backbone reads them."""
    asked = [backbone.processor.asked(row, "a row", None)["image"] for row in rows]
    items = backbone.processor.items({"image": asked}, 1)
    pixels: np.ndarray = backbone.processor.lay(
        items, [(row, 0) for row in range(len(rows))], Shape(len(rows), len(rows), shared=False)
    ).pixels
    return pixels


def norms_of(model: torch.nn.Module) -> dict[str, torch.nn.BatchNorm2d]:
    return {path: module for path, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}


def created(backbone: Backbone, rows: list[dict[str, Any]], batch_size: int) -> Adapter:
    """As a job of these rows would begin."""
    task, recipe = task_named("image-classify"), Recipe(batch_size=batch_size, seed=5)
    examples = read_examples(rows, Columns(), task, backbone.processor)
    prepared = task.prepare(examples, "abc", backbone.processor, 1)
    shape = Shape(batch_size, batch_size, shared=False)
    data = Calibration(backbone, task, backbone.processor, recipe, None, prepared, shape)
    return Adapter.create((AdaBN(),), backbone.sites, training=data)


def batches(count: int, batch_size: int) -> list[tuple[int, ...]]:
    """Which rows are in which batch."""
    shape = Shape(batch_size, batch_size, shared=False)
    return [planned.items for planned in plan_epoch([1] * count, shape, 5, 0)]


def assert_same_features(model: ResNet, backbone: Backbone, adapter: Adapter, pixels: np.ndarray) -> None:
    """What the head reads is what torch's last layer does."""
    with torch.no_grad():
        model(to_torch(pixels))
        wanted = model.blocks[-1].mean((2, 3)).numpy()
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    found = jax.jit(lambda *args: backbone.encode(*args).pooled)(backbone.params, state, ImageInputs(pixels))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_as_torch_estimates_them(tmp_path: Path) -> None:
    """In one pass in `train()` with `momentum=None`; they are in the file, and the merged model's."""
    model, backbone = made(tmp_path)
    rows = some_rows(24)
    adapter, pixels = created(backbone, rows, 8), laid(backbone, rows)
    for norm in norms_of(model).values():
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for items in batches(24, 8):
            model(to_torch(pixels[list(items)]))
    model.eval()
    directory = save_adapter(adapter, tmp_path / "a", backbone)
    adapter = load_adapter(directory, backbone)
    assert_same_features(model, backbone, adapter, pixels)
    tensors, state = load_file(directory / "adapter_model.safetensors"), model.state_dict()
    there = {key for key in state if "running_" in key}
    assert {key.removeprefix("base_model.model.") for key in tensors if "running_" in key} == there
    for key in there:
        np.testing.assert_allclose(tensors[f"base_model.model.{key}"], state[key].numpy(), rtol=1e-4, atol=1e-4)
    merged, left = merge(backbone, adapter)
    for weight in (weight for weight in merged.weights if weight.leaf in ("mean", "var")):
        found = merged.arrays()[weight.name][... if weight.layer is None else weight.layer]
        np.testing.assert_allclose(found, state[weight.key].numpy(), rtol=1e-4, atol=1e-4)
    assert left.methods == ()


def test_a_batch_counts_by_its_pictures(tmp_path: Path) -> None:
    """Where batches are not full, what fills them up is not counted."""
    model, backbone = made(tmp_path)
    rows = some_rows(7)
    adapter, pixels = created(backbone, rows, 4), laid(backbone, rows)
    assert sorted(map(len, batches(7, 4))) == [3, 4]
    norms, wanted = norms_of(model.train()), {}
    with torch.no_grad():
        for items in batches(7, 4):
            for norm in norms.values():
                norm.momentum = 1.0
            model(to_torch(pixels[list(items)]))
            for path, norm in norms.items():
                assert norm.running_var is not None
                wanted[path] = wanted.get(path, 0.0) + len(items) / 7 * norm.running_var.numpy()
    for site, (own, fixed) in adapter.states["adabn"].items():
        assert own == {}
        np.testing.assert_allclose(site.weights().var + fixed["var"], wanted[site.path], rtol=1e-4, atol=1e-4)


def test_no_statistics_no_method(tmp_path: Path, backbone_of: GetBackbone) -> None:
    """Without batch norms; with folded ones, whose scale nobody knows; with a single picture."""
    with pytest.raises(GraftaxError, match="adabn renews the statistics of batch norms, and this backbone has none"):
        Adapter.create((AdaBN(),), backbone_of("vit").sites)
    model, backbone = made(tmp_path)
    with pytest.raises(GraftaxError, match="statistics of batch norms need two pictures at least"):
        created(backbone, some_rows(1), 4)
    folded = {"layer1.0.bn1.running_mean": torch.zeros(4), "layer1.0.bn1.running_var": torch.full((4,), 1.0 - 1e-3)}
    (tmp_path / "folded").mkdir()
    _, backbone = made(tmp_path / "folded")
    save_file(model.state_dict() | folded, tmp_path / "folded" / "model.safetensors")
    said = r"layer1\.0\.bn1 has no statistics that could be renewed \(mean 0 and variance 0\.999 in every channel\)"
    with pytest.raises(GraftaxError, match=said):
        created(load_backbone(tmp_path / "folded"), some_rows(4), 4)
