"""Under the conditions in which users compile, and the tests do not: XLA's own optimisation level, and several devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("bits.py")


def bits(folder: Path, *options: str, flags: str = "") -> dict[str, Any]:
    """What a process of its own prints (tests/bits.py), without the tests' cheap compilation."""
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(SCRIPT.parent.parent)}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *options], env=environment, capture_output=True, text=True, timeout=500, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An uninterrupted run on one device."""
    return bits(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["1", "5"])  # in the first cohort of jobs, in the second
def test_a_run_goes_on_in_another_process_to_the_same_bits(whole: dict[str, Any], tmp_path: Path, steps: str) -> None:
    assert bits(tmp_path, "--stop", steps) == {"interrupted": True}
    assert bits(tmp_path) == whole


@pytest.mark.slow
def test_further_devices_change_no_bit(whole: dict[str, Any], tmp_path: Path) -> None:
    assert bits(tmp_path, flags="--xla_force_host_platform_device_count=4") == whole
