"""What other installed packages bring: objects under the entry points `graftax.tasks`, `graftax.methods`, `graftax.backbones`.

    [project.entry-points."graftax.tasks"]
    defects = "mypackage.defects:Defects"

They are looked for when a name is not known here, and so cost nothing until then.
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

from .errors import GraftaxError


@functools.cache
def found(group: str) -> dict[str, Any]:
    """What the entry points of a group name, by their names.

    Raises GraftaxError, which names the package, for one that cannot be imported, and for two of one name.
    """
    plugins: dict[str, Any] = {}
    for point in metadata.entry_points(group=group):
        package = point.dist.name if point.dist is not None else point.value
        if point.name in plugins:
            raise GraftaxError(f"two packages bring {point.name!r} as {group}; one of them is {package}.")
        try:
            plugins[point.name] = point.load()
        except Exception as error:  # whatever it does when it is imported
            raise GraftaxError(f"{package}: its {group} {point.name!r} cannot be loaded ({error}).") from error
    return plugins
