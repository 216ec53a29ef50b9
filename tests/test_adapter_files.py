"""What an adapter's directory may say of itself: everything is held to its type and to the tensors beside it, at load."""

from __future__ import annotations

import json
import math
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import LABELS, random_adapter
from conftest import Graftax
from make_golden import GOLDEN
from refusals import refused
from safetensors.numpy import load_file, save_file
from tiny import edited

from graftax import Bottleneck, GraftaxError, LoRA, Predictor, export_adapter, load_adapter, save_adapter
from graftax.adapters.directory import CONFIG, HUB_WEIGHTS, WEIGHTS
from graftax.adapters.facts import EXTRA, read_facts
from graftax.adapters.formats.adapterhub.reading import HEAD_CONFIG
from graftax.models.backbone import Backbone


@pytest.fixture
def saved(tiny: Backbone, tmp_path: Path) -> Path:
    return save_adapter(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), tmp_path / "a", tiny)


# -- graftax.json ---------------------------------------------------------------------------------------------------------

LIES: dict[str, dict[str, Any]] = {
    "task 'tag' for a head at head.pooled": {"task": "tag"},
    "task 'sft' has no head": {"task": "sft"},
    "task 'regress' has one number, and its head 3": {"task": "regress"},
    "task 'chat' is none of": {"task": "chat"},
    "task must be a text or null, got 3": {"task": 3},
    "labels must be a list, each of which is a text, got 'abc'": {"labels": "abc"},
    "labels must be a list, each of which is a text, got [1, 2, 3]": {"labels": [1, 2, 3]},
    "2 labels for a head of 3 classes": {"labels": ["a", "b"]},
    "is there twice": {"labels": ["a", "b", "a"]},
    "recipe: max_length must be a whole number, at least 1": {"recipe": {"max_length": -5}},
    "max_length must be a whole number, at least 1 and below 2,147,483,648, got '128'": {"recipe": {"max_length": "128"}},
    "recipe must be an object": {"recipe": [["max_length", 3]]},
    "metrics must be an object": {"metrics": {"accuracy": "high"}},
    "backbone must be an object, got 'bert'": {"backbone": "bert"},
    "backbone: fingerprint must be a text or null, got 12": {"backbone": {"fingerprint": 12}},
    "backbone: no such key: weights": {"backbone": {"weights": "x"}},
    "schema 2 is none": {"schema": 2},
    "schema must be a whole number, got True": {"schema": True},
    "sha256 must be a text or null": {"sha256": 1},
    "no such key: lables; there are schema, task, labels": {"lables": ["a"]},
    "methods must be": {"methods": {"method": "lora"}},
    "methods: method must be a text": {"methods": [{"method": ["lora"]}]},
    "unknown method 'eval'": {"methods": [{"method": "eval"}]},
    "methods: lora: r must be a whole number": {"methods": [{"method": "lora", "r": 10**9}]},
    "methods: no such key: rank": {"methods": [{"method": "lora", "rank": 2}]},
    "lora: start 'x' is none of": {"methods": [{"method": "lora", "start": "x"}]},
    "an adapter has methods, each once: lora, lora": {"methods": [{"method": "lora"}, {"method": "lora"}]},
    "labels must be a whole number, at least 1": {"methods": [{"method": "head", "labels": 10**8}]},
    "by it head holds 33,000,000 numbers at head.pooled": {
        "methods": [{"method": "lora", "r": 2}, {"method": "head", "labels": 10**6}],
        "labels": [],
    },
}


@pytest.mark.parametrize("said", LIES)
def test_a_file_that_lies_is_refused_in_a_line(said: str, saved: Path, tiny: Backbone) -> None:
    edited(saved / EXTRA, **LIES[said])
    line = refused(lambda: load_adapter(saved, tiny))
    assert line is not None
    assert said in line
    assert str(saved) in line


def test_the_command_line_says_it_and_exits_with_2(saved: Path, tiny_dir: Path, graftax: Graftax) -> None:
    edited(saved / EXTRA, recipe={"max_length": -5})
    said = graftax("predict", "-b", tiny_dir, "-a", f"a={saved}", "-i", "-", stdin='{"text": "a plum"}\n')
    assert (said.code, said.out) == (2, "")
    assert "max_length must be a whole number" in " ".join(said.err.split())


