"""Two workers of a Ray cluster on this machine, against two runs of one adapter after another that know nothing of each other.

    python benchmarks/speed/two_workers.py [--tasks 24] [--repeats 3]

Both sides train the same tasks of CLINC150 on MiniLM, each worker and each run with one thread, on two cores. What is
compared is how many adapters are saved in a second by both together, in the middle half of a side's adapters: then both
workers have begun, and neither has ended. So what is left out is how long processes take to start; what is counted is how
long adapters take to come to the driver, and what the driver itself takes of the cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import MINILM, ROOT, clinc
from ray.cluster_utils import Cluster

from graftax.benchmarks.quiet import watched

LABELS, ROWS = 5, 200
_NODE = {"num_cpus": 1, "object_store_memory": 200_000_000}


def tasks(folder: Path, count: int) -> list[Path]:
    """Files of rows, each of a few intents."""
    rows, files = clinc("train"), list[Path]()
    names = sorted({row["label"] for row in rows})
    for number in range(count):
        own = names[number * LABELS : (number + 1) * LABELS]
        files.append(folder / f"task{number}.csv")
        with files[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows([row for row in rows if row["label"] in own][:ROWS])
    return files


def started(out: Path, files: list[Path], *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "graftax", "train", "-b", MINILM, "--epochs", "2", "--batch-size", "16", "--pack-size", "1"]
    environment = os.environ | {"NPROC": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*words, "-o", out, *more, "-d", *files], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def rate(outs: list[Path], files: list[Path]) -> float:
    """Adapters in a second, in the middle half of them."""
    ends = sorted((out / file.stem).stat().st_mtime for out in outs for file in files if (out / file.stem).is_dir())
    first, last = len(ends) // 4, 3 * len(ends) // 4
    return (last - first) / (ends[last] - ends[first])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    ratios, others = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"GRAFTAX_CACHE": str(folder / "programs"), "RAY_USAGE_STATS_ENABLED": "0"}
        files = tasks(folder, arguments.tasks)
        head = {**_NODE, "node_ip_address": "127.0.0.2", "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(node_ip_address="127.0.0.3", **_NODE)
        assert started(folder / "compiled", files[:2]).wait() == 0
        for repeat in range(arguments.repeats):
            apart = [folder / f"apart{repeat}-{half}" for half in (0, 1)]
            with watched() as stretch:
                both = [started(out, files[half::2]) for half, out in enumerate(apart)]
                assert [one.wait() for one in both] == [0, 0]
            alone = rate(apart, files)
            fleet = folder / f"fleet{repeat}"
            assert started(fleet, files, "--ray", cluster.address).wait() == 0
            ratios.append(rate([fleet], files) / alone)
            others.append(stretch.other_cores or 0.0)
            print(f"two runs {alone:.2f} adapters/s, two workers {ratios[-1]:.2f} of that", flush=True)
        cluster.shutdown()
    print(f"median {statistics.median(ratios):.2f}; cores kept busy by others meanwhile: {max(others):.1f}")


if __name__ == "__main__":
    main()
