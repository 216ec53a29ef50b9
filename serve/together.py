"""Requests that are written together, from one beginning to one end: those of encoder-decoders, and those of beam search.

The cache of an encoder-decoder has one next column for all, and a search moves all beams at once, so neither fits in lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.batches import rung
from ..models.backbone import Backbone
from ..models.inputs import TextInputs
from .choice import Needs, Settings
from .holding import Holding
from .request import Request, say_all
from .standing import Standing
from .writer import Writer


class Together:
    """A batch of requests that have the same number of beams; a batch row for each."""

    def __init__(self, backbone: Backbone, writer: Writer, holding: Holding, requests: Sequence[Request]):
        self.backbone, self.writer, self.holding, self.requests = backbone, writer, holding, requests
        self._rows = 1 << (len(requests) - 1).bit_length()
        self._how = [request.sampling for request in requests]
        self._settings = Settings.of(self._how, self._rows)
        self._standing: Standing | None = None

    @property
    def done(self) -> bool:
        """Whether nothing of it is left to be written."""
        return all(request.done or request.cancelled for request in self.requests)

    def advance(self) -> None:
        """One call of a program: it reads the prompts, or writes up to 16 tokens of each text, or searches to the end."""
        if self._standing is None:
            self._standing = self._read()
        elif self._how[0].num_beams > 1:
            self._search(self._standing)
        else:
            self._standing = self._written(self._standing)

    def _read(self) -> Standing:
        config, encodes = self.backbone.config, self.backbone.family.encodes
        length = rung(max(len(request.ids) for request in self.requests), config.max_tokens)
        before = 1 if encodes else length
        columns = rung(before + max(one.max_new_tokens for one in self._how), 2 * config.max_tokens)
        ids, mask = np.zeros((self._rows, length), np.int32), np.zeros((self._rows, length), bool)
        wanted, least = np.zeros(self._rows, np.int32), np.zeros(self._rows, np.int32)  # those beyond the requests are done
        for row, request in enumerate(self.requests):
            ids[row, : len(request.ids)], mask[row, : len(request.ids)] = request.ids, True
            wanted[row], least[row] = request.sampling.max_new_tokens, request.least
        mask[len(self.requests) :, 0] = True  # attention over nothing would not be a number
        inputs = TextInputs(ids, mask, np.zeros_like(ids))
        return self.writer.prefill(self.holding.adapted(self.requests, self._rows), inputs, wanted, least, columns=columns)

    def _written(self, standing: Standing) -> Standing:
        over = np.zeros(self._rows, bool)
        over[: len(self.requests)] = [request.cancelled for request in self.requests]
        standing = standing._replace(done=standing.done | over)
        adapted = self.holding.adapted(self.requests, self._rows)
        tells, needs = np.bool_(any(request.told is not None for request in self.requests)), Needs.of(self._how)
        standing, drawn = self.writer.decode(adapted, standing, self._settings, tells, needs=needs)
        say_all(self.requests, drawn, self._ends)
        return standing

    def _search(self, standing: Standing) -> None:
        adapted, needs = self.holding.adapted(self.requests, self._rows), Needs.of(self._how)
        limit, beams = max(one.max_new_tokens for one in self._how), self._how[0].num_beams
        texts = self.writer.search(adapted, standing, self._settings, needs=needs, beams=beams, limit=limit)
        say_all(self.requests, (texts.T, None), self._ends)
        for request in self.requests:
            request.done = True

    @property
    def _ends(self) -> frozenset[int]:
        return frozenset(self.backbone.config.eos_ids)
