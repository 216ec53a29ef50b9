"""What calls are promised, and in which order they are done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_servers import until

from graftax import GraftaxError
from graftax.serve.http.complaints import Refused
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.jobs.training_quotas import TrainingQuotas
from graftax.tuning.loops.calls import Call, Datum, Outcome, Step, StepOutcome
from graftax.tuning.tinker.accounts import Accounts
from graftax.tuning.tinker.call_order import Advance, Alone, CallOrder, Gradient
from graftax.tuning.tinker.promises import Failure, Packed, Promises, Room
from graftax.tuning.tinker.tickets import Tickets

# -- promises -----------------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def of(size: int) -> Packed:
    return Packed(b"x" * size, lambda data: {})


def test_a_call_that_comes_twice_is_one_promise() -> None:
    """Of one tenant; the same number of another is another's."""
    promises = Promises()
    first, is_new = promises.make("a", ("model", 1), "model")
    assert (is_new, promises.make("a", ("model", 1), "model")) == (True, (first, False))
    other, is_new = promises.make("b", ("model", 1), "model")
    assert (is_new, other.id != first.id) == (True, True)
    assert first.answer == {"request_id": first.id, "model_id": "model"}
    with pytest.raises(Refused) as refused:
        promises.find("b", first.id)
    assert refused.value.status == 410


def test_only_the_first_word_counts() -> None:
    promises = Promises()
    promise, _ = promises.make(None, 1)
    promises.settle(promise, {"path": "here"})
    promises.settle(promise, Failure("late"))
    assert (promise.result, promise.there.is_set()) == ({"path": "here"}, True)


def test_who_never_asks_leaves_nothing() -> None:
    """A result is kept for its time, and a shorter one once it was fetched; asking again finds it until then."""
    clock = Clock()
    promises = Promises(Room(seconds=100.0, seconds_after=10.0), clock)
    left, fetched = (promises.make(None, number)[0] for number in range(2))
    for promise in (left, fetched):
        promises.settle(promise, of(3))
    promises.fetched(promises.find(None, fetched.id))
    promises.fetched(promises.find(None, fetched.id))
    clock.now = 11.0
    with pytest.raises(Refused, match="its result was given up"):
        promises.find(None, fetched.id)
    assert promises.find(None, left.id) is left
    clock.now = 101.0
    with pytest.raises(Refused):
        promises.find(None, left.id)
    assert len(promises) == 0


def test_results_take_so_much_room_and_no_more() -> None:
    """Of many, those that were fetched go first, and then the oldest; what is not there yet stays."""
    promises = Promises(Room(bytes=25))
    waiting, *others = (promises.make(None, number)[0] for number in range(4))
    for promise in others[:2]:
        promises.settle(promise, of(10))
    promises.fetched(others[1])
    promises.settle(others[2], of(10))
    assert [promise for promise in others if promise.id in promises._by_id] == [others[0], others[2]]
    promises.settle(promises.make(None, 5)[0], of(20))
    assert len(promises) == 2
    assert promises.find(None, waiting.id) is waiting


def test_a_tenant_has_so_many_calls_under_way() -> None:
    promises = Promises(Room(at_once=2))
    first, _ = promises.make("a", 1)
    promises.make("a", 2)
    with pytest.raises(Refused) as refused:
        promises.make("a", 3)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    promises.make("b", 3)
    promises.settle(first, {})
    third, _ = promises.make("a", 3)
    promises.forget(third)
    promises.make("a", 4)


def test_calls_under_way_hold_so_many_bytes() -> None:
    """Of each tenant; one alone may be larger, and what is done holds nothing."""
    promises = Promises(Room(asked=100))
    large, _ = promises.make("a", 1, size=150)
    with pytest.raises(Refused, match=r"1 call of 150 bytes under way already\."):
        promises.make("a", 2, size=1)
    promises.make("b", 2, size=60)
    promises.settle(large, {})
    third, _ = promises.make("a", 3, size=60)
    with pytest.raises(Refused):
        promises.make("a", 4, size=60)
    promises.make("a", 5, size=40)
    promises.settle(third, {})
    promises.make("a", 6, size=60)  # beside the 40 that are under way still


def test_a_ticket_is_good_for_an_hour() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    first = tickets.give(Path("one"))
    clock.now = 1800.0
    second = tickets.give(Path("two"))
    clock.now = 3599.0
    assert (tickets.directory(first), tickets.directory(second)) == (Path("one"), Path("two"))
    clock.now = 3600.0
    with pytest.raises(Refused, match="its address was good for an hour"):
        tickets.directory(first)
    assert tickets.directory(second) == Path("two")


# -- the order of calls -------------------------------------------------------------------------------------------------------


class Loops:
    """Stands in for the loops: notes what is asked together."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.free = threading.Event()  # until it is set, the first batch is under way
        self.free.set()

    def _note(self, kind: str, names: Sequence[str]) -> None:
        self.asked.append([f"{kind} {name}" for name in names])
        assert self.free.wait(60)

    def forward_backward(self, calls: Sequence[Call]) -> list[Outcome]:
        self._note("gradient", [f"{call.loop}{call.settings['number']:g}" for call in calls])
        return [Outcome(error="broken" if call.loss == "broken" else None) for call in calls]

    def optim_step(self, steps: Sequence[Step]) -> list[StepOutcome]:
        self._note("step", [step.loop for step in steps])
        if any(step.loop == "crash" for step in steps):
            raise RuntimeError("no memory")
        return [StepOutcome(gradient_norm=2.0, calls=1) for _ in steps]


def gradient(model: str, number: int, loss: str = "cross_entropy", tokens: int = 1) -> Gradient:
    return Gradient(Call(model, [Datum(np.zeros(tokens), {})], loss, {"number": number}))


class Told:
    """What came of calls, by their names."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def by(self, name: str) -> Callable[[Any], None]:
        return lambda result: self.results.__setitem__(name, result)


