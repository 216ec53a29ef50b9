"""A head across two towers: learnt of texts, it classifies pictures; and what is known of a pair without any adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Graftax
from refusals import refused
from tiny import FRUIT
from tower_pairs import rows

from graftax import (
    Adapter,
    Head,
    LoRA,
    Predictor,
    Recipe,
    across,
    load_adapter,
    merge,
    save_adapter,
    train_many,
    zero_shot,
)
from graftax.models.backbone import Backbone
from graftax.models.pairs import tower_of
from graftax.serve.evaluation import evaluate_language

SAID = [f"{words} {name}" for words in ("a red", "the red", "a heavy red", "one red") for name in FRUIT[:4]]
HEAD = Head(site="head.vector")
TWO = [{"text": "plum", "label": "fruit"}, {"text": "zinc", "label": "metal"}]


@pytest.fixture(scope="module")
def agreeing(clip: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A pair whose towers were trained against each other, as CLIP's are: LoRA on both, folded in."""
    out, recipe = tmp_path_factory.mktemp("agreeing"), Recipe(epochs=12, lr=5e-3, max_length=20)
    train_many(clip, {"a": rows(96)}, out, task="contrastive", recipe=recipe, progress=False)
    both, _ = merge(clip, load_adapter(out / "a", clip))
    return both


@pytest.fixture(scope="module")
def of_texts(agreeing: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that was trained on sentences."""
    out, data = tmp_path_factory.mktemp("texts"), [{"text": text, "label": text.split()[-1]} for text in SAID]
    recipe = Recipe(epochs=10, lr=1e-2, batch_size=8, max_length=20)
    run = train_many(tower_of(agreeing, "text"), {"said": data}, out, method=HEAD, recipe=recipe, progress=False)
    return run["said"].directory


def chances(tower: Backbone, adapter: Adapter, asked: list[Any]) -> np.ndarray:
    predictor = Predictor(tower)
    predictor.load("a", adapter)
    return np.array([[answer.probabilities[name] for name in FRUIT[:4]] for answer in predictor.predict(asked, "a")])


def softmax(z: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.exp(z - z.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def test_learnt_of_texts_it_classifies_pictures(agreeing: Backbone, of_texts: Path, tmp_path: Path) -> None:
    """By hand, with the gap and without; no picture was trained on, and it is right of almost all."""
    image, text, fresh = tower_of(agreeing, "image"), tower_of(agreeing, "text"), rows(24, seed=4)
    x, seen = [row["image"] for row in fresh], [row["image"] for row in rows(8, seed=9)]
    made, centred = across(agreeing, of_texts), across(agreeing, of_texts, texts=SAID, pictures=seen)
    (leaves,) = (own for states in load_adapter(of_texts, text).states.values() for own, _ in states.values())
    order = [load_adapter(of_texts, text).labels.index(name) for name in FRUIT[:4]]
    kernel, bias = leaves["kernel"][order], leaves["bias"][order]

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    v = unit(Predictor(image).embed(x))
    gap = unit(Predictor(text).embed(SAID)).mean(0) - unit(Predictor(image).embed(seen)).mean(0)
    assert np.linalg.norm(gap) > 0.1
    np.testing.assert_allclose(chances(image, made, x), softmax(v @ kernel.T + bias), atol=1e-5)
    found = chances(image, load_adapter(save_adapter(centred, tmp_path / "a", image), image), x)
    np.testing.assert_allclose(found, softmax((v + gap) @ kernel.T + bias), atol=1e-5)
    named = [FRUIT.index(row["text"].split()[-1]) for row in fresh]
    assert np.mean(found.argmax(1) == named) > 0.9
    back = across(agreeing, centred, texts=SAID, pictures=seen)
    np.testing.assert_allclose(chances(text, back, SAID), chances(text, load_adapter(of_texts, text), SAID), atol=1e-5)


def test_the_command(clip: Backbone, tmp_path: Path, graftax: Graftax) -> None:
    """Of a head at the tower of texts; and CLIP's own retrieval, without an adapter, is what its vectors say."""
    from PIL import Image

    image, text = tower_of(clip, "image"), tower_of(clip, "text")
    head = Adapter.create((replace(HEAD, labels=4, biased=False),), text.sites, labels=tuple(FRUIT[:4]))
    save_adapter(head, tmp_path / "said", text)
    (tmp_path / "some.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SAID))
    (tmp_path / "seen").mkdir()
    few = rows(6, seed=3)
    for i, row in enumerate(few):
        Image.fromarray(row["image"]).save(tmp_path / "seen" / f"{i}.png")
    told = ["--texts", str(tmp_path / "some.jsonl"), "--pictures", str(tmp_path / "seen")]
    pair = ["-b", str(clip.name), "--tower", "both"]
    assert graftax("across", *pair, "-a", str(tmp_path / "said"), *told, "-o", str(tmp_path / "out")).code == 0
    x = [row["image"] for row in few]
    wanted = across(clip, head, texts=SAID, pictures=x)
    np.testing.assert_allclose(chances(image, load_adapter(tmp_path / "out", image), x), chances(image, wanted, x), atol=1e-6)
    lines = [json.dumps({"image": f"seen/{i}.png", "text": row["text"]}) for i, row in enumerate(few)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    said = graftax("eval", *pair, "--data", str(tmp_path / "captions.jsonl"), "--json")
    assert json.loads(said.out.splitlines()[-1])["image_to_text"] == evaluate_language(clip, None, few)["image_to_text"]


def test_what_is_no_head_of_vectors(clip: Backbone, unlike: Backbone, tmp_path: Path) -> None:
    image = tower_of(clip, "image")
    probe = Adapter.create((image.head(4),), image.sites, task="image-classify", labels=tuple(FRUIT[:4]))
    named = zero_shot(image, clip, FRUIT[:4])
    texts = tower_of(unlike, "text")
    for call, why in (
        (lambda: across(unlike, named), "no pair of towers of one model"),
        (lambda: across(clip, probe), "head at head.pooled"),
        (lambda: across(clip, named, texts=SAID), "give both, or neither"),
        (lambda: across(clip, named, texts=SAID, pictures=[]), "none of one kind"),
        (lambda: across(clip, Adapter.create((LoRA(),), clip.sites, task="contrastive")), "of neither tower"),
        (lambda: train_many(texts, {"a": TWO}, tmp_path / "a", method=HEAD, progress=False), "for a head at head.vector"),
        (lambda: evaluate_language(unlike, None, rows(4)), "no pair of towers of one model"),
    ):
        line = refused(call)
        assert line is not None, why
        assert why in line
