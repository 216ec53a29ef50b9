"""Where a version comes from, as a chain: its backbone, rows and recipe, and the same of what it was made from.

A parent is known by the sha256 of its weights. Several versions may have these very weights, of which one is looked at and the
others are named; none may be on this hub, or none that may be taken.
"""

from __future__ import annotations

from typing import Any

from ..store.damage import Damaged, Untrusted
from ..store.store import Store
from ..store.version import Version

_DEEPEST = 20  # generations of a chain that are told


def provenance(store: Store, version: Version, depth: int = _DEEPEST) -> dict[str, Any]:
    """The chain as JSON; `depth`: how many generations of it.

    Raises Damaged or Untrusted where the version itself may not be taken.
    """
    manifest = store.manifest(version)
    return {
        "reference": str(version),
        "digest": f"sha256:{version.digest}",
        "backbone": manifest.backbone,
        "fingerprint": manifest.fingerprint,
        "data": vars(manifest.data),
        "recipe": dict(manifest.recipe),
        "imported_from": manifest.imported_from,
        "parents": [_parent(store, blob, depth - 1) for blob in manifest.parents] if depth else [],
    }


def _parent(store: Store, blob: str, depth: int) -> dict[str, Any]:
    """The first pushed of the versions with these weights, if one may be taken, else why the first may not."""
    found, problems = store.index().holding(blob), []
    for version in found:
        try:
            known = provenance(store, version, depth)
        except (Damaged, Untrusted) as error:
            problems.append(str(error))
        else:
            return known | _also(found, version)
    if problems:
        return {"reference": str(found[0]), "problem": problems[0]} | _also(found, found[0])
    return {"weights": blob}


def _also(found: list[Version], told: Version) -> dict[str, Any]:
    others = [str(version) for version in found if version is not told]
    return {"also": others} if others else {}
