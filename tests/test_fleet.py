"""Runs over a cluster that is a function in this process: `test_ray_fleet.py` has Ray's."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from local_cluster import Dies, LocalCluster, dies_after, local_fleet
from runs import DATA as MORE
from runs import interrupt, lines, nan_rows, run_many, stop_after
from tiny import weights_of, write_backbone
from toy_suite import only, suite_in, with_rows

from graftax.adapters import LoRA
from graftax.benchmarks.runner import run_suite
from graftax.data.batches import Shape
from graftax.errors import GraftaxError
from graftax.fleet.messages import Finished, Message, Steps, Work
from graftax.fleet.shards import shards_of
from graftax.models.backbone import Backbone
from graftax.train import Interrupted

#: Two cohorts, of which one has fewer jobs than a pack has slots.
SETTINGS: dict[str, Any] = {"pack_size": 2, "val": 0.3, "each": {"b": {"method": LoRA(r=20, alpha=6.0)}}}
SETTINGS |= {"method": LoRA(r=4, alpha=6.0, dropout=0.2)}
DATA = {name: MORE[name] for name in "abde"}
NAMES = list(DATA)


@pytest.fixture(scope="module")
def whole(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine makes of the data."""
    run_many(tiny, DATA, out := tmp_path_factory.mktemp("one") / "machine", **SETTINGS)
    return out


def same(out: Path, whole: Path, names: list[str] = NAMES) -> None:
    """Adapters and lines are those of one machine, and nothing else is there."""
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "metrics.jsonl"])
    for name in names:
        assert weights_of(out / name) == weights_of(whole / name)
        assert (out / name / "graftax.json").read_bytes() == (whole / name / "graftax.json").read_bytes()
    for name in names:
        assert [line for line in lines(out) if line["adapter"] == name] == [
            line for line in lines(whole) if line["adapter"] == name
        ]
    assert {line["adapter"] for line in lines(out)} == {*names}


@dataclass(frozen=True)
class FakeJob:
    name: str
    shape: Shape
    steps: int


def cut(cohorts: Any, widths: list[int], workers: int) -> list[list[Any]]:
    """Shards of fake jobs."""
    return shards_of(cohorts, widths, workers)


def test_shards_hold_every_job_once() -> None:
    """Shards are of one cohort, fill their packs, hold jobs of like shapes, and come with the most work first."""
    drawn = random.Random(3)
    shapes = [Shape(8, rows, length) for rows, length in ((2, 16), (4, 16), (4, 64))]
    cohorts = [
        [FakeJob(f"{cohort}-{i}", drawn.choice(shapes), drawn.randint(1, 90)) for i in range(count)]
        for cohort, count in enumerate((70, 3, 21))
    ]
    widths = [4, 8, 1]
    shards = cut(cohorts, widths, workers=3)

    def work(jobs: list[Any]) -> int:
        return sum(job.steps * job.shape.rows * job.shape.length for job in jobs)

    assert sorted(job.name for shard in shards for job in shard) == sorted(job.name for own in cohorts for job in own)
    assert all(len({job.name[0] for job in shard}) == 1 for shard in shards)
    assert all(len(shard) >= min(widths[int(shard[0].name[0])], len(cohorts[int(shard[0].name[0])])) for shard in shards)
    assert [work(shard) for shard in shards] == sorted(map(work, shards), reverse=True)
    assert sum(len({job.shape for job in shard}) for shard in shards) <= len(shards) + len(cohorts) * (len(shapes) - 1)
    share = sum(map(work, cohorts)) / 12
    assert work(shards[0]) < 2 * share + max(work([job]) * 4 for own in cohorts for job in own)
    even = cut([[FakeJob(str(i), shapes[0], 5) for i in range(64)]], [1], workers=2)
    assert list(map(len, even)) == [8] * 8


@pytest.mark.parametrize("workers", [1, 5])
def test_a_fleet_makes_what_one_machine_makes(tiny: Backbone, tmp_path: Path, whole: Path, workers: int) -> None:
    """Invariant 34: whatever the number of workers; and each message may come twice."""
    cluster = LocalCluster(workers, twice=True)
    results = run_many(tiny, DATA, tmp_path / "out", fleet=local_fleet(cluster, tiny), **SETTINGS)
    same(tmp_path / "out", whole)
    assert list(results) == NAMES
    assert all(result.pack_size == 2 and result.directory == tmp_path / "out" / name for name, result in results.items())
    assert results["a"].history == [line for line in lines(whole) if line["adapter"] == "a"]
    assert cluster.stopped


