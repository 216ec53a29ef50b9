"""An adapter meets a backbone: one of another backbone, of other shapes or with NaN is refused, wherever that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import LABELS, fresh, mapped, random_adapter
from conftest import CONFIGS
from refusals import refused
from tiny import write_backbone

from graftax import (
    Adapter,
    Generator,
    GraftaxError,
    LoRA,
    Predictor,
    Prefix,
    combine,
    export_adapter,
    load_adapter,
    merge,
    save_adapter,
    train_many,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.fitting import refuse_unfit
from graftax.adapters.task_words import words_for
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.models.random import random_backbone
from graftax.serve.bank import Bank
from graftax.serve.evaluation import evaluate_language
from graftax.serve.export import export_merged
from graftax.tasks.task_registry import TASKS

Meet = Callable[[Backbone, Adapter, Path], Any]
MEETINGS: dict[str, Meet] = {
    "Predictor.load": lambda backbone, adapter, path: Predictor(backbone).load("a", adapter),
    "Bank.add": lambda backbone, adapter, path: Bank(backbone).add("a", adapter),
    "merge": lambda backbone, adapter, path: merge(backbone, adapter),
    "export_merged": lambda backbone, adapter, path: export_merged(backbone, adapter, path / "merged"),
    "save_adapter": lambda backbone, adapter, path: save_adapter(adapter, path / "saved", backbone),
    "export_adapter": lambda backbone, adapter, path: export_adapter(adapter, path / "exported", backbone),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_backbone(tmp_path_factory.mktemp("fitting") / "backbone"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The same architecture with other weights."""
    return load_backbone(write_backbone(tmp_path_factory.mktemp("fitting") / "other", seed=8))


@pytest.mark.parametrize("where", MEETINGS)
def test_an_adapter_of_another_backbone_is_refused(where: str, backbone: Backbone, other: Backbone, tmp_path: Path) -> None:
    adapter = random_adapter(other, (LoRA(r=2, alpha=3.0),))
    with pytest.raises(GraftaxError, match=f"another backbone.*{other.fingerprint[:12]}.*{backbone.fingerprint[:12]}"):
        MEETINGS[where](backbone, adapter, tmp_path)
    assert not list(tmp_path.iterdir())
    MEETINGS[where](backbone, dataclasses.replace(adapter, fingerprint=None), tmp_path)  # not known to be another's


