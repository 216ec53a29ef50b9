"""A method's dialect: its config in the words of PEFT's `adapter_config.json`, and its leaves as the tensors of a file.

A method knows nothing of files (`adapters/method.py`). What files call it is said beside it, by a `Dialect` of its own where
PEFT has the method: there is a file here for each group of like methods, and a table of them all in `dialect_table.py`. That
of every other method is `Dialect` itself, which says what graftax's own files say: a tensor for each leaf, under the method's
name.

    Dialect(Bottleneck()).tensors(site, {"down": ...})        {"bottleneck_down": ...}
    LoRADialect(LoRA()).tensors(site, {"a": ..., "b": ...})   {"lora_A.weight": ..., "lora_B.weight": ...}
    LoRADialect(LoRA(r=4)).to_config(chosen, sites)           {"r": 4, "lora_alpha": 16.0, ...}

A method's tensors are the same in both kinds of files: those that PEFT reads (`"peft_type": "LORA"`), and graftax's own
(`"GRAFTAX"`), whose config lists the fields of the methods as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method
from ...sites import Site
from .shared_keys import read_targets, targets_of

MODEL_PREFIX = "base_model.model."  # of every key in PEFT's files


def file_key(site: Site, suffix: str) -> str:
    """Key of a tensor in an adapter file."""
    return MODEL_PREFIX + (f"{site.path}.{suffix}" if site.path else suffix)


def in_groups(site: Site) -> bool:
    """Whether it is a convolution in groups."""
    return site.geometry is not None and site.geometry.groups > 1


@dataclass(frozen=True)
class Dialect:
    """One method as files have it; this one is of methods that PEFT has not."""

    of: ClassVar[type[Method]]  # whose dialect it is
    peft_type: ClassVar[str | None] = None  # PEFT's name for the method, where PEFT has it
    task_type: ClassVar[str | None] = None  # the only `task_type` that PEFT has it for; None: any
    conv1d: ClassVar[bool] = False  # whether PEFT has it for layers whose weights lie the other way round (GPT-2's)
    past_key_values: ClassVar[bool] = False  # whether PEFT passes it as a cache of keys and values; not every family takes one

    method: Method

    @classmethod
    def has(cls, site: Site) -> bool:
        """Whether PEFT has the method at such a site."""
        return True

    # -- its leaves as tensors ----------------------------------------------------------------------------------------

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        """Tensors of a file, by key, from the leaves at every site (`Method.held`)."""
        return {
            self._key(site, suffix, tensor): np.asarray(tensor, order="C")
            for site, leaves in states.items()
            for suffix, tensor in self.tensors(site, leaves).items()
        }

    def _key(self, site: Site, suffix: str, tensor: np.ndarray) -> str:
        """The key of a tensor; what sites share has one of its own, with its shape where they have one each by width."""
        if suffix.removeprefix(f"{self.method.name}_") not in self.method.shared:
            return file_key(site, suffix)
        return f"{MODEL_PREFIX}{suffix}.{'x'.join(map(str, np.shape(tensor)))}"

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        """Inverse of `export`: leaves like `like` from the tensors of a file, whose keys and shapes were checked before."""
        states = {}
        for site, leaves in like.items():
            own = self.tensors(site, leaves)
            states[site] = self.leaves(site, {suffix: tensors[self._key(site, suffix, own[suffix])] for suffix in own})
        return states

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        """One site's leaves as tensors, by the suffix of their key, which no two methods may share."""
        return {f"{self.method.name}_{name}": np.asarray(leaf) for name, leaf in leaves.items()}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        """Inverse of `tensors`."""
        return {suffix.removeprefix(f"{self.method.name}_"): tensor for suffix, tensor in tensors.items()}

    # -- its config ---------------------------------------------------------------------------------------------------

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any] | None:
        """The method's config at the sites it has chosen, in PEFT's words; None where PEFT cannot say it."""
        return None

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        """Whether a PEFT config is this method's."""
        return cls.peft_type is not None and config.get("peft_type") == cls.peft_type

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        """Inverse of `to_config`; it pops what it reads. What it leaves must be at PEFT's defaults (`refuse_leftovers`)."""
        raise GraftaxError(f"PEFT's {config.get('peft_type')} cannot be read as {cls.of.name}.")


class TableDialect(Dialect):
    """The dialect of a method of which PEFT's config says each field under a key: the config is a table."""

    fields: ClassVar[Mapping[str, tuple[str, Any]]]  # by field of the method: PEFT's key, and PEFT's default
    beside: ClassVar[Mapping[str, Any]] = {"init_weights": True}  # what is written besides, whatever the method's fields are
    unread: ClassVar[tuple[str, ...]] = ("init_weights",)  # keys of how weights began or were trained

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any] | None:
        settings = {key: getattr(self.method, field) for field, (key, _) in self.fields.items()}
        return settings | {"target_modules": targets_of(self.method.targets, chosen, sites)} | dict(self.beside)

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        for key in cls.unread:
            config.pop(key, None)
        settings = {field: config.pop(key, default) for field, (key, default) in cls.fields.items()}
        return cls.of(**settings, targets=read_targets(config, sites))
