"""A class for every pixel: loss and resizing against torch, metrics against a loop, heads that are trained, saved and asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from conftest import PICTURES, Graftax
from noted import noted
from PIL import Image
from refusals import refused
from safetensors.numpy import load_file
from torch.nn import functional
from vit_of_colours import a_vit_of_colours

from graftax import Predictor, Recipe, load_adapter, load_backbone, train_many
from graftax.adapters.bilinear import resized
from graftax.adapters.methods.head import MAP, MAPS
from graftax.adapters.methods.lora import LoRA
from graftax.data.examples import Examples, split
from graftax.data.mask_values import VOID, Mask
from graftax.data.sources import Source
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.preparation import Preparation
from graftax.models.random import random_backbone
from graftax.serve.evaluation import measure
from graftax.serve.intervals import intervals
from graftax.serve.report.reporter import looked_at
from graftax.tasks.segmentation_metrics import counts, of_counts
from graftax.tasks.task import Answer
from graftax.tasks.task_registry import task_named
from graftax.train.step import hyper

RECIPE = Recipe(epochs=25, lr=0.03, batch_size=8)
NAMES = ("grey", "red", "green")


def rows(count: int, seed: int = 0, side: int = 16) -> list[dict[str, Any]]:
    """Grey noise with a red and a green square; masks say where these are, and a stripe is of no class."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        picture = random.integers(90, 130, (side, side, 3)).astype(np.uint8)
        mask = np.zeros((side, side), np.uint8)
        for number, channel in ((1, 0), (2, 1)):
            top, left = random.integers(0, side - 6, 2)
            picture[top : top + 6, left : left + 6] = 30
            picture[top : top + 6, left : left + 6, channel] = 240
            mask[top : top + 6, left : left + 6] = number
        mask[:, -1] = VOID
        found.append({"image": picture, "mask": mask})
    return found