NO_JSON = ["{", '{"labels": ' + "[" * 200_000, '{"parameters": ' + "9" * 6000 + "}", '{"schema": 1, "schema": 1}']


@pytest.mark.parametrize("text", NO_JSON, ids=["cut", "nested", "digits", "twice"])
def test_what_is_no_sound_json_is_refused(text: str, saved: Path, tiny: Backbone) -> None:
    for file in (EXTRA, CONFIG):
        before = (saved / file).read_text()
        (saved / file).write_text(text)
        assert str(saved / file) in (refused(lambda: load_adapter(saved, tiny)) or "")
        (saved / file).write_text(before)


def in_the_way(file: Path) -> dict[str, Callable[[], None]]:
    return {
        "a dangling link": lambda: file.symlink_to(file.parent / "nowhere"),
        "a link to itself": lambda: file.symlink_to(file),
        "a directory": file.mkdir,
        "a pipe": lambda: os.mkfifo(file),
    }


@pytest.mark.parametrize("what", ["a dangling link", "a link to itself", "a directory", "a pipe"])
def test_facts_that_cannot_be_read_are_no_missing_facts(what: str, saved: Path, tiny: Backbone) -> None:
    """Without them the checksum and the fingerprint would not be compared."""
    (saved / EXTRA).unlink()
    assert load_adapter(saved, tiny).fingerprint is None
    in_the_way(saved / EXTRA)[what]()
    assert f"{saved / EXTRA}: " in (refused(lambda: load_adapter(saved, tiny)) or "")


@pytest.mark.parametrize("what", ["a dangling link", "a directory"])
def test_a_head_that_cannot_be_read_is_no_missing_head(what: str, tiny: Backbone, tmp_path: Path) -> None:
    there = export_adapter(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), tmp_path / "there", tiny)
    (there / HEAD_CONFIG).unlink()
    in_the_way(there / HEAD_CONFIG)[what]()
    assert HEAD_CONFIG in (refused(lambda: load_adapter(there, tiny)) or "")


