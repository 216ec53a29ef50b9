"""Reports: exact numbers of hand-made answers, and a page that is sound whatever the data are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from conftest import Graftax
from http_servers import speaker
from test_evaluate import predictor_of
from tiny import toy_rows, write_csv

from graftax import GraftaxError
from graftax.data.examples import Examples
from graftax.data.picture_values import Picture
from graftax.data.sources import Source
from graftax.models.backbone import Backbone
from graftax.serve.evaluation import Answered
from graftax.serve.intervals import wilson
from graftax.serve.report.adapter_report import AdapterReport
from graftax.serve.report.domain_shift import Distance, Shift, change_of, distance, labels_apart
from graftax.serve.report.evaluation_report import Report
from graftax.serve.report.findings import findings
from graftax.serve.report.most_wrong import most_wrong
from graftax.serve.report.report_page import page_of_report
from graftax.serve.report.reporter import looked_at, report_on
from graftax.serve.report.slices import Slices, slices_of
from graftax.store.events import Measure
from graftax.store.manifest import DataFacts
from graftax.tasks.reliability import reliability_of
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import task_named

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = """</style><script>document.title='taken'</script><img src=x onerror="document.title='taken'">"""

TWENTY = [str(i) for i in range(20)]


def answered(labels: Sequence[Any], answers: Sequence[Answer], task: str = "classify", names: Sequence[str] = ()) -> Answered:
    texts = tuple(f"text {i}" for i in range(len(labels)))
    return Answered(task_named(task), Examples({"text": texts}, tuple(labels), "rows.csv"), answers, names)


def classified(right: Sequence[bool]) -> Answered:
    """Labels and answers of two classes, so many of which are right; all are 0.75 sure."""
    labels = ["a" if i % 2 else "b" for i in range(len(right))]
    said = [label if so else {"a": "b", "b": "a"}[label] for label, so in zip(labels, right, strict=True)]
    return answered(labels, [Answer(label, 0.75, {label: 0.75}) for label in said], names=("a", "b"))


def source(column: str, values: Sequence[Any]) -> Source:
    return Source("rows.csv", [{column: value} for value in values])


def page_of(found: AdapterReport, rows: int = 3) -> str:
    return page_of_report("tiny", DataFacts("a" * 64, rows, "rows.csv"), (found,))


def sliced(right: Sequence[bool], values: Sequence[Any]) -> Slices:
    (found,) = slices_of(classified(right), source("kind", values), ["kind"])
    return found


# -- slices -------------------------------------------------------------------------------------------------------------------


def test_metrics_of_slices_and_the_worst_of_them() -> None:
    """Two rows that are both wrong are worse by their value; forty of which a quarter is right are worse for certain."""
    right = [False] * 2 + [True] * 10 + [False] * 30 + [True] * 70 + [False] * 30
    found = sliced(right, ["few"] * 2 + ["many"] * 40 + ["most"] * 100)
    assert (found.values, found.worst, found.note) == (3, 0, None)
    assert [(one.value, one.rows) for one in found.shown] == [("many", 40), ("few", 2), ("most", 100)]
    accuracies = [one.metrics["accuracy"] for one in found.shown]
    assert [one.value for one in accuracies] == [0.25, 0.0, 0.7]
    assert accuracies[0] == Measure(0.25, *wilson(0.25, 40))
    assert [one.apart for one in found.shown] == [True, False, False]


def test_values_of_a_column() -> None:
    """Numbers and truths by their names, what is missing under a name of its own."""
    values = [1, 1.0, "1 ", True, None, " ", float("nan")]
    found = sliced([True] * 7, values)
    assert {one.value: one.rows for one in found.shown} == {"1": 3, "True": 1, "(nothing)": 3}


def test_slices_by_the_label() -> None:
    """Numbers of classes by their names, and no metric that compares labels, of which there is one."""
    rows = classified([True, False, True, True])
    (found,) = slices_of(rows, Source("rows.npz", [{"y": i % 2} for i in range(4)], {"y": ("dog", "cat")}), ["y"])
    told = {one.value: {name: measure.value for name, measure in one.metrics.items()} for one in found.shown}
    assert told == {"dog": {"accuracy": 1.0}, "cat": {"accuracy": 0.5}}


def test_many_numbers_are_ranges_in_their_order() -> None:
    """Of a CSV, too, where they are texts; the rows without one come last."""
    found = sliced([True] * 50 + [False] * 55, [str(number) for number in range(100)] + [""] * 5)
    told = [(one.value, one.rows) for one in found.shown]
    assert told == [("0 to 19", 20), ("20 to 39", 20), ("40 to 59", 20), ("60 to 79", 20), ("80 to 99", 20), ("(nothing)", 5)]
    assert [one.metrics["accuracy"].value for one in found.shown] == [1.0, 1.0, 0.5, 0.0, 0.0, 0.0]
    assert found.shown[found.worst or 0].value == "60 to 79"
    assert found.note == "100 different numbers, in ranges of about as many rows"


def test_as_many_values_as_rows() -> None:
    """They are no slices: that is said, and some are shown; so are the largest of many values."""
    found = sliced([True] * 30, [f"row {i}" for i in range(30)])
    assert (found.values, len(found.shown), found.worst) == (30, 20, None)
    assert found.note is not None
    assert "as many values as rows" in found.note
    found = sliced([True] * 60, [f"kind {min(i, 29)}" for i in range(60)])
    assert found.note == "the 20 largest of 30"
    assert max(found.shown, key=lambda one: one.rows).rows == 31


def test_columns_that_make_no_slices() -> None:
    rows = classified([True, False])
    with pytest.raises(GraftaxError, match=r"rows.csv: no column 'lang'; it has kind"):
        slices_of(rows, source("kind", [1, 2]), ["lang"])
    with pytest.raises(GraftaxError, match=r"row 2 has a list in column 'kind'; slices are made of texts, numbers"):
        slices_of(rows, source("kind", ["x", ["a", "b"]]), ["kind"])
    with pytest.raises(GraftaxError, match="are measured in pieces"):
        slices_of(rows, source("kind", [1]), ["kind"])


# -- how sure -----------------------------------------------------------------------------------------------------------------


def test_reliability_by_hand() -> None:
    """Four claims in two bins: 0.9 three times, of which two were so, and 0.3 once, which was not."""
    found = reliability_of([0.9, 0.9, 0.9, 0.3], [True, True, False, False])
    assert found.error == pytest.approx((3 * (0.9 - 2 / 3) + 0.3) / 4)
    assert found.brier == pytest.approx((2 * 0.01 + 0.81 + 0.09) / 4)
    assert [one.claims for one in found.bins] == [1, 3]
    assert (found.said, found.was_so) == (pytest.approx(0.75), 0.5)


def test_what_answers_claim() -> None:
    """One of a class, one of each of several labels, one of each word that was read, none of a number."""
    several = Answer(["x"], [0.8], {"x": 0.8, "y": 0.1})
    assert list(task_named("classify").claims("a", Answer("b", 0.6))) == [(0.6, False)]
    assert list(task_named("multilabel").claims(("y",), several)) == [(0.8, False), (0.1, True)]
    assert list(task_named("tag").claims(["O", "B"], Answer(["O", "O"], [0.7, None]))) == [(0.7, True)]
    assert list(task_named("regress").claims(1.0, Answer(2.0, None))) == []


# -- the most wrong -----------------------------------------------------------------------------------------------------------


def test_the_surest_of_the_wrong_come_first() -> None:
    answers = [Answer("a", 0.99), Answer("a", 0.7), Answer("b", 0.9), Answer("a", 0.9)]
    found = most_wrong(answered(["a", "b", "a", "b"], answers, names=("a", "b")))
    assert [(one.row, one.label, one.answer, one.probability) for one in found] == [
        (3, "a", "b", 0.9),
        (4, "b", "a", 0.9),
        (2, "b", "a", 0.7),
    ]
    assert found[0].shown == {"text": "text 2"}


def test_how_wrong_by_task() -> None:
    several = Answer(["x"], [0.8], {"x": 0.8, "y": 0.1})
    assert task_named("multilabel").mistake(("y",), several) == pytest.approx(0.8 + 0.9)
    assert task_named("multilabel").mistake(("x",), several) is None
    assert task_named("multilabel").mistake(("x", "unknown"), several) == pytest.approx(1.0)
    assert task_named("tag").mistake(["O", "B", "B"], Answer(["O", "O", "O"], [0.7, 0.6, None])) == pytest.approx(1.6)
    assert task_named("regress").mistake(1.0, Answer(-1.5, None)) == 2.5
    assert task_named("regress").mistake(1.0, Answer(1.0, None)) is None
    assert task_named("lm").mistake(None, Answer(None, (-6.0, 2.0, 3.0))) == 2.0
    assert task_named("dpo").mistake(None, Answer(None, (1.0, 3.5))) == 2.5
    assert task_named("dpo").mistake(None, Answer(None, (3.5, 1.0))) is None


def test_the_picture_itself() -> None:
    """As a PNG in the page, and not in the JSON; a tiny one with its pixels to be seen."""
    import base64
    import io

    from PIL import Image

    pictures = [np.full((300, 150, 3), 7, np.uint8), np.arange(75, dtype=np.uint8).reshape(5, 5, 3)]
    examples = Examples({"image": tuple(Picture(pixels, "row") for pixels in pictures)}, ("a", "a"), "pets")
    answers = [Answer("b", 0.9), Answer("b", 0.8)]
    found = looked_at("pets", Answered(task_named("image-classify"), examples, answers, ("a", "b")).measured())
    sizes = []
    for one in found.most_wrong:
        assert one.picture is not None
        image = Image.open(io.BytesIO(base64.b64decode(one.picture.removeprefix("data:image/png;base64,"))))
        sizes.append(image.size)
    assert sizes == [(56, 112), (110, 110)]
    assert np.asarray(image)[22, 0].tolist() == pictures[1][1, 0].tolist()
    assert page_of(found).count('<img src="data:image/png;base64,') == 2
    assert "picture" not in json.dumps(found.record()["most_wrong"])


# -- against other rows -------------------------------------------------------------------------------------------------------


def test_the_change_of_a_metric() -> None:
    change = change_of(Measure(0.6, 0.5, 0.7), Measure(0.9, 0.86, 0.93))
    assert change.value == pytest.approx(-0.3)
    assert change.low == pytest.approx(-0.3 - (0.1**2 + 0.03**2) ** 0.5)
    assert change.high == pytest.approx(-0.3 + (0.1**2 + 0.04**2) ** 0.5)
    assert change_of(Measure(2.0), Measure(1.0, 0.5, 1.5)) == Measure(1.0)


def test_how_far_labels_and_features_are_apart() -> None:
    one, other = classified([True] * 4), answered(["a"] * 3 + ["c"], [Answer("a", 1.0)] * 4)
    assert labels_apart(one, other) == pytest.approx(0.5)
    assert labels_apart(one, one) == 0.0
    here, there = np.array([[1.0, 0], [3, 0], [2, 1], [2, -1]]), np.array([[2.0, 3], [2, 5]])
    apart = distance("of these", here, there)  # the means are 4 apart; each row is 1 from its own side's
    assert apart.value == pytest.approx(4.0)
    random = np.random.default_rng(0)
    same, far = (distance("x", random.normal(0, 1, (90, 8)), random.normal(by, 1, (60, 8))) for by in (0.0, 0.6))
    assert same.value < same.chance
    assert far.value > far.chance
    assert (same.p > 0.05, far.p) == (True, pytest.approx(1 / 200))


# -- what stands out, and the page --------------------------------------------------------------------------------------------


def test_findings() -> None:
    right = [True] * 10 + [False] * 30 + [True] * 60
    rows = classified(right)
    shift = Shift(DataFacts(None, 9, "old.csv"), True, {}, Measure(-0.2, -0.3, -0.1), None, (Distance("x", 2.0, 1.0, 0.01),))
    found = looked_at("bank", rows.measured(), source("kind", ["many"] * 40 + ["most"] * 60), ["kind"], shift)
    told = list(findings(found))
    assert told[0].startswith("Accuracy is 0.700 [0.6")
    assert told[1].startswith("By kind it is worst on many (40 rows): 0.250 [")
    assert told[1].endswith("worse than all rows together.")
    assert told[2] == "It is 5.0 points too sure: expected calibration error 0.050 over 100 probabilities."
    assert told[3] in ("Most often confused: b answered as a, 15 times.", "Most often confused: a answered as b, 15 times.")
    assert told[4] == "Against old.csv it is worse here by 0.200 [0.100, 0.300] for certain."
    assert told[5].startswith("The mean features x are farther apart than chance makes them: 2.000 of a row's own spread")


def test_nothing_in_the_data_is_obeyed() -> None:
    """Texts, labels, names, columns and values are shown as they are."""
    examples = Examples({"text": (HOSTILE, "b")}, (HOSTILE, "metal"), HOSTILE)
    rows = Answered(task_named("classify"), examples, [Answer("metal", 0.9), Answer(HOSTILE, 0.9)], (HOSTILE, "metal"))
    found = looked_at(HOSTILE, replace(rows.measured(), unknown={HOSTILE: 2}), source(HOSTILE, [HOSTILE, "b"]), [HOSTILE])
    page = page_of_report(HOSTILE, DataFacts("a" * 64, 2, HOSTILE), (found, found))
    assert page.count("&lt;script&gt;") > 10
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("</style>") == 1
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (answered(["a"], [Answer("a", 0.9, {"a": 0.9})], names=("a", "b")), "Every row was answered rightly."),
        (answered(["a"] * 3, [Answer("a", 0.9)] * 3, names=("a", "b")), "1.000"),
        (answered([1.0], [Answer(1.5, None)], "regress", ("value",)), "Answers against truth"),
        (answered([1.0, 2.0], [Answer(1.0, None), Answer(1.0, None)], "regress", ("value",)), "Answers against truth"),
        (answered([("a", "b"), ()], [Answer([], []), Answer(["a"], [0.6])], "multilabel", ("a", "b")), "(none)"),
        (answered([["B", "O"]], [Answer(["O", "O"], [0.9, None])], "tag", ("B", "O")), "Confusions"),
        (answered(TWENTY, [Answer("1", 0.5)] * 20, names=TWENTY), "15 most frequent"),
        (answered([None], [Answer(None, (1.0, 2.0))], "dpo"), "how much more reward"),
    ],
)
def test_a_page_of_every_kind(rows: Answered, shown: str, tmp_path: Path) -> None:
    """Of one row, one class, numbers, several labels, tags; numbers that are none are null."""
    if rows.task.name == "tag":
        rows = replace(rows, examples=rows.examples.with_fields(text=(["gold", "is"],)))
    values = source("kind", ["x"] * len(rows))
    found = looked_at("some", rows.measured(), values, ["kind"])
    report = Report("tiny", DataFacts("a" * 64, len(rows), "rows.csv"), (found,))
    page = report.write(tmp_path / "report").read_text("utf-8")
    assert shown in page
    (said,) = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["adapters"]
    assert said["metrics"].keys() == found.metrics.keys()
    assert said["slices"][0]["shown"][0]["rows"] == len(rows)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(GraftaxError, match="it is not replaced"):
        report.write(tmp_path / "other")


# -- from the data on ---------------------------------------------------------------------------------------------------------


def test_a_report_of_two_adapters(tiny: Backbone, tmp_path: Path) -> None:
    """What Python makes of rows: the same metrics as `measure` gives, and a shift from the rows of the training."""
    predictor_of(tiny, tmp_path, "classify")
    here = [row | {"lang": "en" if i % 3 else "de"} for i, row in enumerate(toy_rows(count=18, seed=4))]
    adapters = {"one": tmp_path / "classify", "two": tmp_path / "classify"}
    report = report_on(tiny, adapters, iter(here), slices=["lang"], against=toy_rows("classify", 24))
    one, two = report.adapters
    assert (one.name, two.name, report.data.rows) == ("one", "two", 18)
    assert one.metrics == two.metrics
    (by_lang,) = one.slices
    assert {part.value: part.rows for part in by_lang.shown} == {"de": 6, "en": 12}
    total = sum(part.rows * part.metrics["accuracy"].value for part in by_lang.shown)
    assert one.main is not None
    assert total == pytest.approx(18 * one.main.value)
    assert one.shift is not None
    assert one.shift.trained_on is True
    assert one.shift.there.rows == 24
    assert [found.features for found in one.shift.distances] == ["of the frozen backbone", "under the adapter"]
    assert one.shift.change.value == pytest.approx(one.main.value - one.shift.metrics["accuracy"].value)


def test_a_report_of_a_language_model(teller: Backbone) -> None:
    """By how likely it finds the rows; plain texts are in pieces, so they have no slices."""
    rows = [{"prompt": "What? ", "completion": f"It is {word}.", "kind": len(word)} for word in ("a sea", "a sky", "salt")]
    report = report_on(teller, {"sea": replace(speaker(teller, 0), task="sft")}, rows, slices=["kind"], against=rows[:2])
    (found,) = report.adapters
    assert [(one.value, one.rows) for one in found.slices[0].shown] in ([("4", 1), ("5", 2)], [("5", 2), ("4", 1)])
    assert [one.shown["prompt"] for one in found.most_wrong] == ["What? "] * 3
    assert found.most_wrong[0].mistake >= found.most_wrong[-1].mistake > 0
    assert found.shift is not None
    assert found.shift.distances == ()
    assert (found.reliability, found.confusion) == (None, None)
    texts = [{"text": "The sea is wide. " * 9, "kind": 1}]
    with pytest.raises(GraftaxError, match="texts of task 'lm' are measured in pieces"):
        report_on(teller, {"sea": speaker(teller, 0)}, texts, slices=["kind"])
    assert report_on(teller, {"sea": speaker(teller, 0)}, texts).adapters[0].metrics["perplexity"].value > 1


def test_eval_writes_a_report(tiny_dir: Path, tiny: Backbone, tmp_path: Path, graftax: Graftax) -> None:
    predictor_of(tiny, tmp_path, "classify")
    rows = [row | {"lang": "en" if i % 3 else "de", "n": i % 2} for i, row in enumerate(toy_rows(count=12, seed=4))]
    data, adapter, out = write_csv(tmp_path / "rows.csv", rows), tmp_path / "classify", tmp_path / "seen"
    given = ["eval", "-b", tiny_dir, "-a", adapter, "-d", data]
    said = graftax(*given, "--slices", "lang", "n", "--report", out, "--json")
    assert said.code == 0, said.err
    assert f"report: {out / 'report.html'}" in said.err
    (found,) = json.loads((out / "report.json").read_text())["adapters"]
    assert [one["column"] for one in found["slices"]] == ["lang", "n"]
    assert json.loads(said.out)["accuracy"] == found["metrics"]["accuracy"]["value"]
    assert "By lang" in (out / "report.html").read_text("utf-8")
    several = graftax(*given, "-a", f"two={adapter}", "--report", out, "--json")
    assert [json.loads(line)["adapter"] for line in several.out.splitlines()] == ["classify", "two"]
    for wrong, why in [
        (["--slices", "lang"], "give --report DIR"),
        (["--against", data], "give --report DIR"),
        (["-a", f"two={adapter}"], "several adapters are compared in a report"),
        (["--report", out, "--generate"], "not of texts that are generated"),
        (["--report", out, "--slices", "land"], "no column 'land'; it has text, label, lang, n"),
        (["--report", tmp_path, "--slices", "lang"], "holds other things"),
    ]:
        refusal = graftax(*given, *wrong)
        assert (refusal.code, why in refusal.err) == (2, True), refusal.err


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser: Browser, tmp_path: Path, scheme: Literal["light", "dark"]) -> None:
    """Without JavaScript and a network, at the widths of a telephone, a tablet and a desk: all is seen, nothing sticks out."""
    names = [f"{HOSTILE} {i}" for i in range(12)]
    rows = answered(names * 3, [Answer(names[i % 12], 0.3 + i / 120) for i in range(0, 72, 2)], names=names)
    found = looked_at("long-names-" * 9, rows.measured(), source("kind", [f"{HOSTILE}{i % 4}" for i in range(36)]), ["kind"])
    file = Report("tiny", rows.measured().data, (found, found)).write(tmp_path / "seen")
    for width in (375, 768, 1280):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=False, offline=True
        )
        said, asked = list[str](), list[str]()
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(file.as_uri())
        assert said == []
        assert asked == [file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("tr.worst:visible").count() == 2
        assert page.locator("svg.plot:visible").count() == 2
        page.close()
