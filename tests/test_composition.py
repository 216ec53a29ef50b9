"""Several adapters in one row: averages, stacks, splits, and rows answered in parallel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import refused
from test_serving import TEXTS, ZOO, adapter_of, assert_close

from graftax import (
    Adapter,
    Average,
    Bottleneck,
    GraftaxError,
    LoRA,
    Method,
    Parallel,
    Predictor,
    Prefix,
    PromptTuning,
    Split,
    Stack,
    combine,
)
from graftax.adapters.graft import SiteCalls
from graftax.models.backbone import Backbone
from graftax.serve.composition import Composition, Term, from_json, plan_of


@pytest.fixture(scope="module")
def loras(tiny: Backbone) -> dict[str, Adapter]:
    """Two of different ranks, sites and labels."""
    return {"a": adapter_of(tiny, "lora", 1), "b": adapter_of(tiny, "lora", 2), "wide": adapter_of(tiny, "rank")}


@pytest.fixture(scope="module")
def predictor(tiny: Backbone, loras: dict[str, Adapter]) -> Predictor:
    """One with the LoRAs and one adapter of each other method resident."""
    made = Predictor(tiny)
    for name, adapter in loras.items():
        made.load(name, adapter)
    for name in ZOO:
        if name not in ("lora", "rank"):
            made.load(name, adapter_of(tiny, name))
    return made


def alone(backbone: Backbone, adapter: Adapter, rows: Any = TEXTS) -> list:
    """What an adapter answers by itself, under the name "x"."""
    predictor = Predictor(backbone)
    predictor.load("x", adapter)
    return predictor.predict(rows, "x")


def assert_same_answers(found: list, expected: list) -> None:
    """Labels and scores, whatever the adapter is called."""
    assert_close([p.__class__("x", p.label, p.score) for p in found], [p.__class__("x", p.label, p.score) for p in expected])


def test_what_a_composition_resolves_to() -> None:
    """Nested averages multiply their weights, stacks lie end to end, a split bounds the tokens of what it holds."""
    assert plan_of(None) == ()
    assert plan_of("a") == ((Term("a", 1.0),),)
    nested = Average("a", Average("b", "c"), weights=(-1.0, 3.0))
    assert plan_of(nested) == ((Term("a", -1.0), Term("b", 1.5), Term("c", 1.5)),)
    assert plan_of(Stack("a", Average("b", "c"))) == ((Term("a", 1.0),), (Term("b", 0.5), Term("c", 0.5)))
    split = Split("a", Average("b", "c"), at=(4,))
    assert plan_of(split) == ((Term("a", 1.0, 0, 4), Term("b", 0.5, 4, None), Term("c", 0.5, 4, None)),)
    assert plan_of(Split(Split("a", "b", at=(6,)), "c", at=(4,)))[0][:2] == (Term("a", 1.0, 0, 4), Term("b", 1.0, 6, 4))
    assert str(Stack("a", Average("b", "c", weights=(0.25, 2)))) == "Stack(a, Average(b: 0.25, c: 2))"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Average(), "no adapters"),
        (lambda: Average("a", "b", weights=(1.0,)), "as many numbers as weights"),
        (lambda: Average("a", weights=(float("nan"),)), "weights of an Average must be a list, each of which is a number"),
        (lambda: Average("a", weights=(1e300,)), "weights of an Average must be a list"),  # infinite in float32
        (lambda: Average("a", weights=(True,)), "weights of an Average must be a list"),
        (lambda: Split("a", "b", at=(0,)), "first tokens .* must be a list, each of which is a whole number, at least 1"),
        (lambda: Split("a", "b", "c", at=(5, 5)), "2 rising token numbers"),
        (lambda: Average(*"abcde"), "at most 4 adapters"),
        (lambda: Stack(*"abcde"), "4 parts in a stack"),
        (lambda: Average("a", Stack("b", "c")), "takes no Stack"),
        (lambda: Split(Stack("b", "c"), "a", at=(3,)), "takes no Stack"),
        (lambda: Stack("a", Parallel("b", "c")), "no other composition can hold it"),
        (lambda: Parallel("a", Parallel("b", "c")), "no other composition can hold it"),
    ],
)
def test_what_has_no_meaning_is_refused(make: Any, words: str) -> None:
    """One line that names it, when it is made."""
    with pytest.raises(GraftaxError, match=words):
        make()


def test_the_formula_at_a_site() -> None:
    """Invariant 29, in NumPy: rows of a stack of averages of bottlenecks, one row with weights by token."""
    random = np.random.default_rng(0)
    rows, stages, terms, tokens, dim, width = 2, 2, 2, 5, 8, 3
    shapes = {"down": (dim, width), "down_bias": (width,), "up": (width, dim), "up_bias": (dim,)}
    key, lead = Bottleneck().key, (rows, stages, terms)
    state = {name: random.standard_normal((*lead, *shape)).astype(np.float32) for name, shape in shapes.items()}
    state |= {"scale": np.ones(lead, np.float32), "parallel": np.zeros(lead, bool)}
    shares = random.standard_normal((*lead, tokens)).astype(np.float32)
    x, y = (random.standard_normal((rows, tokens, dim)).astype(np.float32) for _ in "xy")
    expected = y.copy()
    for row in range(rows):
        for stage in range(stages):
            inner = expected[row].copy()
            for term in range(terms):
                own = {name: state[name][row, stage, term] for name in shapes}
                change = np.maximum(inner @ own["down"] + own["down_bias"], 0) @ own["up"] + own["up_bias"]
                expected[row] += shares[row, stage, term][:, None] * change
    calls = SiteCalls({"site": {key: jax.tree.map(jnp.asarray, state)}}, mixed=True, shares=jnp.asarray(shares))
    found = calls.branch("site", jnp.asarray(x), jnp.asarray(y), NoNorm())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


class NoNorm:
    """What stands behind a branch that no norm follows."""

    def weights(self) -> None:
        """None."""

    def compute(self, weights: Any, x: jax.Array) -> jax.Array:
        """Nothing happens."""
        return x


@pytest.mark.parametrize("names", [("a", "b"), ("a", "wide", "b")])
def test_an_average_of_loras_is_their_combination(
    tiny: Backbone, loras: dict[str, Adapter], predictor: Predictor, names: tuple[str, ...]
) -> None:
    """Exactly: the same answers as the adapter that `combine` makes, for negative weights too."""
    weights = (0.7, -0.4, 1.2)[: len(names)]
    made = combine([loras[name] for name in names], weights)
    assert_same_answers(predictor.predict(TEXTS, Average(*names, weights=weights)), alone(tiny, made))


def test_a_stack_of_loras_is_their_sum(tiny: Backbone, loras: dict[str, Adapter], predictor: Predictor) -> None:
    """Changes of one kernel add; the head is the last one's."""
    made = combine([loras["wide"], loras["a"]], (1.0, 1.0), head=1)
    assert_same_answers(predictor.predict(TEXTS, Stack("wide", "a")), alone(tiny, made))


