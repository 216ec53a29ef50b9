"""The keys of PEFT's `adapter_config.json` that more than one method has, and the rule for reading a config strictly.

A method's own settings become fields of that method, which are held to their annotations when it is made (`graftax/typed.py`).
The keys that more than one method has are looked at before there is a method: to find out which it is, and where it acts
(`check_config`).

PEFT warns about keys it does not know and drops them; here a key that would change the result is an error that names it.
PEFT's switches are off when falsy, so after a method has popped what it understands, whatever is left must be falsy or one
of the keys that say nothing about the result.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import GraftaxError
from ....typed import checked, kinds_of
from ...method import Targets
from ...patterns import fullmatch, matches, pattern_value
from ...sites import LM_HEAD, WEIGHTS, Site

#: Its types whose file holds one tensor for all virtual tokens, and wraps the model so that the head's keys are shorter.
PROMPT_TYPES = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")

#: Keys that say where an adapter comes from or how it is to be run, never what it computes.
_NEUTRAL = {
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "fan_in_fan_out",  # how torch stores the base weight
    "megatron_core",
    "qalora_group_size",  # read only with use_qalora
    "layers_pattern",  # read only with layers_to_transform
    "num_attention_heads",
}


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


def targets_of(targets: Targets, chosen: Sequence[Site], sites: Sequence[Site]) -> str | list[str]:
    """`target_modules`: the user's own targets; for a default, the shortest names that mean the chosen sites and no other.

    So too where the user named modules as they are called in older versions of transformers.
    """
    wanted = {site.path for site in chosen}
    if targets is not None and all(matches(targets, path) for path in wanted):
        return targets if isinstance(targets, str) else list(targets)
    modules = {site.path for site in sites if site.kind in WEIGHTS}
    for names in ({site.path.rpartition(".")[2] for site in chosen}, {site.within for site in chosen}):
        if {path for path in modules if matches(tuple(names), path)} == wanted:
            return sorted(names)
    return sorted(wanted)


def patterns_of(patterns: Mapping[str, Any], chosen: Sequence[Site]) -> dict[str, Any]:
    """`rank_pattern` or `alpha_pattern`: the user's own, unless they name modules as older versions of transformers do."""
    values = {site.path: pattern_value(patterns, None, *site.paths) for site in chosen}
    if all(pattern_value(patterns, None, path) == value for path, value in values.items()):
        return dict(patterns)
    return {re.escape(path): value for path, value in values.items() if value is not None}


def read_targets(config: dict[str, Any], sites: Sequence[Site]) -> Targets:
    """Pop PEFT's target keys; a plain list or regex stays as it is, anything more is resolved to whole paths."""
    wanted = config.pop("target_modules", None)
    excluded = config.pop("exclude_modules", None)
    layers = config.pop("layers_to_transform", None)
    patterns = config.pop("layers_pattern", None)
    if not wanted:
        raise GraftaxError("adapter_config.json names no target_modules.")
    if not isinstance(wanted, str) and not (isinstance(wanted, list) and all(isinstance(t, str) for t in wanted)):
        raise GraftaxError(f"adapter_config.json: target_modules {wanted!r} is neither a regex nor a list of names.")
    if wanted == "all-linear":
        wanted = [s.path for s in sites if s.kind == "linear" and s.name != LM_HEAD]
    targets = wanted if isinstance(wanted, str) else tuple(wanted)
    by_layer = layers is not None and layers != [] and not isinstance(targets, str)
    if not excluded and not by_layer:
        return targets
    chosen = {layers} if isinstance(layers, int) else set(layers or ())
    paths = []
    for site in sites:
        if not matches(targets, *site.paths) or (excluded and matches(_frozen(excluded), *site.paths)):
            continue
        named = not {*site.paths}.isdisjoint(targets)
        if by_layer and not named and chosen.isdisjoint(_layer_index(path, patterns) for path in site.paths):
            continue  # a whole path is meant whatever layers are named
        paths.append(site.path)
    return tuple(paths)


def _frozen(targets: str | list[str]) -> str | tuple[str, ...]:
    return targets if isinstance(targets, str) else tuple(targets)


def _layer_index(path: str, patterns: str | list[str] | None) -> int | None:
    """The first numbered segment of a module path, or the one after a pattern."""
    if not patterns:
        found = fullmatch(r".*?\.[^.]*\.(?P<index>\d+)\..*", path)
        return int(found["index"]) if found else None
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if found := fullmatch(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\..*", path):
            return int(found["index"])
    return None


def refuse_leftovers(config: dict[str, Any], where: str, neutral: Collection[str] = _NEUTRAL) -> None:
    """Every key left in `config` must be off or neutral; raises an error that names all others at once."""
    left = {key: value for key, value in config.items() if key not in neutral and value and value != "none"}
    if left:
        named = ", ".join(f"{key}={value!r}" for key, value in sorted(left.items()))
        raise GraftaxError(f"{where}: not supported, and it would change the result: {named}.")
