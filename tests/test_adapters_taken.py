"""How calls take an adapter: in memory or its directory, wherever they have a backbone; and of which class it must be."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from cases import random_adapter
from tiny import toy_rows

from graftax import (
    Adapter,
    Generator,
    GraftaxError,
    LoRA,
    Predictor,
    Sampling,
    Stack,
    combine,
    export_adapter,
    load_adapter,
    merge,
    save_adapter,
    to_lora,
)
from graftax.models.backbone import Backbone
from graftax.notes import GraftaxNote
from graftax.serve import evaluate_language, measure


@pytest.fixture(scope="module")
def classifier(tiny: Backbone) -> Adapter:
    return dataclasses.replace(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), metrics={"epoch": 3, "loss": 0.5})


@pytest.fixture(scope="module")
def speaker(teller: Backbone) -> Adapter:
    return Adapter.create((LoRA(r=2),), teller.sites, task="lm", fingerprint=teller.fingerprint)


def test_a_directory_stands_for_its_adapter(tiny: Backbone, teller: Backbone, classifier: Adapter, tmp_path: Path) -> None:
    """With the same result, as a text or a path; saved again its file is the same, counts among the metrics included."""
    directory = save_adapter(classifier, tmp_path / "a", tiny)
    (whole, rest), (as_well, rest_too) = merge(tiny, classifier), merge(tiny, directory)
    assert whole.fingerprint == as_well.fingerprint == merge(tiny, str(directory))[0].fingerprint
    assert rest.labels == rest_too.labels
    assert '"epoch": 3,' in (directory / "graftax.json").read_text()
    again = save_adapter(directory, tmp_path / "again", tiny)
    assert (again / "graftax.json").read_bytes() == (directory / "graftax.json").read_bytes()
    export_adapter(directory, tmp_path / "hub", tiny)
    np.testing.assert_array_equal(
        next(iter(load_adapter(tmp_path / "hub", tiny).states["lora"].values()))[0]["a"],
        next(iter(classifier.states["lora"].values()))[0]["a"],
    )


def test_a_language_models_directory_is_measured(teller: Backbone, speaker: Adapter, tmp_path: Path) -> None:
    directory, rows = save_adapter(speaker, tmp_path / "a", teller), [{"text": "a plum"}]
    assert evaluate_language(teller, directory, rows) == evaluate_language(teller, speaker, rows)


def test_where_there_is_no_backbone_an_adapter_is_one_in_memory(classifier: Adapter) -> None:
    """No directory can be read without one, and the line says what is taken."""
    with pytest.raises(GraftaxError, match=r"adapters must be a list, each of which is an Adapter, got \['adapters/bank'\]"):
        combine(["adapters/bank"], [1.0])
    with pytest.raises(GraftaxError, match=r"adapter must be an Adapter, got 'adapters/bank'"):
        to_lora("adapters/bank")
    assert combine([classifier], np.array([0.5], np.float32)).labels == classifier.labels  # an array of weights is a list


def test_a_generator_asks_no_head(teller: Backbone, tmp_path: Path) -> None:
    """One that answers with a head was loaded, and never asked."""
    adapter = random_adapter(teller, (LoRA(r=2, alpha=3.0),))
    generator = Generator(teller)
    for given in (adapter, save_adapter(adapter, tmp_path / "a", teller)):
        with pytest.raises(GraftaxError, match=r"x: an adapter of task .classify. answers with its head.* into a Predictor"):
            generator.load("x", given)
    assert not generator.residents.registered()


def test_a_predictor_says_that_a_language_model_has_no_answer(teller: Backbone, speaker: Adapter) -> None:
    """It answered with None. Vectors, and a stack with an adapter that has a head, are there all the same."""
    predictor = Predictor(teller)
    classifier = random_adapter(teller, (LoRA(r=2, alpha=3.0),))
    predictor.load("speaker", speaker)
    predictor.load("classifier", classifier)
    for asked in ("speaker", Stack("speaker", "speaker")):
        with pytest.raises(GraftaxError, match="speaker: an adapter of task 'lm' has no head that could answer; a Generator"):
            predictor.predict(["a", "b"], [None, asked])
    assert predictor.embed(["a"], "speaker").shape == (1, 32)
    (answer,) = predictor.predict(["a"], Stack("speaker", "classifier"))
    merged = Predictor(merge(teller, speaker)[0])
    merged.load("classifier", classifier, any_backbone=True)
    (wanted,) = merged.predict(["a"], "classifier")
    assert (answer.label, answer.score) == (wanted.label, pytest.approx(wanted.score, abs=1e-5))
    assert predictor.predict(["a"])[0].label is None


def test_what_is_measured_by_its_answers(tiny: Backbone, classifier: Adapter) -> None:
    with pytest.raises(GraftaxError, match="adapters of task 'classify' are measured by what a Predictor answers"):
        evaluate_language(tiny, classifier, toy_rows())
    predictor = Predictor(tiny)
    predictor.load("a", classifier)
    with pytest.raises(GraftaxError, match="predictor must be a Predictor, got "):
        measure(tiny, "a", toy_rows())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"top_k": 5}, "top_k has no effect without a temperature."),
        ({"top_p": 0.5, "num_beams": 2}, "top_p has no effect without a temperature."),
        (
            {"min_p": 0.1, "length_penalty": 2.0},
            "min_p has no effect without a temperature; length_penalty has no effect without num_beams above 1.",
        ),
    ],
)
def test_settings_without_effect_are_noted(asked: dict, said: str, teller: Backbone) -> None:
    """As transformers does; once a call, and nothing changes."""
    generator = Generator(teller)
    with pytest.warns(GraftaxNote) as notes:
        found = generator.generate(["a", "b"], max_new_tokens=2, **asked)
    assert [str(one.message) for one in notes] == [said]
    plain = {name: value for name, value in asked.items() if name == "num_beams"}
    assert found == generator.generate(["a", "b"], max_new_tokens=2, **plain)


def test_settings_with_effect_are_not(teller: Backbone) -> None:
    generator = Generator(teller)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator.generate(["a"], sampling=Sampling(top_k=5, max_new_tokens=1), temperature=0.5)
        generator.generate(["a"], max_new_tokens=1, num_beams=2, length_penalty=0.5)
        generator.generate(["a"], max_new_tokens=1, repetition_penalty=1.5, seed=3)
