"""Pairs of towers, tiny: pictures with texts that they learn from, and what is kept of their frozen layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import FRUIT

from graftax.models.backbone import Backbone
from graftax.train.features import FeatureStore

PIXELS = 8  # along each side of a tiny picture


def prepared(directory: Path) -> Path:
    """A backbone's directory that says how pictures are prepared."""
    said = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": PIXELS}}
    (directory / "preprocessor_config.json").write_text(json.dumps(said | {"crop_size": {"height": PIXELS, "width": PIXELS}}))
    return directory


def rows(count: int, names: Sequence[str] = FRUIT[:4], seed: int = 0) -> list[dict[str, Any]]:
    """Noisy pictures, each of a class whose name is in its text."""
    random = np.random.default_rng(seed)
    classes = np.random.default_rng(1).integers(0, 256, (len(FRUIT), PIXELS, PIXELS, 3))
    found = []
    for i in range(count):
        name = names[i % len(names)]
        noisy = classes[FRUIT.index(name)] + random.integers(-40, 40, (PIXELS, PIXELS, 3))
        found.append({"image": np.clip(noisy, 0, 255).astype(np.uint8), "text": f"a red {name}"})
    return found


def kept(both: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes of what is computed once and kept, as it is computed."""
    shapes: list[Any] = []
    before = FeatureStore.expect

    def expect(store: FeatureStore, job: Any) -> None:
        before(store, job)
        shapes.append(store._like.shape if store._like else None)

    monkeypatch.setattr(FeatureStore, "expect", expect)
    return shapes
