"""Suites of pictures: the rows, the baselines, pictures prepared as the suite says, and PEFT on the same pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTURES
from PIL import Image
from safetensors.numpy import save_file

from graftax import Bottleneck, load_adapter, load_backbone
from graftax.benchmarks.analysis import analyse
from graftax.benchmarks.baselines import mean_features
from graftax.benchmarks.draws import at_hand, read_task
from graftax.benchmarks.own_preparation import prepared_as
from graftax.benchmarks.published import averages, groups_in, reproduced
from graftax.benchmarks.report import write_report
from graftax.benchmarks.results import Predictions
from graftax.benchmarks.runner import run_suite
from graftax.benchmarks.suite import NEAREST_MEAN, Suite, load_suite
from graftax.errors import GraftaxError
from graftax.models.pictures import Pictures
from graftax.models.preparation import Preparation
from graftax.models.random import random_tensors
from graftax.tasks.task_registry import task_named

SUITE = """
backbones = ["{backbone}"]
data = "{folder}"
sizes = [6]
seeds = 2
lrs = [1e-3, 1e-2]
epochs = 2
steps = 1
doublings = 1
widen = 0
batch_size = 4
picture_size = 32
normalisation = "imagenet"

[tasks.shades]
kind = "image-classify"
train = "shades.npz:train"
test = "shades.npz:test"
val = 0.3

[methods.probe]
[methods.bitfit]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ResNet, and pictures that are dark or bright."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "resnet").mkdir()
    config = PICTURES["cifar_resnet"] | {"depth": 8, "blocks_per_stage": 1}
    (folder / "resnet" / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config), folder / "resnet" / "model.safetensors")
    preparation = {"size": {"height": 40, "width": 40}, "image_mean": [0.5] * 3, "image_std": [0.3] * 3}
    (folder / "resnet" / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "resample": 3, **preparation})
    )
    random, arrays = np.random.default_rng(0), dict[str, Any]()
    for split, count in (("train", 40), ("test", 24)):
        y = np.arange(count) % 2
        x = random.integers(0, 128, (count, 20, 20, 3)) + 127 * y[:, None, None, None]
        arrays |= {f"x_{split}": x.astype(np.uint8), f"y_{split}": y}
    np.savez(folder / "shades.npz", **arrays, classes=np.array(["dark", "bright"]))
    return folder


@pytest.fixture(scope="module")
def suite(folder: Path) -> Suite:
    (folder / "suite.toml").write_text(SUITE.format(backbone=folder / "resnet", folder=folder))
    return load_suite(str(folder / "suite.toml"))


def test_a_suite_of_pictures_runs(suite: Suite, folder: Path) -> None:
    """All cells have values, the adapters are where the records say, and the yardstick is the nearest class mean."""
    out = folder / "out"
    records = run_suite(suite, out, say=lambda line: None)
    assert [r.error for r in records if r.error] == []
    final = [r for r in records if r.split == "test"]
    assert {(r.method, r.seed) for r in final} == {(m, s) for m in (NEAREST_MEAN, "probe", "bitfit") for s in (0, 1)}
    task = read_task(suite, "shades", suite.tasks["shades"])
    backbone = load_backbone(out / "backbones" / "resnet")
    for record in final:
        assert record.predictions is not None
        assert record.worst_slice_name in ("label dark", "label bright")  # pictures are neither long nor short
        if record.method == NEAREST_MEAN:
            known, asked = (
                task_named("image-classify").prepare(rows, ("dark", "bright"), backbone.processor, 1)
                for rows in (task.draw("final", 6, record.seed), task.test)
            )
            features = mean_features(backbone, known)
            gold = np.array(known.labels)
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            means = np.stack([unit[gold == label].mean(0) for label in (0, 1)])
            near = mean_features(backbone, asked) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
            np.testing.assert_array_equal(Predictions.load(out / record.predictions).said, near.argmax(1))
        else:
            assert record.rows == 12
            load_adapter(out / "adapters" / record.cell.id, backbone)


def test_features_are_means_over_a_pictures_places(suite: Suite, folder: Path) -> None:
    backbone = load_backbone(folder / "resnet")
    rows = read_task(suite, "shades", suite.tasks["shades"]).test
    items = task_named("image-classify").prepare(rows, ("dark", "bright"), backbone.processor, 1)
    inputs = backbone.processor.lay(items.items[:1], [(0, 0)], backbone.processor.shape_to_ask(items.items[:1], 1))
    hidden = np.asarray(backbone.encode(backbone.params, {}, inputs).hidden)[0]
    np.testing.assert_allclose(mean_features(backbone, items)[0], hidden.mean((0, 1)), atol=1e-5)


