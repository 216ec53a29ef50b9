"""Loops: many adapters trained call by call, in one batch, each as if it were alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import METHODS, randomised
from conftest import DECODERS

from graftax import IA3, AdaLoRA, ALoRA, Bottleneck, DoRA, FacT, GraftaxError, Head, LoRA, Method, Prefix, PromptTuning
from graftax.adapters.adapter import Adapter, Layout, join
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.models.random import random_backbone
from graftax.tuning.loops import loops as engine
from graftax.tuning.loops.calls import Call, Datum, Outcome, Step
from graftax.tuning.loops.laid_calls import Placed, pieces
from graftax.tuning.loops.loops import Loops
from graftax.tuning.loops.room import trainable_of, with_trainable
from graftax.tuning.loops.token_losses import LOSSES

KINDS: dict[str, tuple[Method, ...]] = {
    "thin": (LoRA(r=2, alpha=3.0),),
    "wide": (LoRA(r=32, alpha=7.0, targets=("up_proj",)),),
    "dora": (DoRA(r=3, alpha=5.0, targets=("v_proj",)),),
    "ia3": (IA3(),),
    "bottleneck": (Bottleneck(),),
    "prefix": (Prefix(tokens=3),),
    "several": (LoRA(r=4, alpha=6.0), IA3()),
    "unembed": (LoRA(r=2, alpha=3.0, targets=("lm_head", "q_proj")),),
}


def nowhere_zero(adapter: Adapter, seed: int) -> Adapter:
    """The adapter with leaves that change something."""
    random = np.random.default_rng(seed)
    leaves = {
        name: leaf + 0.1 * random.normal(size=leaf.shape).astype(np.float32) for name, leaf in trainable_of(adapter).items()
    }
    return with_trainable(adapter, leaves)


def begun(loops: Loops, kinds: Mapping[str, Sequence[Method]]) -> dict[str, Adapter]:
    """A loop for each, whose adapters are nowhere zero, and these adapters."""
    for seed, (name, methods) in enumerate(kinds.items()):
        loops.create(name, methods, seed)
    adapters = {name: nowhere_zero(loops.adapter(name), seed) for seed, name in enumerate(kinds)}
    for name, adapter in adapters.items():
        loops.restore(name, adapter)
    return adapters


def datum(random: np.random.Generator, length: int, loss: str = "cross_entropy", **other: Any) -> Datum:
    tokens = random.integers(0, 97, length + 1)
    inputs: dict[str, Any] = {"target_tokens": tokens[1:], "weights": random.uniform(-0.5, 1.0, length)}
    if loss != "cross_entropy":
        drawn = {"logprobs": random.uniform(-6.0, -3.0, length), "advantages": random.normal(size=length)}
        inputs = {"target_tokens": tokens[1:], **drawn}
    return Datum(tokens[:-1], inputs | other)


def data(seed: int, lengths: Sequence[int], loss: str = "cross_entropy") -> list[Datum]:
    random = np.random.default_rng(seed)
    return [datum(random, length, loss) for length in lengths]


def padded(arrays: Sequence[Any]) -> np.ndarray:
    """Arrays of up to 48 numbers as up to 8 rows of as many: so that programs of the reference are few."""
    laid = np.zeros((8, 48), np.asarray(arrays[0]).dtype)
    for row, array in zip(laid, arrays, strict=False):
        row[: len(array)] = array
    return laid


def plain_loss(found: jax.Array, loss: str, read: Mapping[str, Any], counts: Any) -> jax.Array:
    """The formulas as Tinker's documentation has them, for automatic differentiation."""
    if loss == "cross_entropy":
        return -(found * read["weights"] * counts).sum()
    advantages = read["advantages"] * counts
    ratio = jnp.exp(found - read["logprobs"])
    clipped = jnp.clip(ratio, *((0.8, 1.2) if loss == "ppo" else (0.0, 4.0)))
    if loss == "importance_sampling":
        return -(ratio * advantages).sum()
    if loss == "ppo":
        return -jnp.minimum(ratio * advantages, clipped * advantages).sum()
    if loss == "cispo":
        return -(jax.lax.stop_gradient(clipped) * found * advantages).sum()
    return -(found * advantages - 0.5 * 0.05 * counts * (found - read["logprobs"]) ** 2).sum()


