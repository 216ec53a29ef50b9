"""PEFT's starts of LoRA: files of adapters that began there, and our starts beside its own (invariants 11 and 25)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from cases import LABELS, logits
from peft_configs import peft_config
from peft_pairs import Pairs, make, read_by_peft, rows
from reference import torch_logits
from tiny import edited

from graftax import Adapter, GraftaxError, LoRA, Recipe, load_adapter, save_adapter
from graftax.adapters.combining import deltas
from graftax.adapters.methods import starts
from graftax.data.batches import Shape
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokens
from graftax.tasks.task_registry import task_named
from graftax.train import Examples
from graftax.train.calibration import Calibration


def lora_from(began: Any, **changes: Any) -> Any:
    settings = {"task_type": "SEQ_CLS", "r": 4, "lora_alpha": 7, "target_modules": ["query", "output.dense"], **changes}
    return peft.LoraConfig(init_lora_weights=began, **settings)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "rank_pattern": {"query": 2}, "alpha_pattern": {"dense": 3}}])
@pytest.mark.parametrize("began", [True, False, "gaussian", "orthogonal", "eva", "mica", "pissa", "olora"])
def test_we_read_what_began_elsewhere(began: Any, options: dict[str, Any], pairs: Pairs, tmp_path: Path) -> None:
    """Invariants 11, 25: PEFT changes the base when it loads PiSSA and OLoRA; here they become plain LoRA, which PEFT reads."""
    pair = pairs("bert")
    trained, path = make(pair, tmp_path / "theirs", lora_from(began, **options))
    loaded = peft.PeftModel.from_pretrained(pair.model(), path).eval()
    theirs = torch_logits(loaded, rows(pair.backbone))
    np.testing.assert_allclose(theirs, torch_logits(trained, rows(pair.backbone)), atol=1e-5)
    adapter = load_adapter(path, pair.backbone)
    method = adapter.method("lora")
    assert isinstance(method, LoRA)
    assert method.r == (8 if began in ("pissa", "olora") else 4)
    np.testing.assert_allclose(logits(pair.backbone, adapter, rows(pair.backbone)), theirs, atol=1e-4)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    np.testing.assert_allclose(read_by_peft(pair, back), theirs, atol=1e-4)
    if method.r == 8:  # read as what PEFT trained, it would be something else
        edited(path / "adapter_config.json", init_lora_weights=True)
        wrong = logits(pair.backbone, load_adapter(path, pair.backbone), rows(pair.backbone))
        assert np.abs(wrong - theirs).max() > 1e-2


@pytest.mark.parametrize("began", ["pissa", "olora"])
def test_what_peft_converts(began: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 25: PEFT's own way to plain LoRA, which our refusals name, makes a file (no head) that is read as it is."""
    pair = pairs("bert")
    model = peft.get_peft_model(pair.model(), lora_from(began, task_type=None))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = began
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    trained = {name: left + scale * b @ a for name, (a, b, scale, left) in began_in_peft(model).items()}
    model.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    found = deltas(load_adapter(tmp_path / "plain", pair.backbone))
    assert {site.path for site in found} == set(trained)
    for site, change in found.items():
        np.testing.assert_allclose(site.weights().kernel + change, trained[site.path].T, atol=1e-4)


@pytest.mark.parametrize("began", ["pissa_niter_4", "corda", "lora_ga", "loftq", "of tomorrow"])
def test_starts_that_no_file_tells(began: Any, pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft_config("lora", "bert", "pooled"))
    edited(path / "adapter_config.json", init_lora_weights=began)
    message = rf"init_lora_weights={re.escape(repr(began))} changed the base.*path_initial_model_for_weight_conversion"
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, pair.backbone)


def test_dora_on_a_changed_base(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, lora_from("pissa", use_dora=True))
    with pytest.raises(GraftaxError, match=r"init_lora_weights='pissa' with dora is not supported"):
        load_adapter(path, pair.backbone)


def began_in_peft(model: Any) -> dict[str, tuple[np.ndarray, ...]]:
    """Every module that PEFT's LoRA acts on: A, B, scale, and the weights that are left, [out, in]."""
    found = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            a, b = (layers["default"].weight.detach().numpy() for layers in (module.lora_A, module.lora_B))
            found[name] = (a, b, module.scaling["default"], module.get_base_layer().weight.detach().numpy())
    return found


