"""A benchmark's directory: what is written there, and what is read of it after crashes, by other versions, among strangers."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import classified, write_results
from refusals import refused
from toy_suite import suite_in, with_rows

from graftax.benchmarks import results
from graftax.benchmarks.analysis import analyse
from graftax.benchmarks.results import Cell, Predictions, Record, append, read
from graftax.benchmarks.runner import run_suite
from graftax.benchmarks.search import Setting
from graftax.benchmarks.widening import Widening
from graftax.errors import GraftaxError

NAN, INFINITY = float("nan"), float("inf")


def records_of(count: int) -> list[Record]:
    known: dict[str, Any] = {"value": 0.5, "metrics": {"accuracy": 0.5, "nll": 0.7}, "versions": {"jax": "1"}, "steps": 3}
    return [Record("b", "t", "m", 4, 1e-3, "linear", 2, seed, **known) for seed in range(count)]


def in_standard_json(line: str) -> Any:
    """As readers do that know no NaN."""
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


# -- results.jsonl ------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    (record,) = records_of(1)
    append(tmp_path, record)
    assert read(tmp_path) == [record]
    assert record.cell == Cell("b", "t", "m", 4, 1e-3, "linear", 2, 0)


def test_every_line_is_json_and_says_what_the_process_knew(tmp_path: Path) -> None:
    """What is no number is null, for the process that writes it as for the one that goes on."""
    (plain,) = records_of(1)
    odd: dict[str, Any] = {"value": INFINITY, "ece": NAN, "metrics": {"perplexity": 1e300, "nll": NAN, "accuracy": 0.5}}
    record = dataclasses.replace(plain, **odd)
    append(tmp_path, record)
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    assert in_standard_json(line)["metrics"] == {"perplexity": None, "nll": None, "accuracy": 0.5}
    assert read(tmp_path) == [record]
    assert (record.value, record.ece) == (None, None)
    assert not results.came_through(record)


def test_lines_of_older_versions_are_read(tmp_path: Path) -> None:
    """They wrote NaN, and knew fewer fields."""
    (plain,) = records_of(1)
    fields = dataclasses.asdict(plain) | {"ece": NAN, "brier": INFINITY}
    del fields["other_cores"], fields["edge"]
    (tmp_path / "results.jsonl").write_text(json.dumps(fields) + "\n")
    assert read(tmp_path) == [plain]


def test_a_loss_that_is_no_number_is_the_worst(tmp_path: Path) -> None:
    """A search goes on from the file as it would have gone on in the process."""
    search = Widening((1e-3, 1e-2), ("linear",), 2, widen=0, doublings=2)
    losses = {2: 0.7, 4: NAN}  # by epochs: the longer run brought nothing
    tried: dict[Setting, Record] = {}
    while wanted := search.wanted(tried):
        for lr, schedule, epochs, _ in wanted:
            metrics = {"nll": losses[epochs] if lr == 1e-2 else 0.9}
            value = 0.9 if lr == 1e-2 else 0.5
            record = Record("b", "t", "m", None, lr, schedule, epochs, 0, stage="search", value=value, metric="accuracy")
            append(tmp_path, dataclasses.replace(record, metrics=metrics))
            tried[Setting(lr, schedule, epochs)] = dataclasses.replace(record, metrics=metrics)
    found = search.found(tried)
    assert found is not None
    assert (found.setting.epochs, found.converged) == (2, True)
    again = {Setting(r.lr, r.schedule, r.epochs): r for r in read(tmp_path)}
    assert (search.wanted(again), search.found(again)) == ([], found)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"surprise": 1}', "line 2 is no result of this version of graftax: no such key: surprise"),
        (b"{}", "line 2 is no result of this version of graftax: backbone, task, method, size, lr, .*missing"),
        (b"[1]", "line 2 is no result of a benchmark"),
        (b"\xff", "line 2 is no UTF-8 text"),
        (b"", "line 2: not valid JSON"),
        (b'{"backbone": "half a li', "line 2: not valid JSON"),
    ],
)
def test_foreign_lines_are_named(tmp_path: Path, line: bytes, said: str) -> None:
    first, last = records_of(2)
    append(tmp_path, first)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(line + b"\n")
    append(tmp_path, last)
    with pytest.raises(GraftaxError, match=said):
        read(tmp_path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kept=st.integers(0, 2000), torn=st.binary(max_size=20).filter(lambda rest: b"\n" not in rest))
def test_a_crash_costs_the_line_that_was_being_written(
    tmp_path_factory: pytest.TempPathFactory, kept: int, torn: bytes
) -> None:
    """Whatever of it, or of the disk's rubbish, is there; the next record begins a line of its own."""
    folder, every = tmp_path_factory.mktemp("torn"), records_of(3)
    for record in every[:2]:
        append(folder, record)
    file = folder / "results.jsonl"
    whole = file.read_bytes()
    cut = whole[: kept % (len(whole) + 1)]
    file.write_bytes(cut if cut.endswith(b"\n") or not cut else cut + torn)
    there = every[: cut.count(b"\n")]
    assert read(folder) == there
    append(folder, every[2])
    assert read(folder) == [*there, every[2]]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(key=st.sampled_from([f.name for f in dataclasses.fields(Record)]), value=ANYTHING)
