"""What people are told of adapters by a server, which stands below hubs and is handed this (`Telling` there)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import GraftaxError
from ..store.manifest import Manifest
from ..store.store import Store
from ..store.version import Score, Version
from .card import FILE, body_of
from .leaderboard import leaderboard, leaderboard_record
from .sections import sections_of


class Told:
    """The words of a hub, and for what is on none."""

    def __init__(self, store: Store | None = None):
        """`store`: where the hub is kept whose versions are asked about."""
        self._store = store

    def card(self, version: Version) -> str:
        """What a version's card says, in Markdown; empty where it has none. GraftaxError where it cannot be read."""
        content = None if self._store is None else self._store.file(version, FILE)
        if content is None:
            return ""
        try:
            return body_of(content.decode(), str(version))
        except UnicodeDecodeError:
            raise GraftaxError(f"{version}: its card is not UTF-8 text.") from None

    def card_without_hub(self, manifest: Manifest) -> str:
        """What a hub would write in the card of an adapter, in Markdown, but for how it is had from there."""
        sections = sections_of(manifest, (), "", "graftax")
        return "\n\n".join(text for section, text in sections.items() if section != "use")

    def ranking(self, scores: Sequence[Score], task: str, data: str | None) -> Mapping[str, Any]:
        """The leaderboard of a task, as `graftax hub leaderboard --json` has it; GraftaxError where nothing was measured."""
        return leaderboard_record(leaderboard(scores, task, data=data))
