"""Small programs, compiled for a GPU and a TPU that are not there, where jax's plugins for these are installed.

In a step in bfloat16 no scores of attention stand in memory, nothing larger than a rank is multiplied in float32, and what is
donated is written in place: in one adapter's step, and in that of a pack.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("small_programs.py")


def of_plugin(device: str, package: str, slots: int, remat: str) -> Any:
    """A case that is skipped where the compiler for a device is not installed."""
    there = importlib.util.find_spec(package) is not None
    mark = pytest.mark.skipif(not there, reason=f"{package} is not installed")
    return pytest.param((device, slots, remat), marks=mark, id=f"{device}-{slots}-{remat}")


CASES = [
    of_plugin(device, package, slots, remat)
    for device, package in (("v5e", "libtpu"), ("h100", "jax_cuda13_plugin"))
    for slots, remat in ((1, "none"), (4, "layers"))
]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("case", CASES)]


@cache
def found(case: tuple[str, int, str], *options: str) -> dict[str, Any]:
    """What is read off the programs of a device, for so many adapters (tests/small_programs.py)."""
    device, slots, remat = case
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join((str(SCRIPT.parent.parent), *sys.path))}
    command = [sys.executable, SCRIPT, device, str(slots), "--remat", remat, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_no_scores_stand_in_memory(case: tuple[str, int, str]) -> None:
    assert found(case)["gradient"]["products"] > 20
    assert found(case)["gradient"]["scores"] == []


def test_nothing_larger_than_the_rank_is_multiplied_in_float32(case: tuple[str, int, str]) -> None:
    for program in ("gradient", "decode"):
        assert found(case)[program]["float32"] == [], program


def test_what_is_donated_is_written_in_place(case: tuple[str, int, str]) -> None:
    """The pack by the optimizer's step, the texts and their cache by what writes them on."""
    for program in ("update", "decode"):
        one = found(case)[program]
        assert one["donated"] > 100_000, program
        assert one["in_place"], program
        assert one["copied"] == [], program


def test_the_words_table_is_not_copied(case: tuple[str, int, str]) -> None:
    """It is looked up and, turned, projects to the vocabulary; of all arrays it is the largest."""
    table = {f"bf16[{rows},{columns}]" for rows, columns in permutations((131072, 384))}
    assert not table & {*found(case)["gradient"]["copied"]}


def test_devices_exchange_nothing_where_there_is_one(case: tuple[str, int, str]) -> None:
    assert [program["collectives"] for program in found(case).values()] == [{}, {}, {}]


def test_kernels_of_8_bits_are_not_made_float_in_memory(case: tuple[str, int, str]) -> None:
    """What is computed on them needs no more memory than on floats."""
    for program in ("gradient", "decode"):
        held = found(case, "--quantize", "int8")[program]
        assert held["temporaries"] <= 1.02 * found(case)[program]["temporaries"], program