@pytest.fixture(scope="module")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_vit_of_colours(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def backbone(backbone_dir: Path) -> Backbone:
    return load_backbone(backbone_dir)


@pytest.fixture(scope="module")
def trained(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two probes in a pack, one of two classes and one of three; and a LoRA in the last layer with a head over several maps."""
    out = tmp_path_factory.mktemp("trained")
    data = {name: Source(name, rows(24, seed), {"mask": NAMES}) for seed, name in enumerate("ac")}
    two = [{**row, "mask": np.where(row["mask"] == 2, 0, row["mask"])} for row in rows(24, 2)]
    data["b"] = Source("b", two, {"mask": NAMES[:2]})
    how: dict[str, Any] = {"task": "image-segment", "progress": False, "recipe": RECIPE, "val": 0.25, "pack_size": 2}
    last = tuple(site.path for site in LoRA().select(backbone.sites)[-1:])  # from layers below it maps are read all the same
    each = {"c": {"method": LoRA(r=4, targets=last), "head": "multiscale"}}
    train_many(backbone, data, out, method=None, each=each, **how)
    return out


# -- formulas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [((3, 5), (12, 7)), ((6, 4), (6, 4)), ((5, 6), (2, 3)), ((1, 2), (4, 4))])
def test_resized_as_torch_does(old: tuple[int, int], new: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *old, 3), np.float32)
    wanted = functional.interpolate(torch.tensor(x).permute(0, 3, 1, 2), new, mode="bilinear").permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(np.asarray(jax.jit(lambda x: resized(x, new))(x)), wanted, atol=1e-5)


def test_the_loss_is_torchs() -> None:
    """Of logits with room for more classes, of labels without a class; an item that is filling counts nothing."""
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((3, 4, 5, 8), np.float32), random.integers(0, 3, (3, 9, 8)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.2] = VOID
    logits[..., 3:] = 50.0
    task, weight = task_named("image-segment"), np.array([1, 1, 0], np.float32)
    found = jax.jit(task.loss)(logits, labels, hyper(RECIPE, 10, 3), weight)
    of_pixels = functional.interpolate(torch.tensor(logits[:2, ..., :3]).permute(0, 3, 1, 2), (9, 8), mode="bilinear")
    wanted = functional.cross_entropy(of_pixels, torch.tensor(labels[:2].astype(np.int64)), ignore_index=VOID)
    assert float(found) == pytest.approx(float(wanted), abs=1e-5)
    nothing = jax.jit(jax.value_and_grad(task.loss))(logits, np.full_like(labels, VOID), hyper(RECIPE, 10, 3), weight)
    assert float(nothing[0]) == 0.0
    assert np.isfinite(np.asarray(nothing[1])).all()


def by_loop(pairs: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...]) -> dict[str, float]:
    """mean IoU and the like, pixel by pixel."""
    found: dict[str, float] = {}
    for number, name in enumerate(names):
        both = either = 0
        for label, answer in pairs:
            for wanted, said in zip(label.ravel().tolist(), answer.ravel().tolist(), strict=True):
                if wanted != VOID and said != VOID:
                    both += wanted == said == number
                    either += number in (wanted, said)
        if either:
            found[f"iou_{name}"] = both / either
    return found | {"mean_iou": sum(found.values()) / len(found)}


def test_metrics_are_those_of_a_loop() -> None:
    """Of all pictures together; a class that is in none of them has no part, and what was not seen is said."""
    random, names = np.random.default_rng(1), ("a", "b", "c", "nowhere")
    pairs = [(random.integers(0, 3, (6, 7)).astype(np.uint8), random.integers(0, 3, (6, 7)).astype(np.uint8)) for _ in range(3)]
    for label, answer in pairs:
        label[0], answer[:, 0] = VOID, VOID
    pairs[0][0][1:] = 1  # unlike a mean over pictures
    found = of_counts(sum(counts(Mask(label), Mask(answer), 4) for label, answer in pairs), names)
    wanted = by_loop(pairs, names)
    assert found == pytest.approx({**wanted, "pixel_accuracy": found["pixel_accuracy"], "unseen": 15 / 105})
    right = [(w == s)[(w != VOID) & (s != VOID)] for w, s in pairs]
    assert found["pixel_accuracy"] == pytest.approx(np.concatenate(right).mean())
    assert "iou_nowhere" not in found
    said = refused(lambda: counts(Mask(pairs[0][0], "row 4"), Mask(np.zeros((7, 6), np.uint8)), 4))
    assert said == "row 4: a mask of 7 x 6 pixels for a picture of 6 x 7."


def test_an_answer_has_its_picture_s_size() -> None:
    """As torch resizes logits to it; what was cut away is of no class, and has no share."""
    logits, names = np.random.default_rng(0).standard_normal((4, 5, 3), np.float32), ("a", "b", "c")

    def asked(preparation: Preparation) -> Answer:
        item = type("Item", (), {"frame": preparation.frame((11, 18))})
        return task_named("image-segment").answer(logits, names, item)

    whole = functional.interpolate(torch.tensor(logits).permute(2, 0, 1)[None], (11, 18), mode="bilinear")[0].numpy()
    answer = asked(Preparation((8, 10), resize=(8, 10)))
    np.testing.assert_array_equal(answer.label.pixels(), whole.argmax(0))
    shares = np.bincount(whole.argmax(0).ravel(), minlength=3) / whole[0].size
    assert answer.score == pytest.approx({name: shares[number] for number, name in enumerate(names)})
    assert [*answer.score.values()] == sorted(answer.score.values(), reverse=True)
    cut = asked(Preparation((8, 10), resize=9, crop=True)).label.pixels()  # 9 x 14, of which 8 x 10 are seen
    assert (cut[:, 9] != VOID).any()
    assert (cut[:, [0, 1, 16, 17]] == VOID).all()
    assert sum(asked(Preparation((8, 10), resize=9, crop=True)).score.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("family", ["cifar_resnet", "mobilenet_v2"])
def test_maps_of_convolutions(family: str) -> None:
    """The last map of each size; of the last one the mean is what a classifier reads."""
    backbone = random_backbone(PICTURES[family], seed=7)
    pixels = np.random.default_rng(0).standard_normal((2, 32, 24, 3), np.float32)
    count = len(backbone.config.maps)
    found = jax.jit(lambda x: backbone.encode(backbone.params, {}, ImageInputs(x), maps=count))(pixels)
    sizes = {"cifar_resnet": [(32, 24), (16, 12), (8, 6)], "mobilenet_v2": [(8, 6), (4, 3), (2, 2), (1, 1)]}[family]
    assert [one.shape[1:3] for one in found.maps] == sizes
    assert tuple(one.shape[-1] for one in found.maps) == backbone.config.maps
    np.testing.assert_allclose(np.asarray(found.maps[-1].mean((1, 2))), np.asarray(found.pooled), atol=1e-5)


def test_several_maps_side_by_side(backbone: Backbone) -> None:
    """Products first and then resized is what DINOv2 does the other way round: resized, put side by side, and a product."""
    random = np.random.default_rng(0)
    maps = tuple(random.standard_normal((2, size, size + 1, width), np.float32) for size, width in ((8, 3), (4, 5), (2, 7)))
    head = backbone.head_of_maps(4, several=True)
    state = {"kernel": random.standard_normal((4, 15), np.float32), "bias": random.standard_normal(4).astype(np.float32)}
    state["dropout"] = np.float32(0.0)
    beside = np.concatenate([np.asarray(resized(jax.numpy.asarray(one), (8, 9))) for one in maps], axis=-1)
    wanted = beside @ state["kernel"].T + state["bias"]
    found = jax.jit(lambda *maps: head.apply(state, maps, None, None, None))(*maps)
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)


# -- trained --------------------------------------------------------------------------------------------------------------


def test_it_learns(backbone: Backbone, trained: Path) -> None:
    """Adapters of either head, which is in their files; and it is the head that answers."""
    predictor = Predictor(backbone)
    for name, site in (("a", MAP), ("c", MAPS)):
        predictor.load(name, trained / name)
        adapter = load_adapter(trained / name, backbone)
        assert {*load_file(trained / name / "adapter_model.safetensors")} >= {
            f"base_model.model.decode_head.classifier.{leaf}" for leaf in ("weight", "bias")
        }
        assert next(method for method in adapter.methods if method.name == "head").site == site
        assert adapter.metrics["val_mean_iou"] > 0.55
        found = measure(predictor, name, rows(12, seed=9))
        assert found.metrics["mean_iou"] == pytest.approx(adapter.metrics["val_mean_iou"], abs=0.15)
        assert [*found.metrics] == ["mean_iou", "pixel_accuracy", "iou_grey", "iou_red", "iou_green"]
        assert found.confusion is not None
        assert sum(found.confusion.counts.values()) == 12 * 16 * 15
    assert load_adapter(trained / "b", backbone).metrics["val_iou_red"] > 0.4
    blank = load_adapter(trained / "a", backbone)
    for leaves, _ in blank.states["head:none"].values():
        leaves["kernel"] = np.zeros_like(leaves["kernel"])
    predictor.load("blank", blank)
    assert measure(predictor, "blank", rows(12, seed=9)).metrics["mean_iou"] < 0.4


def test_one_batch_of_all_kinds(backbone: Backbone, trained: Path, tmp_path: Path) -> None:
    """Beside an adapter that classifies: each row as it is alone; swapped there and back the same bits."""
    labelled = [{"image": row["image"], "label": "ab"[i % 2]} for i, row in enumerate(rows(8, 3))]
    how: dict[str, Any] = {"task": "image-classify", "method": LoRA(r=2), "recipe": Recipe(epochs=1), "progress": False}
    train_many(backbone, {"kind": labelled}, tmp_path, **how)
    predictor = Predictor(backbone)
    for name, place in (("a", trained), ("b", trained), ("c", trained), ("kind", tmp_path)):
        predictor.load(name, place / name)
    pictures, names = [row["image"] for row in rows(4, 5)], ["a", "kind", "c", "b"]
    together = predictor.predict(pictures, names)
    before = predictor.compilations
    for picture, name, found in zip(pictures, names, together, strict=True):
        (alone,) = predictor.predict([picture], name)
        if name == "kind":
            assert (alone.label, alone.score) == (found.label, pytest.approx(found.score, abs=1e-5))
        else:
            assert np.mean(alone.label.pixels() == found.label.pixels()) > 0.99
    assert predictor.compilations - before <= 3  # a row: with one of the heads alone
    predictor.load("a", trained / "b")
    swapped = predictor.predict(pictures, names)
    predictor.load("a", trained / "a")
    again = predictor.predict(pictures, names)
    assert (swapped[0].score.keys() <= {*NAMES[:2]}, "green" in together[0].score) == (True, True)
    assert [one.label for one in again] == [one.label for one in together]


def test_the_command(graftax: Graftax, backbone_dir: Path, tmp_path: Path) -> None:
    for part, count in (("train", 8), ("test", 3)):
        for name in ("images", "masks"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
        for i, row in enumerate(rows(count)):
            Image.fromarray(row["image"]).save(tmp_path / "parts" / part / "images" / f"{i}.png")
            Image.fromarray(row["mask"]).save(tmp_path / "parts" / part / "masks" / f"{i}.png")
    (tmp_path / "parts" / "classes.txt").write_text("grey\nred\ngreen\n")
    data, base = tmp_path / "parts", ("-b", backbone_dir)
    settings = ("--task", "image-segment", "--head", "multiscale", "--augment", "crop+flip", "--epochs", 1, "--method", "probe")
    said = graftax("train", *base, "--data", f"{data}:train", "-o", tmp_path / "out", *settings)
    assert said.code == 0, said.err
    assert "its classes are named by" in said.err
    named = ("-a", f"parts={tmp_path / 'out' / 'parts'}")
    report = ("--report", tmp_path / "report")
    said = graftax("eval", *base, *named, "--data", f"{data}:test", "--json", *report)
    assert {"mean_iou", "pixel_accuracy", "iou_grey", "confusion"} <= {*json.loads(said.out)}
    assert (tmp_path / "report" / "report.html").read_text().count("data:image/png") >= 3
    said = graftax("predict", *base, *named, "-i", data / "test" / "images", "--masks", tmp_path / "masks")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["mask"] for line in lines] == [str(tmp_path / "masks" / f"{i}.png") for i in range(3)]
    for line in lines:
        with Image.open(line["mask"]) as mask:
            assert (mask.mode, mask.size) == ("P", (16, 16))
            numbers = np.asarray(mask)
        shares = {name: share for number, name in enumerate(("grey", "red", "green")) if (share := np.mean(numbers == number))}
        assert line["classes"] == pytest.approx(shares)
    said = graftax("predict", *base, *named, "-i", data / "test" / "images")
    assert [json.loads(line)["mask"] for line in said.out.splitlines()] == [None] * 3


def test_what_an_evaluation_says(backbone: Backbone, trained: Path) -> None:
    """Intervals around the metrics, the rows that are most wrong first, with the picture and both masks; which classes are in a
    mask is said where others were answered."""
    predictor = Predictor(backbone)
    predictor.load("a", trained / "a")
    measured = measure(predictor, "a", rows(6, 4))
    found = intervals(measured, "image-segment")
    low, high = found["mean_iou"].low, found["mean_iou"].high
    assert low is not None
    assert high is not None
    assert low < measured.metrics["mean_iou"] < high
    wrong = looked_at("a", measured).most_wrong
    assert [one.mistake for one in wrong] == sorted((one.mistake for one in wrong), reverse=True)
    assert wrong[0].label in ("", "grey, red, green")
    assert all(one.label != one.answer or not one.label for one in wrong)
    assert wrong[0].picture is not None


# -- refused --------------------------------------------------------------------------------------------------------------


def changed(mask: Any, row: int = 1) -> list[dict[str, Any]]:
    found = rows(4)
    found[row] = {**found[row], "mask": mask}
    return found


@pytest.mark.parametrize(
    ("data", "settings", "line"),
    [
        (changed(np.zeros((16, 15), int)), {}, "row 2: a mask of 15 x 16 pixels for a picture of 16 x 16."),
        (changed(np.full((16, 16), VOID)), {}, "row 2: every pixel of the mask is 255, of no class."),
        (changed(None), {}, "row 2 has nothing in column 'mask'."),
        ([{"image": row["image"]} for row in rows(4)], {}, "no column 'mask'; it has image."),
        ([{**row, "mask": np.where(row["mask"] == 1, 255, 0)} for row in rows(4)], {}, "every labelled pixel is of class 0"),
        (Source("s", rows(4), {"mask": ("a", "b")}), {}, "s: row 1: the mask has class 2, and there are 2, 0 to 1 (a, b)."),
        (
            rows(4),
            {"recipe": Recipe(augment="crop+mixup")},
            "augment 'crop+mixup' makes one picture of two, and a mask is of one.",
        ),
        (
            rows(4),
            {"task": "image-classify", "recipe": Recipe(head="multiscale")},
            "is of image-segment and image-detect, and the task is",
        ),
    ],
)
def test_what_is_refused(data: Any, settings: dict[str, Any], line: str, backbone: Backbone, tmp_path: Path) -> None:
    how: dict[str, Any] = {"task": "image-segment", "method": None, "progress": False} | settings
    if how["task"] == "image-classify":
        data = [{"image": row["image"], "label": "ab"[i % 2]} for i, row in enumerate(data)]
    said = refused(lambda: train_many(backbone, {"a": data}, tmp_path, **how))
    assert said is not None
    assert line in said


def test_what_else_is_said(backbone: Backbone, tiny: Backbone, tmp_path: Path) -> None:
    assert "head 'u-net' is none of linear, multiscale, own." in str(refused(lambda: Recipe(head="u-net")))
    line = refused(lambda: train_many(tiny, {"a": rows(4)}, tmp_path, task="image-segment", progress=False))
    assert str(line).startswith("task 'image-segment' is about images")
    grey = [{**row, "mask": row["mask"] * 38 * (row["mask"] != VOID)} for row in rows(4)]
    how: dict[str, Any] = {"task": "image-segment", "method": None, "progress": False, "recipe": Recipe(epochs=1)}
    said = noted(lambda: train_many(backbone, {"a": grey}, tmp_path, **how))
    assert "3 classes, with numbers up to 76; are these numbers of classes, and not, say, shades of grey?" in said[0]


def test_kept_features_are_those_of_the_whole(backbone: Backbone, trained: Path) -> None:
    """A probe was trained and validated on maps that were kept; its answers to whole pictures have the same metrics."""
    adapter, predictor = load_adapter(trained / "b", backbone), Predictor(backbone)
    predictor.load("b", adapter)
    two = [{**row, "mask": np.where(row["mask"] == 2, 0, row["mask"])} for row in rows(24, 2)]
    held = [two[i] for i in split(Examples({"image": tuple(range(24))}), 0.25, RECIPE.seed)[1]]
    assert measure(predictor, "b", held).metrics["mean_iou"] == pytest.approx(adapter.metrics["val_mean_iou"], abs=1e-3)


def test_several_maps_are_read_in_validation_as_they_are_asked(backbone: Backbone, tmp_path: Path) -> None:
    """What frozen layers make is not kept for such a head: it reads maps from below the cut, too."""
    data, recipe = rows(16, 3), RECIPE.replace(epochs=1, head="multiscale")
    settings: dict[str, Any] = {"task": "image-segment", "recipe": recipe, "val": 0.25, "progress": False}
    train_many(backbone, {"m": data}, tmp_path, method=None, **settings)
    held = [data[i] for i in split(Examples({"image": tuple(range(16))}), 0.25, recipe.seed)[1]]
    adapter, predictor = load_adapter(tmp_path / "m", backbone), Predictor(backbone)
    predictor.load("m", adapter)
    assert measure(predictor, "m", held).metrics["mean_iou"] == pytest.approx(adapter.metrics["val_mean_iou"], abs=1e-3)
