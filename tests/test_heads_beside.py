"""Heads of several kinds in one bank: a linear one, and those with a hidden layer that AdapterHub's adapters bring."""

from __future__ import annotations

from cases import randomised

from graftax import Head, LoRA, Predictor
from graftax.adapters.adapter import Adapter
from graftax.models.backbone import Backbone

TEXTS = ["the early bird", "one two three"]


def with_head(backbone: Backbone, seed: int, hidden: str, labels: str) -> Adapter:
    modules = ("classifier",) if hidden == "none" else ("dense", "classifier")
    methods = (LoRA(r=2), Head(labels=len(labels), hidden=hidden, modules=modules))
    known = {"task": "classify", "labels": tuple(labels), "fingerprint": backbone.fingerprint}
    return randomised(Adapter.create(methods, backbone.sites, **known), seed, 0.3)


def test_each_answers_with_its_own(tiny: Backbone) -> None:
    """The last kind that was loaded answered for all: others said that every class is as likely."""
    adapters = {
        "linear": with_head(tiny, 1, "none", "ab"),
        "tanh": with_head(tiny, 2, "tanh", "abc"),
        "relu": with_head(tiny, 3, "relu", "abcdefghijk"),
    }
    together = Predictor(tiny)
    for name, adapter in adapters.items():
        together.load(name, adapter)
    for name, adapter in adapters.items():
        alone = Predictor(tiny)
        alone.load(name, adapter)
        for found, expected in zip(together.predict(TEXTS, name), alone.predict(TEXTS, name), strict=True):
            assert found.label == expected.label
            assert found.probabilities is not None
            assert expected.probabilities is not None
            for label, probability in expected.probabilities.items():
                assert abs(found.probabilities[label] - probability) < 1e-5
            assert max(found.probabilities.values()) > 1.01 / len(adapter.labels)