@cache
def reference(backbone: Backbone, layout: Layout) -> Any:
    """`reference(trainable, fixed, ids, targets, mask, slope) -> log-likelihoods, gradient`, of one adapter, by all logits."""

    @jax.jit
    def compute(trainable: Any, fixed: Any, ids: Any, targets: Any, mask: Any, slope: Any) -> Any:
        def found(trainable: Any) -> jax.Array:
            state = join(trainable, fixed)
            hidden = backbone.encode(backbone.params, state, TextInputs(ids, mask, jnp.zeros_like(ids))).hidden
            logits = backbone.next_token(backbone.params, state, hidden)
            return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]

        made, pull = jax.vjp(found, trainable)
        return made, pull(slope)[0]

    return compute


def alone(backbone: Backbone, adapter: Adapter, call: Call) -> tuple[list[np.ndarray], float, dict[str, np.ndarray]]:
    """Log-likelihoods, loss and gradient of one adapter by itself, a batch row per text."""
    layout = Layout.of([adapter], backbone.sites)
    stacked = layout.stack(adapter, backbone.sites)
    ids = padded([np.asarray(own.tokens, np.int32) for own in call.data])
    mask = padded([np.ones(len(own.tokens), bool) for own in call.data])
    mask[:, 0] = True  # so that a batch row that fills the batch up has something to attend to
    counts = np.float32(mask) * np.float32(np.arange(8) < len(call.data))[:, None]
    read = {name: padded([np.asarray(own.inputs[name], np.float32) for own in call.data]) for name in call.data[0].inputs}
    args = stacked.fixed, ids, np.int32(read["target_tokens"]), mask
    compute = reference(backbone, layout)
    found, _ = compute(stacked.trainable, *args, np.zeros_like(counts))
    loss, slope = jax.value_and_grad(plain_loss)(found, call.loss, read, counts)
    _, gradient = compute(stacked.trainable, *args, slope)
    states = layout.unstack(adapter, gradient, backbone.sites)
    rows = [np.asarray(row)[: len(own.tokens)] for row, own in zip(found, call.data, strict=False)]
    return rows, float(loss), trainable_of(Adapter(adapter.methods, states))


def near(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], within: float = 1e-5) -> None:
    """Every leaf within a share of its largest entry, or of 1 where that is less."""
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_allclose(found[name], leaf, rtol=0, atol=within * max(1.0, np.abs(leaf).max()), err_msg=name)


def llama_of(layers: int) -> Backbone:
    return random_backbone({**DECODERS["llama"], "num_hidden_layers": layers}, seed=7)


@pytest.fixture(scope="module")
def llama() -> Backbone:
    """Of one layer, for what has nothing to do with layers."""
    return llama_of(1)


def equal_alone(backbone: Backbone, loops: Loops, adapters: Mapping[str, Adapter], calls: Sequence[Call]) -> None:
    """The outcomes of calls, and the gradients of their loops, are those of each adapter alone."""
    for call, outcome in zip(calls, loops.forward_backward(calls), strict=True):
        logprobs, loss, gradient = alone(backbone, adapters[call.loop], call)
        assert outcome.error is None
        for own, wanted in zip(outcome.logprobs, logprobs, strict=True):
            assert own.dtype == np.float32
            np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-5)
        np.testing.assert_allclose(outcome.loss, loss, rtol=1e-5, atol=1e-5)
        tokens = sum(len(datum.tokens) for datum in call.data)
        seconds = outcome.cost.seconds
        assert outcome.metrics == {"loss:sum": outcome.loss, "tokens:sum": tokens, "device_seconds:sum": seconds}
        assert seconds > 0
        near(loops.kept(call.loop).gradient, gradient)


@pytest.mark.parametrize(
    "kinds", [pytest.param([*KINDS][:5], id="five"), pytest.param([*KINDS], id="all", marks=pytest.mark.slow)]
)
def test_every_kind_and_loss_in_one_batch_equals_each_alone(kinds: list[str]) -> None:
    """Methods, ranks, targets, losses and numbers of texts differ; each loop's numbers are those that it has alone."""
    llama = llama_of(2)
    loops = Loops(llama)
    adapters = begun(loops, {name: KINDS[name] for name in kinds})
    lengths = [[5, 17, 30], [11], [8, 3], [21, 4, 9, 2], [7], [13, 6], [12], [10, 5]]
    losses = [*LOSSES, *LOSSES]
    calls = [Call(name, data(seed, lengths[seed], losses[seed]), losses[seed]) for seed, name in enumerate(kinds)]
    equal_alone(llama, loops, adapters, calls)


