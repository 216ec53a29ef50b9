"""How two adapters differ: in settings, in what they add to the weights, in answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import METHODS, random_adapter
from conftest import GetBackbone
from contract import NOT_ON_TEXTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from rich.cells import cell_len
from tiny import toy_rows

from graftax import Adapter, LoRA, Predictor, Prefix, load_adapter, save_adapter
from graftax.adapters.merging import merged_arrays
from graftax.hub.answers import Truth, compare_answers
from graftax.hub.answers import _truth as truth_of
from graftax.hub.changes import changes_in, changes_of
from graftax.hub.diff import Difference, Setting, diff, diff_record
from graftax.hub.diff_page import diff_page
from graftax.json_files import json_line
from graftax.models.backbone import Backbone


def changed(adapter: Adapter, change: Any, method: str = "lora") -> Adapter:
    """The adapter with the trainable leaves of one method at every site replaced."""
    key = next(one.key for one in adapter.methods if one.name == method)
    states = {site: (change(own), fixed) for site, (own, fixed) in adapter.states[key].items()}
    return dataclasses.replace(adapter, states=adapter.states | {key: states})


@pytest.fixture(scope="module")
def saved(backbone_of: GetBackbone, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Adapters on a tiny BERT, each saved once: by name of METHODS, with a seed."""
    folder, backbone = tmp_path_factory.mktemp("saved"), backbone_of("bert")

    def get(name: str, seed: int = 1) -> Path:
        directory = folder / f"{name}-{seed}"
        return directory if directory.exists() else save_adapter(random_adapter(backbone, name, seed=seed), directory, backbone)

    return get


def at_modules(found: Difference) -> dict[str, tuple[str, float, float, float | None]]:
    return {one.module: (one.of, one.left, one.right, one.apart) for one in found.modules}


def test_norms_and_angles_by_hand(saved: Any, backbone_of: GetBackbone) -> None:
    """Of LoRA, from the files alone: s A^T B, whose scale is alpha / r."""
    found = diff(saved("lora"), saved("lora", 2))
    adapters = [load_adapter(saved("lora", seed), backbone_of("bert")) for seed in (1, 2)]
    expected: dict[str, list[np.ndarray]] = {}
    for adapter in adapters:
        for site, (own, _) in adapter.states["lora"].items():
            expected.setdefault(site.path, []).append(7.0 / 3.0 * own["a"].T @ own["b"])
    there = {one.module: one for one in found.modules if one.of == "weights"}
    assert there.keys() == expected.keys()
    for path, (left, right) in expected.items():
        one = there[path]
        norms = [float(np.linalg.norm(array)) for array in (left, right, left - right)]
        assert (one.left, one.right, one.apart) == pytest.approx(norms, rel=1e-5)
        assert one.cosine == pytest.approx(float((left * right).sum()) / norms[0] / norms[1], abs=1e-5)
    (total,) = (one for one in found.totals if one.of == "weights")
    everything = [np.concatenate([pair[side].ravel() for pair in expected.values()]) for side in (0, 1)]
    assert total.apart == pytest.approx(float(np.linalg.norm(everything[0] - everything[1])), rel=1e-5)
    assert [one.apart for one in found.modules] == sorted((one.apart for one in found.modules), reverse=True)


def test_unlike_factors_of_one_change_are_alike(backbone_of: GetBackbone) -> None:
    """A and B turned against each other, and at another rank and scale: nothing is apart, and what is twice as strong is."""
    backbone, random = backbone_of("bert"), np.random.default_rng(3)
    one = random_adapter(backbone, (LoRA(r=3, alpha=7.0),))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turned = changed(one, lambda own: {"a": turn.astype(np.float32) @ own["a"], "b": turn.astype(np.float32) @ own["b"]})
    wider = dataclasses.replace(
        one,
        methods=(LoRA(r=6, alpha=14.0), one.methods[1]),
        states={
            **one.states,
            "lora": {
                site: ({leaf: np.pad(own[leaf], ((0, 3), (0, 0))) for leaf in "ab"}, fixed)
                for site, (own, fixed) in one.states["lora"].items()
            },
        },
    )
    for other in (turned, wider):
        total = diff(one, other).totals[0]
        assert total.of == "weights"
        assert total.apart == pytest.approx(0.0, abs=1e-5 * total.left)
        assert total.cosine == pytest.approx(1.0, abs=1e-6)
    twice = diff(one, changed(one, lambda own: {"a": own["a"], "b": 2 * own["b"]})).totals[0]
    assert (twice.right, twice.apart, twice.cosine) == pytest.approx((2 * twice.left, twice.left, 1.0), rel=1e-6)
    back = diff(one, changed(one, lambda own: {"a": own["a"], "b": -own["b"]})).totals[0]
    assert back.cosine == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["lora", "rslora", "lora-embedding", "lora_fa", "adalora"])
