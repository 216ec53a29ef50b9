"""What an adapter directory holds, in words; needs no backbone."""

from __future__ import annotations

import json
from pathlib import Path

from .files import CONFIG, EXTRA, HUB_WEIGHTS, WEIGHTS, from_hub, parse_tensors, read_directory


def describe(directory: str | Path) -> str:
    """A page about an adapter directory: method, task, labels, backbone, metrics, recipe, every tensor."""
    directory = Path(directory)
    config, extra, data = read_directory(directory)
    weights, maker = (HUB_WEIGHTS, "AdapterHub") if from_hub(config) else (WEIGHTS, "graftax" if extra else "PEFT")
    tensors = parse_tensors(data, directory / weights)
    lines = [f"{directory}  ({maker}, {len(data) / 1024:.1f} KiB of weights)"]

    def section(title: str, content: dict) -> None:
        if content:
            lines.append(f"\n{title}")
            lines.extend(f"  {key:28} {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())

    section(CONFIG, {k: v for k, v in config.items() if v not in (None, False, [], {})})
    section(EXTRA, {k: v for k, v in extra.items() if not isinstance(v, dict)})
    for key in ("backbone", "metrics", "recipe"):
        section(key, extra.get(key, {}))
    total = sum(tensor.size for tensor in tensors.values())
    lines.append(f"\n{weights}: {len(tensors)} tensors, {total:,} parameters")
    width = max((len(key) for key in tensors), default=0)
    lines.extend(f"  {key:{width}}  {'x'.join(map(str, tensor.shape))}" for key, tensor in sorted(tensors.items()))
    return "\n".join(lines)
