"""The benchmark's runner: the rows, the search, what is measured, and that no cell is run twice."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef
from tiny import toy_rows, write_csv, write_jsonl
from toy_suite import SUITE, only, suite_in, with_rows

from graftax.__main__ import main
from graftax.adapters.adapter import Adapter
from graftax.adapters.files import load_adapter
from graftax.benchmarks import runner, trainer
from graftax.benchmarks.draws import read_task
from graftax.benchmarks.measure import judged, worst_slice
from graftax.benchmarks.peers import PeerResult, Unsupported
from graftax.benchmarks.results import Predictions, Record, append, read
from graftax.benchmarks.runner import Shard, run_suite
from graftax.benchmarks.scores import METRICS
from graftax.benchmarks.search import Setting
from graftax.benchmarks.suite import NEAREST_MEAN, MethodSpec, Suite, TaskSpec, load_suite
from graftax.data.prepared import Prepared
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.serve import Generator, Sampling
from graftax.serve.evaluation import evaluate_generation, evaluate_language
from graftax.tasks.reliability import reliability_of
from graftax.train import Interrupted, train_many
from graftax.train.job import Job


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_rows(tmp_path)


@pytest.fixture
def suite(folder: Path, tiny_dir: Path) -> Callable[..., Suite]:
    return partial(suite_in, folder, tiny_dir)


@pytest.fixture
def bench(tiny: Backbone) -> Callable[..., list[Record]]:
    def run(suite: Suite, out: Path, **options: Any) -> list[Record]:
        return run_suite(suite, out, load=lambda name: tiny, say=lambda line: None, **options)

    return run


def test_data_that_are_not_there_are_named(suite: Callable[..., Suite], folder: Path) -> None:
    with pytest.raises(GraftaxError, match=r"no suite .qiuck.; there are .*quick"):
        load_suite("qiuck")
    one = suite(data="$NOT_SET_ANYWHERE")
    with pytest.raises(GraftaxError, match=r"wants \$NOT_SET_ANYWHERE, and that variable is not set"):
        read_task(one, "toy", one.tasks["toy"])
    write_csv(folder / "test.csv", [{"text": "iron", "label": "wood"}])
    with pytest.raises(GraftaxError, match="label 'wood' is on none of the training rows of task toy"):
        read_task(suite(), "toy", one.tasks["toy"])


def test_draws_have_so_many_rows_of_each_label_and_differ_by_seed(suite: Callable[..., Suite]) -> None:
    one = suite()
    rows = read_task(one, "toy", one.tasks["toy"])
    assert len(rows.train) == 28
    assert len(rows.val) == 12
    drawn = rows.draw("search", 6, 0)
    assert sorted(drawn.labels or ()).count("fruit") == 6
    assert len(drawn) == 12
    assert drawn.fields["text"] == rows.draw("search", 6, 0).fields["text"]
    assert drawn.fields["text"] != rows.draw("search", 6, 1).fields["text"]
    assert not {*drawn.fields["text"]} & {*rows.val.fields["text"]}
    assert rows.draw("search", None, 3) is rows.train


def test_the_final_trainings_have_back_what_was_held_out_for_the_search(suite: Callable[..., Suite], folder: Path) -> None:
    every = {row["text"] for row in toy_rows(count=40)}
    one = suite()
    rows = read_task(one, "toy", one.tasks["toy"])
    assert {*rows.draw("final", None, 0).fields["text"]} == every
    assert {*rows.val.fields["text"]} | {*rows.train.fields["text"]} == every
    capped = read_task(one, "toy", dataclasses.replace(one.tasks["toy"], val_rows=3))
    assert (len(capped.val), len(capped.train), len(capped.whole)) == (3, 28, 40)  # held out, and not all of use: back as well
    share = read_task(one, "toy", dataclasses.replace(one.tasks["toy"], test=0.25))
    assert not {*share.whole.fields["text"]} & {*share.test.fields["text"]}
    write_csv(folder / "val.csv", toy_rows(count=10, seed=3))
    own_file = read_task(one, "toy", dataclasses.replace(one.tasks["toy"], val="val.csv"))
    assert own_file.whole is own_file.train  # a validation file of its own is no training data


def test_metrics_of_resamples_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    gold, said = random.integers(0, 4, 60), random.integers(0, 4, 60)
    right = (gold == said).astype(float)
    predictions = Predictions(right, np.ones(60), gold, said, np.ones(60, np.float32))
    weights = np.stack([np.ones(60), random.integers(0, 3, 60)]).astype(float)
    repeated = np.repeat(np.arange(60), weights[1].astype(int))
    for name, of in (
        ("accuracy", lambda g, s: (g == s).mean()),
        ("matthews", matthews_corrcoef),
        ("macro_f1", lambda g, s: f1_score(g, s, average="macro")),
    ):
        found = METRICS[name](predictions, weights)
        np.testing.assert_allclose(found, [of(gold, said), of(gold[repeated], said[repeated])], rtol=1e-12)
    losses = Predictions(np.array([2.0, 4.0]), np.array([4.0, 2.0]))
    np.testing.assert_allclose(METRICS["perplexity"](losses), math.e, rtol=1e-12)


def test_calibration_and_slices_by_hand() -> None:
    assert reliability_of([0.9, 0.9, 0.9, 0.9], [True, True, True, False]).error == pytest.approx(0.15)
    assert reliability_of([0.2, 1.0], [False, True]).error == pytest.approx(0.1)
    gold, lengths = np.repeat([0, 1], 15), np.tile([3, 5, 9], 10)
    right = np.where((gold == 1) & (lengths == 9), 0.0, 1.0)
    names = ("fruit", "metal")
    assert worst_slice(right, gold, lengths, names) == ("long texts", pytest.approx(0.5))
    assert worst_slice(np.where(gold == 1, 0.4, 1.0), gold, lengths, names) == ("label metal", pytest.approx(0.4))
    assert worst_slice(right[:5], gold[:5], lengths[:5], names) == (None, None)
    logits = np.log(np.array([[0.7, 0.3], [0.4, 0.6]], np.float32))
    fields = judged(logits, np.array([0, 0], np.int32), [3, 4], "accuracy", names).fields
    assert fields["value"] == 0.5
    assert fields["brier"] == pytest.approx((2 * 0.3**2 + 2 * 0.6**2) / 2, abs=1e-6)
    assert fields["metrics"]["nll"] == pytest.approx(-math.log(0.7 * 0.4) / 2, abs=1e-6)


@pytest.fixture(scope="module")
def whole(tiny: Backbone, tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    """A finished benchmark; tests leave it as it is."""
    folder = with_rows(tmp_path_factory.mktemp("whole"))
    one = suite_in(folder, tiny_dir, '[general]\ntrain = "toy.csv"\ntest = "test.csv"')
    run_suite(one, folder / "out", load=lambda name: tiny, say=lambda line: None)
    return one, folder / "out"


def test_a_suite_is_searched_trained_and_measured(whole: tuple[Suite, Path]) -> None:
    suite, out = whole
    records = read(out)
    assert {r.method for r in records} == {"probe", "lora", NEAREST_MEAN}
    for method in ("probe", "lora"):
        tried = {Setting(r.lr, r.schedule, r.epochs): r for r in records if r.method == method and r.stage == "search"}
        final = [r for r in records if r.method == method and r.stage == "final"]
        search = suite.search_of(suite.methods[method], 12)
        assert search.wanted(tried) == []
        found = search.found(tried)
        assert found is not None
        assert {(r.lr, r.schedule, r.epochs, r.converged, r.edge) for r in final} == {
            (*found.setting[:3], found.converged, found.edge)
        }
        assert [r.seed for r in final] == [0, 1]
        for record in final:
            assert record.predictions is not None
            said = Predictions.load(out / record.predictions)
            assert record.value == pytest.approx(said.top.mean())
            assert len(said.top) == 24
            assert (out / "adapters" / record.cell.id / "adapter_model.safetensors").is_file()
            assert record.rows == 12
            assert record.steps == 3 * record.epochs
            assert record.forgetting is not None
            assert record.other_cores is None or 0 <= record.other_cores <= (os.cpu_count() or 1)
            shares = {f"label {name}": said.top[said.gold == i].mean() for i, name in enumerate(("fruit", "metal"))}
            assert record.worst_slice is not None
            assert record.worst_slice <= min(shares.values()) + 1e-9
            assert record.worst_slice == pytest.approx(shares.get(record.worst_slice_name or "", record.worst_slice))
    kept = {r.cell.id for r in records if r.split == "test" and r.method != NEAREST_MEAN}
    assert {path.name for path in (out / "adapters").iterdir() if path.is_dir()} == kept
    probe = next(r for r in records if r.method == "probe" and r.split == "test")
    assert probe.forgetting == 0.0  # it changes nothing below the head
    slices = {r.worst_slice_name for r in records if r.split == "test"}
    assert slices <= {"label fruit", "label metal", "short texts", "middling texts", "long texts"}  # labels by their names
    assert slices & {"label fruit", "label metal"}


#: Of a row of 64 positions, in which four of the toy texts have room, through a layer of the tiny backbone: four products of
#: 32 x 32 and two of 32 x 48 at each position, and two by heads for each pair of positions; a multiplication and an addition.
LAYER = 2 * 64 * (4 * 32 * 32 + 2 * 32 * 48 + 2 * 64 * 32)
#: A LoRA of rank 8, to which 4 is rounded up, at query and value.
FACTORS = 2 * 64 * 2 * 2 * 32 * 8


def test_what_a_training_has_cost(whole: tuple[Suite, Path], tiny: Backbone) -> None:
    """By the products of the backbone's parts: a probe's steps go through the pooler alone, and a LoRA's at most three times
    through both layers (forward, and back to what enters and to the factors), at least once through one and half as far back.
    """
    _, out = whole
    final = [r for r in read(out) if r.split == "test" and r.method != NEAREST_MEAN]
    for record in final:
        assert record.flops is not None
        assert record.seconds is not None
        assert record.step_seconds is not None
        assert record.memory_bytes is not None
        step = record.flops / (3 * record.epochs)
        stepping = 3 * record.epochs * record.step_seconds
        if record.method == "probe":
            products = 2 * 4 * (32 * 32 + 2 * 32 * 8)  # of four texts: the pooler, and the head of eight classes there and back
            assert products < step < 1.1 * products
            read_and_written = 4 * (33 * 32 + 4 * 32 + 2 * 33 * 8)  # the pooler, what enters it, the head and its gradient
            assert read_and_written < record.memory_bytes < 1.5 * read_and_written
            assert record.parameters == record.head_parameters == 33 * 2
            assert record.seconds > stepping  # what the layers say of each text is computed before
        else:
            assert 1.5 * LAYER < step < 3 * 2 * (LAYER + FACTORS)
            assert 4 * tiny.parameters < record.memory_bytes < 4 * tiny.parameters + 40 * 4 * 64 * 64
            assert (record.parameters, record.head_parameters) == (33 * 2 + 2 * 2 * 4 * (32 + 32), 33 * 2)
            assert record.seconds == pytest.approx(stepping)
        if record.energy_source == "flops":  # else the machine has counted
            assert record.energy_joules == pytest.approx(1e-10 * record.flops)
        files = [file for file in (out / "adapters" / record.cell.id).rglob("*") if file.is_file()]
        assert record.file_bytes == sum(len(file.read_bytes()) for file in files)


def test_interference_in_a_pack_is_none(suite: Callable[..., Suite], bench: Callable[..., list[Record]], folder: Path) -> None:
    records = bench(only(suite("interference = true", doublings=0, widen=0), "lora"), folder / "out")
    assert [r.interference for r in records if r.split == "test" and r.method == "lora"] == [0.0] * 2
    assert {r.interference for r in records if r.split == "val"} == {None}
    assert not (folder / "out" / "packed").exists()


def test_nothing_is_run_twice(
    whole: tuple[Suite, Path], bench: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, out = whole
    before = (out / "results.jsonl").read_bytes()
    monkeypatch.setattr(trainer, "train_many", lambda *args, **options: pytest.fail("trained again"))
    bench(suite, out)
    assert (out / "results.jsonl").read_bytes() == before


def test_a_killed_run_goes_on_to_the_same_results(
    suite: Callable[..., Suite], bench: Callable[..., list[Record]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(suite(), folder / "whole")
    trained: list[str] = []
    calls: list[int] = []

    def stops(backbone: Backbone, data: dict, *args: Any, **options: Any) -> object:
        results = train_many(backbone, data, *args, **options)
        trained.extend(data)
        calls.append(len(data))
        if len(calls) in (1, 2):
            raise Interrupted("killed")
        return results

    def cut(home: Path, record: Record) -> None:
        append(home, record)
        if record.split == "test" and record.method == "lora":
            raise KeyboardInterrupt  # before the other seed is measured

    monkeypatch.setattr(trainer, "train_many", stops)
    for _ in range(3):
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            bench(suite(), folder / "cut")
        monkeypatch.setattr(runner, "append", cut)
    with (folder / "cut" / "results.jsonl").open("a") as file:
        file.write('{"backbone": "half a li')
    monkeypatch.setattr(runner, "append", append)
    bench(suite(), folder / "cut")
    assert len(trained) == len(set(trained))

    def told(out: Path) -> list[tuple]:
        return sorted((r.cell.id, r.split, r.value, *sorted(r.metrics.items())) for r in read(folder / out))

    assert told(folder / "cut") == told(folder / "whole")


def test_other_data_or_another_suite_are_refused(
    whole: tuple[Suite, Path], bench: Callable[..., list[Record]], folder: Path
) -> None:
    suite, out = whole
    with pytest.raises(GraftaxError, match="was begun with another suite or another form"):
        bench(dataclasses.replace(suite, epochs=3), out)
    write_csv(folder / "test.csv", toy_rows(count=24, seed=2))
    with pytest.raises(GraftaxError, match="the data of toy have changed"):
        bench(dataclasses.replace(suite, data=str(folder)), out)


def test_a_method_that_fails_is_a_row(suite: Callable[..., Suite], bench: Callable[..., list[Record]], folder: Path) -> None:
    one = suite()
    broken = dataclasses.replace(one.methods["lora"], target="no_such_layer")
    records = bench(dataclasses.replace(one, methods={"broken": broken, "probe": one.methods["probe"]}), folder / "out")
    failed = [r for r in records if r.error]
    assert [(r.method, r.split) for r in failed] == [("broken", "val")] * 2
    assert "no_such_layer" in (failed[0].error or "")
    assert [r.method for r in records if r.split == "test"] == [NEAREST_MEAN] * 2 + ["probe"] * 2


def test_language_models_are_measured_by_likelihood_and_by_what_they_write(
    suite: Callable[..., Suite], teller: Backbone, folder: Path
) -> None:
    (folder / "tale.txt").write_text("".join(f"{i} sheep jump. They are {'white' if i % 2 else 'black'}.\n" for i in range(40)))
    sums = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(30)]
    write_jsonl(folder / "sums.jsonl", sums)
    write_jsonl(folder / "facts.jsonl", [{"prompt": f"{i % 3}+1=", "completion": f"{i} and {i}"} for i in range(9)])
    tasks = {
        "tale": TaskSpec(train="tale.txt", test=0.2, val=0.2, kind="lm"),
        "sums": TaskSpec(train="sums.jsonl", kind="sft", metric="final_number", max_new_tokens=4),
        "facts": TaskSpec(train="sums.jsonl", test="facts.jsonl", kind="sft", metric="bleu", max_new_tokens=4, num_beams=2),
    }
    one = suite(tasks=tasks, methods={"lora": MethodSpec("lora", rank=2)}, sizes=("all",), seeds=1, widen=0, doublings=0)
    rows = read_task(one, "tale", tasks["tale"])
    assert "".join(part.fields["text"][0] for part in (rows.train, rows.val, rows.test)) == (folder / "tale.txt").read_text()
    assert all(part.fields["text"][0].endswith(".\n") for part in (rows.train, rows.val, rows.test))

    records = run_suite(one, folder / "out", load=lambda name: teller, say=lambda line: None)
    assert not [r.error for r in records if r.error]
    assert {r.method for r in records} == {"lora"}  # no baseline of classifiers
    assert rows.whole.fields["text"][0] == rows.train.fields["text"][0] + rows.val.fields["text"][0]
    final = {r.task: r for r in records if r.split == "test" and r.seed == 0}
    adapter = load_adapter(folder / "out" / "adapters" / final["tale"].cell.id, teller)
    expected = evaluate_language(teller, adapter, rows.test)
    assert final["tale"].value == pytest.approx(expected["perplexity"], rel=1e-6)
    assert final["tale"].metrics["token_accuracy"] == pytest.approx(expected["token_accuracy"])
    assert final["tale"].parameters

    generator = Generator(teller)
    generator.load("sums", folder / "out" / "adapters" / final["sums"].cell.id)
    asked = read_task(one, "sums", tasks["sums"]).test
    scored = evaluate_generation(
        generator,
        "sums",
        [{"prompt": p, "completion": c} for p, c in zip(asked.fields["prompt"], asked.fields["completion"], strict=True)],
        score="gsm8k",
        sampling=Sampling(max_new_tokens=4),
    )
    assert final["sums"].value == pytest.approx(scored["accuracy"])
    facts = final["facts"].predictions
    assert facts
    assert Predictions.load(folder / "out" / facts).top.shape == (3, 5)  # a prompt of three rows is one example


def test_peers_train_the_final_cells_and_lack_what_they_lack(
    suite: Callable[..., Suite], bench: Callable[..., list[Record]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answers(library: str, backbone: Backbone, job: Job, test: Prepared) -> PeerResult:
        if job.adapter.recipe["method"] == "probe":
            raise Unsupported("no probe there")
        asked.append(job.name)
        if job.recipe.seed:
            raise GraftaxError("it crashed")
        logits = np.eye(2, dtype=np.float32)[np.array(test.labels)] * 4.0
        return PeerResult(logits, (1.0,), (0.5, 0.1, 0.3), 7.0, 9, {"torch": "2"})

    monkeypatch.setattr(runner, "run_peer", answers)
    one = suite(widen=0, doublings=0)
    for _ in range(2):
        records = [r for r in bench(one, folder / "out", peers=["peft"]) if r.library == "peft"]
    assert len(asked) == len(records) == 2
    right, crashed = records
    ours = next(r for r in read(folder / "out") if r.method == "lora" and r.split == "test" and r.seed == 0)
    assert right.cell == dataclasses.replace(ours.cell, library="peft")
    assert (right.value, right.step_seconds, right.process_seconds) == (1.0, 0.3, 7.0)
    assert right.seconds == pytest.approx(0.9)
    assert right.predictions != ours.predictions
    assert crashed.error == "it crashed"


def test_shards_together_are_the_whole(suite: Callable[..., Suite], bench: Callable[..., list[Record]], folder: Path) -> None:
    one = only(suite(sizes=(2, 6), widen=0, doublings=0), "probe")
    bench(one, folder / "whole")
    for index in range(2):
        bench(one, folder / "parts", shard=Shard(index, 2))
    parts = read(folder / "parts")
    assert {(r.cell, r.split, r.value) for r in parts} == {(r.cell, r.split, r.value) for r in read(folder / "whole")}
    assert {path.name for path in (folder / "parts").iterdir()} == {"shard-1-of-2", "shard-2-of-2"}
    assert all((folder / "parts" / r.predictions).is_file() for r in parts if r.predictions)


def test_from_the_command_line_with_rows_of_ones_own(
    folder: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def graftax(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["graftax", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    write_csv(folder / "mine.csv", toy_rows(count=60))
    (folder / "suite.toml").write_text(SUITE.format(backbone="nowhere", data="nowhere", more=""))
    mine = ["--suite", folder / "suite.toml", "--data", folder / "mine.csv", "--backbone", tiny_dir, "--out", folder / "out"]
    code, out, errors = graftax(*mine, "--seeds", "1", "--max-length", "24", "--method", "probe")
    assert code == 0, errors
    assert (folder / "out" / "report.html").is_file()
    assert "probe" in out
    assert {(r.task, r.method) for r in read(folder / "out")} == {("mine", "probe"), ("mine", NEAREST_MEAN)}
    code, out, errors = graftax("compare", folder / "out", folder / "out")
    assert code == 0, errors
    assert "mine" in out
    code, _, errors = graftax(*mine, "--method", "lroa")
    assert code == 2
    assert "no method lroa in suite mine; it has probe, lora" in errors


def test_a_task_named_general_is_none_of_the_general_tasks_rows(
    suite: Callable[..., Suite], bench: Callable[..., list[Record]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is forgotten is looked for on the rows of [general], which nobody trains on."""
    asked: list[Prepared] = []

    def score(backbone: Backbone, adapter: Adapter | None, train: Prepared, test: Prepared) -> float:
        asked.append(test)
        return 0.0

    monkeypatch.setattr(runner, "general_score", score)
    write_csv(folder / "other.csv", toy_rows(count=10, seed=4))
    one = only(suite(widen=0, doublings=0, seeds=1), "probe")
    general = dataclasses.replace(one.tasks["toy"], train="toy.csv", test="other.csv")
    bench(dataclasses.replace(one, tasks={"general": one.tasks["toy"]}, general=general), folder / "out")
    assert [len(rows) for rows in asked] == [10, 10]  # of the backbone alone, and with the adapter
