"""What an adapter directory holds, in words; needs no backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..counted import counted
from ..errors import printable
from .directory import CONFIG, HUB_FUSION, HUB_WEIGHTS, WEIGHTS, from_hub, is_fusion, parse_tensors, read_directory
from .facts import EXTRA, by_key
from .located import Located, locate


def describe(path_or_hub_id: str | Path) -> str:
    """A page about an adapter, of a directory or a Hub id: method, task, labels, backbone, metrics, recipe, every tensor; of a
    fusion a page for each of its adapters too."""
    located = locate(path_or_hub_id)
    with located.named():
        if is_fusion(located.directory):
            return _fusion(located)
        return _adapter(located.directory, located.name)


def _adapter(directory: Path, name: str) -> str:
    config, facts, data = read_directory(directory)
    extra = by_key(facts) if facts else {}
    weights, maker = (HUB_WEIGHTS, "AdapterHub") if from_hub(config) else (WEIGHTS, "graftax" if extra else "PEFT")
    lines = [f"{printable(name)}  ({maker}, {len(data) / 1024:.1f} KiB of weights)"]
    lines += _section(CONFIG, {k: v for k, v in config.items() if v not in (None, False, [], {})})
    lines += _section(EXTRA, {k: v for k, v in extra.items() if v is not None and not isinstance(v, dict)})
    for key in ("backbone", "metrics", "recipe"):
        lines += _section(key, extra.get(key, {}))
    return "\n".join(lines + _listed(weights, parse_tensors(data, directory / weights)))


def _fusion(located: Located) -> str:
    from .formats.adapterhub import fusions as fusion

    files = fusion.open_fusion(located.directory)
    lines = [f"{printable(located.shown(files.directory))}  (AdapterHub, a fusion of {counted(len(files.members), 'adapter')})"]
    lines += _section(HUB_FUSION, files.config) + _listed(fusion.WEIGHTS, files.tensors)
    return "\n\n".join(["\n".join(lines), *(_adapter(member, located.shown(member)) for member in files.members)])


def _section(title: str, content: Mapping[str, Any]) -> list[str]:
    said = [f"  {printable(key):28} {printable(json.dumps(value, ensure_ascii=False))}" for key, value in content.items()]
    return [f"\n{title}", *said] if said else []


def _listed(title: str, tensors: Mapping[str, np.ndarray]) -> list[str]:
    named = {printable(key): tensor for key, tensor in sorted(tensors.items())}
    width = max(map(len, named), default=0)
    total = sum(tensor.size for tensor in tensors.values())
    said = [f"  {key:{width}}  {'x'.join(map(str, tensor.shape))}" for key, tensor in named.items()]
    return [f"\n{title}: {counted(len(tensors), 'tensor')}, {counted(total, 'parameter')}", *said]
