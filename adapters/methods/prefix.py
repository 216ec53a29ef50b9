"""Prefix tuning: trained keys and values that every layer may attend to (Li & Liang, 2021, arXiv:2101.00190).

    attend to [P_k; k], [P_v; v]        P_k, P_v [n, hidden] per layer, n virtual tokens

As in PEFT the prefix is not passed through a network (P-tuning v2, Liu et al., 2022, arXiv:2110.07602) and the real tokens'
positions start after the virtual ones, which is why the method also acts at the encoder's `input`. An empty slot's virtual
tokens are masked off. Unlike the other methods a fresh prefix changes the output: it is initialised at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ...errors import GraftaxError
from ...typed import Size
from ..method import Leaves, Method, zeros
from ..sites import Entry, KeyValue, Site, in_front, split_attention_heads


@dataclass(frozen=True)
class Prefix(Method):
    """Virtual tokens in every layer's attention."""

    name: ClassVar[str] = "prefix"
    summary: ClassVar[str] = "trained keys and values in front of every layer's attention"
    count: ClassVar[str] = "2 n d"
    acts_on: ClassVar[tuple[str, ...]] = ("attention", "input")
    padded: ClassVar[dict[str, int]] = {"key": 0, "value": 0, "mask": 0}
    fresh_within: ClassVar[float | None] = None
    virtual: ClassVar[bool] = True

    tokens: Size = 16  # n
    shifted: bool = True  # the real tokens' positions start after the virtual ones, as in PEFT; in `adapters` they do not

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is not None:
            raise GraftaxError("prefix: acts on the attention of every layer and takes no targets.")

    @property
    def virtual_tokens(self) -> int:
        return self.tokens if self.shifted else 0

    def size(self, site: Site) -> int:
        return self.tokens if site.kind == "attention" else 0

    def init(self, key: jax.Array, site: Site) -> Leaves:
        if site.kind == "input":
            return {}
        pair = 0.02 * jax.random.normal(key, (2, self.tokens, *site.shape))
        return {"key": pair[0], "value": pair[1]}

    def fixed(self, site: Site) -> Leaves:
        if site.kind == "input":
            return {"offset": np.asarray(self.tokens if self.shifted else 0, np.int32)}
        return {"mask": np.ones(self.tokens, bool)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        if site.kind == "input":
            return {}, {"offset": np.asarray(0, np.int32)}
        return {"key": zeros(size, *site.shape), "value": zeros(size, *site.shape)}, {"mask": np.zeros(size, bool)}

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        if isinstance(y, Entry):
            offset = state["offset"] if y.counted is None else state["offset"] * y.counted
            return y._replace(positions=y.positions + offset)

        heads = y.key.shape[-3]
        key, value = (
            in_front(split_attention_heads(state[name], heads), real, -2) for name, real in (("key", y.key), ("value", y.value))
        )
        texts = None if y.texts is None else in_front(state["mask"].astype(np.int32), y.texts, -1)  # a row has one text
        return KeyValue(key, value, in_front(state["mask"], y.mask, -1), texts)

    # PEFT keeps one tensor [tokens, layers * 2 * hidden]: key and value of layer 0, of layer 1, ...