@pytest.mark.parametrize(("with_node", "apart"), [(True, False), (False, True)])
def test_a_worker_is_lost(tiny: Backbone, tmp_path: Path, whole: Path, with_node: bool, apart: bool) -> None:
    """What it had sent is kept, and what it had begun goes on elsewhere: from its state, where both see a disk."""
    begun: dict[tuple[int, str], int] = {}  # at which step a worker begins with a job

    def lost(work: Work, message: Message, count: int) -> None:
        if isinstance(message, Steps):
            for name, taken in message.taken.items():
                begun.setdefault((id(work), name), taken)
        death(work, message, count)

    cluster, death = LocalCluster(1, lost, apart=apart), dies_after(1, with_node)
    run_many(tiny, DATA, tmp_path / "out", fleet=local_fleet(cluster, tiny), save_every=0.0, **SETTINGS)
    same(tmp_path / "out", whole)
    again = cluster.submitted[-1]
    first = next(work for work in cluster.submitted if work.shard == again.shard)
    assert len(first.finished) == 0
    assert len(again.finished) == 1
    at = {name: taken for (worker, name), taken in begun.items() if worker == id(again)}
    if apart:
        assert at == dict.fromkeys({"a", "d", "e"} - again.finished, 0)
    else:
        assert max(at.values()) > 0


def test_a_shard_that_kills_its_workers_is_given_up(tiny: Backbone, tmp_path: Path, whole: Path) -> None:
    """The adapter is named of which they die, and the others of its shard are trained."""
    deaths = 0

    def poison(work: Work, message: Message, count: int) -> None:
        nonlocal deaths
        if isinstance(message, Steps) and "d" in message.taken:
            deaths += 1
            raise Dies(with_node=False)

    fleet = local_fleet(LocalCluster(1, poison), tiny)
    with pytest.raises(GraftaxError, match=r"^no adapter for d: every worker died that trained them \(killed\)\.$"):
        run_many(tiny, DATA, tmp_path / "out", fleet=fleet, **SETTINGS)
    assert deaths == 3
    same(tmp_path / "out", whole, [name for name in NAMES if name != "d"])


def test_machines_may_be_taken_away_any_number_of_times(tiny: Backbone, tmp_path: Path) -> None:
    """Preempted is not failed."""
    data = {"d": DATA["d"]}
    cluster = LocalCluster(1, dies_after(0, with_node=True, attempts=4))
    run_many(tiny, data, tmp_path / "out", fleet=local_fleet(cluster, tiny))
    assert len(cluster.submitted) == 5


