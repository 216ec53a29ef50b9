"""Sites: the named points of a backbone where an adapter method may act.

Backbones and methods both know sites, and neither knows the other; that is why N methods times M backbones work. A site has
a *kind*, and the kind fixes what a method is given there:

| kind        | x                              | y, what the method may change            | frozen                       |
|-------------|--------------------------------|------------------------------------------|------------------------------|
| `linear`    | input `[..., T, in]`           | output `[..., T, out]`                   | `LinearWeights(kernel, bias)`|
| `conv`      | a feature map `[..., H, W, in]`| output `[..., H', W', out]`              | `ConvWeights`, with geometry |
| `norm`      | input `[..., T, d]`            | output `[..., T, d]`                     | `NormWeights(scale, bias)`   |
| `embedding` | ids `[..., T]`                 | looked-up vectors `[..., T, d]`          | `TableWeights(table)`        |
| `branch`    | the residual stream            | the branch's output, before it is added  | `Branch`: the norms around it |
| `stream`    | a layer's output `[..., T, d]` | the same                                 | None                         |
| `attention` | the layer's input              | `KeyValue(key, value, mask)`             | None                         |
| `input`     | ids `[..., T]`                 | `Entry`: what enters the first layer     | None                         |
| `text`      | ids `[..., T]`                 | `TextPosition` of each token             | None                         |
| `head`      | features `[..., d]`, or maps   | None: a head makes the logits            | None                         |

The leading axis of batch rows may be there or not (a mixed batch calls a method once per batch row, under `vmap`), so methods
index from the end. A batch norm's weights are `BatchNormWeights`: they have its statistics besides. Of a picture, whose maps
are `[..., height, width, channels]`, two axes stand where T does: at `norm`, `branch` and `stream` sites a method that treats
every token by itself treats every position of a feature map so. At `text` the id of a token that a method has put in front is
-1. Of a picture's patches x at `input` numbers the tokens, and what enters the first layer has its positions already. Every
weight's bias belongs to its `linear`, `conv` or `norm` site. Where an embedding's table projects to the vocabulary too,
`Method.project` acts on the logits; `lm_head` is a `linear` site all the same, for methods whose targets name it: what acts
there changes what is said and not what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..shapes import AnyArray, Float, shaped
from .geometry import Geometry, convolve

#: Orders of a kernel's axes in checkpoints, as permutations: our axis i is the checkpoint's axis `axes[i]`.
OUT_IN, IN_OUT = (1, 0), (0, 1)  # a linear layer's: PyTorch's Linear has [out, in]; GPT-2's Conv1D [in, out], as it is here
OIHW = (2, 3, 1, 0)  # a convolution's: PyTorch has [out, in, height, width], here it is [height, width, in, out]

IMAGE, TEXT = "image", "text"  # towers of a pair, of pictures and of texts
LM_HEAD = "lm_head"  # name of the projection to the vocabulary, where it has weights of its own
KINDS = ("linear", "conv", "norm", "embedding", "branch", "stream", "attention", "input", "text", "head")


@dataclass(frozen=True)
class Site:
    """One concrete site. Sites of different layers with one `name` share a stacked leaf in the adapter's tree."""

    name: str  # "layers.query", "decoder.layers.query": the backbone's name, a key in adapter trees
    kind: str  # one of `KINDS`
    path: str  # "bert.encoder.layer.3.attention.self.query": the module in Hugging Face's task model
    #: linear (in, out); conv (height, width, in / groups, out); embedding (rows, dim); else (dim,), of keys at `attention`
    shape: tuple[int, ...]
    role: str = ""  # its part in what it belongs to, "query", the same for every family
    stack: str = ""  # the stack of layers that it lies in, "layers" or "decoder.layers"; empty outside the stacks
    layer: int | None = None  # index in that stack, None outside
    above: str = ""  # outside: the stack that it lies above, at which what is heard in adapted layers alone (`text`) lies too
    tower: str = ""  # the one that it lies in, of an encoder-decoder "encoder" or "decoder", of a pair `IMAGE` or `TEXT`
    shared: bool = False  # its layer's weights are used by several applications of a layer (ALBERT)
    biased: bool = True  # whether the module, linear, conv or norm, has a bias; if not, methods are shown one of zeros
    geometry: Geometry | None = None  # of a convolution
    statistics: bool = False  # whether it is a batch norm, whose weights have statistics of the pictures it was trained on
    axes: tuple[int, ...] = ()  # of a kernel: which axis of the checkpoint's tensor each of its own is (`OUT_IN`, `IN_OUT`)
    tied: bool = False  # the projection to the vocabulary where its weights are the words' table, another site
    module: bool = True  # whether its weights are a module's that PEFT finds there; if not, PEFT has no adapter of them
    hidden: int = 0  # channels of the residual stream there
    within: str = ""  # path relative to its layer, "attention.self.query"; the whole path outside the stacks
    also: tuple[str, ...] = ()  # what its module is called in older versions of transformers, and so in older adapters
    #: the frozen weights here, float32 on the host, for a start or a file that depends on them; None where there are none
    weights: Callable[[], Any] = field(default=lambda: None, compare=False, repr=False)

    @property
    def paths(self) -> tuple[str, ...]:
        """All that the module is called, by which targets may name it."""
        return (self.path, *self.also)

    def __hash__(self) -> int:
        return hash((self.name, self.path))  # which tell sites apart; of all fields it takes several times as long

    def as_stored(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel of this shape with its axes in a checkpoint's order; `transpose(site.axes)` goes back."""
        return kernel.transpose(np.argsort(self.axes))

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the weights there."""
        return (*ARRAYS.get(self.kind, ()), *(STATISTICS if self.statistics else ()))

    @property
    def inputs(self) -> int:
        """Of a linear layer or a convolution: channels of what enters it, of all groups."""
        return self.shape[-2] * (self.geometry.groups if self.geometry else 1)


def of_texts(sites: Iterable[Site]) -> bool:
    """Whether a backbone with these sites reads tokens of texts."""
    return any(site.kind in ("embedding", "text") for site in sites)


class LinearWeights(NamedTuple):
    kernel: jax.Array  # [in, out]
    bias: jax.Array  # [out]


class ConvWeights(NamedTuple):
    """A pytree of two arrays: the geometry is static, so it is compiled in and no method can change it."""

    kernel: jax.Array  # [kh, kw, in / groups, out]
    bias: jax.Array  # [out]
    geometry: Geometry

    def convolve(self, x: AnyArray) -> jax.Array:
        """`x [..., height, width, in]` to `[..., height', width', out]`."""
        return convolve(x, self.kernel, self.geometry) + self.bias


class NormWeights(NamedTuple):
    scale: jax.Array  # [dim]
    bias: jax.Array  # [dim]


class BatchNormWeights(NamedTuple):
    """A norm's, with mean and variance of what entered it in training; `NormWeights` to who asks for scale and bias alone."""

    scale: jax.Array  # [dim]
    bias: jax.Array  # [dim]
    mean: jax.Array  # [dim]
    var: jax.Array  # [dim]


class TableWeights(NamedTuple):
    table: jax.Array  # [rows, dim]


#: What a method finds frozen at a site, by kind; the other kinds have no weights. Their fields are arrays, and a geometry.
WEIGHTS: dict[str, Any] = {
    "linear": LinearWeights,
    "conv": ConvWeights,
    "norm": NormWeights,
    "embedding": TableWeights,
}


#: Names of those arrays.
ARRAYS = {kind: tuple(name for name in found._fields if name != "geometry") for kind, found in WEIGHTS.items()}
STATISTICS = ("mean", "var")  # that a batch norm has beside a norm's


def weights_of(kind: str, arrays: Mapping[str, np.ndarray], geometry: Geometry | None = None) -> Any:
    """The weights at a site of its arrays by name, on the host; where it has no bias, with one of zeros."""
    width = next(iter(arrays.values())).shape[-1]
    whole = {name: arrays.get(name, np.zeros(width, np.float32)) for name in ARRAYS[kind]}
    made: Any = BatchNormWeights if kind == "norm" and "var" in arrays else WEIGHTS[kind]
    more: dict[str, Any] = {name: arrays[name] for name in STATISTICS if name in arrays}
    return made(**whole, **more) if geometry is None else made(**whole, geometry=geometry)


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["compute"])
@dataclass(frozen=True)
class NormBeside:
    """A frozen norm beside a branch, as a function; where there is none, what it is given."""

    weights: NormWeights | None
    compute: Callable[..., jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.compute(self.weights, x)


@partial(jax.tree_util.register_dataclass, data_fields=["behind", "before"], meta_fields=["grid"])
@dataclass(frozen=True)
class Branch:
    """What is around a branch, of a residual stream x that is not normed in pre-norm backbones."""

    behind: NormBeside  # of x + y: what the next part of the backbone reads; in pre-norm backbones x + y itself
    before: NormBeside  # of x: what the branch has read; in post-norm backbones x itself
    grid: tuple[int, int] | None = None  # height and width of a picture's patches, the last of the tokens; None: no such tokens


class KeyValue(NamedTuple):
    """What the queries of a layer attend to, by attention head; a method may add entries along the axis of tokens."""

    key: jax.Array  # [..., heads, T, size]
    value: jax.Array  # [..., heads, T, size]
    mask: jax.Array  # [..., 1 or queries, T], True where attention may look
    texts: jax.Array | None = None  # int32 [..., T], where known: the number of each key's text, from 1; 0 of what is padding


@shaped
def split_attention_heads(x: Float[Array, "*lead tokens width"], heads: int) -> Float[Array, "*lead {heads} tokens size"]:
    """What attention heads have side by side, `width` being heads * size, with an axis for the heads."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).swapaxes(-2, -3)


def in_front(virtual: jax.Array, real: jax.Array, axis: int) -> jax.Array:
    """What a method puts in front of the rest along an axis, counted from the end; `real` may have leading axes."""
    shape = (*real.shape[: real.ndim - virtual.ndim], *virtual.shape)
    return jnp.concatenate([jnp.broadcast_to(virtual, shape), real], axis=axis)


FAR = 1 << 30  # more tokens than any text has


class TextPosition(NamedTuple):
    """Where tokens are in their text, counted from both of its ends; FAR from both for padding and virtual tokens.

    Of a batch row that holds a text of three tokens, one of two and a token of padding, `before` is [0, 1, 2, 0, 1, FAR] and
    `behind` is [2, 1, 0, 1, 0, FAR]. (The *positions* that are embedded or turned by are counted by the backbone, as its family
    does; `Entry` has them.)
    """

    before: jax.Array  # int32 [..., T]: how many tokens of the text lie before each
    behind: jax.Array  # int32 [..., T]: and behind it
    called: jax.Array  # bool [..., T]: whether the adapter has been called by then, where it waits for that; see `alora.py`

    def of(self, row: jax.Array, token: jax.Array) -> TextPosition:
        """Of one token of each text, in a batch row each: `[texts, ..., 1]`, from `row [texts]` and `token [texts]`."""
        return TextPosition(*(array[row, ..., token][..., None] for array in self))


class Entry(NamedTuple):
    """What enters the first layer, before positions and token types are embedded."""

    embeddings: jax.Array  # [..., T, dim]
    types: jax.Array  # [..., T]
    positions: jax.Array  # [..., T]
    mask: jax.Array  # [..., T]
    pool: jax.Array | None  # [...]: the position that is pooled; None where that is the text's last
    #: [..., T]: 0 where a position stays whatever is put in front (RoBERTa's padding), else 1; None: 1 everywhere
    counted: jax.Array | None = None
