"""Methods that turn a weight, or what it makes, in PEFT's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method
from ...methods.boft import BOFT
from ...methods.hra import HRA
from ...methods.oft import OFT
from ...methods.road import RoAd
from ...sites import Site
from .dialect import TableDialect, in_groups


class OFTDialect(TableDialect):
    """PEFT turns patches that overlap, adds them up and goes over them again; once merged, it has turned the kernel.

    Where a kernel has one cell both are the same.
    """

    of = OFT
    peft_type = "OFT"

    method: OFT
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "r": ("r", 0),
        "oft_block_size": ("oft_block_size", None),
        "block_share": ("block_share", False),
        "use_cayley_neumann": ("use_cayley_neumann", True),
        "num_cayley_neumann_terms": ("num_cayley_neumann_terms", 5),
    }
    beside: ClassVar[Mapping[str, Any]] = {
        "peft_version": "0.18.0",  # the first with this series; where no version stands, PEFT says to train again
        "coft": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_weights": True,
    }
    unread = ("init_weights", "module_dropout", "eps")  # eps is read only with coft

    @classmethod
    def has(cls, site: Site) -> bool:
        return site.geometry is None or (site.shape[:2] == (1, 1) and not in_groups(site))

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {"oft_R.weight": np.asarray(leaves["skew"])}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"skew": tensors["oft_R.weight"]}

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        series, version = config.get("use_cayley_neumann", True), str(config.get("peft_version"))
        if "oft_block_size" not in config or (series and _release(version) < (0, 18)):
            raise GraftaxError(f"OFT as PEFT {version} had it computes something else (the form changed in 0.14 and 0.18).")
        method = super().from_config(config, sites)
        if other := [site.path for site in method.select(sites) if not cls.has(site)]:
            raise GraftaxError(
                f"PEFT's OFT answers otherwise before it is merged than after it at {other[0]}, a convolution in groups or of "
                "more than one cell; train such an adapter here."
            )
        return method


def _release(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class BOFTDialect(TableDialect):
    of = BOFT
    peft_type = "BOFT"

    method: BOFT
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "boft_block_size": ("boft_block_size", 4),
        "boft_block_num": ("boft_block_num", 0),
        "boft_n_butterfly_factor": ("boft_n_butterfly_factor", 1),
    }
    beside: ClassVar[Mapping[str, Any]] = {"boft_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "init_weights": True}
    unread = ("init_weights", "boft_dropout")

    @classmethod
    def has(cls, site: Site) -> bool:
        return not in_groups(site)

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        s = np.asarray(leaves["s"])
        return {"boft_R": np.asarray(leaves["q"]), "boft_s": s[None] if site.kind == "conv" else s[:, None]}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"q": tensors["boft_R"], "s": tensors["boft_s"].reshape(-1)}


class HRADialect(TableDialect):
    """The name of the tensor is that of the default."""

    of = HRA
    peft_type = "HRA"

    method: HRA
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {"r": ("r", 8), "apply_GS": ("apply_GS", False)}
    beside: ClassVar[Mapping[str, Any]] = {"bias": "none", "init_weights": True}

    @classmethod
    def has(cls, site: Site) -> bool:
        return not in_groups(site)


class RoAdDialect(TableDialect):
    """The names of the tensors are those of the default."""

    of = RoAd
    peft_type = "ROAD"

    method: RoAd
    fields: ClassVar[Mapping[str, tuple[str, Any]]] = {"variant": ("variant", "road_1"), "group_size": ("group_size", 64)}
