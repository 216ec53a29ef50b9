"""The statistics of benchmarks against known answers, and the report on made-up results."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_up import classified, write_results
from sacrebleu import corpus_bleu

from graftax.benchmarks import report, results
from graftax.benchmarks.analysis import analyse
from graftax.benchmarks.charts import Chart, Series
from graftax.benchmarks.compare import compare
from graftax.benchmarks.draw import _columns, _name_points
from graftax.benchmarks.report import markdown, sections, write_report
from graftax.benchmarks.results import Predictions
from graftax.benchmarks.scores import METRICS
from graftax.benchmarks.statistics import (
    Interval,
    Resampled,
    critical_difference,
    holm,
    in_unit,
    pairs,
    pareto,
    ranks,
    two_sided,
)
from graftax.benchmarks.tables import Table, escaped
from graftax.benchmarks.wording import answer, caveats
from graftax.tasks.text_metrics import word_matches

ACCURACY = METRICS["accuracy"]


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Five seeds, examples that differ in hardness: 95% intervals must hold the true accuracy in 90 to 100% of 150 worlds."""
    sample = np.random.default_rng(0)
    truth = (2 - sample.normal(0, np.hypot(1.5, 0.2), 10**6) + sample.logistic(size=10**6) > 0).mean()
    held = 0
    for world in range(150):
        generator = np.random.default_rng(world)
        hardness = generator.normal(0, 1.5, 200)
        luck = [2 + generator.normal(0, 0.2) - hardness + generator.logistic(size=200) for _ in range(5)]
        runs = {("m", seed): classified(of_seed > 0) for seed, of_seed in enumerate(luck)}
        interval = Resampled.of(runs, ACCURACY, str(world), 300).value("m")
        held += interval.low <= truth <= interval.high
    assert 0.90 <= held / 150 <= 1


def test_with_one_seed_the_interval_is_the_binomial_one() -> None:
    right = np.arange(400) < 320
    interval = Resampled.of({("m", 0): classified(right)}, ACCURACY, replicates=4000).value("m")
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(0.8 - half, abs=0.005)
    assert interval.high == pytest.approx(0.8 + half, abs=0.005)


def test_seeds_widen_the_interval_by_the_variance_of_their_mean() -> None:
    """Runs that are right everywhere or nowhere: all variance is the seeds', and k - 1 drawn of k give s^2 / k."""
    runs = {("m", seed): classified(np.full(50, seed < 3)) for seed in range(5)}
    resampled = Resampled.of(runs, ACCURACY, replicates=20_000)
    _, replicates = resampled.score("m")
    assert replicates.var() == pytest.approx(np.var([1, 1, 1, 0, 0], ddof=1) / 5, rel=0.05)


def test_examples_and_seeds_are_paired() -> None:
    """Two methods that differ in two answers of 400 by every seed: unpaired, the interval of the gain would be +- 5 points."""
    right = np.random.default_rng(0).random((3, 400)) < 0.8
    right[:, :2] = False
    better = right.copy()
    better[:, :2] = True
    runs = {("a", s): classified(right[s]) for s in range(3)} | {("b", s): classified(better[s]) for s in range(3)}
    (difference,) = pairs(["b", "a"], [Resampled.of(runs, ACCURACY)])
    assert difference.gain.value == pytest.approx(0.005)
    assert difference.gain.low >= 0
    assert difference.gain.high < 0.02
    again = Resampled.of(dict(reversed(runs.items())), ACCURACY)
    assert pairs(["b", "a"], [again]) == [difference]  # deterministic, whatever the order of the runs


def test_methods_are_compared_by_the_seeds_that_both_have() -> None:
    right = np.arange(100) < 80
    runs = {("a", 0): classified(right), ("b", 0): classified(right), ("b", 1): classified(~right)}
    (difference,) = pairs(["a", "b"], [Resampled.of(runs, ACCURACY)])
    assert difference.gain == Interval(0.0, 0.0, 0.0)
    assert difference.p == 1
    assert pairs(["a", "b"], [Resampled.of({("a", 0): classified(right), ("b", 1): classified(right)}, ACCURACY)]) == []


