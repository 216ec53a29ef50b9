"""Peers train what graftax trains: same start, same batches, same rates, so the same losses and logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import METHODS, logits
from conftest import CONFIGS, MINILM, SHARED, needs_assets
from of_texts import read_examples
from safetensors.numpy import save_file
from tiny import toy_rows, write_backbone
from torch_resnet import mobilenet

from graftax import GraftaxError, LoRA, Method, Recipe, load_adapter, load_backbone
from graftax.benchmarks.peers import PeerResult, run_peer
from graftax.data.columns import Columns
from graftax.data.prepared import Prepared
from graftax.data.sources import read_file
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone, random_tensors
from graftax.models.tokens import Tokenizer
from graftax.serve.evaluation import outputs_of
from graftax.tasks.read_examples import read_examples as read_picture_examples
from graftax.tasks.task_registry import task_named
from graftax.train import train
from graftax.train.intake import prepare
from graftax.train.job import Job

HUB = Path(__file__).resolve().parent.parent / ".venv-adapterhub" / "bin" / "python"
Mine = tuple[np.ndarray, list[float]]
RECIPE = Recipe(epochs=2, batch_size=8, lr=3e-3, warmup=0.2, weight_decay=0.05, clip=0.5, schedule="cosine", max_length=24)
TRAIN, TEST = toy_rows(count=22), toy_rows(count=9, seed=1)  # batches of 8, 7 and 7


def job_of(
    backbone: Backbone, method: Sequence[Method], recipe: Recipe = RECIPE, data: Any = TRAIN, task: str = "classify"
) -> Job:
    known = {"backbone": backbone, "task": task_named(task), "columns": Columns()}
    return prepare("cell", data, None, method=method, recipe=recipe, **known)


def rows_of(backbone: Backbone, job: Job, data: Any = TEST) -> Prepared:
    task = task_named(job.adapter.task)
    examples = read_examples(data, Columns(), task.name)
    return task.prepare(examples, job.adapter.labels, Tokenizer.of(backbone), job.recipe.max_length)


def ours(backbone: Backbone, method: Sequence[Method], job: Job, test: Prepared, out: Path, data: Any = TRAIN) -> Mine:
    """The logits of graftax's own adapter of the job, and its mean loss of each epoch."""
    settings = {"method": method, "task": job.adapter.task, "recipe": job.recipe, "progress": False}
    made = train(backbone, data, out, **settings)
    inputs = Tokenizer.of(backbone).pad(test.items, len(test), max(test.lengths))
    said = logits(backbone, load_adapter(made.directory, backbone), inputs)
    return said[:, : len(job.adapter.labels)], [line["loss"] for line in made.history]


def assert_same(peer: PeerResult, job: Job, mine: Mine, tolerance: float = 1e-4) -> None:
    epochs = np.array(peer.losses).reshape(job.recipe.epochs, job.steps_per_epoch).mean(axis=1)
    np.testing.assert_allclose(epochs, mine[1], atol=tolerance)
    np.testing.assert_allclose(peer.logits, mine[0], atol=tolerance)
    assert epochs[-1] < epochs[0] - 10 * tolerance  # something was trained
    assert len(peer.step_seconds) == len(peer.losses)
    assert 0.0 < sum(peer.step_seconds) < peer.process_seconds
    assert peer.peak_bytes > 1 << 24


METHODS_OF_PEFT = ("lora", "probe", "ia3", "dora", "oft", "prefix", "prompt", "adalora", "vera", "boft-1", "hra", "ln_tuning")


@pytest.mark.slow  # how a peer is run is always tested, and `make test-adapterhub` trains with another one
@pytest.mark.parametrize("name", [*METHODS_OF_PEFT, "fourierft"])
def test_peft_trains_the_same(name: str, tiny: Backbone, tmp_path: Path) -> None:
    job = job_of(tiny, METHODS[name])
    test = rows_of(tiny, job)
    peer = run_peer("peft", tiny, job, test)
    assert_same(peer, job, ours(tiny, METHODS[name], job, test, tmp_path / "cell"))
    assert {"python", "torch", "transformers", "peft"} == peer.versions.keys()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regress"])
