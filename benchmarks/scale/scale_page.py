"""docs/scale.md: its tables are computed, and stand between markers in a text that people write.

<!-- scale:packs -->
... the table ...
<!-- scale:end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import GraftaxError
from . import constants_tables, fleet_tables, traffic_tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"

#: Those that follow from the constants alone, in a moment.
QUICK: Mapping[str, Callable[[], str]] = {
    "measured": constants_tables.measured,
    "predicted": constants_tables.predicted,
    "compiled": constants_tables.compiled,
    "assumed": constants_tables.assumed,
    "packs": fleet_tables.packs,
    "breaks": fleet_tables.breaks,
    "limits": traffic_tables.limits,
}
#: Those that are simulated, in a few minutes.
SIMULATED: Mapping[str, Callable[[], str]] = {
    "shards": fleet_tables.shards,
    "machines": fleet_tables.machines,
    "driver": fleet_tables.driver,
    "losses": fleet_tables.losses,
    "moves": fleet_tables.moves,
    "traffic": traffic_tables.traffic,
    "outage": traffic_tables.outage,
}
_BLOCK = re.compile(r"(<!-- scale:(?!end)(\w+) -->\n\n)(.*?)(\n\n<!-- scale:end -->)", re.DOTALL)


def tables_of(text: str) -> dict[str, str]:
    """By name, the tables that a page has."""
    return {match[2]: match[3] for match in _BLOCK.finditer(text)}


def renewed(text: str, tables: Mapping[str, str]) -> str:
    """The page with these tables in place of those that it has. Raises GraftaxError where it lacks one."""
    if missing := tables.keys() - tables_of(text).keys():
        raise GraftaxError(
            f"{PAGE.name} has no place for {', '.join(sorted(missing))}: <!-- scale:NAME -->, <!-- scale:end -->."
        )
    return _BLOCK.sub(lambda match: match[1] + tables.get(match[2], match[3]) + match[4], text)
