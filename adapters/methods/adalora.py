"""AdaLoRA: an update by singular vectors and values, whose ranks a budget shares out (Zhang et al., 2023, arXiv:2303.10512).

    y = x W + b + s (x Q^T * e) P          Q [r, in], e [r], P [r, out], s = alpha / (init_r + 1e-5)

e starts at zero, P and Q normal (0.02), so a fresh adapter changes nothing. Trainable parameters at a site: r (in + 1 + out).
At a convolution x Q^T is one of the same geometry, and Q [r, in kh kw]; in groups the kernel is changed.

`train_many` moves the ranks (`Budgeted`), step by step as PEFT does where `update_and_allocate` is called after the optimizer's
step, before the gradients are cleared, with the number of the step from 0:

- The loss gains `orth_reg_weight` times the mean, over all factors of all sites, of |P P^T - I| (Frobenius), of Q likewise.
- Every weight has a sensitivity |w g|, g its gradient as clipped and w what the step made of it. The running mean of it (by
  `beta1`) times the running mean of its distance from that mean (by `beta2`) is the weight's importance; a triplet's is that of
  its e plus the means over its row of P and its row of Q.
- All triplets of all sites compete. With n sites and N steps, `init_r` n of them may stay until step `tinit`, `target_r` n at
  step N - `tfinal`, and between the two the excess falls as the cube of the share of the steps that is left. Every `deltaT`
  steps the least important ones beyond the budget have their e set to zero. Until the next time all e train on, and one that
  was left out may come back.
- From step N - `tfinal` on the choice stands. With `tfinal` 0, PEFT's default, the run ends one step before that, and with a
  large `deltaT` the last pruning may lie long before: a few steps of `tfinal` reach the target and let what is left settle.

What is validated and saved is the adapter as last pruned: the triplets that are left, PEFT's `rank_pattern` to say which, and s
still that of `init_r`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Count, Rate, Size, SizeOrZero, Within
from ..geometry import convolve
from ..method import CONVOLUTIONS, QUERY_VALUE, AtSites, Begun, Keys, Leaves, Method, States, scalar, zeros
from ..sites import ConvWeights, Site
from . import patches
from .dropout import dropout

if TYPE_CHECKING:
    from .starts import TrainingData


@dataclass(frozen=True)
class AdaLoRA(Method):
    """An update by singular vectors and values of shared ranks: of queries, values and blocks' convolutions unless `targets`
    says otherwise."""

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "update by singular vectors and values, whose ranks a budget shares out"
    count: ClassVar[str] = "r (in + out + 1)"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    padded: ClassVar[dict[str, int]] = {"p": 0, "e": 0, "q": 0}
    mergeable: ClassVar[bool] = True
    scheduled: ClassVar[bool] = True

    init_r: Size = 12  # rank of every site at the start
    target_r: SizeOrZero = 8  # mean rank at the end
    alpha: float = 8.0  # the update is scaled by alpha / init_r
    dropout: Rate = 0.0  # of x, in training
    tinit: Count = 0  # the last step at which the budget is whole
    tfinal: Count = 0  # so many steps before the end it is spent
    deltaT: Annotated[int, Within(1, below=1 << 31)] = 1  # steps from one pruning to the next
    beta1: float = 0.85  # decay of the mean sensitivity
    beta2: float = 0.85  # decay of its uncertainty
    orth_reg_weight: Annotated[float, Within(0.0)] = 0.5  # of the penalty that keeps P and Q orthogonal
    total_step: Count = 0  # of the run that trained it, which fills it in; 0: none yet
    rank_pattern: Mapping[str, Sequence[bool]] = field(default_factory=dict)  # PEFT's: "<module path>.lora_E" -> which are left

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_r > self.init_r:
            raise GraftaxError(f"adalora: target_r must be from 0 to init_r, {self.init_r}, got {self.target_r}.")
        if self.alpha <= 0.0:
            raise GraftaxError(f"adalora: alpha must be positive, got {self.alpha}.")
        for name in ("beta1", "beta2"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise GraftaxError(f"adalora: {name} must be between 0 and 1, got {getattr(self, name)}.")

    def size(self, site: Site) -> int:
        left = self.rank_pattern.get(f"{site.path}.lora_E")
        return self.init_r if left is None else sum(map(bool, left))

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        one, two = jax.random.split(key)
        normal = {name: 0.02 * jax.random.normal(k, blank[name].shape) for name, k in (("p", one), ("q", two))}
        return blank | normal

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        if data is None:
            return super().begin(sites, key)
        return Budgeted(**{**vars(self), "total_step": data.steps}).begin(sites, key, data)

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.alpha / (self.init_r + 1e-5)), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, out = patches.matrix_shape(site)
        trainable = {"p": zeros(size, out), "e": zeros(size), "q": zeros(size, width)}
        return trainable, {"scale": scalar(0.0), "dropout": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        x = dropout(x, state["dropout"], key)
        if isinstance(frozen, ConvWeights) and frozen.geometry.groups > 1:
            return y + convolve(x, self._change(state, frozen), frozen.geometry)
        if isinstance(frozen, ConvWeights):
            low = convolve(x, patches.as_kernel(state["q"].T, frozen.kernel.shape), frozen.geometry)
        else:
            low = x @ state["q"].T
        return y + state["scale"] * (low * state["e"] @ state["p"])

    def merge(self, frozen: Any, state: Leaves) -> Any:
        return frozen._replace(kernel=frozen.kernel + self._change(state, frozen))

    def _change(self, state: Leaves, frozen: Any) -> jax.Array:
        """Of the kernel."""
        change = state["scale"] * (state["q"].T * state["e"] @ state["p"])
        return patches.as_kernel(change, frozen.kernel.shape)


@dataclass(frozen=True)
class Budgeted(AdaLoRA):
    """AdaLoRA while it is trained: what the schedule needs to know lies beside its leaves, at every site.

    | fixed leaf                    |                                                                                        |
    |-------------------------------|----------------------------------------------------------------------------------------|
    | `own` [r]                     | which triplets are the adapter's, and not filling                                      |
    | `left` [r]                    | which of them the last pruning has left                                                |
    | `falls` [r]                   | steps; at each the budget, which is all sites', falls by one (0: at none)              |
    | `until`, `every`              | the step of the last pruning; steps from one to the next                               |
    | `beta1`, `beta2`, `weight`    | of the running means; of the penalty, for one factor                                   |
    | `p_mean`, `p_spread`, ...     | running means of |w g|, and of its distance from that mean, for each of p, e and q     |
    """

    name: ClassVar[str] = "adalora_budgeted"

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        _, states = Method.begin(self, sites, key)
        sizes = [self.size(site) for site in states]
        falls = np.split(self.falls(sum(sizes), self.target_r * len(sizes)), np.cumsum(sizes)[:-1])
        numbers = {
            "until": np.int32(self.total_step - self.tfinal),
            "every": np.int32(self.deltaT),
            "beta1": scalar(self.beta1),
            "beta2": scalar(self.beta2),
            "weight": scalar(self.orth_reg_weight / (2 * len(sizes))),
        }
        begun: States = {}
        for (site, (own, fixed)), mine in zip(states.items(), falls, strict=True):
            there = np.ones(len(mine), bool)
            blank = self.identity(site, len(mine))[1]
            begun[site] = (own, blank | fixed | numbers | {"own": there, "left": there, "falls": mine})
        return self, begun

    def falls(self, start: int, target: int) -> np.ndarray:
        """For each of `start` triplets the step at which the budget gets too small for one more; 0 where it never does.

        Computed here, as PEFT does in Python's numbers: float32 would truncate another budget now and then.
        """
        most = self.total_step - self.tfinal - self.tinit
        if most < 1:
            raise GraftaxError(
                f"adalora: {self.total_step} steps are too few for tinit={self.tinit} and tfinal={self.tfinal}: "
                "none is left in which ranks could go."
            )
        gone = [start - int((start - target) * (1 - step / most) ** 3 + target) for step in range(1, most + 1)]
        first = np.searchsorted(gone, np.arange(start), side="right")
        return np.where(first < most, self.tinit + 1 + first, 0).astype(np.int32)

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        trainable, fixed = super().identity(site, size)
        none = np.zeros(size, bool)
        averages = {f"{name}_{kind}": zeros(*leaf.shape) for name, leaf in trainable.items() for kind in ("mean", "spread")}
        numbers = {"until": np.int32(0), "every": np.int32(1)} | {n: scalar(0.0) for n in ("beta1", "beta2", "weight")}
        return trainable, fixed | averages | numbers | {"own": none, "left": none, "falls": np.zeros(size, np.int32)}

    def objective(self, loss: jax.Array, trainable: AtSites, fixed: AtSites) -> jax.Array:
        for name, leaves in trainable.items():
            own = fixed[name]["own"]
            for factor in (leaves["p"], leaves["q"]):
                unit = jnp.where(own[..., None], jnp.eye(own.shape[-1]), 0.0)
                off = jnp.sum((factor @ factor.swapaxes(-1, -2) - unit) ** 2, axis=(-1, -2))
                norm = jnp.sqrt(jnp.where(off > 0, off, 1.0))  # the root has no derivative at 0, where filling is
                loss = loss + jnp.sum(fixed[name]["weight"] * jnp.where(off > 0, norm, 0.0))
        return loss

    def revise(self, trainable: AtSites, fixed: AtSites, grads: AtSites, step: jax.Array) -> tuple[AtSites, AtSites]:
        seen = {name: _averaged(leaves, fixed[name], grads[name], step) for name, leaves in trainable.items()}
        scores = {name: _importance(leaves) for name, leaves in seen.items()}
        ranked = jnp.sort(
            jnp.concatenate([jnp.where(leaves["own"], scores[name], jnp.inf).ravel() for name, leaves in seen.items()])
        )
        gone = sum(jnp.sum((leaves["falls"] > 0) & (leaves["falls"] <= step)) for leaves in seen.values())
        threshold = jnp.where(gone > 0, ranked[jnp.maximum(gone - 1, 0)], -jnp.inf)
        moved, known = {}, {}
        for name, leaves in seen.items():
            until = leaves["until"][..., None]
            due = ((step < until) & (step % leaves["every"][..., None] == 0)) | (step == until)
            left = jnp.where(due, leaves["own"] & (scores[name] > threshold), leaves["left"])
            e = jnp.where((due | (step > until)) & ~left, 0.0, trainable[name]["e"])
            moved[name], known[name] = {**trainable[name], "e": e}, {**leaves, "left": left}
        return moved, known

    def settled(self, trainable: Leaves, fixed: Leaves) -> Leaves:
        return {**trainable, "e": jnp.where(fixed["left"], trainable["e"], 0.0), "left": fixed["left"]}

    def finished(self, states: States) -> Begun:
        cut: States = {}
        pattern, pruned = {}, False
        for site, (own, fixed) in states.items():
            left = fixed["left"]
            cut[site] = ({name: leaf[left] for name, leaf in own.items()}, AdaLoRA.fixed(self, site))
            whole = np.array(self.rank_pattern.get(f"{site.path}.lora_E", [True] * self.init_r), bool)
            whole[whole] = left
            pattern[f"{site.path}.lora_E"] = whole.tolist()
            pruned |= not left.all()
        return AdaLoRA(**{**vars(self), "rank_pattern": pattern if pruned else self.rank_pattern}), cut


def _averaged(leaves: Leaves, fixed: Leaves, grads: Leaves, step: jax.Array) -> Leaves:
    """The fixed leaves of a site with the running means one step on; they stand still from the last pruning on."""
    new = dict(fixed)
    for name, leaf in leaves.items():
        beta1, beta2, until = (
            fixed[n].reshape(fixed[n].shape + (1,) * (leaf.ndim - fixed[n].ndim)) for n in ("beta1", "beta2", "until")
        )
        mean, spread = fixed[f"{name}_mean"], fixed[f"{name}_spread"]
        now = jnp.abs(leaf * grads[name])
        smooth = beta1 * mean + (1.0 - beta1) * now
        new[f"{name}_mean"] = jnp.where(step < until, smooth, mean)
        new[f"{name}_spread"] = jnp.where(step < until, beta2 * spread + (1.0 - beta2) * jnp.abs(now - smooth), spread)
    return new


def _importance(fixed: Leaves) -> jax.Array:
    """Of every triplet."""
    p, e, q = (fixed[f"{name}_mean"] * fixed[f"{name}_spread"] for name in ("p", "e", "q"))
    return e + (jnp.mean(q, axis=-1) + jnp.mean(p, axis=-1))
