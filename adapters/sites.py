"""Sites: the named places of a backbone where an adapter method may act.

Backbones and methods both know sites, and neither knows the other; that is why N methods times M backbones work. A site has
a *kind*, and the kind fixes what a method is given there:

| kind        | x                              | y, what the method may change            | frozen                       |
|-------------|--------------------------------|------------------------------------------|------------------------------|
| `linear`    | input `[..., T, in]`           | output `[..., T, out]`                   | `LinearWeights(kernel, bias)`|
| `norm`      | input `[..., T, d]`            | output `[..., T, d]`                     | `NormWeights(scale, bias)`   |
| `embedding` | ids `[..., T]`                 | looked-up rows `[..., T, d]`             | `TableWeights(table)`        |
| `branch`    | the residual stream            | the branch's output, before it is added  | `NextNorm`: of their sum     |
| `attention` | the layer's input              | `KeyValue(key, value, mask)`             | None                         |
| `input`     | ids `[..., T]`                 | `Entry`: what enters the first layer     | None                         |
| `head`      | features `[..., d]`            | None: a head makes the logits            | None                         |

A leading rows axis may be there or not (a mixed batch calls a method once per row, under `vmap`), so methods index from the
end. Every weight's bias belongs to its `linear` or `norm` site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax

KINDS = ("linear", "norm", "embedding", "branch", "attention", "input", "head")


@dataclass(frozen=True)
class Site:
    """One concrete site. Sites of different layers with one `name` share a stacked leaf in the adapter's tree."""

    name: str  # "layers.query": the backbone's name, a key in adapter trees
    kind: str
    path: str  # "bert.encoder.layer.3.attention.self.query": the module in Hugging Face's task model
    shape: tuple[int, ...]  # linear (in, out); embedding (rows, dim); every other kind (dim,)
    layer: int | None = None  # index in the stack of layers, None outside it
    shared: bool = False  # its layer's weights are used by several applications of a layer (ALBERT)
    within: str = ""  # path relative to its layer, "attention.self.query"; the whole path outside the stack
    #: the frozen weights here, float32 on the host, for a start or a file that depends on them; None where there are none
    weights: Callable[[], Any] = field(default=lambda: None, compare=False, repr=False)

    @property
    def role(self) -> str:
        """The part's name without its stack: "query", the same for every family."""
        return self.name.rpartition(".")[2]


class LinearWeights(NamedTuple):
    kernel: jax.Array  # [in, out]
    bias: jax.Array  # [out]


class NormWeights(NamedTuple):
    scale: jax.Array  # [dim]
    bias: jax.Array  # [dim]


class TableWeights(NamedTuple):
    table: jax.Array  # [rows, dim]


#: What a method finds frozen at a site, by kind; the other kinds have no weights.
WEIGHTS: dict[str, Any] = {"linear": LinearWeights, "norm": NormWeights, "embedding": TableWeights}


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["compute"])
@dataclass(frozen=True)
class NextNorm:
    """The frozen norm behind a branch: called with x + y it gives what the next part of the backbone reads."""

    weights: NormWeights
    compute: Callable[[NormWeights, jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.compute(self.weights, x)


class KeyValue(NamedTuple):
    """What a layer's queries attend to; a method may add entries along the token axis."""

    key: jax.Array  # [..., T, hidden]
    value: jax.Array  # [..., T, hidden]
    mask: jax.Array  # [..., 1 or queries, T], True where attention may look


FAR = 1 << 30  # more tokens than any text has


class Place(NamedTuple):
    """Where tokens are in their text, as counted from its ends; FAR from both for padding and virtual tokens."""

    before: jax.Array  # int32 [..., T]: how many tokens of the text lie before each
    behind: jax.Array  # int32 [..., T]: and behind it


class Entry(NamedTuple):
    """What enters the encoder, before positions and token types are embedded."""

    embeddings: jax.Array  # [..., T, dim]
    types: jax.Array  # [..., T]
    positions: jax.Array  # [..., T]
    mask: jax.Array  # [..., T]
    pool: jax.Array  # [...]: the position that is pooled


def number_of_layers(sites: Sequence[Site]) -> int:
    """Layers that have weights of their own."""
    return 1 + max((s.layer for s in sites if s.layer is not None), default=-1)
