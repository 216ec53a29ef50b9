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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GraftaxError
from ..fetch import snapshot
from ..notes import named_in_notes, note
from ..paths import expect_directory
from ..store.names import LATEST, Reference, is_reference, parse_reference, refuse_number
from ..typed import shown
from .directory import CONFIG, HUB_WEIGHTS, MARKS, WEIGHTS
from .facts import EXTRA

if TYPE_CHECKING:
    from ..store.store import Store

_FILES = (CONFIG, WEIGHTS, EXTRA, HUB_WEIGHTS, "head_config.json", "model_head.safetensors")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUGGING_FACE = "hf://"
_MOST_NAMES = 100_000  # of a hub, that are compared with one that it does not have


@dataclass(frozen=True)
class Located:
    """Where an adapter's files are on this machine, and what it is called: `bank/intent:3` for one of a hub."""

    directory: Path
    name: str

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors and notes name the adapter as people know it, and not the folder where it lies for the moment."""
        try:
            with named_in_notes(self.directory, self.name):
                yield
        except GraftaxError as error:
            if self.shown(error) == str(error):
                raise
            raise GraftaxError(self.shown(error)) from error

    def shown(self, text: object) -> str:
        """A text, or a path, with the adapter's name in it in place of the folder."""
        return str(text).replace(str(self.directory), self.name)


def locate(path_or_name: str | Path, revision: str = "main") -> Located:
    """An adapter of a directory, a hub or the Hugging Face Hub, fetched if need be.

    A path into a folder that is there is never looked for on the Hugging Face Hub: with `adapters/` beside it, "adapters/bnak"
    is a slip of the pen, and somebody there might have taken that name.

    Raises GraftaxError where there is no such directory and no such name that can be reached or is cached.
    """
    if not isinstance(path_or_name, str | Path) or not str(path_or_name).strip():
        raise GraftaxError(f"an adapter is named by its directory, its name on a hub or its Hub id, got {shown(path_or_name)}.")
    path, text = Path(path_or_name), str(path_or_name)
    if isinstance(path_or_name, Path) or path.exists():
        expect_directory(path, f"{text}: no such adapter directory.")
        if isinstance(path_or_name, str):
            _refuse_hiding(path, text)
        return Located(path, text)
    if (found := on_hugging_face(text)) is not None:
        return Located(snapshot(found[0], found[1] or revision, _FILES), text)
    if not is_reference(text):
        refuse_number(text)
        raise GraftaxError(f"{text}: no such adapter directory.")
    store, reference = _own_hub(), parse_reference(text)
    if (kept := _on_hub(store, reference)) is not None:
        return kept
    if path.parent.exists() or not HUB_ID.fullmatch(text):
        raise GraftaxError(f"{text}: no such adapter directory; {_not_on(store, text)}.")
    try:
        return Located(snapshot(text, revision, _FILES), text)
    except GraftaxError as error:
        raise GraftaxError(f"{error}; {_not_on(store, text)}.") from error


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
    if scheme + slashes != _HUGGING_FACE or not HUB_ID.fullmatch(name):
        raise GraftaxError(f"{shown(text)}: expected a directory, a name on a hub, or {_HUGGING_FACE}user/adapter.")
    return name, revision


def _own_hub() -> Store:
    """The hub that GRAFTAX_HUB names, or this user's own."""
    from ..store.store import Store  # which takes a while, and most adapters are directories

    return Store()


def _on_hub(store: Store, reference: Reference) -> Located | None:
    """A version on the hub, pulled if need be; None where the hub has no such name."""
    if (version := store.find(str(reference))) is not None:
        if reference.version is None and reference.digest is None:
            note(f"{reference} is {version} of {store.url}, sha256:{version.digest[:12]}.")
        return Located(store.pull(version), str(version))
    if reference != Reference(reference.name):  # only a hub has versions and tags
        raise GraftaxError(f"{reference}: {_not_on(store, reference.name or '')}; GRAFTAX_HUB names another hub.")
    return None


def _not_on(store: Store, name: str) -> str:
    """That a hub has no such name, and which it has that are nearly the same."""
    if not store.exists():
        return f"there is no hub at {store.url}"
    near = get_close_matches(name, [one.name for one in store.index().names("", _MOST_NAMES)])
    return f"the hub {store.url} has no such name" + (f", but {' and '.join(near)}" if near else "")


def _refuse_hiding(directory: Path, text: str) -> None:
    """An error where a directory that is no adapter's is in the way of a name on the hub."""
    if any((directory / mark).exists() for mark in MARKS) or not is_reference(text):
        return
    if (name := parse_reference(text).name) is not None and (store := _own_hub()).has(name):
        raise GraftaxError(f"{text}: the directory here is no adapter; the one on {store.url} is {name}:{LATEST}.")
