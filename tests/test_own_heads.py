"""The head that a checkpoint brings answers where no adapter is named; and what a merged backbone is known by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from configs import SIZES, TEXT_FAMILIES
from conftest import Graftax, some_inputs
from contract import assert_same_states
from reference import stirred
from refusals import refused
from safetensors.numpy import load_file, save_file
from tiny import tokenizer_json, toy_rows, write_backbone, write_csv

from graftax import (
    Generator,
    GraftaxError,
    LoRA,
    Predictor,
    Recipe,
    load_adapter,
    load_backbone,
    merge,
    save_adapter,
    train_many,
)
from graftax.adapters.adapter import Adapter, Layout
from graftax.notes import GraftaxNote
from graftax.serve.evaluation import evaluate
from graftax.serve.export import export_merged

TASKS = ("SequenceClassification", "TokenClassification")
#: Families with heads by transformers' task models of them, of which it lacks one.
CLASSIFIERS = [
    (name, task) for name, family in TEXT_FAMILIES.items() if family.head.modules and family.task_model for task in TASKS
]
CLASSIFIERS.remove(("gemma3_text", "TokenClassification"))
WORDS = ["iron shop", "the old apple", "a red plum and zinc", "gold"]


def write_classifier(directory: Path, model_type: str, task: str, labels: int, **changes: Any) -> Any:
    """A fine-tuned checkpoint as transformers writes it, with the tokenizer of tests/tiny.py; and transformers' model."""
    raw = {**SIZES[model_type], "pad_token_id": 0, "eos_token_id": 5, **changes}
    if model_type.endswith("roberta"):
        raw["pad_token_id"] = 1
    names = {i: f"name {i}" for i in range(labels)}
    known = {"id2label": names, "label2id": {name: i for i, name in names.items()}, "vocab_size": 160}
    config = transformers.AutoConfig.for_model(model_type, **{**raw, **known})
    torch.manual_seed(0)
    auto = getattr(transformers, f"AutoModelFor{task}")
    model = auto.from_config(config, attn_implementation="eager")
    stirred(model).save_pretrained(directory)
    (directory / "tokenizer.json").write_text(tokenizer_json())
    return model.eval()


def logits_of(backbone: Any, adapter: Adapter, inputs: Any) -> np.ndarray:
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    found = jax.jit(backbone.forward)(backbone.params, state, inputs)
    return np.asarray(found.tokens if adapter.task == "tag" else found.pooled)


def their_logits(model: Any, predictor: Predictor) -> np.ndarray:
    """transformers' of each of `WORDS`, by itself."""
    rows = [torch.tensor(item.ids.astype(np.int64))[None] for item in predictor.processor(WORDS, None, 40)]
    with torch.no_grad():
        return np.stack([model(input_ids=row).logits[0].numpy() for row in rows])


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize(("model_type", "task"), CLASSIFIERS)
def test_own_head_has_transformers_logits(model_type: str, task: str, tmp_path: Path) -> None:
    """Of every family with heads: five classes, in its names."""
    model = write_classifier(tmp_path, model_type, task, 5)
    backbone = load_backbone(tmp_path)
    assert backbone.own_head is not None
    assert backbone.own_head.task == ("tag" if task == "TokenClassification" else "classify")
    assert backbone.own_head.labels == tuple(f"name {i}" for i in range(5))
    inputs = some_inputs(backbone)
    ids, mask = (torch.tensor(np.asarray(row, np.int64)) for row in (inputs.ids, inputs.mask))
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask).logits.numpy()
    ours = logits_of(backbone, backbone.own_head, inputs._replace(types=np.zeros_like(inputs.types)))
    read = np.asarray(inputs.mask) if task == "TokenClassification" else ...
    np.testing.assert_allclose(ours[read], theirs[read], atol=1e-4)


