"""How well flaws that graftax draws itself are found, pixel by pixel: heads on frozen features beside LoRA with a head.

    python benchmarks/speed/drawn_masks.py BACKBONE [SEEDS]

Fabric of four classes (good, hole, stain, pulled thread), so many pictures of each to learn from and others to be measured on
(`graftax/drawn_pictures.py`). A line for each way and seed: mean IoU, the IoU of each class, seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from graftax import LoRA, Predictor, Recipe, load_backbone, train_many
from graftax.drawn_pictures import write_pictures_with_masks
from graftax.serve.evaluation import measure

EACH, EACH_TEST, KIND, UPPER = 8, 8, "fabric", 6


def main(path: str, seeds: int) -> None:
    backbone = load_backbone(path)
    targets = tuple(site.path for site in LoRA().select(backbone.sites)[-UPPER:])
    ways = {
        "linear, frozen": (None, Recipe(epochs=30, lr=1e-2, batch_size=8)),
        "multiscale, frozen": (None, Recipe(epochs=15, lr=1e-2, batch_size=8, head="multiscale")),
        "linear, LoRA": (LoRA(r=8, alpha=16, targets=targets), Recipe(epochs=30, lr=3e-3, batch_size=8)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            train, test = (
                write_pictures_with_masks(KIND, Path(folder) / f"{part}{seed}", count, 10 * seed + place)
                for place, (part, count) in enumerate((("train", EACH), ("test", EACH_TEST)))
            )
            for name, (method, recipe) in ways.items():
                began = time.perf_counter()
                made = train_many(
                    backbone,
                    {KIND: train},
                    Path(folder) / name / str(seed),
                    method=method,
                    task="image-segment",
                    recipe=recipe.replace(seed=seed),
                    progress=False,
                )
                seconds, predictor = time.perf_counter() - began, Predictor(backbone)
                predictor.load(KIND, made[KIND].directory)
                found = measure(predictor, KIND, test).metrics
                told = "  ".join(f"{metric} {value:.3f}" for metric, value in found.items())
                print(f"{name:20} seed {seed}  {told}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
