"""Starts of LoRA: what each begins with, that training goes on from the frozen model, and that plain LoRA is what is saved."""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cases import fresh, logits, only_head, random_adapter
from conftest import CONFIGS, GetBackbone, some_inputs
from contract import assert_same_states, assert_step_moves_adapter_alone, assert_texts_may_share_a_row
from of_texts import read_examples
from tiny import toy_rows, weights_of

from graftax import Adapter, DoRA, GraftaxError, LoRA, Recipe, load_adapter, merge, save_adapter
from graftax.adapters.adapter import Layout
from graftax.adapters.methods import starts
from graftax.adapters.methods.lora import OnResidual
from graftax.adapters.sites import Site
from graftax.data.batches import plan_epoch, shape_for
from graftax.data.columns import Columns
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.tasks.task_registry import TASKS
from graftax.train import Interrupted, train_many
from graftax.train.calibration import BATCHES, Calibration
from graftax.train.intake import prepare
from graftax.train.pack import Pack

DENSE = ("query", "q_lin", "attention.output.dense", "out_lin", "lin2", "ffn_output", "q_proj", "o_proj", "down_proj")
EMBEDDING = ("word_embeddings", "embed_tokens")
PATTERNS: dict[str, Any] = {"rank_pattern": {"query|q_(lin|proj)": 4}, "alpha_pattern": {"out_lin|output.dense|o_proj": 9.0}}
FAMILIES = [pytest.param(f, marks=() if f == "bert" else pytest.mark.slow) for f in CONFIGS]
RECIPE = Recipe(epochs=2, lr=5e-3, batch_size=8, max_length=16)


def lora(start: str, **changes: Any) -> LoRA:
    return LoRA(**{"r": 4 if start == "orthogonal" else 3, "alpha": 7.0, "start": start, **changes})


def kernel(site: Site) -> np.ndarray:
    return np.asarray(site.weights().kernel, np.float64)


def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(one, np.float64).T @ np.asarray(other, np.float64)


# -- drawn starts ----------------------------------------------------------------------------------------------------------


