"""Where an adapter is: a directory; a name on a hub of graftax's (`store/`); an id on the Hugging Face Hub.

    adapters/bank             a directory
    bank/intent, bank/intent:3, bank/intent@sha256:9f2c81d0
                              on the hub that GRAFTAX_HUB names, or on this user's own
    hf://user/adapter         on the Hugging Face Hub; without the hf:// too, where no hub of ours has the name
    hf://user/adapter@v2      a branch, a tag or a commit there

What is there as a directory is that directory. What is fetched from elsewhere lies in a cache, and is fetched once.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import GraftaxError
from ..fetch import snapshot
from ..notes import note
from ..paths import expect_directory
from ..store.names import Reference, is_reference, parse_reference
from ..typed import shown
from .directory import CONFIG, HUB_WEIGHTS, WEIGHTS
from .facts import EXTRA

_FILES = (CONFIG, WEIGHTS, EXTRA, HUB_WEIGHTS, "head_config.json", "model_head.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUGGING_FACE = "hf://"


def find_adapter(path_or_name: str | Path, revision: str = "main") -> Path:
    """The local directory of an adapter.

    A path into a folder that is there is never looked for on the Hugging Face Hub: with `adapters/` beside it, "adapters/bnak"
    is a slip of the pen, and somebody there might have taken that name.

    Raises GraftaxError where there is no such directory and no such name that can be reached or is cached.
    """
    if not isinstance(path_or_name, str | Path) or not str(path_or_name).strip():
        raise GraftaxError(f"an adapter is named by its directory, its name on a hub or its Hub id, got {shown(path_or_name)}.")
    path, text = Path(path_or_name), str(path_or_name)
    if isinstance(path_or_name, Path) or path.exists():
        expect_directory(path, f"{text}: no such adapter directory.")
        return path
    if (found := on_hugging_face(text)) is not None:
        return snapshot(found[0], found[1] or revision, _FILES)
    if is_reference(text) and (kept := _on_hub(parse_reference(text))) is not None:
        return kept
    if path.parent.exists() or not _HUB_ID.fullmatch(text):
        raise GraftaxError(f"{text}: no such adapter directory.")
    return snapshot(text, revision, _FILES)


def called(text: str) -> str:
    """What an adapter is called that nobody names otherwise: the last part of where it is."""
    if (found := on_hugging_face(text)) is not None:
        return found[0].rpartition("/")[2]
    if not Path(text).exists() and is_reference(text) and (name := parse_reference(text).name) is not None:
        return name.rpartition("/")[2]
    return Path(text).resolve().name


def on_hugging_face(text: str) -> tuple[str, str] | None:
    """Id and revision (empty: none is said) of what is named as on the Hugging Face Hub; None where it is not."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return None
    name, _, revision = rest.partition("@")
    if scheme + slashes != _HUGGING_FACE or not _HUB_ID.fullmatch(name):
        raise GraftaxError(f"{shown(text)}: expected a directory, a name on a hub, or {_HUGGING_FACE}user/adapter.")
    return name, revision


def _on_hub(reference: Reference) -> Path | None:
    """The directory of a version on the hub, pulled if need be; None where the hub has no such name."""
    from ..store.store import Store  # which takes a while, and most adapters are directories

    store = Store()
    if (reference.name is None and store.exists()) or (reference.name is not None and store.has(reference.name)):
        version = store.resolve(str(reference))
        note(f"{reference} is {version} of {store.url}, sha256:{version.digest[:12]}.")
        return store.pull(version)
    if reference != Reference(reference.name):  # only a hub has versions and tags
        raise GraftaxError(f"{reference} is not on {store.url}; GRAFTAX_HUB names another hub.")
    return None