def test_a_loss_that_is_not_finite_ends_its_own_adapter(tiny: Backbone, tmp_path: Path) -> None:
    data = {"good": DATA["a"], "bad": nan_rows()}
    data["good"] = [{"text": row["text"], "label": float(i % 2)} for i, row in enumerate(DATA["a"])]
    with pytest.raises(GraftaxError, match=r"^no adapter for bad: the loss was not finite; .* Saved: good\.$"):
        run_many(tiny, data, tmp_path / "out", task="regress", fleet=local_fleet(LocalCluster(), tiny), pack_size=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good", "metrics.jsonl"]


def test_the_driver_is_killed_and_goes_on(tiny: Backbone, tmp_path: Path, whole: Path) -> None:
    """An adapter that has come is not trained again; another kind of run is refused in its directory."""

    def kill(work: Work, message: Message, count: int) -> None:
        if isinstance(message, Finished) and (out / message.name).exists():
            return
        if saved := [name for name in NAMES if (out / name).exists()]:
            raise KeyboardInterrupt(*saved)

    out, cluster = tmp_path / "out", LocalCluster(2, kill)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        run_many(tiny, DATA, out, fleet=local_fleet(cluster, tiny), **SETTINGS)
    assert cluster.stopped
    with pytest.raises(GraftaxError, match=r"unfinished run over a cluster; go on with --ray"):
        run_many(tiny, DATA, out, **SETTINGS)
    with pytest.raises(GraftaxError, match="unfinished run with other settings"):
        run_many(tiny, DATA, out, fleet=local_fleet(LocalCluster(), tiny), **{**SETTINGS, "val": None})
    told: list[str] = []

    def hear(work: Work, message: Message, count: int) -> None:
        if isinstance(message, Finished):
            told.append(message.name)

    results = run_many(tiny, DATA, out, fleet=local_fleet(LocalCluster(7, hear), tiny), **SETTINGS)
    same(out, whole)
    assert sorted([*told, *interrupted.value.args]) == sorted(NAMES)
    assert list(results) == NAMES


def test_a_run_of_one_machine_is_not_gone_on_with(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2, interrupt)
        with pytest.raises(Interrupted):
            run_many(tiny, DATA, tmp_path, **SETTINGS)
    with pytest.raises(GraftaxError, match=r"unfinished run that is not over a cluster; go on without --ray"):
        run_many(tiny, DATA, tmp_path, fleet=local_fleet(LocalCluster(), tiny), **SETTINGS)


def test_ctrl_c_ends_the_workers_and_keeps_the_run(tiny: Backbone, tmp_path: Path) -> None:
    class Interrupting(LocalCluster):
        def messages(self) -> list[Message]:
            os.kill(os.getpid(), signal.SIGTERM)
            return []

    cluster = Interrupting()
    with pytest.raises(Interrupted, match=r"finished adapters are in .*; run the same command again to go on"):
        run_many(tiny, DATA, tmp_path, fleet=local_fleet(cluster, tiny), **SETTINGS)
    assert cluster.stopped
    assert (tmp_path / ".run" / "run.json").is_file()


def test_another_backbone_is_refused(tiny: Backbone, tmp_path: Path) -> None:
    """Before anything is trained, by its fingerprint; and so is one that is not there."""
    other = write_backbone(tmp_path / "other", seed=8)
    fleet = local_fleet(LocalCluster(), tiny)
    with pytest.raises(GraftaxError, match=r"other is another backbone there \(fingerprint .{12}, the driver's is .{12}\)"):
        run_many(tiny, DATA, tmp_path / "out", fleet=replace(fleet, backbone=str(other)))
    with pytest.raises(GraftaxError, match="nowhere"):
        run_many(tiny, DATA, tmp_path / "out", fleet=replace(fleet, backbone=str(tmp_path / "nowhere")))
    with pytest.raises(GraftaxError, match=r"a fleet trains elsewhere"):
        run_many(tiny, DATA, tmp_path / "out", fleet=fleet, devices=1)
    with pytest.raises(GraftaxError, match=r"fleet must be machines"):
        run_many(tiny, DATA, tmp_path / "out", fleet="auto")
    assert not (tmp_path / "out" / ".run").exists()


class Shelves:
    """A shelf that remembers."""

    def __init__(self) -> None:
        self.there: list[str] = []

    def expect(self, names: Any) -> None:
        self.expected = list(names)

    def put(self, name: str, directory: Path) -> str:
        assert (directory / "adapter_model.safetensors").is_file()
        if name == "e":
            raise GraftaxError("no room for e")
        self.there.append(name)
        return f"bank/{name}"

    def later(self, out: Path) -> str:
        return f"put {out}"


def test_adapters_are_pushed_as_they_come(tiny: Backbone, tmp_path: Path) -> None:
    shelves = Shelves()
    fleet = local_fleet(LocalCluster(twice=True), tiny)
    with (
        pytest.raises(GraftaxError, match=r"^1 of 2 adapters not pushed: e\. .*: put "),
        pytest.warns(UserWarning, match="no room for e"),
    ):
        run_many(tiny, {name: DATA[name] for name in "de"}, tmp_path / "out", fleet=fleet, push=shelves)
    assert shelves.expected == ["d", "e"]
    assert shelves.there == ["d"]


@pytest.mark.slow
def test_a_benchmark_over_a_cluster(tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """Its cells are trained there, and come to what they come to here; what they cost is not this process's."""
    cluster = LocalCluster()
    suite = only(suite_in(with_rows(tmp_path), tiny_dir), "lora")
    options: dict[str, Any] = {"load": lambda name: tiny, "say": lambda line: None}
    here = run_suite(suite, tmp_path / "here", **options)
    there = run_suite(suite, tmp_path / "there", fleet_of=lambda name: local_fleet(cluster, tiny), **options)
    assert len(cluster.submitted) > 1
    assert [(record.cell, record.error) for record in there] == [(record.cell, None) for record in here]
    final = [record.cell for record in here if record.cell.stage == "final" and record.cell.method == "lora"]
    assert len(final) == suite.seeds
    for cell in final:
        assert weights_of(tmp_path / "there" / "adapters" / cell.id) == weights_of(tmp_path / "here" / "adapters" / cell.id)
    trained = [record for record in there if record.cell.method == "lora"]
    assert {record.energy_source for record in trained} == {"flops"}
    assert all(record.other_cores is None and record.seconds is not None and record.seconds > 0 for record in trained)
