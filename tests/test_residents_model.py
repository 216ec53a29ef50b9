"""Adapters in tiers beside a model of them: dictionaries of Python, and an order of use.

Names are given, taken and looked up, adapters asked for, held and let go, while reading is slow or fails, in whatever order
Hypothesis thinks of. After every step each slot that somebody holds is the one that was given first, and holds the very adapter
of its handle; who gave up a slot is who the model says; and nothing was compiled. The same with threads, without the model.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

from cases import random_adapter
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from refusals import refused
from slots import Elsewhere, assert_in_its_slot, expected_slots, settled
from tiny import write_backbone

from graftax import Adapter, DoRA, LoRA, save_adapter
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.serve.bank import Bank
from graftax.serve.handles import Handle
from graftax.serve.residents import Residents

NAMES, SLOTS, ROOM = "abcdef", 3, 40_000  # bytes: of about three adapters
names, which = st.sampled_from(NAMES), st.integers(0, 50)


class World(NamedTuple):
    """What does not change: it takes a while to make, and programs are compiled for its bank."""

    backbone: Backbone
    adapters: dict[str, Adapter]
    directories: dict[str, Path]
    expected: dict[str, dict[str, Any]]
    bank: Bank


@cache
def world() -> World:
    folder = Path(mkdtemp(prefix="graftax-residents-"))
    backbone = load_backbone(write_backbone(folder / "backbone"))
    made = {name: random_adapter(backbone, (LoRA(r=2 + seed, alpha=3.0),), seed=seed) for seed, name in enumerate(NAMES)}
    made["b"] = random_adapter(backbone, (DoRA(r=3, alpha=2.0),), seed=9)
    directories = {name: save_adapter(adapter, folder / name, backbone) for name, adapter in made.items()}
    return World(backbone, made, directories, expected_slots(backbone, made), Bank(backbone))


def new_residents(source: Elsewhere) -> Residents:
    """Of a few slots, in the layout of all adapters; its bank has the programs that were compiled before."""
    residents = Residents(world().backbone, slots=SLOTS, host_bytes=ROOM, source=source)
    residents.bank._put = world().bank._put
    for name in "bf":
        residents.adapter(handle := residents.resolve(name))
        assert residents.hold(handle)
        residents.release(handle)
    return residents


class Tiers(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.source = Elsewhere(world().adapters)
        self.residents = new_residents(self.source)
        self.registered: dict[str, Handle] = {}
        self.known: list[Handle] = []
        self.order = [self.residents.resolve(name) for name in "bf"]  # that have a slot, the one used last behind
        self.slots: dict[Handle, int] = {}  # that are held
        self.pins: Counter[Handle] = Counter()
        self.grown = self.residents.bank.growths, self.residents.bank._put._cache_size()

    def teardown(self) -> None:
        self.source.open.set()
        self.residents.close()

    def _one(self, which: int) -> Handle:
        return self.known[which % len(self.known)]

    # -- names ------------------------------------------------------------------------------------------------------------

    @rule(name=names, of=names, in_memory=st.booleans())
    def register(self, name: str, of: str, in_memory: bool) -> None:
        before = self.registered.get(name)
        adapter = world().adapters[of] if in_memory else world().directories[of]
        self.registered[name] = self.residents.register(name, adapter)
        self._gone(before)

    @rule(name=names)
    def unregister(self, name: str) -> None:
        line = refused(lambda: self.residents.unregister(name))
        assert (line is None) == (name in self.registered)
        self._gone(self.registered.pop(name, None))

    def _gone(self, handle: Handle | None) -> None:
        """Without its name it is the next to give up its slot."""
        if handle in self.order and handle not in self.pins:
            self.order.remove(handle)
            self.order.insert(0, handle)

    @rule(name=names)
    def resolve(self, name: str) -> None:
        handle = self.residents.resolve(name)
        assert handle == self.registered.get(name, handle)
        assert handle.version == (None if name in self.registered else 1)
        self.known.append(handle)

    # -- reading ----------------------------------------------------------------------------------------------------------

    @rule(slow=st.booleans())
    def reading(self, slow: bool) -> None:
        (self.source.open.clear if slow else self.source.open.set)()

    @rule(name=names)
    def breaks(self, name: str) -> None:
        self.source.broken.symmetric_difference_update({name})

    @precondition(lambda self: self.known)
    @rule(which=which)
    def prefetch(self, which: int) -> None:
        self.residents.prefetch(self._one(which))

    # -- slots ------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.known)
    @rule(which=which)
    def hold(self, which: int) -> None:
        """At once, wherever it is."""
        self._held(self._one(which), at_once=True)

    @precondition(lambda self: self.known)
    @rule(which=which)
    def hold_when_it_is_there(self, which: int) -> None:
        handle = self._one(which)
        self.source.open.set()
        settled(self.residents)
        self.residents.prefetch(handle)
        settled(self.residents)
        self._held(handle, at_once=False)

    def _held(self, handle: Handle, at_once: bool) -> None:
        slots: list[int | None] = []
        line = refused(lambda: slots.append(self.residents.hold(handle)))
        if handle in self.order:
            assert slots[0] == self.slots.setdefault(handle, slots[0] or 0)
        elif line is not None:
            assert line == f"{handle}: cannot be read (OSError('the disk of\\n{handle.name} is gone'))."
            assert handle.version == 1
            return
        elif slots[0] is None:
            assert at_once or len(self.pins) == SLOTS
            return
        else:
            self._placed(handle, slots[0])
        self.pins[handle] += 1

    def _placed(self, handle: Handle, slot: int) -> None:
        """One has come to a slot: a free one, else that of the one used least recently of those that nobody holds."""
        assert len(self.pins) < SLOTS
        if len(self.order) == SLOTS:
            self.order.remove(next(one for one in self.order if one not in self.pins))
        self.order.append(handle)
        assert slot not in self.slots.values()
        self.slots[handle] = slot

    @precondition(lambda self: self.pins)
    @rule(which=which)
    def release(self, which: int) -> None:
        handle = sorted(self.pins, key=str)[which % len(self.pins)]
        self.residents.release(handle)
        self.pins[handle] -= 1
        if not self.pins[handle]:
            del self.pins[handle], self.slots[handle]
            self.order.remove(handle)
            self.order.append(handle)

    # -- what holds after each step ---------------------------------------------------------------------------------------

    @invariant()
    def what_is_held_is_what_it_was(self) -> None:
        for handle, slot in self.slots.items():
            assert self.residents.bank.slot(handle) == slot
            assert_in_its_slot(self.residents, handle, world().expected)

    @invariant()
    def the_tiers_are_the_model_s(self) -> None:
        tiers, bank = self.residents.tiers(), self.residents.bank
        assert tiers.device == {handle: self.pins[handle] for handle in self.order}
        assert tiers.host_bytes <= ROOM
        assert (bank.growths, bank._put._cache_size()) == self.grown
        assert self.residents.registered() == self.registered


Tiers.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestTiers = Tiers.TestCase


def test_threads_that_ask_for_more_adapters_than_there_are_slots() -> None:
    """Each holds one, looks whether it is in its slot, and lets go, while names are given to others; none waits for ever."""
    source = Elsewhere(world().adapters)
    residents = new_residents(source)
    programs, failures, served = threading.Lock(), [], Counter[str]()
    before = residents.bank.growths

    def ask(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(40):
            name = drawn.choice(NAMES)
            if drawn.random() < 0.2:
                residents.register(f"x{seed % 2}", world().adapters[name])
                name = f"x{drawn.randrange(2)}"
                if name not in residents.registered():
                    continue
            handle = residents.resolve(name)
            residents.prefetch(handle)
            while True:
                with programs:
                    slot = residents.hold(handle)
                    if slot is not None:
                        assert_in_its_slot(residents, handle, world().expected)
                if slot is not None:
                    break
                threading.Event().wait(0.001)
            with programs:
                assert residents.bank.slot(handle) == slot
                assert_in_its_slot(residents, handle, world().expected)
            residents.release(handle)
            served[handle.name] += 1

    def guarded(seed: int) -> None:
        try:
            ask(seed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert served.total() > 200
    tiers = residents.tiers()
    assert set(tiers.device.values()) == {0}
    assert residents.bank.growths == before
    assert tiers.evictions > 20
    assert tiers.host_bytes <= ROOM
