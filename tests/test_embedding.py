"""Vectors of texts: transformers' last layer pooled by hand, under adapters, and as sentence-transformers' files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from graftax import Adapter, Average, GraftaxError, LoRA, Parallel, Predictor, Prefix, PromptTuning, load_backbone
from graftax.models.backbone import Backbone
from graftax.models.pooling import Pooling

TEXTS = ["apple iron fresh", "gold", "the old shop sells a red plum today"]
MODULES = ["Transformer", "Pooling", "Normalize"]


def as_sentence_transformers(
    tiny_dir: Path,
    directory: Path,
    pooling: dict[str, Any],
    modules: list[str] = MODULES,
    home: str = "sentence_transformers.models",
) -> Path:
    """A tiny backbone with that library's files beside it."""
    shutil.copytree(tiny_dir, directory)
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{module}" if i else "", "type": f"{home}.{module}"}
        for i, module in enumerate(modules)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    return directory


def by_hand(directory: Path, *names: str) -> np.ndarray:
    """transformers' last layer, pooled without padding, text by text."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    vectors = []
    for text in TEXTS:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy().astype(np.float64)
        ranks = np.arange(1, len(hidden) + 1)[:, None]
        pooled = {
            "cls": hidden[0],
            "max": hidden.max(0),
            "mean": hidden.mean(0),
            "mean_sqrt_len_tokens": hidden.sum(0) / np.sqrt(len(hidden)),
            "weightedmean": (ranks * hidden).sum(0) / ranks.sum(),
            "lasttoken": hidden[-1],
        }
        vectors.append(np.concatenate([pooled[name] for name in names]))
    return np.stack(vectors)


def test_mean_of_the_last_layer(tiny: Backbone, tiny_dir: Path) -> None:
    """Without sentence-transformers' files: the mean over each text's own tokens, whatever its neighbours' lengths."""
    assert np.allclose(Predictor(tiny).embed(TEXTS), by_hand(tiny_dir, "mean"), atol=1e-4)
    assert Predictor(tiny).embed([]).shape == (0, 32)


SWITCHES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def test_poolings_of_sentence_transformers(tiny_dir: Path, tmp_path: Path) -> None:
    """Each pooling that its config may name, and several one behind another; both ways of writing it."""
    backbone = as_sentence_transformers(tiny_dir, tmp_path / "backbone", {}, MODULES[:2])
    for names in [*((name,) for name in SWITCHES), ("cls", "mean")]:
        wanted = by_hand(tiny_dir, *names)
        for said in ({SWITCHES[name]: name in names for name in SWITCHES}, {"pooling_mode": list(names)}):
            (backbone / "1_Pooling" / "config.json").write_text(json.dumps(said))
            assert np.allclose(Predictor(load_backbone(backbone)).embed(TEXTS), wanted, atol=1e-4), names


def test_normalized(tiny_dir: Path, tmp_path: Path) -> None:
    """Where modules.json has a Normalize, vectors have length 1; modules are known by the end of their path."""
    home = "sentence_transformers.base.modules"
    directory = as_sentence_transformers(tiny_dir, tmp_path / "backbone", {"pooling_mode": "mean"}, home=home)
    vectors, wanted = Predictor(load_backbone(directory)).embed(TEXTS), by_hand(tiny_dir, "mean")
    assert np.allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "modules", "said"),
    [
        ({"pooling_mode": "mean"}, [*MODULES, "Dense"], "a module Dense, which is not supported"),
        ({"pooling_mode": "attention"}, MODULES, "its pooling is none that is supported: cls, max, mean"),
        ({"pooling_mode_cls_token": False}, MODULES, "its pooling is none that is supported"),
        ({"pooling_mode": 3}, MODULES, "its pooling is none that is supported"),
    ],
)
def test_what_would_give_other_vectors(
    tiny_dir: Path, tmp_path: Path, pooling: dict[str, Any], modules: list[str], said: str
) -> None:
    """Modules and poolings that are not computed here are named."""
    directory = as_sentence_transformers(tiny_dir, tmp_path / "backbone", pooling, modules)
    with pytest.raises(GraftaxError, match=said):
        Pooling.of(str(directory))
    (directory / "modules.json").write_text('{"not": "a list"}')
    with pytest.raises(GraftaxError, match="expected a list of modules"):
        Pooling.of(str(directory))


