"""A picture against every text that the rows have, be it in the batch or not: so a classifier by names is trained.

    z_it = scale * (u_i . w_t) + bias                   u_i: of picture i of a batch; w_t: of text t, one of all T of the rows
    loss = mean over i of  - log softmax_t(z_it) of i's own text

Where texts are names in a prompt, "a photo of a cat.", this is the cross-entropy of the classifier that `zero_shot` makes: CoOp
(Zhou et al., 2022, arXiv:2109.01134) trains the words around the names with it, CLIP-LoRA (Zanella and Ben Ayed, 2024,
arXiv:2405.18541) both towers. What `contrastive.py` compares a picture with are the texts that its batch happens to hold, which
need no second look at the rows, however many there are. Here every step reads all T of them anew: they should be few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.methods.joint import Joint
from ..adapters.task_words import words_for
from ..data.batches import Planned, Shape, rung
from ..data.examples import Examples
from ..data.prepared import Prepared
from ..shapes import Float, shaped
from .contrastive import Contrastive
from .main_metrics import main_metric_of
from .outputs import OfPair
from .task import Settings, mean_of

_MOST = 1 << 20  # texts


@dataclass(frozen=True, eq=False)
class WithTexts(Prepared):
    """Examples as items, and the texts that each picture is compared with; a label is the number of an item's own."""

    texts: Sequence[Any] = ()  # tokens of each different one
    processor: Any = None  # of texts

    def take(self, examples: Sequence[int]) -> WithTexts:
        """Some of the examples; all of the texts."""
        taken = super().take(examples)
        return replace(self, examples=taken.examples, items=taken.items, labels=taken.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Room for the texts: how many, and how long."""
        longest = max(len(text) for text in self.texts)
        return rung(len(self.texts), _MOST), rung(longest, self.processor.max_length)


class Texts(NamedTuple):
    """What lies in a batch in the place of labels."""

    own: Any  # int32 [items]: which text belongs to each
    inputs: Any  # of all texts, `TextInputs` [texts, length]
    there: Any  # bool [texts]: which are no filling


class AgainstTexts(OfPair):
    """The vectors of each item's picture and text, and behind these those of all texts, which are items without a picture."""

    def widened(self, shape: Shape, parts: Sequence[Any]) -> Shape:
        sizes = [part.size for part in parts]
        return shape._replace(aside=(max(count for count, _ in sizes), max(length for _, length in sizes)))

    def lay(self, prepared: Any, planned: Planned, shape: Shape, room: int) -> Any:
        count, length = shape.aside if any(shape.aside) else prepared.size
        own = np.zeros(shape.items, np.int32)
        own[: len(planned.items)] = [prepared.labels[i] for i in planned.items]
        texts = prepared.texts if planned.items else ()  # what fills an idle slot is of no job, and its texts may not fit
        return Texts(own, prepared.processor.pad(texts, count, length), np.arange(count) < len(texts))

    @shaped
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: Any, key: Any = None, layers: Any = None
    ) -> Float[Array, "items 2 more"]:
        inputs = inputs._replace(text=labels.inputs)
        found = backbone.encode(params, state, inputs, key=key, layers=layers)
        pictures = jnp.concatenate([found.scale[:, None] * found.image, found.bias[:, None]], axis=-1)
        texts = jnp.concatenate([found.text, jnp.ones_like(found.text[:, :1])], axis=-1)
        items = jnp.stack([pictures, texts[labels.own]], axis=1)
        return jnp.concatenate([items, jnp.stack([jnp.zeros_like(texts), texts], axis=1)])


class ByNames(Contrastive):
    """A softmax over all texts of the rows for each picture."""

    name = "contrastive-names"
    words = words_for(name)
    output = AgainstTexts(Joint())
    main_metric, lower_is_better = main_metric_of(name)

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Any, max_length: int, truncate: bool = False
    ) -> Prepared:
        items, numbers, different = processor.items(examples.fields, max_length), dict[bytes, int](), []
        for item in items:
            if item.text.tobytes() not in numbers:
                numbers[item.text.tobytes()] = len(numbers)
                different.append(item.text)
        labels = [np.int32(numbers[item.text.tobytes()]) for item in items]
        return WithTexts(examples, items, labels, texts=different, processor=processor.texts)

    def loss(self, outputs: jax.Array, labels: Any, settings: Settings, weight: jax.Array) -> jax.Array:
        items = len(weight)
        logits = jnp.where(labels.there, outputs[:items, 0] @ outputs[items:, 1].T, -1e9)
        own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels.own[:, None], axis=-1)[:, 0]
        return mean_of(-own, weight)
