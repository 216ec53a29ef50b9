"""`graftax serve --ray`: two replicas on a cluster of one machine, as applications ask them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
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
