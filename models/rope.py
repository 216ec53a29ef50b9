"""Rotary positions: queries and keys are turned by angles that grow with their position (Su et al., 2021, arXiv:2104.09864).

    (x1, x2) -> (x1 cos a - x2 sin a, x2 cos a + x1 sin a)        a = position * theta^(-2i / dim), pair i

x1 is the first half of a head's first `dim` channels and x2 the second (Hugging Face's layout); other channels stay.
Checkpoints made for longer texts change the frequencies: `linear` divides them all by a factor, `llama3` the low ones alone,
`yarn` by how often a channel turns within the original length (Peng et al., 2023, arXiv:2309.00071).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import GraftaxError
from ..shapes import AnyArray, Float, Int, shaped

Angles = tuple[jax.Array, jax.Array]  # cos and sin [rows, tokens, dim / 2]

_ORIGINAL = "original_max_position_embeddings"
#: Settings a kind needs beside its base, and those it may have.
_NEEDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
    "yarn": ("factor", _ORIGINAL),
}
_MAY = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")}


@dataclass(frozen=True)
class Rope:
    """How the channels of an attention head are turned."""

    dim: int  # channels of an attention head that are turned
    theta: float = 10_000.0
    kind: str = "default"
    settings: tuple[tuple[str, Any], ...] = ()  # of the kind, by Hugging Face's names

    @classmethod
    def read(cls, raw: Mapping[str, Any], head_dim: int, longest: int) -> Rope:
        """From `rope_parameters` of a config, or `rope_scaling` of an older one, with its `rope_theta`.

        `longest`: the model's positions, which were those of its training where the config does not say.
        Raises GraftaxError for an unknown kind or setting, and for what makes no angles.
        """
        rest = dict(raw)
        kind = rest.pop("rope_type", rest.pop("type", "default"))
        rest.pop("type", None)
        if not isinstance(kind, str) or kind not in _NEEDS:
            raise GraftaxError(f"config.json: rope_type {kind!r} is not supported; supported are {', '.join(_NEEDS)}.")
        theta, share = rest.pop("rope_theta"), rest.pop("partial_rotary_factor", 1.0)
        numbers = {**rest, "rope_theta": theta, "partial_rotary_factor": share}
        unsound = [name for name, value in numbers.items() if not _sound(value, null=name in rest)]
        if unsound:
            raise GraftaxError(f"config.json: rotary positions with {', '.join(unsound)} that are no numbers.")
        if _ORIGINAL in _NEEDS[kind]:
            rest.setdefault(_ORIGINAL, longest)
        else:
            rest.pop(_ORIGINAL, None)
        wrong = [name for name in _NEEDS[kind] if rest.get(name) is None]
        if wrong:
            raise GraftaxError(f"config.json: rope_type {kind!r} lacks {', '.join(wrong)}.")
        wrong = [name for name in rest if name not in (*_NEEDS[kind], *_MAY.get(kind, ()))]
        if wrong and kind != "default":
            raise GraftaxError(f"config.json: rope_type {kind!r} with {', '.join(wrong)} is not supported.")
        settings = tuple(sorted((name, value) for name, value in rest.items() if value is not None and kind != "default"))
        return cls._checked(int(head_dim * share), float(theta), kind, settings, head_dim)

    @classmethod
    def _checked(cls, dim: int, theta: float, kind: str, settings: tuple[tuple[str, Any], ...], head_dim: int) -> Rope:
        rope = cls(dim, theta, kind, settings)
        try:
            with np.errstate(all="ignore"):
                inverse, factor = rope.frequencies()
        except (ArithmeticError, ValueError):  # a division by zero, a logarithm of nothing
            inverse, factor = np.asarray(np.nan), 1.0
        if not 0 < 2 * len(np.atleast_1d(inverse)) <= head_dim or not np.isfinite(factor * inverse).all():
            said = ", ".join(f"{name}={value!r}" for name, value in settings)
            raise GraftaxError(f"config.json: {dim} of {head_dim} channels cannot be turned by {kind!r} of {theta} {said}.")
        return rope

    def frequencies(self) -> tuple[np.ndarray, float]:
        """Angle per position `[dim / 2]`, and the factor of cosine and sine."""
        inverse = 1.0 / self.theta ** (np.arange(0, self.dim, 2, dtype=np.float32) / np.float32(self.dim))
        settings = dict(self.settings)
        match self.kind:
            case "linear":
                return inverse / np.float32(settings["factor"]), 1.0
            case "llama3":
                return _llama3(inverse, settings), 1.0
            case "yarn":
                return _yarn(inverse, self.dim, self.theta, settings)
        return inverse, 1.0

    @shaped
    def angles(
        self, positions: Int[AnyArray, "rows tokens"]
    ) -> tuple[Float[Array, "rows tokens half"], Float[Array, "rows tokens half"]]:
        """Of tokens at these positions."""
        inverse, factor = self.frequencies()
        turned = positions[..., None].astype(jnp.float32) * jnp.asarray(inverse, jnp.float32)
        return jnp.cos(turned) * jnp.float32(factor), jnp.sin(turned) * jnp.float32(factor)


def _sound(value: Any, null: bool) -> bool:
    return null if value is None else (isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e30)


@shaped
def turn(
    x: Float[Array, "rows heads tokens size"], angles: tuple[Float[Array, "rows tokens half"], Float[Array, "rows tokens half"]]
) -> Float[Array, "rows heads tokens size"]:
    """Queries or keys turned by `angles`, in float32."""
    cos, sin = (angle[:, None] for angle in angles)
    half = cos.shape[-1]
    one, two = x[..., :half].astype(jnp.float32), x[..., half : 2 * half].astype(jnp.float32)
    turned = [one * cos - two * sin, two * cos + one * sin]
    return jnp.concatenate([*(part.astype(x.dtype) for part in turned), x[..., 2 * half :]], axis=-1)


def _llama3(inverse: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Long waves divided by the factor, short ones as they are, a ramp between."""
    factor, low, high = (np.float32(settings[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = settings["original_max_position_embeddings"] * inverse / np.float32(2 * math.pi)  # within the original length
    ramp = np.clip((turns - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return (1 - ramp) * inverse / factor + ramp * inverse


def _yarn(inverse: np.ndarray, dim: int, theta: float, settings: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    factor, length = settings["factor"], settings["original_max_position_embeddings"]

    def channel(turns: float) -> float:
        """The channel that turns so often within the original length."""
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(settings.get("beta_fast") or 32), channel(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / max(high - low, 0.001), 0.0, 1.0)
    scaled = (1 - ramp) * inverse + ramp * inverse / np.float32(factor)

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = settings.get("attention_factor")
    if attention is None:
        one, all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
        attention = mscale(one) / mscale(all_dim) if one and all_dim else mscale(1.0)
    return scaled.astype(np.float32), float(attention)
