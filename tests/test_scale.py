"""The cost model and the simulations of docs/scale.md, held against what can be computed by hand or is known of queues."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3_server
from refusals import refused
from stores import about, store_of

from graftax.benchmarks.accelerators.described_devices import DEVICES
from graftax.benchmarks.scale import compiled_costs, measuring, scale_page
from graftax.benchmarks.scale.adapter_queue import CHATS, CLASSIFIERS, Part, Work, cut, lora_bytes, steps_of, ticks_of
from graftax.benchmarks.scale.assumptions import Assumptions, every_assumption
from graftax.benchmarks.scale.breaking_points import breaking_points
from graftax.benchmarks.scale.compiled_costs import CompiledCost, kernels_of
from graftax.benchmarks.scale.fleet_tables import best, duration
from graftax.benchmarks.scale.measured_costs import MeasuredRun, measured_costs, measured_runs
from graftax.benchmarks.scale.one_machine import predicted_seconds
from graftax.benchmarks.scale.scale_page import PAGE, QUICK, SIMULATED, renewed, tables_of
from graftax.benchmarks.scale.scenarios import PUSH_REQUESTS, Scenario, mean_steps
from graftax.benchmarks.scale.sensitivity import sensitivities
from graftax.benchmarks.scale.simulated_fleet import Delivery, Fleet, Outcome, delivered, simulate
from graftax.benchmarks.scale.simulated_replicas import Answers, Outage, ReplicaCosts, Traffic, answered, drawn_traffic
from graftax.benchmarks.scale.small_runs import Trained, taken_apart
from graftax.benchmarks.scale.step_time import program_seconds, tick_seconds, token_seconds
from graftax.benchmarks.scale.tenant_routing import Anywhere, AtHome, WhereItIs
from graftax.store.objects import RemoteObjects

# -- a program, a step ----------------------------------------------------------------------------------------------------


def test_a_program_takes_what_is_slower_and_its_launches() -> None:
    h100, assumed = DEVICES["h100"], Assumptions(matmul_share=0.5, memory_share=0.8, launch=1e-5)
    by_flops = CompiledCost(2e12, 1.0, 300, 0, 0, 0.0)
    assert program_seconds(by_flops, assumed) == pytest.approx(2e12 / (0.5 * h100.peaks["bf16"]) + 300e-5)
    by_bytes = CompiledCost(1.0, 5e9, 0, 0, 0, 0.0)
    assert program_seconds(by_bytes, assumed) == pytest.approx(5e9 / (0.8 * h100.bandwidth))


def test_a_tick_is_gradient_and_update_and_a_token_is_of_enough_lanes() -> None:
    costs, assumed = compiled_costs.compiled_costs(), Assumptions()
    both = [costs["classifier/gradient/16"], costs["classifier/update/16"]]
    assert tick_seconds("classifier", 16, assumed) == pytest.approx(sum(program_seconds(cost, assumed) for cost in both))
    of_64 = program_seconds(costs["decoder/decode/64"], assumed)
    assert [token_seconds(texts, assumed) == of_64 for texts in (1, 16, 17, 64)] == [False, False, True, True]


def test_kernels_are_what_is_launched() -> None:
    """A fusion is one, what it computes in registers none, and a loop launches what is in it as often as it turns."""
    text = """HloModule m

%fused (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[8]{0} add(%a, %a)
  ROOT %c = f32[8]{0} multiply(%b, %b)
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %y = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  %z = f32[8]{0} custom-call(%y), custom_call_target="gemm"
  ROOT %r = (s32[], f32[8]) tuple(%i, %z)
}