def test_any_value_of_any_field_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    """Records that are read can be written, and are the same when they are read again."""
    folder = tmp_path_factory.mktemp("field")
    fields = dataclasses.asdict(records_of(1)[0]) | {key: value}
    (folder / "results.jsonl").write_text(json.dumps(fields) + "\n")
    found: list[Record] = []
    line = refused(lambda: found.extend(read(folder)))
    if line is not None:
        assert line.startswith(f"{folder / 'results.jsonl'}: line 1")
        return
    (folder / "results.jsonl").unlink()
    append(folder, found[0])
    in_standard_json((folder / "results.jsonl").read_text())
    assert read(folder) == found
    refused(lambda: analyse(folder))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"suite": "s", "digest": 3, "data": {}, "began": ""}', '{"suite": "s"}'])
def test_a_damaged_run_file_is_refused(tmp_path: Path, content: str) -> None:
    suite = suite_in(with_rows(tmp_path), Path("tiny"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(content)
    line = refused(lambda: run_suite(suite, tmp_path / "out", load=lambda name: pytest.fail("it was run")))
    assert line is not None
    assert line.startswith(str(tmp_path / "out" / "run.json"))


# -- predictions --------------------------------------------------------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from graftax.benchmarks.results import Predictions

os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
Predictions(np.ones(3), np.ones(3)).save(Path(sys.argv[1]))
"""


def test_drafts_of_killed_processes_are_swept(tmp_path: Path) -> None:
    """Of the predictions as of all that is written: the file is there whole or not at all, and nothing else is."""
    file, found = tmp_path / "predictions" / "cell.npz", classified(np.arange(5) < 3)
    done = subprocess.run([sys.executable, "-c", KILLED, file], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done
    assert not file.exists()
    assert [*file.parent.iterdir()]  # the draft
    found.save(file)
    assert [*file.parent.iterdir()] == [file]


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    for found in (
        classified(np.arange(5) < 3),
        Predictions(np.ones((4, 5)), np.ones((4, 5))),
        Predictions(np.ones(1), np.ones(1)),
    ):
        found.save(tmp_path / "cell.npz")
        assert_same(Predictions.load(tmp_path / "cell.npz"), found)


def assert_same(found: Predictions, wanted: Predictions) -> None:
    for name, array in vars(wanted).items():
        if array is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), array)
            assert getattr(found, name).dtype == array.dtype


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_predictions_are_the_same_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file, wanted = tmp_path_factory.getbasetemp() / "damaged.npz", classified(np.arange(5) < 3)
    wanted.save(file)
    content = bytearray(file.read_bytes())
    begin = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[begin:] = data.draw(st.binary(max_size=8))
    else:
        content[begin] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    found: list[Predictions] = []
    line = refused(lambda: found.append(Predictions.load(file)))
    if line is None:  # the archive's directory has a checksum of each array, and none of itself: it may have lost some
        lost = {name: None for name in ("gold", "said", "confidence") if getattr(found[0], name) is None}
        assert_same(found[0], dataclasses.replace(wanted, **lost))
    else:
        assert line.startswith(f"{file}: no predictions of a benchmark")


ONES, CLASSES = np.ones(4), np.zeros(4, np.int32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"top": ONES},
        {"top": ONES, "bottom": ONES[:3]},
        {"top": ONES[:0], "bottom": ONES[:0]},
        {"top": np.ones((4, 3)), "bottom": np.ones((4, 3))},
        {"top": np.float64(1), "bottom": np.float64(1)},
        {"top": ONES * NAN, "bottom": ONES},
        {"top": ONES, "bottom": ONES, "gold": CLASSES - 1, "said": CLASSES},
        {"top": ONES, "bottom": ONES, "gold": CLASSES + 2**30, "said": CLASSES},
        {"top": ONES, "bottom": ONES, "gold": CLASSES, "said": CLASSES[:2]},
        {"top": ONES, "bottom": ONES, "gold": ONES, "said": ONES},
        {"top": ONES, "bottom": ONES, "charm": ONES},
        {"top": np.array(["a"] * 4), "bottom": ONES},
    ],
)
def test_arrays_that_are_no_predictions_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "cell.npz", **arrays)
    with pytest.raises(GraftaxError, match="no predictions of a benchmark"):
        Predictions.load(tmp_path / "cell.npz")


def test_a_report_names_damaged_predictions_and_goes_on_without_those_that_are_missing(tmp_path: Path) -> None:
    write_results(tmp_path, {"sst2": "accuracy"}, {"lora": 1.0, "ia3": 1.0}, seeds=2, examples=40)
    file, *_ = sorted((tmp_path / "predictions").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    line = refused(lambda: analyse(tmp_path))
    assert line is not None
    assert line.startswith(str(file))
    file.unlink()
    assert {*analyse(tmp_path).methods} == {"ia3"}
    record = read(tmp_path)[0]
    for name in ("\0", "x" * 5000, "predictions"):
        append(tmp_path, dataclasses.replace(record, predictions=name))
        refused(lambda: analyse(tmp_path))