def test_lower_is_better_turns_gains_and_not_values() -> None:
    losses = np.random.default_rng(0).normal(2, 0.1, 100)
    runs = {("low", 0): Predictions(losses - 0.1, np.ones(100)), ("high", 0): Predictions(losses, np.ones(100))}
    resampled = Resampled.of(runs, METRICS["perplexity"])
    (difference,) = pairs(["low", "high"], [resampled])
    assert difference.gain.value == pytest.approx(0.1)  # of logarithms
    assert difference.told_apart
    value, score = resampled.value("low"), Interval.of(*resampled.score("low"))
    assert in_unit(METRICS["perplexity"], score).value == pytest.approx(value.value)
    assert in_unit(METRICS["cer"], Interval(-0.2, -0.3, -0.1)) == Interval(0.2, 0.1, 0.3)
    with_errors = Resampled.of(runs, METRICS["cer"])
    assert pairs(["low", "high"], [with_errors])[0].gain.value == pytest.approx(0.1)


def test_bleu_is_the_one_of_the_corpus_that_was_drawn() -> None:
    said = ["the cat sat on the mat", "a pub near the river", "cheap food", ""]
    wanted = [["the cat sat on a mat", "on the mat sat the cat"], ["a pub by the river"], ["cheap food", "food"], ["none"]]
    found = Predictions(*word_matches(said, wanted))

    def by_sacrebleu(drawn: list[int]) -> float:
        most = max(map(len, wanted))
        references = [[(wanted[i] + [None] * most)[n] for i in drawn] for n in range(most)]
        return corpus_bleu([said[i] for i in drawn], references).score / 100

    drawings = [[0, 1, 2, 3], [0, 0, 1, 3], [2, 2, 2, 3]]
    weights = np.array([np.bincount(drawn, minlength=4) for drawn in drawings], float)
    assert METRICS["bleu"](found, weights) == pytest.approx([by_sacrebleu(drawn) for drawn in drawings])
    assert METRICS["bleu"](found)[0] == pytest.approx(by_sacrebleu([0, 1, 2, 3]))


def test_two_sided_p() -> None:
    assert two_sided(np.linspace(0.1, 1, 999)) == pytest.approx(2 / 1000)
    assert two_sided(np.concatenate([np.full(989, 1.0), np.full(10, -1.0)])) == pytest.approx(22 / 1000)
    assert two_sided(np.zeros(999)) == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def test_nemenyi_by_demsars_table() -> None:
    """Table 5a: q at 0.05; and his example of 4 methods on 14 data sets, CD 1.25."""
    for methods, q in {2: 1.960, 5: 2.728, 10: 3.164}.items():
        assert critical_difference(methods, 100) == pytest.approx(q * np.sqrt(methods * (methods + 1) / 600), abs=1e-3)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_friedman_and_groups_on_demsars_example() -> None:
    """Table 6: AUC of C4.5 with and without two options on 14 data sets.

    In the row with .9751 he prints .975 twice, and ranks 2 and 3. His chi-square of 9.28 is without the correction for ties.
    """
    auc = """.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657  .882 .888 .886 .898
             .936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625  .775 .838 .866 .875  1.000 1.000 1.000 1.000
             .940 .962 .965 .962  .619 .666 .614 .669  .972 .981 .9751 .975  .957 .978 .946 .970"""
    found = ranks(["C4.5", "m", "cf", "m+cf"], np.array(auc.split(), float).reshape(14, 4))
    assert found.mean == pytest.approx({"m+cf": 1.964, "m": 2.0, "cf": 2.893, "C4.5": 3.143}, abs=1e-3)
    assert found.friedman == pytest.approx(9.28 / (1 - 78 / 840), abs=0.01)
    assert found.groups == (("m+cf", "m", "cf", "C4.5"),)  # "not powerful enough", he writes


def test_groups_are_as_large_as_can_be_and_none_lies_in_another() -> None:
    scores = np.tile([5.0, 4, 3, 2, 1], (30, 1))
    found = ranks(list("abcde"), scores)
    assert found.critical == pytest.approx(critical_difference(5, 30))  # 1.11: neighbours only
    assert found.groups == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    assert ranks(list("abcde"), np.tile(scores, (10, 1))).groups == ()


