"""Pictures classified by the names of classes (Radford et al., 2021, arXiv:2103.00020), without pictures of them.

    t = the mean over the prompts of what the tower of texts says of "a photo of a NAME.", at length 1
    logits = scale t v + bias                                    v: what the tower of pictures says, at length 1

That is a head whose kernel is `scale t`: an adapter of a head alone, on the tower of pictures. Of towers that an adapter has
joined, v is V x at length 1 (`adapters/methods/joint.py`), x being the features of a picture: then V is a part of the head
(`joint_head.py`), and what else the adapter has at the tower of pictures stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for
from ..adapters.halves import half_of
from ..adapters.method import Leaves
from ..adapters.methods.head import POOLED, VECTOR, Head
from ..adapters.methods.joint import COMPARISON, Joint
from ..adapters.methods.joint_head import JointHead
from ..adapters.methods.trainable_tokens import TrainableTokens
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..models.pairs import PairConfig, tokenizer_of
from ..models.tokens import Tokenizer
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
    prompts: Sequence[str] | Mapping[str, str] | None = None,
    adapter: Adapter | Location | None = None,
) -> Adapter:
    """A classifier of pictures, of the names of its classes; it can be trained on.

    Args:
        pictures: the tower that the adapter is for.
        texts: the other tower of the same model, or a pair of which `pictures` is one.
        names: of the classes, as texts say them.
        prompts: texts with {} where the name stands; a class is the mean of what is said of them. Or the text of each name, as
            `learned_context` makes them. None: the text that the adapter's training rows were made of, where they were made
            of one column (`text="a drawing of a {label}."`), or else "a photo of a {}.".
        adapter: of the tower of texts; of a pair, one that was trained contrastively, whose half for pictures is part of what
            is returned.

    Raises:
        GraftaxError: backbones whose vectors cannot be compared, fewer than two names or one twice, a prompt without {},
            prompts without the words that the adapter has learnt.
    """
    for backbone in (pictures, texts):
        expect_backbone(backbone)
    if len(names) < 2 or len({*names}) < len(names):
        raise GraftaxError(f"zero-shot needs two names of classes or more, none of them twice, got {shown(list(names))}.")
    whole = None if adapter is None else adapter_for(texts, adapter)
    said_of = _prompted(names, _usual(whole) if prompts is None else prompts)
    if isinstance(texts.config, PairConfig):
        _refuse_without_words(tokenizer_of(texts), whole, said_of)
        return _of_pair(pictures, texts, names, said_of, whole)
    size = pictures.config.vector_size
    if not size or size != texts.config.vector_size or texts.family.processor.kind != "text":
        raise GraftaxError(f"{pictures.name} and {texts.name} are no two towers of one model, whose vectors can be compared.")
    said = comparison(pictures) or comparison(texts)
    if said is None:
        raise GraftaxError(f"{pictures.name} does not say its logit_scale: load both towers from the whole checkpoint.")
    classes = _vectors_of(texts, whole, said_of, len(names))
    return _classifier(pictures, names, classes, said, Head(site=VECTOR, labels=len(names)), {})


def _of_pair(
    pictures: Backbone, both: Backbone, names: Sequence[str], said_of: Sequence[str], adapter: Adapter | None
) -> Adapter:
    """The same of a pair, and of an adapter that was trained on it."""
    config: PairConfig = both.config
    if pictures.fingerprint != config.image.fingerprint:
        raise GraftaxError(f"{pictures.name} is not the tower of pictures of {both.name}, which is {config.image.called}.")
    classes = _vectors_of(both, adapter, [{"text": text} for text in said_of], len(names))
    joint = adapter.method(Joint.name) if adapter else None
    at = {site.name: leaves for site, (leaves, _) in adapter.states[joint.key].items()} if adapter and joint else {}
    log_scale, bias = np.log(config.scale), np.float64(config.bias)
    if COMPARISON in at:
        log_scale, bias = log_scale + at[COMPARISON]["log_scale"], bias + at[COMPARISON]["bias"]
    said = np.exp(log_scale).item(), bias.item()
    site, count, projected = VECTOR if pictures.config.vector_size else POOLED, len(names), at.get(config.image.joint)
    if projected is None:
        found = _classifier(pictures, names, classes, said, Head(site=site, labels=count), {})
    else:
        head = JointHead(site=site, labels=count, width=classes.shape[1])
        found = _classifier(pictures, names, classes, said, head, {"projection": projected["kernel"]})
    if adapter is None:
        return found
    methods, states = half_of(adapter, config.image.name, pictures.sites)
    parents = (adapter.source,) if adapter.source else ()
    return replace(found, methods=(*methods, *found.methods), states=states | found.states, parents=parents)


def _classifier(
    pictures: Backbone, names: Sequence[str], classes: np.ndarray, said: tuple[float, float], head: Head, beside: Leaves
) -> Adapter:
    """An adapter of a head alone, whose kernel are the vectors of classes."""
    scale, bias = said
    (site,) = head.select(pictures.sites)
    leaves: dict[str, Any] = {"kernel": scale * classes, "bias": np.full(len(names), bias, np.float32), **beside}
    leaves = {name: np.asarray(leaf, np.float32) for name, leaf in leaves.items()}
    fixed = {name: np.asarray(leaf) for name, leaf in head.fixed(site).items()}
    return Adapter((head,), {head.key: {site: (leaves, fixed)}}, "image-classify", tuple(names), pictures.fingerprint)


def _usual(adapter: Adapter | None) -> Sequence[str]:
    """The prompt that an adapter was trained with, where its rows' texts were made of one column; or else CLIP's."""
    said = str(adapter.recipe.get("text", "")) if adapter else ""
    prompt, named = re.subn(r"\{[^{}]*\}", "{}", said)
    return (prompt,) if named == 1 else PROMPTS


def _refuse_without_words(texts: Tokenizer, adapter: Adapter | None, said_of: Sequence[str]) -> None:
    """An error where an adapter has learnt words that are in none of the texts: it would change nothing, and nobody see it."""
    learnt = None if adapter is None else adapter.method(TrainableTokens.name)
    if isinstance(learnt, TrainableTokens) and not any(int(i) in learnt.ids for ids in texts.ids(list(said_of)) for i in ids):
        raise GraftaxError(
            "the adapter has learnt words, and no prompt has them: give those of learned_context, which it was trained with."
        )


def _prompted(names: Sequence[str], prompts: Sequence[str] | Mapping[str, str]) -> list[str]:
    """What is said of the classes, the prompts of each behind one another."""
    if isinstance(prompts, Mapping):
        if missing := [name for name in names if name not in prompts]:
            raise GraftaxError(f"there is no text for {shown(missing)}; there are some for {shown([*prompts])}.")
        return [prompts[name] for name in names]
    if not prompts or not all("{}" in prompt for prompt in prompts):
        raise GraftaxError(f"a prompt is a text with {{}} where the name of a class stands, got {shown(list(prompts))}.")
    return [prompt.replace("{}", name) for name in names for prompt in prompts]


def _vectors_of(texts: Backbone, adapter: Adapter | None, rows: Sequence[Any], classes: int) -> np.ndarray:
    """What is said of each class, at length 1, of rows that have its prompts behind one another: `[classes, size]`."""
    predictor = Predictor(texts)
    if adapter is not None:
        predictor.load("texts", adapter)
    vectors = _unit(predictor.embed(rows, None if adapter is None else ["texts"] * len(rows)))
    return _unit(vectors.reshape(classes, -1, vectors.shape[1]).mean(1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
