"""Training language models: the likelihood in chunks, what is counted, texts that share a batch row, whole runs."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from cases import randomised
from conftest import SHARED, Graftax, needs_assets
from of_texts import read_examples
from tiny import write_decoder

from graftax import Columns, GraftaxError, LoRA, PromptTuning, Recipe, load_adapter, load_backbone, save_adapter, train_many
from graftax.adapters.adapter import Adapter, Layout
from graftax.data.batches import Planned, Shape, place
from graftax.data.prepared import Prepared
from graftax.models import cross_entropy as vocabulary
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.serve import evaluate_language, export_merged
from graftax.tasks.outputs import IGNORE
from graftax.tasks.task_registry import TASKS
from graftax.train.step import hyper

TEXTS = ["a stitch in time", "saves nine", "the early bird catches the worm, they say"]


def rows_of(backbone: Backbone, task: str, data: list[dict[str, Any]], max_length: int = 64) -> Prepared:
    examples = read_examples(data, Columns(), task)
    return TASKS[task].prepare(examples, (), Tokenizer.of(backbone), max_length)


def an_adapter(backbone: Backbone, *targets: str, seed: int = 0) -> Adapter:
    lora = LoRA(r=3, alpha=7.0, targets=targets or ("q_proj", "v_proj"))
    return randomised(Adapter.create((lora,), backbone.sites, task="lm"), seed, size=0.1)


# -- the likelihood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "tied"),
    [("q_proj", True), ("q_proj", False), ("embed_tokens", True), ("embed_tokens", False), ("lm_head", False)],
)
def test_likelihood_is_the_softmax(target: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients in chunks are those of all logits at once, with a frozen projection and an adapted one."""
    backbone = load_backbone(write_decoder(tmp_path, tie_word_embeddings=tied))
    monkeypatch.setattr(vocabulary, "_NUMBERS", 3 * 272 * 2)  # chunks of two tokens, of five and a filling one
    random = np.random.default_rng(0)
    ids, targets = random.integers(3, 272, (2, 3, 5)).astype(np.int32)
    weight = random.random((3, 5)).astype(np.float32)
    inputs = Tokenizer.of(backbone).pad([], 3, 5)._replace(ids=ids, mask=np.ones((3, 5), bool))
    adapter = an_adapter(backbone, target)
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state

    def in_chunks(state: Any) -> jax.Array:
        return (backbone.likelihood(backbone.params, state, inputs, targets)[0] * weight).sum()

    def at_once(state: Any) -> jax.Array:
        hidden = backbone.encode(backbone.params, state, inputs).hidden
        logs = jax.nn.log_softmax(backbone.next_token(backbone.params, state, hidden))
        return (jnp.take_along_axis(logs, targets[..., None], axis=-1)[..., 0] * weight).sum()

    (one, slope), (other, plain) = (jax.jit(jax.value_and_grad(f))(state) for f in (in_chunks, at_once))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-4), slope, plain)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope)) > 1e-3


def test_no_logits_of_all_tokens(teller: Backbone) -> None:
    """What the compiled step holds at once is a chunk's logits, not all."""
    rows, tokens, adapter = 8, 64, an_adapter(teller)
    inputs = Tokenizer.of(teller).pad([], rows, tokens)
    inputs = inputs._replace(mask=np.ones((rows, tokens), bool))
    state = Layout.of([adapter], teller.sites).stack(adapter, teller.sites).state
    targets = np.ones((rows, tokens), np.int32)

    def loss(state: Any, params: Any) -> jax.Array:
        return -teller.likelihood(params, state, inputs, targets)[0].mean()

    whole = f"f32[{rows},{tokens},272]"
    with pytest.MonkeyPatch.context() as patch:
        assert whole in jax.jit(jax.grad(loss)).lower(state, teller.params).compile().as_text()
        patch.setattr(vocabulary, "_NUMBERS", rows * 272 * 16)
        cut = jax.jit(jax.grad(lambda *args: loss(*args))).lower(state, teller.params).compile().as_text()
        patch.setattr(vocabulary, "_NUMBERS", rows * 272 * 40)
        halved = jax.jit(jax.grad(lambda *args: 1.0 * loss(*args))).lower(state, teller.params).compile().as_text()
    assert whole not in cut
    assert f"f32[{rows},16,272]" in cut
    assert f"f32[{rows},32,272]" in halved  # two chunks of 32, and not one of 40 and one that is mostly filling