def assert_begins_as_in_peft(method: LoRA, model: Any, backbone: Backbone, within: float = 1e-5) -> None:
    """The product of the factors, and the weights without it. Not the factors: their signs are anybody's."""
    adapter, theirs = Adapter.create((method,), backbone.sites), began_in_peft(model)
    (states,) = adapter.states.values()
    assert {site.path for site in states} == set(theirs)
    for site, (own, fixed) in states.items():
        a, b, scale, left = theirs[site.path]
        assert fixed["scale"] == pytest.approx(scale)
        change = fixed["scale"] * own["a"].T @ own["b"]
        np.testing.assert_allclose(change, scale * (b @ a).T, atol=within)
        np.testing.assert_allclose(site.weights().kernel - change, left.T, atol=within)
        np.testing.assert_allclose(np.linalg.norm(own["a"], axis=1), np.linalg.norm(a, axis=1), rtol=100 * within)


def texts_of(backbone: Backbone) -> Calibration:
    """The rows of these tests as those of a job, all in one batch."""
    inputs = rows(backbone)
    texts = [Tokens(ids[own], types[own], None) for ids, own, types in zip(*inputs[:3], strict=True)]
    shape = Shape(len(texts), len(texts), inputs.ids.shape[1], shared=False)
    held = Prepared(Examples({"text": ()}), texts, [np.int32(0)] * len(texts))
    head = backbone.head(len(LABELS))
    return Calibration(backbone, task_named("classify"), backbone.processor, Recipe(), head, held, shape)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
@pytest.mark.parametrize("began", ["pissa", "olora"])
def test_starts_from_weights_are_pefts(began: str, options: dict[str, Any], pairs: Pairs) -> None:
    pair = pairs("bert")
    method = LoRA(r=4, alpha=7.0, start=began, targets=("query", "output.dense"), rslora=bool(options))
    assert_begins_as_in_peft(method, peft.get_peft_model(pair.model(), lora_from(began, **options)), pair.backbone)


def test_lora_ga_is_pefts(pairs: Pairs) -> None:
    """Of the same gradient, at the rank where PEFT's randomised decomposition is exact; up to the signs of the rows."""
    pair, random = pairs("bert"), np.random.default_rng(0)
    model = pair.model()
    config = lora_from("lora_ga", r=8, lora_ga_config=peft.tuners.lora.config.LoraGAConfig(), target_modules=["query"])
    gradients = {}
    for name, module in model.named_modules():
        if name.endswith("query"):
            gradients[name] = random.standard_normal((32, 32)).astype(np.float32)
            module._peft_loraga_grad = torch.tensor(gradients[name].T)
    theirs = began_in_peft(peft.get_peft_model(model, config))
    sites = {site.path: site for site in pair.backbone.sites}
    for path, (a, b, _, _) in theirs.items():
        mine = starts.lora_ga(sites[path], gradients[path], 8)
        np.testing.assert_allclose(np.abs(mine[0]), np.abs(a), atol=1e-3)
        np.testing.assert_allclose(np.abs(mine[1]), np.abs(b.T), atol=1e-3 * np.abs(b).max())


def test_eva_is_pefts(pairs: Pairs) -> None:
    """The same ranks and, as near as its incremental and randomised decomposition comes, the same axes."""
    pair = pairs("bert")
    inputs, targets = rows(pair.backbone), ["key", "output.dense"]
    batch = {"input_ids": inputs.ids, "attention_mask": inputs.mask, "token_type_ids": inputs.types}
    loader = [{name: torch.tensor(np.asarray(part, np.int64)) for name, part in batch.items()}]
    config = lora_from("eva", target_modules=targets, r=2)
    found = peft.get_eva_state_dict(pair.model(), loader, config, show_progress_bar=False)
    method = LoRA(r=2, alpha=7.0, start="eva", targets=tuple(targets))
    adapter = Adapter.create((method,), pair.backbone.sites, training=texts_of(pair.backbone))
    (states,) = adapter.states.values()
    ranks = {site.path: len(own["a"]) for site, (own, _) in states.items()}
    assert ranks == {name: len(axes) for name, axes in found.items() if len(axes)}
    for site, (own, _) in states.items():
        cosines = np.abs(np.sum(own["a"] * found[site.path].numpy(), axis=1))
        np.testing.assert_allclose(cosines, 1.0, atol=0.02, err_msg=site.path)
