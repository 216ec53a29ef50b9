"""The demo on real weights: its adapters have learnt what they can in its time, and are swapped without compiling."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import MINILM, needs_assets
from runs import lines

from graftax import demo


@pytest.mark.slow
@needs_assets
def test_what_the_demo_shows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It stopped while its losses still fell, at 74% on average."""
    demo.run(str(MINILM), tmp_path)
    said = capfd.readouterr().out
    mean = re.search(r"^mean +([\d.]+)% +([\d.]+)%$", said, re.MULTILINE)
    assert mean is not None
    probe, lora = map(float, mean.groups())
    assert 60 < probe < 72
    assert lora > 79
    by_epoch: dict[int, list[float]] = {}
    for line in lines(tmp_path / "lora"):
        by_epoch.setdefault(line["epoch"], []).append(line["loss"])
    losses = [float(np.mean(by_epoch[epoch])) for epoch in sorted(by_epoch)]
    assert losses[-2] - losses[-1] < 0.05 * (losses[0] - losses[-1])
    assert said.count("programs compiled for prediction: 1, by 20 swaps: 0") == 1
    assert (tmp_path / "learning_curves.png").stat().st_size > 10_000