def test_files_alone_say_what_the_backbone_does(name: str, saved: Any, backbone_of: GetBackbone) -> None:
    alone, loaded = changes_in(saved(name)), changes_of(load_adapter(saved(name), backbone_of("bert")))
    body = {path: change for path, change in loaded.items() if change.of == "weights"}
    assert body
    for path, change in body.items():
        assert (alone[path].of, alone[path].layout) == (change.of, change.layout)
        assert np.array_equal(alone[path].numbers(), change.numbers())


@pytest.mark.parametrize("name", ["lora-dense", "dora", "ia3", "bitfit", "hira", "fourierft", "oft", "full", "together"])
def test_a_backbone_says_what_merging_would_change(name: str, saved: Any, backbone_of: GetBackbone) -> None:
    backbone = backbone_of("bert")
    adapter = load_adapter(saved(name), backbone)
    there = {path: change for path, change in changes_of(adapter).items() if change.of == "weights"}
    assert there
    kept = tuple(method for method in adapter.methods if method.mergeable or method.name == "head")
    body = dataclasses.replace(adapter, methods=kept, states={one.key: adapter.states[one.key] for one in kept})
    before, after = backbone.arrays(), merged_arrays(backbone, body)
    merged = np.sqrt(sum(np.square(after[key] - np.asarray(before[key], np.float32)).sum(dtype=np.float64) for key in before))
    apart = np.sqrt(sum(np.square(change.numbers()).sum(dtype=np.float64) for change in there.values()))
    assert apart == pytest.approx(float(merged), rel=1e-4)


def test_every_method_has_something_to_compare(saved: Any) -> None:
    """In its files alone; nothing differs from itself, and something from another."""
    for name in [name for name in METHODS if name not in ("alora", "probe", "trainable_tokens", *NOT_ON_TEXTS)]:
        same, other = diff(saved(name), saved(name)), diff(saved(name), saved(name, 2))
        assert same.settings == ()
        assert {one.apart for one in same.modules} == {0.0}, name
        assert all(total.apart and total.cosine is not None and total.cosine < 0.9999 for total in other.totals), name


def test_what_cannot_be_compared_says_so(saved: Any, backbone_of: GetBackbone) -> None:
    found = diff(saved("dora"), saved("lora"))
    query = "bert.encoder.layer.0.attention.self.query"
    assert at_modules(found)[query][0] == "unlike"
    assert at_modules(found)[query][3] is None
    known = at_modules(diff(saved("dora"), saved("lora"), backbone=backbone_of("bert")))[query]
    assert known[0] == "weights"
    assert known[3] is not None
    one_sided = at_modules(diff(saved("lora"), saved("lora-dense")))
    of, left, right, apart = one_sided[query]
    assert (of, right, apart) == ("weights", 0.0, left)
    (head,) = diff(saved("ia3"), saved("pfeiffer")).totals  # whose arrays are of one kind and shape in both
    assert (head.of, head.apart) == ("arrays", 0.0)


