"""Two frozen towers that were never trained together, joined by projections on captions of class names, as in LiT.

    python benchmarks/speed/two_towers.py IMAGE_DIR TEXT_DIR CIFAR_DIR [--seeds 5] [--pixels 96]

Each seed leaves two of CIFAR-10's classes out, draws pictures of the other eight with captions from five templates, and trains
the projections and the temperature alone (task contrastive). Of the test pictures it then says

- `left out, of 2`: those of the two classes, told from each other by their names alone (chance 50%),
- `left out, of 10`: the same pictures among all ten names (chance 10%), and `seen, of 10`: those of the eight classes,
- `few-shot k`: all ten classes by the nearest mean of k pictures each: in the joint space, and by the frozen features,
- `ConSE`: what needs no training (Norouzi et al., 2014, arXiv:1312.5650), where the checkpoint classifies: a picture is the
  mean of what the tower of texts says of the names of its ten likeliest ImageNet classes, and is told from there.

Means over the seeds, with 95% intervals of Student's t. Accuracy, not speed; it lies here with what is run by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from graftax import Joint, Predictor, Recipe, load_backbone, pair, train_many, zero_shot
from graftax.models.backbone import Backbone

TEMPLATES = (
    *("a photo of a {}.", "a blurry photo of a {}.", "a small picture of the {}."),
    *("a low resolution photo of one {}.", "this is a {}."),
)
SHOTS = (1, 4, 16)
DRAWS = 10  # of the pictures of few-shot
LIKELIEST = 10  # ImageNet classes of a picture


def of_size(directory: Path, pixels: int, place: Path) -> Path:
    """The same checkpoint, which prepares pictures of another size."""
    shutil.copytree(directory, place)
    for name in ("preprocessor_config.json", "config.json"):
        if (place / name).exists():
            said = json.loads((place / name).read_text())
            if name == "preprocessor_config.json":
                said["size"] = {"height": pixels, "width": pixels}
            else:
                said["image_size"] = pixels
            (place / name).write_text(json.dumps(said))
    return place


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def few_shot(train: np.ndarray, y: np.ndarray, test: np.ndarray, y_test: np.ndarray, shots: int, seed: int) -> float:
    """Accuracy by the nearest mean, over some draws."""
    random, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        means = [train[random.choice(np.flatnonzero(y == c), shots, replace=False)].mean(0) for c in range(y.max() + 1)]
        found.append(((test @ unit(np.stack(means)).T).argmax(1) == y_test).mean())
    return float(np.mean(found))


def conse(image: Backbone, texts: np.ndarray, features: np.ndarray, names: Predictor) -> np.ndarray | None:
    """How near each picture is to each class, by the names of what the checkpoint takes it for; None: it classifies not."""
    own = image.own_head
    if own is None or not own.labels:
        return None
    ((leaves, _),) = next(iter(own.states.values())).values()
    said = unit(names.embed([f"a photo of a {label.split(',')[0]}." for label in own.labels]))
    logits = features @ leaves["kernel"].T + leaves["bias"]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances[np.argsort(np.argsort(-chances, axis=1), axis=1) >= LIKELIEST] = 0.0
    return unit(chances @ said) @ texts.T


def features_of(predictor: Predictor, pictures: np.ndarray) -> np.ndarray:
    return predictor.embed([*pictures])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("image", "text", "cifar"):
        parser.add_argument(name, type=Path)
    for name, default in (("seeds", 5), ("pixels", 96), ("pool", 100), ("per-class", 60), ("epochs", 20), ("dim", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("lr", 1e-3), ("weight-decay", 0.1)):
        parser.add_argument(f"--{name}", type=float, default=default)
    given = parser.parse_args()
    data = np.load(next(given.cifar.glob("*.npz")))
    classes = [str(name) for name in data["classes"]]
    pool = np.concatenate([np.flatnonzero(data["y_train"] == c)[: given.pool] for c in range(len(classes))])
    x, y = data["x_train"][pool], data["y_train"][pool].astype(int)
    x_test, y_test = data["x_test"], data["y_test"].astype(int)
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        image = load_backbone(of_size(given.image, given.pixels, Path(folder) / given.image.name))
        text = load_backbone(given.text)
        both, of_pictures, of_texts = pair(image, text), Predictor(image), Predictor(text)
        bare, bare_test = features_of(of_pictures, x), features_of(of_pictures, x_test)
        named = unit(of_texts.embed([f"a photo of a {name}." for name in classes]))
        untrained = conse(image, named, bare_test, of_texts)
        rows, held = dict[str, list[dict[str, Any]]](), []
        for seed in range(given.seeds):
            random = np.random.default_rng(seed)
            held.append(np.sort(random.choice(len(classes), 2, replace=False)))
            each_class = [random.choice(np.flatnonzero(y == c), given.per_class, replace=False) for c in range(len(classes))]
            rows[f"seed{seed}"] = [
                {"image": x[i], "text": TEMPLATES[random.integers(len(TEMPLATES))].format(classes[c]), "label": classes[c]}
                for c in range(len(classes))
                if c not in held[seed]
                for i in each_class[c]
            ]
        recipe = Recipe(
            epochs=given.epochs, lr=given.lr, batch_size=128, max_length=24, weight_decay=given.weight_decay, clip=None
        )
        each = {name: {"seed": seed} for seed, name in enumerate(rows)}
        out, joint = Path(folder) / "out", Joint(dim=given.dim)
        train_many(both, rows, out, task="contrastive", method=joint, recipe=recipe, each=each, progress=False)
        for seed, name in enumerate(rows):
            classifier = zero_shot(image, both, classes, prompts=TEMPLATES, adapter=out / name)
            ((leaves, _),) = classifier.states[classifier.methods[-1].key].values()
            space, space_test = (
                unit(features @ leaves["projection"].T) for features in (bare, bare_test)
            )  # what the head makes
            scores = {"trained": space_test @ leaves["kernel"].T} | ({} if untrained is None else {"ConSE": untrained})
            if not seed:  # and the head says so itself
                of_pictures.load(name, classifier)
                said = [answer.label for answer in of_pictures.predict([*x_test[:64]], name)]
                assert said == [classes[c] for c in scores["trained"][:64].argmax(1)]
            left = np.isin(y_test, held[seed])
            for who, z in scores.items():
                for what, right in (
                    ("left out, of 2", held[seed][z[left][:, held[seed]].argmax(1)] == y_test[left]),
                    ("left out, of 10", z[left].argmax(1) == y_test[left]),
                    ("seen, of 10", z[~left].argmax(1) == y_test[~left]),
                ):
                    measured.setdefault(f"{who}: {what}", []).append(right.mean())
            for shots in SHOTS:
                for where, train, test in (
                    ("joint space", space, space_test),
                    ("frozen features", unit(bare), unit(bare_test)),
                ):
                    right = few_shot(train, y, test, y_test, shots, seed)
                    measured.setdefault(f"few-shot {shots}, {where}", []).append(right)
            print(name, [classes[c] for c in held[seed]], {k: round(float(v[-1]), 3) for k, v in measured.items()}, flush=True)
    for what, values in measured.items():
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        print(f"| {what} | {100 * np.mean(values):.1f}% ± {100 * half:.1f} |")


if __name__ == "__main__":
    main()
