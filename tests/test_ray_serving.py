"""`graftax serve --ray`: two replicas on a cluster of one machine, as applications ask them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from certificates import self_signed
from conftest import Graftax
from http_servers import served, speaker, until
from openai import OpenAI
from tiny import command_line

from graftax import Generator, Sampling, save_adapter
from graftax.models.backbone import Backbone

pytest.importorskip("ray.serve")
if not sys.platform.startswith("linux"):
    pytest.skip("no other system has all of 127.0.0.0/8 as loopback", allow_module_level=True)

from ray_nodes import Nodes, one_node

from graftax.cli.ray_service import application
from graftax.errors import GraftaxError
from graftax.fleet import ray_serving

NAMES = ("sea", "hill", "town")
PROMPT, COUNT = "the boat", 8


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with one_node() as found:
        yield found


def free_port() -> int:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


def replicas(nodes: Nodes) -> list[int]:
    """The processes of the replicas on a cluster: children of its raylet."""
    found = []
    for there in Path("/proc").glob("[0-9]*"):
        try:
            if b"ServeReplica:graftax:Replica" in (there / "cmdline").read_bytes():
                parent = (there / "stat").read_text().rpartition(")")[2].split()[1]
                if nodes.address.encode() in Path("/proc", parent, "cmdline").read_bytes():
                    found.append(int(there.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_replicas_answer_as_one_server(
    nodes: Nodes, teller: Backbone, teller_dir: Path, tmp_path: Path, graftax: Graftax
) -> None:
    """The texts are those of a generator; an adapter is read by one replica; and one that dies is not missed."""
    adapters = {name: save_adapter(speaker(teller, seed), tmp_path / name, teller) for seed, name in enumerate(NAMES, 1)}
    local, expected = Generator(teller), {}
    for name, directory in adapters.items():
        local.load(name, directory)
        expected[name] = local.generate([PROMPT], name, Sampling(max_new_tokens=COUNT))[0].text
    assert len({*expected.values()}) == len(NAMES)
    port = free_port()
    command = command_line("serve", "-b", teller_dir, "--ray", nodes.address, "--replicas", 2, "--replica-cpus", 0.25)
    command += ["--no-warm-up", "--port", str(port), *(f"--adapter={name}={directory}" for name, directory in adapters.items())]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first, process.communicate(timeout=60)[1]
            assert first == f"graftax: backbone at {url}/v1 on every machine of the cluster, 2 replicas\n"
            client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=300, max_retries=0)

            def said(name: str) -> str:
                made = client.completions.create(model=name, prompt=PROMPT, max_tokens=COUNT, temperature=0)
                return made.choices[0].text

            assert {name: said(name) for name in (*NAMES, *NAMES, *NAMES)} == expected
            pieces = client.completions.create(model="sea", prompt=PROMPT, max_tokens=COUNT, temperature=0, stream=True)
            assert "".join(piece.choices[0].text for piece in pieces) == expected["sea"]
            # no adapter has a slot in both, and both have some
            metrics = httpx2.get(f"{url}/metrics", timeout=60).text
            written = re.findall(r'adapter_writes_total\{replica="(\w+)",model_name="backbone"\} (\d+)', metrics)
            assert sorted(int(count) for _, count in written) == [1, 2]
            assert httpx2.get(f"{url}/v1/nothing", timeout=60).status_code == 404

            old = replicas(nodes)
            assert len(old) == 2
            with ThreadPoolExecutor(3) as threads:
                asked = threads.map(said, NAMES * 8)
                os.kill(old[0], signal.SIGKILL)
                assert [*asked] == [expected[name] for name in NAMES * 8]
            until(lambda: len({*replicas(nodes)} - {*old}) == 1)  # another has begun
            second = graftax("serve", "-b", teller_dir, "--ray", nodes.address, "--port", port)
            assert (second.code, "is served on that cluster already" in second.err) == (2, True), second.err
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=300) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0
    until(lambda: not replicas(nodes))
    with pytest.raises(ConnectionRefusedError):  # the proxy is gone as well, so that the next may listen elsewhere
        socket.create_connection(("127.0.0.1", port)).close()


def test_an_address_answers_as_it_was_asked_to(teller: Backbone, tmp_path: Path) -> None:
    """With that certificate and no other, or without."""
    folders = [tmp_path / name for name in ("own", "other")]
    for folder in folders:
        folder.mkdir()
    own, other = map(self_signed, folders)
    for shown in (own, None):
        with served(teller, certificate=shown) as server:
            port = int(server.url.rpartition(":")[2])
            assert [ray_serving._answers("127.0.0.1", port, one) for one in (own, other, None)] == [
                shown is own,
                False,
                shown is None,
            ]
    assert not ray_serving._answers("127.0.0.1", port, None)


ARGS: dict[str, Any] = {"backbone": "base", "replicas": 1, "replica_gpus": 0}


def test_what_ray_serve_is_told_is_what_the_command_would_say(tmp_path: Path) -> None:
    """All that is said in a file comes to the server, values of `serve run`, which are texts, as well."""
    key = tmp_path / "keys"
    key.write_text(f"{'0' * 64} admin\n")
    more = {"lanes": 4, "slots": 6, "max-queue": "9", "adapter": ["a=x", "b=y"], "api_key_file": str(key), "warm_up": "false"}
    front = application({"backbone": "base", "replicas": "2-8", "replica_cpus": "3.5", "replica_gpus": 1} | more)
    replica, base, limits = front._bound_deployment.init_args
    make, keys, origins = replica._bound_deployment.init_args
    assert (base, limits.max_queue, len(keys), origins) == ("base", 9, 1, ())
    assert (make.__self__.lanes, make.__self__.slots, make.__self__.warm_up) == (4, 6, False)
    assert [name for name, _ in make.__self__.adapters] == ["a", "b"]
    deployment = replica._bound_deployment
    assert (deployment.ray_actor_options["num_cpus"], deployment.ray_actor_options["num_gpus"]) == (3.5, 1)
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 8, 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lanez": 3}, "lanez is no argument of the application; there are backbone, adapter, hub, lanes"),
        ({"port": 8000}, r"port is no argument of the application: it is Ray Serve's own \(http_options\)"),
        ({"training_share": 0.5}, "training_share is no argument of the application: it is for a server of one process"),
        ({"training": "t"}, "training is no argument of the application: it is for a server of one process"),
        ({"lanes": "many"}, "--lanes must be a whole number, got 'many'"),
        ({"lanes": True}, "lanes must be a text or a number, got True"),
        ({"lanes": [1, 2]}, r"lanes must be a text or a number, got \[1, 2\]"),
        ({"adapter": [{}]}, r"adapter must be a text or a number or a list of these, got \[\{\}\]"),
        ({"warm_up": 1}, "warm_up must be true or false, got 1"),
        ({"replicas": "8-1"}, "--replicas '8-1': give a number"),
        ({"replica_gpus": 2}, "a replica uses one GPU, or 0 where it computes on CPUs"),
        (
            {"tensor_parallel_size": 2, "replica_gpus": 1},
            "--tensor-parallel-size 2 wants --replica-gpus 2, or 0 where it computes on CPUs",
        ),
        ({"api_key_file": "/nowhere/keys"}, "/nowhere/keys"),
    ],
)
def test_what_the_application_refuses(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GraftaxError, match=said):
        application(ARGS | changes)


def test_what_the_application_needs() -> None:
    with pytest.raises(GraftaxError, match="replica_gpus is missing: 1, or 0"):
        application({"backbone": "base"})
    with pytest.raises(GraftaxError, match="Missing option '--backbone'"):
        application({"replica_gpus": 0})


@pytest.mark.slow
def test_ray_serve_begins_it_itself(nodes: Nodes, teller: Backbone, teller_dir: Path, tmp_path: Path) -> None:
    """Of a file, by Ray Serve's own command; an adapter answers there as it does here."""
    sea, port = save_adapter(speaker(teller, 1), tmp_path / "sea", teller), free_port()
    args = ARGS | {"backbone": str(teller_dir), "adapter": [f"sea={sea}"], "replica_cpus": 0.25, "warm_up": False}
    told = {"name": "graftax", "route_prefix": "/", "import_path": "graftax.cli.ray_service:application", "args": args}
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({"http_options": {"port": port}, "applications": [told]}))
    words = [str(Path(sys.executable).with_name("serve")), "run", "--address", nodes.address, str(file)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/ready"))
            client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=300, max_retries=0)
            made = client.completions.create(model="sea", prompt=PROMPT, max_tokens=COUNT, temperature=0)
            local = Generator(teller)
            local.load("sea", sea)
            assert made.choices[0].text == local.generate([PROMPT], "sea", Sampling(max_new_tokens=COUNT))[0].text
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(300)