%condition (u: (s32[], f32[8])) -> pred[] {
  %u = (s32[], f32[8]) parameter(0)
  ROOT %p = pred[] constant(true)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %n = s32[] constant(0)
  %s = (s32[], f32[8]) tuple(%n, %x)
  %w = (s32[], f32[8]) while(%s), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %v = f32[8]{0} get-tuple-element(%w), index=1
  ROOT %f = f32[8]{0} fusion(%v), kind=kLoop, calls=%fused
}
"""
    assert kernels_of(text) == 3 * 2 + 1


def test_bytes_of_a_lora() -> None:
    """Two sites of two layers at rank 4, and a head of ten numbers."""
    assert lora_bytes(4, [(8, 8), (8, 2)], 2, 10) == 4 * (2 * (4 * 16 + 4 * 10) + 10)


# -- the queue ------------------------------------------------------------------------------------------------------------


def test_shards_are_cut_by_work() -> None:
    """The longest first, each step a second and each adapter half a second beside; nothing is left out."""
    work = Work(step=1.0, prepare=0.5, prepare_step=0.0)
    shards = cut([3, 9, 2, 2, 5, 1], work, most=3, seconds=8.0)
    assert [[part.steps for part in shard] for shard in shards] == [[9], [5], [3, 2], [2, 1]]
    by_number = cut([3, 9, 2, 2, 5, 1], work, most=4, longest_first=False)
    assert [[part.adapter for part in shard] for shard in by_number] == [[0, 1, 2, 3], [4, 5]]


def test_a_slot_that_is_free_takes_the_next() -> None:
    shard = tuple(Part(number, steps, steps) for number, steps in enumerate((5, 3, 2, 4)))
    assert ticks_of(shard, 2) == [(0, 5), (0, 3), (3, 5), (5, 9)]


def test_drawn_steps_keep_their_bounds() -> None:
    drawn = steps_of(CHATS, 20_000, 3)
    assert (drawn.min(), drawn.max()) == (CHATS.shortest, CHATS.longest)
    assert np.median(drawn) == pytest.approx(CHATS.median_steps, rel=0.03)


# -- a fleet --------------------------------------------------------------------------------------------------------------


def fleet(**changes: Any) -> Fleet:
    """One of which nothing goes wrong."""
    known = Fleet(
        machines=3,
        slots=2,
        tick=0.5,
        work=Work(0.25, 2.0, 0.1),
        begin=1.0,
        queued=0.0,
        start=10.0,
        base_bytes=0.0,
        network=1.0,
        store=1.0,
        preemptions=0.0,
        replacement=0.0,
        slow_machines=0.0,
        slowness=1.0,
        checkpoint_every=math.inf,
        checkpoint=0.0,
        delivery=Delivery(1, 0.0),
    )
    return dataclasses.replace(known, **changes)


def equal(count: int, steps: int, most: int) -> list[Any]:
    return cut([steps] * count, fleet().work, most)


def test_equal_adapters_take_what_one_computes_by_hand() -> None:
    """Twelve adapters of ten steps, four to each of three machines, in two slots: 20 ticks."""
    outcome = simulate(equal(12, 10, 4), fleet())
    preparing = 1.0 + 4 * (2.0 + 10 * 0.1)
    assert outcome.trained == outcome.written == pytest.approx(10.0 + preparing + 20 * 0.5)
    assert outcome.seconds["training"] == pytest.approx(120 * 0.25)
    assert outcome.seconds["preparing"] == pytest.approx(3 * preparing)
    assert outcome.seconds["empty slots"] == outcome.seconds["idle"] == outcome.preemptions == 0
    assert outcome.efficiency == pytest.approx(30 / (3 * 33))
    assert (outcome.machines, outcome.steps) == (3, 120)


def test_the_base_comes_through_one_store() -> None:
    """Three machines read 8 bytes each of a store that gives 4 a second; none takes more than 2 a second."""
    outcome = simulate(equal(3, 10, 1), fleet(base_bytes=8.0, store=4.0, network=2.0, slots=1))
    assert outcome.seconds["starting"] == pytest.approx((10 + 4) + (10 + 4) + (10 + 6))
    assert outcome.trained == pytest.approx(16 + 1 + 3 + 5)


def test_checkpoints_hold_training_up() -> None:
    """31 ticks of half a second behind 4 seconds of preparing: the sixth second ends one, and every sixth after that."""
    outcome = simulate(
        equal(1, 31, 1), fleet(machines=1, slots=1, checkpoint_every=6.0, checkpoint=0.5, work=Work(0.5, 3.0, 0.0))
    )
    assert outcome.trained == pytest.approx(10 + 4 + 15.5 + 3 * 0.5)
    assert outcome.seconds["checkpoints"] == pytest.approx(1.5)


def test_a_driver_that_prepares_is_waited_for() -> None:
    """The machines are there after ten seconds, and stand idle until the hundredth."""
    outcome = simulate(equal(12, 10, 4), fleet(queued=100.0))
    assert outcome.trained == pytest.approx(100 + 13 + 20 * 0.5)
    assert outcome.seconds["idle"] == pytest.approx(3 * 90)
    chats = dataclasses.replace(best(CHATS), adapters=500, machines=5, driver_prepares=True)
    assert chats.fleet.queued == pytest.approx(500 * chats.prepare)
    assert chats.outcome().trained > chats.fleet.queued
    assert chats.outcome().seconds["preparing"] == pytest.approx(len(chats.shards) * chats.fleet.begin)  # no rows


def test_slow_machines_are_slow_in_their_steps() -> None:
    outcome = simulate(equal(12, 10, 4), fleet(slow_machines=1.0, slowness=3.0))
    assert outcome.trained == pytest.approx(10.0 + 13.0 + 3 * 20 * 0.5)
    assert outcome.seconds["slow"] == pytest.approx(3 * 2 * 20 * 0.5)


def unlucky(seed: int, **changes: Any) -> tuple[np.ndarray, Fleet, Outcome]:
    steps = steps_of(CLASSIFIERS, 400, seed)
    known: dict[str, Any] = {"machines": 7, "slots": 4, "preemptions": 1 / 300, "replacement": 20.0, "slow_machines": 0.3}
    known |= {"slowness": 2.0, "base_bytes": 5.0, "checkpoint_every": 30.0, "checkpoint": 1.0}
    one = fleet(**known | changes)
    return steps, one, simulate(cut(steps.tolist(), one.work, 20, 200.0), one, seed)


@pytest.mark.parametrize("changes", [{}, {"checkpoint_every": math.inf}, {"preemptions": 1 / 60}])
def test_work_and_time_are_conserved(changes: dict[str, Any]) -> None:
    """Whatever goes wrong, every step counts once, every adapter ends once, and every second is under one heading."""
    steps, one, outcome = unlucky(1, **changes)
    assert outcome.preemptions > 10
    assert outcome.steps == steps.sum()
    assert len(outcome.finished) == 400
    assert outcome.seconds["training"] == pytest.approx(steps.sum() * one.tick / one.slots)
    assert min(outcome.seconds.values()) >= 0
    horizon = sum(outcome.seconds.values()) / one.machines
    assert horizon == pytest.approx(max(outcome.written, horizon))
    assert horizon < outcome.trained + 20 + 200  # one that was taken away at last may end later than the last adapter


def test_a_seed_is_a_run() -> None:
    assert unlucky(1)[2] == unlucky(1)[2]
    assert unlucky(1)[2].trained != unlucky(2)[2].trained


def test_lost_work_is_what_the_formula_says() -> None:
    """Of a machine that is taken away at a rate r, and keeps what is older than its last checkpoint, every c seconds.

    To get over c seconds it begins exp(rc) - 1 times in vain, and in all that takes (exp(rc) - 1) / r - c seconds (Daly, 2006).
    """
    every, rate, turns = 10.0, 0.05, 4000
    one = fleet(machines=1, slots=1, tick=0.01, start=0.0, begin=0.0, work=Work(0.01, 0.0, 0.0), checkpoint_every=every)
    steps = round(turns * every / one.tick)
    outcome = simulate(cut([steps], one.work, 1), dataclasses.replace(one, preemptions=rate), seed=5)
    assert outcome.steps == steps
    assert outcome.seconds["lost"] == pytest.approx(turns * (math.expm1(rate * every) / rate - every), rel=0.05)
    assert outcome.preemptions == pytest.approx(turns * math.expm1(rate * every), rel=0.05)


def test_one_writer_is_a_queue_and_so_is_the_ledger() -> None:
    assert delivered([0.5, 0.0, 0.0], Delivery(1, 2.0)) == (6.0, 3)
    assert delivered([0.5, 0.0, 0.0], Delivery(3, 2.0)) == (2.5, 3)
    assert delivered([0.5, 0.0, 0.0], Delivery(3, 2.0, 3.0)) == (11.0, 3)
    assert delivered([0.0, 5.0, 9.0], Delivery(1, 2.0)) == (11.0, 1)


def test_a_fleet_of_one_is_the_arithmetic_of_one_machine() -> None:
    """`simulate` and `predicted_seconds`, on a run whose batches all have one shape."""
    costs, rows, steps = measured_costs(), (100, 40, 60), (30, 12, 18)
    run = MeasuredRun("filled", rows, steps, (256,) * 3, 1, 0.0, 0.0, 0.0, 1)
    tick = costs.step + 256 * costs.step_position
    row = costs.prepare_row + costs.row_tokens * costs.prepare_token
    work = Work(tick, costs.prepare_job, row * 100 / 30)
    one = fleet(
        machines=1, slots=1, tick=tick, work=work, begin=costs.train_many + costs.find_shape, start=costs.start + costs.load
    )
    outcome = simulate(cut(list(steps), work, 3), one)
    assert outcome.trained + 3 * costs.save == pytest.approx(predicted_seconds(costs, run))


def test_what_was_predicted_is_about_what_was_measured() -> None:
    (filled, empty) = measured_runs()
    """Which was beside other work: docs/scale.md says how far apart two runs of the same are."""
    for run in (filled, empty):
        assert predicted_seconds(measured_costs(), run) == pytest.approx(run.seconds, rel=0.3)


# -- what decides -----------------------------------------------------------------------------------------------------------


def test_what_moves_most_is_first() -> None:
    """Of a fleet that is busy with products, what these reach; slower stores and later machines take longer."""
    moved = sensitivities(Scenario(CHATS, 1, adapters=400, machines=4))
    assert [one.assumption.name for one in moved[:1]] == ["matmul_share"]
    by_name = {one.assumption.name: one for one in moved}
    assert by_name.keys() == {one.name for one in every_assumption()}
    assert by_name["matmul_share"].at_low > by_name["matmul_share"].at_high
    assert by_name["machine"].at_high - by_name["machine"].at_low == pytest.approx(280, rel=0.2)


def test_a_driver_is_enough_for_as_many_machines_as_it_keeps_up_with() -> None:
    """At half as many all is written as soon as it is trained; at twice as many the driver takes twice as long as they do."""
    scenario = best(CHATS)
    points = {one.what: one for one in breaking_points(scenario)}
    enough = points["adapters written by one driver"].machines
    seconds = mean_steps(CHATS) * scenario.work.step + scenario.prepare
    assert enough == pytest.approx(seconds / measured_costs().save)
    assert [one.machines for one in breaking_points(scenario)] == sorted(one.machines for one in points.values())
    slower = dataclasses.replace(scenario, adapters=4000, machines=20, delivery=Delivery(1, seconds / 10))
    outcome = dataclasses.replace(slower, assumptions=dataclasses.replace(Assumptions(), preemptions=0.0)).outcome()
    assert outcome.written == pytest.approx(4000 * seconds / 10, rel=0.15)
    assert outcome.written > 1.7 * outcome.trained


# -- replicas -------------------------------------------------------------------------------------------------------------


def costs(**changes: Any) -> ReplicaCosts:
    known = ReplicaCosts(lanes=1, slots=8, host=8, token=lambda texts: 1.0, prompt=0.0, to_bank=0.0, fetch=0.0)
    return dataclasses.replace(known, **changes)


def asked(arrives: list[float], tenants: list[int], tokens: list[float]) -> Traffic:
    return Traffic(np.array(arrives), np.array(tenants), np.array(tokens))


def test_one_replica_is_the_queue_m_m_1() -> None:
    """Poisson arrivals at half of what it can: who stays in it stays exponentially long, with mean 1 / (1 - 0.5)."""
    found = answered(drawn_traffic(240_000.0, 0.5, 1, 1.0, 1.0, 2), costs(), 1, Anywhere())
    assert found.whole.mean() == pytest.approx(1 / 0.5, rel=0.03)
    assert np.percentile(found.whole, 99) == pytest.approx(math.log(100) / 0.5, rel=0.05)
    assert found.busiest == pytest.approx(0.5, rel=0.02)


def test_texts_that_share_it_stay_as_long_on_the_average() -> None:
    """Processor sharing has the mean of M/M/1, whatever the order."""
    found = answered(drawn_traffic(60_000.0, 0.6, 1, 1.0, 1.0, 3), costs(lanes=1000, slots=1000, token=float), 1, Anywhere())
    assert found.whole.mean() == pytest.approx(1 / 0.4, rel=0.04)


def test_lanes_that_do_not_slow_each_other_down_are_the_queue_m_m_c() -> None:
    """Three lanes at 0.7 of what they can: Erlang's formula says how many wait, and so how long on the average."""
    offered, lanes = 2.1, 3
    found = answered(drawn_traffic(40_000.0, offered, 1, 1.0, 1.0, 6), costs(lanes=lanes), 1, Anywhere())
    full = offered**lanes / math.factorial(lanes) / (1 - offered / lanes)
    waits = full / (sum(offered**k / math.factorial(k) for k in range(lanes)) + full)
    assert found.first.mean() == pytest.approx(waits / (lanes - offered), rel=0.06)
    assert (found.first > 1e-9).mean() == pytest.approx(waits, rel=0.04)