def test_a_file_that_may_not_be_opened_is_refused(saved: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def forbidding(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == EXTRA:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", forbidding)
    assert "graftax.json: cannot be read (Permission denied)" in (refused(lambda: load_adapter(saved, tiny)) or "")


def test_metrics_may_be_no_numbers_and_the_file_is_json_all_the_same(tiny: Backbone, tmp_path: Path) -> None:
    """Older versions wrote NaN; a correlation of constant answers is none."""
    adapter = random_adapter(tiny, (LoRA(r=2, alpha=3.0),))
    adapter = type(adapter)(
        **{**vars(adapter), "metrics": {"pearson": math.nan, "loss": math.inf, "accuracy": 0.5, "epoch": 2}}
    )
    path = save_adapter(adapter, tmp_path / "a", tiny)
    text = (path / EXTRA).read_text()
    assert json.loads(text, parse_constant=refuse)["metrics"] == {"pearson": None, "loss": None, "accuracy": 0.5, "epoch": 2}
    for written in (text, text.replace('"pearson": null', '"pearson": NaN')):
        (path / EXTRA).write_text(written)
        metrics = load_adapter(path, tiny).metrics
        assert math.isnan(metrics["pearson"])
        assert metrics["accuracy"] == 0.5
    (path / EXTRA).write_text(text.replace('"labels": [', '"labels": [NaN, '))
    assert "labels must be a list" in (refused(lambda: load_adapter(path, tiny)) or "")


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_a_recipe_that_json_cannot_say_is_refused(tiny: Backbone, tmp_path: Path) -> None:
    adapter = random_adapter(tiny, (LoRA(r=2, alpha=3.0),))
    for value in (math.nan, object()):
        odd = replace(adapter, recipe={"lr": value})
        with pytest.raises(GraftaxError, match="must be what JSON can say"):
            save_adapter(odd, tmp_path / "a", tiny)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*")), ids=lambda path: path.name)
def test_facts_of_older_versions_are_read(path: Path) -> None:
    facts = read_facts(path)
    assert facts is not None
    assert facts.backbone.fingerprint


# -- adapter_config.json --------------------------------------------------------------------------------------------------

UNSOUND: dict[str, Any] = {
    "r": [10**9, -1, 0, True, "2", 2.5, None, [2]],
    "lora_alpha": ["3", None, 1e300, 10**400, True],
    "lora_dropout": [2, -0.5, "0"],
    "use_rslora": [1, "false"],
    "rank_pattern": [[1], {"query": 10**9}, {"query": 0}, {"query": "2"}, {"(": 2}, {"(?=x)": 2}],
    "alpha_pattern": [{"query": "a"}, {"query": 1e300}],
    "target_modules": [3, [3], {"query": 1}, "(", "(?!x).*", [], ""],
    "exclude_modules": [3, [3], "("],
    "layers_to_transform": ["0", [True], [0.5], {"0": 1}],
    "layers_pattern": [3, ["a", 3]],
    "modules_to_save": ["classifier", [1]],
    "peft_type": [None, 3, "NEW", ["LORA"]],
    "task_type": [3, ["SEQ_CLS"]],
    "init_lora_weights": [3, ["pissa"]],
    "base_model_name_or_path": [3],
}


@pytest.mark.parametrize("key", UNSOUND)
def test_peft_configs_of_other_kinds_are_refused_by_name(key: str, saved: Path, tiny: Backbone) -> None:
    (saved / EXTRA).unlink()
    before = (saved / CONFIG).read_text()
    for value in UNSOUND[key]:
        (saved / CONFIG).write_text(before)
        edited(saved / CONFIG, **{key: value})
        line = refused(lambda: load_adapter(saved, tiny))
        assert line is not None, value
        assert str(saved) in line


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("file", [WEIGHTS, HUB_WEIGHTS])
def test_tensors_that_are_not_finite_in_float32_are_refused(
    value: float, file: str, saved: Path, tiny: Backbone, tmp_path: Path
) -> None:
    (saved / EXTRA).unlink()
    if file == HUB_WEIGHTS:
        saved = export_adapter(random_adapter(tiny, (Bottleneck(width=4),)), tmp_path / "there", tiny)
    tensors = load_file(saved / file)
    key = sorted(tensors)[0]
    tensors[key] = tensors[key].astype(np.float64)
    tensors[key].flat[3] = value
    save_file(tensors, saved / file)
    line = refused(lambda: load_adapter(saved, tiny))
    assert line is not None
    assert f"numbers that float32 cannot hold in {key}" in line


# -- sizes ----------------------------------------------------------------------------------------------------------------

SIZES: dict[str, dict[str, Any]] = {
    "r": {"peft_type": "LORA", "target_modules": ["query"], "r": 30_000},
    "rank_pattern": {"peft_type": "LORA", "target_modules": ["query"], "rank_pattern": {"query": 30_000}},
    "tokens": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 30_000},
    "prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 30_000},
    "network": {"peft_type": "P_TUNING", "num_virtual_tokens": 30_000, "encoder_hidden_size": 30_000, "token_dim": 32},
    "own": {"peft_type": "GRAFTAX", "methods": [{"method": "bottleneck", "width": 30_000}]},
    "fusion": {"peft_type": "GRAFTAX", "methods": [{"method": "fusion", "adapters": 200, "width": 30_000}]},
    "classes": {"peft_type": "GRAFTAX", "methods": [{"method": "head", "labels": 1_000_000}]},
    "bases": {"peft_type": "RANDLORA", "target_modules": ["query"], "r": 30_000},
    "projections": {"peft_type": "VERA", "target_modules": ["query"], "r": 30_000},
}


@pytest.mark.parametrize("what", SIZES)
def test_a_size_is_compared_before_it_is_believed(what: str, saved: Path, tiny: Backbone) -> None:
    (saved / EXTRA).unlink()
    (saved / CONFIG).write_text(json.dumps(SIZES[what]))
    began = time.process_time()
    tracemalloc.start()
    line = refused(lambda: load_adapter(saved, tiny))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line is not None
    assert "tensors do not fit" in line
    assert most < 16 << 20
    assert time.process_time() - began < 5.0


def test_labels_of_a_directory_are_one_for_each_class(saved: Path, tiny: Backbone) -> None:
    predictor = Predictor(tiny)
    predictor.load("a", saved)
    assert predictor.labels("a") == LABELS
