"""Contrastive training of a tower of pictures and one of texts: each item's picture belongs to its text, and to no other's.

    z_ij = scale * (u_i . w_j) + bias              u_i, w_j: the vectors of picture i and text j of a batch, at length 1
    P_ij = 1 where text j belongs to picture i     i = j, or both items have one text, one picture or one label

    contrastive            mean over i of  - sum_j P_ij / P_i. log softmax_j(z_i.), and of the same of texts i, halved
    contrastive-sigmoid    mean over i of  - sum_j log sigmoid(z_ij) where P_ij, log sigmoid(-z_ij) elsewhere

The first is CLIP's loss (Radford et al., 2021, arXiv:2103.00020), the second SigLIP's (Zhai et al., 2023, arXiv:2303.15343),
where no two items of a batch have a text or a picture in common. Of class names they often have: eight pictures of a batch are
"a photo of a cat.". Counted as CLIP and SigLIP count, seven of the eight would be wrong for each, and a cat would learn to be
unlike cats. So all of them are right, each by an equal share (UniCL: Yang et al., 2022, arXiv:2204.03610), and the least that
the first loss can be is the entropy of the shares, not 0. Texts are one where their tokens are, pictures where their pixels
are. Rows may say besides, in a column `label`, which items belong together: captions of one class in several wordings do.

What is measured is retrieval among all rows: how often the nearest of all texts is one of a picture's own, how often one of the
nearest five or ten is, the median rank of the first that is; and all this the other way round. With texts that name classes the
first of these is the accuracy of a classifier by names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.methods.joint import Joint
from ..adapters.task_words import words_for
from ..data.columns import Columns, Field, filled, read_fields
from ..data.examples import Examples
from ..data.prepared import Prepared
from ..data.sources import Source
from ..data.values import label_of
from ..shapes import AnyArray, Bool, Float, Int, shaped
from . import metrics
from .main_metrics import main_metric_of
from .outputs import OfPair
from .task import Answer, Settings, Task, mean_of

_LABEL = Field("label", label_of, read="found")


class Contrastive(Task):
    """A softmax over the texts of a batch for each picture, and over its pictures for each text."""

    name = "contrastive"
    words = words_for(name)
    output = OfPair(Joint())
    main_metric, lower_is_better = main_metric_of(name)
    about = "pair"

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (*processor.fields, _LABEL)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        fields, source = self.fields(processor), filled(source, columns["text"])
        source.require(*(columns[field.name] for field in processor.fields))
        return Examples(read_fields(source, columns, fields), None, source.name)

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        return ()

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        """An item's label is three numbers: which of the pictures it has, which of the texts, and which of the labels."""
        items = processor.items(examples.fields, max_length)
        pictures = _numbered(hashlib.sha256(item.image.tobytes()).digest() for item in items)
        texts = _numbered(item.text.tobytes() for item in items)
        labels = _numbered(examples.fields["label"]) if "label" in examples.fields else texts
        return Prepared(examples, items, [np.array(own, np.int32) for own in zip(pictures, texts, labels, strict=True)])

    @shaped
    def loss(
        self,
        outputs: Float[Array, "items 2 more"],
        labels: Int[AnyArray, "items 3"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        logits, right, there = _compared(outputs, labels, weight)
        each = (_cross_entropy(logits, right, there) + _cross_entropy(logits.T, right.T, there)) / 2
        return mean_of(each, weight)

    def answer(self, outputs: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        """An item is answered by its vectors: what they are worth is seen beside others'."""
        return Answer(None, outputs)

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        vectors = np.stack([answer.score for answer in answers])
        pictures = _numbered(picture.identity for picture in examples.fields["image"])
        texts = _numbered(examples.fields["text"])
        labels = _numbered(examples.fields["label"]) if "label" in examples.fields else texts
        return metrics.retrieval(vectors[:, 0] @ vectors[:, 1].T, pictures, texts, labels)


class SigmoidContrastive(Contrastive):
    """Each pair of a picture and a text of a batch by itself."""

    name = "contrastive-sigmoid"
    words = words_for(name)
    output = OfPair(Joint(scale=0.7, bias=-10.0))  # the scale is 10 then, as SigLIP begins
    main_metric, lower_is_better = main_metric_of(name)

    @shaped
    def loss(
        self,
        outputs: Float[Array, "items 2 more"],
        labels: Int[AnyArray, "items 3"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        logits, right, there = _compared(outputs, labels, weight)
        each = -jax.nn.log_sigmoid(jnp.where(right, logits, -logits))
        return mean_of(jnp.sum(jnp.where(there, each, 0.0), axis=1), weight)


def _numbered(values: Iterable[Hashable]) -> list[int]:
    """A number for each value, the same for two that are the same: 0 for the first."""
    found: dict[Hashable, int] = {}
    return [found.setdefault(value, len(found)) for value in values]


@shaped
def _compared(
    outputs: Float[Array, "items 2 more"], labels: Int[AnyArray, "items 3"], weight: Float[Array, " items"]
) -> tuple[Float[Array, "items items"], Bool[Array, "items items"], Bool[Array, " items"]]:
    """Logits of each picture and text, which of these belong together, and which items there are."""
    there = weight > 0
    same = (labels[:, None] == labels[None, :]).any(-1)
    return outputs[:, 0] @ outputs[:, 1].T, same & there[:, None] & there, there


@shaped
def _cross_entropy(
    logits: Float[Array, "items items"], right: Bool[Array, "items items"], there: Bool[Array, " items"]
) -> Float[Array, " items"]:
    """Of each row, against an equal share for all that are right."""
    logs = jax.nn.log_softmax(jnp.where(there, logits, -1e9))
    return -jnp.sum(jnp.where(right, logs, 0.0), axis=1) / jnp.maximum(right.sum(1), 1).astype(logs.dtype)