def test_texts_share_a_replica() -> None:
    """Each at half the speed while there are two; the second begins when the first has five tokens."""
    found = answered(asked([0.0, 5.0], [0, 1], [10.0, 10.0]), costs(lanes=2, token=float), 1, Anywhere())
    assert found.whole == pytest.approx([15.0, 15.0])


def test_prompts_hold_all_texts_up_and_a_full_replica_makes_wait() -> None:
    found = answered(asked([0.0, 4.0, 4.0], [0, 1, 2], [10.0] * 3), costs(lanes=2, prompt=1.0), 1, Anywhere())
    assert found.first == pytest.approx([1.0, 1.0, 9.0])  # the third waits for a lane, and for its prompt
    assert found.whole == pytest.approx([12.0, 11.0 + 1.0, 19.0])


def test_an_adapter_goes_through_the_tiers() -> None:
    """Two slots, three in memory, least recently used first; each request is over before the next one comes."""
    tenants = [0, 1, 0, 2, 1, 3, 0]
    found = answered(
        asked([10.0 * n for n in range(7)], tenants, [1.0] * 7), costs(slots=2, host=3, to_bank=0.5, fetch=2.0), 1, Anywhere()
    )
    #        0 store, 1 store, 0 bank, 2 store (takes 1's slot), 1 memory (takes 0's), 3 store (0 leaves the memory), 0 store
    assert found.whole == pytest.approx([3.5, 3.5, 1.0, 3.5, 1.5, 3.5, 3.5])
    assert found.tiers == {"store": 5, "bank": 1, "host": 1}


