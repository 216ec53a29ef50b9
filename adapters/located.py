"""Where an adapter is: a directory, or an id on the Hub ("user/adapter"), whose files are fetched as a backbone's are."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import GraftaxError
from ..fetch import snapshot
from ..paths import expect_directory
from ..typed import shown
from .directory import CONFIG, HUB_WEIGHTS, WEIGHTS
from .facts import EXTRA

_FILES = (CONFIG, WEIGHTS, EXTRA, HUB_WEIGHTS, "head_config.json", "model_head.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_adapter(path_or_hub_id: str | Path, revision: str = "main") -> Path:
    """The local directory of an adapter.

    A path into a folder that is there is never looked for on the Hub: with `adapters/` beside it, "adapters/bnak" is a slip of
    the pen, and somebody there might have taken that name.

    Raises GraftaxError where there is neither such a directory nor such an id that can be reached or is cached.
    """
    if not isinstance(path_or_hub_id, str | Path) or not str(path_or_hub_id).strip():
        raise GraftaxError(f"an adapter is named by its directory or Hub id, got {shown(path_or_hub_id)}.")
    path, text = Path(path_or_hub_id), str(path_or_hub_id)
    if isinstance(path_or_hub_id, Path) or path.exists() or path.parent.exists() or not _HUB_ID.fullmatch(text):
        expect_directory(path, f"{text}: no such adapter directory.")
        return path
    return snapshot(text, revision, _FILES)
