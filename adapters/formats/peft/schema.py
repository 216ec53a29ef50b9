"""What kinds of values the keys of PEFT's `adapter_config.json` have, where more than one method reads them.

A method's own settings become fields of that method, which are held to their annotations when it is made (`graftax/typed.py`).
The keys here are looked at before there is a method: to find out which it is, and where it acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....typed import checked, kinds_of
from ...method import Targets


@dataclass(frozen=True)
class SharedKeys:
    """The keys, all of which may be left out."""

    peft_type: str | None = None
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    target_modules: Targets = None
    exclude_modules: Targets = None
    feedforward_modules: Targets = None
    modules_to_save: tuple[str, ...] | None = None
    layers_to_transform: int | tuple[int, ...] | None = None
    layers_pattern: Targets = None
    rank_pattern: Mapping[str, Any] | None = None
    alpha_pattern: Mapping[str, Any] | None = None
    bias: str | None = None
    init_lora_weights: bool | str | None = None


def check_config(config: Mapping[str, Any], where: str) -> None:
    """An error, which begins with `where`, for a shared key whose value is of a kind that PEFT never writes."""
    for key, kind in kinds_of(SharedKeys).items():
        if key in config:
            checked(config[key], kind, f"{where}: {key}")
