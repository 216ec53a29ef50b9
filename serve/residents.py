"""Which adapters are where: on the device, in the host's memory, or only where they come from.

    residents = Residents(backbone, slots=8, source=OnHub(Store("s3://team/adapters"), backbone))
    handle = residents.resolve("bank/intent:prod")      # when a request arrives; what the name means later does not matter
    residents.prefetch(handle)                          # reads it in the background
    slot = residents.hold(handle)                       # None: not yet, ask again
    ... programs with residents.state_for([handle]) and that slot ...
    residents.release(handle)

There are three *tiers*: a bank on the device, with a slot for each of a few adapters (`bank.py`); the host's memory, which has
more of them (`host_memory.py`); and where they come from, a hub or a disk. An adapter moves up when it is asked for, and down
when another needs its place and it was used least recently. What a request holds is *pinned*: its slot stays what it is until
the last who holds it has let go.

Only `hold` writes the device. It belongs to the thread that calls the programs, or under one lock with them: a program that is
given `state` while a slot is written would find it gone.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for, load_adapter
from ..adapters.fitting import refuse_rank
from ..adapters.graft import State
from ..adapters.located import Located, locate
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..shown import Shown
from ..typed import Location, Name, held, shown
from .bank import Bank
from .handles import Handle, digest_of
from .host_memory import HostMemory


class Source(Protocol):
    """Where names are looked up that nobody has registered."""

    def resolve(self, name: str, route: str | None) -> Handle:
        """What a name means now; `route` says of whom or what it is asked, where that depends on it.

        Raises GraftaxError where there is no such name, or where that cannot be found out.
        """
        ...


@dataclass(frozen=True)
class Tiers:
    """Which adapters are where at one moment, and what was done since the beginning."""

    device: dict[Handle, int]  # how many hold each
    host: tuple[Handle, ...]  # that have no slot
    host_bytes: int  # of these
    reading: tuple[Handle, ...]
    hits: int  # how often one that was to be held had a slot already
    reads: int  # into the host's memory
    writes: int  # of slots
    evictions: int  # from slots


class Residents(Shown):
    """The adapters of one backbone, in three tiers. Calls may come from several threads."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        slots: int | None = None,
        host_bytes: int = 1 << 30,
        source: Source | None = None,
        apart: bool = True,
        max_lora_rank: int | None = None,
    ):
        """No adapters yet.

        Args:
            backbone: frozen; not changed.
            slots: how many adapters the device has room for. None: as many as are held at once, and the bank grows.
            host_bytes: of those in the host's memory that have no slot.
            source: where names are looked up that are not registered.
            apart: as of `Bank`: a small rank does not pay for a large one, and more programs are compiled.
            max_lora_rank: adapters of a greater rank anywhere (`Method.rank`) are refused, so that none makes the bank larger
                for all others than that; None: any is taken.
        """
        self.backbone = backbone
        self.bank = Bank(backbone, apart=apart) if slots is None else Bank(backbone, slots + 1, apart=apart)  # slot 0: none
        self._slots = slots
        self._max_rank = max_lora_rank
        self._host = HostMemory(host_bytes, partial(_read, max_lora_rank))
        self._source = source
        self._names: dict[str, Handle] = {}
        self._pins: Counter[Handle] = Counter()
        self._idle: OrderedDict[Handle, None] = OrderedDict()  # that have a slot and are not pinned, the last used last
        self._retired: set[Handle] = set()  # that have lost their names, and may have slots still
        self._lock = threading.Lock()  # of the four above; never held for long
        self._hits = self._writes = self._evictions = 0
        self._holding = threading.Lock()  # of these and the bank: slots are written one after another

    def facts(self) -> dict[str, Any]:
        tiers = self.tiers()
        return {"backbone": self.backbone.name, "device": list(tiers.device), "host": len(tiers.host)}

    @property
    def state(self) -> State:
        """The leaves of all slots, as `Backbone.forward` takes them."""
        return self.bank.state

    def state_for(self, handles: Iterable[Handle]) -> State:
        """As `state`, for a batch that uses these adapters alone, which are held (`Bank.state_for`)."""
        return self.bank.state_for(handles)

    def kinds(self) -> list[State]:
        """What `state_for` may give."""
        return self.bank.kinds()

    # -- names ------------------------------------------------------------------------------------------------------------

    @held
    def register(self, name: Name, adapter: Adapter | Location, *, any_backbone: bool = False) -> Handle:
        """Give an adapter a name, in place of one that has it, which stays what it is for all who have a handle of it.

        Arguments and errors are those of `Predictor.load`. What is refused changes nothing.
        """
        handle, _ = self.handle(name, adapter, any_backbone=any_backbone)
        self.name(handle)
        return handle

    def register_unread(self, name: Name, directory: Path, digest: str | None) -> Handle:
        """As `register`, of a directory that is read when its adapter is first asked for: of thousands few are.

        `digest`: of the adapter as it was saved; None: it is found out when somebody asks. What is wrong with the directory is
        an error of whoever asks for the adapter.
        """
        again = partial(_from_files, locate(directory), self.backbone, False)
        handle = Handle(name, None, digest or (lambda: digest_of(again())), lambda: _read_again(handle, again))
        self.name(handle)
        return handle

    def name(self, handle: Handle) -> Handle | None:
        """Register a handle under its name, in place of the one that is returned."""
        with self._lock:
            if (before := self._names.get(handle.name)) is not None:
                self._retire(before)
            self._names[handle.name] = handle
        return before

    def handle(self, name: str, adapter: Adapter | Location, *, any_backbone: bool = False) -> tuple[Handle, Adapter]:
        """As `register`, but the name is not registered yet; and the adapter itself."""
        if isinstance(adapter, Adapter):
            read = adapter_for(self.backbone, adapter, any_backbone=any_backbone, name=name)
            handle = Handle(name, None, partial(digest_of, read), lambda: read)
        else:
            again = partial(_from_files, locate(adapter), self.backbone, any_backbone)
            read = again()
            handle = Handle(name, None, partial(digest_of, read), lambda: _read_again(handle, again))
        refuse_rank(read, self._max_rank, name)
        self._host.keep(handle, read)
        return handle, read

    @held
    def unregister(self, name: str) -> Handle:
        """Forget a name, and return what it meant. Who has a handle of its adapter goes on with it."""
        with self._lock:
            if name not in self._names:
                raise self._unknown(name)
            self._retire(handle := self._names.pop(name))
        return handle

    def named(self, name: str) -> Handle | None:
        """What a name means that was registered."""
        with self._lock:
            return self._names.get(name)

    def registered(self) -> dict[str, Handle]:
        """The names that were registered, and what they mean now."""
        with self._lock:
            return dict(self._names)

    def resolve(self, name: str, route: str | None = None) -> Handle:
        """What a name means now: what was registered under it, else what the source says.

        Raises GraftaxError where it means nothing; as `Source.resolve`.
        """
        with self._lock:
            if (handle := self._names.get(name)) is not None:
                return handle
            if self._source is None:
                raise self._unknown(name)
        return self._source.resolve(name, route)

    def _unknown(self, name: str) -> GraftaxError:
        return GraftaxError(f"no adapter named {shown(name)} is loaded; loaded are {', '.join(self._names) or 'none'}.")

    def _retire(self, handle: Handle) -> None:
        """Forget an adapter that has lost its name: only who has its handle has it now, for as long as the handle is there."""
        kept = self._host.drop(handle)
        if (adapter := self.bank.adapters.get(handle, kept)) is not None:
            handle.read = lambda: adapter
        handle.retired = True
        self._retired.add(handle)

    # -- adapters ---------------------------------------------------------------------------------------------------------

    def refuse_too_many(self, handles: Iterable[Handle], what: Any) -> None:
        """An error where the device has not as many slots as there are adapters in a request, which asks for `what`."""
        count, slots = len(set(handles)), self._slots
        if slots is not None and count > slots:
            raise GraftaxError(f"{what}: {count} adapters, and there are slots for {slots} at once.")

    def prefetch(self, handle: Handle) -> None:
        """Begin to read an adapter into the host's memory, where it is in none; returns at once.

        To be called when a request arrives: what could not be read for those before is tried once more.
        """
        if handle not in self.bank.adapters:
            self._host.prefetch(handle)

    def adapter(self, handle: Handle) -> Adapter:
        """An adapter on the host, which is waited for; for who must know its labels or its template of chats.

        Raises GraftaxError where it cannot be read, which is tried once more if it was not for those before.
        """
        adapter = self.bank.adapters.get(handle)
        return adapter if adapter is not None else self._host.wait(handle)

    def adapter_here(self, handle: Handle) -> Adapter | None:
        """An adapter on the host, if it need not be waited for; if not, it is being read from now on."""
        adapter = self.bank.adapters.get(handle)
        return adapter if adapter is not None else self._host.find(handle)

    def is_here(self, handle: Handle) -> bool:
        """Whether an adapter is on the device, or in the host's memory."""
        return handle in self.bank.adapters or self._host.has(handle)

    def reserve(self, handles: Iterable[Handle]) -> None:
        """Make room on the device for adapters of the kinds of these, which are waited for: what is compiled for them is now.

        Nothing is compiled for a slot that is written later, if its adapter has methods, sites and buckets of theirs.

        Raises GraftaxError where one cannot be read. To be called as `hold` is.
        """
        adapters = [self.adapter(handle) for handle in handles]
        with self._holding:
            self.bank.reserve(adapters)

    def hold(self, handle: Handle) -> int | None:
        """Pin an adapter, and return its slot on the device; None where it has none yet, and is to be asked for again.

        It has none while it is being read, which this call begins if nobody has, and while others are held in all slots.

        Raises GraftaxError where it could not be read, of everyone who asks until it is tried again (`prefetch`); and where the
        device has no room for it, in which case all others are where they were.
        """
        with self._holding:
            if handle not in self.bank.adapters:
                adapter = self._host.find(handle)
                if adapter is None or not self._placed(handle, adapter):
                    return None
            else:
                self._hits += 1
            with self._lock:
                self._idle.pop(handle, None)
                self._pins[handle] += 1
            return self.bank.slot(handle)

    def release(self, handle: Handle) -> None:
        """Let go of an adapter that was held; GraftaxError where it was not."""
        with self._lock:
            if not self._pins[handle]:
                raise GraftaxError(f"{handle} is not held.")
            self._pins[handle] -= 1
            if not self._pins[handle]:
                del self._pins[handle]
                self._idle[handle] = None
                if handle.retired:  # it was given a slot once more, for who had its handle still
                    self._retired.add(handle)

    def _placed(self, handle: Handle, adapter: Adapter) -> bool:
        """Give an adapter a slot, where none is free that of the one used least recently; False if all are held."""
        self._clear()
        leaving = None
        if self.bank.is_full:
            with self._lock:
                leaving = next(iter(self._idle), None)
            if leaving is None and self._slots is not None:
                return False
        there = self.bank.adapters
        try:
            self.bank.put(handle, adapter, instead_of=leaving)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            raise GraftaxError(f"{handle}: the device has no room for it ({error}).") from error
        self._host.drop(handle)
        self._writes += 1
        if leaving is not None:
            self._host.keep(leaving, there[leaving])
            with self._lock:
                del self._idle[leaving]
            self._evictions += 1
        return True

    def _clear(self) -> None:
        """Free the slots of adapters that have lost their names, and that nobody holds any longer."""
        with self._lock:
            gone = [handle for handle in self._retired if not self._pins[handle]]
            self._retired.difference_update(gone)
            with_slots = [handle for handle in gone if handle in self._idle]
            for handle in with_slots:
                del self._idle[handle]
        for handle in with_slots:
            self.bank.remove(handle)

    # -- what is told -----------------------------------------------------------------------------------------------------

    def tiers(self) -> Tiers:
        """Which adapters are where."""
        host, host_bytes, reading = self._host.facts()
        with self._lock:
            device = dict.fromkeys(self._idle, 0) | self._pins
        return Tiers(device, host, host_bytes, reading, self._hits, self._host.reads, self._writes, self._evictions)

    def close(self) -> None:
        """Begin to read nothing more."""
        self._host.close()


def _read(max_rank: int | None, handle: Handle) -> Adapter:
    """The adapter of a handle, from wherever it comes; GraftaxError where it cannot be read, or its rank is too great."""
    adapter = handle.read()
    refuse_rank(adapter, max_rank, str(handle))
    return adapter


def _from_files(located: Located, backbone: Backbone, any_backbone: bool) -> Adapter:
    """The adapter in a directory, in whose errors it is called what it is called by people."""
    with located.named():
        return load_adapter(located.directory, backbone, any_backbone=any_backbone)


def _read_again(handle: Handle, read: Callable[[], Adapter]) -> Adapter:
    """An adapter that was read before; GraftaxError where it is another by now."""
    adapter = read()
    if digest_of(adapter) != handle.digest:
        raise GraftaxError(f"{handle}: its files are not what they were when it was loaded; load it again.")
    return adapter
