"""Turns: a flood of one tenant, or for one adapter, does not make another wait for all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from http_servers import speaker

from graftax import Predictor, Sampling
from graftax.models.backbone import Backbone
from graftax.serve.composition import Term
from graftax.serve.engine import Engine
from graftax.serve.handles import Handle
from graftax.serve.request import Request
from graftax.serve.residents import Residents
from graftax.serve.turns import TENANT, Turns


@dataclass(frozen=True)
class One:
    """What somebody asks for."""

    name: str
    tenant: str | None = None
    adapters: frozenset[str] = frozenset()


def many(count: int, tenant: str | None, *adapters: str) -> list[One]:
    return [One(f"{tenant}{'+'.join(adapters)}{k}", tenant, frozenset(adapters)) for k in range(count)]


def begun(turns: Turns, waiting: list[One], most: int, tokens: int = 10) -> list[str]:
    """The names of the first that begin, in their order."""
    names: list[str] = []
    for one in turns.order(waiting):
        if len(names) < most:
            turns.charge(one, tokens)
            names.append(one.name)
            waiting.remove(one)
    return names


def test_a_flood_of_one_tenant_lets_another_pass() -> None:
    waiting = [*many(1000, "flood", "a"), *many(1, "single", "a")]
    assert begun(Turns(), waiting, 4) == ["flooda0", "singlea0", "flooda1", "flooda2"]


def test_who_asks_for_many_adapters_has_no_more_turns() -> None:
    turns = Turns()
    waiting = [*(one for k in range(10) for one in many(10, "many", f"a{k}")), *many(10, "one", "a0")]
    names = begun(turns, waiting, 20)
    assert sum(name.startswith("one") for name in names) == 10
    assert {name[:-1] for name in names if name.startswith("many")} == {f"manya{k}" for k in range(10)}


def test_of_what_cannot_begin_no_more_comes_of_its_party() -> None:
    turns, seen = Turns(), list[str]()
    for one in turns.order([*many(3, None, "away"), *many(2, None, "here")]):
        seen.append(one.name)
        if "here" in one.adapters:
            turns.charge(one, 1)
    assert seen == ["Noneaway0", "Nonehere0", "Nonehere1"]


def test_tokens_are_what_is_counted() -> None:
    turns = Turns()
    long, short = many(10, "long"), many(30, "short")
    names: list[str] = []
    for one in turns.order([*long, *short]):
        turns.charge(one, 30 if one.tenant == "long" else 10)
        names.append(one.name)
    assert [sum(name.startswith("long") for name in names[:count]) for count in (4, 8, 40)] == [1, 2, 10]


def test_nobody_saves_up_turns_or_sheds_what_was_done_for_him() -> None:
    turns = Turns()
    begun(turns, [*many(9, "busy"), *many(1, "there")], 10)
    late = [*many(9, "busy"), *many(9, "late"), *many(1, "there")]
    assert begun(turns, late, 3) == ["late0", "there0", "late1"]  # where the least of those there stands: 10, as `there`
    begun(turns, many(5, "busy"), 5)  # goes on for a while alone
    waiting = [*many(2, "busy"), *many(2, "new")]
    assert {*begun(turns, waiting, 2)} == {"busy0", "new0"}  # with whom nobody competed before is not behind


def test_accounts_are_closed() -> None:
    turns = Turns()
    for number in range(50):
        begun(turns, many(2, f"tenant {number}", f"adapter {number}"), 2)
    assert len(turns._tenants) == 1


def a_request(handle: Handle | None, tokens: int = 20) -> Request:
    plan = () if handle is None else ((Term(handle, 1.0),),)
    return Request(np.arange(4, 9, dtype=np.int32), plan, Sampling(max_new_tokens=tokens, min_p=0.0))


@pytest.mark.parametrize("most_passed", [3, 10])
def test_who_waits_for_a_slot_gets_one_under_a_steady_stream(
    teller: Backbone, most_passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot, three lanes, in each round a request for the adapter that has it: another has it after so many."""
    monkeypatch.setattr("graftax.serve.engine.MOST_PASSED", most_passed)
    residents = Residents(teller, slots=1)
    popular, rare = (residents.register(name, speaker(teller, seed)) for seed, name in enumerate(["popular", "rare"]))
    engine = Engine(teller, residents, most_lanes=3)
    stream = [a_request(popular, 48)]
    engine.submit(stream[0])
    engine.advance()
    engine.submit(single := a_request(rare))
    base = a_request(None)
    while not single.done:
        stream += [a_request(popular, 48)]
        engine.submit(stream[-1])
        if len(stream) == most_passed + 2:
            engine.submit(base)
        engine.advance()
        assert len(stream) < 60
    engine.advance()
    assert single.error is None
    began = sum(request.count > 0 for request in stream)
    assert most_passed <= began <= most_passed + 4
    assert base.done  # needs no slot, and waited for none


def test_one_text_does_not_wait_for_thirty_of_another_adapter(teller: Backbone) -> None:
    residents = Residents(teller, slots=2)
    flooded, other = (residents.register(name, speaker(teller, seed)) for seed, name in enumerate(["a", "b"]))
    engine = Engine(teller, residents, most_lanes=1)
    flood, single = [a_request(flooded, 4) for _ in range(30)], a_request(other, 4)
    for request in (*flood, single):
        engine.submit(request)
    while not single.done:
        engine.advance()
    assert sum(request.done for request in flood) <= 2


def test_one_reading_does_not_wait_for_a_flood(tiny: Backbone) -> None:
    predictor = Predictor(tiny)
    flood = [predictor.begin_embedding(["a text", "another"]) for _ in range(100)]
    token = TENANT.set("other")
    single = predictor.begin_embedding(["mine"])
    TENANT.reset(token)
    predictor.engine.advance()
    assert single.reading.future.done()
    assert 20 < sum(one.reading.future.done() or len(one.reading.left) < 2 for one in flood) < 64
    while any(not one.reading.over for one in flood):
        predictor.engine.advance()
    assert np.array_equal(flood[0].result()[0], flood[99].result()[0])
