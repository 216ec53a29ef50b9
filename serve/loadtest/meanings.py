"""Which adapter a name means, by what the server's list of models says of it: its version and its digest.

Every answer says which adapter made it, and is right where that is what its name means, or meant at some moment of the test. Of
a server that tells no digests nothing of this can be known.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any
from urllib.parse import quote

from ...errors import GraftaxError, in_a_line
from .light_client import LightClient, NoAnswer

#: An adapter as an answer says it: its name with the version, and its digest; both None for the base.
Said = tuple[str | None, str | None]


def said_in(content: dict[str, Any]) -> Said | None:
    """What a card, an answer or a piece of one says of the adapter; None where it says nothing."""
    return (content.get("adapter"), content["adapter_digest"]) if "adapter_digest" in content else None


class Meanings:
    """What names meant, each time that somebody looked."""

    def __init__(self, client: LightClient):
        self._client = client
        self._meant: dict[str, set[Said]] = defaultdict(set)
        self.base = ""
        self.listed: list[str] = []  # the names of adapters, in the server's order
        self.told = True  # whether the server says digests

    async def read(self) -> None:
        """Learn all names; GraftaxError where the server tells none."""
        cards = await self._object("/v1/models")
        for card in cards.get("data") or []:
            if isinstance(card, dict) and isinstance(card.get("id"), str):
                if card.get("parent") is None:
                    self.base = self.base or card["id"]
                else:
                    self.listed.append(card["id"])
                self._learn(card["id"], card)
        if not self.base:
            raise GraftaxError("the server lists no model at /v1/models.")

    async def look(self, name: str) -> None:
        """Learn what a name means now; GraftaxError where the server has no such."""
        self._learn(name, await self._object(f"/v1/models/{quote(name, safe='/:@')}"))

    async def fits(self, name: str, said: Said | None) -> bool | None:
        """Whether what an answer says is what its name means, or meant; None where neither is said.

        Of the base no server's list says anything, and an answer of it need not.
        """
        if said is None:
            return False if self.told and name != self.base else None
        if said not in self._meant[name]:
            try:
                await self.look(name)
            except GraftaxError:  # gone since then
                return False
        return said in self._meant[name]

    def _learn(self, name: str, card: dict[str, Any]) -> None:
        if (said := said_in(card)) is not None:
            self._meant[name].add(said)
        elif name == self.base:
            self._meant[name].add((None, None))
        else:
            self.told = False

    async def _object(self, path: str) -> dict[str, Any]:
        try:
            status, body = await self._client.ask("GET", path)
        except NoAnswer as error:
            raise GraftaxError(f"{error}.") from None
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if status != 200 or not isinstance(content, dict):
            raise GraftaxError(f"{path}: the server answers {status}: {complaint_in(body)}")
        return content


def complaint_in(body: bytes) -> str:
    """What an answer says is wrong: the message of an error in OpenAI's form, or its first words."""
    try:
        return in_a_line(str(json.loads(body)["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return in_a_line(body.decode(errors="replace")[:200]) or "nothing."