def test_shared_rows_have_the_same_loss(teller: Backbone) -> None:
    """Packed equals unpacked: value and gradient, to 1e-5."""
    rows, tokenizer, task = rows_of(teller, "lm", [{"text": t} for t in TEXTS]), Tokenizer.of(teller), TASKS["lm"]
    adapter = an_adapter(teller)
    state = Layout.of([adapter], teller.sites).stack(adapter, teller.sites).state

    def loss(state: Any, inputs: Any, labels: Any) -> jax.Array:
        outputs = task.output.compute(teller, teller.params, state, inputs, labels)
        return task.loss(outputs, labels, hyper(Recipe(), 1, 0), jnp.ones(3))

    found = []
    for places, shape in (
        ([(0, 0), (1, 0), (2, 0)], Shape(3, 3, 48, shared=False)),
        (place(rows.lengths, 64), Shape(3, 2, 64)),
    ):
        labels = task.output.lay(rows, Planned((0, 1, 2), tuple(places)), shape, 0)
        found.append(jax.jit(jax.value_and_grad(loss))(state, tokenizer.lay(rows.items, places, shape), labels))
    (alone, slope), (packed, other) = found
    np.testing.assert_allclose(packed, alone, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), other, slope)


# -- what is counted -----------------------------------------------------------------------------------------------------


def said(backbone: Backbone, rows: Prepared, i: int) -> str:
    """The tokens that row i is trained to say."""
    labels = rows.labels[i]
    return Tokenizer.of(backbone).backend.decode(labels[labels != IGNORE].tolist(), skip_special_tokens=False)


def test_text_is_cut_and_every_token_is_said_once(teller: Backbone, tmp_path: Path) -> None:
    text = "".join(TEXTS)
    (tmp_path / "a.txt").write_text(text)
    examples = read_examples(tmp_path / "a.txt", Columns(), "lm")
    rows = TASKS["lm"].prepare(examples, (), Tokenizer.of(teller), 16)
    assert max(rows.lengths) == 16
    assert "".join(said(teller, rows, i) for i in range(len(rows.items))) == text + "</s>"
    assert rows.items[0].ids[0] == 1
    assert [row.ids[0] for row in rows.items[1:]] == [row.ids[-1] for row in rows.items[:-1]]


def test_only_the_response_is_said(teller: Backbone) -> None:
    rows = rows_of(teller, "sft", [{"prompt": "2+2=", "completion": "4"}, {"prompt": "Hi", "completion": " there"}])
    assert [said(teller, rows, i) for i in range(2)] == ["4</s>", " there</s>"]
    assert [Tokenizer.of(teller).text(row.ids) for row in rows.items] == ["2+2=4", "Hi there"]


def test_only_the_assistant_is_said(teller: Backbone) -> None:
    chat = [("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d")]
    rows = rows_of(teller, "sft", [{"messages": [{"role": role, "content": text} for role, text in chat]}])
    assert said(teller, rows, 0) == "b</s>d</s>"


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("sft", {"prompt": "a", "completion": " "}, "row 1 has nothing in column 'completion'"),
        ("sft", {"prompt": "a"}, "no column 'completion'"),
        ("sft", {"prompt": "a" * 60, "completion": "b"}, "row 1 has 63 tokens, more than the 32 of max_length"),
        ("sft", {"messages": []}, "no list of messages"),
        ("sft", {"messages": [{"role": "user"}]}, "not an object with role and content"),
        ("sft", {"messages": [{"role": "user", "content": "a"}]}, "row 1 has no message of the assistant"),
        ("lm", {"label": "a"}, "no column 'text'"),
    ],
)
def test_rows_that_are_refused(task: str, row: dict[str, Any], message: str, teller: Backbone) -> None:
    with pytest.raises(GraftaxError, match=message):
        rows_of(teller, task, [row], max_length=32)


def test_truncation_is_asked_for(teller: Backbone) -> None:
    examples = read_examples([{"prompt": "ab", "completion": "c" * 40}], Columns(), "sft")
    rows = TASKS["sft"].prepare(examples, (), Tokenizer.of(teller), 16, truncate=True)
    assert rows.lengths == [16]
    assert said(teller, rows, 0) == "c" * 13
    examples = read_examples([{"prompt": "a" * 20, "completion": "c"}], Columns(), "sft")
    with pytest.raises(GraftaxError, match="nothing of its response is within 16 tokens"):
        TASKS["sft"].prepare(examples, (), Tokenizer.of(teller), 16, truncate=True)


def test_a_chat_needs_a_template(tmp_path: Path) -> None:
    backbone = load_backbone(write_decoder(tmp_path, chat=None))
    with pytest.raises(GraftaxError, match="no chat template"):
        rows_of(backbone, "sft", [{"messages": [{"role": "assistant", "content": "a"}]}])


def test_tokens_beyond_the_table_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone(write_decoder(tmp_path, vocab_size=200))
    assert len(rows_of(backbone, "lm", [{"text": "ab"}])) == 1
    with pytest.raises(GraftaxError, match=r"a row holds the token 'Ġ' with id 223, and the backbone embeds 200.*resize"):
        rows_of(backbone, "lm", [{"text": "a b"}])


# -- runs ----------------------------------------------------------------------------------------------------------------


def test_language_tasks_need_a_language_model_and_a_method(tiny: Backbone, teller: Backbone, tmp_path: Path) -> None:
    with pytest.raises(GraftaxError, match="task 'lm' needs a language model"):
        train_many(tiny, {"a": [{"text": "a"}]}, tmp_path, task="lm")
    with pytest.raises(GraftaxError, match="it needs a method"):
        train_many(teller, {"a": [{"text": "a"}]}, tmp_path, task="lm", method=None)