def test_what_is_known_of_both_is_compared(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    one = random_adapter(backbone, (LoRA(r=3, alpha=7.0),))
    other = dataclasses.replace(one, labels=("bad", "fair", "best"), recipe={"lr": 0.1}, metrics={"val_accuracy": 0.5})
    other = dataclasses.replace(other, methods=(LoRA(r=3, alpha=7.0, dropout=0.1), one.methods[1]))
    paths = [save_adapter(adapter, tmp_path / name, backbone) for name, adapter in (("a", one), ("b", other))]
    expected = {
        "labels": (("bad", "fair", "good"), ("bad", "fair", "best")),
        "lora.dropout": (0.0, 0.1),
        "recipe.lr": (None, 0.1),
        "metrics.val_accuracy": (None, 0.5),
    }
    for found in (diff(*paths), diff(*paths, backbone=backbone), diff(one, other), diff(paths[0], other)):
        assert {setting.key: (setting.left, setting.right) for setting in found.settings} == expected


def test_answers_are_compared_with_those_a_predictor_gives(tiny: Backbone) -> None:
    one, other = (random_adapter(tiny, "lora", seed=seed) for seed in (1, 2))
    rows = toy_rows(count=30)
    predictor = Predictor(tiny)
    predictor.load("one", one)
    predictor.load("other", other)
    said = [[answer.label for answer in predictor.predict([row["text"] for row in rows], name)] for name in ("one", "other")]
    assert said[0] != said[1]
    unlabelled = diff(one, other, backbone=tiny, data=[{"text": row["text"]} for row in rows]).answers
    assert unlabelled is not None
    assert unlabelled.alike == np.mean([left == right for left, right in zip(*said, strict=True)])
    assert sum(unlabelled.changed.values()) == round(30 * (1 - unlabelled.alike))
    assert unlabelled.truth is None
    labelled = [{"text": row["text"], "label": label} for row, label in zip(rows, said[0], strict=True)]
    truth = compare_answers(predictor, "one", "other", labelled).truth
    assert truth is not None
    assert (truth.left, truth.right) == (1.0, unlabelled.alike)
    assert (truth.only_left, truth.only_right) == (round(30 * (1 - unlabelled.alike)), 0)


@pytest.mark.parametrize("task", ["multilabel", "regress", "tag"])
def test_answers_of_other_tasks(tiny: Backbone, task: str) -> None:
    head = tiny.head(1 if task == "regress" else 3, task == "tag")
    labels = ("value",) if task == "regress" else ("O", "B-FRUIT", "B-METAL") if task == "tag" else ("any", "fruit", "metal")
    made = [Adapter.create((LoRA(), head), tiny.sites_for(head), seed=seed, task=task, labels=labels) for seed in (1, 2)]
    found = diff(made[0], made[1], backbone=tiny, data=toy_rows(task)).answers
    assert found is not None
    assert found.rows == 24
    assert (found.apart is None) == (task != "regress")
    assert (found.truth is None) == (found.alike is None) == (task == "regress")
    same = diff(made[0], made[0], backbone=tiny, data=toy_rows(task)).answers
    assert same is not None
    assert (same.alike, same.apart, dict(same.changed)) == (None if task == "regress" else 1.0, found.apart and 0.0, {})
    assert same.truth is None or (same.truth.p, same.truth.only_left) == (1.0, 0)


def test_mcnemars_exact_test_by_hand() -> None:
    """1 of 10 rows on one side: twice the chance of at most one head in ten throws, (1 + 10) / 1024."""
    left, right = np.array([1] * 20 + [1] + [0] * 9, bool), np.array([1] * 20 + [0] + [1] * 9, bool)
    assert truth_of(left, right) == Truth(0.7, 29 / 30, 1, 9, pytest.approx(22 / 1024))
    assert truth_of(left, left).p == 1.0


def test_refusals(saved: Any, tiny: Backbone, teller: Backbone, backbone_of: GetBackbone) -> None:
    rows = toy_rows()
    assert "on a backbone" in str(refused(lambda: diff(saved("lora"), saved("lora"), data=rows)))
    assert "no such adapter directory" in str(refused(lambda: diff(saved("lora"), saved("lora").parent / "gone")))
    assert "another backbone" in str(refused(lambda: diff(saved("lora"), saved("lora"), backbone=tiny)))
    one = random_adapter(tiny, "lora")
    tagger = random_adapter(tiny, "lora", tokens=True)
    assert "'classify' and one of 'tag'" in str(refused(lambda: diff(one, tagger, backbone=tiny, data=rows)))
    writer = Adapter.create((LoRA(),), teller.sites, task="lm")
    said = refused(lambda: diff(writer, writer, backbone=teller, data=[{"text": "a"}]))
    assert said == "adapters of task 'lm' without a head give no answers to compare."


def test_a_page_of_80_columns(tiny: Backbone, tmp_path: Path) -> None:
    hostile = "l\x1b[31m\n\u202e" * 40
    one = random_adapter(tiny, "lora-dense")
    other = dataclasses.replace(
        random_adapter(tiny, "lora-dense", seed=2),
        labels=(hostile, "魚" * 50, "c"),
        recipe={hostile: hostile, "wide": "魚" * 90},
    )
    found = diff(one, other, backbone=tiny, data=[{**row, "label": "good"} for row in toy_rows()])
    page = diff_page(found, most=3)
    assert max(map(cell_len, page.split("\n"))) <= 80
    assert page.replace("\n", "").isprintable()
    for part in (
        "labels",
        "added to the weights",
        "arrays of methods",
        "  and 4 more",
        "together",
        "alike",
        "correct: left ",
        "correct on the left alone ",
        "McNemar's exact p",
    ):
        assert part in page
    json.loads(json_line(diff_record(found)))


def test_a_page_about_two_that_are_alike(saved: Any) -> None:
    page = diff_page(diff(saved("lora"), saved("lora")))
    assert "nothing that is known of them differs" in page
    assert page.count("1.0000") == 6 + 1 + 1 + 1  # modules, the head, and a total of each


def test_a_page_says_what_is_not_there_and_what_is_for_something_else(saved: Any) -> None:
    found = diff(saved("lora"), saved("lora-dense"))
    query = "bert.encoder.layer.0.attention.self.query"
    line = next(line for line in diff_page(found, most=100).split("\n") if query in line).split()
    assert line[1] != "-"
    assert (line[2], line[4]) == ("-", "-")
    assert not diff_page(found).startswith("for ")
    for key, values, said in (
        ("model_type", ("bert", "gpt2"), "for different kinds of backbones: bert and gpt2"),
        ("fingerprint", ("aa", "bb"), "for backbones of different weights"),
    ):
        other = dataclasses.replace(found, settings=(Setting(key, *values),))
        assert diff_page(other).split("\n")[0].startswith(said)
    unknown = dataclasses.replace(found, settings=(Setting("fingerprint", None, "bb"),))
    assert not diff_page(unknown).startswith("for ")


def test_prefixes_are_compared_as_arrays(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    two = [save_adapter(random_adapter(backbone, (Prefix(tokens=n),)), tmp_path / str(n), backbone) for n in (2, 3)]
    found = diff(*two)
    assert found.modules[-1].module == "prompt_embeddings"
    assert found.modules[-1].apart is None


WORDS = st.sampled_from(["LORA", "ADALORA", "GRAFTAX", "IA3", "pissa", "all-linear", "(", "query", "lora_bias", "none"])
VALUES = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | WORDS
NESTED = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(WORDS, VALUES, max_size=2)
KEYS = ["r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "peft_type", "use_rslora", "use_dora"]
KEYS += ["init_lora_weights", "lora_bias", "exclude_modules", "layers_to_transform", "methods", "config", "task_type"]


@pytest.mark.filterwarnings("ignore::graftax.notes.GraftaxNote")
@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(KEYS), NESTED, min_size=1, max_size=3), ours=st.booleans())
def test_any_config_is_compared_or_refused(changes: dict[str, Any], ours: bool, saved: Any, tmp_path: Path) -> None:
    """What PEFT's config says of tensors that do not fit it: they are compared as arrays, or one line says why not."""
    directory = tmp_path / "changed"
    shutil.copytree(saved("lora"), directory, dirs_exist_ok=True)
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config | changes))
    if not ours:
        (directory / "graftax.json").unlink(missing_ok=True)
    refused(lambda: diff_page(diff(directory, saved("lora"))))