def test_what_is_in_use_keeps_its_slot() -> None:
    """Two slots, both lanes busy; the text of 0 is long, so 2 takes the slot of 1, and 0 is found where it was."""
    traffic = asked([0.0, 1.0, 5.0, 8.0], [0, 1, 2, 0], [20.0, 1.0, 1.0, 1.0])
    found = answered(traffic, costs(lanes=2, slots=2, fetch=0.5), 1, Anywhere())
    assert found.tiers == {"store": 3, "bank": 1}
    assert found.whole == pytest.approx([20.5, 1.5, 1.5, 1.0])


def test_a_tenant_stays_at_home_whatever_becomes_of_others() -> None:
    routing = AtHome(200, 5)
    idle, all_there = [0] * 5, [True] * 5
    homes = [routing.choose(tenant, idle, all_there) for tenant in range(200)]
    assert min(homes.count(replica) for replica in range(5)) > 20
    fewer = [routing.choose(tenant, idle, [True, True, False, True, True]) for tenant in range(200)]
    moved = [(was, now) for was, now in zip(homes, fewer, strict=True) if was != now]
    assert {was for was, _ in moved} == {2}
    assert {now for _, now in moved} == {0, 1, 3, 4}


def test_a_busy_home_is_left_at_its_bound() -> None:
    routing = AtHome(1, 4, bound=1.25)
    first, second = routing.orders[0][:2]
    under_way = [8] * 4
    assert routing.choose(0, under_way, [True] * 4) == first
    under_way[first] = 12  # of 36 and this one, 1.25 of the share are 11.6
    assert routing.choose(0, under_way, [True] * 4) == second
    assert AtHome(1, 4).choose(0, under_way, [True] * 4) == first


