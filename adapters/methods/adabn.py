"""AdaBN: batch norms with the statistics of the pictures that are trained on (Li et al., 2016, arXiv:1603.04779).

    y = scale (x - mean') / sqrt(var' + eps) + bias          mean', var' [d], of x over all positions of the job's pictures

A backbone's own statistics are of the pictures that it was trained on; of others (another camera, noise, compression) what
enters a norm has another mean and variance, which scale and bias then do not fit. They are estimated once, before training, in
one pass over the rows, as torch does in `train()` with `momentum=None`: each norm divides by the statistics of the batch at
hand, so that those above it see its new outputs, and means and unbiased variances of all batches are averaged. Training leaves
them as they are then: an item's answer does not depend on its neighbours.

Nothing is trained. Beside a head it makes a probe, and any other method may stand beside it and is trained on the new
statistics. A leaf is the change of a statistic, so an empty slot is zero; files hold the statistics themselves. Made without
rows, it changes nothing. Batch norms that were folded into the convolutions (mean 0, variance 1) are refused: by what they had
multiplied their channels is not known any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ..method import Begun, Keys, Leaves, Method, States, scalar, zeros
from ..sites import BatchNormWeights, Site
from .observer import told

if TYPE_CHECKING:
    from .starts import TrainingData

_FOLDED = 1e-2  # how far from 1 all variances of a norm may be that says nothing: 1 - eps where it was folded


@dataclass(frozen=True)
class AdaBN(Method):
    """New statistics of every batch norm, of the rows to be trained on."""

    name: ClassVar[str] = "adabn"
    summary: ClassVar[str] = "batch norms have the statistics of the training pictures; nothing is trained"
    count: ClassVar[str] = "0"
    acts_on: ClassVar[tuple[str, ...]] = ("norm",)
    through_weights: ClassVar[tuple[str, ...]] = ("norm",)
    mergeable: ClassVar[bool] = True

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        found = [site for site in super().candidates(sites) if site.statistics]
        if not found:
            raise GraftaxError(f"{self.name} renews the statistics of batch norms, and this backbone has none.")
        return found

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        chosen = self.select(sites)
        if data is None:
            return self, {site: self.identity(site, 0) for site in chosen}
        for site in chosen:
            self._refuse_folded(site)
        found = data.statistics(chosen)
        states: States = {}
        for site in chosen:
            frozen = site.weights()
            changes = {name: new - getattr(frozen, name) for name, new in found[site]._asdict().items()}
            states[site] = ({}, {name: np.asarray(change, np.float32) for name, change in changes.items()})
        return self, states

    def _refuse_folded(self, site: Site) -> None:
        frozen = site.weights()
        if not frozen.mean.any() and np.ptp(frozen.var) == 0.0 and abs(frozen.var[0] - 1.0) <= _FOLDED:
            raise GraftaxError(
                f"{self.name}: {site.path} has no statistics that could be renewed (mean 0 and variance {frozen.var[0]:g} in "
                "every channel): it was folded into the convolution, or never trained."
            )

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {}, {"mean": zeros(*site.shape), "var": zeros(*site.shape)}

    def buffers(self, site: Site) -> tuple[str, ...]:
        return ("mean", "var")

    def merge(self, frozen: BatchNormWeights, state: Leaves) -> BatchNormWeights:
        return frozen._replace(mean=frozen.mean + state["mean"], var=frozen.var + state["var"])


@dataclass(frozen=True)
class Rebatched(Method):
    """A batch norm as it is in training: it divides by the statistics of its batch, which are the "gradient" of its leaves.

    They are over the pictures for which the fixed leaf `mask [rows]` has 1; `eps` is the norm's. Both are put beside the leaves
    for each batch.
    """

    name: ClassVar[str] = "rebatched"
    summary: ClassVar[str] = "divides by the statistics of the batch; its gradient is these"
    count: ClassVar[str] = "none"
    acts_on: ClassVar[tuple[str, ...]] = ("norm",)

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"mean": zeros(*site.shape), "var": zeros(*site.shape)}, {"mask": zeros(1), "eps": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        there = state["mask"].reshape(-1, *(1,) * (x.ndim - 1))
        axes = tuple(range(x.ndim - 1))
        count = jnp.sum(state["mask"]) * (x[0, ..., 0].size)
        mean = jnp.sum(there * x, axes) / count
        var = jnp.sum(there * jnp.square(x - mean), axes) / count
        made = (x - mean) * jax.lax.rsqrt(var + state["eps"]) * frozen.scale + frozen.bias
        seen = {"mean": mean, "var": var * count / jnp.maximum(count - 1.0, 1.0)}
        return told({name: state[name] for name in seen}, jax.lax.stop_gradient(seen), made)
