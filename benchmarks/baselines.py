"""The nearest class mean over frozen features: a classifier for which nothing is trained, to compare trained ones with.

A text is the mean of what the backbone's last layer says of its tokens, a picture that of all places in it; a class is the mean
of its training examples, and an example is of the class whose mean is nearest, by cosine. A method that does not beat this has
learnt nothing that the backbone did not know already. The other baseline, a linear probe, is a method as any other
(`Suite.trained`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.prepared import Prepared
from ..models.backbone import Backbone
from ..models.inputs import Inputs

_ROWS = 32  # of a batch


def mean_features(backbone: Backbone, examples: Prepared) -> np.ndarray:
    """Mean of each one's tokens or places as they leave the last layer of the backbone alone, `[examples, hidden]` float32."""

    def means(params: Any, inputs: Inputs) -> jax.Array:
        hidden = backbone.encode(params, {}, inputs).hidden.astype(jnp.float32)
        if not backbone.processor.sequences:  # a feature map, or a picture's patches: there is no padding
            return hidden.reshape(len(hidden), -1, hidden.shape[-1]).mean(1)
        read = inputs.mask[..., None].astype(jnp.float32)
        return jnp.sum(hidden * read, axis=1) / jnp.sum(read, axis=1)

    program = backbone.programs.setdefault((mean_features,), jax.jit(means))
    processor, lengths = backbone.processor, examples.lengths
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found: dict[int, np.ndarray] = {}
    for begin in range(0, len(order), _ROWS):
        chosen = order[begin : begin + _ROWS]
        items = [examples.items[i] for i in chosen]
        inputs = processor.lay(items, [(batch_row, 0) for batch_row in range(len(items))], processor.shape_to_ask(items, _ROWS))
        found |= dict(zip(chosen, np.asarray(program(backbone.params, inputs)), strict=False))
    return np.stack([found[i] for i in range(len(lengths))])


def nearest_means(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Cosines `[texts, classes]` of features `asked [texts, d]` with the mean of each class of `known [n, d]`, of unit vectors.

    `labels [n]` are class indices from 0; with the mean of a class that none of them is the cosine is minus infinity.
    """
    unit, classes = _unit(known), np.unique(labels)
    means = _unit(np.stack([unit[labels == label].mean(0) for label in classes]))
    cosines = np.full((len(asked), labels.max() + 1), -np.inf)
    cosines[:, classes] = _unit(asked) @ means.T
    return cosines


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
