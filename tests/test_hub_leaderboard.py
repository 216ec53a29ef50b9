"""Intervals of evaluations, and versions ranked by them on the same rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refusals import refused

from graftax.data.examples import Examples
from graftax.hub.leaderboard import Leaderboard, leaderboard, leaderboard_page, leaderboard_record
from graftax.serve.confusion import Confusion
from graftax.serve.evaluation import Answered, Measured
from graftax.serve.intervals import intervals, wilson
from graftax.store.manifest import DataFacts
from graftax.store.version import Score, Version
from graftax.tasks.main_metrics import main_metric_of
from graftax.tasks.metrics import classification
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import TASKS, task_named


def measured_classes(gold: list[str], said: list[str]) -> Measured:
    names = tuple(sorted({*gold, *said}))
    confusion = Confusion(names, Counter(zip(gold, said, strict=True)))
    return Measured(classification(gold, said), confusion=confusion, data=DataFacts("a" * 64, len(gold), "x"))


def test_wilsons_interval() -> None:
    """Of Brown, Cai and DasGupta (2001): 7 of 10, and bounds that stay within 0 and 1."""
    assert wilson(0.7, 10) == pytest.approx((0.39677, 0.89221), abs=1e-5)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(1.0, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)


def test_a_share_of_rows_has_wilsons_interval() -> None:
    measured = measured_classes(["a"] * 5 + ["b"] * 5, ["a"] * 5 + ["b", "b", "a", "a", "a"])
    accuracy = intervals(measured, "classify")["accuracy"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.7, *wilson(0.7, 10))


def test_metrics_of_classes_are_drawn_as_rows_would_be() -> None:
    """The counts of a confusion tell as much as the rows: the same percentiles, up to the chance of the draws."""
    random = np.random.default_rng(1)
    gold = random.choice(["a", "b", "c"], 200).tolist()
    said = [label if random.random() < 0.8 else "a" for label in gold]
    found = intervals(measured_classes(gold, said), "classify")
    each = [random.integers(200, size=200) for _ in range(300)]
    drawn = [classification([gold[i] for i in rows], [said[i] for i in rows]) for rows in each]
    for metric in ("macro_f1", "matthews"):
        expected = np.percentile([scores[metric] for scores in drawn], [2.5, 97.5])
        assert (found[metric].low, found[metric].high) == pytest.approx(tuple(expected), abs=0.02)
        assert found[metric].value == classification(gold, said)[metric]


def measured_answers(task: str, gold: list[Any], said: list[Any]) -> Measured:
    examples = Examples({"text": ("",) * len(gold)}, tuple(gold))
    answered = Answered(task_named(task), examples, [Answer(label, None) for label in said])
    return Measured(answered.metrics(), data=DataFacts("a" * 64, len(gold), None), answered=answered)


def test_other_metrics_are_drawn_of_single_answers() -> None:
    random = np.random.default_rng(2)
    gold = random.normal(size=80).tolist()
    said = [one + other for one, other in zip(gold, random.normal(size=80), strict=True)]
    found = intervals(measured_answers("regress", gold, said), "regress")
    pearson = found["pearson"]
    middle, room = np.arctanh(pearson.value), 1.96 / np.sqrt(77)  # Fisher's transformation
    assert (pearson.low, pearson.high) == pytest.approx((np.tanh(middle - room), np.tanh(middle + room)), abs=0.06)
    assert intervals(measured_answers("regress", gold, said), "regress") == found


def test_words_of_one_row_are_no_rows() -> None:
    """The accuracy of tags is a share of words, which stand together in rows: it is drawn by rows.

    Here 10 of 20 rows have half their words right. Drawn by rows its standard error is 0.25 / sqrt(20), of single words less,
    of rows that are right or wrong as a whole more.
    """
    gold, half = [["B-x"] * 10] * 20, [["B-x"] * 5 + ["O"] * 5] * 10
    accuracy = intervals(measured_answers("tag", gold, [*gold[:10], *half]), "tag")["accuracy"]
    assert accuracy.value == 0.75
    assert (accuracy.low, accuracy.high) == pytest.approx((0.75 - 0.11, 0.75 + 0.11), abs=0.02)
    assert wilson(0.75, 200) == pytest.approx((0.69, 0.81), abs=0.01)
    assert wilson(0.75, 20) == pytest.approx((0.53, 0.89), abs=0.01)


def test_what_has_no_interval_says_so() -> None:
    facts = DataFacts("a" * 64, 10, None)
    found = intervals(Measured({"perplexity": 3.0, "pearson": float("nan")}, data=facts), "lm")
    assert {name: (one.low, one.high) for name, one in found.items()} == {"perplexity": (None, None)}
    right = intervals(replace(measured_classes(["a", "b"] * 5, ["a", "b"] * 5)), "classify")
    assert (right["macro_f1"].low, right["accuracy"].high) == (None, 1.0)
    counted = Measured({"accuracy": 0.5, "cut_rows": 3, "unknown_labels": 2}, data=facts)
    assert intervals(counted, "classify")["cut_rows"].low is None


def score(name: str, version: int, value: float, low: float | None, high: float | None, **other: Any) -> Score:
    known = Version(name, version, f"{version:064x}", version, *[None] * 3, (), None, (), 0, 0, "", (), "", *[None] * 3)
    known = replace(known, yanked=other.pop("yanked", None))
    told = {"task": "classify", "data": "a" * 64, "data_name": "test.csv", "rows": 100, "metric": "accuracy"} | other
    return Score(version=known, value=value, low=low, high=high, **told)


SCORES = [
    score("bank/a", 1, 0.90, 0.85, 0.95),
    score("bank/a", 2, 0.93, 0.88, 0.97),
    score("bank/b", 1, 0.80, 0.75, 0.84),
    score("bank/c", 1, 0.86, 0.80, 0.90),
    score("bank/c", 2, 0.99, 0.98, 1.0, yanked="wrong labels"),
    score("bank/d", 1, 0.99, 0.98, 1.0, data="b" * 64, data_name="other.csv", rows=50),
    score("bank/a", 1, 0.70, None, None, metric="macro_f1"),
    score("bank/b", 1, 0.70, None, None, metric="macro_f1", task="tag"),
]


def ranking(board: Leaderboard) -> list[tuple[int, str]]:
    return [(place.place, str(place.score.version)) for place in board.places]


def test_only_the_same_rows_are_ranked_and_overlapping_intervals_share_a_place() -> None:
    board = leaderboard(SCORES, "classify")
    assert (board.metric, board.lower_is_better, board.data.sha256, board.data.versions) == ("accuracy", False, "a" * 64, 4)
    assert ranking(board) == [(1, "bank/a:2"), (1, "bank/a:1"), (1, "bank/c:1"), (3, "bank/b:1")]
    assert [(rows.name, rows.versions) for rows in board.others] == [("other.csv", 1)]
    assert ranking(leaderboard(SCORES, "classify", data="other.csv")) == [(1, "bank/d:1")]
    assert ranking(leaderboard(SCORES, "classify", data="sha256:bbbb")) == [(1, "bank/d:1")]
    assert ranking(leaderboard(SCORES, "classify", metric="macro_f1")) == [(1, "bank/a:1")]


@pytest.mark.parametrize(
    ("task", "metric", "lower"),
    [
        ("lm", None, True),
        ("lm", "token_accuracy", False),
        ("regress", "mse", True),
        ("regress", None, False),
        ("sft", "cer", True),
    ],
)
def test_less_is_better_of_some_metrics(task: str, metric: str | None, lower: bool) -> None:
    name = metric or {"lm": "perplexity", "regress": "pearson"}[task]
    scores = [score("a", 1, 2.0, None, None, task=task, metric=name), score("b", 1, 3.0, None, None, task=task, metric=name)]
    board = leaderboard(scores, task, metric=metric)
    assert board.lower_is_better == lower
    assert [place for place, _ in ranking(board)] == [1, 2]
    assert ranking(board)[0][1] == ("a:1" if lower else "b:1")


def test_every_task_is_judged_as_is_known_without_it() -> None:
    known = {name: tuple(main_metric_of(name)) for name in TASKS}
    assert known == {name: (task.main_metric, task.lower_is_better) for name, task in TASKS.items()}
    assert (known["tag"], known["sft"]) == (("f1", False), ("perplexity", True))


def test_intervals_are_on_the_other_side_where_less_is_better() -> None:
    values = [("a", 3.0, 2.9, 3.1), ("b", 2.0, 1.9, 2.1), ("c", 2.05, 1.95, 2.15)]
    scores = [score(name, 1, *of, task="lm", metric="perplexity") for name, *of in values]
    assert ranking(leaderboard(scores, "lm")) == [(1, "b:1"), (1, "c:1"), (3, "a:1")]


def test_what_cannot_be_ranked_is_one_line() -> None:
    assert refused(lambda: leaderboard([], "classify")) == "no version was measured on task 'classify' yet."
    said = refused(lambda: leaderboard(SCORES, "classify", metric="bleu"))
    assert said == "no version was measured on task 'classify' by 'bleu'; there are accuracy, macro_f1."
    rows = "test.csv (sha256:aaaaaaaaaaaa, 100 rows), other.csv (sha256:bbbbbbbbbbbb, 50 rows)"
    said = refused(lambda: leaderboard(SCORES, "classify", data="x"))
    assert said == f"x: no rows are called so; there are {rows}."
    twice = [*SCORES, score("bank/e", 1, 0.5, None, None, data="c" * 64)]
    assert "several sets of rows are called so" in str(refused(lambda: leaderboard(twice, "classify", data="test.csv")))
    assert "unknown task" in str(refused(lambda: leaderboard(SCORES, "what")))


def test_a_page_for_people() -> None:
    assert leaderboard_page(leaderboard(SCORES, "classify")).split("\n") == [
        "test.csv (sha256:aaaaaaaaaaaa, 100 rows)",
        "accuracy: higher is better",
        "",
        "   version   accuracy      95% interval",
        "1  bank/a:2    0.9300  0.8800 to 0.9700",
        "1  bank/a:1    0.9000  0.8500 to 0.9500",
        "1  bank/c:1    0.8600  0.8000 to 0.9000",
        "3  bank/b:1    0.8000  0.7500 to 0.8400",
        "",
        "Versions whose intervals overlap share a place.",
        "",
        "Not compared, for these are other rows:",
        "  other.csv (sha256:bbbbbbbbbbbb, 50 rows), 1 version",
    ]


def test_a_page_stays_in_its_columns() -> None:
    hostile = "r\x1b[31m\n" * 30
    scores = [score("x" * 128, 1, 1e6, None, None, data_name=hostile), score("y", 1, 0.5, 0.4, 0.6, data_name=hostile)]
    scores = [replace(one, metric=hostile) for one in [*scores, score("z", 1, 1.0, None, None, data="c" * 64)]]
    page = leaderboard_page(leaderboard(scores, "classify", metric=hostile))
    assert max(map(len, page.split("\n"))) <= 80
    assert page.replace("\n", "").isprintable()


def test_the_record_has_what_the_page_has() -> None:
    record = leaderboard_record(leaderboard(SCORES, "classify"))
    first = {"place": 1, "name": "bank/a", "version": 2, "digest": f"{2:064x}", "value": 0.93, "low": 0.88, "high": 0.97}
    assert record["places"][0] == first
    assert record["data"] == {"sha256": "a" * 64, "name": "test.csv", "rows": 100, "versions": 4}
    assert record["others"][0]["name"] == "other.csv"
