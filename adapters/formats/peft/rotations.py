"""Methods that turn a weight, or what it makes, in PEFT's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method
from ...methods.boft import BOFT
from ...methods.hra import HRA
from ...methods.oft import OFT
from ...methods.road import RoAd
from ...sites import Site
from .dialect import Dialect
from .shared_keys import read_targets, targets_of


class OFTDialect(Dialect):
    of = OFT
    peft_type = "OFT"

    method: OFT

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {"oft_R.weight": np.asarray(leaves["skew"])}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"skew": tensors["oft_R.weight"]}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "peft_version": "0.18.0",  # the first with this series; where no version stands, PEFT says to train again
            "r": self.method.r,
            "oft_block_size": self.method.oft_block_size,
            "block_share": self.method.block_share,
            "use_cayley_neumann": self.method.use_cayley_neumann,
            "num_cayley_neumann_terms": self.method.num_cayley_neumann_terms,
            "coft": False,
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("init_weights", None)  # how the weights began, not what they do
        config.pop("module_dropout", None)  # of training alone
        config.pop("eps", None)  # read only with coft
        series, version = config.pop("use_cayley_neumann", True), str(config.get("peft_version"))
        if "oft_block_size" not in config or (series and _release(version) < (0, 18)):
            raise GraftaxError(f"OFT as PEFT {version} had it computes something else (the form changed in 0.14 and 0.18).")
        return OFT(
            r=config.pop("r", 0),
            oft_block_size=config.pop("oft_block_size"),
            block_share=config.pop("block_share", False),
            use_cayley_neumann=series,
            num_cayley_neumann_terms=config.pop("num_cayley_neumann_terms", 5),
            targets=read_targets(config, sites),
        )


def _release(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class BOFTDialect(Dialect):
    of = BOFT
    peft_type = "BOFT"

    method: BOFT

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        s = np.asarray(leaves["s"])
        return {"boft_R": np.asarray(leaves["q"]), "boft_s": s[None] if site.kind == "conv" else s[:, None]}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"q": tensors["boft_R"], "s": tensors["boft_s"].reshape(-1)}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "boft_block_size": self.method.boft_block_size,
            "boft_block_num": self.method.boft_block_num,
            "boft_n_butterfly_factor": self.method.boft_n_butterfly_factor,
            "boft_dropout": 0.0,
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("init_weights", None)  # how the weights began, not what they do
        config.pop("boft_dropout", None)  # of training alone
        return BOFT(
            boft_block_size=config.pop("boft_block_size", 4),
            boft_block_num=config.pop("boft_block_num", 0),
            boft_n_butterfly_factor=config.pop("boft_n_butterfly_factor", 1),
            targets=read_targets(config, sites),
        )


class HRADialect(Dialect):
    """The name of the tensor is that of the default."""

    of = HRA
    peft_type = "HRA"

    method: HRA

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.method.r,
            "apply_GS": self.method.apply_GS,
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "bias": "none",
            "init_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("init_weights", None)  # how the weights began, not what they do
        return HRA(r=config.pop("r", 8), apply_GS=config.pop("apply_GS", False), targets=read_targets(config, sites))


class RoAdDialect(Dialect):
    """The names of the tensors are those of the default."""

    of = RoAd
    peft_type = "ROAD"

    method: RoAd

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "variant": self.method.variant,
            "group_size": self.method.group_size,
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "init_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("init_weights", None)  # how the weights began, not what they do
        return RoAd(
            variant=config.pop("variant", "road_1"),
            group_size=config.pop("group_size", 64),
            targets=read_targets(config, sites),
        )
