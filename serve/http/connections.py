"""Connections that are given up when a client neither sends nor reads: who does nothing holds no lane, memory or socket.

Who sends a part of a request and no more, or none at all, is hung up on. Who does not read is sent nothing more: an answer in
pieces waits until the last piece was taken by the system, and then goes on. So of a client's answer no more is kept here than
one piece. If what is left does not become less, the connection is aborted, which for the answer means that the client has gone
away (`written.py`). A connection is looked at every `Limits.patience` seconds, and given up at the second look at the latest.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's, with an end to its patience: that which it has between two requests (`timeout_keep_alive`)."""

    _unread = 0  # bytes that the client had not taken when it was looked at last, and may not have taken since,
    _silent = False  # and whether it owed a request then
    _next_look: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=1, low=0)  # a transport of TLS would never go on after 0
        self._look_later()

    def resume_writing(self) -> None:
        """All was taken."""
        self._unread = 0
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        unread, silent = self.transport.get_write_buffer_size(), self._owes_a_request()
        if (silent and self._silent) or 0 < self._unread <= unread:
            self.transport.abort()
            return
        self._unread, self._silent = unread, silent
        self._look_later()

    def _owes_a_request(self) -> bool:
        """Whether the client has connected and asked nothing, or has begun a further request that is not whole yet.

        For one that has not begun, uvicorn waits as long as it may; for a body, whoever reads it (`bodies.py`).
        """
        if self.cycle is None:
            return True
        return self.cycle.response_complete and bool(self.conn.trailing_data[0])