def test_rows_without_an_adapter_are_answered_by_the_checkpoint(tmp_path: Path) -> None:
    """A 50-class BERT: with transformers' classes and probabilities, beside rows with an adapter, which are as ever."""
    model = write_classifier(tmp_path, "bert", "SequenceClassification", 50)
    backbone = load_backbone(tmp_path)
    predictor = Predictor(backbone)
    answers, theirs = predictor.predict(WORDS), softmax(their_logits(model, predictor))
    assert [(a.adapter, a.label) for a in answers] == [(None, f"name {i}") for i in theirs.argmax(-1)]
    np.testing.assert_allclose([a.score for a in answers], theirs.max(-1), atol=1e-4)
    assert (predictor.labels(None), predictor.task(None).name) == (backbone.own_head.labels, "classify")

    adapter = an_adapter(backbone, 3)
    predictor.load("mine", adapter, labels=["x", "y", "z"])
    mixed = predictor.predict(WORDS, [None, "mine", None, "mine"])
    assert [one.label for one in mixed[::2]] == [one.label for one in answers[::2]]
    items = predictor.processor(WORDS[1::2], None, 40)
    ours = softmax(logits_of(backbone, adapter, predictor.processor.pad(items, 2, 16)))
    assert [one.label for one in mixed[1::2]] == ["xyz"[i] for i in ours.argmax(-1)]
    np.testing.assert_allclose([one.score for one in mixed[1::2]], ours.max(-1), atol=1e-5)


def test_eval_and_predict_without_an_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftax.cli import app
    from graftax.cli.use import predict as predict_command

    write_classifier(tmp_path / "model", "bert", "SequenceClassification", 2)
    rename = {"id2label": {"0": "fruit", "1": "metal"}}
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **rename}))
    rows = write_csv(tmp_path / "rows.csv", toy_rows(count=12))
    backbone = load_backbone(tmp_path / "model")
    numbers = evaluate(Predictor(backbone), None, rows)
    app(args=["eval", "-b", str(tmp_path / "model"), "-d", str(rows), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out).items() >= numbers.items()
    for options in ([], ["--report", str(tmp_path / "report")]):
        asked = ["eval", "-b", str(tmp_path / "model"), "-d", str(rows), "--chat-template", "plain", *options]
        with pytest.raises(GraftaxError, match=r"--chat-template is for language models, and the checkpoint's own head"):
            app(args=asked, standalone_mode=False)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in WORDS))
    predict_command(str(tmp_path / "model"), [texts])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["label"] for one in said] == [one.label for one in Predictor(backbone).predict(WORDS)]


def test_without_a_head_there_is_nothing_to_answer_with(tiny_dir: Path, tmp_path: Path) -> None:
    from graftax.cli.use import predict as predict_command

    backbone = load_backbone(tiny_dir)
    assert backbone.own_head is None
    assert Predictor(backbone).predict(WORDS)[0].label is None
    said = refused(lambda: Predictor(backbone).labels(None))
    assert said is not None
    assert "brings no head" in said
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "iron"}\n')
    said = refused(lambda: predict_command(str(tiny_dir), [texts]))
    assert said == "give --adapter: this checkpoint brings no head of its own."


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id2label": {"0": "a"}}, "id2label"),
        ({"id2label": ["a", "b", "c", "d", "e"]}, "id2label"),
        ({"problem_type": "regression"}, "regression with 5 classes"),
    ],
)
def test_a_head_that_does_not_fit_its_config_is_left_out(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    write_classifier(tmp_path, "bert", "SequenceClassification", 5)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.warns(GraftaxNote, match=f"read without its head: .*{why}"):
        assert load_backbone(tmp_path).own_head is None


def test_a_head_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path, "bert", "SequenceClassification", 5)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["classifier.bias"][2] = np.nan
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GraftaxError, match=r"classifier\.bias holds NaN"):
        load_backbone(tmp_path)


def test_regression(tmp_path: Path) -> None:
    model = write_classifier(tmp_path, "bert", "SequenceClassification", 1, problem_type="regression")
    predictor = Predictor(load_backbone(tmp_path))
    assert predictor.task(None).name == "regress"
    theirs = their_logits(model, predictor)[:, 0]
    np.testing.assert_allclose([answer.label for answer in predictor.predict(WORDS)], theirs, atol=1e-4)


def test_several_labels(tmp_path: Path) -> None:
    """Those that transformers' model finds more likely than not."""
    model = write_classifier(tmp_path, "bert", "SequenceClassification", 9, problem_type="multi_label_classification")
    predictor = Predictor(load_backbone(tmp_path))
    assert predictor.task(None).name == "multilabel"
    theirs = their_logits(model, predictor)
    answers = predictor.predict(WORDS)
    assert [answer.label for answer in answers] == [[f"name {i}" for i in np.flatnonzero(row > 0)] for row in theirs]
    assert len({len(answer.label) for answer in answers} - {0, 9}) > 0


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
def test_an_untied_classifier_has_no_projection(model_type: str, tmp_path: Path) -> None:
    """It classifies, with its own head and with adapters, and is no language model."""
    model = write_classifier(tmp_path, model_type, "SequenceClassification", 5, tie_word_embeddings=False)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    backbone = load_backbone(tmp_path)
    predictor = Predictor(backbone)
    theirs = their_logits(model, predictor).argmax(-1)
    assert [answer.label for answer in predictor.predict(WORDS)] == [f"name {i}" for i in theirs]
    said = refused(lambda: Generator(backbone))
    assert said is not None
    assert "no language model" in said
    whole, _ = merge(backbone, Adapter.create((LoRA(r=2), backbone.head(3)), backbone.sites))
    assert whole.fingerprint == backbone.fingerprint  # a fresh adapter changes nothing


