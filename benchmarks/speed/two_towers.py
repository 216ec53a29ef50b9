"""Two frozen towers that were never trained together, joined by projections on captions, as in LiT.

    python benchmarks/speed/two_towers.py IMAGE_DIR TEXT_DIR CIFAR_DIR [--seeds 5] [--pixels 96] [--names DIR]

Each seed leaves two of CIFAR-10's classes out, draws pictures of the other eight with captions, and trains the projections and
the temperature alone (task contrastive). Two kinds of captions are compared:

- `names`: of the picture's class, in one of five templates. There are eight such names.
- `words`: half of the captions are `names`, the others say what the frozen tower's own ImageNet classifier takes the picture
  for, each of its thousand names as often as it is likely: "a photo of a speedboat.". No one labels anything for them, as
  nobody did for the captions that CLIP and LiT learnt from, and there are many.

Of the test pictures it then says

- `left out, of 2`: those of the two classes, told from each other by their names alone (chance 50%),
- `left out, of 10`: the same pictures among all ten names (chance 10%), and `seen, of 10`: those of the eight classes,
- `few-shot k`: all ten classes by the nearest mean of k pictures each: in the joint space, and by the frozen features,
- `ConSE`: what needs no training (Norouzi et al., 2014, arXiv:1312.5650): a picture is the mean of what the tower of texts says
  of the names of its ten likeliest ImageNet classes, and is told from there.

Where a checkpoint's config does not name its classes, `--names` is one of the same classes that does; a class more in front, as
TensorFlow's networks have for the background, is passed over. Means over the seeds, with 95% intervals of Student's t.
Accuracy, not speed; it lies here with what is run by hand.
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


def own_classifier(image: Backbone, named: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The head that the checkpoint brings, and the names of its classes as the config of `named` has them."""
    own = image.own_head
    assert own is not None, f"{image.name} does not classify"
    ((leaves, _),) = next(iter(own.states.values())).values()
    labels: dict[str, str] = json.loads((named / "config.json").read_text())["id2label"]
    words = [labels[key].split(",")[0] for key in sorted(labels, key=int)]
    return leaves, words[len(words) - len(leaves["bias"]) :]