@pytest.mark.parametrize("other", ["ia3", "bottleneck", "prefix", "bitfit"])
def test_a_stack_of_two_methods_is_their_union(
    tiny: Backbone, loras: dict[str, Adapter], predictor: Predictor, other: str
) -> None:
    """Where no site is touched by both, or the two only add: one adapter of both methods, with the second's head."""
    first, second = loras["a"], adapter_of(tiny, other)
    if other == "ia3":  # multiplies what LoRA has added to: the order matters, and IA3 comes second
        method = LoRA(targets=(".*query"))
        first = Adapter.create((method,), tiny.sites, seed=3)
        for trainable, _ in first.states[method.key].values():
            trainable["b"] = np.random.default_rng(3).standard_normal(trainable["b"].shape).astype(np.float32)
    body = first.methods[0]
    union = Adapter(
        (body, *second.methods),
        {body.key: first.states[body.key], **second.states},
        second.task,
        second.labels,
        second.fingerprint,
    )
    if other == "ia3":
        predictor = Predictor(tiny)
        predictor.load("a", first)
        predictor.load("ia3", second)
    assert_same_answers(predictor.predict(TEXTS, Stack("a", other)), alone(tiny, union))


@pytest.mark.parametrize("name", [name for name in ZOO if name not in ("lora", "rank", "prefix")])
def test_an_average_with_itself_is_itself(predictor: Predictor, name: str) -> None:
    """Whatever the method; and so is a split of itself."""
    expected = predictor.predict(TEXTS, name)
    assert_same_answers(predictor.predict(TEXTS, Average(name, name, weights=(0.25, 0.75))), expected)
    assert_same_answers(predictor.predict(TEXTS, Split(name, name, at=(3,))), expected)


def test_a_split_is_by_token(tiny: Backbone) -> None:
    """Of adapters on the last layer's query the pooled token's is read: the one the split gives that token answers."""
    adapters = {}
    for name, seed in (("a", 1), ("b", 2)):
        method = LoRA(r=3, alpha=7.0, targets=".*layer.1.*query")
        adapters[name] = Adapter.create((method, tiny.head(2)), tiny.sites, seed=5, labels=("x", "y"))
        for trainable, _ in adapters[name].states[method.key].values():
            trainable["b"] = 5.0 * np.random.default_rng(seed).standard_normal(trainable["b"].shape).astype(np.float32)
    predictor = Predictor(tiny)
    for name, adapter in adapters.items():
        predictor.load(name, adapter)
    one, two = predictor.predict(TEXTS, "a"), predictor.predict(TEXTS, "b")
    assert [p.score for p in one] != [p.score for p in two]
    assert_same_answers(predictor.predict(TEXTS, Split("a", "b", at=(1,))), one)
    assert_same_answers(predictor.predict(TEXTS, Split("b", "a", at=(1,))), two)
    assert_same_answers(predictor.predict(TEXTS, Split("a", "b", at=(1000,))), one)


