"""Adapters for MiniLM, LoRA as directories that both sides read; used by mixed.py, swap.py and cold_start.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import MINILM, Work

LABELS = 16


def adapter(backbone: Any, seed: int, head: bool = True, method: str = "lora") -> Any:
    """By default r 8 on query and value and, with `head`, a classifier; no leaf at zero."""
    import numpy as np

    import graftax

    methods = (graftax.METHODS[method](), *([backbone.head(LABELS)] if head else []))
    names = tuple(f"label{i}" for i in range(LABELS if head else 0))
    fresh = graftax.Adapter.create(methods, backbone.sites, seed, labels=names, fingerprint=backbone.fingerprint)
    random = np.random.default_rng(seed)
    for states in fresh.states.values():
        for trainable, _ in states.values():
            for leaf in trainable:
                trainable[leaf] = random.normal(0.0, 0.02, trainable[leaf].shape).astype(np.float32)
    return fresh


def write(out: str, count: int, head: bool = True) -> Work:
    """A worker that saves adapters 0 ... count - 1 to `out/N`."""
    import graftax

    backbone = graftax.load_backbone(MINILM)
    for seed in range(count):
        graftax.save_adapter(adapter(backbone, seed, head), Path(out) / str(seed), backbone)
    yield {}
