"""What is no recommendation: values whose search was ended, baselines, and times that were taken on busy cores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from made_up import write_results

from graftax.benchmarks import results
from graftax.benchmarks.analysis import Recommendation, analyse
from graftax.benchmarks.compare import compare
from graftax.benchmarks.report import markdown, sections, write_report
from graftax.benchmarks.suite import NEAREST_MEAN
from graftax.benchmarks.wording import answer, caveats


def change(folder: Path, method: str, task: str | None = None, **changes: Any) -> None:
    """Change a method's records, on one task or all."""
    for record in results.read(folder):
        if record.method == method and task in (None, record.task):
            results.append(folder, dataclasses.replace(record, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"converged": False}, "not converged"),
        ({"converged": None}, "not converged"),  # of a version that did not look
        ({"edge": "highest"}, "highest rate"),
        ({"edge": "lowest", "converged": False}, "not converged, lowest rate"),
    ],
)
def test_a_result_whose_search_was_ended_is_marked_and_not_recommended(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_results(tmp_path, {"sst2": "accuracy", "cola": "accuracy"}, {"good": 2.0, "fair": 1.0, "poor": -1.0}, examples=400)
    found = analyse(tmp_path).recommend()
    assert found is not None
    assert (found.choice, found.passed_over) == ("good", {})

    change(tmp_path, "good", "cola", **changes)
    analysis = analyse(tmp_path)
    found = analysis.recommend()
    assert found is not None
    assert (found.best, found.choice) == ("fair", "fair")
    assert found.passed_over == {"good": f"{said.replace(', ', ' and ')} on cola"}
    lines = answer(analysis)
    assert "fair is best of those that can be recommended" in lines[0]
    assert f"No recommendation, but a better value: good ({said.replace(', ', ' and ')} on cola)." in lines[0]
    assert "On sst2, good is best" in lines[1]  # there it is settled
    (row,) = [
        line
        for line in markdown("made-up", sections(analysis)).splitlines()
        if line.startswith("| good ") and "mean" not in line
    ][:1]
    assert row.count(f"({said})") == 1
    assert any("The search ended before it was settled (good: " in line and "on cola" in line for line in caveats(analysis))
    write_report(tmp_path)
    assert f"({said})" in (tmp_path / "report.html").read_text()


def test_where_nothing_is_settled_nothing_is_recommended(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"a": 2.0, "b": 1.0}, converged=False)
    analysis = analyse(tmp_path)
    assert analysis.recommend() is None
    assert answer(analysis) == ["On sst2, no method can be recommended: a (not converged), b (not converged)."]


def test_a_baseline_is_compared_and_never_recommended(tmp_path: Path) -> None:
    write_results(
        tmp_path, {"sst2": "accuracy", "cola": "accuracy"}, {NEAREST_MEAN: 2.0, "lora": 1.0, "bitfit": -1.0}, examples=400
    )
    change(tmp_path, NEAREST_MEAN, parameters=0)
    analysis = analyse(tmp_path)
    assert analysis.methods[0] == NEAREST_MEAN
    found = analysis.recommend()
    assert found is not None
    assert found.choice == "lora"
    assert found.passed_over == {NEAREST_MEAN: "trains nothing"}
    (below,) = [line for line in caveats(analysis) if line.startswith("Below nearest-mean")]
    assert "lora on sst2 and cola" in below
    assert f"| {NEAREST_MEAN} " in markdown("made-up", sections(analysis))


def test_times_of_busy_cores_are_marked(tmp_path: Path) -> None:
    quiet, busy = tmp_path / "quiet", tmp_path / "busy"
    for folder in (quiet, busy):
        write_results(folder, {"sst2": "accuracy"}, {"good": 2.0, "fair": 1.99})
    change(busy, "fair", other_cores=0.7)
    assert "(busy)" not in markdown("made-up", sections(analyse(quiet)))
    text = markdown("made-up", sections(analyse(busy)))
    good, fair = ([row for row in text.splitlines() if row.startswith(f"| {name} ")] for name in ("good", "fair"))
    assert "110 (busy)" in text
    assert "(busy)" not in good[0]
    assert fair[0].count("(busy)") == 2  # a step's, and the training's
    assert any(line.startswith("Times of fair were taken while other processes") for line in caveats(analyse(busy)))
    assert "\N{MULTIPLICATION SIGN} (busy)" in compare(quiet, busy)
    assert "(busy)" not in compare(quiet, quiet)
    change(busy, "fair", other_cores=None)  # nobody knows
    assert analyse(busy).busy("fair")


