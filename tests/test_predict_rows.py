"""What is asked of a predictor: rows, names and lengths that are none are one line each; all probabilities are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax import Adapter, Average, Generator, GraftaxError, LoRA, Predictor, Stack
from graftax.models.backbone import Backbone

LABELS = ("low", "middle", "high")


@pytest.fixture(scope="module")
def predictor(tiny: Backbone) -> Predictor:
    """With an adapter for each sort of answer; tests leave it as it is."""
    made = Predictor(tiny)
    for task in ("classify", "multilabel", "tag", "regress"):
        labels = ("value",) if task == "regress" else LABELS
        head = tiny.head(len(labels), tokens=task == "tag")
        adapter = Adapter.create((LoRA(), head), tiny.sites, task=task, labels=labels)
        for trainable, _ in adapter.states[head.key].values():
            trainable["kernel"] = np.random.default_rng(3).standard_normal(trainable["kernel"].shape).astype(np.float32)
        made.load(task, adapter)
    return made


BAD_ROWS: list[tuple[Any, str]] = [
    ("hello", "rows must be a list, got a single str; for one text give a list of it"),
    (b"hello", "got a single bytes"),
    ({"text": "hello"}, "got a single dict"),
    (None, "rows must be a list, got NoneType"),
    (5, "rows must be a list, got int"),
    ([("a",)], "row 1 is a tuple of 1; a row is a text, a pair of texts"),
    (["a", ("a", None)], "row 2 holds NoneType"),
    ([("a", "b", "c")], "row 1 is a tuple of 3"),
    ([None], "row 1 is NoneType"),
    ([b"a"], "row 1 is bytes"),
    ([1.5], "row 1 is float"),
    ([{"text": "a"}], "row 1 is dict"),
    ([["a", 1]], "row 1 holds int"),
]


@pytest.mark.parametrize(("rows", "said"), BAD_ROWS, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("adapter", ["classify", "tag", None])
def test_rows_that_are_none(predictor: Predictor, rows: Any, said: str, adapter: str | None) -> None:
    """By predict and embed alike, with the number of the row."""
    if adapter == "tag" and "tuple" in said:  # there a tuple is words
        return
    for ask in (predictor.predict, predictor.embed):
        with pytest.raises(GraftaxError, match=said):
            ask(rows, adapter)


def test_rows_of_other_kinds_of_lists(predictor: Predictor) -> None:
    """What is like a list is one."""
    texts = ["red plum", "old gold"]
    expected = predictor.predict(texts, "classify")
    assert predictor.predict(iter(texts), "classify") == predictor.predict(np.array(texts), "classify") == expected
    assert predictor.predict(tuple(texts), ("classify", "classify")) == expected


@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_row_is_answered_or_refused(predictor: Predictor, data: st.DataObject) -> None:
    """A prediction, or one line."""
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
    row = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=4)
    rows, what = data.draw(st.lists(row, max_size=2)), data.draw(st.sampled_from(["classify", "tag", None, "nobody"]))
    answers: list[Any] = []
    if refused(lambda: answers.extend(predictor.predict(rows, what))) is None:
        assert len(answers) == len(rows)


@pytest.mark.parametrize("adapters", [[3], [b"classify"], [["classify"]], 5, ["classify", "classify"]])
def test_adapters_that_are_none(predictor: Predictor, adapters: Any) -> None:
    with pytest.raises(GraftaxError, match=r"its adapter is|adapters must be a list, got int|1 row but 2 adapters"):
        predictor.predict(["plum"], adapters)


@pytest.mark.parametrize("parts", [(None,), ("a", 3), (["a", "b"],)])
def test_parts_that_are_none(parts: Any) -> None:
    for composition in (Average, Stack):
        with pytest.raises(GraftaxError, match="is neither an adapter's name nor a composition"):
            composition(*parts)


@pytest.mark.parametrize("length", [-1, 0, True, 1.5, "8"])
def test_lengths_that_are_none(tiny: Backbone, length: Any) -> None:
    with pytest.raises(GraftaxError, match="max_length must be a whole number, at least 1"):
        Predictor(tiny, max_length=length)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_lengths(tiny: Backbone, length: int) -> None:
    """A length too short for a word beside the special tokens is answered, or refused in a line."""
    refused(lambda: Predictor(tiny, max_length=length).embed(["red plum"]))


@pytest.mark.parametrize("name", [None, "", 3, ("a",), b"a"])
def test_names_that_are_none(tiny: Backbone, teller: Backbone, name: Any) -> None:
    """And nothing is loaded."""
    for cls, backbone in ((Predictor, tiny), (Generator, teller)):
        made = cls(backbone)
        with pytest.raises(GraftaxError, match="name must be a text, not empty, got"):
            made.load(name, Adapter.create((LoRA(),), backbone.sites, task="lm"))
        assert not made.facts()["adapters"]


def test_probabilities(predictor: Predictor) -> None:
    """Of a label all sum to 1 and the likeliest is the answer; of several labels those above a half are; others have none."""
    texts = ["red plum", "old gold today", "a shop"]
    for answer in predictor.predict(texts, "classify"):
        assert answer.probabilities is not None
        assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-6)
        assert {*answer.probabilities} == {*LABELS}
        assert list(answer.probabilities.values()) == sorted(answer.probabilities.values(), reverse=True)
        assert next(iter(answer.probabilities.items())) == (answer.label, answer.score)
    for answer in predictor.predict(texts, "multilabel"):
        assert answer.probabilities is not None
        above = {name: chance for name, chance in answer.probabilities.items() if chance > 0.5}
        assert above == dict(zip(answer.label, answer.score, strict=True))
    assert {a.probabilities for name in ("tag", "regress", None) for a in predictor.predict(texts, name)} == {None}


def test_top_k(predictor: Predictor) -> None:
    """The first of all; the answer is the same."""
    (every,), (two,) = predictor.predict(["red plum"], "classify"), predictor.predict(["red plum"], "classify", top_k=2)
    assert every.probabilities is not None
    assert two.probabilities == dict([*every.probabilities.items()][:2])
    assert (two.label, two.score) == (every.label, every.score)
    assert predictor.predict(["red plum"], "classify", top_k=50) == [every]
    for wrong in (0, -1, 1.5, "3", True):
        with pytest.raises(GraftaxError, match="top_k must be a whole number"):
            predictor.predict(["red plum"], "classify", top_k=wrong)