def test_drawn_starts(backbone_of: GetBackbone) -> None:
    """A's deviation is 1 / r; of an orthogonal start both factors are there and their product is nothing."""
    backbone = backbone_of("bert")
    gaussian = Adapter.create((lora("gaussian", r=8),), backbone.sites).states["lora"]
    assert np.concatenate([own["a"].ravel() for own, _ in gaussian.values()]).std() == pytest.approx(1 / 8, rel=0.1)
    assert not any(own["b"].any() for own, _ in gaussian.values())
    for own, _ in Adapter.create((lora("orthogonal"),), backbone.sites).states["lora"].values():
        assert min(np.abs(own["a"]).max(), np.abs(own["b"]).max()) > 0.05
        np.testing.assert_allclose(product(own["a"], own["b"]), 0.0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("start", [*starts.DRAWN, *starts.FROM_WEIGHTS])
def test_fresh_is_nothing(start: str, family: str, backbone_of: GetBackbone) -> None:
    """Invariant 1: a fresh adapter is the base, with rank and alpha patterns, and an embedding beside the linear layers."""
    backbone, inputs = backbone_of(family), some_inputs(backbone_of(family))
    patterns = {"rslora": True, **PATTERNS} if family == "bert" else {}
    adapter = fresh(backbone, (lora(start, targets=(*EMBEDDING, *DENSE), **patterns),))
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    base, mine = (logits(backbone, a, inputs, layout) for a in (only_head(adapter), adapter))
    np.testing.assert_allclose(mine, base, atol=1e-5)


# -- starts from the weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("start", starts.FROM_WEIGHTS)
def test_what_is_taken_out_of_the_weights(start: str, rslora: bool, backbone_of: GetBackbone) -> None:
    """s A0^T B0 is PiSSA's best approximation of W of rank r, and OLoRA's first columns of Q times the first rows of R."""
    method = lora(start, rslora=rslora, targets=DENSE, **PATTERNS)
    adapter = Adapter.create((method,), backbone_of("bert").sites)
    for site, (own, fixed) in adapter.states[OnResidual.name].items():
        np.testing.assert_array_equal(own["a"], fixed["a0"])
        np.testing.assert_array_equal(own["b"], fixed["b0"])
        r, scale, w = method.size(site), method.scale(site), kernel(site)
        assert own["a"].shape == (r, site.shape[0])
        assert fixed["scale"] == np.float32(scale)
        if start == "pissa":
            u, s, vt = np.linalg.svd(w)
            np.testing.assert_allclose(scale * product(own["a"], own["b"]), (u[:, :r] * s[:r]) @ vt[:r], atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(own["a"], axis=1), np.linalg.norm(own["b"], axis=1), rtol=1e-4)
        else:
            q, rest = np.linalg.qr(w.T)
            np.testing.assert_allclose(product(own["a"], own["b"]), (q[:, :r] @ rest[:r]).T, atol=1e-5)
            np.testing.assert_allclose(own["b"] @ own["b"].T, np.eye(r), atol=1e-5)


def grown(backbone: Backbone, method: LoRA, seed: int = 1) -> Adapter:
    """An adapter in training: its factors have moved from where they began."""
    return random_adapter(backbone, (method,), seed=seed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("start", starts.FROM_WEIGHTS)
def test_what_is_saved_is_the_trained_model(start: str, family: str, backbone_of: GetBackbone, tmp_path: Path) -> None:
    """Invariant 25: plain LoRA of twice the rank on the untouched base gives the logits of training, and its merged weights."""
    backbone, inputs = backbone_of(family), some_inputs(backbone_of(family))
    method = lora(start, rslora=family == "bert", targets=(*EMBEDDING, *DENSE), **PATTERNS)
    adapter = grown(backbone, method)
    assert adapter.methods[0] == OnResidual(**dataclasses.asdict(method))
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", backbone), backbone)
    (plain, _), site = loaded.methods, next(iter(loaded.states["lora"]))
    assert type(plain) is LoRA
    assert (plain.r, plain.start, plain.size(site)) == (6, "default", 2 * method.size(site))
    assert plain.scale(site) == pytest.approx(method.scale(site))
    np.testing.assert_allclose(logits(backbone, loaded, inputs), logits(backbone, adapter, inputs), atol=1e-4)
    ours, theirs = (merge(backbone, a)[0].arrays() for a in (adapter, loaded))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)
    assert max(np.abs(ours[name] - array).max() for name, array in backbone.arrays().items()) > 1e-2


@pytest.mark.slow
def test_in_training(backbone_of: GetBackbone) -> None:
    """Invariants 4, 5, 7: only the factors train, in a wider layout; texts share rows; merging is what it computes."""
    backbone, inputs, method = backbone_of("bert"), some_inputs(backbone_of("bert")), lora("pissa", r=5, targets=DENSE)
    assert_step_moves_adapter_alone(backbone, random_adapter(backbone, (method,)))
    assert_texts_may_share_a_row(backbone, random_adapter(backbone, (method,)))
    adapter = grown(backbone, method)
    whole, rest = merge(backbone, adapter)
    np.testing.assert_allclose(logits(whole, rest, inputs), logits(backbone, adapter, inputs), atol=1e-5)


def test_ordinary_lora_pays_nothing(backbone_of: GetBackbone) -> None:
    """Its leaves, and so its programs, are what they were."""
    backbone = backbone_of("bert")
    (space, *_) = Layout.of([Adapter.create((LoRA(),), backbone.sites)], backbone.sites).spaces
    assert (space.method_key, space.trainable, space.fixed) == ("lora", ("a", "b"), ("dropout", "scale"))


# -- starts from the rows --------------------------------------------------------------------------------------------------


def measured(backbone: Backbone, task: str = "classify", count: int = 40, **changes: Any) -> Calibration:
    examples, learnt = read_examples(toy_rows(task, count), Columns(), task), TASKS[task]
    names, tokenizer = learnt.label_names(examples), Tokenizer.of(backbone)
    rows = learnt.prepare(examples, names, tokenizer, RECIPE.max_length)
    shape = shape_for(rows.lengths, max(rows.lengths), RECIPE.batch_size, RECIPE.seed, RECIPE.epochs)
    head = backbone.head(len(names), tokens=learnt.output.by_position)
    return dataclasses.replace(Calibration(backbone, learnt, tokenizer, RECIPE, head, rows, shape), **changes)


def seen(measure: Calibration, layer: int) -> np.ndarray:
    """What enters a layer, every text of the measured batches by itself: [tokens of all, hidden]."""
    found = [seen_alone(measure, i, layer) for planned in measure.plan() for i in planned.items]
    return np.concatenate(found).astype(np.float64)


def seen_alone(measure: Calibration, i: int, layer: int) -> np.ndarray:
    """What enters a layer of one text."""
    rows: Prepared = measure.prepared
    inputs = measure.processor.pad([rows.items[i]], 1, RECIPE.max_length)
    return np.asarray(layers_of(measure.backbone)(measure.backbone.params, inputs)[layer, 0, : len(rows.items[i])])


@functools.cache
def layers_of(backbone: Backbone) -> Callable[..., jax.Array]:
    """Compiled: what enters each layer."""
    return jax.jit(lambda params, inputs: backbone.encode(params, {}, inputs, intermediates=True).layers)


def begin(measure: Calibration, method: LoRA, sites: Any = None) -> Any:
    adapter = Adapter.create((method,), sites or measure.backbone.sites, training=measure)
    return adapter.methods[0], next(iter(adapter.states.values()))


def test_eva(tiny: Backbone) -> None:
    """A holds the principal axes of the layer's inputs, padding left out; ranks go where they explain most."""
    measure = measured(tiny)
    assert len(plan_epoch(measure.prepared.lengths, measure.shape, 0, 0)) < BATCHES  # all of the rows
    inputs = [x - x.mean(0) for x in (seen(measure, layer) for layer in range(2))]
    decomposed = [np.linalg.svd(x, full_matrices=False)[1:] for x in inputs]
    for r in (2, 3, 5, 7):
        changed, states = begin(measure, lora("eva", r=r))
        shares = [(v, layer) for layer, (s, _) in enumerate(decomposed) for v in np.repeat(s[: 2 * r] ** 2 / (s**2).sum(), 2)]
        kept = [layer for _, layer in sorted(shares, reverse=True)[: 4 * r]]
        ranks = {layer: sum(changed.size(s) for s in states if s.layer == layer) for layer in range(2)}
        assert ranks == {layer: kept.count(layer) for layer in range(2)}
        for site, (own, fixed) in states.items():
            assert changed.size(site) == len(own["a"]) <= 2 * r
            assert fixed["scale"] == np.float32(7 / r)
            assert not own["b"].any()
            cosines = np.abs(np.sum(own["a"] * decomposed[site.layer][1][: len(own["a"])], axis=1))
            np.testing.assert_allclose(cosines, 1.0, atol=1e-4)
        assert (type(changed), changed.start) == (LoRA, "eva")


def test_eva_may_leave_a_site_bare(tiny: Backbone, tmp_path: Path) -> None:
    """A site whose inputs vary least may get no rank; then it is no target, in the file either."""
    measure = measured(tiny)
    changed, states = begin(measure, lora("eva", r=1, targets=("query", "value", "output.dense", "intermediate.dense")))
    assert len(states) < 10
    assert set(states) == set(changed.select(tiny.sites))
    assert sum(changed.size(site) for site in states) == 10
    adapter = Adapter((changed,), {"lora": states})
    loaded = load_adapter(save_adapter(adapter, tmp_path / "a", tiny), tiny)
    assert_same_states(loaded, adapter)


@pytest.mark.slow  # those of the usual sites are tested with EVA and CorDA
@pytest.mark.parametrize("task", ["classify", "tag"])
def test_moments_of_every_linear_site(task: str, tiny: Backbone) -> None:
    """The pooler's inputs are the first tokens alone, and a layer's feed-forward is reached as its attention is."""
    measure = measured(tiny, task)
    sites = [site for site in tiny.sites_for(measure.head) if site.kind == "linear"]
    moments = measure.moments(sites, unit=False)
    assert set(moments) == set(sites)
    tokens = len(seen(measure, 0))
    for site in sites:
        gram, mean = moments[site]
        assert gram.shape == (site.shape[0],) * 2
        assert np.linalg.eigvalsh(gram - np.outer(mean, mean)).min() > -1e-5
        if site.name in ("layers.query", "layers.key", "layers.value"):
            x = seen(measure, site.layer or 0)
            np.testing.assert_allclose(gram, x.T @ x / tokens, atol=1e-4)
            np.testing.assert_allclose(mean, x.mean(0), atol=1e-5)


def test_corda(tiny: Backbone) -> None:
    """C^-1 (C W) cut at its largest triples, C the moments of the inputs; a fresh adapter is the base."""
    measure, method = measured(tiny), lora("corda")
    _, states = begin(measure, method)
    for site, (own, fixed) in states.items():
        grams = []
        for planned in measure.plan():
            one = dataclasses.replace(measure, prepared=measure.prepared.take(planned.items))
            x = np.concatenate([seen_alone(one, i, site.layer or 0) for i in range(len(planned.items))])
            grams.append(x.T @ x / x.max() ** 2)
        c = np.mean(grams, axis=0)
        c += 0.01 * np.diag(c).mean() * np.eye(len(c))
        u, s, vt = np.linalg.svd(c @ kernel(site))
        wanted = np.linalg.inv(c) @ (u[:, :3] * s[:3]) @ vt[:3]
        np.testing.assert_allclose(method.scale(site) * product(own["a"], own["b"]), wanted, atol=1e-3 * np.abs(wanted).max())
        np.testing.assert_allclose(np.linalg.norm(own["b"], axis=1) ** 2, s[:3] / method.scale(site), rtol=1e-3)
        np.testing.assert_array_equal(own["a"], fixed["a0"])


@pytest.mark.parametrize("task", ["classify", pytest.param("tag", marks=pytest.mark.slow)])
def test_lora_ga(task: str, tiny: Backbone) -> None:
    """A and B are the gradient's triples; and that is the gradient of training: B's, from zero, is s A times it."""
    measure, method = measured(tiny, task), lora("lora_ga")
    sites = tiny.sites_for(measure.head)
    _, states = begin(measure, method, sites)
    gradients = measure.gradients(list(states))
    plain = prepare(
        "a",
        measure.prepared.examples,
        None,
        backbone=tiny,
        task=measure.task,
        method=lora("default"),
        recipe=RECIPE,
        columns=Columns(),
    )
    pack = Pack(tiny, measure.task, [plain], 1)
    pack.admit(0, 0)
    found = pack.layout.unstack(plain.adapter, pack.gradients(BATCHES), sites)["lora"]
    for site, (own, fixed) in states.items():
        a, scale = plain.adapter.states["lora"][site][0]["a"], method.scale(site)
        np.testing.assert_allclose(found[site][0]["b"], scale * a @ gradients[site], atol=1e-5)
        u, s, vt = np.linalg.svd(gradients[site].astype(np.float64))
        np.testing.assert_allclose(np.abs(own["a"]), np.abs(u.T[:3]), atol=1e-4)
        wanted = s[3:6, None] * vt[3:6] * site.shape[1] ** 0.25 / 4.0
        np.testing.assert_allclose(np.abs(own["b"]), np.abs(wanted), atol=1e-4 * np.abs(wanted).max() + 1e-9)
        np.testing.assert_array_equal(own["b"], fixed["b0"])


# -- training --------------------------------------------------------------------------------------------------------------

DATA = {start: toy_rows(count=20 + i, seed=i) for i, start in enumerate(starts.STARTS)}
EACH = {start: {"method": lora(start, targets=("query", "value", "pooler.dense"))} for start in starts.STARTS}


def run(tiny: Backbone, out: Path, names: tuple[str, ...] = starts.STARTS, **settings: Any) -> None:
    data, each = {name: DATA[name] for name in names}, {name: EACH[name] for name in names}
    train_many(tiny, data, out, each=each, **{"recipe": RECIPE, "progress": False, "pack_size": 3, **settings})


@pytest.mark.slow
def test_a_pack_of_all_starts(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 25: all starts train together; what is saved is what was trained; each is what it is in a run of its own."""
    trained: list[Adapter] = []
    result = Pack.result

    def remember(self: Pack, *args: Any) -> Adapter:
        trained.append(result(self, *args))
        return trained[-1]

    monkeypatch.setattr(Pack, "result", remember)
    run(tiny, tmp_path / "all")
    inputs = some_inputs(tiny)
    names = ("bad", "fair")
    for adapter in trained:
        start = adapter.recipe.get("start", "default")
        loaded = load_adapter(tmp_path / "all" / start, tiny)
        assert isinstance(loaded.methods[0], LoRA)
        assert loaded.methods[0].start == (start if start in (*starts.DRAWN, "eva") else "default")
        assert json.loads((tmp_path / "all" / start / "adapter_config.json").read_text())["init_lora_weights"] is True
        ours, theirs = (logits(tiny, a, inputs)[:, : len(names)] for a in (loaded, adapter))
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=start)
    assert len(trained) == len(starts.STARTS)
    for start in ("pissa", "eva"):
        run(tiny, tmp_path / start, (start,), pack_size=1)
        packed, alone = (load_adapter(tmp_path / folder / start, tiny) for folder in ("all", start))
        np.testing.assert_allclose(logits(tiny, packed, inputs), logits(tiny, alone, inputs), atol=1e-3)


@pytest.mark.slow
def test_resume(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 20: an interrupted run of starts ends with the bits of one that was not; another start is another run."""
    names = ("pissa", "eva", "corda", "lora_ga")
    run(tiny, tmp_path / "whole", names)
    tick, count = Pack.tick, [0]

    def stopping(self: Pack) -> list[int]:
        count[0] += 1
        if count[0] == 4:
            signal.raise_signal(signal.SIGTERM)
        return tick(self)

    with monkeypatch.context() as patch:
        patch.setattr(Pack, "tick", stopping)
        with pytest.raises(Interrupted):
            run(tiny, tmp_path / "cut", names)
    for name in starts.STARTS:
        if name != "pissa":
            with monkeypatch.context() as patch:
                patch.setitem(EACH, "pissa", EACH[name])
                with pytest.raises(GraftaxError, match="unfinished run with other settings"):
                    run(tiny, tmp_path / "cut", names)
    run(tiny, tmp_path / "cut", names)
    for name in names:
        assert weights_of(tmp_path / "cut" / name) == weights_of(tmp_path / "whole" / name), name


# -- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(start="fast"), "start 'fast' is none of default, gaussian, .*lora_ga"),
        (lambda: LoRA(r=3, start="orthogonal"), "orthogonal start takes even ranks, got 3"),
        (lambda: LoRA(r=4, rank_pattern={"query": 3}, start="orthogonal"), "even ranks, got 3"),
        (lambda: LoRA(alpha=0.0, start="pissa"), "alpha, which must be positive"),
        (lambda: DoRA(start="pissa"), "dora: start 'pissa' is none of default, gaussian, orthogonal"),
    ],
)
def test_wrong_starts(make: Callable[[], LoRA], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        make()


@pytest.mark.parametrize("start", starts.FROM_DATA)
def test_rows_are_needed(start: str, tiny: Backbone) -> None:
    with pytest.raises(GraftaxError, match=f"start '{start}' is made of the rows to be trained on"):
        Adapter.create((lora(start),), tiny.sites)


@pytest.mark.parametrize(("start", "r"), [("pissa", 33), ("olora", 33), ("corda", 33), ("lora_ga", 17)])
def test_too_large_a_rank(start: str, r: int, tiny: Backbone) -> None:
    with pytest.raises(
        GraftaxError, match=rf"start '{start}' takes {34 if r == 17 else r} directions of .*query, which has 32"
    ):
        begin(measured(tiny), lora(start, r=r))