def test_busy_times_are_marked_in_plots_and_beside_peers(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"good": 2.0, "fair": 1.9})
    for record in results.read(tmp_path):
        if record.method == "good":
            results.append(tmp_path, dataclasses.replace(record, library="peft"))
    assert "(busy)" not in shown(tmp_path)
    change(tmp_path, "fair", other_cores=0.7)
    text, charts = shown(tmp_path), [chart for section in sections(analyse(tmp_path)) for chart in section.charts]
    assert "training seconds: good.\n" in text
    names = {chart.name: [series.name for series in chart.series] for chart in charts}
    assert names["front-seconds"][1:] == ["good", "fair (busy)"]
    assert names["front-parameters"][1:] == ["good", "fair"]
    assert names["costs"][1::3] == ["training seconds (busy)", "seconds of a step (busy)"]
    change(tmp_path, "good", other_cores=0.7)  # of graftax and the peer alike
    assert "training seconds: good (busy).\n" in shown(tmp_path)
    (peer,) = [line for line in shown(tmp_path).splitlines() if "| good (peft) |" in line and "sst2" in line]
    assert peer.count("(busy)") == 2


def shown(folder: Path) -> str:
    return markdown("made-up", sections(analyse(folder)))


def test_busy_seconds_decide_nothing(tmp_path: Path) -> None:
    """Of two that are as good and have as many parameters the quicker one is taken, if that can be known."""
    write_results(tmp_path, {"sst2": "accuracy"}, {"good": 2.0, "fair": 2.0}, parameters=1000)
    (block,) = analyse(tmp_path).blocks
    better, other = sorted(block.methods, key=lambda m: -block.resampled.score(m)[0])
    change(tmp_path, better, seconds=20.0)
    change(tmp_path, other, seconds=10.0)
    assert [found.choice for found in recommended(tmp_path)] == [other, other]
    change(tmp_path, other, other_cores=0.7)
    assert [found.choice for found in recommended(tmp_path)] == [better, better]


def recommended(folder: Path) -> list[Recommendation]:
    """Over all blocks, and on the first."""
    analysis = analyse(folder)
    found = [analysis.recommend(), analysis.recommend(analysis.blocks[0])]
    return [one for one in found if one is not None]


def test_one_busy_run_is_enough(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"good": 2.0, "fair": 1.0})
    record = next(r for r in results.read(tmp_path) if r.method == "good" and r.seed == 1)
    results.append(tmp_path, dataclasses.replace(record, other_cores=0.11))
    assert (analyse(tmp_path).busy("good"), analyse(tmp_path).busy("fair")) == (True, False)


@pytest.mark.parametrize("changes", [{"converged": False}, {"edge": "highest"}, {"edge": "lowest"}])
def test_one_run_in_doubt_is_enough(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Seeds of results that were laid together may come from several searches."""
    write_results(tmp_path, {"sst2": "accuracy"}, {"good": 2.0, "fair": 1.0}, examples=400)
    record = next(r for r in results.read(tmp_path) if r.method == "good" and r.seed == 1)
    results.append(tmp_path, dataclasses.replace(record, **changes))
    assert {found.choice for found in recommended(tmp_path)} == {"fair"}


def test_busy_seconds_are_no_argument(tmp_path: Path) -> None:
    """The answer compares trainings' times where both were taken on quiet cores."""
    write_results(tmp_path, {"sst2": "accuracy", "cola": "accuracy"}, {"dear": 2.0})
    for record in results.read(tmp_path):  # that says the same
        results.append(tmp_path, dataclasses.replace(record, method="cheap", parameters=10))
    over_all, *on_tasks = answer(analyse(tmp_path))
    assert "Take cheap, the cheapest" in over_all
    assert "s of training against" in over_all
    assert all("s of training against" in line for line in on_tasks)
    change(tmp_path, "cheap", other_cores=0.7)
    assert "Take cheap, the cheapest" in answer(analyse(tmp_path))[0]
    assert not any("of training" in line for line in answer(analyse(tmp_path)))
