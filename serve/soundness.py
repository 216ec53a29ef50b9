"""Answers that are no numbers: an adapter may have finite weights with which a layer overflows, for some texts or for all.

Whoever asked such an adapter is told so, and is given no text or label that was made of it. Nobody else is concerned: batch
rows do not see one another, and what a text has left in a lane is not seen by the next one there (`lanes.taken`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import GraftaxError

NO_NUMBER = -2  # in place of a token for which there are no finite logits


class NotFinite(GraftaxError):
    """What an adapter makes of a text is not finite."""

    def __init__(self, adapters: Iterable[str]):
        who = ", ".join(sorted(adapters)) or "the backbone"
        super().__init__(f"{who}: gives numbers for this text that are not finite; some weights are too large, or damaged.")
