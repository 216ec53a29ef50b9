"""Files of AdapterHub's `adapters`, written and read here: methods, tasks, heads. Nothing of that library is needed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapterhub_cases import FIRST_HEAD, OURS
from cases import LABELS, compiled, logits, random_adapter, randomised
from conftest import GetBackbone, some_inputs
from safetensors.numpy import load_file, save_file

from graftax import Adapter, GraftaxError, Head, LoRA, export_adapter, load_adapter, save_adapter
from graftax.adapters.adapter import Layout
from graftax.models.inputs import TextInputs
from graftax.serve.bank import Bank
from graftax.serve.export import export_merged


@pytest.mark.parametrize("head", ["pooled", "tokens"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("name", OURS)
def test_what_is_written_is_read(name: str, family: str, head: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """The same logits, bit for bit but for LoRA's scale, and the same files the second time."""
    backbone = backbone_of(family)
    adapter = random_adapter(backbone, OURS[name], tokens=head == "tokens")
    path = export_adapter(adapter, tmp_path / "first", backbone, name="mine")
    again = load_adapter(path, backbone)
    assert (again.task, again.labels, again.fingerprint) == (adapter.task, LABELS, None)
    for method in adapter.methods:
        states = again.states[method.key]
        assert {site.path for site in states} == {site.path for site in adapter.states[method.key]}
        for site, (leaves, _) in adapter.states[method.key].items():
            assert leaves.keys() == states[site][0].keys()
            for leaf, array in leaves.items():
                np.testing.assert_array_equal(states[site][0][leaf], array)
    inputs = some_inputs(backbone)
    np.testing.assert_allclose(logits(backbone, again, inputs), logits(backbone, adapter, inputs), atol=1e-5)
    second = export_adapter(again, tmp_path / "second", backbone, name="mine")
    for file in path.iterdir():
        assert (second / file.name).read_bytes() == file.read_bytes()


