"""A tiny ViT that sees colours, so that heads over its feature maps have something to learn."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import PICTURES
from safetensors.numpy import save_file

from graftax.models.random import random_tensors


def a_vit_of_colours(directory: Path) -> Path:
    """Its directory: random weights, large enough to be learnt from."""
    config = PICTURES["vit"]
    tensors = {key: 5 * t if "layernorm" not in key else t for key, t in random_tensors(config, 7).items()}
    (directory / "config.json").write_text(json.dumps({**config, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory
