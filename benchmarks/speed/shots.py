"""Names and a few pictures: what Tip-Adapter and CLIP-Adapter add to classes by their names, in a space that was joined here.

    python benchmarks/speed/shots.py IMAGE_DIR TEXT_DIR CIFAR_DIR [--seeds 5] [--pixels 96]

Each seed joins two frozen towers on captions of eight of CIFAR-10's classes (`two_towers.py`). Then it knows all ten by name,
and k pictures of each, without captions. Of the test pictures it says the accuracy among all ten names by

- `names`: no pictures (`zero_shot`), and `nearest mean`: no names, of the k pictures in the joint space,
- `tip_adapter`, as it is made, with each `alpha`; and `tip_adapter, trained`: Tip-Adapter-F, from alpha 1,
- `clip_adapter`, trained, and `names, trained`: the classifier by names as a start, projection and all.

Means over the seeds, with 95% intervals of Student's t. Accuracy, not speed; it lies here with what is run by hand.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from two_towers import SHOTS, TEMPLATES, named_rows, of_size, unit

from graftax import (
    Adapter,
    Joint,
    Predictor,
    Recipe,
    clip_adapter,
    load_adapter,
    load_backbone,
    pair,
    tip_adapter,
    train_many,
    zero_shot,
)

ALPHAS = (1.0, 10.0, 100.0)  # how much the kept pictures count beside the names


def answers(adapter: Adapter, features: np.ndarray) -> np.ndarray:
    """The class that a head alone finds likeliest, of features that the frozen tower says."""
    (head,) = adapter.methods
    ((trainable, fixed),) = adapter.states[head.key].values()
    logits: np.ndarray = np.asarray(head.apply(trainable | fixed, features, None, None, None))
    return logits.argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("image", "text", "cifar"):
        parser.add_argument(name, type=Path)
    for name, default in (("seeds", 5), ("pixels", 96), ("per-class", 100), ("captions", 2), ("test", 1000), ("epochs", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=1e-3)
    given = parser.parse_args()
    data = np.load(next(given.cifar.glob("*.npz")))
    classes, y = [str(name) for name in data["classes"]], data["y_train"].astype(int)
    x, x_test, y_test = data["x_train"], data["x_test"][: given.test], data["y_test"][: given.test].astype(int)
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        image = load_backbone(of_size(given.image, given.pixels, Path(folder) / given.image.name))
        both, predictor = pair(image, load_backbone(given.text)), Predictor(image)
        tested = predictor.embed([*x_test])
        captioned: dict[str, Any] = {}
        few: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for seed in range(given.seeds):
            random = np.random.default_rng(seed)
            held = random.choice(len(classes), 2, replace=False)
            drawn = [
                random.choice(np.flatnonzero(y == c), given.per_class + max(SHOTS), replace=False) for c in range(len(classes))
            ]
            shown = [i for c, own in enumerate(drawn) if c not in held for i in own[: given.per_class]]
            pictures = [{"image": x[i], "label": classes[y[i]]} for i in shown]
            captioned[str(seed)] = [*named_rows(random, pictures, given.captions)]
            for k in SHOTS:
                few[seed, k] = [{"image": x[i], "label": classes[y[i]]} for own in drawn for i in own[given.per_class :][:k]]
        joining = Recipe(epochs=20, lr=1e-3, batch_size=128, max_length=24, weight_decay=0.1, clip=None)
        out = Path(folder) / "joined"
        train_many(both, captioned, out, task="contrastive", method=Joint(dim=128), recipe=joining, progress=False)
        starts: dict[str, Any] = {}
        for (seed, k), rows in few.items():
            named = zero_shot(image, both, classes, prompts=TEMPLATES, adapter=out / str(seed))
            tips = {alpha: tip_adapter(image, named, rows, alpha=alpha) for alpha in ALPHAS}
            ((leaves, _),) = named.states[named.methods[0].key].values()
            space, labels = unit(tested @ leaves["projection"].T), np.array([classes.index(row["label"]) for row in rows])
            kept = unit(predictor.embed([row["image"] for row in rows]) @ leaves["projection"].T)
            means = unit(np.stack([kept[labels == c].mean(0) for c in range(len(classes))]))
            for what, said in (
                ("names", answers(named, tested)),
                (f"{k}: nearest mean", (space @ means.T).argmax(1)),
                *((f"{k}: tip_adapter, alpha {alpha:g}", answers(tip, tested)) for alpha, tip in tips.items()),
            ):
                measured.setdefault(what, []).append(float(np.mean(said == y_test)))
            for what, start in (
                ("tip_adapter", tips[ALPHAS[0]]),
                ("clip_adapter", clip_adapter(image, named, seed=seed)),
                ("names", named),
            ):
                starts[f"{seed}-{k}-{what}"] = (rows, start)
        run = train_many(
            image,
            {name: rows for name, (rows, _) in starts.items()},
            Path(folder) / "trained",
            task="image-classify",
            each={name: {"method": start, "seed": int(name.split("-")[0])} for name, (_, start) in starts.items()},
            recipe=Recipe(epochs=given.epochs, lr=given.lr, batch_size=64),
            progress=False,
        )
        for name, result in run.items():
            _, k, what = name.split("-")
            right = np.mean(answers(load_adapter(result.directory, image), tested) == y_test)
            measured.setdefault(f"{k}: {what}, trained", []).append(float(right))
    measured["names"] = measured["names"][:: len(SHOTS)]
    for what, values in measured.items():
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        print(f"| {what} | {100 * np.mean(values):.1f}% ± {100 * half:.1f} |")


if __name__ == "__main__":
    main()