#: Of `cases.METHODS`: what no decoder has a site for, or a loop refuses, or trains nothing.
NOT_HERE = {
    "probe",
    "together",
    "prompt-post",
    "adalora",
    "adabn",
    "vpt",
    "vpt-shallow",
    "repadapter-4",
    "convpass",
    "invertible",
    "mad_x",
    "bitfit",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name not in NOT_HERE])
def test_every_method_beside_another(name: str) -> None:
    """Its gradient, in a batch with a LoRA's, is that which it has alone; and so is the LoRA's."""
    llama = llama_of(2)
    loops = Loops(llama)
    loops.create("a", METHODS[name])
    loops.create("b", [LoRA(r=2)])
    adapters = {loop: randomised(loops.adapter(loop), size=0.1) for loop in loops.names}
    for loop, adapter in adapters.items():
        loops.restore(loop, adapter)
    own = data(1, [9, 20])
    for method in METHODS[name]:
        if isinstance(method, ALoRA):  # which does nothing where it was not called
            own[1].tokens[7 : 7 + len(method.invocation)] = method.invocation
    equal_alone(llama, loops, adapters, [Call("a", own), Call("b", data(2, [12], "ppo"), "ppo")])
    before = trainable_of(adapters["a"])
    assert loops.optim_step([Step("a", learning_rate=1e-3)])[0].error is None
    after = trainable_of(loops.adapter("a"))
    assert any(not np.array_equal(after[leaf], before[leaf]) for leaf in before)
    for method in adapters["a"].methods:  # what is one for all sites stays one
        for leaf in method.shared:
            found = [own[leaf] for own, _ in loops.adapter("a").states[method.key].values() if leaf in own]
            assert len({array.tobytes() for array in found}) == len({array.shape for array in found})


def test_prompts_beside_others(llama: Backbone) -> None:
    """Where a method puts tokens in front of texts, every text has a batch row of its own; so it has in the other loops."""
    loops = Loops(llama)
    adapters = begun(loops, {"p": [PromptTuning(tokens=2)], "l": [LoRA(r=2)]})
    calls = [Call("p", data(1, [4, 9])), Call("l", data(2, [9, 3, 7], "ppo"), "ppo")]
    equal_alone(llama, loops, adapters, calls)


def test_a_supervised_loop_is_a_local_one_with_optax(llama: Backbone) -> None:
    """Five steps whose settings differ, with another loop beside it, against optax's AdamW on the same adapter alone."""
    loops = Loops(llama)
    adapter = begun(loops, {"mine": [LoRA(r=3, alpha=5.0)], "other": [IA3()]})["mine"]
    layout = Layout.of([adapter], llama.sites)
    stacked = jax.tree.map(jnp.asarray, layout.stack(adapter, llama.sites))
    trainable = stacked.trainable
    steps = [{"learning_rate": 0.01 / (1 + k), "weight_decay": 0.1 * k, "grad_clip_norm": [0.0, 0.5][k % 2]} for k in range(5)]
    means = optax.scale_by_adam(0.9, 0.95, 1e-12).init(trainable)

    for k, settings in enumerate(steps):
        own = Call("mine", data(10 + k, [12, 7, 30]))
        states = layout.unstack(adapter, trainable, llama.sites)
        _, loss, by_leaf = alone(llama, Adapter(adapter.methods, states), own)
        gradient = layout.stack(with_trainable(adapter, by_leaf), llama.sites).trainable
        norm = float(optax.tree.norm(gradient))
        outcome, _ = loops.forward_backward([own, Call("other", data(k, [6]))])
        np.testing.assert_allclose(outcome.loss, loss, rtol=1e-5)
        stepped, _ = loops.optim_step([Step("mine", **settings), Step("other")])
        np.testing.assert_allclose(stepped.gradient_norm, norm, rtol=1e-4)
        assert (stepped.calls, stepped.error) == (1, None)
        if settings["grad_clip_norm"]:
            gradient = jax.tree.map(lambda g, shrunk=min(1.0, 0.5 / norm): g * shrunk, gradient)
        with jax.numpy_dtype_promotion("standard"):
            updates, means = optax.scale_by_adam(0.9, 0.95, 1e-12).update(gradient, means)
        rate, decay = settings["learning_rate"], settings["weight_decay"]
        trainable = jax.tree.map(lambda p, u, lr=rate, wd=decay: p - lr * (u + wd * p), trainable, updates)
    wanted = trainable_of(Adapter(adapter.methods, layout.unstack(adapter, trainable, llama.sites)))
    near(trainable_of(loops.adapter("mine")), wanted, within=1e-4)


