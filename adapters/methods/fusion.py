"""AdapterFusion: attention over several trained adapters, at every residual branch (Pfeiffer et al., 2021, arXiv:2005.00247).

    o = y + sum_n p_n z_n V          p = softmax_n((u Q + q) . (z_n K + k))          Q, K, V [d, d], q, k [d]

z_n is what the n-th of N frozen adapters adds to the branch's output y; the adapters are bottlenecks or Compacters of one kind.
u is y, or with `query_normed` LN(x + y), what y and the residual stream x become behind the norm that follows.
Trained are Q, K, V, q and k: from a token's u they learn which adapters help it. Q and K start normal (0.02), V at the identity
(a fresh fusion is about the adapters' mean, and not the base). Trainable parameters at a site: 3 d^2 + 2 d.

    train_many(backbone, data, out, method=Fuse(trained=(one, another)))

`Fuse` begins as `Fusion`, which holds the adapters' leaves beside each other as buffers: its file needs none of theirs. The
paper (and AdapterHub's library, with a weight of 0.01) also pulls V to the identity; that is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Size, Within
from ..method import Begun, Keys, Leaves, Method, padded, zeros
from ..sites import Site
from .head import Head
from .method_registry import method_of

if TYPE_CHECKING:
    from .starts import TrainingData

OF = "of_"  # begins the names of the adapters' leaves


@dataclass(frozen=True)
class Fusion(Method):
    """Attention over the frozen adapters it holds; made by `Fuse`."""

    name: ClassVar[str] = "fusion"
    summary: ClassVar[str] = "attention over several frozen bottleneck adapters (AdapterFusion)"
    count: ClassVar[str] = "3 d^2 + 2 d"
    acts_on: ClassVar[tuple[str, ...]] = ("branch",)
    traced: ClassVar[tuple[str, ...]] = ("member", "adapters", "width", "query_normed")
    fresh_within: ClassVar[float | None] = None

    member: str = "bottleneck/relu/False"  # the adapters' `Method.key`, with "/" for ":"
    adapters: Annotated[int, Within(1, below=256)] = 2  # N
    width: Size = 48  # the widest adapter's
    query_normed: bool = False  # queries are made of LN(x + y)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            config = self.config()
        except (GraftaxError, ValueError) as error:
            raise GraftaxError(f"fusion: its adapters' method is none: {self.member!r}.") from error
        if "branch" not in config.acts_on or isinstance(config, Fusion):
            raise GraftaxError(f"fusion: {config.name} does not act on residual branches, as bottleneck and compacter do.")

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        raise GraftaxError(
            "fusion: is made of trained adapters: method=Fuse(trained=(one, another)), or --fuse DIR --fuse DIR."
        )

    def config(self) -> Method:
        """What is the same in all of the adapters."""
        return method_of(self.member.replace("/", ":"))

    def rank(self, site: Site) -> int:
        return max(site.shape[0], self.adapters * self.width)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        (d,) = site.shape
        keys = zip(("query", "key"), jax.random.split(key), strict=True)
        return self.blank(site) | {n: 0.02 * jax.random.normal(k, (d, d)) for n, k in keys} | {"value": jnp.eye(d)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        (d,) = site.shape
        square: Leaves = {name: zeros(d, d) for name in ("query", "key", "value")}
        trainable, fixed = self.config().identity(site, self.width)
        held = {OF + name: _number(leaf) for name, leaf in (trainable | fixed).items()}
        held = {name: np.broadcast_to(leaf, (self.adapters, *leaf.shape)) for name, leaf in held.items()}
        return square | {"query_bias": zeros(d), "key_bias": zeros(d)}, held

    def buffers(self, site: Site) -> tuple[str, ...]:
        return tuple(self.identity(site, 0)[1])

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        members = {name.removeprefix(OF): leaf for name, leaf in state.items() if name.startswith(OF)}

        def added(own: Leaves) -> jax.Array:
            own = {name: leaf != 0 if leaf.dtype == jnp.int32 else leaf for name, leaf in own.items()}
            return self.config().apply(own, x, y, frozen, None) - y

        z = jax.vmap(added)(members)
        asking = frozen.behind(x + y) if self.query_normed else y
        query, keys = asking @ state["query"] + state["query_bias"], z @ state["key"] + state["key_bias"]
        share = jax.nn.softmax(jnp.sum(query * keys, axis=-1), axis=0)
        return y + jnp.sum(share[..., None] * z, axis=0) @ state["value"]


@dataclass(frozen=True)
class Fuse(Fusion):
    """A fusion of these adapters, to be trained; their heads are not used."""

    trained: tuple[Any, ...] = field(default=(), repr=False)  # what is fused: adapters

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        method, held = self.joined(sites)
        _, states = Method.begin(method, sites, key)
        return method, {site: (own, held[site]) for site, (own, _) in states.items()}

    def joined(self, sites: Sequence[Site]) -> tuple[Fusion, dict[Site, Leaves]]:
        """The fusion that holds these adapters, and their leaves beside each other at every site."""
        bodies = [[m for m in adapter.methods if not isinstance(m, Head)] for adapter in self.trained]
        kinds = sorted({"+".join(m.key for m in body) for body in bodies})
        if len(bodies) < 2 or len(kinds) > 1 or len(bodies[0]) > 1:
            raise GraftaxError(f"fusion: takes two or more adapters of one method, got {' and '.join(kinds) or 'none'}.")
        if "branch" not in bodies[0][0].acts_on:
            raise GraftaxError(
                f"fusion: {bodies[0][0].name} does not act on residual branches, as bottleneck and compacter do."
            )
        if bodies[0][0].reads_positions:
            raise GraftaxError(f"fusion: {bodies[0][0].name} must know where a token is in its text, and here it would not.")
        for one in self.trained:
            one.refuse_other_sites(sites)
        key = kinds[0]
        members = [(body, one.states[key]) for one, (body,) in zip(self.trained, bodies, strict=True)]
        method = Fusion(
            member=key.replace(":", "/"),
            adapters=len(self.trained),
            width=max(body.size(site) for body, states in members for site in states),
            query_normed=self.query_normed,
            targets=tuple(dict.fromkeys(site.path for _, states in members for site in states)),
        )
        held = {}
        for site in method.select(sites):
            each = [_widened(body, site, method.width, states.get(site)) for body, states in members]
            held[site] = {OF + name: np.stack([_number(leaves[name]) for leaves in each]) for name in each[0]}
        return method, held


def _widened(method: Method, site: Site, width: int, own: tuple[Leaves, Leaves] | None) -> Leaves:
    """All leaves of an adapter at a site, with zeros up to a width; what it does not hold is at identity."""
    (trainable, fixed), identity = own or ({}, {}), method.identity(site, width)
    blank, there = identity[0] | identity[1], trainable | fixed
    return {name: padded(there[name], like.shape) if name in there else np.asarray(like) for name, like in blank.items()}


def _number(leaf: np.ndarray) -> np.ndarray:
    """Truth values as int32: files have none."""
    leaf = np.asarray(leaf)
    return leaf.astype(np.int32) if leaf.dtype == bool else leaf
