"""PEFT's adapters of a bare model: transformers' `AutoModel`, which has no task and no head.

The modules of a task model lie under the backbone's prefix (`bert.encoder.layer.0...`, `model.layers.0...`), those of the bare
model do not (`encoder.layer.0...`). Here a directory of the second kind is put in the words of the first: the keys of its
tensors, and what its config says of modules, which are whole paths afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...patterns import matches, pattern_value
from .dialect import MODEL_PREFIX
from .shared_keys import read_targets

if TYPE_CHECKING:
    from ....models.backbone import Backbone

_PATTERNS = ("rank_pattern", "alpha_pattern")


def is_bare(tensors: Mapping[str, np.ndarray], backbone: Backbone) -> bool:
    """Whether the modules of a file are those of the bare model."""
    prefix = backbone.family.prefix
    there = {key.removeprefix(MODEL_PREFIX).partition(".")[0] for key in tensors}
    return bool(prefix) and prefix not in there and not there.isdisjoint(path.partition(".")[0] for path in _paths(backbone))


def in_task_model(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], backbone: Backbone
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config and the tensors of a bare model's adapter as those of a task model's."""
    paths, config = _paths(backbone), dict(config)
    modules = {path.partition(".")[0] for path in paths}
    prefix = f"{MODEL_PREFIX}{backbone.family.prefix}."
    renamed = {}
    for key, tensor in tensors.items():
        inner = key.removeprefix(MODEL_PREFIX)
        renamed[prefix + inner if inner.partition(".")[0] in modules else key] = tensor
    if config.get("target_modules"):
        sites = [replace(site, path=path, also=_within(backbone, site.also)) for path, site in paths.items()]
        targets, wholes = read_targets(config, sites), paths.values()
        chosen = [whole.path for whole, site in zip(wholes, sites, strict=True) if targets and matches(targets, *site.paths)]
        config["target_modules"] = chosen
    for name in _PATTERNS:
        patterns = config.get(name)
        if isinstance(patterns, dict) and all(isinstance(value, int | float) for value in patterns.values()):
            values = {
                site.path: pattern_value(patterns, None, path, *_within(backbone, site.also)) for path, site in paths.items()
            }
            config[name] = {re.escape(path): value for path, value in values.items() if value is not None}
    return config, renamed


def _paths(backbone: Backbone) -> dict[str, Any]:
    """The sites within the backbone by their paths in the bare model."""
    return {_within(backbone, [site.path])[0]: site for site in backbone.sites if site.path.startswith(_prefix(backbone))}


def _prefix(backbone: Backbone) -> str:
    return f"{backbone.family.prefix}."


def _within(backbone: Backbone, paths: Sequence[str]) -> tuple[str, ...]:
    """Paths in the bare model of those in the task model."""
    return tuple(path.removeprefix(_prefix(backbone)) for path in paths)