def bits(loops: Loops, name: str) -> dict[str, bytes]:
    kept = loops.kept(name)
    trees = {"leaf": trainable_of(kept.adapter), "gradient": kept.gradient, "first": kept.first, "second": kept.second}
    return {f"{what} {leaf}": array.tobytes() for what, tree in trees.items() for leaf, array in tree.items()}


def test_gradients_add_up(llama: Backbone) -> None:
    """Two calls, one after the other or at once, are one call of all their data; behind a step the gradient is zero."""
    loops = Loops(llama)
    adapter = nowhere_zero(Adapter.create([LoRA(r=2)], llama.sites), 1)
    for name in ("twice", "at once", "whole"):
        loops.create(name, [LoRA(r=2)])
        loops.restore(name, adapter)
    halves = data(1, [5, 9]), data(2, [14])
    for half in halves:
        loops.forward_backward([Call("twice", half)])
    outcomes = loops.forward_backward([Call("at once", half) for half in halves])
    (whole,) = loops.forward_backward([Call("whole", [*halves[0], *halves[1]])])
    np.testing.assert_allclose(sum(outcome.loss for outcome in outcomes), whole.loss, rtol=1e-5)
    for name in ("twice", "at once"):
        near(loops.kept(name).gradient, loops.kept("whole").gradient)
    assert [outcome.calls for outcome in loops.optim_step([Step("twice"), Step("whole")])] == [2, 1]
    assert all(not gradient.any() for gradient in loops.kept("twice").gradient.values())
    near(trainable_of(loops.adapter("twice")), trainable_of(loops.adapter("whole")))
    before = bits(loops, "twice")
    assert [outcome.calls for outcome in loops.optim_step([Step("twice", weight_decay=1.0)])] == [0]
    assert bits(loops, "twice") == before
    assert loops.moments("twice").steps == 1


def test_what_is_not_finite_touches_nobody_else(llama: Backbone) -> None:
    """NaN weights, an infinite advantage and a gradient that overflows under a finite loss, in one batch with a sound call."""
    loops = Loops(llama)
    adapters = begun(loops, {name: [LoRA(r=2)] for name in ("sick", "wild", "large", "sound")})
    steep = {name: leaf * (1e32 if name.endswith("/a") else 0.0) for name, leaf in trainable_of(adapters["large"]).items()}
    loops.restore("large", with_trainable(adapters["large"], steep))
    room = loops._room
    assert room is not None
    poisoned = jax.tree.map(lambda leaf: leaf.at[loops._loops["sick"].slot].set(jnp.nan), room.trainable)
    loops._room = room._replace(trainable=poisoned)
    loops.forward_backward([Call(name, data(4, [30, 3])) for name in ("wild", "large", "sound")])
    before = {name: bits(loops, name) for name in adapters}
    endless = datum(np.random.default_rng(0), 6, "ppo", advantages=np.array([0, 0, np.inf, 0, 0, 0]))
    heavy = datum(np.random.default_rng(0), 6, weights=np.full(6, 1e10))
    mine = data(8, [4, 5, 6])
    calls = [Call("sick", data(5, [3, 30])), Call("wild", [endless], "ppo"), Call("large", [heavy]), Call("sound", mine)]
    *bad, good = loops.forward_backward([*calls])
    for outcome, name, what in zip(bad, adapters, ("loss", "loss", "gradient"), strict=False):
        added = "nothing was added to the gradient, and the loop is what it was"
        assert outcome.error == f"{name}: the {what} is not finite; {added}."
        assert bits(loops, name) == before[name]
    logprobs, _, gradient = alone(llama, adapters["sound"], Call("sound", [*data(4, [30, 3]), *mine]))
    assert good.error is None
    np.testing.assert_allclose(good.logprobs[0], logprobs[2], rtol=0, atol=1e-5)
    near(loops.kept("sound").gradient, gradient)
    assert loops.optim_step([Step("sick"), Step("sound", learning_rate=0.1)])[0].calls == 0
    *_, again = loops.forward_backward([*calls[:3], Call("wild", data(3, [4]))])
    assert again.error is None  # one of its sound calls, beside one that is not