@pytest.mark.parametrize("where", MEETINGS)
def test_state_at_a_site_that_is_not_there_is_refused(where: str, backbone: Backbone, tmp_path: Path) -> None:
    """It answered as the base does."""
    deeper = random_backbone({**CONFIGS["bert"], "num_hidden_layers": 4})
    adapter = dataclasses.replace(random_adapter(deeper, (LoRA(r=2, alpha=3.0),)), fingerprint=None)
    with pytest.raises(GraftaxError, match=r"another backbone's: it acts on bert.encoder.layer.[23].*none of that name"):
        MEETINGS[where](backbone, adapter, tmp_path)
    wider = random_backbone({**CONFIGS["bert"], "num_hidden_layers": 2, "hidden_size": 64})
    adapter = dataclasses.replace(random_adapter(wider, (LoRA(r=2, alpha=3.0),)), fingerprint=None)
    with pytest.raises(GraftaxError, match=r"acts on bert.encoder.layer.0.*linear \(64, 64\); here that is linear \(32, 32\)"):
        MEETINGS[where](backbone, adapter, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", [*MEETINGS, "combine"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_adapter_that_is_not_finite_is_refused(where: str, value: float, backbone: Backbone, tmp_path: Path) -> None:
    """A merged model of NaN is impossible, and so is a file of it."""
    adapter = random_adapter(backbone, (LoRA(r=2, alpha=3.0),))
    broken = mapped(adapter, lambda site, leaf, array: np.full_like(array, value) if leaf == "b" else array)
    with pytest.raises(GraftaxError, match=r"lora at bert.encoder.layer.0.* b is not finite; .*and 1 more"):
        combine([adapter, broken], [1.0, 1.0]) if where == "combine" else MEETINGS[where](backbone, broken, tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_that_float32_cannot_hold_are_not_finite(backbone: Backbone) -> None:
    """An adapter that was made in memory may hold float64; what runs is float32."""
    adapter = random_adapter(backbone, (LoRA(r=2, alpha=3.0),))
    huge = mapped(adapter, lambda site, leaf, array: np.full(array.shape, 1e300) if leaf == "b" else array)
    with pytest.raises(GraftaxError, match="b is not finite"):
        Predictor(backbone).load("a", huge)


def test_sums_that_are_not_finite_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    """Finite adapters whose change of the weights is not."""
    huge = mapped(random_adapter(backbone, (LoRA(r=2, alpha=3.0),)), lambda site, leaf, a: np.full_like(a, 1e30))
    with pytest.raises(GraftaxError, match=r"lora at bert.encoder.layer.0.* cannot be merged: the kernel would not be finite"):
        export_merged(backbone, huge, tmp_path / "merged")
    for how in ("linear", "svd"):
        with pytest.raises(GraftaxError, match="the combination"), np.errstate(all="ignore"):
            combine([huge, huge], [1e30, 1e30], how)
    for weight in (np.nan, np.inf, 1e300):
        with pytest.raises(GraftaxError, match="weights must be a list, each of which is a number"):
            combine([huge], [weight])
    assert not list(tmp_path.iterdir())


CHANGES: dict[str, Callable[[Adapter], Adapter]] = {
    "1 label for a head of 3 classes.": lambda a: dataclasses.replace(a, labels=("x",)),
    "task 'tag' for a head at head.pooled": lambda a: dataclasses.replace(a, task="tag"),
    "task 'regress' has one number, and its head 3": lambda a: dataclasses.replace(a, task="regress"),
    "task 'lm' has no head": lambda a: dataclasses.replace(a, task="lm"),
    "task 'chat' is none of": lambda a: dataclasses.replace(a, task="chat"),
    "no head that would answer": lambda a: dataclasses.replace(a, methods=a.methods[:1], states={"lora": a.states["lora"]}),
    "states of head:none for methods lora, head:none": lambda a: dataclasses.replace(
        a, states={key: states for key, states in a.states.items() if key != "lora"}
    ),
    "a has shape (5, 32), its settings say (2, 32)": lambda a: mapped(
        a, lambda site, leaf, array: np.ones((5, 32), np.float32) if leaf == "a" else array
    ),
}


@pytest.mark.parametrize("said", CHANGES)
def test_an_adapter_that_contradicts_itself_is_refused(said: str, backbone: Backbone) -> None:
    line = refused(lambda: refuse_unfit(CHANGES[said](random_adapter(backbone, (LoRA(r=2, alpha=3.0),))), backbone))
    assert line is not None
    assert said in line


def test_a_missing_leaf_is_refused(backbone: Backbone) -> None:
    adapter = random_adapter(backbone, (LoRA(r=2, alpha=3.0),))
    states = {site: ({"a": own["a"]}, fixed) for site, (own, fixed) in adapter.states["lora"].items()}
    with pytest.raises(GraftaxError, match="lacks b"):
        refuse_unfit(dataclasses.replace(adapter, states=adapter.states | {"lora": states}), backbone)


def test_no_adapter_is_refused(backbone: Backbone) -> None:
    for nothing in (None, 3, b"directory", {"lora": 1}):
        assert "adapter must be an Adapter or a text or a path" in (
            refused(lambda nothing=nothing: Predictor(backbone).load("a", nothing)) or ""
        )


def test_language_models_ask_too(teller: Backbone, tmp_path: Path) -> None:
    stranger = random_backbone(CONFIGS["llama"])
    adapter = fresh(stranger, (LoRA(r=2, alpha=3.0),))
    adapter = dataclasses.replace(adapter, methods=adapter.methods[:1], states={"lora": adapter.states["lora"]})
    adapter = dataclasses.replace(adapter, task="lm", labels=())
    with pytest.raises(GraftaxError, match="another backbone"):
        Generator(teller).load("a", adapter)
    with pytest.raises(GraftaxError, match="another backbone"):
        evaluate_language(teller, adapter, [{"text": "apple"}])


def test_any_backbone_forgets_the_fingerprint(backbone: Backbone, other: Backbone, tmp_path: Path) -> None:
    """Asked for once, at load, or of an adapter in memory where it is used."""
    adapter = random_adapter(other, (LoRA(r=2, alpha=3.0),))
    path = save_adapter(adapter, tmp_path / "a", other)
    taken = load_adapter(path, backbone, any_backbone=True)
    assert taken.fingerprint is None
    assert load_adapter(path, other, any_backbone=True).fingerprint == other.fingerprint
    predictor = Predictor(backbone)
    predictor.load("file", path, any_backbone=True)
    predictor.load("taken", taken)
    predictor.load("memory", adapter, any_backbone=True)
    one, two, three, base = predictor.predict(["a red plum"] * 4, ["file", "taken", "memory", None])
    assert one.score == two.score == three.score
    assert base.label is None
    merge(backbone, adapter, any_backbone=True)
    save_adapter(taken, tmp_path / "b", backbone)


def test_virtual_tokens_leave_room_for_a_text(backbone: Backbone) -> None:
    adapter = fresh(backbone, (Prefix(tokens=40),))
    with pytest.raises(GraftaxError, match=r"40 virtual tokens leave no room: .* takes 40"):
        Predictor(backbone).load("a", adapter)


def test_a_layout_is_of_sites_that_are_there(backbone: Backbone) -> None:
    deeper = random_backbone({**CONFIGS["bert"], "num_hidden_layers": 4})
    with pytest.raises(GraftaxError, match="another backbone's"):
        Layout.of([fresh(deeper, "lora")], backbone.sites)


def test_the_tasks_are_those_there_are() -> None:
    heads = {(True, False): "item", (True, True): "position", (False, True): None, (False, False): None}
    of_maps = {"image-segment": "map", "image-detect": "objects"}
    for name, task in TASKS.items():
        assert words_for(name).head == of_maps.get(name, heads[task.output.headed, task.output.by_position])
    assert len(LABELS) == 3


@pytest.mark.parametrize("labels", [("x", "x", "y"), (1, 2, 3), (None,) * 3, ("x", " ", "y"), (["x"], ["y"], ["z"])])
def test_labels_that_name_no_classes(backbone: Backbone, tmp_path: Path, labels: Any) -> None:
    """Three classes want three texts that tell them apart, where an adapter is loaded and where it is saved."""
    assert len(LABELS) == 3
    adapter = random_adapter(backbone, "lora")
    with pytest.raises(GraftaxError, match=r"labels must be|is there twice"):
        Predictor(backbone).load("one", adapter, labels=labels)
    with pytest.raises(GraftaxError, match=r"labels must be|is there twice"):
        save_adapter(dataclasses.replace(adapter, labels=labels), tmp_path / "x", backbone)


@pytest.mark.parametrize("labels", ["xyz", {"x": 1, "y": 2, "z": 3}, 3])
def test_labels_that_are_no_list(backbone: Backbone, labels: Any) -> None:
    with pytest.raises(GraftaxError, match="labels must be a list"):
        Predictor(backbone).load("one", random_adapter(backbone, "lora"), labels=labels)


@pytest.mark.parametrize("said", ["no", 1, None])
def test_any_backbone_is_true_or_false(backbone: Backbone, other: Backbone, said: Any) -> None:
    """A text would count as true, and switch the check off."""
    with pytest.raises(GraftaxError, match="any_backbone must be true or false"):
        Predictor(backbone).load("one", random_adapter(other, "lora"), any_backbone=said)


@pytest.mark.parametrize("named", [None, 1, "", b"x", ["a"]])
def test_what_names_no_directory(backbone: Backbone, named: Any) -> None:
    with pytest.raises(GraftaxError, match="directory must be a text or a path, such as a file system can hold, got"):
        load_adapter(named, backbone)
    with pytest.raises(GraftaxError, match="path_or_hub_id must be a text or a path, such as a file system can hold, got"):
        load_backbone(named)


@pytest.mark.parametrize("instead", [None, "a/path", Path("a/path"), {}])
def test_what_is_no_backbone(instead: Any, tmp_path: Path) -> None:
    """The likeliest slip is the path of one."""
    for use in (Predictor, Generator, lambda it: train_many(it, {"a": [{"text": "x", "label": "y"}]}, tmp_path / "out")):
        with pytest.raises(
            GraftaxError, match=r"backbone must be a Backbone, got |expected a backbone, as load_backbone gives one, got "
        ):
            use(instead)
    assert not (tmp_path / "out").exists()
