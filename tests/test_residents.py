"""Adapters in three tiers: what is held stays what it is, whatever its name comes to mean and whoever needs the place."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cases import random_adapter
from refusals import refused
from slots import Elsewhere, assert_in_its_slot, expected_slots, settled
from tiny import write_backbone

from graftax import Adapter, DoRA, LoRA, save_adapter
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.serve.handles import Handle, digest_of
from graftax.serve.residents import Residents

Expected = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_backbone(tmp_path_factory.mktemp("residents") / "backbone"))


@pytest.fixture(scope="module")
def adapters(backbone: Backbone) -> dict[str, Adapter]:
    """Six of LoRA, and one of a method that makes other leaves for its slot."""
    made = {name: random_adapter(backbone, (LoRA(r=2 + seed, alpha=3.0),), seed=seed) for seed, name in enumerate("abcdef")}
    return made | {"dora": random_adapter(backbone, (DoRA(r=3, alpha=2.0),), seed=9)}


@pytest.fixture(scope="module")
def expected(backbone: Backbone, adapters: dict[str, Adapter]) -> Expected:
    return expected_slots(backbone, adapters)


@pytest.fixture
def elsewhere(adapters: dict[str, Adapter]) -> Elsewhere:
    return Elsewhere(adapters)


@pytest.fixture
def residents(backbone: Backbone, elsewhere: Elsewhere) -> Residents:
    """Of two slots, whose layout is the one of all adapters."""
    made = Residents(backbone, slots=2, host_bytes=1 << 20, source=elsewhere)
    for name in ("dora", "f"):
        made.release(held(made, made.resolve(name)))
    return made


def held(residents: Residents, handle: Handle) -> Handle:
    """The handle, when it is held."""
    residents.adapter(handle)
    assert residents.hold(handle) in (1, 2)
    return handle


def nbytes(adapter: Adapter) -> int:
    pairs = [pair for states in adapter.states.values() for pair in states.values()]
    return sum(leaf.nbytes for pair in pairs for own in pair for leaf in own.values())


# -- handles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "dora"])
def test_a_digest_is_of_what_answers(name: str, backbone: Backbone, adapters: dict[str, Adapter], tmp_path: Path) -> None:
    """The same in memory and as registered from files; another for another number, label, method or length."""
    adapter, residents = dataclasses.replace(adapters[name], labels=()), Residents(backbone)
    digest = residents.register("x", adapter).digest
    assert residents.register("x", save_adapter(adapter, tmp_path / "x", backbone)).digest == digest

    method = next(method for method in adapter.methods if method.name == "lora" or method.name == "dora")
    site, (trainable, fixed) = next(iter(adapter.states[method.key].items()))
    nudged = {leaf: np.nextafter(array, np.inf, dtype=np.float32) for leaf, array in trainable.items()}
    states = {**adapter.states, method.key: {**adapter.states[method.key], site: (nudged, fixed)}}
    others = [
        dataclasses.replace(adapter, states=states),
        dataclasses.replace(adapter, labels=("x", "y", "z")),
        dataclasses.replace(adapter, task="tag"),
        dataclasses.replace(adapter, recipe={"max_length": 7}),
        dataclasses.replace(adapter, methods=tuple(dataclasses.replace(m, dropout=0.5) for m in adapter.methods)),
    ]
    assert len({digest, *map(digest_of, others)}) == 1 + len(others)


def test_a_name_that_means_another_adapter_changes_nothing_that_has_begun(
    residents: Residents, adapters: dict[str, Adapter], expected: Expected
) -> None:
    before = held(residents, residents.register("x", adapters["a"]))
    waiting = residents.resolve("x")  # of a request that has not got a slot yet
    after = held(residents, residents.register("x", adapters["b"]))
    assert residents.resolve("x") == after != before
    residents.unregister("x")
    assert refused(lambda: residents.resolve("x")) == "x is not elsewhere."
    for handle in (before, after):
        assert_in_its_slot(residents, handle, expected)
        residents.release(handle)
    for name in "cd":
        residents.release(held(residents, residents.resolve(name)))
    assert_in_its_slot(residents, held(residents, waiting), expected)


def test_what_was_registered_goes_before_the_source(residents: Residents, adapters: dict[str, Adapter]) -> None:
    elsewhere = residents.resolve("a")
    here = residents.register("a", adapters["b"])
    assert (residents.resolve("a"), residents.registered()) == (here, {"a": here})
    residents.unregister("a")
    assert (residents.resolve("a"), str(here), str(elsewhere)) == (elsewhere, "a", "a:1")


def test_names_that_mean_nothing(backbone: Backbone, adapters: dict[str, Adapter]) -> None:
    residents = Residents(backbone)
    residents.register("a", adapters["a"])
    line = "no adapter named 'x' is loaded; loaded are a."
    assert [refused(lambda call=call: call("x")) for call in (residents.resolve, residents.unregister)] == [line, line]


# -- slots ----------------------------------------------------------------------------------------------------------------


def test_the_one_used_least_recently_gives_up_its_slot(residents: Residents, expected: Expected) -> None:
    """Of those that nobody holds; and nothing is compiled for that."""
    a, b, c, d = (residents.resolve(name) for name in "abcd")
    for handle in (a, b):
        residents.release(held(residents, handle))
    programs = residents.bank._put._cache_size(), residents.bank.growths
    held(residents, a), held(residents, c)
    assert set(residents.tiers().device) == {a, c}
    residents.prefetch(d)
    settled(residents)
    assert residents.hold(d) is None  # both are held
    residents.release(c)
    assert residents.hold(d) == 2
    assert residents.tiers().device == {a: 1, d: 1}
    for handle in (a, d):
        assert_in_its_slot(residents, handle, expected)
    assert (residents.bank._put._cache_size(), residents.bank.growths) == programs


def test_whoever_holds_last_lets_go(residents: Residents) -> None:
    a, b = residents.resolve("a"), residents.resolve("b")
    held(residents, b)
    assert held(residents, a) is held(residents, a)
    residents.release(a)
    residents.adapter(residents.resolve("c"))
    assert residents.hold(residents.resolve("c")) is None
    residents.release(a)
    assert residents.hold(residents.resolve("c")) is not None
    assert refused(lambda: residents.release(a)) == "a:1 is not held."


def test_one_that_lost_its_name_goes_first(residents: Residents, adapters: dict[str, Adapter]) -> None:
    old, other = residents.register("x", adapters["a"]), residents.resolve("b")
    residents.release(held(residents, other))
    residents.release(held(residents, old))
    residents.register("x", adapters["c"])
    held(residents, residents.resolve("d"))
    assert set(residents.tiers().device) == {other, residents.resolve("d")}


def test_without_a_bound_the_bank_grows(backbone: Backbone, elsewhere: Elsewhere, expected: Expected) -> None:
    """When all that it has room for are held; what is not held gives up its slot before."""
    residents = Residents(backbone, source=elsewhere)
    for _ in range(3):
        for name in elsewhere.adapters:
            residents.adapter(handle := residents.resolve(name))
            residents.hold(handle)
            residents.release(handle)
    assert residents.tiers().evictions == 0  # seven adapters in seven slots
    extra = dataclasses.replace(elsewhere.adapters["a"], recipe={"max_length": 5})
    handles = [residents.resolve(name) for name in elsewhere.adapters]
    assert sorted(residents.hold(handle) or 0 for handle in handles) == [*range(1, 8)]
    grown = residents.bank.growths
    assert residents.hold(residents.register("extra", extra)) == 8
    assert (residents.bank.growths, residents.tiers().evictions) == (grown + 1, 0)
    for handle in handles:
        assert_in_its_slot(residents, handle, expected)


def test_room_that_is_reserved_is_made_once(
    backbone: Backbone, elsewhere: Elsewhere, adapters: dict[str, Adapter], expected: Expected
) -> None:
    """Also beside what is held; after that no slot that is written compiles anything."""
    residents = Residents(backbone, slots=3, source=elsewhere)
    a = held(residents, residents.register("x", adapters["a"]))
    residents.reserve(residents.resolve(name) for name in adapters)
    programs = residents.bank.growths, residents.bank._put._cache_size()
    assert residents.bank.growths == 2
    assert_in_its_slot(residents, a, expected)
    for name in adapters:
        residents.adapter(handle := residents.resolve(name))
        assert residents.hold(handle) in (2, 3)
        assert_in_its_slot(residents, handle, expected)
        residents.release(handle)
    residents.reserve([a])
    assert (residents.bank.growths, residents.bank._put._cache_size()) == programs


def test_a_device_that_has_no_room_changes_nothing(
    residents: Residents, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = held(residents, residents.resolve("a")), residents.resolve("b")
    residents.adapter(b)

    def failing(*_: Any) -> Any:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nout of memory")

    before = residents.tiers().device
    with monkeypatch.context() as patched:
        patched.setattr(residents.bank, "_put", failing)
        line = refused(lambda: residents.hold(b))
    assert line == "b:1: the device has no room for it (RESOURCE_EXHAUSTED: out of memory)."
    assert residents.tiers().device == before
    assert residents.hold(b) is not None
    for handle in (a, b):
        assert_in_its_slot(residents, handle, expected)


# -- reading --------------------------------------------------------------------------------------------------------------


def test_reading_holds_up_nobody_and_is_done_once(residents: Residents, elsewhere: Elsewhere, expected: Expected) -> None:
    held(residents, b := residents.resolve("b"))
    elsewhere.open.clear()
    a = residents.resolve("a")
    before = len(elsewhere.reads)
    for _ in range(3):
        residents.prefetch(a)
        assert residents.hold(a) is None
        assert residents.hold(b) is not None  # which others do meanwhile
    assert residents.tiers().reading == (a,)
    elsewhere.open.set()
    assert_in_its_slot(residents, held(residents, a), expected)
    residents.prefetch(a)
    assert elsewhere.reads[before:] == ["a"]


def test_what_cannot_be_read_is_told_to_each_who_asks_and_tried_again_for_the_next(
    residents: Residents, elsewhere: Elsewhere, expected: Expected
) -> None:
    elsewhere.broken.add("a")
    a = residents.resolve("a")
    residents.prefetch(a)
    settled(residents)
    before = residents.tiers().device
    line = "a:1: cannot be read (OSError('the disk of\\na is gone'))."
    assert [refused(lambda: residents.hold(a)) for _ in range(3)] == [line] * 3
    assert (residents.tiers().device, elsewhere.reads.count("a")) == (before, 1)
    assert refused(lambda: residents.adapter(a)) == line
    assert elsewhere.reads.count("a") == 2
    elsewhere.broken.clear()
    assert residents.hold(residents.resolve("b")) is None
    assert refused(lambda: residents.hold(a)) == line
    residents.prefetch(a)
    settled(residents)
    assert residents.hold(a) is not None
    assert_in_its_slot(residents, a, expected)


def test_when_it_is_closed_nothing_more_is_read(residents: Residents, elsewhere: Elsewhere) -> None:
    """Nor does anybody wait for ever: of five adapters four are being read, and the fifth would be next."""
    elsewhere.open.clear()
    handles = [residents.resolve(name) for name in "abcde"]
    for handle in handles:
        residents.prefetch(handle)
    line: list[str | None] = []
    waiting = threading.Thread(target=lambda: line.append(refused(lambda: residents.adapter(handles[-1]))))
    waiting.start()
    residents.close()
    waiting.join()
    assert line == ["e:1: no adapters are read any more."]
    elsewhere.open.set()
    assert residents.adapter(handles[0]) is elsewhere.adapters["a"]
    assert refused(lambda: residents.hold(handles[-1])) == line[0]


def test_a_request_for_more_adapters_than_slots_is_refused(residents: Residents, backbone: Backbone) -> None:
    """It would wait for ever."""
    a, b, c = (residents.resolve(name) for name in "abc")
    residents.refuse_too_many([a, b, a], "Stack(a, b, a)")
    line = refused(lambda: residents.refuse_too_many([a, b, c], "Stack(a, b, c)"))
    assert line == "Stack(a, b, c): 3 adapters, and there are slots for 2 at once."
    Residents(backbone).refuse_too_many([a, b, c], "Stack(a, b, c)")


def test_who_waits_for_the_same_is_told_the_same(residents: Residents, elsewhere: Elsewhere) -> None:
    elsewhere.broken.add("a")
    elsewhere.open.clear()
    a, lines = residents.resolve("a"), []
    waiting = [threading.Thread(target=lambda: lines.append(refused(lambda: residents.adapter(a)))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    elsewhere.open.set()
    for thread in waiting:
        thread.join()
    assert Counter(lines) == {"a:1: cannot be read (OSError('the disk of\\na is gone')).": 3}


def test_the_host_forgets_what_was_used_least_recently(
    backbone: Backbone, elsewhere: Elsewhere, adapters: dict[str, Adapter]
) -> None:
    room = sum(nbytes(adapters[name]) for name in "bd")
    residents = Residents(backbone, slots=1, host_bytes=room, source=elsewhere)
    a, b, c, d = (residents.resolve(name) for name in "abcd")
    for handle in (b, a):
        residents.adapter(handle)
    residents.adapter(b)
    residents.adapter(d)
    assert set(residents.tiers().host) == {b, d}
    assert residents.tiers().host_bytes == room
    assert residents.hold(d) == 1  # which is on the device now, and takes no room here
    residents.adapter(a)
    assert set(residents.tiers().host) == {b, a}
    residents.release(d)
    assert residents.hold(a) == 1
    assert set(residents.tiers().host) == {b, d}
    residents.adapter(c)
    assert residents.tiers().host_bytes <= room
    assert [elsewhere.reads.count(name) for name in "abcd"] == [2, 1, 1, 1]


def test_the_last_one_is_kept_whatever_its_size(backbone: Backbone, elsewhere: Elsewhere) -> None:
    residents = Residents(backbone, slots=1, host_bytes=0, source=elsewhere)
    for name in "ab":
        residents.adapter(residents.resolve(name))
        assert [handle.name for handle in residents.tiers().host] == [name]
    assert residents.hold(residents.resolve("b")) == 1


# -- directories ----------------------------------------------------------------------------------------------------------


def test_a_directory_that_changes_is_refused_and_not_taken_for_what_it_was(
    backbone: Backbone, adapters: dict[str, Adapter], expected: Expected, tmp_path: Path
) -> None:
    """Where its adapter is in memory no more; who asks for the name gets what was registered, or this line."""
    residents = Residents(backbone, slots=1, host_bytes=0)
    x = residents.register("x", save_adapter(adapters["a"], tmp_path / "x", backbone))
    residents.register("y", adapters["b"])
    save_adapter(adapters["c"], tmp_path / "x", backbone, overwrite=True)
    line = "x: its files are not what they were when it was loaded; load it again."
    assert refused(lambda: residents.adapter(x)) == line
    after = residents.register("x", tmp_path / "x")
    assert after.digest == digest_of(adapters["c"])
    residents.unregister("x")
    assert residents.adapter(after) is not None


@pytest.mark.parametrize("digest_is_known", [True, False])
def test_a_directory_is_read_when_it_is_asked_for(
    digest_is_known: bool, backbone: Backbone, adapters: dict[str, Adapter], expected: Expected, tmp_path: Path
) -> None:
    """And then is what it was when its digest was noted, or this line."""
    residents, known = Residents(backbone, slots=1, host_bytes=0), digest_of(adapters["a"])
    x = residents.register_unread("x", tmp_path, known if digest_is_known else None)  # there is nothing there yet
    assert "config" in refused(lambda: residents.adapter(x))
    save_adapter(adapters["a"], tmp_path, backbone, overwrite=True)
    assert residents.resolve("x") is x
    assert x.digest == known
    assert digest_of(residents.adapter(x)) == known
    save_adapter(adapters["b"], tmp_path, backbone, overwrite=True)
    residents.register("y", adapters["c"])  # which takes its place in memory
    assert "x: its files are not what they were" in refused(lambda: residents.adapter(x))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_adapter_gets_no_name_and_no_slot(poison: float, residents: Residents, adapters: dict[str, Adapter]) -> None:
    states = {
        key: {site: ({leaf: np.full_like(a, poison) for leaf, a in own.items()}, fixed) for site, (own, fixed) in sites.items()}
        for key, sites in adapters["a"].states.items()
    }
    before = residents.tiers()
    line = refused(lambda: residents.register("x", dataclasses.replace(adapters["a"], states=states)))
    assert line is not None
    assert line.startswith("x: lora at bert.encoder.layer.0.attention.self.query: a is not finite")
    other = dataclasses.replace(adapters["a"], fingerprint="0" * 64)
    assert "made for another backbone" in str(refused(lambda: residents.register("x", other)))
    assert (residents.tiers(), residents.registered()) == (before, {})


def test_who_has_lost_their_name_takes_no_room(backbone: Backbone, adapters: dict[str, Adapter], tmp_path: Path) -> None:
    """Neither on the device nor in memory; whoever has the handle has the adapter with it, though its files be gone."""
    residents = Residents(backbone)
    first = residents.register("a", save_adapter(adapters["a"], tmp_path / "a", backbone))
    read = residents.adapter(first)
    for name in "bcdef" * 4:
        handle = residents.register("a", adapters[name])
        residents.release(held(residents, handle))
    tiers = residents.tiers()
    assert ({*tiers.device}, tiers.host, tiers.evictions) == ({handle, first} - {first}, (), 0)
    shutil.rmtree(tmp_path / "a")
    assert residents.adapter(first) is read
    assert first.digest == digest_of(read)
    gone = weakref.ref(handle)
    residents.unregister("a")
    residents.release(held(residents, residents.register("b", adapters["a"])))
    del handle, tiers
    assert gone() is None


def test_who_is_asked_once_more_behind_its_name_takes_no_room_after_that(
    backbone: Backbone, adapters: dict[str, Adapter]
) -> None:
    """A request had its handle, and only then came to read it and to hold it."""
    residents = Residents(backbone, slots=1)
    before = residents.register("x", adapters["a"])
    after = residents.register("x", adapters["b"])
    residents.release(held(residents, after))
    residents.adapter(before)
    residents.release(held(residents, before))
    residents.release(held(residents, after))
    tiers = residents.tiers()
    assert before not in tiers.host
    assert before not in tiers.device
