"""A few labelled pictures beside the names of classes: of a classifier by names, heads that learn of pictures.

    named = zero_shot(pictures, texts, names)         names alone (`named_classes.py`)
    tip_adapter(pictures, named, data)                Tip-Adapter: the pictures are kept; nothing is trained
    clip_adapter(pictures, named)                     CLIP-Adapter, which answers as the names do until it is trained

Each is an adapter of the tower of pictures, and an adapter can be trained on (`train_many(method=...)`): CLIP-Adapter so, and
Tip-Adapter-F. What else the classifier has at that tower, such as a LoRA, stands beside the head and acts as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import jax
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for
from ..adapters.fitting import head_of
from ..adapters.method import Leaves
from ..adapters.methods.clip_adapter import ClipAdapter
from ..adapters.methods.head import VECTOR, Head
from ..adapters.methods.joint_head import JointHead
from ..adapters.methods.prototypes import Prototypes
from ..adapters.methods.tip_adapter import TipAdapter
from ..adapters.sites import Site
from ..data.columns import Columns
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..tasks.read_examples import read_examples
from ..tasks.task_registry import task_named
from ..typed import Location, Positive, Seed, Size, Within, held
from .evaluation import rows_asked
from .predictor import Predictor


@held
def clip_adapter(
    pictures: Backbone,
    named: Adapter | Location,
    *,
    reduction: Size = 4,
    ratio: Annotated[float, Within(0.0, most=1.0)] = 0.2,
    seed: Seed = 0,
) -> Adapter:
    """CLIP-Adapter, to be trained: a bottleneck on a picture's vector, before classes by their names.

    Args:
        pictures: the tower that the adapter is for.
        named: classes by their names, as `zero_shot` makes them.
        reduction: how many times narrower than the vector the bottleneck is.
        ratio: how much of what is compared is learnt of pictures.
        seed: what the bottleneck starts with is drawn from it.

    Raises:
        GraftaxError: an adapter that is no classifier by names.
    """
    whole, site, frozen = _named(pictures, named)
    head = ClipAdapter(site=site.name, labels=len(frozen["kernel"]), width=_width(frozen), reduction=reduction, ratio=ratio)
    return _with(whole, head, site, jax.tree.map(np.asarray, head.init(jax.random.key(seed), site)), frozen)


@held
def tip_adapter(
    pictures: Backbone,
    named: Adapter | Location,
    data: Any,
    *,
    columns: Columns = Columns(),
    alpha: Positive = 1.0,
    beta: Positive = 5.5,
) -> Adapter:
    """Tip-Adapter: the vectors of labelled pictures, kept beside classes by their names. Nothing is trained.

    Args:
        pictures: the tower that the adapter is for.
        named: classes by their names, as `zero_shot` makes them.
        data: pictures with labels that are these names, as for `train_many`. All of them are kept.
        columns: which columns hold pictures and labels.
        alpha: how much the pictures count beside the names.
        beta: how near a picture must be to count.

    Raises:
        GraftaxError: an adapter that is no classifier by names; data that cannot be read, or with a label that is none of them.
    """
    whole, site, frozen = _named(pictures, named)
    names, task, predictor = whole.labels, task_named(whole.task), Predictor(pictures)
    examples = read_examples(data, columns, task, predictor.processor, names)
    labels = [int(label) for label in task.prepare(examples, names, predictor.processor, 1).labels]
    predictor.load("named", whole)
    features = predictor.embed(rows_asked(examples, predictor.processor), "named")
    shots = np.bincount(labels, minlength=len(names))
    head = TipAdapter(site=site.name, labels=len(names), width=_width(frozen), shots=int(shots.max()), alpha=alpha, beta=beta)
    keys = np.zeros((len(names), head.shots, head.room(site)), np.float32)
    for label, count in enumerate(shots):
        keys[label, :count] = head.vectors(features, frozen)[np.equal(labels, label)]
    held = (np.arange(head.shots) < shots[:, None]).astype(np.float32)
    return _with(whole, head, site, {"keys": keys}, frozen | {"held": held})


def _named(pictures: Backbone, named: Adapter | str | Any) -> tuple[Adapter, Site, Leaves]:
    """A classifier by names, the site of its head, and what the head holds."""
    expect_backbone(pictures)
    whole = adapter_for(pictures, named)
    head = head_of(whole)
    by_names = isinstance(head, JointHead) or (head is not None and head.site == VECTOR)
    if not by_names or isinstance(head, Prototypes):
        is_one = "has no head" if head is None else f"is a {head.name} at {head.site}"
        raise GraftaxError(f"expected classes by their names, as zero_shot makes them; this adapter {is_one}.")
    assert head is not None
    ((site, (leaves, _)),) = whole.states[head.key].items()
    return whole, site, leaves


def _width(frozen: Leaves) -> int:
    """Numbers in a vector of the joint space; 0 where nothing projects."""
    return len(frozen["projection"]) if "projection" in frozen else 0


def _with(whole: Adapter, head: Head, site: Site, learnt: Leaves, frozen: Leaves) -> Adapter:
    """An adapter with another head, in place of its own."""
    old = head_of(whole)
    states = {key: own for key, own in whole.states.items() if old is None or key != old.key}
    return replace(
        whole,
        methods=(*(method for method in whole.methods if method != old), head),
        states=states | {head.key: {site: (learnt, head.fixed(site) | frozen)}},
        parents=(whole.source,) if whole.source else whole.parents,
        source=None,
    )
