"""What JPEG compression cost a ResNet-20 on CIFAR-10, and how much of that adapters win back.

    python benchmarks/speed/compressed.py RESNET20_DIR CIFAR_DIR [--seeds 5] [--lr 1e-3] [--epochs 6] [--held-out]

The checkpoint has learnt from clean pictures and classifies them with 91.78%; 1,000 compressed copies of test pictures it gets
right less often. LoRA is trained on 4,000 compressed copies of training pictures, and with it the head that the checkpoint
brings. One adapter for each seed, all of them in one pack. Means over the seeds, with 95% intervals: of Student's t over the
seeds, and of a bootstrap over the test pictures. Then all of them averaged to one adapter (Wortsman et al., 2022, Model soups).

`--held-out` trains on 3,200 rows and judges on the other 800, to choose a setting without a look at the test pictures. The
checkpoint has learnt the clean originals of these by heart, so that what is chosen so is chosen with a bias.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from graftax import Adapter, Head, LoRA, Predictor, Recipe, combine, load_adapter, load_backbone, train_many

CLEAN = 91.78  # published, of this checkpoint
HELD_OUT, SPLIT_SEED = 800, 7
DRAWS = 10_000


def right(predictor: Predictor, pictures: np.ndarray, labels: list[str], adapter: str | None) -> np.ndarray:
    """Of each picture whether its label was found."""
    answers = predictor.predict([*pictures], adapter)
    return np.array([answer.label == label for answer, label in zip(answers, labels, strict=True)])


def over_pictures(right_share: np.ndarray) -> str:
    """The 95% interval of an accuracy, in percent; `right_share [pictures]`: how often each was right."""
    drawn = np.random.default_rng(0).integers(0, len(right_share), (DRAWS, len(right_share)))
    low, high = np.percentile(100 * right_share[drawn].mean(1), [2.5, 97.5])
    return f"[{low:.1f}, {high:.1f}]"


def averaged(adapters: Sequence[Adapter]) -> Adapter:
    """One adapter that is the mean of several: of their changes of kernels, and of their heads."""
    mean = combine(adapters, [1 / len(adapters)] * len(adapters))
    (head,) = (method for method in mean.methods if isinstance(method, Head))
    heads = [adapter.states[head.key] for adapter in adapters]
    averaged_head = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0, dtype=np.float32), *heads)
    return replace(mean, states={**mean.states, head.key: averaged_head})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("cifar", type=Path)
    for name, default in (("seeds", 5), ("epochs", 6), ("batch-size", 64), ("rank", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--augment", default="flip")
    parser.add_argument("--held-out", action="store_true")
    given = parser.parse_args()
    data = np.load(next(given.cifar.glob("*.npz")))
    classes = [str(name) for name in data["classes"]]
    x, x_test = data["x_train"], data["x_test"]
    y, y_test = ([classes[int(label)] for label in data[name]] for name in ("y_train", "y_test"))
    if given.held_out:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(x))
        x_test, y_test = x[order[:HELD_OUT]], [y[i] for i in order[:HELD_OUT]]
        x, y = x[order[HELD_OUT:]], [y[i] for i in order[HELD_OUT:]]
    backbone = load_backbone(given.backbone)
    own = backbone.own_head
    assert own is not None
    predictor = Predictor(backbone)
    before = right(predictor, x_test, y_test, None)
    rows: list[dict[str, Any]] = [{"image": picture, "label": label} for picture, label in zip(x, y, strict=True)]
    recipe = Recipe(
        epochs=given.epochs, lr=given.lr, batch_size=given.batch_size, schedule="cosine", augment=given.augment or None
    )
    with tempfile.TemporaryDirectory() as folder:
        names = [f"seed{seed}" for seed in range(given.seeds)]
        train_many(
            backbone,
            dict.fromkeys(names, rows),
            folder,
            task="image-classify",
            method=(LoRA(r=given.rank, alpha=2.0 * given.rank), own),
            recipe=recipe,
            each={name: {"seed": seed} for seed, name in enumerate(names)},
            progress=False,
        )
        found = []
        for name in names:
            predictor.load(name, Path(folder) / name)
            found.append(right(predictor, x_test, y_test, name))
        predictor.load("average", averaged([load_adapter(Path(folder) / name, backbone) for name in names]))
        average = right(predictor, x_test, y_test, "average")
    each = 100 * np.mean(found, axis=1)
    each = 100 * np.mean(found, axis=1)
    print(f"its own head: {100 * before.mean():.1f}%; LoRA by seed: {' '.join(f'{one:.1f}' for one in each)}")
    if given.seeds > 1:
        half = stats.t.ppf(0.975, given.seeds - 1) * each.std(ddof=1) / np.sqrt(given.seeds)
        print(f"mean {each.mean():.1f}% ± {half:.1f} over the seeds; {over_pictures(np.mean(found, axis=0))} over the pictures")
        print(f"all of them averaged to one adapter: {100 * average.mean():.1f}%, {over_pictures(average)} over the pictures")
    if not given.held_out:
        lost = CLEAN - 100 * before.mean()
        won, together = (100 * accuracy - 100 * before.mean() for accuracy in (np.mean(found), average.mean()))
        print(f"of {lost:.1f} points that were lost {won:.1f} are won back, {100 * won / lost:.0f}%;", end=" ")
        print(f"by the average {together:.1f}, {100 * together / lost:.0f}%")


if __name__ == "__main__":
    main()
