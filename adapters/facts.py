"""`graftax.json`: what graftax knows of an adapter and PEFT's files have no place for, as one typed object."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..json_files import read_object
from ..store.manifest import DataFacts
from ..typed import Count, Some, checked, kinds_of, read

EXTRA = "graftax.json"
SCHEMA = 1


@dataclass(frozen=True)
class TrainedOn:
    """The backbone of an adapter."""

    name: str | None = None
    model_type: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Facts:
    """The file's content; its defaults are what is known of a directory without it."""

    schema: int = SCHEMA
    task: str | None = None
    labels: tuple[str, ...] = ()
    backbone: TrainedOn = TrainedOn()
    parameters: Count = 0  # said for people
    metrics: Mapping[str, int | float | None] = field(default_factory=dict)  # None: a number that was none, such as NaN
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: DataFacts | None = None  # that it was trained on
    parents: tuple[str, ...] = ()  # sha256 of the weights' files of the adapters that it was made from
    sha256: str | None = None  # of the weights' file
    methods: tuple[Mapping[str, Any], ...] | None = None  # our own fields, beside a config of PEFT's
    config_sha256: str | None = None  # of that config, for which they hold


def read_facts(directory: Path) -> Facts | None:
    """The facts beside an adapter; None where there is no such file at all.

    A link that leads nowhere, a directory of that name and a file that cannot be read are errors: without the facts an adapter
    counts as PEFT's own, whose backbone and checksum nobody has written down.
    """
    file = directory / EXTRA
    if not os.path.lexists(file):
        return None
    content = read_object(file, not_numbers=True)
    schema = content.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise GraftaxError(f"{file}: schema {schema!r} is none that this graftax knows, which is {SCHEMA}; update it.")
    facts = read(Facts, content, str(file))
    if "max_length" in facts.recipe:
        checked(facts.recipe["max_length"], Some, f"{file}: recipe: max_length")
    return facts


def written(facts: Facts) -> str:
    """The file's text. What is not known is left out, and a metric that is no number is null: `NaN` is no JSON."""
    content = {key: value for key, value in by_key(facts).items() if value not in (None, ())} | {"labels": facts.labels}
    metrics = {name: _finite(metric) for name, metric in facts.metrics.items()}
    content["metrics"] = checked(metrics, kinds_of(Facts)["metrics"], "an adapter's metrics")
    return dumped(content)


def _finite(metric: Any) -> Any:
    """A metric, None where it is no finite number; what is no number at all stays, and is refused with the others."""
    try:
        return metric if math.isfinite(metric) else None
    except (TypeError, OverflowError):
        return metric


def by_key(facts: Facts) -> dict[str, Any]:
    """The facts as the file has them."""
    data = {} if facts.data is None else {"data": vars(facts.data)}
    return {**vars(facts), "backbone": vars(facts.backbone), **data}


def dumped(content: Mapping[str, Any]) -> str:
    """JSON with sorted keys at the top alone: of rank patterns the first that matches wins."""
    try:
        return json.dumps(dict(sorted(content.items())), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:  # a recipe is what its maker put there
        raise GraftaxError(f"an adapter's settings, metrics and recipe must be what JSON can say: {error}.") from error
