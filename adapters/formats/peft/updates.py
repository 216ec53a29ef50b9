"""Other updates of a weight in PEFT's words: by small factors of it, a block, a spectrum, or a few of its entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method
from ...methods.fourierft import FourierFT
from ...methods.hira import HiRA
from ...methods.loha import LoHa
from ...methods.lokr import LoKr
from ...methods.lycoris import Lycoris
from ...methods.miss import MiSS
from ...methods.shira import SHiRA
from ...methods.sparse import counted_from_one
from ...sites import Site
from .dialect import Dialect, TableDialect, in_groups
from .shared_keys import patterns_of, read_targets, targets_of


class LycorisDialect(Dialect):
    """What LoHa's and LoKr's configs have in common."""

    method: Lycoris

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.method.r,
            "alpha": self.method.alpha,
            "rank_pattern": patterns_of(self.method.rank_pattern, chosen),
            "alpha_pattern": patterns_of(self.method.alpha_pattern, chosen),
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "init_weights": True,
            "use_effective_conv2d": self.method.use_effective_conv2d,
        }

    @staticmethod
    def fields(config: dict[str, Any], sites: Sequence[Site]) -> dict[str, Any]:
        """Those of the method, popped from a config."""
        for only_training in ("init_weights", "rank_dropout", "module_dropout"):
            config.pop(only_training, None)
        return {
            "r": config.pop("r", 8),
            "alpha": config.pop("alpha", 8),
            "rank_pattern": config.pop("rank_pattern", None) or {},
            "alpha_pattern": config.pop("alpha_pattern", None) or {},
            "targets": read_targets(config, sites),
            "use_effective_conv2d": config.pop("use_effective_conv2d", False),
        }


_INWARD = {"w1_in": "w1_b", "w2_in": "w2_b"}  # PEFT's names of the inputs' factors, where a core is behind them
_OUTWARD = {theirs: ours for ours, theirs in _INWARD.items()}


class LoHaDialect(LycorisDialect):
    of = LoHa
    peft_type = "LOHA"

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        if "t1" in leaves:
            return {f"hada_{_INWARD.get(name, name)}": np.asarray(leaf) for name, leaf in leaves.items()}
        return {f"hada_{name}": np.asarray(leaf).T if name.endswith("a") else np.asarray(leaf) for name, leaf in leaves.items()}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        named = {suffix.removeprefix("hada_"): tensor for suffix, tensor in tensors.items()}
        if "t1" in named:
            return {_OUTWARD.get(name, name): tensor for name, tensor in named.items()}
        return {name: tensor.T if name.endswith("a") else tensor for name, tensor in named.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        return LoHa(**cls.fields(config, sites))


class LoKrDialect(LycorisDialect):
    """The names of the tensors are those of the default; a whole C2 has the axes of its part of a convolution's kernel."""

    of = LoKr
    peft_type = "LOKR"

    method: LoKr
    whole: ClassVar[str] = "lokr_w2"

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        found = super().tensors(site, leaves)
        if "t2" in leaves:
            found["lokr_w2_a"], found["lokr_w2_b"] = found["lokr_w2_a"].T, found.pop("lokr_w2_in")
        if site.kind == "conv" and self.whole in found:
            found[self.whole] = found[self.whole].reshape(len(found[self.whole]), -1, *site.shape[:2])
        return found

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        named = dict(tensors)
        if "lokr_t2" in named:
            named["lokr_w2_a"], named["lokr_w2_in"] = named["lokr_w2_a"].T, named.pop("lokr_w2_b")
        if self.whole in named:
            named[self.whole] = named[self.whole].reshape(len(named[self.whole]), -1)
        return super().leaves(site, named)

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        cut = {"decompose_both": self.method.decompose_both, "decompose_factor": self.method.decompose_factor}
        return super().to_config(chosen, sites) | cut

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("rank_dropout_scale", None)  # of training
        both, factor = config.pop("decompose_both", False), config.pop("decompose_factor", -1)
        return LoKr(**cls.fields(config, sites), decompose_both=both, decompose_factor=factor)


class MiSSDialect(Dialect):
    """The names of the tensors are those of the default."""

    of = MiSS
    peft_type = "MISS"

    method: MiSS

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.method.r,
            "mini_r": self.method.mini_r or 1,
            "init_weights": "mini" if self.method.mini_r else True,  # where PEFT says which kind it is
            "miss_dropout": self.method.dropout,
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "bias": "none",
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        mini_r = config.pop("mini_r", 1)
        if config.get("init_weights") != "bat":
            mini_r = mini_r if config.pop("init_weights", True) == "mini" else 0
        return MiSS(
            r=config.pop("r", 64),
            mini_r=mini_r,
            dropout=config.pop("miss_dropout", 0.0),
            targets=read_targets(config, sites),
        )


class HiRADialect(TableDialect):
    of = HiRA
    peft_type = "HIRA"
    conv1d = True

    method: HiRA
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {"r": ("r", 32)}
    beside: ClassVar[Mapping[str, Any]] = {"fan_in_fan_out": False, "init_weights": True}
    unread = ("init_weights", "hira_dropout")

    @classmethod
    def has(cls, site: Site) -> bool:
        return not in_groups(site)

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        a, b = np.asarray(leaves["a"]), np.asarray(leaves["b"]).T
        if site.kind == "conv":
            height, width, inputs, out = site.shape
            a, b = a.reshape(len(a), inputs, height, width), b.reshape(out, len(a), 1, 1)
        return {"hira_A": a, "hira_B": b}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        a, b = tensors["hira_A"], tensors["hira_B"]
        return {"a": a.reshape(len(a), -1), "b": b.reshape(len(b), -1).T}


class FourierFTDialect(TableDialect):
    """The names of the tensors are those of the default."""

    of = FourierFT
    peft_type = "FOURIERFT"
    conv1d = True

    method: FourierFT
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "n_frequency": ("n_frequency", 1000),
        "scaling": ("scaling", 150.0),
        "random_loc_seed": ("random_loc_seed", 777),
        "init_weights": ("init_weights", False),
    }
    beside: ClassVar[Mapping[str, Any]] = {"bias": "none", "fan_in_fan_out": False}
    unread = ()


class SHiRADialect(TableDialect):
    """The places [2, entries] in a file are rows and columns of torch's weight, which is [out, in]."""

    of = SHiRA
    peft_type = "SHIRA"

    method: SHiRA
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {"r": ("r", 32), "random_seed": ("random_seed", 0)}
    beside: ClassVar[Mapping[str, Any]] = {"mask_type": "random", "fan_in_fan_out": False, "init_weights": True}
    unread = ("mask_type", "init_weights")  # how the entries were chosen and began: the file has both

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        flat = np.asarray(leaves["place"]) - 1
        indices = np.stack([flat // site.shape[0], flat % site.shape[0]]).astype(np.int32)
        return {"shira_weight": np.asarray(leaves["entries"]), "shira_indices": indices}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        (row, column), (inputs, out) = tensors["shira_indices"], site.shape
        if row.min() < 0 or row.max() >= out or column.min() < 0 or column.max() >= inputs:
            raise GraftaxError(f"shira: {site.path} is [{out}, {inputs}], and shira_indices point outside.")
        return {"entries": tensors["shira_weight"], "place": counted_from_one(row.astype(np.int64) * inputs + column)}

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config["random_seed"] = config.get("random_seed") or 0  # where it says none, what was drawn is in the file
        return super().from_config(config, sites)
