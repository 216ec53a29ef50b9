"""The adapters that requests hold while they are written or read, as the programs take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from ..adapters.graft import State
from ..adapters.methods.head import HEADS
from ..models.backbone import Backbone
from .composition import laid
from .handles import Handle
from .request import Request
from .writer import Adapted, shapes_of


class Adapters(Protocol):
    """Where slots are had for adapters, as of `Residents`."""

    @property
    def state(self) -> State: ...

    def state_for(self, handles: Iterable[Handle]) -> State: ...

    def kinds(self) -> list[State]: ...

    def hold(self, handle: Handle) -> int | None: ...

    def release(self, handle: Handle) -> None: ...

    def is_here(self, handle: Handle) -> bool: ...


class Asking(Protocol):
    """What asks for adapters: a request to be written, or a piece to be read."""

    @property
    def handles(self) -> list[Handle]: ...


class Holding:
    """The slots of the adapters of all that is being written or read."""

    def __init__(self, backbone: Backbone, adapters: Adapters):
        self.backbone, self.adapters = backbone, adapters
        self._slots: dict[Handle, int] = {}  # of those that are held: until the last lets go, the slot is the same
        self._holders: Counter[Handle] = Counter()  # how many hold each

    def hold(self, request: Asking) -> bool:
        """Hold all adapters of a request; False, and none is held, where one has no slot yet.

        Raises GraftaxError where one cannot be had at all.
        """
        held: list[Handle] = []
        try:
            for handle in request.handles:
                slot = self.adapters.hold(handle)
                if slot is None:
                    break
                held.append(handle)
                self._slots[handle] = slot
                self._holders[handle] += 1
            else:
                held.clear()  # they stay held
                return True
            return False
        finally:
            self._release(held)

    def lacks_slots(self, request: Asking) -> bool:
        """Of one that could not be held: whether it is for slots alone that it waits, and not for adapters to be read."""
        return all(map(self.adapters.is_here, request.handles))

    def release(self, request: Asking) -> None:
        """Let go of all adapters of a request."""
        self._release(request.handles)

    def _release(self, handles: Sequence[Handle]) -> None:
        for handle in handles:
            self.adapters.release(handle)
            self._holders[handle] -= 1
            if not self._holders[handle]:
                del self._holders[handle], self._slots[handle]

    def adapted(self, requests: Sequence[Request], rows: int) -> Adapted:
        """What a program takes that writes requests, each in a batch row; those of `rows` beyond them use no adapter."""
        held = self.adapters.state_for(handle for request in requests for handle in request.handles)
        plans = [request.plan for request in requests]
        return self._adapted(held, laid(plans, [None] * len(plans), self.slot, rows, 1))

    def kinds(self, rows: int) -> list[Adapted]:
        """What `adapted` may give, of batches without averages and stacks: a shape in place of each array of adapters."""
        none = np.zeros(rows, np.int32)
        return [self._adapted(shapes_of(state), none) for state in self.adapters.kinds()]

    def _adapted(self, state: State, slots: Any) -> Adapted:
        state = {name: tree for name, tree in state.items() if name not in HEADS}
        return Adapted(self.backbone.params, self.backbone.layers, state, slots)

    def slot(self, handle: Handle | None) -> int:
        """The slot of an adapter that is held; 0, which changes nothing, for None."""
        return 0 if handle is None else self._slots[handle]

    @property
    def reads_whole_prompts(self) -> bool:
        """Whether some adapter on the device looks for something in a prompt before the layers are run."""
        return any(site.kind == "text" and site.name in self.adapters.state for site in self.backbone.sites)
