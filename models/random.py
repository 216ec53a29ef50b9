"""Backbones with random weights, for tests and for benchmarks of shapes whose real weights are not at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .backbone import Backbone
from .family_registry import family_of
from .load import stack_weights
from .parts import Part


def random_tensors(config: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """A checkpoint's tensors for a Hugging Face config: normal weights, norms near one, small biases."""
    family = family_of(config.get("model_type"))
    typed = family.configure(config)
    random = np.random.default_rng(seed)
    tensors = {}
    for part in family.parts(typed):
        for weight in part.weights(family.layer_paths(typed)):
            noise = _spread(part) * random.standard_normal(weight.stored_shape, np.float32)
            tensors[weight.key] = noise + 1.0 if weight.leaf in ("scale", "var") else noise
    return tensors


def _spread(part: Part) -> float:
    """That of a convolution keeps what many of them make of a picture from growing or fading (He et al., arXiv:1502.01852)."""
    return math.sqrt(2.0 / math.prod(part.shape[:-1])) if part.kind == "conv" else 0.02


def random_backbone(
    config: Mapping[str, Any], seed: int = 0, dtype: str = "float32", quantize: str | None = None, remat: str = "none"
) -> Backbone:
    """A backbone of the given Hugging Face config with `random_tensors`; the rest as of `load_backbone`."""
    family = family_of(config.get("model_type"))
    typed = family.configure(config)
    arrays, fingerprint = stack_weights(family, typed, random_tensors(config, seed), dtype, quantize)
    known: dict[str, Any] = {"fingerprint": fingerprint, "name": f"random-{config['model_type']}", "hf_config": dict(config)}
    return Backbone.build(family, typed, arrays, quantize=quantize, remat=remat, **known)
