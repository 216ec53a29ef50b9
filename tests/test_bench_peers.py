"""Peers train what graftax trains: same start, same batches, same rates, so the same losses and logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import METHODS, logits
from conftest import MINILM, SHARED, needs_assets
from test_hub import PYTHON as HUB
from tiny import toy_rows

from graftax import GraftaxError, LoRA, Method, Recipe, load_adapter, load_backbone
from graftax.bench.peers import PeerResult, run_peer
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.models.tokens import Tokenizer
from graftax.train import train
from graftax.train.data import Columns, read_examples
from graftax.train.job import Job, prepare
from graftax.train.rows import Rows
from graftax.train.tasks import task_named

RECIPE = Recipe(epochs=2, batch_size=8, lr=3e-3, warmup=0.2, weight_decay=0.05, clip=0.5, schedule="cosine", max_length=24)
TRAIN, TEST = toy_rows(count=22), toy_rows(count=9, seed=1)  # batches of 8, 7 and 7


def job_of(
    backbone: Backbone, method: Sequence[Method], recipe: Recipe = RECIPE, data: Any = TRAIN, task: str = "classify"
) -> Job:
    known = {"backbone": backbone, "task": task_named(task), "columns": Columns(), "tokenizer": Tokenizer.of(backbone)}
    return prepare("cell", data, None, method=method, recipe=recipe, **known)


def rows_of(backbone: Backbone, job: Job, data: Any = TEST) -> Rows:
    task = task_named(job.adapter.task)
    examples = read_examples(data, Columns(), task.name)
    return task.rows(examples, job.adapter.labels, Tokenizer.of(backbone), job.recipe.max_length)


def ours(backbone: Backbone, job: Job, test: Rows, out: Path, data: Any = TRAIN) -> tuple[np.ndarray, list[float]]:
    """The logits of graftax's own adapter of the job, and its mean loss of each epoch."""
    body = [method for method in job.adapter.methods if method.name != "head"]
    made = train(backbone, data, out, method=body, task=job.adapter.task, recipe=job.recipe, progress=False)
    inputs = Tokenizer.of(backbone).pad(test.tokens, len(test), max(test.lengths))
    said = logits(backbone, load_adapter(made.directory, backbone), inputs)
    return said[:, : len(job.adapter.labels)], [line["loss"] for line in made.history]


def assert_same(peer: PeerResult, job: Job, mine: tuple[np.ndarray, list[float]], tolerance: float = 1e-4) -> None:
    epochs = np.array(peer.losses).reshape(job.recipe.epochs, job.steps_per_epoch).mean(axis=1)
    np.testing.assert_allclose(epochs, mine[1], atol=tolerance)
    np.testing.assert_allclose(peer.logits, mine[0], atol=tolerance)
    assert epochs[-1] < epochs[0] - 10 * tolerance  # something was trained
    assert len(peer.step_seconds) == len(peer.losses)
    assert 0.0 < sum(peer.step_seconds) < peer.process_seconds
    assert peer.peak_bytes > 1 << 24


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        "probe",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ia3", "dora", "oft", "prefix", "prompt", "adalora", "vera")),
    ],
)
def test_peft_trains_the_same(name: str, tiny: Backbone, tmp_path: Path) -> None:
    job = job_of(tiny, METHODS[name])
    test = rows_of(tiny, job)
    peer = run_peer("peft", tiny, job, test)
    assert_same(peer, job, ours(tiny, job, test, tmp_path / "cell"))
    assert {"python", "torch", "transformers", "peft"} == peer.versions.keys()