def test_without_a_head(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    adapter = Adapter.create((LoRA(r=3, alpha=7.0),), backbone.sites)
    path = export_adapter(adapter, tmp_path / "bare", backbone)
    assert sorted(file.name for file in path.iterdir()) == ["adapter.safetensors", "adapter_config.json"]
    assert json.loads((path / "adapter_config.json").read_text())["name"] == "bare"
    assert load_adapter(path, backbone).methods == adapter.methods


@pytest.mark.parametrize("task", ["classify", "multilabel", "regress", "tag"])
def test_tasks(task: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("roberta")
    labels = () if task == "regress" else LABELS
    head = backbone.head(len(labels) or 1, tokens=task == "tag")
    adapter = Adapter.create((LoRA(), head), backbone.sites_for(head), task=task, labels=labels)
    again = load_adapter(export_adapter(adapter, tmp_path / "a", backbone), backbone)
    assert (again.task, again.labels, again.method("head")) == (task, labels, head)


def test_into_our_own_files(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Read from there, an adapter is one like any other: saved here, and in PEFT's words where PEFT has them."""
    backbone = backbone_of("bert")
    for name, peft_type in {"lora": "LORA", "ia3": "IA3", "prompt-post": "GRAFTAX", "mam": "GRAFTAX"}.items():
        path = export_adapter(random_adapter(backbone, OURS[name]), tmp_path / name, backbone)
        read = load_adapter(path, backbone)
        kept = load_adapter(save_adapter(read, tmp_path / f"{name}-ours", backbone), backbone)
        assert kept.methods == read.methods
        assert json.loads((tmp_path / f"{name}-ours" / "adapter_config.json").read_text())["peft_type"] == peft_type


def test_releases_that_trained_at_another_scale(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Before 1.1 the library left out LoRA's alpha / r, and reads such files with alpha = r since."""
    backbone = backbone_of("bert")
    path = export_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    content = json.loads((path / "adapter_config.json").read_text())
    for version, alpha in {"adapters.1.0.1": 3, "adapters.1.1.0": 7, "3.2.1": 7, None: 7}.items():
        (path / "adapter_config.json").write_text(json.dumps(content | {"version": version}))
        assert load_adapter(path, backbone).methods[0] == LoRA(r=3, alpha=alpha)


def test_saved_from_the_encoder_alone(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    adapter = random_adapter(backbone, "lora")
    path = export_adapter(adapter, tmp_path / "a", backbone)
    tensors = load_file(path / "adapter.safetensors")
    save_file({key.removeprefix("bert."): tensor for key, tensor in tensors.items()}, path / "adapter.safetensors")
    np.testing.assert_array_equal(
        logits(backbone, load_adapter(path, backbone), some_inputs(backbone)), logits(backbone, adapter, some_inputs(backbone))
    )


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_head_of_a_task_model(family: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """`adapters.init(BertForSequenceClassification...)` saves transformers' own head."""
    backbone = backbone_of(family)
    adapter = random_adapter(backbone, "lora")
    path = export_adapter(adapter, tmp_path / "a", backbone)
    head = adapter.method("head")
    assert isinstance(head, Head)
    renamed = zip(load_file(path / "model_head.safetensors").items(), sorted(head.modules * 2), strict=True)
    save_file({f"{module}.{key.rpartition('.')[2]}": t for (key, t), module in renamed}, path / "model_head.safetensors")
    content = json.loads((path / "head_config.json").read_text())
    content |= {
        "config": None,
        "label2id": content["config"]["label2id"],
        "num_labels": 3,
        "model_class": "ForSequenceClassification",
    }
    (path / "head_config.json").write_text(json.dumps(content))
    again = load_adapter(path, backbone)
    assert (again.task, again.labels) == ("classify", LABELS)
    np.testing.assert_array_equal(
        logits(backbone, again, some_inputs(backbone)), logits(backbone, adapter, some_inputs(backbone))
    )


@pytest.mark.parametrize(
    "changes",
    [{"layers": 3}, {"use_pooler": True, "layers": 2}, {"head_type": "question_answering"}, {"bias": False}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_head_is_left_out_and_said(changes: dict[str, Any], backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    content = json.loads((path / "head_config.json").read_text())
    content["config"] |= changes
    (path / "head_config.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"without its head.*{next(iter(changes))}"):
        assert [m.name for m in load_adapter(path, backbone).methods] == ["lora"]


@pytest.mark.parametrize("hidden", ["none", "tanh", "relu"])
def test_heads_without_the_pooler(hidden: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """On BERT: in files of both formats, merged into nothing, and in a batch beside adapters with the usual head."""
    backbone = backbone_of("bert")
    modules = ("classifier",) if hidden == "none" else FIRST_HEAD.modules
    head = dataclasses.replace(FIRST_HEAD, labels=9, hidden=hidden, modules=modules)
    made = Adapter.create((LoRA(r=3, alpha=7.0), head), backbone.sites_for(head), labels=tuple("abcdefghi"))
    first, usual = randomised(made, seed=5), random_adapter(backbone, "rslora")
    there = export_adapter(first, tmp_path / "there", backbone)
    here = save_adapter(load_adapter(there, backbone), tmp_path / "here", backbone)
    assert load_adapter(here, backbone).methods == first.methods
    with pytest.raises(GraftaxError, match="without the pooler"):
        export_merged(backbone, here, tmp_path / "merged")
    bank, few = Bank(backbone, capacity=4), some_inputs(backbone)
    for name, adapter in {"first": load_adapter(here, backbone), "usual": usual}.items():
        bank.add(name, adapter)
    inputs = TextInputs(*(np.concatenate([leaf] * 3) for leaf in few[:3]))
    slots = np.repeat([bank.slot(name) for name in (None, "first", "usual")], len(few.ids)).astype(np.int32)
    none, of_first, of_usual = np.split(np.asarray(compiled(backbone)(backbone.params, bank.state, inputs, slots).pooled), 3)
    alone = compiled(backbone)(backbone.params, Layout.of([first], backbone.sites).stack(first, backbone.sites).state, few)
    assert not none.any()
    np.testing.assert_allclose(of_first[:, :9], alone.pooled, atol=1e-5)
    np.testing.assert_allclose(of_usual[:, : len(LABELS)], logits(backbone, usual, few), atol=1e-5)
