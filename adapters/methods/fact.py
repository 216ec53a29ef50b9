"""FacT: the changes of all weights of a Transformer, factorised as one tensor (Jie & Deng, 2022, arXiv:2212.03145).

    y = x W + b + s x U C V          U [d, r] and V [r, d], one for all sites; C [r, r] of this site

All weights are cut into matrices [d, d], where d is the width of the residual stream: query, key, value and output are one
each, a feed-forward layer of 4 d channels is four. Stacked, their changes are one tensor, whose factors are U, V and

    tt    C is trained for each of them by itself                                   (a tensor train)
    tk    C = sum_k p_k G_k, p [r] trained for each, G [r, r, r] one for all        (Tucker's decomposition)

A layer of a d inputs and b d outputs has a b such matrices: it sums over its inputs' and puts its outputs' side by side.
U, V and G are trained by what all sites have to say of them (`Method.shared`): each site holds them, their gradients are
summed, and files have them once. In Swin there are some of each width. V starts at zero, so a fresh adapter changes nothing;
the others uniform, as torch's linear layers (U, C, p) or after Xavier (G). The paper chooses s for each task, from 0.01 to 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import GraftaxError
from ...typed import Rate, Size
from ..method import QUERY_VALUE, Begun, Keys, Leaves, Method, scalar, zeros
from ..products import widened
from ..sites import LinearWeights, Site
from .dropout import dropout

if TYPE_CHECKING:
    from .starts import TrainingData

_FORMS = {"tt": ("left", "right", "cores"), "tk": ("left", "right", "core", "mix")}  # and their leaves


@dataclass(frozen=True)
class FacT(Method):
    """Changes of all weights of attention and feed-forward, as factors of one tensor."""

    name: ClassVar[str] = "fact"
    summary: ClassVar[str] = "the changes of all weights are one tensor, factorised"
    count: ClassVar[str] = "r^2 (tk: r) for each d x d, and 2dr (tk: and r^3) for all sites"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, "key", "attention_out", "ffn_in", "ffn_gate", "ffn_out")
    padded: ClassVar[dict[str, int]] = {"left": 1, "right": 0, "cores": 2, "core": 0, "mix": 2}  # the cores on all axes of r
    shared: ClassVar[tuple[str, ...]] = ("left", "right", "core")
    mergeable: ClassVar[bool] = True

    r: Size = 16  # rank
    form: str = "tt"  # tt or tk
    scale: float = 1.0  # s
    dropout: Rate = 0.0  # of what comes out of C, in training

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in _FORMS:
            raise GraftaxError(f"{self.name}: form {self.form!r} is none of {', '.join(_FORMS)}.")

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        if self.targets is None:  # keys and values that several queries share are narrower
            return [site for site in chosen if _fits(site)]
        for site in chosen:
            if not _fits(site):
                raise GraftaxError(
                    f"{self.name}: {site.path} is {site.shape[0]} x {site.shape[1]}, which cannot be cut into matrices of "
                    f"{site.hidden} x {site.hidden}."
                )
        return chosen

    def size(self, site: Site) -> int:
        return self.r

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        """What is shared is drawn for the first site of each width."""
        method, states = super().begin(sites, key, data)
        first: dict[Any, Any] = {}
        for own, _ in states.values():
            own |= {name: first.setdefault((name, own[name].shape), own[name]) for name in self.shared if name in own}
        return method, states

    def init(self, key: jax.Array, site: Site) -> Leaves:
        leaves, r = self.blank(site), self.r
        bounds = {"left": 1.0 / math.sqrt(site.hidden), "cores": 1.0 / math.sqrt(r), "core": math.sqrt(3.0) / r}
        bounds["mix"] = 1.0 / math.sqrt(r)
        for number, (name, bound) in enumerate(bounds.items()):
            if name in leaves:
                own = jax.random.fold_in(key, number)
                leaves[name] = jax.random.uniform(own, leaves[name].shape, minval=-bound, maxval=bound)
        return leaves

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.scale), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        d = site.hidden
        a, b = site.shape[0] // d, site.shape[1] // d
        leaves = {"left": zeros(d, size), "right": zeros(size, d), "cores": zeros(a, b, size, size)}
        leaves |= {"core": zeros(size, size, size), "mix": zeros(a, b, size)}
        return leaves, {"scale": scalar(0.0), "dropout": scalar(0.0)}

    def trainable(self, site: Site) -> tuple[str, ...]:
        return _FORMS[self.form]

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        left, right = state["left"], state["right"]
        low = x.reshape(*x.shape[:-1], -1, len(left)) @ left
        through = dropout(jnp.einsum("...ai,abij->...bj", low, _cores(state)), state["dropout"], key)
        return y + state["scale"] * widened(through, right).reshape(y.shape)

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        change = jnp.einsum("di,abij,je->adbe", state["left"], _cores(state), state["right"])
        return frozen._replace(kernel=frozen.kernel + state["scale"] * change.reshape(frozen.kernel.shape))


def _fits(site: Site) -> bool:
    return not any(side % site.hidden for side in site.shape)


def _cores(state: Leaves) -> jax.Array:
    """C of every matrix of a site, `[a, b, r, r]`: of either form, or of a layout of both their sum, one of which is zero."""
    made = [state["cores"]] if "cores" in state else []
    if "core" in state:
        made.append(jnp.einsum("kij,abk->abij", state["core"], state["mix"]))
    return made[0] if len(made) == 1 else made[0] + made[1]