def test_tokens_of_another_rows_prompt_are_not_counted(tiny: Backbone) -> None:
    """A prompt in the bank puts tokens in front of every row; where a split cuts is counted from the text's first."""
    predictor, other = Predictor(tiny), Predictor(tiny)
    for name, seed in (("a", 1), ("b", 2)):
        for one in (predictor, other):
            one.load(name, adapter_of(tiny, "lora", seed))
    split = Split("a", "b", at=(2,))
    expected = other.predict(TEXTS, split)
    predictor.load("prompt", Adapter.create((PromptTuning(tokens=3), tiny.head(2)), tiny.sites, labels=("x", "y")))
    assert_same_answers(predictor.predict([*TEXTS, "iron"], [split] * len(TEXTS) + ["prompt"])[:-1], expected)


def test_compositions_and_single_adapters_in_one_batch(predictor: Predictor) -> None:
    """Each row as by itself; other weights, adapters and cuts compile nothing."""
    asked: list[str | Composition | None] = [
        *("a", None, "prefix", "bitfit"),
        Average("a", "wide", "bottleneck"),
        Stack("bottleneck", Average("a", "b", weights=(2.0, -1.0))),
        Split("ia3", "a", at=(4,)),
    ]
    rows = [TEXTS[i % len(TEXTS)] for i in range(len(asked))]
    expected = [predictor.predict([row], [what])[0] for row, what in zip(rows, asked, strict=True)]
    assert_close(predictor.predict(rows, asked), expected)
    compiled = predictor.compilations
    asked[4], asked[5], asked[6] = Average("b", "ia3", "a"), Stack("a", "a"), Split("b", "ia3", at=(2,))
    predictor.predict(rows, asked)
    assert predictor.compilations == compiled


def test_parallel_answers_once_for_each(predictor: Predictor) -> None:
    """In the row's place, in the order of its parts."""
    found = predictor.predict(TEXTS[:2], [Parallel("a", Average("a", "b")), "b"])
    assert [p.adapter for p in found] == ["a", "Average(a: 0.5, b: 0.5)", "b"]
    assert_close(found[:1], predictor.predict(TEXTS[:1], "a"))


@pytest.mark.parametrize("method", [Prefix(tokens=2, shifted=False), PromptTuning(tokens=2, post=True), PromptTuning(tokens=2)])
def test_no_kind_of_virtual_tokens_is_averaged(tiny: Backbone, method: Method) -> None:
    """Whether or not they take positions from the text."""
    predictor = Predictor(tiny)
    predictor.load("a", adapter_of(tiny, "lora", 1))
    predictor.load("tokens", Adapter.create((method, tiny.head(2)), tiny.sites, labels=("x", "y")))
    with pytest.raises(GraftaxError, match="adds tokens"):
        predictor.predict(["iron"], Average("tokens", "a"))


def test_what_cannot_be_averaged_is_refused(predictor: Predictor) -> None:
    """Tokens in front of a text, and names that are not loaded."""
    for what in (Average("a", "prefix"), Split("prefix", "a", at=(3,)), Average("prefix", weights=(0.5,))):
        with pytest.raises(GraftaxError, match=r"prefix \(prefix\) adds tokens"):
            predictor.predict(["iron"], what)
    with pytest.raises(GraftaxError, match="no adapter named 'zinc'"):
        predictor.predict(["iron"], Average("a", "zinc"))


NAMES = st.sampled_from(["a", "b", "c", ""])
WRITTEN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.sampled_from([10**400, 1e300, 0.5, 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=6,
)


def deep(levels: int) -> Any:
    """A name in so many lists."""
    return "a" if not levels else [deep(levels - 1)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=WRITTEN)
@example(value=deep(300))
def test_whatever_a_row_names_is_a_composition_or_one_line(value: Any) -> None:
    """As JSON says it; what is one can be computed: a few stages of a few terms, of the names that stand there."""
    found: list[Any] = []
    if refused(lambda: found.append(from_json(value))) is None:
        plan = plan_of(found[0])
        assert len(plan) <= 4
        assert all(len(stage) <= 4 for stage in plan)
        assert all(np.isfinite(np.float32(term.weight)) for stage in plan for term in stage)
        assert {term.name for stage in plan for term in stage} <= {*"abc", ""}
