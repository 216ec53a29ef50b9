"""`graftax demo --vision`: adapters for six kinds of inspection on one image model, each for another picture of one batch.

Draws a few pictures of each kind (`drawn_pictures.py`), trains a linear probe and a LoRA adapter for each, measures both on
pictures that were not trained on, and lets all six adapters answer one batch. What is left in the folder can be used from the
command line: `graftax predict -b BACKBONE -a OUT/lora/leaf --input OUT/pictures/leaf/test/spots/*.jpg`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drawn_pictures import KINDS, SIDE, write_pictures

if TYPE_CHECKING:
    from .adapters.method import Method
    from .models.backbone import Backbone
    from .serve.predictor import Prediction, Predictor
    from .train.recipe import Recipe
    from .train.result import Result

HUB_ID = "google/mobilenet_v2_1.0_224"
_EACH, _EACH_TEST = 12, 20  # pictures of a class that are trained on, and that are measured
_UPPER = 6  # convolutions that LoRA changes, the last ones

#: What lies on the table when all six are asked at once.
MIXED = (
    ("board", "turned part"),
    ("bottle", "underfilled"),
    ("dial", "high"),
    ("fabric", "pulled thread"),
    ("leaf", "spots"),
    ("metal", "scratch"),
)


def run(backbone_path: str | None, out: Path) -> None:
    """The whole demo; prints as it goes and leaves pictures, adapters and `answers.png` in `out`."""
    began = time.perf_counter()
    from .adapters.methods.lora import LoRA
    from .models.load import load_backbone
    from .serve.predictor import Predictor
    from .train.recipe import Recipe

    backbone = load_backbone(backbone_path or HUB_ID)
    print(f"backbone: {backbone_path or HUB_ID}\n")
    for kind in KINDS:
        write_pictures(kind, out / "pictures" / kind / "train", _EACH, seed=0)
        write_pictures(kind, out / "pictures" / kind / "test", _EACH_TEST, seed=1)
    common: dict[str, Any] = {"batch_size": 12}
    probes = _trained(backbone, out, "probe", None, Recipe(epochs=40, lr=1e-2, **common))
    upper = LoRA().select(backbone.sites)[-_UPPER:]  # through what lies below a picture passes once (`train/features.py`)
    lora = LoRA(r=8, alpha=16, targets=tuple(site.path for site in upper))
    loras = _trained(backbone, out, "lora", lora, Recipe(epochs=8, lr=3e-3, **common))
    predictor = Predictor(backbone)
    _print_compared(predictor, out, probes, loras)
    answers = _print_mixed(predictor, out, loras)
    print(f"\n{_drawn_answers(answers, out / 'answers.png')}\ntotal {time.perf_counter() - began:.1f} s")


def _trained(backbone: Backbone, out: Path, name: str, method: Method | None, recipe: Recipe) -> dict[str, Result]:
    """An adapter for each kind of things."""
    from .train.run import train_many

    print(f"training {len(KINDS)} adapters, {'the head alone (linear probe)' if method is None else 'LoRA'}:", flush=True)
    began = time.perf_counter()
    rows = {kind: out / "pictures" / kind / "train" for kind in KINDS}
    how: dict[str, Any] = {"task": "image-classify", "method": method, "recipe": recipe, "overwrite": True, "progress": False}
    results = train_many(backbone, rows, out / name, **how)
    print(f"  {time.perf_counter() - began:.1f} s\n", flush=True)
    return results


def _print_compared(predictor: Predictor, out: Path, probes: dict[str, Result], loras: dict[str, Result]) -> None:
    """A line for each kind: how often its probe and its LoRA are right about pictures that are new to them."""
    from .serve.evaluation import measure

    print(f"{'inspection':10} {'classes':>7} {'pictures':>8} {'probe':>7} {'LoRA':>7} {'file':>9}")
    means = {"probe": 0.0, "lora": 0.0}
    for kind, (_, labels) in KINDS.items():
        right = {}
        for name, made in (("probe", probes), ("lora", loras)):
            predictor.load("measured", made[kind].directory)
            right[name] = measure(predictor, "measured", out / "pictures" / kind / "test").metrics["accuracy"]
            means[name] += right[name] / len(KINDS)
        size = sum(file.stat().st_size for file in loras[kind].directory.iterdir()) / 1024
        print(
            f"{kind:10} {len(labels):7} {_EACH * len(labels):8} {right['probe']:7.1%} {right['lora']:7.1%} {size:6.0f} KB",
            flush=True,
        )
    print(f"{'mean':10} {'':7} {'':8} {means['probe']:7.1%} {means['lora']:7.1%}\n")


def _print_mixed(predictor: Predictor, out: Path, loras: dict[str, Result]) -> list[tuple[Path, str, Prediction]]:
    """One batch, each of whose pictures is answered by another adapter: the file, what it shows, and the answer."""
    print("one batch, a different adapter for every picture")
    for kind in KINDS:
        predictor.load(kind, loras[kind].directory)
    files = [out / "pictures" / kind / "test" / label / "000.jpg" for kind, label in MIXED]
    answers = predictor.predict(files, [kind for kind, _ in MIXED])
    for (kind, label), answer in zip(MIXED, answers, strict=True):
        print(f"  {kind:10} {label:14} answered: {answer.label} ({answer.score:.2f})")
    return [(file, label, answer) for file, (_, label), answer in zip(files, MIXED, answers, strict=True)]


def _drawn_answers(answers: list[tuple[Path, str, Prediction]], path: Path) -> str:
    """The pictures of the batch beside each other, below each who answered what."""
    from PIL import Image, ImageDraw, ImageFont

    below, columns = 56, 3
    rows = -(-len(answers) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + 12) + 12, rows * (SIDE + below) + 12), (251, 250, 247))
    draw = ImageDraw.Draw(sheet)
    larger, smaller = (ImageFont.load_default(size) for size in (16, 13))
    for index, (file, label, answer) in enumerate(answers):
        x, y = 12 + index % columns * (SIDE + 12), 12 + index // columns * (SIDE + below)
        sheet.paste(Image.open(file), (x, y))
        right = answer.label == label
        said = f"{answer.label}  {answer.score:.0%}" + ("" if right else f"  (it is {label})")
        draw.text((x, y + SIDE + 5), said, (34, 107, 76) if right else (168, 50, 42), larger)
        draw.text((x, y + SIDE + 26), f"adapter {answer.adapter}", (102, 106, 103), smaller)
    sheet.save(path)
    return f"the batch and its answers: {path}"