@pytest.mark.parametrize(("methods", "blocks"), [(2, 5), (3, 1), (0, 0)])
def test_ranks_of_too_few_say_so(methods: int, blocks: int) -> None:
    found = ranks(list("abc"[:methods]), np.arange(methods * blocks, dtype=float).reshape(blocks, methods))
    assert found.critical is None
    assert found.why_not
    assert found.groups == ()


def test_pareto() -> None:
    assert pareto([3, 2, 2, 1, 3], [5, 1, 2, 1, 5]).tolist() == [True, True, False, False, True]
    assert pareto([1, 2], [np.nan, 1]).tolist() == [False, True]


def test_recommended_is_the_cheapest_within_one_standard_error(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy", "cola": "matthews"}, {"cheap": 2.0, "good": 2.02, "poor": -1.0}, examples=300)
    analysis = analyse(tmp_path)
    found = analysis.recommend()
    assert found is not None
    assert set(found.alike) == set(found.close) == {"cheap", "good"}
    assert found.choice == "cheap"
    poor = analysis.pair("poor", "good")
    assert poor is not None
    assert poor.told_apart
    assert poor.gain.high < 0
    assert analysis.front("parameters")[-1] in ("cheap", "good")
    assert "poor" not in analysis.front("parameters")


def test_what_few_examples_cannot_tell_apart_is_not_recommended_for_that(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"cheap": 1.4, "good": 2.0, "other": 1.9, "fourth": 1.9}, examples=60)
    analysis = analyse(tmp_path)
    found = analysis.recommend()
    assert found is not None
    assert "cheap" in found.alike
    assert "cheap" not in found.close
    assert found.choice != "cheap"
    lost = analysis.pair(found.best, "cheap")
    assert lost is not None
    error = analysis.blocks[0].resampled.score(found.best)[1].std()
    assert lost.gain.value > error > 0
    assert f"Take {found.choice}" in answer(analysis)[-1]


def test_a_method_that_failed_somewhere_is_left_out_and_said_so(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy", "cola": "accuracy"}, {"a": 2.0, "b": 1.0, "c": 0.5})
    record = next(r for r in results.read(tmp_path) if r.task == "cola" and r.method == "b" and r.seed == 1)
    results.append(tmp_path, dataclasses.replace(record, value=None, predictions=None, error="out of memory"))
    analysis = analyse(tmp_path)
    assert analysis.methods == ("a", "c")
    assert analysis.left_out == {"b": "1 of 3 runs failed (cola)"}
    cola = next(block for block in analysis.blocks if block.id.task == "cola")
    assert {name for d in cola.differences for name in (d.first, d.second)} == {"a", "c"}
    text = markdown("made-up", sections(analysis))
    assert "b is in no comparison over tasks: 1 of 3 runs failed (cola)." in text
    assert "| out of memory |" in text
    assert "\N{DAGGER}" in text
    results.append(tmp_path, record)  # it ran again, and well
    assert analyse(tmp_path).left_out == {}


def test_a_report_is_one_page_that_asks_for_nothing(tmp_path: Path) -> None:
    methods = {"lora<script>alert(1)</script>": 2.0, "dora|x": 1.8, "probe": 0.0, "ia3_$a_b$": 1.0}
    write_results(tmp_path, {"sst2": "accuracy"}, methods, sizes=(16, 64), examples=80)
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "lora&lt;script&gt;" in page
    assert not re.search(r"""<script|src=|\bhref=["']?[^"'#]|url\([^#]|@import""", page)
    assert len(page) < 500_000
    assert page.count("<svg") == len(list((tmp_path / "plots").iterdir()))
    assert page.count("currentColor") > 100  # of a dark page the light
    text = (tmp_path / "report.md").read_text()
    assert "<script>" not in text
    assert r"dora\|x" in text
    pictures = sorted(file.name for file in (tmp_path / "plots").iterdir())
    assert "ranks.png" in pictures
    assert "costs.png" in pictures
    assert {"values-1.png", "values-2.png", "rows.png"} < set(pictures)
    assert sorted(re.findall(r"\(plots/(.*?)\)", text)) == pictures
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(table) == len(results.read(tmp_path))
    assert json.loads(table[0]["versions"]) == {"jax": "1"}
    assert markdown(text.splitlines()[0][2:], sections(analyse(tmp_path))) == text  # made twice, it is the same


@pytest.mark.parametrize("metric", ["accuracy", "perplexity"])
def test_the_smallest_benchmark_has_a_report(tmp_path: Path, metric: str) -> None:
    write_results(tmp_path, {"only": metric}, {"lora": 2.0}, seeds=1, examples=30)
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "It is the only method." in text
    assert "One seed only" in text
    assert "No critical difference" in text


def test_perplexities_are_averaged_as_ratios_and_never_with_shares(tmp_path: Path) -> None:
    write_results(tmp_path, {"x": "perplexity", "yy": "perplexity"}, {"a": 2.0, "b": 0.0})
    analysis = analyse(tmp_path)
    assert analysis.methods == ("a", "b")  # the lower perplexity first
    values = [block.value("a") for block in analysis.blocks]
    mean = analysis.mean("a")
    assert mean is not None
    assert mean.value == pytest.approx(np.sqrt(np.prod([v.value for v in values if v])), rel=1e-3)
    assert mean.low < mean.value < mean.high
    write_results(tmp_path, {"z": "accuracy"}, {"a": 2.0, "b": 0.0})
    mixed = analyse(tmp_path)
    assert mixed.mean("a") is None
    assert "mean rank 1.0 of 2" in answer(mixed)[0]
    assert "minus the mean rank" in {chart.y for section in sections(mixed) for chart in section.charts}


def test_peers_are_compared_by_equal_cells_and_ranked_with_nobody(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"lora": 2.0, "ia3": 1.0})
    for record in results.read(tmp_path):
        if record.method == "lora" and record.seed < 2:
            peer = dataclasses.replace(
                record, library="peft", step_seconds=0.3, seconds=36.0, compile_seconds=None, process_seconds=60.0
            )
            results.append(tmp_path, peer)
    analysis = analyse(tmp_path)
    assert analysis.methods == ("lora", "ia3")
    (peer,) = analysis.peers
    assert peer.gain == Interval(0.0, 0.0, 0.0)
    assert peer.step_ratio == pytest.approx(3)
    assert peer.total_ratio == pytest.approx(3)
    assert peer.process_seconds == 60
    assert "lora (peft)" in markdown("made-up", sections(analysis))