def answers(url: str) -> bool:
    """Whether somebody does, and has nothing to complain of; asked once a second."""
    time.sleep(1.0)
    try:
        return httpx2.get(url, timeout=60).status_code == 200
    except httpx2.TransportError:
        return False


def test_a_replica_that_cannot_begin_says_why(nodes: Nodes, tmp_path: Path, graftax: Graftax) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = graftax("serve", "-b", tmp_path, "--ray", nodes.address, "--replica-cpus", 0.25, "--port", free_port())
    assert done.code == 2
    assert done.err.startswith("graftax: no replica begins: ")
    assert "model_type" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: nothing answers at"),
        (
            ["--ray", "auto", "--replicas", "8-1"],
            "--replicas '8-1': give a number, as 4, or a smaller and a larger one, as 1-8.",
        ),
        (["--ray", "auto", "--port", "0"], "--port 0 is for a server of one process, and not for replicas (--ray)."),
        (["--ray", "auto", "--training", "t"], "--training is for a server of one process, and not for replicas (--ray)."),
        (["--replicas", "2"], "--replicas is for a Ray cluster; name it with --ray."),
    ],
)
def test_what_it_refuses(options: list[str], said: str, teller_dir: Path, graftax: Graftax) -> None:
    done = graftax("serve", "-b", teller_dir, *options)
    assert (done.code, done.err.startswith(f"graftax: {said}")) == (2, True), done.err
