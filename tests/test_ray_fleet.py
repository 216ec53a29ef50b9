"""`graftax train --ray` on a Ray cluster of two nodes, of which one dies."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MINILM, SHARED, needs_assets
from tiny import command_line, toy_rows, weights_of, write_csv
from toy_suite import only, suite_in, with_rows

from graftax.benchmarks.runner import run_suite
from graftax.errors import GraftaxError
from graftax.fleet import ray_cluster, ray_fleet
from graftax.fleet.messages import EpochEnds, Finished, Message, ShardBegins, ShardEnds, ShardLost
from graftax.models.backbone import Backbone
from graftax.train import Recipe, train_many

pytest.importorskip("ray")
if not sys.platform.startswith("linux"):
    pytest.skip("no other system has all of 127.0.0.0/8 as loopback", allow_module_level=True)

import ray
from ray_nodes import OTHER, Nodes, two_nodes

ADAPTERS, INTENTS, ROWS = 64, 2, 4  # of the real ones: rows of each intent
SETTINGS: dict[str, Any] = {"recipe": Recipe(epochs=2, lr=5e-3, batch_size=8, max_length=16), "val": 0.25}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with two_nodes() as found:
        yield found


def test_a_node_dies(
    nodes: Nodes,
    tiny: Backbone,
    tiny_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In the middle of a shard, of which one adapter has come: that one is kept, and all are those of one machine."""
    nodes.add_other()
    data = {f"t{i}": toy_rows(count=12 + i % 5, seed=i) for i in range(32)}
    train_many(tiny, data, tmp_path / "one", progress=False, **SETTINGS)
    monkeypatch.setattr(ray_cluster, "_ROOM", 1)  # so that a worker waits until what it told is heard
    shards: dict[int, str] = {}
    heard: list[Message] = []

    def watched() -> list[Message]:
        told = messages()
        heard.extend(told)
        for message in told:
            if isinstance(message, ShardBegins):
                shards[message.shard] = message.node
            if isinstance(message, Finished) and OTHER in shards.values() and not dead:
                there = {shard for shard, node in shards.items() if node == OTHER}
                if any(message.name in run.shards[shard].names() for shard in there):
                    nodes.kill_other()
                    time.sleep(2)  # the worker notices soon; meanwhile nobody takes what it would tell
                    dead.append(message.name)
        return told

    dead: list[str] = []
    capfd.readouterr()
    with ray_fleet(nodes.address, tiny_dir) as fleet:
        messages = fleet.cluster.messages
        monkeypatch.setattr(fleet.cluster, "messages", watched)
        opened = type(fleet).open_run

        def kept(*arguments: Any, **more: Any) -> Any:
            nonlocal run
            run = opened(*arguments, **more)
            return run

        run: Any = None
        monkeypatch.setattr(type(fleet), "open_run", kept)
        results = train_many(tiny, data, tmp_path / "many", fleet=fleet, **SETTINGS)
    # the next shard may be sent there, too, before Ray knows
    assert [message for message in heard if isinstance(message, ShardLost) and message.with_node]
    assert [message.name for message in heard if isinstance(message, Finished)].count(dead[0]) == 1
    assert list(results) == list(data)
    for name in data:
        assert weights_of(tmp_path / "many" / name) == weights_of(tmp_path / "one" / name)
        assert (
            results[name].history
            == [message for message in heard if isinstance(message, EpochEnds) and message.name == name][-1].history
        )
    said = capfd.readouterr()
    assert said.out == ""
    assert f"{OTHER}: the machine is gone; " in said.err


def test_a_worker_that_waits_keeps_its_core(nodes: Nodes) -> None:
    """Until what it tells is taken: Ray begins no other worker there, which would compute beside it when it goes on."""
    with ray_cluster.connected(nodes.address):
        mailbox = ray.remote(ray_cluster.Mailbox).options(num_cpus=0)
        began, told = mailbox.remote(100), mailbox.remote(1)

        def tells(began: Any, told: Any, message: Message) -> None:
            began.put.remote(b"")
            ray_cluster._tell(told, message)

        cores = int(ray.cluster_resources()["CPU"])
        ray.get(told.put.remote(b""))  # now there is room for no more
        tasks = [ray.remote(num_cpus=1)(tells).remote(began, told, ShardEnds(0)) for _ in range(cores + 1)]
        workers = 0
        while workers < cores:
            workers += len(ray.get(began.take.remote(60.0)))
        assert (workers, ray.get(began.take.remote(4.0))) == (cores, [])
        while tasks:
            ray.get(told.take.remote(1.0))
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=0)


