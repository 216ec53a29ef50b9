"""Files of AdapterHub's `adapters`, read and written; with that library itself where its environment is (`make test-hub`)."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import LABELS, METHODS, compiled, logits, only_head, random_adapter, randomised
from conftest import CONFIGS, some_inputs
from reference import saved, torch_model
from safetensors.numpy import load_file, save_file

from graftax import (
    IA3,
    Adapter,
    Bottleneck,
    Compacter,
    Fuse,
    GatedBottleneck,
    GatedLoRA,
    GatedPrefix,
    GraftaxError,
    Head,
    LoRA,
    Method,
    Prefix,
    PromptTuning,
    export_adapter,
    load_adapter,
    load_backbone,
    save_adapter,
    unipelt,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.fusion import Fusion
from graftax.adapters.inspect import describe
from graftax.models.backbone import Backbone
from graftax.models.inputs import Inputs
from graftax.models.random import random_backbone
from graftax.serve.bank import Bank
from graftax.serve.export import export_merged

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-hub" / "bin" / "python"
GetBackbone = Callable[[str], Backbone]

OURS: dict[str, tuple[Method, ...]] = {
    **{
        name: METHODS[name]
        for name in ("houlsby", "pfeiffer", "pfeiffer-normed", "parallel", "parallel-learned", "adapterplus")
    },
    **{name: METHODS[name] for name in ("post", "compacter", "compacter++-normed", "prefix-unshifted", "prompt-post", "lora")},
    "lora-everywhere": (
        LoRA(r=2, alpha=5.0, rslora=True, targets=r".*(query|key|value|intermediate\.dense|\d\.output\.dense)"),
    ),
    "ia3": (IA3(targets=("key", "value", "intermediate.dense"), feedforward=()),),
    "some-layers": (Bottleneck(width=7, activation="silu", targets=r".*layer\.[02]\.attention\.output"),),
    "mam": (Prefix(tokens=3, shifted=False), Bottleneck(width=4, place="parallel")),
    "unipelt": unipelt(tokens=3, width=4, r=2),
    "gated": (
        GatedLoRA(r=4, alpha=2.0, rslora=True, targets=("query", "intermediate.dense")),
        GatedBottleneck(width=5, activation="gelu", place="parallel"),
    ),
}
LORA_SITES = [f"attention.self.{name}" for name in ("key", "query", "value")] + ["intermediate.dense", "output.dense"]
#: Theirs by default, which on BERT is not transformers'.
FIRST_HEAD = Head(site="head.first", labels=3, hidden="tanh", modules=("classifier.dense", "classifier.out_proj"))
THEIRS: dict[str, tuple[Method, ...]] = {  # what the cases of adapterhub.py are here
    "double_seq_bn": (Bottleneck(width=8, activation="silu"),),
    "seq_bn": (Bottleneck(width=8, place="pfeiffer", normed=True),),
    "seq_bn-mh": (
        Bottleneck(
            width=8,
            activation="tanh",
            place="pfeiffer",
            normed=True,
            targets=tuple(f"PREFIX.encoder.layer.{i}.attention.output" for i in range(3)),
        ),
    ),
    "seq_bn-left-out": (
        Bottleneck(
            width=8,
            activation="leaky_relu",
            place="pfeiffer",
            normed=True,
            targets=tuple(f"PREFIX.encoder.layer.{i}.output" for i in (0, 2)),
        ),
    ),
    "par_bn": (Bottleneck(width=8, place="parallel"),),
    "scaled_par_bn": (Bottleneck(width=8, activation="gelu_new", place="parallel", scaling="learned"),),
    "adapter_plus": (Bottleneck(width=8, activation="gelu", place="post"),),
    "compacter": (Compacter(width=8),),
    "compacter++": (Compacter(width=8, place="pfeiffer", normed=True),),
    "prefix_tuning": (Prefix(tokens=4, shifted=False),),
    "prefix_tuning_flat": (Prefix(tokens=3, shifted=False),),
    "prompt_tuning": (PromptTuning(tokens=4, post=True),),
    "lora": (LoRA(r=3, alpha=7, dropout=0.1),),
    "lora-everywhere": (
        LoRA(
            r=2,
            alpha=5,
            targets=tuple(f"PREFIX.encoder.layer.{i}.{module}" for i in (1, 2) for module in LORA_SITES),
        ),
    ),
    "default-head": (LoRA(r=3, alpha=7),),
    "ia3": (IA3(feedforward=(), targets=("attention.self.key", "attention.self.value", "intermediate.dense")),),
    "mam": (Prefix(tokens=3, shifted=False), Bottleneck(width=8, place="parallel")),
    "unipelt": unipelt(tokens=3, width=8, r=5),
}
#: And its fusions: what they fuse, and whether their queries are made of the norm of the sum.
THEIR_FUSIONS = {
    "fused": ("bottleneck/relu/True", True),
    "fused-static": ("bottleneck/silu/False", False),
    "fused-before-ln": ("bottleneck/relu/True", False),
    "fused-compacter": ("compacter/gelu/4/True", True),
}


def config_of(path: Path, **changes: Any) -> None:
    """Change settings of the method in a directory."""
    file = path / "adapter_config.json"
    content = json.loads(file.read_text())
    content["config"] |= changes
    file.write_text(json.dumps(content))


# -- without the library ---------------------------------------------------------------------------------------------------


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
    for name, kind in {"lora": "LORA", "ia3": "IA3", "prompt-post": "GRAFTAX", "mam": "GRAFTAX"}.items():
        path = export_adapter(random_adapter(backbone, OURS[name]), tmp_path / name, backbone)
        read = load_adapter(path, backbone)
        kept = load_adapter(save_adapter(read, tmp_path / f"{name}-ours", backbone), backbone)
        assert kept.methods == read.methods
        assert json.loads((tmp_path / f"{name}-ours" / "adapter_config.json").read_text())["peft_type"] == kind


CANNOT: dict[str, tuple[tuple[Method, ...], str]] = {
    "bitfit": (METHODS["bitfit"], "bitfit cannot be written for it; bottleneck, .* can"),
    "ia3": (METHODS["ia3"], "IA3 scales what matrices put out there"),
    "shifted": (METHODS["prefix"], "shifted=false"),
    "prompt": (METHODS["prompt"], "post=true"),
    "ranks": (METHODS["rslora"], "one rank and one alpha"),
    "behind-the-attention": ((LoRA(targets=("attention.output.dense",)),), "no LoRA or IA3 there at attention_out"),
    "uneven": ((LoRA(targets=r".*layer\.0.*query|.*layer\.1.*value"),), "same places in every layer"),
    "scaled-gate": ((GatedLoRA(r=3, alpha=7.0),), "a gated LoRA has the scale 1 there"),
    "gated-shifted": ((GatedPrefix(tokens=3),), "shifted=false"),
    "twice": ((LoRA(), OURS["ia3"][0]), "two of them are one architecture"),
    "probe": ((), "a head alone"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_the_library_cannot_hold(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    (methods, message), backbone = CANNOT[case], backbone_of("bert")
    with pytest.raises(GraftaxError, match=message):
        export_adapter(random_adapter(backbone, methods), tmp_path / "a", backbone)
    assert not (tmp_path / "a").exists()


def test_names_and_families(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    with pytest.raises(GraftaxError, match=r"v1\.2.*has dots"):
        export_adapter(random_adapter(backbone, "lora"), tmp_path / "v1.2", backbone)
    with pytest.raises(GraftaxError, match="this backbone is albert"):
        export_adapter(random_adapter(backbone_of("albert"), "lora"), tmp_path / "a", backbone_of("albert"))
    path = export_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    with pytest.raises(GraftaxError, match="made for bert of hidden size 32; this backbone is roberta"):
        load_adapter(path, backbone_of("roberta"))
    wide = random_backbone({**CONFIGS["bert"], "hidden_size": 64}, seed=1)
    with pytest.raises(GraftaxError, match="made for bert of hidden size 32; this backbone is bert of hidden size 64"):
        load_adapter(path, wide)


SIDE = {"reduction_factor": 4, "non_linearity": "relu"}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gated-compacter": ("compacter", {"use_gating": True}, "use_gating=True with compacter"),
    "gated-ia3": ("ia3", {"use_gating": True}, "use_gating=True with ia3"),
    "no-gates": (
        "houlsby",
        {"use_gating": True},
        r"missing .*layer\.0\.attention\.output\.adapters\.mine\.gate\.bias",
    ),
    "norm-before": ("houlsby", {"ln_before": True}, "ln_before=True"),
    "norm-after": ("houlsby", {"ln_after": True}, "ln_after=True"),
    "invertible": ("houlsby", {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}, "inv_adapter='nice'.$"),
    "no-norm": ("houlsby", {"original_ln_after": False}, "original_ln_after=False"),
    "residual": ("pfeiffer-normed", {"residual_before_ln": "post_add"}, "residual_before_ln=post_add"),
    "activation": ("houlsby", {"non_linearity": "sigmoid"}, "non_linearity='sigmoid' is none of relu"),
    "widths": ("houlsby", {"reduction_factor": {"1": 2, "default": 4}}, "several widths"),
    "unknown": ("houlsby", {"tomorrows_switch": 3}, "tomorrows_switch=3"),
    "nowhere": ("houlsby", {"mh_adapter": False, "output_adapter": False}, "acts nowhere"),
    "shared-weights": ("compacter++-normed", {"shared_W_phm": True, "phm_rank": 2}, "phm_rank=2, shared_W_phm=True"),
    "whole-weights": ("compacter++-normed", {"factorized_phm_W": False}, "factorized_phm_W=False"),
    "after-bos": ("prompt-post", {"combine": "prefix_after_bos"}, "prefix_after_bos"),
    "two-gates": ("prefix-unshifted", {"use_gating": True, "shared_gating": False}, "shared_gating=False"),
    "prefix-left-out": ("prefix-unshifted", {"leave_out": [1]}, r"leave_out=\[1\]"),
    "dora": ("lora", {"use_dora": True}, "use_dora=True"),
    "vera": ("lora", {"vera_d": 0.1, "vera_b": 0.0}, "vera_d=0.1, vera_b=0.0"),
    "scaled-ia3": ("ia3", {"alpha": 2}, "alpha=2"),
    "reft": ("lora", {"architecture": "reft"}, "architecture 'reft' is not supported; supported are bottleneck, .*union"),
    "shape": ("lora", {"r": 4}, r"mine\.lora_A has shape \(3, 32\), expected \(4, 32\)"),
    "missing": ("lora", {"output_lora": True}, r"missing bert\.encoder\.layer\.0\.output\.dense\.loras\.mine\.lora_A"),
    "extra": ("lora", {"attn_matrices": ["q"]}, r"unexpected .*value\.loras"),
    "empty-union": ("lora", {"architecture": "union"}, "not a sound config: 'configs'"),
    "one-method-twice": (
        "houlsby",
        {"architecture": "union", "configs": [{**SIDE, "mh_adapter": True}, {**SIDE, "output_adapter": True}]},
        "two parts of a union are one method here",
    ),
    "no-config": ("lora", {"leave_out": 7}, "not a sound config"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    (name, changes, message), backbone = REFUSED[case], backbone_of("bert")
    path = export_adapter(random_adapter(backbone, OURS[name]), tmp_path / "a", backbone, name="mine")
    config_of(path, **changes)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_two_rules_of_one_compacter(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(random_adapter(backbone, "compacter"), tmp_path / "a", backbone)
    tensors = load_file(path / "adapter.safetensors")
    key = next(key for key in tensors if key.endswith("adapter_up.phm_rule"))
    save_file(tensors | {key: tensors[key] + 1}, path / "adapter.safetensors")
    with pytest.raises(GraftaxError, match=r"rules .* of their own"):
        load_adapter(path, backbone)


def test_a_pickle_is_never_read(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(random_adapter(backbone, "lora"), tmp_path / "a", backbone)
    (path / "adapter.safetensors").rename(path / "pytorch_adapter.bin")
    with pytest.raises(GraftaxError, match=r"pickle \(pytorch_adapter.bin\).*docs/files.md"):
        load_adapter(path, backbone)


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
    """On BERT: in files of both kinds, merged into nothing, and in a batch beside adapters with the usual head."""
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
    inputs = Inputs(*(np.concatenate([leaf] * 3) for leaf in few[:3]))
    slots = np.repeat([bank.slot(name) for name in (None, "first", "usual")], len(few.ids)).astype(np.int32)
    none, of_first, of_usual = np.split(np.asarray(compiled(backbone)(backbone.params, bank.state, inputs, slots).pooled), 3)
    alone = compiled(backbone)(backbone.params, Layout.of([first], backbone.sites).stack(first, backbone.sites).state, few)
    assert not none.any()
    np.testing.assert_allclose(of_first[:, :9], alone.pooled, atol=1e-5)
    np.testing.assert_allclose(of_usual[:, : len(LABELS)], logits(backbone, usual, few), atol=1e-5)


# -- with the library ------------------------------------------------------------------------------------------------------


def in_their_environment(command: str, backbone: Path, rows: Path, directory: Path) -> None:
    assert PYTHON.exists(), "there is no .venv-hub; make test-hub sets it up"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    script = Path(__file__).with_name("adapterhub.py")
    done = subprocess.run(
        [PYTHON, script, command, backbone, rows, directory],
        env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def comparable(inputs: Inputs, case: str) -> Inputs:
    """The rows on which both agree: those without padding where gates are a mean over it there."""
    if case not in ("unipelt", "gated"):
        return inputs
    full = inputs.mask.all(axis=1)
    return Inputs(*(part[full] for part in inputs[:3]))


def fused(backbone: Backbone, case: str) -> Adapter:
    """A random fusion: of bottlenecks in two places and of two scales, of those that read behind the norm, of Compacters."""
    methods: tuple[tuple[Method, ...], ...] = {
        "fused": (METHODS["houlsby"], (Bottleneck(width=3, place="pfeiffer", scaling=0.7),)),
        "fused-normed": (METHODS["pfeiffer-normed"],) * 2 + ((Bottleneck(width=2, activation="tanh", normed=True),),),
        "fused-compacter": (METHODS["compacter"], METHODS["compacter"]),
    }[case]
    trained = tuple(random_adapter(backbone, body, seed=seed) for seed, body in enumerate(methods, 3))
    return random_adapter(backbone, (Fuse(trained=trained, query_normed=case == "fused-normed"),))


FUSIONS = ("fused", "fused-normed", "fused-compacter")


@pytest.mark.parametrize("case", FUSIONS)
def test_fusions_are_several_directories(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """The same logits read from the whole or among its adapters, and the same files the second time."""
    backbone = backbone_of("bert")
    adapter, inputs = fused(backbone, case), some_inputs(backbone)
    path = export_adapter(adapter, tmp_path / "first", backbone, name="mine")
    again = load_adapter(path, backbone)
    assert (again.labels, again.methods[0].key) == (LABELS, adapter.methods[0].key)
    np.testing.assert_allclose(logits(backbone, again, inputs), logits(backbone, adapter, inputs), atol=1e-5)
    second = export_adapter(again, tmp_path / "second", backbone, name="mine")
    files = {file.relative_to(path) for file in path.rglob("*") if file.is_file()}
    members = "mine_0,mine_1,mine_2" if case == "fused-normed" else "mine_0,mine_1"
    assert {file.parts[0] for file in files} == {"adapter_setup.json", "mine", members, *members.split(",")}
    for file in files:
        assert (second / file).read_bytes() == (path / file).read_bytes()
    for file in (path / "mine").iterdir():
        file.rename(path / members / file.name)
    (path / "adapter_setup.json").unlink()
    np.testing.assert_array_equal(
        logits(backbone, load_adapter(path / members, backbone), inputs), logits(backbone, again, inputs)
    )


def test_a_fusion_is_described(backbone_of: GetBackbone, tmp_path: Path) -> None:
    """With its adapters, from the setup or from the fusion's own directory."""
    path = export_adapter(fused(backbone_of("bert"), "fused"), tmp_path / "a", backbone_of("bert"), name="mine")
    page = describe(path)
    for part in ("a fusion of 2 adapters", "query_before_ln", "adapter_fusion_layer", "mine_0  (AdapterHub, ", "adapter_down"):
        assert part in page
    assert describe(path / "mine_0,mine_1") == page
    (path / "mine_1" / "adapter.safetensors").unlink()
    with pytest.raises(GraftaxError, match=r"mine_1: no adapter\.safetensors there"):
        describe(path)


