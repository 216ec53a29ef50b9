"""LoRA and its kin in PEFT's words: factors lora_A [r, in] and lora_B [out, r], at convolutions with more axes.

PEFT has one `peft_type` for LoRA, DoRA (`use_dora`) and activated LoRA (`alora_invocation_tokens`). LoRA-FA differs from LoRA
in training alone: what it has trained is written as LoRA and read as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves
from ...methods import starts
from ...methods.adalora import AdaLoRA
from ...methods.alora import ALoRA
from ...methods.dora import DoRA
from ...methods.lora import LoRA, OnResidual
from ...methods.lora_fa import LoRAFA
from ...sites import Site
from . import convolutions
from .dialect import Dialect, in_groups
from .shared_keys import patterns_of, read_targets, targets_of

_BIAS = "lora_B.bias"
_SUFFIXES = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "conv": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}


class LoRADialect(Dialect):
    of: ClassVar[type[LoRA]] = LoRA
    peft_type = "LORA"
    conv1d = True

    method: LoRA

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        a, b = _SUFFIXES[site.kind]
        bias = {_BIAS: np.asarray(leaves["bias"])} if "bias" in leaves else {}
        factors = np.asarray(leaves["a"]), np.asarray(leaves["b"])
        theirs = (factors[0], factors[1].T) if site.geometry is None else convolutions.to_peft(site, *factors)
        return dict(zip((a, b), theirs, strict=True)) | bias

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        a, b = _SUFFIXES[site.kind]
        bias = {"bias": tensors[_BIAS]} if _BIAS in tensors else {}
        theirs = tensors[a], tensors[b]
        own = (theirs[0], theirs[1].T) if site.geometry is None else convolutions.from_peft(site, *theirs)
        return dict(zip("ab", own, strict=True)) | bias

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.method.r,
            "lora_alpha": self.method.alpha,
            "lora_dropout": self.method.dropout,
            "use_rslora": self.method.rslora,
            "rank_pattern": patterns_of(self.method.rank_pattern, chosen),
            "alpha_pattern": patterns_of(self.method.alpha_pattern, chosen),
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "bias": "none",
            **({"lora_bias": True} if self.method.bias else {}),
            "fan_in_fan_out": False,
            "init_lora_weights": True,  # whatever the start was: PEFT draws, and then reads the file
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> LoRA:
        start = _read_start(config)
        if start != "default" and start not in cls.of.allowed:
            raise GraftaxError(f"init_lora_weights={start!r} with {cls.of.name} is not supported; {_CONVERT}.")
        kind = cls.of if start == "default" else OnResidual
        return kind(
            r=config.pop("r", 8),
            alpha=config.pop("lora_alpha", 8),
            dropout=config.pop("lora_dropout", 0.0),
            rslora=config.pop("use_rslora", False),
            rank_pattern=config.pop("rank_pattern", None) or {},
            alpha_pattern=config.pop("alpha_pattern", None) or {},
            targets=read_targets(config, sites),
            start=start,
            bias=bool(config.pop("lora_bias", False)),
        )


_CONVERT = "save it with PEFT's path_initial_model_for_weight_conversion, which makes it plain LoRA"


def _read_start(config: dict[str, Any]) -> str:
    """Pop how PEFT's LoRA began.

    "pissa" and "olora" PEFT repeats on the base model when it loads the file; "default" stands for all that leave the base
    alone. The others cannot be repeated from a file (PiSSA's fast form draws at random).
    """
    began = config.pop("init_lora_weights", True)
    for key in ("eva_config", "corda_config", "lora_ga_config", "loftq_config"):
        config.pop(key, None)  # read only at the start
    began = began.lower() if isinstance(began, str) else began
    if began is None or isinstance(began, bool) or began in ("gaussian", "eva", "orthogonal", "mica"):
        return "default"
    if began in starts.FROM_WEIGHTS:
        return str(began)
    raise GraftaxError(f"init_lora_weights={began!r} changed the base model in a way that no file tells; {_CONVERT}.")


class LoRAFADialect(LoRADialect):
    of = LoRAFA

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        return False  # PEFT's word for it is LoRA's


class DoRADialect(LoRADialect):
    of = DoRA

    magnitude: ClassVar[str] = "lora_magnitude_vector"

    @classmethod
    def has(cls, site: Site) -> bool:
        return not in_groups(site)

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        m = np.asarray(leaves["m"])
        return super().tensors(site, leaves) | {self.magnitude: m if site.geometry is None else m.reshape(1, -1, 1, 1)}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return super().leaves(site, tensors) | {"m": tensors[self.magnitude].reshape(-1)}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return super().to_config(chosen, sites) | {"use_dora": True}

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        return super().reads(config) and bool(config.get("use_dora"))

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> LoRA:
        config.pop("use_dora")
        return super().from_config(config, sites)


class ALoRADialect(LoRADialect):
    """Of the site `text` no file holds anything: the invocation is in the config."""

    of = ALoRA
    task_type = "CAUSAL_LM"

    method: ALoRA
    word: ClassVar[str] = "alora_invocation_tokens"

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {} if site.kind == "text" else super().tensors(site, leaves)

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {} if site.kind == "text" else super().leaves(site, tensors)

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        linear = [site for site in chosen if site.kind == "linear"]
        return super().to_config(linear, sites) | {self.word: list(self.method.invocation)}

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        return super().reads(config) and config.get(cls.word) is not None

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> LoRA:
        invocation: Any = {"invocation": config.pop(cls.word)}
        return replace(super().from_config(config, sites), **invocation)


class AdaLoRADialect(Dialect):
    of: ClassVar[type[AdaLoRA]] = AdaLoRA
    peft_type = "ADALORA"
    conv1d = True

    method: AdaLoRA
    #: fields that are PEFT's in name, meaning and default, beside `init_r` and `target_r`
    schedule: ClassVar[tuple[str, ...]] = ("tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step")

    @classmethod
    def has(cls, site: Site) -> bool:
        return not in_groups(site)

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {
            "lora_A": np.asarray(leaves["q"]),
            "lora_B": np.asarray(leaves["p"]).T,
            "lora_E": np.asarray(leaves["e"])[:, None],
        }

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"q": tensors["lora_A"], "p": tensors["lora_B"].T, "e": tensors["lora_E"][:, 0]}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        method = self.method
        shortest = method.tinit + method.tfinal + 1
        return {
            "init_r": method.init_r,
            "target_r": method.target_r,
            **{name: getattr(method, name) for name in self.schedule},
            "total_step": method.total_step or shortest,  # PEFT wants one, also where nothing was trained
            "lora_alpha": method.alpha,
            "lora_dropout": method.dropout,
            "rank_pattern": {key: list(left) for key, left in method.rank_pattern.items()} or None,
            "target_modules": targets_of(method.targets, chosen, sites),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> AdaLoRA:
        for unread in ("init_lora_weights", "r"):  # what it began from, and a rank that PEFT does not read either
            config.pop(unread, None)
        init_r = config.pop("init_r", 12)
        return AdaLoRA(
            init_r=init_r,
            # PEFT's schedule cannot reach a larger one, but adapters are trained there without calling it
            target_r=min(config.pop("target_r", 8), init_r),
            **{name: value for name in cls.schedule if (value := config.pop(name, None)) is not None},
            alpha=config.pop("lora_alpha", 8),
            dropout=config.pop("lora_dropout", 0.0),
            rank_pattern=config.pop("rank_pattern", None) or {},
            targets=read_targets(config, sites),
        )