def test_a_request_goes_where_the_adapter_is_until_it_is_full() -> None:
    routing, there = WhereItIs(4, adapters=2, room=3), [True] * 4
    first = routing.choose(7, [0] * 4, there)
    assert {routing.choose(7, [0] * 4, there) for _ in range(20)} == {first}
    full = [3 if replica == first else 0 for replica in range(4)]
    second = routing.choose(7, full, there)
    assert second != first
    under_way = [1] * 4
    under_way[first] = 2
    chosen = [routing.choose(7, under_way, there) for _ in range(20)]
    assert {*chosen} <= {first, second}
    assert chosen.count(second) > chosen.count(first)  # of two that have it the less busy one
    without = [replica != second for replica in range(4)]
    assert {routing.choose(7, under_way, without) for _ in range(9)} == {first}
    for tenant in (8, 9):  # two others, at the only one that is there
        routing.choose(tenant, [0] * 4, [replica == first for replica in range(4)])
    assert 7 not in routing.asked[first]


def test_one_tenant_is_too_much_for_its_home_alone() -> None:
    """Half of all requests are one tenant's, and two replicas can do 1.8 of what one can."""
    offered = Traffic(
        *[getattr(drawn_traffic(2000.0, 1.8 * 0.8, 1, 1.0, 1.0, 4), name) for name in ("arrives", "tenant", "tokens")]
    )
    alone = answered(offered, costs(), 2, AtHome(1, 2))
    spread = answered(offered, costs(), 2, AtHome(1, 2, bound=1.25))
    assert np.median(alone.whole) > 20 * np.median(spread.whole)


