"""The demo on pictures: what it draws, and on real weights what its adapters have learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from graftax import vision_demo
from graftax.drawn_pictures import KINDS, SIDE, drawn, write_pictures

MOBILENET = SHARED / "backbones" / "mobilenet-v2-1.0-224"


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_follow_from_their_seed(kind: str) -> None:
    """Classes are drawn otherwise from the same numbers, and a class otherwise from others."""
    _, labels = KINDS[kind]
    first = [np.asarray(drawn(kind, label, np.random.default_rng(3))) for label in labels]
    assert {picture.shape for picture in first} == {(SIDE, SIDE, 3)}
    np.testing.assert_array_equal(np.asarray(drawn(kind, labels[0], np.random.default_rng(3))), first[0])
    others = [*first[1:], np.asarray(drawn(kind, labels[0], np.random.default_rng(4)))]
    assert all((picture != first[0]).mean() > 0.01 for picture in others)


def test_pictures_lie_in_folders_of_classes(tmp_path: Path) -> None:
    folder = write_pictures("dial", tmp_path / "dial", each=2, seed=0)
    there = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.jpg"))
    assert there == [f"{label}/{number}.jpg" for label in ("high", "low", "normal") for number in ("000", "001")]
    one, other = (np.asarray(Image.open(folder / "low" / f"{number}.jpg")) for number in ("000", "001"))
    assert (one != other).any()


@pytest.mark.slow
@pytest.mark.skipif(not MOBILENET.is_dir(), reason="the shared assets are not there")
def test_what_the_demo_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vision_demo.run(str(MOBILENET), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    told = [line.split() for line in lines if line.count("%") == 2]
    shares = {words[0]: [float(word[:-1]) for word in words if "%" in word] for words in told}
    assert {*shares} == {*KINDS, "mean"}
    probe, lora = shares["mean"]
    assert lora > probe > 80
    assert sum("answered: " in line for line in lines) == len(KINDS)
    assert Image.open(tmp_path / "answers.png").size == (3 * (SIDE + 12) + 12, 2 * (SIDE + 56) + 12)
