"""What `--fsdp` takes of a host while weights come to its devices: a backbone left in its files against one in memory.

    python benchmarks/speed/local_shards.py [--processes 1 2 4] [--devices 4] [--layers 16] [--dtype float32]

A Llama of random weights (1.1 GB in two files at 16 layers) is written to a temporary folder, and loaded and shared by as many
devices of a CPU, which one process has or several. Printed of each process: the most memory that it has held beyond what it
held at the start, its devices' parts among it, for a CPU's devices have the host's memory; the seconds that loading takes,
which reads and hashes everything, and those until the parts are where they belong. Both sides graftax.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 4096}
CONFIG: dict[str, Any] = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": True, **WIDTHS}


def write(directory: Path, layers: int) -> None:
    """The backbone, in two files."""
    from safetensors.numpy import save_file

    from graftax.models.family_registry import family_of

    config = CONFIG | {"num_hidden_layers": layers}
    (directory / "config.json").write_text(json.dumps(config))
    family = family_of("llama")
    typed, random, files = family.configure(config), np.random.default_rng(0), dict[str, dict[str, np.ndarray]]()
    weights = [weight for part in family.parts(typed) for weight in part.weights(family.layer_paths(typed))]
    for number, weight in enumerate(weights):
        tensor = np.float32(0.02) * random.standard_normal(weight.stored_shape, np.float32)
        files.setdefault(f"model-0000{1 + 2 * number // len(weights)}-of-00002.safetensors", {})[weight.key] = tensor
    for name, tensors in files.items():
        save_file(tensors, directory / name)
    index = {key: name for name, tensors in files.items() for key in tensors}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def held() -> float:
    """MB: the most that this process has held."""
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


def load(directory: Path, devices: int, here: int, unread: bool, dtype: str) -> None:
    """One process of a run, up to where its devices have their weights; it prints what that took."""
    import jax

    from graftax import load_backbone, processes
    from graftax.train.frozen_weights import shared_by_all
    from graftax.train.spreading import Spread

    jax.config.update("jax_num_cpu_devices", here)
    if devices > here:
        processes.join(60.0)
    jax.devices()
    before, began = held(), time.perf_counter()
    backbone = load_backbone(directory, dtype=dtype, remat="layers", unread=unread)
    loaded = time.perf_counter()
    params, _ = shared_by_all(backbone, Spread(devices, devices))
    jax.block_until_ready(params)
    parts = sum(leaf.nbytes for whole in jax.tree.leaves(params) for leaf in (one.data for one in whole.addressable_shards))
    print(json.dumps([held() - before, parts / 1e6, loaded - began, time.perf_counter() - loaded]), flush=True)
    processes.end(0)


def measured(directory: Path, devices: int, processes: int, unread: bool, dtype: str) -> list[list[float]]:
    """Those of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    own = [str(directory), str(devices), str(devices // processes), str(int(unread)), dtype]
    running = []
    for number in range(processes):
        variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes), "JAX_PROCESS_ID": str(number)}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables if processes > 1 else {})}
        command = [sys.executable, __file__, "--load", *own]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    return [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        directory, devices, here, unread, dtype = sys.argv[2:]
        load(Path(directory), int(devices), int(here), bool(int(unread)), dtype)
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as there:
        write(Path(there), args.layers)
        for processes in args.processes:
            for unread in (False, True):
                found = measured(Path(there), args.devices, processes, unread, args.dtype)
                for number, (most, parts, loading, sharing) in enumerate(found):
                    who = f"process {number} of {processes}, {'unread' if unread else 'in memory'}"
                    memory = f"{most:.0f} MB at most, {parts:.0f} MB of them on its devices"
                    print(f"{who}: {memory}; loaded in {loading:.1f} s, shared in {sharing:.1f} s")
