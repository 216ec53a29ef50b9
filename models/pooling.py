"""A vector of a text: what the last layer says of its tokens, pooled.

The mean over the tokens, unless the backbone's directory is of sentence-transformers: its `modules.json` names what follows the
layers, a pooling (whose own config says which) and perhaps a division by the vector's length, and `sentence_bert_config.json`
says how many tokens of a text are read. So vectors are those that library gives. What it may have there beside these (a dense
layer, say) changes vectors, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..errors import GraftaxError
from ..json_files import read_object, read_value
from ..shapes import Bool, Float, shaped
from ..typed import Some, checked


def _first(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    return hidden[:, 0]


def _most(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.max(jnp.where(weight > 0, hidden, -jnp.inf), axis=1)


def _mean(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.sum(weight * hidden, axis=1) / jnp.sum(weight, axis=1)


def _by_root(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.sum(weight * hidden, axis=1) / jnp.sqrt(jnp.sum(weight, axis=1))


def _later_more(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    return _mean(hidden, weight * jnp.arange(1, hidden.shape[1] + 1, dtype=weight.dtype)[:, None])


def _last(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    last = jnp.sum(weight, axis=1).astype(jnp.int32) - 1
    return jnp.take_along_axis(hidden, last[:, None], axis=1)[:, 0]


#: sentence-transformers' names -> `hidden [rows, tokens, size]` and `weight [rows, tokens, 1]`, 1 on tokens, to `[rows, size]`.
#: Where a config names several, their vectors stand one behind another, in this order.
POOLINGS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cls": _first,
    "max": _most,
    "mean": _mean,
    "mean_sqrt_len_tokens": _by_root,
    "weightedmean": _later_more,
    "lasttoken": _last,
}
#: The switches of a pooling's config.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """How the last layer becomes a vector."""

    names: tuple[str, ...] = ("mean",)  # of `POOLINGS`
    normalized: bool = False  # to length 1
    max_length: int | None = None  # tokens of a text that are read; None: not said

    @classmethod
    def of(cls, directory: str | None) -> Pooling:
        """What a backbone's directory says; the mean where it says nothing. GraftaxError for what is not computed here."""
        modules = Path(directory or "") / "modules.json"
        if directory is None or not modules.is_file():
            return cls()
        content = read_value(modules)
        if not isinstance(content, list) or not all(isinstance(m, dict) and isinstance(m.get("type"), str) for m in content):
            raise GraftaxError(f"{modules}: expected a list of modules, each with its type.")
        names: tuple[str, ...] = ("mean",)
        for module in content:
            kind = module["type"].rpartition(".")[2]
            if kind == "Pooling":
                names = _read(modules.parent / str(module.get("path")) / "config.json")
            elif kind not in ("Transformer", "Normalize"):
                raise GraftaxError(f"{modules}: vectors of this backbone pass through a module {kind}, which is not supported.")
        normalized = any(module["type"].rpartition(".")[2] == "Normalize" for module in content)
        return cls(names, normalized, _max_length(modules.with_name("sentence_bert_config.json")))

    @shaped
    def __call__(self, hidden: Float[Array, "rows tokens dim"], mask: Bool[Array, "rows tokens"]) -> Float[Array, "rows size"]:
        """Vectors of texts, float32, of what the last layer says of their tokens; `size` is `dim` times the names."""
        hidden, weight = hidden.astype(jnp.float32), mask[:, :, None].astype(jnp.float32)
        vectors = jnp.concatenate([POOLINGS[name](hidden, weight) for name in self.names], axis=-1)
        if self.normalized:
            vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        return vectors


def _max_length(config: Path) -> int | None:
    """How many tokens of a text the model reads, with its special tokens; None where nothing says it."""
    length = read_object(config).get("max_seq_length") if config.is_file() else None
    return checked(length, Some | None, f"{config}: max_seq_length")


def _read(config: Path) -> tuple[str, ...]:
    """The names in a pooling's config: one under `pooling_mode`, as newer versions write it, or a switch for each."""
    content = read_object(config)
    chosen: Any = content.get("pooling_mode")
    if chosen is None:
        chosen = [name for switch, name in _SWITCHES.items() if content.get(switch) is True]
    chosen = [chosen] if isinstance(chosen, str) else chosen
    if not isinstance(chosen, list) or not chosen or not all(isinstance(name, str) and name in POOLINGS for name in chosen):
        raise GraftaxError(f"{config}: its pooling is none that is supported: {', '.join(POOLINGS)}.")
    return tuple(name for name in POOLINGS if name in chosen)