def ordered(loops: Any, **options: Any) -> tuple[CallOrder, Told]:
    table = JobTable(Path(":memory:"))
    calls = CallOrder(loops, Accounts(table, TrainingQuotas((), table)), **options)
    for model in ("a", "b", "crash"):
        calls.open(model, 1)
    return calls, Told()


def test_models_are_done_together_and_each_in_its_order() -> None:
    """Of gradients several of one model, of steps one; what comes alone waits for its turn."""
    loops, done = Loops(), list[str]()

    def save() -> dict[str, Any]:
        done.append("saved")
        return {"path": "there"}

    loops.free.clear()
    calls, told = ordered(loops)
    calls.start()
    calls.add("a", 1, gradient("a", 1), told.by("a1"))
    until(lambda: loops.asked)  # it is under way; all that follows waits
    calls.add("b", 2, Advance(Step("b")), told.by("b2"))
    calls.add("a", 2, gradient("a", 2), told.by("a2"))
    calls.add("a", 3, gradient("a", 3), told.by("a3"))
    calls.add("a", 4, Advance(Step("a")), told.by("a4"))
    calls.add("b", 1, gradient("b", 1), told.by("b1"))
    calls.add("a", 5, Alone(save), told.by("a5"))
    calls.add("b", 3, gradient("b", 3), told.by("b3"))
    loops.free.set()
    until(lambda: len(told.results) == 8)
    calls.stop()
    assert loops.asked == [
        ["gradient a1"],
        ["gradient a2", "gradient b1", "gradient a3"],
        ["step b", "step a"],
        ["gradient b3"],
    ]
    assert (told.results["a5"], done) == ({"path": "there"}, ["saved"])
    assert told.results["b2"] == {"metrics": {"grad_norm": 2.0, "calls": 1.0, "device_seconds": 0.0}}


def test_an_error_is_its_own_calls_alone() -> None:
    loops = Loops()
    calls, told = ordered(loops)
    calls.add("a", 1, gradient("a", 1, "broken"), told.by("a"))
    calls.add("b", 1, gradient("b", 1), told.by("b"))

    def refuse() -> Any:
        raise GraftaxError("there is one of the name.")

    calls.add("b", 2, Alone(refuse), told.by("alone"))
    calls.add("crash", 1, Advance(Step("crash")), told.by("crash"))
    calls.start()
    until(lambda: len(told.results) == 4)
    calls.stop()
    assert told.results["a"] == Failure("broken")
    assert isinstance(told.results["b"], Packed)
    assert told.results["alone"] == Failure("there is one of the name.")
    assert (told.results["crash"].category, "RuntimeError" in told.results["crash"].message) == ("server", True)


def test_a_number_that_never_comes_holds_nobody_up_for_ever() -> None:
    """What waits behind it fails after a time; then the model goes on, and the number is too late."""
    clock, loops = Clock(), Loops()
    calls, told = ordered(loops, patience=50.0, clock=clock)
    calls.add("a", 2, gradient("a", 2), told.by("a2"))
    calls.add("a", 4, gradient("a", 4), told.by("a4"))
    calls.start()
    clock.now = 49.0
    calls.add("b", 1, gradient("b", 1), told.by("b1"))
    until(lambda: "b1" in told.results)
    assert told.results.keys() == {"b1"}
    clock.now = 51.0
    calls.add("b", 2, gradient("b", 2), told.by("b2"))
    until(lambda: len(told.results) == 4)
    assert told.results["a4"] == Failure("seq_id 1 of a did not come within 50 s; later calls wait for it.")
    with pytest.raises(Refused) as refused:
        calls.add("a", 1, gradient("a", 1), told.by("a1"))
    assert refused.value.status == 410
    calls.add("a", 5, gradient("a", 5), told.by("a5"))
    until(lambda: "a5" in told.results)
    calls.stop()


def test_a_model_that_is_gone_is_told_so() -> None:
    """What waited for it as well; and errands are run behind what is under way."""
    loops, ran = Loops(), threading.Event()
    calls, told = ordered(loops)
    calls.add("a", 2, gradient("a", 2), told.by("a2"))
    calls.close("a", "it was unloaded.")
    assert told.results == {"a2": Failure("it was unloaded.")}
    with pytest.raises(Refused, match="there is no model 'a'"):
        calls.add("a", 1, gradient("a", 1), told.by("a1"))
    calls.start()
    calls.afterwards(ran.set)
    assert ran.wait(60)
    calls.add("b", 2, gradient("b", 2), told.by("b2"))
    calls.stop()
    assert told.results["b2"] == Failure("the server ends.", "server")


def test_a_batch_has_so_many_tokens_beyond_one_call_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftax.tuning.tinker.call_order._MOST_TOKENS", 10)
    loops = Loops()
    calls, told = ordered(loops)
    for number in (1, 2, 3):
        calls.add("a", number, gradient("a", number, tokens=4), told.by(f"a{number}"))
    calls.add("b", 1, gradient("b", 1, tokens=4), told.by("b"))
    calls.start()
    until(lambda: len(told.results) == 4)
    calls.stop()
    assert loops.asked == [["gradient a1", "gradient b1"], ["gradient a2", "gradient a3"]]


def test_waiting_for_a_result_ends_when_it_is_there() -> None:
    async def run() -> Any:
        promises = Promises()
        promise, _ = promises.make(None, 1)
        asyncio.get_running_loop().call_soon(promises.settle, promise, {"path": "there"})
        await asyncio.wait_for(promise.there.wait(), 60)
        return promise.result

    assert asyncio.run(run()) == {"path": "there"}
