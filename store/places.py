"""Where a store is: by its URL, when nobody says so, and what this machine keeps of it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import GraftaxError
from .objects import LocalObjects, Objects, RemoteObjects
from .repository import RepositoryObjects

VARIABLE = "GRAFTAX_HUB"
_HALF_A_URL = re.compile(r"(file|s3|s3a|gs|az|azure|abfss?|https?|hf):")


def objects_at(url: str | Path) -> Objects:
    """The objects of a place: a folder, `file:///folder`, a bucket and a prefix in it (`s3://bucket/hub`), or a repository of
    the Hugging Face Hub (`hf://user/hub`).

    Raises GraftaxError where the URL is of no kind that is known.
    """
    if isinstance(url, Path) or "://" not in url:
        if _HALF_A_URL.match(str(url)):
            raise GraftaxError(f"{url}: neither a folder nor a URL, which begins as s3://bucket does.")
        return LocalObjects(Path(url).expanduser())
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalObjects(Path(unquote(parts.path)))
    if parts.scheme == "hf":
        return RepositoryObjects(url)
    return RemoteObjects(url)


def default_store() -> str:
    """GRAFTAX_HUB, else a folder in the user's data directory."""
    import platformdirs

    return os.environ.get(VARIABLE) or str(platformdirs.user_data_path("graftax") / "hub")


def cache_folder(url: str) -> Path:
    """Where this machine keeps its copy of what a store says."""
    import platformdirs

    where = url if "://" in url else str(Path(url).resolve())
    return platformdirs.user_cache_path("graftax") / "hub" / hashlib.sha256(where.encode()).hexdigest()[:16]