def test_compare_says_what_changed(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    write_results(a, {"sst2": "accuracy"}, {"lora": 0.0, "ia3": 1.0}, examples=400)
    write_results(b, {"sst2": "accuracy"}, {"lora": 2.0, "dora": 1.0}, examples=400, commit="def", step_seconds=0.05)
    text = compare(a, b)
    assert "B is better in 1, worse in 0" in text
    assert "Different commit: A abc; B def." in text
    assert "| 2.00\N{MULTIPLICATION SIGN} " in text
    assert "Only in A: ia3 on sst2." in text
    assert "Only in B: dora on sst2." in text
    write_results(c, {"sst2": "accuracy"}, {"lora": 2.0}, data="e" * 64)
    text = compare(a, c)
    assert "no difference could be tested" in text
    assert "Different test data of sst2." in text


def test_bad_directories_are_refused_in_a_line(tmp_path: Path) -> None:
    from graftax.errors import GraftaxError

    for wrong in (write_report, lambda folder: compare(folder, folder)):
        with pytest.raises(GraftaxError, match="no results of a benchmark here"):
            wrong(tmp_path)
    write_results(tmp_path, {"sst2": "accuracy"}, {"lora": 1.0}, seeds=1)
    (file,) = (tmp_path / "predictions").iterdir()
    file.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(GraftaxError, match="no predictions of a benchmark"):
        write_report(tmp_path)
    file.unlink()
    (block,) = analyse(tmp_path).blocks
    assert block.entries[0].trouble is not None
    assert "No method came through" in answer(analyse(tmp_path))[0]
    (record,) = results.read(tmp_path)
    results.append(tmp_path, dataclasses.replace(record, predictions="../secret.npz"))
    with pytest.raises(GraftaxError, match="outside of this directory"):
        write_report(tmp_path)


def test_names_cannot_write_markdown() -> None:
    assert escaped("a_b [0.1, 0.2]") == "a_b [0.1, 0.2]"
    assert escaped("_a_ [x](http://y) |\n<b>*`") == r"\_a\_ [x]\(http://y) \| &lt;b>\*\`"
    table = Table("t", ("a", "long"), (("x", "y"), ("wide", "\N{EN DASH}")))
    assert table.markdown().splitlines()[2:] == [
        "| a    | long |",
        "| ---- | ---- |",
        "| x    | y    |",
        "| wide | \N{EN DASH}    |",
    ]
    assert table.pruned() == table


def test_a_value_beyond_all_numbers_is_a_failure_and_missing_seeds_are_said(tmp_path: Path) -> None:
    write_results(tmp_path, {"x": "perplexity"}, {"a": 2.0, "b": 1.0, "c": 0.0})
    kept = [r for r in results.read(tmp_path) if (r.method, r.seed) != ("b", 2)]
    (tmp_path / "results.jsonl").unlink()
    for record in kept:
        diverged = record.method == "c" and record.seed == 0
        results.append(tmp_path, dataclasses.replace(record, value=float("inf")) if diverged else record)
    analysis = analyse(tmp_path)
    assert analysis.left_out == {"c": "1 of 3 runs failed (x)"}
    assert [r.seed for r in analysis.failed] == [0]
    assert any("Fewer seeds than the 3 of others on x: b (2)" in line for line in caveats(analysis))
    assert "its value is no number" in markdown("made-up", sections(analysis))


def test_a_benchmark_in_which_all_has_failed_has_a_report(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"lora": 2.0, "ia3": 1.0}, sizes=(16, 64), examples=40)
    for record in results.read(tmp_path):
        results.append(tmp_path, dataclasses.replace(record, value=None, predictions=None, error="out of memory"))
    assert "No method came through" in write_report(tmp_path)
    assert (tmp_path / "report.md").read_text().count("| out of memory |") == 12


