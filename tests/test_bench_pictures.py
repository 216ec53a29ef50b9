"""Suites of pictures: the rows, the baselines, pictures prepared as the suite says, and PEFT on the same pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTURES
from safetensors.numpy import save_file
from torch_resnet import mobilenet

from graftax import load_adapter, load_backbone
from graftax.benchmarks.baselines import mean_features
from graftax.benchmarks.draws import read_task
from graftax.benchmarks.own_preparation import prepared_as
from graftax.benchmarks.results import Predictions, read
from graftax.benchmarks.runner import run_suite
from graftax.benchmarks.suite import NEAREST_MEAN, Suite, load_suite
from graftax.errors import GraftaxError
from graftax.models.pictures import Pictures
from graftax.models.preparation import Preparation
from graftax.models.random import random_tensors
from graftax.tasks.task_registry import task_named

SUITE = """
backbones = ["{backbone}"]
data = "{folder}"
sizes = [6]
seeds = 2
lrs = [1e-3, 1e-2]
epochs = 2
steps = 1
doublings = 1
widen = 0
batch_size = 4
picture_size = 32
normalisation = "imagenet"

[tasks.shades]
kind = "image-classify"
train = "shades.npz:train"
test = "shades.npz:test"
val = 0.3

[methods.probe]
[methods.bitfit]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny MobileNet, and pictures that are dark or bright."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "mobile").mkdir()
    (folder / "mobile" / "config.json").write_text(json.dumps(PICTURES["mobilenet_v2"]))
    save_file(random_tensors(PICTURES["mobilenet_v2"]), folder / "mobile" / "model.safetensors")
    preparation = {"size": {"height": 40, "width": 40}, "image_mean": [0.5] * 3, "image_std": [0.3] * 3}
    (folder / "mobile" / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "resample": 3, **preparation})
    )
    random, arrays = np.random.default_rng(0), dict[str, Any]()
    for split, count in (("train", 40), ("test", 24)):
        y = np.arange(count) % 2
        x = random.integers(0, 128, (count, 20, 20, 3)) + 127 * y[:, None, None, None]
        arrays |= {f"x_{split}": x.astype(np.uint8), f"y_{split}": y}
    np.savez(folder / "shades.npz", **arrays, classes=np.array(["dark", "bright"]))
    return folder


@pytest.fixture(scope="module")
def suite(folder: Path) -> Suite:
    (folder / "suite.toml").write_text(SUITE.format(backbone=folder / "mobile", folder=folder))
    return load_suite(str(folder / "suite.toml"))


def test_a_suite_of_pictures_runs(suite: Suite, folder: Path) -> None:
    """All cells have values, the adapters are where the records say, and the yardstick is the nearest class mean."""
    out = folder / "out"
    records = run_suite(suite, out, say=lambda line: None)
    assert [r.error for r in records if r.error] == []
    final = [r for r in records if r.split == "test"]
    assert {(r.method, r.seed) for r in final} == {(m, s) for m in (NEAREST_MEAN, "probe", "bitfit") for s in (0, 1)}
    task = read_task(suite, "shades", suite.tasks["shades"])
    backbone = load_backbone(out / "backbones" / "mobile")
    for record in final:
        assert record.predictions is not None
        assert record.worst_slice_name in ("label dark", "label bright")  # pictures are neither long nor short
        if record.method == NEAREST_MEAN:
            known, asked = (
                task_named("image-classify").prepare(rows, ("dark", "bright"), backbone.processor, 1)
                for rows in (task.draw("final", 6, record.seed), task.test)
            )
            features = mean_features(backbone, known)
            gold = np.array(known.labels)
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            means = np.stack([unit[gold == label].mean(0) for label in (0, 1)])
            near = mean_features(backbone, asked) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
            np.testing.assert_array_equal(Predictions.load(out / record.predictions).said, near.argmax(1))
        else:
            assert record.rows == 12
            load_adapter(out / "adapters" / record.cell.id, backbone)


def test_features_are_means_over_a_pictures_places(suite: Suite, folder: Path) -> None:
    backbone = load_backbone(folder / "mobile")
    rows = read_task(suite, "shades", suite.tasks["shades"]).test
    items = task_named("image-classify").prepare(rows, ("dark", "bright"), backbone.processor, 1)
    inputs = backbone.processor.lay(items.items[:1], [(0, 0)], backbone.processor.shape_to_ask(items.items[:1], 1))
    hidden = np.asarray(backbone.encode(backbone.params, {}, inputs).hidden)[0]
    np.testing.assert_allclose(mean_features(backbone, items)[0], hidden.mean((0, 1)), atol=1e-5)


def test_pictures_are_prepared_as_the_suite_says(suite: Suite, folder: Path, tmp_path: Path) -> None:
    """What it leaves open is the checkpoint's: here the filter. The checkpoint's directory stays as it was."""
    own = load_backbone(folder / "mobile")
    changed = prepared_as(suite, own, tmp_path)
    assert isinstance(changed.processor, Pictures)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = Preparation((32, 32), 3, (32, 32), 3, scale=1 / 255, mean=mean, std=std)
    assert changed.processor.preparation == wanted
    assert load_backbone(tmp_path / "mobile").processor.preparation == wanted
    assert load_backbone(tmp_path / "mobile").fingerprint == own.fingerprint
    assert own.processor.preparation.size == load_backbone(folder / "mobile").processor.preparation.size == (40, 40)


def test_suites_without_such_wishes_leave_backbones_alone(suite: Suite, folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    own = load_backbone(folder / "mobile")
    assert prepared_as(replace(suite, picture_size=None, normalisation=None), own, tmp_path) is own
    assert [*tmp_path.iterdir()] == []


def test_an_unknown_normalisation_is_named(folder: Path, suite: Suite) -> None:
    (folder / "other.toml").write_text(SUITE.format(backbone="m", folder=folder).replace("imagenet", "imagnet"))
    with pytest.raises(GraftaxError, match="normalisation 'imagnet' is none of imagenet, half"):
        load_suite(str(folder / "other.toml"))
