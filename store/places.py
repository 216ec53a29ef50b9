"""Where a store is when nobody says so, and where this machine keeps what it knows of one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

VARIABLE = "GRAFTAX_HUB"


def default_store() -> str:
    """GRAFTAX_HUB, else a folder in the user's data directory."""
    import platformdirs

    return os.environ.get(VARIABLE) or str(platformdirs.user_data_path("graftax") / "hub")


def cache_folder(url: str) -> Path:
    """Where this machine keeps its copy of what a store says."""
    import platformdirs

    where = url if "://" in url else str(Path(url).resolve())
    return platformdirs.user_cache_path("graftax") / "hub" / hashlib.sha256(where.encode()).hexdigest()[:16]
