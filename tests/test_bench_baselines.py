"""The baselines of a classification task, and whether a machine was quiet."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from of_texts import read_examples
from tiny import toy_rows, write_csv

from graftax.benchmarks import quiet, trainer
from graftax.benchmarks import suite as suites
from graftax.benchmarks.baselines import mean_features, nearest_means
from graftax.benchmarks.draws import read_task
from graftax.benchmarks.results import Predictions, read
from graftax.benchmarks.runner import run_suite
from graftax.benchmarks.suite import NEAREST_MEAN, MethodSpec, Suite, TaskSpec
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.tasks.task_registry import task_named


def test_features_are_means_over_a_texts_own_tokens(tiny: Backbone) -> None:
    """Whatever batch and padding a text is in."""
    tokenizer = Tokenizer.of(tiny)
    rows = task_named("classify").prepare(
        read_examples(toy_rows(count=40), Columns(), "classify"), ("fruit", "metal"), tokenizer, 24
    )
    found = mean_features(tiny, rows)
    for i in (0, 17, 39):
        alone = tokenizer.pad([rows.items[i]], 1, len(rows.items[i]))
        hidden = np.asarray(tiny.encode(tiny.params, {}, alone).hidden)[0]
        np.testing.assert_allclose(found[i], hidden.mean(0), atol=1e-5)


def test_the_nearest_mean_by_hand() -> None:
    known = np.array([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0], [-1.0, 0.0]])
    cosines = nearest_means(known, np.array([0, 1, 1, 2]), np.array([[5.0, 4.9], [-1.0, -1.0]]))
    unit = 1 / np.hypot(5, 4.9)
    np.testing.assert_allclose(cosines, [[5 * unit, 4.9 * unit, -5 * unit], [-(0.5**0.5), -(0.5**0.5), 0.5**0.5]])
    without = nearest_means(known[1:3], np.array([2, 2]), known[:1])  # two classes have no row
    np.testing.assert_allclose(without, [[-np.inf, -np.inf, 0.0]])


def test_both_stand_in_every_table_of_a_classification(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a suite has but one method, and on the rows that this one is measured on."""
    monkeypatch.setattr(suites, "_PROBE", MethodSpec("probe", lrs=(1e-2, 1e-1)))  # not a thousand steps
    write_csv(tmp_path / "toy.csv", toy_rows(count=40))
    suite = Suite(
        "one",
        ("tiny",),
        {"toy": TaskSpec(train=str(tmp_path / "toy.csv"), metric="macro_f1")},
        {"bitfit": MethodSpec("bitfit")},
        (1e-3, 1e-2),
        **{"seeds": 1, "steps": 1, "widen": 0, "doublings": 0, "max_length": 24},
    )
    run_suite(suite, tmp_path / "out", load=lambda name: tiny, say=lambda line: None)
    final = {r.method: r for r in read(tmp_path / "out") if r.stage == "final"}
    assert {*final} == {NEAREST_MEAN, "probe", "bitfit"}
    assert {r.rows for r in final.values()} == {30}  # all but the test rows
    assert {r.metric for r in final.values()} == {"macro_f1"}
    near = final[NEAREST_MEAN]
    assert (near.parameters, near.converged, near.edge, near.ece) == (0, True, None, None)
    rows = read_task(suite, "toy", suite.tasks["toy"])
    train, test = (
        task_named("classify").prepare(of, ("fruit", "metal"), Tokenizer.of(tiny), 24) for of in (rows.whole, rows.test)
    )
    cosines = nearest_means(mean_features(tiny, train), np.array(train.labels), mean_features(tiny, test))
    assert near.predictions is not None
    np.testing.assert_array_equal(Predictions.load(tmp_path / "out" / near.predictions).said, cosines.argmax(-1))


def others_while(work: Callable[[], None]) -> float:
    """How many cores others kept busy while this process did something."""
    with quiet.watched() as stretch:
        work()
    assert stretch.other_cores is not None
    return stretch.other_cores


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_our_own_work_is_not_told_as_others() -> None:
    """Looked at between two moments of rest, several times: whatever else this machine does may begin between them."""

    def spin() -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass

    def rest() -> None:
        time.sleep(0.2)

    tries = [(others_while(rest), others_while(spin), others_while(rest)) for _ in range(4)]
    told = [while_spinning for before, while_spinning, after in tries if max(before, after) < quiet.QUIET]
    assert not told or min(told) < 0.5  # where there is none, this machine is not quiet enough to tell


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_others_work_is_told() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert max(others_while(lambda: time.sleep(0.5)) for _ in range(3)) > 0.5
    finally:
        busy.kill()
        busy.wait()


def test_where_the_kernel_does_not_tell_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_STAT", Path("/no/such/file"))
    with quiet.watched() as stretch:
        pass
    assert stretch.other_cores is None


def test_stolen_time_and_foreign_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of the clock in which our core was busy for one and stolen for one, another idle, a foreign one busy."""
    stat = tmp_path / "stat"
    stat.write_text("cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\ncpu9 0 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(quiet, "_STAT", stat)
    monkeypatch.setattr(quiet.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(quiet.os, "sysconf", lambda name: 100)
    clock = iter((10.0, 12.0))
    monkeypatch.setattr(quiet.time, "monotonic", lambda: next(clock))
    with quiet.watched() as stretch:
        stat.write_text(
            "cpu 0\ncpu0 60 10 20 0 5 5 5 100 0 0\ncpu1 0 0 0 200 0 0 0 0 0 0\ncpu9 200 0 0 0 0 0 0 0 0 0\nintr 7\n"
        )
    assert stretch.other_cores == pytest.approx(1.0, abs=0.05)


def test_a_record_says_what_others_did_during_its_training(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretch = nullcontext(quiet.Stretch(0.42))
    monkeypatch.setattr(trainer, "watched", lambda: stretch)
    write_csv(tmp_path / "toy.csv", toy_rows(count=20))
    probe = {"probe": MethodSpec("probe")}
    known: dict[str, Any] = {"seeds": 1, "steps": 1, "widen": 0, "doublings": 0, "max_length": 24}
    suite = Suite("one", ("tiny",), {"toy": TaskSpec(train=str(tmp_path / "toy.csv"))}, probe, (1e-3, 1e-2), **known)
    trained = [r for r in run_suite(suite, tmp_path / "out", load=lambda name: tiny, say=lambda line: None) if r.lr]
    assert [record.other_cores for record in trained] == [0.42] * 3
    assert all(record.busy for record in trained)
