"""A benchmark's suite that is done in seconds: one task, a probe and a LoRA."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tiny import toy_rows, write_csv

from graftax.benchmarks.suite import Suite, load_suite

SUITE = """
backbones = ["{backbone}"]
data = "{data}"
sizes = [6]
seeds = 2
lrs = [1e-3, 1e-2]
epochs = 2
steps = 1
doublings = 1
widen = 1
batch_size = 4
max_length = 24
{more}

[tasks.toy]
train = "toy.csv"
test = "test.csv"
val = 0.3

[methods.probe]
[methods.lora]
rank = 4
"""


def with_rows(folder: Path) -> Path:
    write_csv(folder / "toy.csv", toy_rows(count=40))
    write_csv(folder / "test.csv", toy_rows(count=24, seed=1))
    return folder


def suite_in(folder: Path, backbone: Path, more: str = "", **changes: Any) -> Suite:
    (folder / "suite.toml").write_text(SUITE.format(backbone=backbone, data=folder, more=more))
    return dataclasses.replace(load_suite(str(folder / "suite.toml")), **changes)


def only(suite: Suite, method: str) -> Suite:
    return dataclasses.replace(suite, methods={method: suite.methods[method]})