def test_pictures_are_prepared_as_the_suite_says(suite: Suite, folder: Path, tmp_path: Path) -> None:
    """What it leaves open is the checkpoint's: here the filter. The checkpoint's directory stays as it was."""
    own = load_backbone(folder / "resnet")
    changed = prepared_as(suite, own, tmp_path)
    assert isinstance(changed.processor, Pictures)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = Preparation((32, 32), 3, (32, 32), 3, scale=1 / 255, mean=mean, std=std)
    assert changed.processor.preparation == wanted
    assert load_backbone(tmp_path / "resnet").processor.preparation == wanted
    assert load_backbone(tmp_path / "resnet").fingerprint == own.fingerprint
    assert own.processor.preparation.size == load_backbone(folder / "resnet").processor.preparation.size == (40, 40)


def test_suites_without_such_wishes_leave_backbones_alone(suite: Suite, folder: Path, tmp_path: Path) -> None:
    own = load_backbone(folder / "resnet")
    assert prepared_as(replace(suite, picture_size=None, normalisation=None), own, tmp_path) is own
    assert [*tmp_path.iterdir()] == []


def test_an_unknown_normalisation_is_named(folder: Path, suite: Suite) -> None:
    (folder / "other.toml").write_text(SUITE.format(backbone="m", folder=folder).replace("imagenet", "imagnet"))
    with pytest.raises(GraftaxError, match="normalisation 'imagnet' is none of imagenet, half"):
        load_suite(str(folder / "other.toml"))


# -- published splits ---------------------------------------------------------------------------------------------------

LISTED = """
backbones = ["{backbone}"]
data = "{folder}"
seeds = 2
lrs = [1e-3]
widen = 0
doublings = 0
epochs = 2
steps = 1
batch_size = 4
picture_size = 32
where_at_hand = true

[[reproduces]]
title = "Shades, as others have it"
source = "nowhere"
columns = ["mean"]
[reproduces.rows]
"LoRA" = [74.6]

[tasks.lines]
kind = "image-classify"
group = "natural"
train = "vtab/shades/train8.txt"
val = "vtab/shades/val4.txt"
whole = "vtab/shades/train8val4.txt"
test = "vtab/shades/test.txt"

[tasks.splits]
kind = "image-classify"
group = "structured"
train = "shades/split_zhou_Shades.json:train"
val = "shades/split_zhou_Shades.json:val"
test = "shades/split_zhou_Shades.json:test"
images = "vtab/shades/images"

[tasks.more]
kind = "image-classify"
group = "structured"
train = "shades/split_zhou_Shades.json:train"
val = "shades/split_zhou_Shades.json:val"
test = "shades/split_zhou_Shades.json:odd"
images = "vtab/shades/images"

[tasks.absent]
kind = "image-classify"
train = "vtab/absent/train8.txt"
test = "vtab/absent/test.txt"

[methods.probe]
[methods.bottleneck]
choices = ["scaling=0.5", "scaling=2"]
"""


@pytest.fixture(scope="module")
def listed(folder: Path) -> Suite:
    """The pictures as files, in lists as NOAH and CoOp have them."""
    root = folder / "vtab" / "shades"
    (root / "images").mkdir(parents=True)
    (folder / "shades").mkdir()
    random, lines, splits, at = np.random.default_rng(1), dict[str, list[str]](), dict[str, list[Any]](), 0
    for list_name, split, count in (("train8", "train", 8), ("val4", "val", 4), ("test", "test", 12)):
        for _ in range(count):
            name, label = f"{at:03}.png", at % 2
            Image.fromarray((random.integers(0, 128, (20, 20, 3)) + 127 * label).astype(np.uint8)).save(root / "images" / name)
            lines.setdefault(list_name, []).append(f"images/{name} {label}")
            splits.setdefault(split, []).append([name, label, ("dark", "bright")[label]])
            at += 1
    splits["odd"] = [entry for entry in splits["test"] if entry[1] == 1]  # whose value is another
    for list_name, of_list in (lines | {"train8val4": lines["train8"] + lines["val4"]}).items():
        (root / f"{list_name}.txt").write_text("\n".join(of_list))
    (folder / "shades" / "split_zhou_Shades.json").write_text(json.dumps(splits))
    (folder / "listed.toml").write_text(LISTED.format(backbone=folder / "resnet", folder=folder))
    return load_suite(str(folder / "listed.toml"))