# -- merged backbones ------------------------------------------------------------------------------------------------------


def an_adapter(backbone: Any, seed: int) -> Adapter:
    """LoRA with a head, nowhere zero."""
    made = Adapter.create((LoRA(r=4), backbone.head(3)), backbone.sites, seed=seed, fingerprint=backbone.fingerprint)
    random = np.random.default_rng(seed)
    for own in made.states.values():
        for trainable, _ in own.values():
            trainable |= {
                name: (leaf + 0.1 * random.standard_normal(leaf.shape)).astype(np.float32) for name, leaf in trainable.items()
            }
    return made


def test_merged_backbones_have_fingerprints_of_their_own(tiny: Any, tmp_path: Path) -> None:
    """That of their weights, in memory and after they are loaded; what was made for one is refused on the other."""
    merged = [merge(tiny, an_adapter(tiny, seed))[0] for seed in (1, 2)]
    assert len({tiny.fingerprint, *(one.fingerprint for one in merged)}) == 3
    assert merge(tiny, an_adapter(tiny, 1))[0].fingerprint == merged[0].fingerprint
    export_merged(tiny, an_adapter(tiny, 1), tmp_path / "merged")
    assert load_backbone(tmp_path / "merged").fingerprint == merged[0].fingerprint
    save_adapter(an_adapter(merged[0], 3), tmp_path / "adapter", merged[0])
    load_adapter(tmp_path / "adapter", load_backbone(tmp_path / "merged"))
    with pytest.raises(GraftaxError, match="made for another backbone"):
        load_adapter(tmp_path / "adapter", merged[1])


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """As ImageNet's two cranes are: else no predictor could hold the head, nor any other adapter beside it."""
    write_classifier(tmp_path, "bert", "SequenceClassification", 3)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "crane", "1": "hen", "2": "crane"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Predictor(load_backbone(tmp_path)).labels(None) == ("crane (0)", "hen", "crane (2)")


def test_a_checkpoints_head_is_trained_on(graftax: Graftax, tmp_path: Path) -> None:
    """Beside a LoRA the training starts from what the checkpoint says, and with its labels; the command line does the same."""
    write_classifier(tmp_path / "base", "bert", "SequenceClassification", 3)
    backbone = load_backbone(tmp_path / "base")
    assert backbone.own_head is not None
    rows = [{"text": text, "label": f"name {i % 2}"} for i, text in enumerate(WORDS)]
    recipe = Recipe(epochs=1, lr=1e-6, batch_size=4, max_length=16)
    method: Any = (LoRA(), backbone.own_head)
    run = train_many(backbone, {"on": rows}, tmp_path / "out", method=method, recipe=recipe, progress=False)
    predictor = Predictor(backbone)
    predictor.load("on", run["on"].directory)
    before, after = predictor.predict(WORDS), predictor.predict(WORDS, "on")
    assert [one.label for one in after] == [one.label for one in before]
    np.testing.assert_allclose([one.score for one in after], [one.score for one in before], atol=1e-4)
    data, like = write_csv(tmp_path / "on.csv", rows), ("--epochs", 1, "--lr", 1e-6, "--batch-size", 4, "--max-length", 16)
    command = ("train", "-b", tmp_path / "base", "--data", data, *like, "--head", "own")
    said = graftax(*command, "-o", tmp_path / "said")
    assert said.code == 0, said.err
    assert_same_states(*(load_adapter(tmp_path / out / "on", backbone) for out in ("out", "said")), 0.0)
    for more, why in (
        (("--adapter", tmp_path / "said" / "on"), "an adapter is trained on, with its own: leave out one"),
        (("--task", "multilabel"), "the checkpoint's head is of task 'classify', and this task is 'multilabel'"),
        (("-b", write_backbone(tmp_path / "bare")), "bare brings none"),
    ):
        refusal = graftax(*command, *more, "-o", tmp_path / "refused")
        assert refusal.code == 2, refusal
        assert why in refusal.err.splitlines()[-1]