@pytest.mark.parametrize("task", ["lm", pytest.param("sft", marks=pytest.mark.slow)])
def test_a_pack_learns(task: str, teller: Backbone, tmp_path: Path) -> None:
    """Two adapters in one pack; each is the better one on its own text, and the kept epoch has the lowest perplexity."""
    one, two = ["abcabcabcabcabc"] * 12, ["xyzzyxyzzyxyzzy"] * 12
    data = {
        name: [{"text": t} if task == "lm" else {"prompt": t[:4], "completion": t[4:]} for t in texts]
        for name, texts in (("one", one), ("two", two))
    }
    recipe = Recipe(epochs=6, lr=2e-2, batch_size=4, max_length=32)
    lora = LoRA(r=4, alpha=8.0, targets=("q_proj", "v_proj", "down_proj"))
    results = train_many(teller, data, tmp_path, task=task, method=lora, recipe=recipe, val=0.25, pack_size=2, progress=False)
    for result in results.values():
        lines = [line["val_perplexity"] for line in result.history]
        assert result.metrics["val_perplexity"] == min(lines) < 0.5 * lines[0]
        assert result.metrics["val_token_accuracy"] > 0.5
    loaded = load_adapter(tmp_path / "one", teller)
    assert loaded.task == task
    assert not loaded.labels
    assert json.loads((tmp_path / "one" / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("method", [LoRA(r=2, alpha=3.0, targets=("q_proj",)), PromptTuning(tokens=2)])
def test_measuring_is_validating(method: Any, teller: Backbone, tmp_path: Path) -> None:
    """What a run says of its validation rows, `evaluate_language` says of the saved adapter."""
    data = [{"text": text} for text in TEXTS]
    recipe = Recipe(epochs=1, lr=1e-2, batch_size=2, max_length=32)
    settings: dict[str, Any] = {"task": "lm", "method": method, "recipe": recipe, "progress": False}
    result = train_many(teller, {"one": data}, tmp_path, val={"one": data}, **settings)["one"]
    found = evaluate_language(teller, load_adapter(tmp_path / "one", teller), data)
    assert found == pytest.approx({name: result.metrics[f"val_{name}"] for name in found}, rel=1e-5)


def test_merged_into_a_language_model_that_transformers_loads(teller: Backbone, tmp_path: Path) -> None:
    adapter = dataclasses.replace(an_adapter(teller), fingerprint=teller.fingerprint)
    assert export_merged(teller, adapter, tmp_path / "merged") < 1e-4
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    ids = np.random.default_rng(0).integers(3, 259, (2, 9)).astype(np.int32)
    inputs = Tokenizer.of(teller).pad([], 2, 9)._replace(ids=ids, mask=np.ones((2, 9), bool))
    state = Layout.of([adapter], teller.sites).stack(adapter, teller.sites).state
    mine = jax.jit(lambda state: teller.next_token(teller.params, state, teller.encode(teller.params, state, inputs).hidden))
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(ids.astype(np.int64))).logits
    np.testing.assert_allclose(mine(state), theirs, atol=1e-4)


@needs_assets
def test_likelihood_on_real_weights_equals_transformers() -> None:
    """stories260K on the first 600 characters of tinyshakespeare's test text, a row of its own."""
    directory = SHARED / "backbones" / "stories260K"
    text = (SHARED / "data" / "tinyshakespeare" / "test.txt").read_text("utf-8")[:600]
    backbone = load_backbone(directory)
    tokenizer = Tokenizer.of(backbone)
    (ids,) = tokenizer.ids([text])
    inputs = tokenizer.pad([], 1, len(ids))._replace(ids=ids[None], mask=np.ones((1, len(ids)), bool))
    found = jax.jit(lambda params, targets: backbone.likelihood(params, {}, inputs, targets)[0])
    mine = -np.asarray(found(backbone.params, np.roll(inputs.ids, -1, axis=1)))[0, :-1].mean()
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    row = torch.tensor(ids[None].astype(np.int64))
    with torch.no_grad():
        assert mine == pytest.approx(model(input_ids=row, labels=row).loss.item(), rel=1e-5)


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_an_adapter_that_names_no_task_is_measured(
    task: str | None, teller: Backbone, teller_dir: Path, graftax: Graftax, tmp_path: Path
) -> None:
    """PEFT's directories need not name one: on a language model it is the likelihood of text, as if they did."""
    made = an_adapter(teller, "q_proj")
    directory = save_adapter(made, tmp_path / "a", teller)
    (directory / "graftax.json").unlink()
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config | {"task_type": task}))
    (tmp_path / "a.txt").write_text("the early bird catches the worm")
    said = graftax("eval", "-b", teller_dir, "-a", directory, "-d", tmp_path / "a.txt", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == pytest.approx(evaluate_language(teller, made, tmp_path / "a.txt"))