def outage(routing: Any) -> tuple[Traffic, Answers]:
    offered = drawn_traffic(60.0, 20.0, 50, 1.0, 1.0, 7)
    dies = Outage(replica=1, dies=20.0, noticed=25.0, returns=40.0)
    return offered, answered(offered, costs(lanes=8, slots=16, host=50, token=lambda texts: 0.2), 4, routing, [dies])


@pytest.mark.parametrize("routing", [Anywhere, lambda: AtHome(50, 4), lambda: AtHome(50, 4, 1.5), lambda: WhereItIs(4, 16, 16)])
def test_who_asked_a_dead_replica_is_answered_by_another(routing: Any) -> None:
    offered, found = outage(routing())
    assert not np.isnan(found.whole).any()
    meanwhile = (offered.arrives > 20) & (offered.arrives < 24)
    late = found.first[meanwhile] > 25 - offered.arrives[meanwhile] - 1e-9
    assert 0.02 < late.mean() < 0.6  # some of them, those of the replica that is not there
    assert found.first[(offered.arrives > 26) & (offered.arrives < 60)].max() < 4
    again = outage(routing())[1]
    assert (again.whole == found.whole).all()


# -- what it rests on ---------------------------------------------------------------------------------------------------


def test_constants_are_found_again() -> None:
    """Of made-up processes: a step takes 0.01 s and 0.001 s a position, a call 2 s, a shape 3 s, 5 s if it is compiled."""
    acts = {
        "prepare_job": 0.1,
        "prepare_row": 0.006,
        "prepare_token": 0.001,
        "row_tokens": 4.0,
        "save": 0.2,
        "push": 0.3,
        "checkpoint": 0.4,
        "read": 0.5,
        "bank": 0.6,
    }
    acts |= {"answer": 0.7, "adapter_bytes": 8.0, "adapter_files": 3.0, "checkpoint_bytes": 9.0}
    acts |= {"prepared_job_bytes": 100.0, "prepared_row_bytes": 10.0, "prepared_token_bytes": 1.0}

    def process(rows: tuple[int, ...], positions: tuple[int, ...], shape: float, slow: float = 1.0) -> Trained:
        steps, each = tuple(count // 2 for count in rows), tuple(slow * (0.01 + 0.001 * count) for count in positions)
        jobs = sum(0.1 + 0.01 * count + 0.2 for count in rows) + sum(s * t for s, t in zip(steps, each, strict=True))
        shapes = len(set(positions))
        return Trained(1.5, 0.5, 1.5 + 0.5 + 2.0 + shape * shapes + jobs, positions, shapes, rows, steps, each)

    ones = [process((20,), (64,), 3.0, slow) for slow in (1.0, 1.0, 9.0)]  # one of them beside other work
    more = [process((20, 40, 30), (64, 128, 256), 3.0, slow) for slow in (1.0, 1.0, 9.0)]
    cold = [process((20, 40, 30), (64, 128, 256), 5.0)]
    found = measuring._costs(acts, ones, more, cold)
    assert (found.step, found.step_position) == pytest.approx((0.01, 0.001))
    assert (found.start, found.load, found.train_many) == pytest.approx((1.5, 0.5, 2.0))
    assert (found.find_shape, found.compile_shape) == pytest.approx((3.0, 5.0))
    assert (found.prepared_row_bytes, found.push) == (10.0, 0.3)


def test_a_job_is_taken_apart_into_rows_and_tokens() -> None:
    """Five for the job, two a row, a tenth a token."""
    counts = [(40, 500), (300, 3600), (300, 72000)]
    figures = [5 + 2 * rows + 0.1 * tokens for rows, tokens in counts]
    assert taken_apart(figures, counts) == pytest.approx((5, 2, 0.1))
    assert taken_apart([0.0, 260.0, 260.0], counts)[0] == 0.0


def test_a_push_behind_an_object_store_is_so_many_requests(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a version with as many files as an adapter has, and its card, once the hub is there."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    store = store_of(f"s3://{s3_server.BUCKET}/scale", tmp_path / "machine")
    store.push("x", about("first"), {"weights.bin": b"first"})
    count: list[str] = []
    for request in ("get_stamped", "size", "sizes", "after", "create", "put", "delete", "is_empty"):
        real = getattr(RemoteObjects, request)
        monkeypatch.setattr(RemoteObjects, request, lambda *which, real=real: (count.append(""), real(*which))[1])
    files = {f"file{number}": f"{number}".encode() for number in range(round(measured_costs().adapter_files) + 1)}
    store.push("y", about("second"), files)
    assert len(count) == PUSH_REQUESTS


def test_files_say_when_and_where_they_were_made() -> None:
    for file in (compiled_costs.FILE, measuring.FILE):
        assert "commit " in json.loads(file.read_text("utf-8"))["made"]
    assert set(compiled_costs.compiled_costs()) >= {f"classifier/gradient/{slots}" for slots in compiled_costs.SLOTS}


# -- the page -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_the_page_has_what_follows_from_the_constants(name: str) -> None:
    assert tables_of(PAGE.read_text("utf-8"))[name] == QUICK[name](), "python -m graftax.benchmarks.scale writes it anew"


def test_the_page_has_what_the_simulation_says_now() -> None:
    """One run of a hundred thousand adapters; the slow test beside this one has them all."""
    outcome = best(CHATS).outcome()
    (row,) = (row for row in tables_of(PAGE.read_text("utf-8"))["machines"].splitlines() if row.startswith("| chats | 1,000 |"))
    assert row.split(" | ")[2] == duration(outcome.trained)
    assert row.rstrip(" |").split(" | ")[-1] == duration(outcome.written)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_the_page_is_up_to_date(name: str) -> None:
    assert tables_of(PAGE.read_text("utf-8"))[name] == SIMULATED[name]()


PLACES = {"one": "old", "two": "kept"}


def test_tables_are_put_in_their_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "".join(f"words\n\n<!-- scale:{name} -->\n\n{kept}\n\n<!-- scale:end -->\n\n" for name, kept in PLACES.items())
    assert renewed(text, {"one": "| new |"}) == text.replace("old", "| new |")
    assert tables_of(text) == PLACES
    assert "has no place for three" in str(refused(lambda: renewed(text, {"three": ""})))
    assert set(tables_of(PAGE.read_text("utf-8"))) == {*QUICK, *SIMULATED}
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    monkeypatch.setattr(scale_page, "PAGE", page)
    monkeypatch.setattr(scale_page, "QUICK", {"one": lambda: "1"})
    monkeypatch.setattr(scale_page, "SIMULATED", {"two": lambda: "2"})
    from graftax.benchmarks.scale.__main__ import main

    assert main([]) == 0
    assert tables_of(page.read_text("utf-8")) == {"one": "1", "two": "2"}