@pytest.mark.slow
def test_halving_over_two_machines(nodes: Nodes, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """Each rung is a run over the cluster, and comes to what it comes to on one machine, to the last bit."""
    nodes.add_other()
    halving: dict[str, Any] = {"search": "halving", "eta": 2, "seeds": 1}
    suite = only(suite_in(with_rows(tmp_path), tiny_dir, **halving), "probe")
    options: dict[str, Any] = {"load": lambda name: tiny, "say": lambda line: None}
    here = run_suite(suite, tmp_path / "here", **options)
    with ray_fleet(nodes.address, tiny_dir) as fleet:
        there = run_suite(suite, tmp_path / "there", fleet_of=lambda name: fleet, **options)
    searched = [record.epochs for record in there if record.stage == "search"]
    assert searched == [2] * 4 + [4] * 2
    assert [(record.cell, record.metrics) for record in there] == [(record.cell, record.metrics) for record in here]
    (final,) = [record.cell for record in there if record.stage == "final" and record.method == "probe"]
    assert weights_of(tmp_path / "there" / "adapters" / final.id) == weights_of(tmp_path / "here" / "adapters" / final.id)


def test_a_worker_of_another_version(nodes: Nodes, tiny: Backbone, tiny_dir: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("graftax.train.begun.versions", lambda: {"graftax": "0.0.9", "JAX": "0.1"})
    with (
        ray_fleet(nodes.address, tiny_dir) as fleet,
        pytest.raises(GraftaxError, match=r"worker on 127\.0\.0\.\d: graftax is version .* there, and the driver has 0\.0\.9"),
    ):
        train_many(tiny, {"a": toy_rows()}, tmp_path / "out", fleet=fleet, **SETTINGS)
    assert not (tmp_path / "out" / "a").exists()


def test_no_cluster(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, soon: nothing listens there, somebody else does, it is no address, or Ray is not installed."""
    monkeypatch.setattr(ray_cluster, "PATIENCE", 2.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.4", 0))
        port = taken.getsockname()[1]
        for address, said in {
            f"127.0.0.4:{port}": rf"--ray 127\.0\.0\.4:{port}: nothing answers at 127\.0\.0\.4:{port}",
            "somewhere": "--ray 'somewhere' is no address: give auto, or HOST:PORT",
            "tcp://127.0.0.4:80": "is no address",
            "127.0.0.4:99999": "is no address",
        }.items():
            with pytest.raises(GraftaxError, match=said), ray_fleet(address, tiny_dir):
                pass
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        patch.delitem(sys.modules, "graftax.fleet.ray_cluster")
        with pytest.raises(GraftaxError, match=r"pip install 'graftax\[ray\]'"), ray_fleet("auto", tiny_dir):
            pass


def test_an_address_is_not_passed_over(nodes: Nodes, tiny_dir: Path) -> None:
    """A process is connected to one cluster."""
    with ray_fleet(nodes.address, tiny_dir), ray_fleet(nodes.address, tiny_dir):
        said = rf"--ray 127\.0\.0\.4:1: this process is connected to the cluster at {nodes.address}"
        with pytest.raises(GraftaxError, match=said), ray_fleet("127.0.0.4:1", tiny_dir):
            pass


def intents(folder: Path) -> list[Path]:
    """CLINC150 cut into many tasks of two intents, with a few rows of each."""
    by_intent: dict[str, list[dict[str, Any]]] = {}
    with (SHARED / "data" / "clinc150" / "train.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_intent.setdefault(row["label"], []).append(row)
    names = sorted(by_intent.keys() - {"oos"})
    return [
        write_csv(folder / f"task{i}.csv", [row for name in names[INTENTS * i :][:INTENTS] for row in by_intent[name][:ROWS]])
        for i in range(ADAPTERS)
    ]


@needs_assets
def test_sixty_four_real_adapters(nodes: Nodes, tmp_path: Path) -> None:
    """Invariant 34: on the command line, while a node dies: the bytes that one machine makes without a cluster."""
    nodes.add_other()
    files = intents(tmp_path / "data")
    options = ("train", "-b", MINILM, "--epochs", 1, "--batch-size", 4, "--max-length", 16, "--out")
    subprocess.run(command_line(*options, tmp_path / "one", "-d", *files), check=True, capture_output=True)
    words = command_line(*options, tmp_path / "many", "--ray", nodes.address, "-d", *files)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if f"{OTHER}: trains" in line and nodes.has_other:
                nodes.kill_other()
        printed = process.stdout.read()
    assert process.returncode == 0, said
    assert any(f"{OTHER}: the machine is gone" in line for line in said), said
    assert [line.split()[0] for line in printed.splitlines()] == [str(tmp_path / "many" / file.stem) for file in files]
    assert sorted(os.listdir(tmp_path / "many")) == sorted([*(file.stem for file in files), "metrics.jsonl"])
    for file in files:
        for one in (tmp_path / "one" / file.stem).iterdir():
            assert one.read_bytes() == (tmp_path / "many" / file.stem / one.name).read_bytes(), one
