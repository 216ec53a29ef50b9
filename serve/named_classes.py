"""Pictures classified by the names of classes (Radford et al., 2021, arXiv:2103.00020), with two towers and no training.

    t = the mean over the prompts of what the tower of texts says of "a photo of a NAME.", at length 1
    logits = scale t v + bias                                    v: what the tower of pictures says, at length 1

That is a head whose kernel is `scale t`: an adapter of a head alone, on the tower of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.methods.head import VECTOR, Head
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..models.towers import comparison
from ..typed import Location, held, shown
from .predictor import Predictor

PROMPTS = ("a photo of a {}.",)


@held
def zero_shot(
    pictures: Backbone,
    texts: Backbone,
    names: Sequence[str],
    *,
    prompts: Sequence[str] = PROMPTS,
    adapter: Adapter | Location | None = None,
) -> Adapter:
    """A classifier of pictures, of the names of its classes; it can be trained on.

    Args:
        pictures: the tower that the adapter is for.
        texts: the other tower of the same model.
        names: of the classes, as texts say them.
        prompts: texts with {} where the name stands; a class is the mean of what is said of them.
        adapter: of the tower of texts.

    Raises:
        GraftaxError: backbones whose vectors cannot be compared, fewer than two names or one twice, a prompt without {}.
    """
    for backbone in (pictures, texts):
        expect_backbone(backbone)
    size = pictures.config.vector_size
    if not size or size != texts.config.vector_size or texts.family.processor.kind != "text":
        raise GraftaxError(f"{pictures.name} and {texts.name} are no two towers of one model, whose vectors can be compared.")
    if len(names) < 2 or len({*names}) < len(names):
        raise GraftaxError(f"zero-shot needs two names of classes or more, none of them twice, got {shown(list(names))}.")
    if not prompts or not all("{}" in prompt for prompt in prompts):
        raise GraftaxError(f"a prompt is a text with {{}} where the name of a class stands, got {shown(list(prompts))}.")
    said = comparison(pictures) or comparison(texts)
    if said is None:
        raise GraftaxError(f"{pictures.name} does not say its logit_scale: load both towers from the whole checkpoint.")
    scale, bias = said
    predictor = Predictor(texts)
    if adapter is not None:
        predictor.load("texts", adapter)
    rows = [prompt.replace("{}", name) for name in names for prompt in prompts]
    vectors = _unit(predictor.embed(rows, None if adapter is None else ["texts"] * len(rows)))
    classes = _unit(vectors.reshape(len(names), len(prompts), size).mean(1))
    head = Head(site=VECTOR, labels=len(names))
    (site,) = head.select(pictures.sites)
    leaves = {"kernel": scale * classes, "bias": np.full(len(names), bias, np.float32)}
    fixed = {name: np.asarray(leaf) for name, leaf in head.fixed(site).items()}
    return Adapter((head,), {head.key: {site: (leaves, fixed)}}, "image-classify", tuple(names), pictures.fingerprint)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
