"""Pictures from the command line, on real weights: what is trained beats the probe, in packs and in one batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, Graftax

RESNET, CIFAR = SHARED / "backbones" / "resnet20-cifar10", SHARED / "data" / "cifar10_jpeg" / "cifar10_subset.npz"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CIFAR.is_file(), reason="the shared assets are not there"),
]


@pytest.fixture(scope="module")
def most(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Nine tenths of the training pictures, in two archives, on which two adapters of one pack are trained."""
    folder, archive = tmp_path_factory.mktemp("pictures"), np.load(CIFAR)
    files = [folder / "one.npz", folder / "two.npz"]
    for seed, file in enumerate(files):
        rows = np.random.default_rng(seed).permutation(len(archive["x_train"]))[:3600]
        np.savez(file, x=archive["x_train"][rows], y=archive["y_train"][rows], classes=archive["classes"])
    return files


def test_bottlenecks_beat_the_probe(graftax: Graftax, most: list[Path], tmp_path: Path) -> None:
    """By at least a point on the thousand test pictures; rows of one batch have either of them."""
    base, test = ("-b", RESNET), f"{CIFAR}:test"
    settings = ("--task", "image-classify", "--epochs", 3, "--lr", 3e-3, "--pack-size", 2)
    found = {}
    for method in ("probe", "bottleneck"):
        run = graftax("train", *base, "--data", *most, "-o", tmp_path / method, "--method", method, *settings)
        assert run.code == 0, run.err
        for name in ("one", "two"):
            said = graftax("eval", *base, "-a", tmp_path / method / name, "--data", test, "--json")
            found[method, name] = json.loads(said.out)["accuracy"]
    assert min(found["bottleneck", name] - found["probe", name] for name in ("one", "two")) > 0.01, found

    pixels = np.load(CIFAR)["x_test"][:8]
    np.savez(tmp_path / "asked.npz", image=pixels, adapter=np.array(["probe", "bottleneck"] * 4))
    adapters = [word for name in ("probe", "bottleneck") for word in ("-a", f"{name}={tmp_path / name / 'one'}")]
    mixed = [json.loads(line) for line in graftax("predict", *base, *adapters, "-i", tmp_path / "asked.npz").out.splitlines()]
    assert [one["adapter"] for one in mixed] == ["probe", "bottleneck"] * 4
    for name in ("probe", "bottleneck"):
        np.savez(tmp_path / "alone.npz", image=pixels)
        said = graftax("predict", *base, "-a", f"{name}={tmp_path / name / 'one'}", "-i", tmp_path / "alone.npz").out
        alone = [json.loads(line) for line in said.splitlines()]
        for both, one in zip(mixed, alone, strict=True):
            if both["adapter"] == name:
                assert (both["label"], both["score"]) == (one["label"], pytest.approx(one["score"], abs=1e-4))


def test_lora_is_merged_into_the_convolutions(graftax: Graftax, most: list[Path], tmp_path: Path) -> None:
    """The merged backbone is a checkpoint, whose own head answers as the adapter's."""
    base, test = ("-b", RESNET), f"{CIFAR}:test"
    train = ("train", *base, "--data", most[0], "-o", tmp_path, "--task", "image-classify", "--epochs", 3, "--lr", 3e-3)
    assert graftax(*train).code == 0
    assert graftax("merge", *base, "-a", tmp_path / "one", "-o", tmp_path / "merged").code == 0
    adapter = json.loads(graftax("eval", *base, "-a", tmp_path / "one", "--data", test, "--json").out)
    merged = json.loads(graftax("eval", "-b", tmp_path / "merged", "--data", test, "--json").out)
    assert merged["accuracy"] == pytest.approx(adapter["accuracy"], abs=2e-3)
    assert adapter["accuracy"] > 0.8
    said = graftax("inspect", tmp_path / "one").out
    assert "image-classify" in said
    assert "lora" in said
