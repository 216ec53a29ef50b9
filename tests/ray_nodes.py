"""A Ray cluster of two machines that are this one, on loopback.

    python tests/ray_nodes.py FOLDER        prints its address, and does what it is told: add, kill, or the end of the input

It is a process of its own, for Ray forks, and a process that has JAX's threads must not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

HEAD, OTHER = "127.0.0.2", "127.0.0.3"  # Ray takes 127.0.0.1 for the machine's other address


class Nodes:
    """The head, on which tests are the driver, and another machine, which may die."""

    def __init__(self, folder: str):
        words, pipe = [sys.executable, __file__, folder], subprocess.PIPE
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address, "Ray does not start"
        self.has_other = False

    def add_other(self) -> None:
        """Let the other machine join, unless it is there."""
        if not self.has_other:
            self._do("add")
            self.has_other = True

    def kill_other(self) -> None:
        """Its processes die at once."""
        self._do("kill")
        self.has_other = False

    def _do(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def shutdown(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def one_node() -> Iterator[Nodes]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie there, whose paths must be short
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def two_nodes() -> Iterator[Nodes]:
    with one_node() as nodes:
        nodes.add_other()
        yield nodes


def main() -> None:
    said, sys.stdout = sys.stdout, sys.stderr  # Ray prints, too
    os.environ["RAY_TMPDIR"] = sys.argv[1]  # it leaves the cluster's address in a folder `ray` there, which must be there
    os.makedirs(os.path.join(sys.argv[1], "ray"), exist_ok=True)
    from ray.cluster_utils import Cluster

    room = {"num_cpus": 1, "object_store_memory": 80_000_000}
    head = {**room, "node_ip_address": HEAD, "include_dashboard": False, "temp_dir": sys.argv[1]}
    cluster, other = Cluster(initialize_head=True, head_node_args=head), None
    print(cluster.address, file=said, flush=True)
    for line in sys.stdin:
        if line == "add\n":
            other = cluster.add_node(node_ip_address=OTHER, **room)
        else:
            cluster.remove_node(other, allow_graceful=False)
        print("done", file=said, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