def test_other_tasks(task: str, tiny: Backbone, tmp_path: Path) -> None:
    data = toy_rows(task, count=22)
    job = job_of(tiny, METHODS["lora"], data=data, task=task)
    test = rows_of(tiny, job, toy_rows(task, count=9, seed=1))
    peer = run_peer("peft", tiny, job, test)
    assert_same(peer, job, ours(tiny, METHODS["lora"], job, test, tmp_path / "cell", data))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "distilbert", "albert"])
def test_other_families(family: str, tmp_path: Path) -> None:
    """Other positions, other heads, no token types."""
    config, directory = CONFIGS[family] | {"vocab_size": 160}, tmp_path / "backbone"
    write_backbone(directory)  # for its tokenizer
    (directory / "config.json").write_text(json.dumps(config))
    # else transformers takes the class that ALBERT's usually has, which is no WordPiece
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    save_file(random_tensors(config, seed=7), directory / "model.safetensors", metadata={"format": "pt"})
    backbone = load_backbone(directory)
    job = job_of(backbone, METHODS["lora"])
    test = rows_of(backbone, job)
    peer = run_peer("peft", backbone, job, test)
    assert_same(peer, job, ours(backbone, METHODS["lora"], job, test, tmp_path / "cell"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "probe"])
def test_pictures(name: str, tmp_path: Path) -> None:
    """The same pixels, and on both sides the batch norms' statistics that the checkpoint has.

    Without TensorFlow's padding: with it transformers asks the convolution for its stride, which PEFT's LoRA there has not.
    """
    directory = tmp_path / "backbone"
    directory.mkdir()
    mobilenet(directory, tf_padding=False)
    preparation = {"size": {"height": 18, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.3] * 3}
    (directory / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", **preparation})
    )
    backbone, random = load_backbone(directory), np.random.default_rng(0)
    rows = [{"image": random.integers(0, 256, (18, 16, 3)).astype(np.uint8), "label": "ab"[i % 2]} for i in range(31)]
    task, known = task_named("image-classify"), {"backbone": backbone, "columns": Columns()}
    job = prepare("cell", rows[:22], None, method=METHODS[name], recipe=RECIPE, task=task, **known)
    examples = read_picture_examples(rows[22:], Columns(), task, backbone.processor)
    test = task.prepare(examples, job.adapter.labels, backbone.processor, 1)
    peer = run_peer("peft", backbone, job, test)
    made = train(
        backbone, rows[:22], tmp_path / "cell", method=METHODS[name], task="image-classify", recipe=RECIPE, progress=False
    )
    found = outputs_of(backbone, load_adapter(made.directory, backbone), test)
    said = np.stack([found[i] for i in range(len(rows) - 22)])
    assert_same(peer, job, (said, [line["loss"] for line in made.history]))