REFUSED_FUSIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "queries": ("config", {"query": False}, "not supported: query=False"),
    "residual": ("config", {"residual_before": True}, "residual_before=True"),
    "temperature": ("config", {"temperature": True}, "temperature=True"),
    "unknown": ("config", {"tomorrows_switch": 3}, "tomorrows_switch=3"),
    "no-values": ("config", {"value": False}, r"unexpected .*adapter_fusion_layer\.mine_0,mine_1\.value\.weight"),
    "elsewhere": ("", {"adapter_names": ["mine_0", "../mine_1"]}, "expected the settings of a fusion"),
    "one": ("", {"adapter_names": ["mine_0"]}, "two or more adapters"),
    "backbone": ("", {"model_type": "roberta"}, "made for roberta"),
}


@pytest.mark.parametrize("case", REFUSED_FUSIONS)
def test_fusions_refused_by_name(case: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    (part, changes, message), backbone = REFUSED_FUSIONS[case], backbone_of("bert")
    path = export_adapter(fused(backbone, "fused"), tmp_path / "a", backbone, name="mine")
    file = path / "mine_0,mine_1" / "adapter_fusion_config.json"
    content = json.loads(file.read_text())
    (content[part] if part else content).update(changes)
    file.write_text(json.dumps(content))
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_setups_that_are_no_fusion(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    path = export_adapter(fused(backbone, "fused"), tmp_path / "a", backbone, name="mine")
    single = {"type": "single", "children": ["mine_0"]}
    for setup in (
        {"type": "Stack", "children": [single]},
        {"type": "Fuse", "children": [{"type": "Stack", "children": [single]}]},
    ):
        (path / "adapter_setup.json").write_text(json.dumps({"adapter_setup": setup, "head_setup": None}))
        with pytest.raises(GraftaxError, match="not a Fuse of single adapters"):
            load_adapter(path, backbone)
    (path / "adapter_setup.json").unlink()
    weights = path / "mine_0,mine_1" / "model_adapter_fusion.safetensors"
    weights.rename(weights.with_name("pytorch_model_adapter_fusion.bin"))
    with pytest.raises(GraftaxError, match=r"no model_adapter_fusion\.safetensors there; .* is a pickle"):
        load_adapter(weights.parent, backbone)


@pytest.mark.parametrize(
    ("members", "normed", "message"),
    [
        (Bottleneck(width=3, place="parallel"), False, "adds the residual stream once more"),
        (Bottleneck(width=3, targets=r".*layer\.[02]\.output"), False, "acts in every layer"),
        (Bottleneck(width=3), True, "only where the adapters read it"),
    ],
)
def test_fusions_the_library_cannot_hold(
    members: Method, normed: bool, message: str, backbone_of: GetBackbone, tmp_path: Path
) -> None:
    backbone = backbone_of("bert")
    trained = tuple(random_adapter(backbone, (members,), seed=seed) for seed in (3, 4))
    fusion = random_adapter(backbone, (Fuse(trained=trained, query_normed=normed),))
    with pytest.raises(GraftaxError, match=message):
        export_adapter(fusion, tmp_path / "a", backbone, name="mine")


Exchange = Callable[[str], tuple[Backbone, Path]]


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    """By family: a backbone, and the folder where it lies as torch, with rows.npz, `theirs` by them and `ours` read by them."""

    @functools.cache
    def get(family: str) -> tuple[Backbone, Path]:
        at = tmp_path_factory.mktemp(f"hub-{family}")
        backbone = load_backbone(saved(torch_model(family), at / "backbone"))
        inputs = some_inputs(backbone, seed=5)
        np.savez(at / "rows.npz", ids=inputs.ids, mask=inputs.mask, types=inputs.types)
        in_their_environment("save", at / "backbone", at / "rows.npz", at / "theirs")
        for name, methods in OURS.items():
            export_adapter(random_adapter(backbone, methods), at / "ours" / name, backbone)
        for name in ("lora", "houlsby"):
            export_adapter(random_adapter(backbone, OURS[name], tokens=True), at / "ours" / f"{name}-tokens", backbone)
        for case in FUSIONS:
            export_adapter(fused(backbone, case), at / "ours" / case, backbone)
        in_their_environment("load", at / "backbone", at / "rows.npz", at / "ours")
        return backbone, at

    return get


def prefixed(method: Method, prefix: str) -> Method:
    targets = method.targets
    if not isinstance(targets, tuple):
        return method
    return dataclasses.replace(method, targets=tuple(t.replace("PREFIX", prefix) for t in targets))


@pytest.mark.hub
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("case", THEIRS)
def test_we_read_their_files(case: str, family: str, exchange: Exchange, tmp_path: Path) -> None:
    """Adapters made and saved by `adapters` give its logits here, and go back as they came."""
    backbone, at = exchange(family)
    assert {path.name for path in (at / "theirs").iterdir() if path.is_dir()} == {*THEIRS, *THEIR_FUSIONS}
    adapter = load_adapter(at / "theirs" / case, backbone)
    assert adapter.methods[:-1] == tuple(prefixed(method, family) for method in THEIRS[case])
    head = FIRST_HEAD if (case, family) == ("default-head", "bert") else backbone.head(3)
    assert (adapter.task, adapter.labels, adapter.method("head")) == ("classify", LABELS, head)
    inputs, theirs = comparable(some_inputs(backbone, seed=5), case), np.load(at / "theirs" / f"{case}.npy")
    np.testing.assert_allclose(logits(backbone, adapter, inputs), theirs, atol=1e-4)
    assert np.abs(logits(backbone, only_head(adapter), inputs) - theirs).max() > 1e-2  # the method is felt
    back = export_adapter(adapter, tmp_path / "back", backbone, name="mine")
    for file in ("adapter.safetensors", "model_head.safetensors"):
        came, goes = load_file(at / "theirs" / case / file), load_file(back / file)
        for key, tensor in goes.items():
            if "control_trans" not in key or key in came:  # a prefix's network is run and left behind
                np.testing.assert_array_equal(came[key], tensor)
        assert case in ("prefix_tuning", "mam", "unipelt", "prefix_tuning_flat") or came.keys() == goes.keys()


@pytest.mark.hub
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("name", [*OURS, "lora-tokens", "houlsby-tokens"])
def test_they_read_our_files(name: str, family: str, exchange: Exchange) -> None:
    """Every tensor finds its place in `adapters`, and the logits are the same."""
    backbone, at = exchange(family)
    said = json.loads((at / "ours" / "loaded.json").read_text())[name]
    assert said["name"] == name
    assert not said["unexpected_keys"]
    assert all(".prefix_tuning.pool." in key for key in said["missing_keys"])  # copies, of one parameter
    adapter = random_adapter(backbone, OURS[name.removesuffix("-tokens")], tokens=name.endswith("-tokens"))
    inputs, theirs = comparable(some_inputs(backbone, seed=5), name), np.load(at / "ours" / f"{name}.npy")
    ours = logits(backbone, adapter, inputs)
    if theirs.ndim == 3:
        ours, theirs = ours[inputs.mask], theirs[inputs.mask]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.hub
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("case", THEIR_FUSIONS)
def test_we_read_their_fusions(case: str, family: str, exchange: Exchange) -> None:
    """A setup made and saved by `adapters` gives its logits here."""
    backbone, at = exchange(family)
    adapter = load_adapter(at / "theirs" / case, backbone)
    method = adapter.methods[0]
    assert isinstance(method, Fusion)
    assert (method.member, method.query_normed, method.adapters) == (*THEIR_FUSIONS[case], 2)
    inputs, theirs = some_inputs(backbone, seed=5), np.load(at / "theirs" / f"{case}.npy")
    np.testing.assert_allclose(logits(backbone, adapter, inputs), theirs, atol=1e-4)
    assert np.abs(logits(backbone, only_head(adapter), inputs) - theirs).max() > 1e-2


@pytest.mark.hub
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("case", FUSIONS)
def test_they_read_our_fusions(case: str, family: str, exchange: Exchange) -> None:
    backbone, at = exchange(family)
    ours = logits(backbone, fused(backbone, case), some_inputs(backbone, seed=5))
    np.testing.assert_allclose(ours, np.load(at / "ours" / f"{case}.npy"), atol=1e-4)