def test_a_step_that_is_not_finite_moves_nothing(llama: Backbone) -> None:
    loops = Loops(llama)
    begun(loops, {name: [LoRA(r=2)] for name in ("fast", "slow")})
    for name in ("fast", "slow"):
        loops.forward_backward([Call(name, data(1, [5]))])
    before = trainable_of(loops.adapter("fast"))
    fast, slow, again = loops.optim_step([Step("fast", learning_rate=3e38, weight_decay=1e3), Step("slow"), Step("slow")])
    assert "not finite" in str(fast.error)
    assert "two steps" in str(again.error)
    assert slow.error is None
    assert all(np.array_equal(leaf, before[name]) for name, leaf in trainable_of(loops.adapter("fast")).items())
    assert loops.moments("fast").steps == 0
    assert not np.array_equal(trainable_of(loops.adapter("slow"))["lora/layers.query.0/b"], before["lora/layers.query.0/b"])


def test_moments_go_out_and_in(llama: Backbone) -> None:
    """A loop that is saved and restored under another name, beside others that make the room grow, goes on to the same bits."""
    loops = Loops(llama)
    begun(loops, {"old": [LoRA(r=3)], "new": [LoRA(r=3)]})
    loops.create("beside", [LoRA(r=20)])

    def round_of(names: Sequence[str], k: int) -> None:
        for name in names:
            loops.forward_backward([Call(name, data(k, [7, 4]))])
            loops.optim_step([Step(name, learning_rate=0.01)])

    round_of(["old"], 1)
    loops.restore("new", loops.adapter("old"), loops.moments("old"))
    assert bits(loops, "new") == bits(loops, "old")
    round_of(["old", "new"], 2)
    before = bits(loops, "old")
    assert bits(loops, "new") == before
    assert loops.moments("new").steps == 2
    for k in range(8):  # the room grows, and so does what lies in it
        loops.create(f"further {k}", [LoRA(r=33, targets=("up_proj",))])
    assert (bits(loops, "new"), bits(loops, "old")) == (before, before)
    loops.restore("new", loops.adapter("old"))
    assert loops.moments("new").steps == 0
    assert not any(mean.any() for mean in loops.moments("new").first.values())


def test_a_second_round_compiles_nothing(llama: Backbone) -> None:
    """Sixteen loops of mixed methods and ranks, calls of other lengths and losses; and every program is called in a turn."""
    turns = list[str]()

    @contextmanager
    def turn() -> Iterator[None]:
        turns.append("in")
        before = loops.compilations
        yield
        assert loops.compilations == before  # within a turn nothing is compiled

    loops = Loops(llama, turn)
    for k in range(16):
        loops.create(f"loop {k}", [[LoRA(r=2 + k)], [LoRA(r=1 + k, targets=("up_proj",))], [IA3()]][k % 3], seed=k)

    def go(seed: int) -> None:
        losses = [*LOSSES]
        lengths = [[3 + (seed * k) % 9, 11, 20][: 1 + k % 3] for k in range(16)]
        calls = [Call(f"loop {k}", data(k, own, losses[k % 5]), losses[k % 5]) for k, own in enumerate(lengths)]
        assert all(outcome.error is None for outcome in loops.forward_backward(calls))
        steps = [Step(f"loop {k}", learning_rate=1e-3 * (k + seed)) for k in range(16)]
        assert all(outcome.error is None for outcome in loops.optim_step(steps))

    go(1)
    count, loops_turns = loops.compilations, len(turns)
    go(2)
    assert loops.compilations == count
    assert len(turns) - loops_turns == 4  # take, one piece, commit, step


