"""UniPELT's gates: how much a method changes is up to each text (Mao et al., 2021, arXiv:2110.07577).

    g = mean_t sigmoid(h_t . w + b)          h [T, d] what the method reads, of the text's own tokens alone; w [d], b [1]

| method             | what it does                                     | h                      |
|--------------------|--------------------------------------------------|------------------------|
| `gated_lora`       | y = x W + b + g s (x A^T) B                      | x                      |
| `gated_bottleneck` | y = y + g s (act(h W_down + b_down) W_up + b_up) | what the network reads |
| `gated_prefix`     | attend to [g P_k; k], [g P_v; v]                 | the layer's input      |

`unions.unipelt` is all three. One gate at every site, within the layers alone: d + 1 parameters beside the method's own. w is
normal (0.02) at the start and b zero, so all gates are half open; the methods start as they do without one. The paper's gated
LoRA has no s of its own: alpha = r.

In a Transformer of pictures a text is the class token and the patches.

A text needs a batch row of its own, in training too, and the last layer is computed whole (`whole_text`). In AdapterHub's
`adapters` the mean runs over the padding too, so that a text's answer depends on its batch; texts without any agree. Files are
graftax's own: PEFT has no gates, and refuses the directory by its `peft_type`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import GraftaxError
from ..method import Leaves, Method, zeros
from ..sites import FAR, Entry, Site
from .bottleneck import Bottleneck
from .lora import LoRA
from .prefix import Prefix
from .starts import DRAWN

GATE = ("gate", "gate_bias")  # leaves


class Gated(Method):
    """What the gated methods have in common; the other base class is the plain method."""

    reads_positions: ClassVar[bool] = True
    whole_text: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    virtual: ClassVar[bool] = False  # its files have a tensor for each layer
    # a gate scales all that a method adds to a text, so that its rounding is the text's: beside float64 two programs were 9e-6
    # and 2e-5 off, one above and one below
    tolerance: ClassVar[float] = 3e-5

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        if not any(site.kind == "input" for site in sites):
            raise GraftaxError(f"{self.name}: a gate is opened by a text or a picture's patches, and this backbone has none.")
        return [site for site in super().candidates(sites) if site.layer is not None or site.kind == "input"]

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return super().init(key, site) | self._gate(site, jax.random.fold_in(key, 1))

    def beside(self, site: Site, identity: tuple[Leaves, Leaves]) -> tuple[Leaves, Leaves]:
        """The plain method's identity, and the gate's."""
        trainable, fixed = identity
        return trainable | self._gate(site), fixed

    def trainable(self, site: Site) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().trainable(site), *self._gate(site))))

    def _gate(self, site: Site, key: jax.Array | None = None) -> Leaves:
        if site.kind == "input":
            return {}
        width = site.hidden if site.kind == "attention" else site.shape[0]
        weight = zeros(width) if key is None else 0.02 * jax.random.normal(key, (width,))
        return {"gate": weight, "gate_bias": zeros(1)}

    @staticmethod
    def gate(state: Leaves, h: jax.Array) -> jax.Array:
        """g, to multiply `[..., tokens, channels]`."""
        own = state["before"] < FAR
        score = jnp.where(own, jax.nn.sigmoid(h @ state["gate"] + state["gate_bias"]), 0.0)
        tokens = jnp.maximum(jnp.sum(own, axis=-1, keepdims=True), 1)
        return (jnp.sum(score, axis=-1, keepdims=True) / tokens.astype(score.dtype))[..., None]


@dataclass(frozen=True)
class GatedLoRA(Gated, LoRA):
    """LoRA on linear sites, behind a gate."""

    name: ClassVar[str] = "gated_lora"
    summary: ClassVar[str] = "LoRA behind a gate that the text opens (UniPELT)"
    count: ClassVar[str] = "r (in + out) + in + 1"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    allowed: ClassVar[tuple[str, ...]] = (*DRAWN, "eva")

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return self.beside(site, super().identity(site, size))

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y + self.gate(state, x) * self.update(state, x, frozen, key)


@dataclass(frozen=True)
class GatedBottleneck(Gated, Bottleneck):
    """A bottleneck network behind a gate."""

    name: ClassVar[str] = "gated_bottleneck"
    summary: ClassVar[str] = "bottleneck network behind a gate that the text opens (UniPELT)"
    count: ClassVar[str] = "2dm + m + 2d + 1"

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return self.beside(site, super().identity(site, size))

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        h = self.entering(state, x, y, frozen)
        return y + self.gate(state, h) * self.change(state, h)


@dataclass(frozen=True)
class GatedPrefix(Gated, Prefix):
    """A prefix behind a gate."""

    name: ClassVar[str] = "gated_prefix"
    summary: ClassVar[str] = "prefix behind a gate that the text opens (UniPELT)"
    count: ClassVar[str] = "2 n d + d + 1"

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return self.beside(site, super().identity(site, size))

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        if not isinstance(y, Entry):
            gate = self.gate(state, x)
            state = state | {name: gate * state[name] for name in ("key", "value")}
        return super().apply(state, x, y, frozen, key)


#: By the plain method.
GATED: dict[type[Method], type[Method]] = {LoRA: GatedLoRA, Bottleneck: GatedBottleneck, Prefix: GatedPrefix}


def gated(method: Method) -> Method:
    """A plain method's config with gates."""
    return GATED[type(method)](**_settings(method))


def plain(method: Method) -> Method:
    """A gated method's config without them."""
    return {there: here for here, there in GATED.items()}[type(method)](**_settings(method))


def _settings(method: Method) -> dict[str, Any]:
    return {field.name: getattr(method, field.name) for field in fields(method)}
