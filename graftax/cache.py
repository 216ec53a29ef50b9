"""Compiled programs are kept between processes."""

from __future__ import annotations

import os
from pathlib import Path


def use_compilation_cache() -> None:
    """Keep compiled programs between processes; GRAFTAX_CACHE names the folder, empty switches it off."""
    folder = os.environ.get("GRAFTAX_CACHE", str(Path.home() / ".cache" / "graftax" / "xla"))
    if folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