def test_texts_are_cut_where_the_directory_says(tiny_dir: Path, tmp_path: Path) -> None:
    """`max_seq_length` counts special tokens; a length that is asked for goes before it; without either all is read."""
    directory = as_sentence_transformers(tiny_dir, tmp_path / "st", {"pooling_mode_mean_tokens": True}, MODULES[:2])
    backbone, long = load_backbone(directory), "the old shop sells a red plum today"
    whole = Predictor(backbone).embed([long])
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5, "do_lower_case": False}))
    cut = Predictor(backbone).embed([long])
    np.testing.assert_allclose(cut, Predictor(backbone, max_length=5).embed([long]), atol=1e-6)
    np.testing.assert_allclose(whole, Predictor(backbone, max_length=40).embed([long]), atol=1e-6)
    assert np.abs(cut - whole).max() > 1e-3


def test_under_adapters(tiny: Backbone) -> None:
    """Every row under its own adapter: what each gives alone, and another vector than without; heads change nothing."""
    predictor, method = Predictor(tiny), LoRA(r=4, alpha=32)
    for seed, name in enumerate("ab"):
        adapter = Adapter.create((method, tiny.head(3)), tiny.sites, seed=seed, labels=("x", "y", "z"))
        for trainable, _ in adapter.states[method.key].values():
            trainable["b"] = np.random.default_rng(seed).standard_normal(trainable["b"].shape).astype(np.float32)
        predictor.load(name, adapter)
    text = TEXTS[0]
    none, a, b = predictor.embed([text] * 3, [None, "a", "b"])
    assert np.allclose(none, Predictor(tiny).embed([text])[0], atol=1e-5)
    assert np.allclose(a, predictor.embed([text], "a")[0], atol=1e-5)
    assert min(np.abs(a - none).max(), np.abs(b - none).max(), np.abs(a - b).max()) > 0.01
    assert np.allclose(predictor.embed([text], Average("a", "b", weights=(1, 0)))[0], a, atol=1e-4)
    assert np.allclose(predictor.embed([text], [Parallel("b", "a")]), [b, a], atol=1e-5)
    compiled = predictor.compilations
    predictor.embed([text] * 3, ["b", "a", None])
    assert predictor.compilations == compiled


def test_under_methods_that_add_tokens(tiny: Backbone) -> None:
    """A prompt's tokens are none of the text's: the mean is over the same positions, in mixed batches as alone."""
    predictor = Predictor(tiny)
    for name, method in (("prompt", PromptTuning(tokens=3)), ("prefix", Prefix(tokens=3))):
        made = Adapter.create((method,), tiny.sites, task="classify")
        for trainable, _ in made.states[method.key].values():
            for leaf, array in trainable.items():
                trainable[leaf] = np.random.default_rng(1).standard_normal(array.shape).astype(np.float32)
        predictor.load(name, made)
    mixed = predictor.embed(TEXTS, ["prompt", None, "prefix"])
    for vector, text, name in zip(mixed, TEXTS, ["prompt", None, "prefix"], strict=True):
        alone = predictor.embed([text], name)[0]
        assert np.allclose(vector, alone, atol=1e-5)
        changed = np.abs(alone - Predictor(tiny).embed([text])[0]).max()
        assert changed < 1e-4 if name is None else changed > 0.01


def test_of_a_language_model(teller: Backbone, tmp_path: Path) -> None:
    """A decoder's tokens have vectors, too; padding changes none."""
    predictor = Predictor(teller)
    together = predictor.embed(["One day", "One day, in the old shop, a red plum"])
    assert np.allclose(together[0], predictor.embed(["One day"])[0], atol=1e-5)


def test_an_encoder_decoder_is_refused(backbone_of: Any) -> None:
    """It has two stacks."""
    with pytest.raises(GraftaxError, match="encoder-decoder"):
        Predictor(backbone_of("bart")).embed(TEXTS)