def test_lists_of_pictures_are_read(listed: Suite, folder: Path) -> None:
    lines, splits = (read_task(listed, name, listed.tasks[name]) for name in ("lines", "splits"))
    assert [len(rows) for rows in (lines.train, lines.val, lines.whole, lines.test)] == [8, 4, 12, 12]
    assert [len(rows) for rows in (splits.train, splits.val, splits.whole, splits.test)] == [8, 4, 8, 12]
    assert [*(lines.test.labels or ())] == ["0", "1"] * 6
    assert [*(splits.test.labels or ())] == ["dark", "bright"] * 6
    for mine, theirs in zip(lines.test.fields["image"], splits.test.fields["image"], strict=True):
        np.testing.assert_array_equal(mine.pixels(), theirs.pixels())
    dark, bright = (lines.test.fields["image"][i].pixels().mean() for i in (0, 1))
    assert dark < 128 < bright


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train8.txt", "images/000.png", "line 1 is no path with a class behind it"),
        ("train8.txt", "", "no pictures in it"),
        ("s.json", '{"val": []}', "no split 'train'; it has val"),
        ("s.json", '{"train": [["a.png", 0]]}', r"entry 1 of train is no \[path, number, name\]"),
    ],
)
def test_a_list_that_is_none_is_named(listed: Suite, tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    file = f"{tmp_path / name}:train" if name == "s.json" else str(tmp_path / name)
    with pytest.raises(GraftaxError, match=said):
        read_task(listed, "lines", replace(listed.tasks["lines"], train=file))


def test_what_is_not_there_is_named_and_passed_over(listed: Suite, folder: Path, tmp_path: Path) -> None:
    there, line = at_hand(listed)
    assert [*there] == ["lines", "splits", "more"]
    assert line == f"suite listed: not there, so passed over: absent ({folder}/vtab/absent/train8.txt)."
    with pytest.raises(GraftaxError, match="none of its data is at hand; not there, so passed over: lines"):
        at_hand(replace(listed, data=str(tmp_path)))
    assert at_hand(replace(listed, where_at_hand=False)) == (listed.tasks, None)  # reading them will say it


def test_a_published_protocol(listed: Suite, folder: Path) -> None:
    """One rate, a choice by the validation pictures, all pictures in the end, both averages, and the table to reproduce."""
    out, said = folder / "listed", list[str]()
    records = run_suite(listed, out, say=said.append)
    assert [r.error for r in records if r.error] == []
    assert any("absent" in line for line in said)
    search = [r for r in records if r.stage == "search" and r.method == "bottleneck" and r.task == "lines"]
    assert {r.choice for r in search} == {"scaling=0.5", "scaling=2"}
    assert {(r.lr, r.epochs, r.rows) for r in search} == {(1e-3, 2, 8)}
    most = max(r.value or 0.0 for r in search)
    final = [r for r in records if r.stage == "final" and r.method == "bottleneck" and r.task == "lines"]
    assert {(r.rows, r.edge) for r in final} == {(12, None)}
    (choice,) = {r.choice for r in final}
    assert choice in {r.choice for r in search if r.value == most}
    backbone = load_backbone(out / "backbones" / "resnet")
    trained = [load_adapter(out / "adapters" / r.cell.id, backbone).methods[0] for r in final]
    scales = {method.scaling for method in trained if isinstance(method, Bottleneck)}
    assert scales == {float(choice.removeprefix("scaling="))}

    (mine,) = (one for one in averages(analyse(out), groups_in(out)) if one.method == "probe")
    of_probe = [r for r in records if (r.stage, r.method) == ("final", "probe")]
    tasks = ("lines", "splits", "more")
    values = {task: float(np.mean([r.value or 0.0 for r in of_probe if r.task == task])) for task in tasks}
    assert mine.tasks == 3
    assert mine.flat.value == pytest.approx(np.mean([*values.values()]))
    structured = np.mean([values["splits"], values["more"]])
    assert mine.of_groups.value == pytest.approx(np.mean([values["lines"], structured]))
    assert abs(mine.of_groups.value - mine.flat.value) > 0.01
    assert mine.flat.low <= mine.flat.value <= mine.flat.high
    assert [table.rows for table in reproduced(out)] == [{"LoRA": (74.6,)}]
    write_report(out)
    text = (out / "report.md").read_text()
    assert "mean of groups" in text
    assert "Shades, as others have it" in text
