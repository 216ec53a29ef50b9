"""The search for a setting: it goes on until the best rate is inside and twice the length of no use, or says it did not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from graftax.benchmarks.results import Record
from graftax.benchmarks.search import Found, Search, Setting, best
from graftax.benchmarks.widening import Widening

Scores = Callable[[float, int], tuple[float | None, float]]  # of a rate and a length: value and loss


def record(setting: Setting, value: float | None, nll: float = 1.0, metric: str = "accuracy") -> Record:
    known: dict[str, Any] = {"metric": metric, "value": value, "metrics": {"nll": nll}}
    return Record("b", "t", "m", None, *setting, 0, stage="search", error="not finite" if value is None else None, **known)


def run(search: Search, scores: Scores) -> tuple[Found | None, list[list[Setting]]]:
    """What a search finds, and what it ran in every round."""
    tried: dict[Setting, Record] = {}
    rounds = []
    while wanted := search.wanted(tried):
        assert not tried.keys() & {*wanted}
        rounds.append(wanted)
        tried |= {setting: record(setting, *scores(setting.lr, setting.epochs)) for setting in wanted}
        assert len(rounds) < 100
    return search.found(tried), rounds


def usual(**changes: Any) -> Widening:
    known: dict[str, Any] = {"first": (1e-3, 1e-2), "schedules": ("linear",), "epochs": 4, "widen": 3, "doublings": 4}
    return Widening(**known | changes)


def hill(rate: float, enough: int) -> Scores:
    """Best at one rate, and better with every epoch until there are enough."""
    return lambda lr, epochs: (
        0.9 - 0.1 * abs(math.log10(lr / rate)) - 0.01 * max(0, enough - epochs),
        1.0 + 1 / min(epochs, enough),
    )


def test_it_ends_where_no_neighbour_is_better() -> None:
    found, rounds = run(usual(first=(1e-4, 1e-3, 1e-2)), hill(1e-3, 4))
    assert found == Found(Setting(1e-3, "linear", 4), converged=True, edge=None)
    assert rounds[1:] == [[Setting(1e-3, "linear", 8)]]  # both neighbours were in the first round


@pytest.mark.parametrize("enough", [4, 8, 16, 32])
def test_slow_methods_are_trained_until_they_converge(enough: int) -> None:
    found, rounds = run(usual(), hill(1e-2, enough))
    assert found == Found(Setting(1e-2, "linear", enough), converged=True, edge=None)
    assert rounds[-1] == [Setting(1e-2, "linear", 2 * enough)]


def test_a_flat_start_is_no_plateau_while_the_likelihood_rises() -> None:
    """All is at chance for two doublings, then it is learnt."""
    found, _ = run(usual(), lambda lr, epochs: (0.9 if epochs >= 16 else 0.25, 2.0 - min(epochs, 16) / 16))
    assert found is not None
    assert (found.setting.epochs, found.converged) == (16, True)


def test_a_search_that_reaches_its_longest_run_says_so() -> None:
    found, rounds = run(usual(doublings=2), hill(1e-2, 1000))
    assert found == Found(Setting(1e-2, "linear", 16), converged=False, edge=None)
    assert max(setting.epochs for setting in itertools.chain(*rounds)) == 16
    assert run(usual(doublings=0), hill(1e-2, 4))[0] == Found(Setting(1e-2, "linear", 4), converged=False, edge=None)


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-1, 1.0])
def test_rates_are_widened_by_their_own_ratio_until_the_best_is_inside(rate: float) -> None:
    found, rounds = run(usual(), hill(rate, 4))
    assert found == Found(Setting(rate, "linear", 4), converged=True, edge=None)
    tried = {setting.lr for setting in itertools.chain(*rounds)}
    assert min(tried) < rate < max(tried)


@pytest.mark.parametrize(("rate", "edge", "last"), [(1e-9, "lowest", 1e-6), (1e9, "highest", 10.0)])
def test_a_search_that_may_not_look_beyond_its_best_rate_says_so(rate: float, edge: str, last: float) -> None:
    found, _ = run(usual(), hill(rate, 4))
    assert found is not None
    assert (found.setting.lr, found.edge) == (last, edge)


def test_a_run_that_fails_is_a_neighbour_that_is_not_better() -> None:
    found, _ = run(usual(), lambda lr, epochs: (None, 0.0) if lr > 1e-2 or epochs > 4 else (lr, 1.0))
    assert found == Found(Setting(1e-2, "linear", 4), converged=True, edge=None)
    assert run(usual(), lambda lr, epochs: (None, 0.0)) == (None, [[Setting(1e-3, "linear", 4), Setting(1e-2, "linear", 4)]])


def test_rates_go_on_by_the_ratio_at_each_end() -> None:
    assert usual(first=(1e-3, 2e-3, 1e-2), widen=2).rates == [2.5e-4, 5e-4, 1e-3, 2e-3, 1e-2, 5e-2, 0.25]
    assert usual(widen=0).rates == [1e-3, 1e-2]


def test_the_best_is_the_likelier_of_two_that_tie_and_none_that_failed() -> None:
    def ranked(*values: tuple[float | None, float], metric: str = "accuracy") -> list[int]:
        settings = [Setting(0.1, "linear", i) for i in range(len(values))]
        return [s.epochs for s in best({s: record(s, *of, metric=metric) for s, of in zip(settings, values, strict=True)})]

    assert ranked((0.8, 0.7), (0.8, 0.5), (0.7, 0.1), (None, 0.0)) == [1, 0, 2]
    assert ranked((0.8, 0.7), (0.8, 0.7)) == [0, 1]  # of equals the shorter
    assert ranked((5.0, 0.0), (3.0, 0.0), (math.inf, 0.0), metric="perplexity") == [1, 0]


def test_of_two_rates_that_tie_the_one_below_a_brink_is_a_risk() -> None:
    values = {1e-3: (0.9, 0.3), 3e-3: (0.9, 0.2), 1e-2: (0.1, 2.3)}
    found, _ = run(usual(first=(1e-3, 3e-3), widen=1), lambda lr, epochs: values.get(lr, (0.5, 1.0)))
    assert found is not None
    assert found.setting.lr == 1e-3  # though 3e-3 is likelier


def test_gains_too_small_to_matter_do_not_go_on_for_ever() -> None:
    found, rounds = run(usual(), lambda lr, epochs: (0.9 - abs(lr - 1e-2), 1.0 - 1e-5 * epochs))
    assert found is not None
    assert found.converged
    assert max(setting.epochs for setting in itertools.chain(*rounds)) == 8


def test_a_loss_that_still_falls_buys_one_more_doubling_and_no_more() -> None:
    found, rounds = run(usual(), lambda lr, epochs: (0.9 - abs(lr - 1e-2), 4 / epochs))
    assert found is not None
    assert found.converged
    assert max(setting.epochs for setting in itertools.chain(*rounds)) <= 16


def test_a_round_that_a_crash_has_cut_is_run_to_its_end() -> None:
    """Whatever a part of it says: the neighbour that is better here would have led elsewhere before the other was run."""
    search, scores = usual(first=(1e-3, 1e-2, 1e-1)), hill(1e-4, 16)
    found, rounds = run(search, scores)
    tried: dict[Setting, Record] = {}
    for of_round in rounds:
        for i, setting in enumerate(of_round):
            assert search.wanted(tried) == of_round[i:]
            tried[setting] = record(setting, *scores(setting.lr, setting.epochs))
    assert search.found(tried) == found
    assert max(map(len, rounds[1:])) > 1


def test_records_that_the_search_did_not_ask_for_are_not_its_outcome() -> None:
    """Of another suite's rates, say, in results that were laid together."""
    search, scores = usual(), hill(1e-2, 4)
    tried: dict[Setting, Record] = {Setting(5e-3, "linear", 4): record(Setting(5e-3, "linear", 4), 0.99, 0.1)}
    while wanted := search.wanted(tried):
        tried |= {setting: record(setting, *scores(setting.lr, setting.epochs)) for setting in wanted}
    assert search.found(tried) == run(search, scores)[0]