def test_a_page_of_many_tasks_stays_under_a_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots that have no room on it are named, and lie beside it."""
    write_results(tmp_path, {f"task{i}": "accuracy" for i in range(6)}, {"lora": 2.0, "ia3": 1.0}, examples=40)
    monkeypatch.setattr(report, "_FIGURES_ROOM", 40_000)
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    pictures = {file.name for file in (tmp_path / "plots").iterdir()}
    named = {*re.findall(r"plots/([\w-]+\.png)", page)}
    assert 0 < len(named) < len(pictures)
    assert named < pictures
    assert page.count("<svg") == len(pictures) - len(named)
    assert len(page) < 40_000 + 60_000


def test_tables_that_have_no_room_on_the_page_are_in_the_other_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main table is on the page whatever its size, and every table in Markdown."""
    write_results(tmp_path, {f"task{i}": "accuracy" for i in range(4)}, {"lora": 2.0, "ia3": 1.0}, examples=40)
    content = sections(analyse(tmp_path))
    folded = [table for section in content for table in section.tables if table.folded]
    monkeypatch.setattr(report, "_TABLES_ROOM", sum(table.size for table in folded[:3]))
    monkeypatch.setattr(report, "_FIGURES_ROOM", 0)
    write_report(tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert page.count("this page has no room for it") == len(folded) - 3
    assert "<h3>Methods and tasks</h3>\n<div" in page
    assert all(f"**{table.title}**" in text for table in folded)
    assert "no room" not in text


def test_rooms_leave_the_page_under_a_megabyte() -> None:
    """An answer over 44 blocks and 13 methods, its caveats and the main table take some 90,000 characters."""
    assert report._FIGURES_ROOM + report._TABLES_ROOM <= 800_000


def test_names_of_points_that_are_near_do_not_overlap() -> None:
    """The best ones of a front are often as good, and cost about as much."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(4.9, 3.6))
    axes = page.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    points = [Series(f"method {i}", [x], [y]) for i, (x, y) in enumerate([(9.8, 9.8), (9.6, 9.6), (9.7, 8.9), (0, 5), (5, 0)])]
    _name_points(axes, points)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == [series.name for series in points]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert boxes[3].x0 >= axes.bbox.x0  # not over the axis where there is room beside it
    assert boxes[4].y0 >= axes.bbox.y0


def test_a_legend_has_room_for_its_names() -> None:
    def columns(name: str) -> int:
        return _columns(Chart("c", "", "", "", (Series(name, [1], [1]),)), 4.9)

    assert [columns(name) for name in ("lora", "seconds of a step (busy)", "x" * 80)] == [3, 2, 1]