@pytest.mark.adapterhub
@pytest.mark.parametrize("name", ["pfeiffer", "houlsby", "parallel-learned", "prefix-unshifted", "lora"])
def test_adapters_trains_the_same(name: str, tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HUB.exists(), "there is no .venv-adapterhub; make test-adapterhub sets it up"
    monkeypatch.setenv("GRAFTAX_PEER_ADAPTERS", str(HUB))
    job = job_of(tiny, METHODS[name])
    test = rows_of(tiny, job)
    peer = run_peer("adapters", tiny, job, test)
    assert_same(peer, job, ours(tiny, METHODS[name], job, test, tmp_path / "cell"))
    assert peer.versions["adapters"] == "1.3.0"


@pytest.mark.slow
@needs_assets
def test_on_a_real_backbone(tmp_path: Path) -> None:
    backbone = load_backbone(MINILM)
    rows = read_file(SHARED / "data" / "sst2" / "train.csv").rows[:80]
    job = job_of(backbone, (LoRA(),), Recipe(epochs=4, batch_size=16, max_length=64), rows[:64])
    test = rows_of(backbone, job, rows[64:])
    peer = run_peer("peft", backbone, job, test)
    assert_same(peer, job, ours(backbone, (LoRA(),), job, test, tmp_path / "cell", rows[:64]))


# -- what is refused -------------------------------------------------------------------------------------------------------

CANNOT: dict[str, tuple[str, str, Recipe, str]] = {
    "library": ("peff", "lora", RECIPE, "unknown peer 'peff'; there are peft, adapters"),
    "bottleneck": ("peft", "houlsby", RECIPE, "^bottleneck: the peer peft has no such method"),
    "union": ("peft", "mam", RECIPE, r"^prefix\+bottleneck: the peer peft has no such method"),
    "network": ("peft", "p_tuning", RECIPE, "^p_tuning: a file holds the prompt and not the network"),
    "dora": ("adapters", "dora", RECIPE, "dora cannot be written for it"),
    "probe": ("adapters", "probe", RECIPE, "a head alone is no adapter there"),
    "lora+": ("peft", "lora", RECIPE.replace(lora_plus=4.0, optimizer="lion"), "leave out optimizer='lion', lora_plus=4.0"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_a_peer_cannot_do(case: str, tiny: Backbone) -> None:
    library, name, recipe, message = CANNOT[case]
    job = job_of(tiny, METHODS[name], recipe)
    with pytest.raises(GraftaxError, match=message):
        run_peer(library, tiny, job, rows_of(tiny, job), python="no-such-python")


def test_tasks_and_backbones_it_cannot(tiny: Backbone, tiny_dir: Path) -> None:
    job = job_of(tiny, METHODS["lora"], data=toy_rows("tag"), task="tag")
    with pytest.raises(GraftaxError, match="tasks classify, multilabel, regress, image-classify, not tag"):
        run_peer("peft", tiny, job, job.train)
    job = job_of(tiny, METHODS["lora"])
    with pytest.raises(GraftaxError, match="is compared in float32"):
        run_peer("peft", load_backbone(tiny_dir, dtype="bfloat16"), job, job.train)
    with pytest.raises(GraftaxError, match="loads the backbone from its directory"):
        run_peer("peft", random_backbone(CONFIGS["bert"], seed=1), job, job.train)


@pytest.mark.slow
def test_parameters_that_only_the_peer_would_train(tiny: Backbone) -> None:
    """PEFT reads LoRA-FA's file as a plain LoRA's, whose A it would train."""
    job = job_of(tiny, METHODS["lora_fa"])
    with pytest.raises(GraftaxError, match=r"^the peer peft failed: peft would train \d+ parameters.*, graftax trains \d+\.$"):
        run_peer("peft", tiny, job, job.train)


@pytest.mark.adapterhub
def test_rules_that_only_the_peer_would_train(tiny: Backbone) -> None:
    """A Compacter has a rule for each site here; in a file of `adapters` that is one for each matrix."""
    job = job_of(tiny, METHODS["compacter"])
    with pytest.raises(GraftaxError, match=r"^the peer adapters failed: adapters would train \d+ parameters"):
        run_peer("adapters", tiny, job, job.train, python=str(HUB))


def test_which_python(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then the variable; without either one that has the library, and there is none for `adapters`."""
    job = job_of(tiny, METHODS["lora"])
    monkeypatch.delenv("GRAFTAX_PEER_ADAPTERS", raising=False)
    with pytest.raises(GraftaxError, match=r"no Python with the peer adapters.*GRAFTAX_PEER_ADAPTERS"):
        run_peer("adapters", tiny, job, job.train)
    monkeypatch.setenv("GRAFTAX_PEER_ADAPTERS", "no-such-python")
    with pytest.raises(GraftaxError, match="no-such-python cannot be run"):
        run_peer("adapters", tiny, job, job.train)
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\necho first >&2\necho 'ValueError: the last word' >&2\nexit 1\n")
    crashing.chmod(0o755)
    with pytest.raises(GraftaxError, match=r"^the peer adapters failed: ValueError: the last word$"):
        run_peer("adapters", tiny, job, job.train, python=str(crashing))
    crashing.write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(GraftaxError, match=r"^the peer adapters was ended by signal 9\.$"):
        run_peer("adapters", tiny, job, job.train, python=str(crashing))
