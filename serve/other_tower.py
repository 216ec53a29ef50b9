"""A head across the gap between two towers: trained on what one says of texts, it classifies pictures, or the other way round.

    logits = W v + b                          v: a tower's vector of an item, at length 1; the same W and b at either tower
    logits = W (v - m' + m) + b               m, m': mean vectors at the tower that W was trained on, and at the other

Towers that were trained against each other say much the same of a picture and of a text about it, so a head of one is a head of
the other. But vectors of pictures and vectors of texts lie in two narrow cones, apart from each other (Liang et al., 2022,
arXiv:2203.02053), and a head is off by the distance of their means. It is known without labels, and is taken up by the bias:
b + W (m - m'). Pictures and texts of the same subjects say it best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for
from ..adapters.fitting import head_of
from ..adapters.methods.head import VECTOR, Head
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..models.pairs import PairConfig, tower_of
from ..models.towers import TOWERS
from ..typed import Location, held
from .predictor import Predictor

_TASKS = dict(zip(TOWERS, ("image-classify", "classify"), strict=True))


@held
def across(
    pair: Backbone, adapter: Adapter | Location, *, texts: Sequence[Any] | None = None, pictures: Sequence[Any] | None = None
) -> Adapter:
    """A classifier at the other tower: of pictures, where it was trained on texts, or of texts.

    Args:
        pair: of towers of one model.
        adapter: of a head alone, at one of the towers, which reads its vectors: `train_many(method=Head(site="head.vector"))`.
        texts: some, without labels, and
        pictures: some, as a predictor takes them, whose means say how far the two towers lie apart; None of both: they are
            taken to lie together.

    Raises:
        GraftaxError: no pair of towers of one model, or an adapter that is no head at one of them; texts without pictures.
    """
    expect_backbone(pair)
    if not (isinstance(pair.config, PairConfig) and pair.config.joined):
        raise GraftaxError(f"{pair.name} is no pair of towers of one model, whose vectors can be compared.")
    if (texts is None) != (pictures is None):
        raise GraftaxError("how far two towers lie apart is said by texts and pictures: give both, or neither.")
    towers = {name: tower_of(pair, name) for name in TOWERS}
    of, whole = _at(towers, adapter)
    head = head_of(whole)
    if len(whole.methods) > 1 or type(head) is not Head or head.site != VECTOR:
        raise GraftaxError(f"only a head alone that reads vectors is one at either tower; this adapter has {_said(whole)}.")
    (other,) = (name for name in TOWERS if name != of)
    ((_, (leaves, fixed)),) = whole.states[head.key].items()
    if texts is not None and pictures is not None:
        means = {name: _mean(towers[name], rows) for name, rows in (("text", texts), ("image", pictures))}
        bias = leaves.get("bias", np.zeros(head.labels, np.float32)) + leaves["kernel"] @ (means[of] - means[other])
        head, leaves = replace(head, biased=True), leaves | {"bias": bias}
    (site,) = head.select(towers[other].sites)
    states = {head.key: {site: (leaves, fixed)}}
    parents = (whole.source,) if whole.source else whole.parents
    known: dict[str, Any] = {"task": _TASKS[other], "fingerprint": towers[other].fingerprint, "recipe": {}, "metrics": {}}
    return replace(whole, methods=(head,), states=states, parents=parents, source=None, data=None, **known)


def _at(towers: dict[str, Backbone], adapter: Adapter | str | Any) -> tuple[str, Adapter]:
    """The tower that an adapter is for, and the adapter."""
    refusals = []
    for name, tower in towers.items():
        try:
            found = adapter_for(tower, adapter)
        except GraftaxError as error:
            refusals.append(str(error))
            continue
        if found.task == _TASKS[name]:
            return name, found
        refusals.append(f"task {found.task!r} is not what the tower of {name}s is classified by, {_TASKS[name]!r}")
    raise GraftaxError(f"it is an adapter of neither tower: {'; '.join(refusals)}")


def _said(adapter: Adapter) -> str:
    return ", ".join(f"{m.name} at {m.site}" if isinstance(m, Head) else m.name for m in adapter.methods)


def _mean(tower: Backbone, rows: Sequence[Any]) -> np.ndarray:
    """The mean of a tower's vectors of rows, each at length 1."""
    if not len(rows):
        raise GraftaxError("how far two towers lie apart is said by texts and pictures, and there are none of one kind.")
    vectors = Predictor(tower).embed(rows)
    mean: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0)
    return mean
