"""Successive halving: who is on which rung, whatever fails or ties, and in whichever order records come."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_bench_search import hill, record, run
from tiny import toy_rows, write_csv
from toy_suite import SUITE, with_rows

from graftax.__main__ import main
from graftax.benchmarks.halving import Halving
from graftax.benchmarks.results import Record, read
from graftax.benchmarks.rungs import halved_searches
from graftax.benchmarks.search import Found, Setting

Runs = dict[Setting, Record]


def usual(**changes: Any) -> Halving:
    """Nine rates, from 1e-6 to 100, the longest run 32 times the first."""
    known: dict[str, Any] = {"first": (1e-3, 1e-2, 1e-1), "schedules": ("linear",), "epochs": 1, "widen": 3, "doublings": 5}
    return Halving(**known | changes)


def told(rounds: list[list[Setting]]) -> list[tuple[int, int]]:
    """Settings and epochs of each round."""
    assert all(len({setting.epochs for setting in of_round}) == 1 for of_round in rounds)
    return [(len(of_round), of_round[0].epochs) for of_round in rounds]


def test_a_third_goes_on_three_times_as_long_until_one_is_left() -> None:
    found, rounds = run(usual(), hill(1e-3, 9))
    assert told(rounds) == [(9, 1), (3, 3), (1, 9), (1, 27)]
    assert {setting.lr for setting in rounds[1]} == {1e-4, 1e-3, 1e-2}
    assert found == Found(Setting(1e-3, "linear", 9), converged=True, edge=None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eta": 2}, [(9, 1), (4, 2), (2, 4), (1, 8), (1, 16)]),  # rounded down
        ({"doublings": 3}, [(9, 1), (3, 3)]),  # nine epochs are too long
        ({"widen": 0, "eta": 4}, [(3, 1), (1, 4), (1, 16)]),  # fewer than eta: one goes on
        ({"choices": ("r=1", "r=2"), "schedules": ("linear", "cosine")}, [(36, 1), (12, 3), (4, 9), (1, 27)]),
    ],
)
def test_rungs_by_hand(changes: dict[str, Any], expected: list[tuple[int, int]]) -> None:
    assert told(run(usual(**changes), hill(1e-3, 8))[1]) == expected


def test_the_one_that_is_left_goes_on_while_it_gains_and_no_longer() -> None:
    slow, rounds = run(usual(), hill(1e-3, 1000))
    assert slow == Found(Setting(1e-3, "linear", 27), converged=False, edge=None)
    assert rounds[-1] == [Setting(1e-3, "linear", 27)]
    quick, rounds = run(usual(), hill(1e-3, 1))
    assert quick == Found(Setting(1e-3, "linear", 1), converged=True, edge=None)
    assert told(rounds) == [(9, 1), (3, 3)]  # the best of three epochs was no better than that of one


@pytest.mark.parametrize(("rate", "edge"), [(1e-9, "lowest"), (1e9, "highest")])
def test_a_best_rate_without_others_beyond_it_is_said(rate: float, edge: str) -> None:
    found, _ = run(usual(), hill(rate, 1))
    assert found is not None
    assert found.edge == edge


def test_of_equal_settings_the_likelier_goes_on_then_the_lower_rate_and_last_one_at_the_brink() -> None:
    losses = {1e-3: 0.7, 1e-2: 0.5, 1e-1: 0.6}
    _, rounds = run(usual(widen=0), lambda lr, epochs: (0.9, losses[lr]))
    assert [setting.lr for setting in rounds[1]] == [1e-2]
    _, rounds = run(usual(widen=0), lambda lr, epochs: (0.9, 0.5))
    assert [setting.lr for setting in rounds[1]] == [1e-3]
    _, rounds = run(usual(widen=0), lambda lr, epochs: (0.9 if lr < 1e-1 else 0.1, losses[lr]))
    assert [setting.lr for setting in rounds[1]] == [1e-3]


@pytest.mark.parametrize(("after_one", "rate", "epochs"), [(0.7, 1e-2, 2), (0.95, 1e-3, 1)])
def test_the_best_of_all_rungs_is_found(after_one: float, rate: float, epochs: int) -> None:
    """One rate is the best after an epoch and the worst after two: those of a rung are held against each other alone, and then
    the best of each rung against those of the others."""
    values = {
        (1e-3, 1): after_one,
        (1e-2, 1): 0.65,
        (1e-1, 1): 0.6,
        (1.0, 1): 0.5,
        (1e-3, 2): 0.55,
        (1e-2, 2): 0.9,
        (1e-2, 4): 0.8,
    }
    search = usual(first=(1e-3, 1e-2, 1e-1, 1.0), widen=0, eta=2)
    found, rounds = run(search, lambda lr, epochs: (values[lr, epochs], 1.0))
    assert [{setting.lr for setting in of_round} for of_round in rounds] == [{*search.first}, {1e-3, 1e-2}, {1e-2}]
    assert found is not None
    assert (found.setting.lr, found.setting.epochs, found.converged) == (rate, epochs, True)


def every_course(search: Halving, known: Runs) -> Iterator[tuple[Runs, list[list[Setting]]]]:
    """Whatever may come of a search whose runs are right, wrong, or fail: its records, and its rounds."""
    wanted = search.wanted(known)
    if not wanted:
        yield known, []
    for values in itertools.product((0.9, 0.5, None), repeat=len(wanted)) if wanted else ():
        came = {setting: record(setting, value) for setting, value in zip(wanted, values, strict=True)}
        for records, rounds in every_course(search, known | came):
            yield records, [wanted, *rounds]


def test_every_course_of_a_small_search() -> None:
    """The order in which records come, and how many had come, change nothing of it."""
    search, shuffle = usual(first=(1e-3, 1e-2), widen=1, eta=2, doublings=3), random.Random(0)
    courses = [*every_course(search, {})]
    assert len(courses) > 900
    for records, rounds in courses:
        for before, after in itertools.pairwise(rounds):
            came_through = [setting for setting in before if records[setting].value is not None]
            assert len(after) == min(max(1, len(before) // 2), len(came_through))
            assert {setting._replace(epochs=setting.epochs // 2) for setting in after} <= {*came_through}
            dropped = [s for s in came_through if s._replace(epochs=2 * s.epochs) not in after]
            went_on = [records[s._replace(epochs=s.epochs // 2)].value or 0 for s in after]
            assert all((records[s].value or 0) <= min(went_on) for s in dropped)
        found, values = search.found(records), [one.value for one in records.values() if one.value is not None]
        assert (found is None) == (not values)
        assert found is None or records[found.setting].value == max(values)
        shuffled = shuffle.sample([*records.items()], len(records))
        assert search.wanted(dict(shuffled)) == []
        assert search.found(dict(shuffled)) == found
        here = dict(shuffled[: shuffle.randrange(len(records))])  # as a crash, or some machines, may leave it
        first_cut = next(of_round for of_round in rounds if not {*of_round} <= here.keys())
        assert search.wanted(here) == [setting for setting in first_cut if setting not in here]


def test_what_was_dropped_where_and_what_it_cost() -> None:
    search = usual(widen=0, first=(1e-4, 1e-3, 1e-2, 1e-1), eta=2, doublings=2)
    values = {1e-4: 0.7, 1e-3: 0.9, 1e-2: 0.8, 1e-1: None}
    records: Runs = {}
    while wanted := search.wanted(records):
        records |= {setting: record(setting, values[setting.lr], 1 / setting.epochs) for setting in wanted}
    (halved,) = halved_searches(records.values())
    assert [(rung.epochs, rung.runs, rung.value) for rung in halved.rungs] == [(1, 4, 0.9), (2, 2, 0.9), (4, 1, 0.9)]
    rates = [[[s.lr for s in group] for group in (rung.kept, rung.dropped, rung.failed)] for rung in halved.rungs]
    assert rates == [[[1e-3, 1e-2], [1e-4], [1e-1]], [[1e-3], [1e-2], []], [[1e-3], [], []]]
    assert (halved.epochs, halved.epochs_of_grid) == (4 + 2 * 2 + 4, 4 * 4)


def test_from_the_command_line(
    tmp_path: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = with_rows(tmp_path), tmp_path / "out"
    write_csv(folder / "toy2.csv", toy_rows(count=40, seed=2))
    second = '[tasks.toy2]\ntrain = "toy2.csv"\ntest = "test.csv"\n[methods.probe]'
    text = SUITE.format(backbone=tiny_dir, data=folder, more="").replace("[methods.probe]", second)
    (folder / "suite.toml").write_text(text.replace("doublings = 1", "doublings = 2"))
    words = ["bench", "--suite", folder / "suite.toml", "--out", out, "--search", "halving", "--eta", 2, "--seeds", 1]
    monkeypatch.setattr(sys, "argv", ["graftax", *map(str, [*words, "--method", "probe"])])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 0, said.err
    assert "probe, search 1: 8 cells" in said.out  # of both tasks
    assert "probe, search 2: 4 cells" in said.out
    searched = [one for one in read(out) if one.stage == "search"]
    for task in ("toy", "toy2"):
        of_task = {Setting(r.lr, r.schedule, r.epochs): r for r in searched if r.task == task}
        assert sorted(setting.epochs for setting in of_task)[:6] == [2, 2, 2, 2, 4, 4]
        found = Halving((1e-3, 1e-2), ("linear",), 2, 1, 2, eta=2).found(of_task)
        assert found is not None
        (final,) = [r for r in read(out) if r.task == task and r.stage == "final" and r.method == "probe"]
        assert (final.lr, final.epochs, final.converged, final.edge) == (*found.setting[::2][:2], found.converged, found.edge)
    report = (out / "report.md").read_text()
    assert "by successive halving" in report
    assert "4 → 2" in report
    assert "twice the length brings nothing" not in report
