"""What a query finds, beside a plain loop over all versions; and that the plan of none of them asks for more than it must."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from stores import about

from graftax.store.events import Evaluated, Event, Measure, Pushed, Removed, Yanked
from graftax.store.index import Index
from graftax.store.query import Query

WORDS = ["toxic", "toxicity", "intent", "Ärger", "ab", "b2b", "客服"]
FINGERPRINTS = ["aa11", "aa12", "bb11"]

known = st.fixed_dictionaries(
    {
        "description": st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join),
        "backbone": st.sampled_from([None, "all-MiniLM-L6", "bert-base"]),
        "fingerprint": st.sampled_from([None, *FINGERPRINTS]),
        "task": st.sampled_from([None, "pairs", "tagging"]),
        "methods": st.sampled_from([(), ("lora",), ("dora", "linear_head")]),
        "labels": st.lists(
            st.sampled_from(["Card lost", "card", "lost card", "ÄRGER", "👍", "Straße"]), max_size=2, unique=True
        ).map(tuple),
        "metrics": st.dictionaries(st.sampled_from(["accuracy", "f1"]), st.sampled_from([0.0, 0.5, 0.9, None]), max_size=2),
    }
)
pushes = st.lists(st.tuples(st.sampled_from(["bank/intent", "team-2/toxic"]), known), min_size=1, max_size=8)
queries = st.fixed_dictionaries(
    {},
    optional={
        "text": st.sampled_from(
            ["toxic", "TOXIC", "tox", "to", "t", "arger", "bank", "card lost", "客", "ab toxic", "intent bank"]
        ),
        "fingerprint": st.sampled_from(["aa", "aa11", "b", "cc"]),
        "backbone": st.sampled_from(["minilm", "MiniLM L6", "bert", "mini"]),
        "task": st.sampled_from(["pairs", "tagging", "none"]),
        "method": st.sampled_from(["lora", "dora", "linear_head", "head"]),
        "label": st.sampled_from(["card lost", "CARD", "lost", "ärger", "👍", "STRASSE"]),
        "metric": st.sampled_from(["accuracy>=0.5", "accuracy<0.5", "f1=0.9", "f1>1", "loss>=0"]),
        "all_versions": st.booleans(),
    },
)


def words_of(text: str) -> list[str]:
    plain = text.casefold().replace("ä", "a")
    return re.findall(r"[^\W_]+", plain)


def fits(query: dict[str, Any], name: str, one: dict[str, Any]) -> bool:
    """Whether a version is one that a query looks for."""
    everywhere = words_of(
        " ".join(map(str, (name, one["description"], one["backbone"] or "", one["task"] or "", *one["methods"])))
    )
    everywhere += [word for label in one["labels"] for word in words_of(label)]
    of_backbone = words_of(one["backbone"] or "")
    for word in words_of(query.get("text", "")):
        goes_on = len(word) > 1 or not word.isascii()
        if not any(other == word or (goes_on and other.startswith(word)) for other in everywhere):
            return False
    if not all(word in of_backbone for word in words_of(query.get("backbone", ""))):
        return False
    if "fingerprint" in query and not (one["fingerprint"] or "").startswith(query["fingerprint"]):
        return False
    if "task" in query and one["task"] != query["task"]:
        return False
    if "method" in query and query["method"] not in one["methods"]:
        return False
    if "label" in query and query["label"].casefold() not in [label.casefold() for label in one["labels"]]:
        return False
    if "metric" in query:
        metric, sign, bound = re.fullmatch(r"(\w+)(\W+)([\d.]+)", query["metric"]).groups()
        value = one["metrics"].get(metric)
        compare = {">=": float.__ge__, "<": float.__lt__, "=": float.__eq__, ">": float.__gt__}[sign]
        return value is not None and compare(value, float(bound))
    return True


@given(pushed=pushes, query=queries, yanked=st.booleans(), removed=st.booleans())
@settings(derandomize=True, deadline=None, max_examples=400)
def test_a_query_finds_what_a_loop_finds(pushed: list[Any], query: dict[str, Any], yanked: bool, removed: bool) -> None:
    events: list[Event] = []
    there: dict[str, dict[int, dict[str, Any]]] = {}
    for name, one in pushed:
        number = len(there.setdefault(name, {})) + 1
        there[name][number] = {**one, "at": len(events)}
        manifest = about(one["description"], **{key: value for key, value in one.items() if key != "description"})
        events.append(Pushed(name, number, manifest.digest, manifest.text()))
    last_name, last = pushed[-1][0], len(there[pushed[-1][0]])
    withdrawn = None
    if removed:
        events.append(Removed(last_name, last))
        del there[last_name][last]
    elif yanked:
        events.append(Yanked(last_name, last, "why"))
        withdrawn = (last_name, last)
    index = Index()
    with index.writing():
        index.apply((number, "", event) for number, event in enumerate(events, 1))
    found = [(one.name, one.version) for one in index.search(Query(**query), 50)]
    expected = []
    for name, versions in there.items():
        usable = [number for number in versions if (name, number) != withdrawn]
        for number, one in versions.items():
            asked = query.get("all_versions") or (usable and number == max(usable))
            if asked and fits(query, name, one):
                expected.append((one["at"], name, number))
    assert found == [(name, number) for _, name, number in sorted(expected, reverse=True)]


@pytest.mark.parametrize(
    ("label", "asked"),
    [
        ("Straße", "STRASSE"),
        ("STRASSE", "straße"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("e\u0301te\u0301", "E\u0301TE\u0301"),
        ("हिन्दी", "हिन्दी"),
        ("İstanbul", "İSTANBUL"),
        ('say "x"', 'Say "X"'),
        ("_", "_"),
    ],
)
def test_a_label_in_any_script(label: str, asked: str) -> None:
    """Whole, in whatever case; and as a word of a text, where it has one."""
    manifest = about("a", labels=(label, "other"))
    index = Index()
    with index.writing():
        index.apply([(1, "", Pushed("x", 1, manifest.digest, manifest.text()))])
    assert [str(one) for one in index.search(Query(label=asked), 5)] == ["x:1"]
    assert index.search(Query(label=asked + "x"), 5) == []


@pytest.mark.parametrize(("label", "text"), [("Straße", "STRASSE"), ("STRASSE", "straße"), ("İstanbul", "İSTAN")])
def test_a_text_in_any_case(label: str, text: str) -> None:
    manifest = about("a", labels=(label,))
    index = Index()
    with index.writing():
        index.apply([(1, "", Pushed("x", 1, manifest.digest, manifest.text()))])
    assert [str(one) for one in index.search(Query(text), 5)] == ["x:1"]


def test_a_bound_of_what_was_measured_later() -> None:
    """As good as one of training: of an adapter from elsewhere nothing else is known."""
    manifest = about("a")
    index = Index()
    measured = Evaluated("x", 1, "pairs", "0" * 64, "rows", 5, {"accuracy": Measure(0.8, 0.7, 0.9)})
    with index.writing():
        index.apply([(1, "", Pushed("x", 1, manifest.digest, manifest.text())), (2, "", measured)])
    assert [str(one) for one in index.search(Query(metric="accuracy>=0.8"), 5)] == ["x:1"]
    assert index.search(Query(metric="accuracy>0.8"), 5) == []


@pytest.mark.parametrize(
    "metric", ["", "accuracy", ">=1", "accuracy>=", "accuracy>=x", "accuracy=>1", "a b>=1", "accuracy>=1.2.3"]
)
def test_no_bound_of_a_metric(metric: str) -> None:
    assert "a metric is looked for by a bound, such as accuracy>=0.9" in str(
        refused(lambda: Index().search(Query(metric=metric), 5))
    )


@pytest.mark.parametrize("text", ['"', "*", "a AND", "(", "NEAR(a b)", "name:x", "-x", "^", "a OR OR", "{x} : y", "\x00a"])
def test_signs_of_the_full_text_search_are_only_signs(text: str) -> None:
    """A result, or a line that there is no word in it."""
    line = refused(lambda: Index().search(Query(text=text, backbone=text, label=text), 5))
    assert line is None or "there is no word in it to look for" in line
