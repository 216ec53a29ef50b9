"""Adapters on a Transformer of pictures: of several methods, trained in one run, asked in one batch, merged; kept features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PATCHES
from safetensors.numpy import save_file
from test_kept_pictures import assert_same, kept_shapes, run

from graftax import (
    VPT,
    BitFit,
    LoRA,
    Method,
    Predictor,
    Prefix,
    PromptTuning,
    Recipe,
    load_adapter,
    load_backbone,
    merge,
    train_many,
)
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone, random_tensors

CONFIG = PATCHES["vit"] | {"image_mean": 0.5, "image_std": 0.3}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("patches") / "vit"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    tensors = {key: tensor if "layernorm" in key else 10 * tensor for key, tensor in random_tensors(CONFIG).items()}
    save_file(tensors, directory / "model.safetensors")
    return directory


def rows() -> list[dict[str, Any]]:
    """Pictures that are dark or light on their left."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)
    pixels[::2, :, :8], pixels[1::2, :, :8] = pixels[::2, :, :8] // 4, 255 - pixels[1::2, :, :8] // 4
    return [{"image": picture, "label": ("dark", "light")[i % 2]} for i, picture in enumerate(pixels)]


@pytest.mark.slow
def test_several_methods(checkpoint: Path, tmp_path: Path) -> None:
    backbone, data = load_backbone(checkpoint), rows()
    methods: dict[str, Method] = {
        "lora": LoRA(),
        "prefix": Prefix(tokens=4),
        "prompt": PromptTuning(tokens=4),
        "vpt": VPT(tokens=4),
    }
    results = train_many(
        backbone,
        dict.fromkeys(methods, data),
        tmp_path / "adapters",
        task="image-classify",
        recipe=Recipe(epochs=12, lr=5e-3, batch_size=8),
        each={name: {"method": method} for name, method in methods.items()},
        progress=False,
    )
    predictor = Predictor(backbone)
    for name, result in results.items():
        predictor.load(name, result.directory)
    mixed = predictor.predict([row["image"] for row in data], [*methods] * 8)
    assert np.mean([one.label == row["label"] for one, row in zip(mixed, data, strict=True)]) > 0.9
    whole, head = merge(backbone, load_adapter(results["lora"].directory, backbone))
    alone = Predictor(whole)
    alone.load("head", head)
    merged = alone.predict([row["image"] for row in data[::4]], "head")
    for one, other in zip(merged, mixed[::4], strict=True):
        assert (one.label, one.score) == (other.label, pytest.approx(other.score, abs=1e-4))


#: A method, and what is kept of a picture of 16 patches below it: what enters the first changed layer, or the class token.
CUTS: dict[str, tuple[Method | None, tuple[int, ...]]] = {
    "last-layer": (LoRA(r=2, alpha=3.0, targets=r".*layers\.2\..*q_proj"), (17, 32)),
    "final-norm": (BitFit(targets=r"vit\.layernorm"), (1, 32)),
    "probe": (None, (1, 32)),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case == "probe" else pytest.mark.slow) for case in CUTS])
def test_what_frozen_layers_say_is_kept(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone: Backbone = random_backbone(CONFIG | {"image_size": 12, "patch_size": 3}, seed=7)
    (method, shape), kept = CUTS[case], kept_shapes(monkeypatch)
    found = run(backbone, tmp_path / "kept", method)
    assert kept == {shape}
    monkeypatch.setattr(Backbone, "has_frozen_layers", lambda self, cut: False)
    assert_same(found, run(backbone, tmp_path / "anew", method), within=1e-5)
