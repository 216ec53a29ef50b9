"""Pictures classified by the names of classes, as transformers' CLIP and SigLIP do; an adapter of a head alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cases import logits
from reference import saved
from refusals import refused
from torch_towers import NAMES, pictures, similarities, torch_pair, with_towers

from graftax import GraftaxError, Predictor, load_backbone, save_adapter, zero_shot
from graftax.models.inputs import ImageInputs

PROMPTS = ["the {}.", "a new {}"]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_logits_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model, image, text = with_towers(kind, tmp_path)
    adapter, x = zero_shot(image, text, NAMES, prompts=["the {}."]), pictures()
    wanted = similarities(kind, model, text, [f"the {name}." for name in NAMES], x)
    assert np.ptp(wanted) > 0.1
    np.testing.assert_allclose(logits(image, adapter, ImageInputs(x)), wanted, atol=1e-4)


def test_several_prompts_are_one_class(tmp_path: Path) -> None:
    _, image, text = with_towers("clip", tmp_path)
    adapter = zero_shot(image, text, NAMES, prompts=PROMPTS)
    each = [zero_shot(image, text, NAMES, prompts=[prompt]) for prompt in PROMPTS]
    kernels = [next(iter(one.states[adapter.methods[0].key].values()))[0]["kernel"] for one in (adapter, *each)]
    mean = kernels[1] + kernels[2]
    wanted = np.exp(2.0) * mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(kernels[0], wanted, atol=1e-5)


def test_it_is_saved_and_answers(tmp_path: Path) -> None:
    """Beside the tower's other adapters, as any adapter of a head."""
    _, image, text = with_towers("siglip", tmp_path / "base")
    prepared = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 16, "width": 16}}
    (tmp_path / "base" / "preprocessor_config.json").write_text(json.dumps(prepared))
    save_adapter(zero_shot(image, text, NAMES, prompts=["the {}."]), tmp_path / "named", image)
    predictor = Predictor(image)
    predictor.load("named", tmp_path / "named")
    predictor.load("other", zero_shot(image, text, NAMES[::-1], prompts=["the {}."]))
    x = list(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8))
    answers = predictor.predict([*x, *x], ["named", "other", "other", "named"])
    texts = Predictor(text).embed([f"the {name}." for name in NAMES])
    vectors = predictor.embed(x)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors, texts)]
    likeliest = [NAMES[index] for index in (unit[0] @ unit[1].T).argmax(1)]
    assert [answer.label for answer in answers] == likeliest * 2


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    _, image, text = with_towers("clip", tmp_path / "both")
    other = load_backbone(saved(torch_pair("siglip"), tmp_path / "other"), tower="image")
    for call, why in (
        (lambda: zero_shot(other, text, NAMES), "no two towers of one model"),
        (lambda: zero_shot(text, image, NAMES), "no two towers of one model"),
        (lambda: zero_shot(image, text, ["plum", "plum"]), "none of them twice"),
        (lambda: zero_shot(image, text, NAMES, prompts=["a plum"]), "stands"),
    ):
        line = refused(call)
        assert line is not None
        assert why in line


def test_a_tower_must_be_said(tmp_path: Path) -> None:
    directory = saved(torch_pair("clip"), tmp_path)
    with pytest.raises(GraftaxError, match="has two towers: say which"):
        load_backbone(directory)
    with pytest.raises(GraftaxError, match="use image, text or both"):
        load_backbone(directory, tower="vision")
    alone = saved(torch_pair("clip").vision_model, tmp_path / "alone")
    with pytest.raises(GraftaxError, match="which is no pair of towers"):
        load_backbone(alone, tower="image")
