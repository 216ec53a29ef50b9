"""Short runs of training: their data and recipe, what they leave on disk, and how to stop one in the middle."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import toy_rows

from graftax.adapters import METHODS
from graftax.models.backbone import Backbone
from graftax.train import Examples, Recipe, Result, train_many
from graftax.train.queue import Run

QUICK = Recipe(epochs=2, lr=5e-3, batch_size=8, max_length=16)
SIZES = {"a": 21, "b": 12, "c": 30, "d": 9, "e": 17}
DATA = {name: toy_rows(count=count, seed=ord(name)) for name, count in SIZES.items()}
#: Methods whose default size is too large for the tiny backbone.
SMALLER: dict[str, dict[str, Any]] = {"miss": {"r": 6}, "road": {"group_size": 8}, "shira": {"r": 4}}
SMALLER |= {"alora": {"invocation": (2,)}, "trainable_tokens": {"ids": (5, 11)}}  # and those that must be told of tokens
#: Methods by name, without those that find no place in a backbone of texts.
ON_TEXTS = [name for name in METHODS if name not in ("adabn", "convpass", "vpt", "joint", "maple")]


def run_many(backbone: Backbone, data: dict[str, Any], out: Path, **settings: Any) -> dict[str, Result]:
    return train_many(backbone, data, out, **{"recipe": QUICK, "progress": False, **settings})


def tensors(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "adapter_model.safetensors")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def nan_rows() -> Examples:
    """Regression rows whose labels are NaN, past the reader that would refuse them."""
    rows = toy_rows("regress", 16)
    return Examples({"text": tuple(row["text"] for row in rows)}, (float("nan"),) * 16)


def stop_after(monkeypatch: pytest.MonkeyPatch, ticks: int, then: Callable[[Run], None]) -> None:
    """Call `then(run)` at the end of a tick."""
    fill = Run._fill

    def counted(self: Run) -> None:
        fill(self)
        if self.ticks == ticks:
            then(self)

    monkeypatch.setattr(Run, "_fill", counted)


def interrupt(run: Run) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
