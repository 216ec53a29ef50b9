"""One batch of pictures under adapters of six methods and four sets of labels: each row is answered as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
from cases import randomised
from conftest import GetBackbone

from graftax import IA3, SSF, VPT, Adapter, BitFit, Bottleneck, DoRA, LoRA, Method, Predictor
from graftax.models.backbone import Backbone

SIX: dict[str, tuple[Method, ...]] = {
    "vit": (LoRA(r=3, alpha=5.0), DoRA(r=2, alpha=3.0), IA3(), Bottleneck(width=5), SSF(), VPT(tokens=3)),
    "cifar_resnet": (LoRA(r=3, alpha=5.0), DoRA(r=2, alpha=3.0), IA3(), Bottleneck(width=5), SSF(), BitFit()),
}
LABELS = (("cat", "dog"), ("ash", "oak", "yew"), ("red", "blue", "cat", "grey", "pink"), tuple("abcdefg"))


def adapter(backbone: Backbone, method: Method, labels: tuple[str, ...], seed: int) -> Adapter:
    known = {"task": backbone.family.task, "labels": labels, "fingerprint": backbone.fingerprint}
    return randomised(Adapter.create((method, backbone.head(len(labels))), backbone.sites, seed, **known), seed, 0.1)


@pytest.mark.parametrize("family", ["vit", pytest.param("cifar_resnet", marks=pytest.mark.slow)])
def test_rows_of_six_methods_and_four_sets_of_labels(family: str, backbone_of: GetBackbone) -> None:
    backbone = backbone_of(family)
    adapters = {str(i): adapter(backbone, method, LABELS[i % 4], i) for i, method in enumerate(SIX[family])}
    assert len({type(method) for made in adapters.values() for method in made.methods[:1]}) == 6
    pictures = [*np.random.default_rng(0).integers(0, 256, (12, *backbone.processor.shape), np.uint8)]
    names = [str(i % 6) for i in range(12)]
    together = Predictor(backbone)
    for name, made in adapters.items():
        together.load(name, made)
    answers = together.predict(pictures, names)
    for name, made in adapters.items():
        alone = Predictor(backbone)
        alone.load("it", made)
        own = [i for i in range(12) if names[i] == name]
        for i, one in zip(own, alone.predict([pictures[i] for i in own], "it"), strict=True):
            assert answers[i].probabilities is not None
            assert one.probabilities is not None
            assert {*answers[i].probabilities} == {*made.labels}
            assert answers[i].label == one.label
            for label in made.labels:
                assert answers[i].probabilities[label] == pytest.approx(one.probabilities[label], abs=1e-5)
    assert len({answer.label for answer in answers}) > 4  # not all the same