def test_fewer_calls_use_the_programs_of_more(llama: Backbone) -> None:
    """What waits together is chance: two calls that make batch rows as four did compile nothing; and come to the same."""
    loops, alone = Loops(llama), Loops(llama)
    for k in range(4):
        for each in (loops, alone):
            each.create(f"loop {k}", [LoRA(r=2)], seed=k)
    calls = [Call(f"loop {k}", data(k, [40, 45])) for k in range(4)]  # a batch row for each text

    def go(loops: Loops, calls: list[Call]) -> list[Outcome]:
        found = loops.forward_backward(calls)
        assert all(outcome.error is None for outcome in found)
        assert all(step.error is None for step in loops.optim_step([Step(call.loop) for call in calls]))
        return found

    go(loops, calls)
    count = loops.compilations
    found = go(loops, [Call(call.loop, [*call.data, *call.data]) for call in calls[2:]])  # two calls of four batch rows each
    assert loops.compilations == count
    go(alone, calls[2:])
    wanted = go(alone, [Call(call.loop, [*call.data, *call.data]) for call in calls[2:]])
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)


def test_long_calls_are_cut_into_pieces(llama: Backbone) -> None:
    """A call is the same in pieces of 64 tokens as in one; a fault in its last piece takes back all of it."""
    whole, cut = Loops(llama), Loops(llama, most_tokens=64)
    own = data(1, [30, 40, 20, 45, 31])
    for loops in (whole, cut):
        begun(loops, {"a": [LoRA(r=2)]})
    (one,), (other,) = (loops.forward_backward([Call("a", own)]) for loops in (whole, cut))
    np.testing.assert_allclose(other.loss, one.loss, rtol=1e-5)
    for logprobs, wanted in zip(other.logprobs, one.logprobs, strict=True):
        np.testing.assert_allclose(logprobs, wanted, rtol=0, atol=1e-5)
    near(cut.kept("a").gradient, whole.kept("a").gradient)
    before = bits(cut, "a")
    (failed,) = cut.forward_backward([Call("a", [*own, datum(np.random.default_rng(0), 6, weights=np.full(6, np.nan))])])
    assert "not finite" in str(failed.error)
    assert bits(cut, "a") == before


def test_what_sites_share_stays_one(llama: Backbone) -> None:
    """FacT's factors, whose gradient is the sum over all sites, and counts once in the norm."""
    loops = Loops(llama)
    adapters = {"a": randomised(Adapter.create([FacT(r=2)], llama.sites, task="lm"), size=0.1)}
    loops.create("a", [FacT(r=2)])
    loops.restore("a", adapters["a"])
    call = Call("a", data(1, [9, 20]))
    loops.forward_backward([call])
    by_leaf: dict[str, np.ndarray] = {}
    for name, gradient in alone(llama, adapters["a"], call)[2].items():
        leaf = name.rsplit("/", 1)[1]
        key = f"{leaf} {gradient.shape}" if leaf in FacT.shared else name
        by_leaf[key] = by_leaf.get(key, 0.0) + gradient
    (stepped,) = loops.optim_step([Step("a")])
    np.testing.assert_allclose(stepped.gradient_norm, np.sqrt(sum((g**2).sum() for g in by_leaf.values())), rtol=1e-4)
    found: dict[str, set[bytes]] = {}
    for name, leaf in trainable_of(loops.adapter("a")).items():
        found.setdefault(f"{name.rsplit('/', 1)[1]} {leaf.shape}", set()).add(leaf.tobytes())
    assert {len(copies) for leaf, copies in found.items() if leaf.split()[0] in FacT.shared} == {1}


def test_where_data_lie() -> None:
    """The example of `laid_calls.py`; many batch rows in pieces that are nearly full; and a batch row for every text."""
    found = pieces([[20, 30], [50], [200]], limit=256, most_tokens=1024, shared=True)
    assert [(piece.rows, piece.length) for piece in found] == [(1, 256), (2, 64)]
    assert [*found[1].placed] == [Placed(0, 0, 0, 30), Placed(0, 1, 0, 0), Placed(1, 0, 1, 0)]
    many = pieces([[60] * 21], limit=256, most_tokens=512, shared=True)
    assert [piece.rows for piece in many] == [8, 8, 4, 1]
    assert [place.datum for piece in many for place in piece.placed] == [*range(21)]
    assert [piece.rows for piece in pieces([[60] * 7], limit=256, most_tokens=512, shared=True)] == [8]
    apart = pieces([[5, 3], [4]], limit=256, most_tokens=1024, shared=False)
    assert [(piece.rows, piece.length, len(piece.placed)) for piece in apart] == [(4, 8, 3)]