def chances_of(leaves: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """How likely each ImageNet class is for each picture, `[pictures, classes]`."""
    logits = features @ leaves["kernel"].T + leaves["bias"]
    chances: np.ndarray = np.exp(logits - logits.max(1, keepdims=True))
    return chances / chances.sum(1, keepdims=True)


def conse(chances: np.ndarray, words: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """How near each picture is to each class, by what the tower of texts says of its likeliest ImageNet classes."""
    rank = np.argsort(np.argsort(-chances, axis=1), axis=1)
    return unit(np.where(rank < LIKELIEST, chances, 0.0) @ words) @ texts.T


def taken_for(random: np.random.Generator, pictures: list[dict[str, Any]], chances: np.ndarray, words: list[str]) -> Any:
    """Rows whose texts say what the checkpoint takes each picture for, as often as that is likely."""
    for picture, likely in zip(pictures, chances, strict=True):
        word = words[random.choice(len(words), p=likely)]
        yield picture | {"text": TEMPLATES[random.integers(len(TEMPLATES))].format(word), "label": f"taken for {word}"}


def features_of(predictor: Predictor, pictures: np.ndarray) -> np.ndarray:
    return predictor.embed([*pictures])


def named_rows(random: np.random.Generator, pictures: list[dict[str, Any]], captions: int) -> Any:
    """Rows whose texts name the class of each picture, in so many templates."""
    for picture in pictures:
        for template in random.choice(TEMPLATES, captions, replace=False):
            yield picture | {"text": template.format(picture["label"])}


def drawn_rows(
    random: np.random.Generator, pictures: list[dict[str, Any]], chances: np.ndarray, words: list[str], captions: int
) -> dict[str, list[dict[str, Any]]]:
    """The rows of both kinds, as many of one as of the other; `pictures` are rows with the name of their class."""
    named = [*named_rows(random, pictures, captions)]
    half = captions // 2
    said = [row for _ in range(captions - half) for row in taken_for(random, pictures, chances, words)]
    return {"names": named, "words": [*named_rows(random, pictures, half), *said]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("image", "text", "cifar"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--names", type=Path)
    for name, default in (("seeds", 5), ("pixels", 96), ("per-class", 200), ("captions", 4), ("epochs", 20), ("dim", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("lr", 1e-3), ("weight-decay", 0.1)):
        parser.add_argument(f"--{name}", type=float, default=default)
    given = parser.parse_args()
    data = np.load(next(given.cifar.glob("*.npz")))
    classes = [str(name) for name in data["classes"]]
    pool = np.concatenate([np.flatnonzero(data["y_train"] == c)[: given.per_class] for c in range(len(classes))])
    x, y = data["x_train"][pool], data["y_train"][pool].astype(int)
    x_test, y_test = data["x_test"], data["y_test"].astype(int)
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        image = load_backbone(of_size(given.image, given.pixels, Path(folder) / given.image.name))
        text = load_backbone(given.text)
        both, of_pictures, of_texts = pair(image, text), Predictor(image), Predictor(text)
        bare, bare_test = features_of(of_pictures, x), features_of(of_pictures, x_test)
        named = unit(of_texts.embed([f"a photo of a {name}." for name in classes]))
        own, words = own_classifier(image, given.names or given.image)
        vectors = unit(of_texts.embed([f"a photo of a {word}." for word in words]))
        chances, untrained = chances_of(own, bare), conse(chances_of(own, bare_test), vectors, named)
        rows, held = dict[str, list[dict[str, Any]]](), []
        for seed in range(given.seeds):
            random = np.random.default_rng(seed)
            held.append(np.sort(random.choice(len(classes), 2, replace=False)))
            shown = np.flatnonzero(~np.isin(y, held[seed]))
            pictures = [{"image": x[i], "label": classes[y[i]]} for i in shown]
            both_kinds = drawn_rows(random, pictures, chances[shown], words, given.captions)
            rows |= {f"{kind}-{seed}": drawn for kind, drawn in both_kinds.items()}
        recipe = Recipe(
            epochs=given.epochs, lr=given.lr, batch_size=128, max_length=24, weight_decay=given.weight_decay, clip=None
        )
        each = {name: {"seed": int(name.split("-")[1])} for name in rows}
        out, joint = Path(folder) / "out", Joint(dim=given.dim)
        train_many(both, rows, out, task="contrastive", method=joint, recipe=recipe, each=each, progress=False)
        for seed in range(given.seeds):
            scores = {"ConSE": untrained}
            for kind in ("names", "words"):
                classifier = zero_shot(image, both, classes, prompts=TEMPLATES, adapter=out / f"{kind}-{seed}")
                ((leaves, _),) = classifier.states[classifier.methods[-1].key].values()
                space, space_test = (unit(features @ leaves["projection"].T) for features in (bare, bare_test))  # the head's
                scores[kind] = space_test @ leaves["kernel"].T
                if not seed:  # and the head says so itself
                    of_pictures.load(kind, classifier)
                    said = [answer.label for answer in of_pictures.predict([*x_test[:64]], kind)]
                    assert said == [classes[c] for c in scores[kind][:64].argmax(1)]
                for shots in SHOTS:
                    right = few_shot(space, y, space_test, y_test, shots, seed)
                    measured.setdefault(f"few-shot {shots}, {kind}", []).append(right)
            for shots in SHOTS:
                right = few_shot(unit(bare), y, unit(bare_test), y_test, shots, seed)
                measured.setdefault(f"few-shot {shots}, frozen features", []).append(right)
            left = np.isin(y_test, held[seed])
            for who, z in scores.items():
                for what, right in (
                    ("left out, of 2", held[seed][z[left][:, held[seed]].argmax(1)] == y_test[left]),
                    ("left out, of 10", z[left].argmax(1) == y_test[left]),
                    ("seen, of 10", z[~left].argmax(1) == y_test[~left]),
                ):
                    measured.setdefault(f"{who}: {what}", []).append(right.mean())
            print(seed, [classes[c] for c in held[seed]], {k: round(float(v[-1]), 3) for k, v in measured.items()}, flush=True)
    for what, values in measured.items():
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        print(f"| {what} | {100 * np.mean(values):.1f}% ± {100 * half:.1f} |")


if __name__ == "__main__":
    main()
