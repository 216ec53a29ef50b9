"""VeRA and RandLoRA in PEFT's words: what was drawn at random is one A and one B for all sites, as wide as the widest needs.

A site uses the beginning of them. PEFT's torch draws other numbers than graftax does, so files without them are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method
from ...methods.randlora import RandLoRA, in_a_row
from ...methods.vera import VeRA
from ...sites import Site
from .dialect import TableDialect, file_key


class VeRADialect(TableDialect):
    """One A [r, in] and one B [out, r] in a file, under the model's key."""

    of = VeRA
    peft_type = "VERA"
    conv1d = True

    method: VeRA
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "r": ("r", 256),
        "d_initial": ("d_initial", 0.1),
        "dropout": ("vera_dropout", 0.0),
        "projection_prng_key": ("projection_prng_key", 0),
    }
    beside: ClassVar[Mapping[str, Any]] = {
        "save_projection": True,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_weights": True,
    }
    shared: ClassVar[dict[str, str]] = {"a": "base_model.vera_A", "b": "base_model.vera_B"}

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {f"vera_{name}": np.asarray(leaf) for name, leaf in leaves.items() if name not in self.shared}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        a, b = (max((np.asarray(leaves[name]) for leaves in states.values()), key=lambda t: t.shape[1]) for name in self.shared)
        one = {self.shared["a"]: np.asarray(a, order="C"), self.shared["b"]: np.asarray(b.T, order="C")}
        return super().export(states) | one

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        a, b = tensors[self.shared["a"]], tensors[self.shared["b"]].T
        states = super().restore(like, tensors)
        return {site: own | {"a": a[:, : site.shape[0]], "b": b[:, : site.shape[1]]} for site, own in states.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        _need_drawn(config, "vera")
        return super().from_config(config, sites)


class RandLoRADialect(TableDialect):
    """One A [r, 1, small] and one B [wide, n, r], under the model's key and every site's; what no site uses is zeros."""

    of = RandLoRA
    peft_type = "RANDLORA"
    conv1d = True

    method: RandLoRA
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "r": ("r", 32),
        "alpha": ("randlora_alpha", 640),
        "dropout": ("randlora_dropout", 0.0),
        "projection_prng_key": ("projection_prng_key", 0),
    }
    beside = VeRADialect.beside
    unread = ("init_weights", "sparse", "very_sparse")
    shared: ClassVar[dict[str, str]] = {"a": "randlora_A", "b": "randlora_B"}

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {f"randlora_{name}": np.asarray(leaf) for name, leaf in leaves.items() if name not in self.shared}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        r = self.method.r
        small, wide = sorted(max(site.shape[axis] for site in states) for axis in (0, 1))
        a = np.zeros((r, 1, small), np.float32)
        b = np.zeros((wide, self.method.bases(small), r), np.float32)
        for leaves in states.values():
            own_a, own_b = np.asarray(leaves["a"]), _by_basis(np.asarray(leaves["b"]), r)
            a[:, 0, : own_a.shape[1]] = own_a
            b[: own_b.shape[0], : own_b.shape[1]] = own_b
        keys = {name: self._keys(states, suffix) for name, suffix in self.shared.items()}
        return super().export(states) | dict.fromkeys(keys["a"], a) | dict.fromkeys(keys["b"], b)

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        shared = {name: [tensors[key] for key in self._keys(like, suffix)] for name, suffix in self.shared.items()}
        if any(not np.array_equal(copy, copies[0]) for copies in shared.values() for copy in copies):
            raise GraftaxError("randlora: the sites' copies of the random bases are not the same.")
        a, b = shared["a"][0], shared["b"][0]
        states = super().restore(like, tensors)
        for site, leaves in states.items():
            small, wide = sorted(site.shape)
            leaves |= {"a": a[:, 0, :small], "b": in_a_row(b[:wide, : self.method.bases(small)])}
        return states

    @staticmethod
    def _keys(states: Iterable[Site], suffix: str) -> list[str]:
        return [f"base_model.{suffix}", *(file_key(site, suffix) for site in states)]

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        _need_drawn(config, "randlora")
        return super().from_config(config, sites)


def _by_basis(rows: np.ndarray, r: int) -> np.ndarray:
    """Inverse of `in_a_row`: [wide, n, r] from [n r, wide]."""
    return rows.T.reshape(rows.shape[1], -1, r)


def _need_drawn(config: dict[str, Any], method: str) -> None:
    """Pop `save_projection`; an error where a file lacks what was drawn."""
    if not config.pop("save_projection", True):
        raise GraftaxError(
            f"{method}: saved without its random projections (save_projection=false), and torch's generator, which made them, "
            "cannot be reproduced. Save it again with save_projection=true."
        )