def test_a_loop_too_large_for_the_machine_is_refused(llama: Backbone) -> None:
    """It would grow the room of all; those that are there go on, and a smaller one still fits."""
    loops = Loops(llama, most_bytes=4_000_000, max_lora_rank=2000)
    loops.create("a", [LoRA(r=2)], seed=1)
    before = bits(loops, "a")
    with pytest.raises(GraftaxError, match=r"^b: with it all loops would take [0-9,]+ bytes, and they may have 4,000,000; "):
        loops.create("b", [LoRA(r=2000)])
    with pytest.raises(GraftaxError, match=r"^b: lora at .*: rank 2001 is greater than max_lora_rank 2000"):
        loops.create("b", [LoRA(r=2001)])
    assert loops.names == ("a",)
    assert bits(loops, "a") == before
    loops.create("b", [LoRA(r=2)], seed=2)
    assert [outcome.error for outcome in loops.forward_backward([Call("a", data(0, [5])), Call("b", data(1, [5]))])] == [
        None
    ] * 2


def test_large_adapters_take_turns(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the leaves of three loops are more than may be copied at once, two calls are computed together, and then one."""
    loops = Loops(llama)
    begun(loops, {name: [LoRA(r=2)] for name in "abc"})
    calls = [Call(name, data(1, [9])) for name in "abc"]
    kept = loops.kept("a").adapter
    monkeypatch.setattr(engine, "_MOST_BYTES", 3 * 4 * 4 * kept.parameters)  # a rank of 2 lies in a bucket of 8
    sizes = list[int]()
    run = loops._run
    monkeypatch.setattr(loops, "_run", lambda program, *args: (sizes.append(args[0]), run(program, *args))[1])
    outcomes = loops.forward_backward(calls)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert [size[0] for size in sizes] == [2, 2, 2, 1, 1, 1]  # take, a piece, commit
    assert {name: any(leaf.any() for leaf in loops.kept(name).gradient.values()) for name in "abc"} == dict.fromkeys(
        "abc", True
    )


def test_forward_alone_leaves_the_loop_as_it_is(llama: Backbone) -> None:
    loops = Loops(llama)
    begun(loops, {"a": [LoRA(r=2)]})
    own = data(1, [9, 4])
    before = bits(loops, "a")
    only, both = loops.forward_backward([Call("a", own, forward_only=True), Call("a", own)])
    np.testing.assert_allclose(only.loss, both.loss, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(only.logprobs), np.concatenate(both.logprobs), rtol=0, atol=1e-5)
    assert bits(loops, "a") != before
    loops.optim_step([Step("a")])
    before = bits(loops, "a")
    assert loops.forward_backward([Call("a", own, forward_only=True)])[0].error is None
    assert loops.optim_step([Step("a")])[0].calls == 0
    assert bits(loops, "a") == before


REFUSED: dict[str, tuple[Any, str]] = {
    "no loss": (Call("a", data(1, [3]), "gspo"), "a: there is no loss 'gspo'; there are cross_entropy, "),
    "no loop": (Call("b", data(1, [3])), "there is no loop 'b'; there are a."),
    "no data": (Call("a", []), "a: a call without data."),
    "no tokens": (
        Call("a", [Datum([], {"target_tokens": []})]),
        "a: datum 0: it has 0 tokens, and this backbone takes",
    ),
    "too many": (Call("a", data(1, [3, 49])), "a: datum 1: it has 49 tokens, and this backbone takes 1 to 48 here."),
    "no token": (Call("a", [Datum([97], {"target_tokens": [1]})]), "a: datum 0: tokens: 97 is no token; there are 97, from 0."),
    "negative": (Call("a", [Datum([1], {"target_tokens": [-1]})]), "a: datum 0: target_tokens: -1 is no token"),
    "no whole": (Call("a", [Datum([1.5], {"target_tokens": [1]})]), "a: datum 0: tokens must be whole numbers, one for each"),
    "ragged": (Call("a", [Datum([1, [2]], {"target_tokens": [1]})]), "a: datum 0: tokens must be whole numbers, one for each"),
    "of several": (Call("a", [Datum([1], {"target_tokens": [[1, 2]]})]), "got int64 of shape (1, 2)."),
    "fewer": (Call("a", [Datum([1, 2], {"target_tokens": [1]})]), "a: datum 0: 1 target_tokens for 2 tokens."),
    "words": (Call("a", [Datum([1], {"target_tokens": [1], "weights": ["x"]})]), "a: datum 0: weights must be numbers"),
    "missing": (Call("a", data(1, [3]), "ppo"), "a: datum 0: it is without advantages, logprobs; ppo reads advantages, "),
    "unknown": (Call("a", data(1, [3], "dro")), "a: datum 0: it has advantages, logprobs; cross_entropy reads target_tokens, "),
    "setting": (Call("a", data(1, [3]), settings={"beta": 1.0}), "a: cross_entropy has no setting beta; it has none."),
    "no number": (Call("a", data(1, [3], "dro"), "dro", {"beta": float("nan")}), "a: beta must be a finite number, at least 0"),
    "crossed": (
        Call("a", data(1, [3], "ppo"), "ppo", {"clip_low_threshold": 1.3}),
        "clip_low_threshold 1.3 is above",
    ),
}


def test_calls_that_do_not_fit_are_refused_in_a_line(llama: Backbone) -> None:
    """Each by `check` and in its own outcome, beside a call that is computed."""
    loops = Loops(llama)
    begun(loops, {"a": [LoRA(r=2)]})
    for call, line in REFUSED.values():
        with pytest.raises(GraftaxError) as refused:
            loops.check(call)
        assert line in str(refused.value)
    *outcomes, sound = loops.forward_backward([*(call for call, _ in REFUSED.values()), Call("a", data(1, [3]))])
    for outcome, (_, line) in zip(outcomes, REFUSED.values(), strict=True):
        assert line in str(outcome.error)
    assert sound.error is None
    assert loops.optim_step([Step("b"), Step("a")])[1].calls == 1


@pytest.mark.parametrize(
    ("methods", "line"),
    [
        ([LoRA(dropout=0.1)], "lora: dropout 0.1: the calls of a loop drop nothing; it must be 0."),
        ([Head(labels=2)], "head: a loop says tokens, and its adapter has no head."),
        ([AdaLoRA()], "adalora: its schedule needs the number of all steps, which nobody knows of a loop."),
        ([LoRA(start="pissa")], "is saved as another in training, and cannot be trained call by call."),
        ([LoRA(), LoRA()], "an adapter may hold a method once"),
    ],
)
def test_methods_that_cannot_be_trained_so_are_refused(llama: Backbone, methods: list[Method], line: str) -> None:
    loops = Loops(llama)
    with pytest.raises(GraftaxError, match=re.escape(line)):
        loops.create("a", methods)
    assert loops.names == ()


def test_what_is_restored_must_be_a_loops(llama: Backbone) -> None:
    loops = Loops(llama)
    begun(loops, {"a": [LoRA(r=2)], "thicker": [LoRA(r=3)], "other": [IA3()], "louder": [LoRA(r=2, alpha=3.0)]})
    before = bits(loops, "a")
    for name, line in {
        "thicker": "a: an adapter of another loop: lora/layers.query.0/a is (3, 32) there, and (2, 32) here.",
        "other": "a: an adapter of ia3, and the loop has lora.",
        "louder": "a: an adapter that is set otherwise: scale of lora at model.layers.0.self_attn.q_proj.",
    }.items():
        with pytest.raises(GraftaxError, match=re.escape(line)):
            loops.restore("a", loops.adapter(name))
    with pytest.raises(GraftaxError, match="a: moments of another loop"):
        loops.restore("a", loops.adapter("a"), loops.moments("other"))
    with pytest.raises(GraftaxError, match="there is a loop 'a' already"):
        loops.create("a", [LoRA()])
    assert bits(loops, "a") == before
    for name in loops.names:
        loops.forget(name)
    with pytest.raises(GraftaxError, match="there is no loop 'a'; there are none"):
        loops.adapter("a")
    loops.create("a", [LoRA(r=2)])
    assert loops.adapter("a").task == "lm"
