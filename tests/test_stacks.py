"""Backbones of several stacks: one behind another, of unlike widths and depths, with modules below, between and above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from graftax import Adapter, Full, GraftaxError, LoRA
from graftax.adapters.adapter import Layout
from graftax.adapters.files import load_adapter, save_adapter
from graftax.adapters.graft import Grafts, SiteCalls
from graftax.adapters.methods.head import POOLED
from graftax.adapters.structure import Cut
from graftax.models.backbone import Backbone
from graftax.models.backbone_config import Config
from graftax.models.family import Family, TaskHead
from graftax.models.inputs import Outputs, TextInputs
from graftax.models.layers import Arrays, Linear
from graftax.models.load import stack_weights, unstack_weights
from graftax.models.network import Network
from graftax.models.parts import Layers, Part, in_stack
from graftax.models.stack import Chain, Stack

WIDTHS, DEPTHS = (6, 8), (3, 2)


@dataclass(frozen=True)
class PyramidConfig(Config):
    """Two stages of residual layers over a vector of numbers."""

    hidden_size: int = WIDTHS[1]


class Layer(nnx.Module):
    """h + tanh(W h)."""

    def __init__(self, arrays: Arrays, stack: str):
        self.stack, self.mix = stack, Linear(arrays, f"{stack}.mix")

    def __call__(self, h: jax.Array, view: None, calls: SiteCalls, pooled: bool = False) -> jax.Array:
        return h + jnp.tanh(calls.linear(f"{self.stack}.mix", h, self.mix))


class Pyramid(Chain):
    """A projection before each stage, and one behind them that no head reads around."""

    def __init__(self, config: PyramidConfig, arrays: Arrays):
        self.low = Stack("low.layers", Layer(arrays, "low.layers"), DEPTHS[0])
        self.high = Stack("high.layers", Layer(arrays, "high.layers"), DEPTHS[1])
        self.widen, self.between, self.last = (Linear(arrays, name) for name in ("widen", "between", "last"))

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return self.low, self.high

    def enter(self, stack: int, h: Any, calls: SiteCalls) -> jax.Array:
        return calls.linear("between", h, self.between) if stack else calls.linear("widen", h.ids, self.widen)

    def __call__(self, inputs: TextInputs, grafts: Grafts, *, pooled: bool = False, layers: Any = None) -> Outputs:
        h, _ = self.through(inputs, grafts, layers)
        h = grafts.outside().linear("last", h, self.last)
        return Outputs(h, h, h)


def parts(config: PyramidConfig) -> tuple[Part, ...]:
    low, high = WIDTHS
    return (
        Part("linear", "widen", "stem", (4, low)),
        *in_stack("low.layers", [Part("linear", "mix", "fc", (low, low))]),
        Part("linear", "between", "down", (low, high), above="low.layers", axes=(0, 1)),
        *in_stack("high.layers", [Part("linear", "mix", "fc", (high, high))]),
        Part("linear", "last", "last", (high, high), above="high.layers"),
    )


def stacks(config: PyramidConfig) -> tuple[Layers, ...]:
    return (
        Layers("low.layers", DEPTHS[0], "stages.0.{}".format, WIDTHS[0]),
        Layers("high.layers", DEPTHS[1], "stages.1.{}".format, WIDTHS[1]),
    )


PYRAMID = Family(
    model_types=("pyramid",),
    summary="two stages",
    prefix="pyramid",
    keys={},
    parts=parts,
    stacks=stacks,
    head=TaskHead("pooled", "none", ("classifier",), sites=(POOLED,)),
    config=PyramidConfig,
    module=Pyramid,
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """A checkpoint's."""
    random = np.random.default_rng(0)
    weights = [w for part in parts(PyramidConfig()) for w in part.weights(PYRAMID.layer_paths(PyramidConfig()))]
    return {w.key: 0.5 * random.standard_normal(w.stored_shape, np.float32) for w in weights}


@pytest.fixture(scope="module")
def backbone(tensors: dict[str, np.ndarray]) -> Backbone:
    arrays, fingerprint = stack_weights(PYRAMID, PyramidConfig(), tensors, "float32")
    return Backbone.build(PYRAMID, PyramidConfig(), arrays, fingerprint=fingerprint, name="pyramid")


@pytest.fixture(scope="module")
def inputs() -> TextInputs:
    return TextInputs(np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32), np.ones((5, 1), bool), None)


def adapter_at(backbone: Backbone, targets: str, seed: int = 0) -> Adapter:
    """A LoRA that changes something, and a head."""
    methods = LoRA(r=2, targets=targets), backbone.head(3)
    known = {"labels": ("a", "b", "c"), "fingerprint": backbone.fingerprint}
    made = Adapter.create(methods, backbone.sites, seed, None, **known)
    random = np.random.default_rng(seed)
    for trainable, _ in (parts for states in made.states.values() for parts in states.values()):
        for name, leaf in trainable.items():
            trainable[name] = 0.3 * random.standard_normal(np.shape(leaf)).astype(np.float32)
    return made


def reference(tensors: dict[str, np.ndarray], adapter: Adapter | None, x: np.ndarray) -> np.ndarray:
    """What the head says, or without an adapter what leaves the backbone; in NumPy."""
    changes = {}
    for states in adapter.states.values() if adapter else ():
        for site, (leaves, fixed) in states.items():
            if site.kind == "linear":
                changes[site.path] = fixed["scale"] * leaves["a"].T @ leaves["b"]

    def linear(path: str, x: np.ndarray, axes: Sequence[int] = (1, 0)) -> np.ndarray:
        kernel = tensors[f"{path}.weight"].transpose(axes) + changes.get(f"pyramid.{path}", 0.0)
        return x @ kernel + tensors[f"{path}.bias"]

    h = linear("stem", x)
    for i in range(DEPTHS[0]):
        h = h + np.tanh(linear(f"stages.0.{i}.fc", h))
    h = linear("down", h, (0, 1))
    for i in range(DEPTHS[1]):
        h = h + np.tanh(linear(f"stages.1.{i}.fc", h))
    h = linear("last", h)
    if adapter is None:
        return h
    ((leaves, _),) = adapter.states["head:none"].values()
    return h @ leaves["kernel"].T + leaves["bias"]


def said(backbone: Backbone, layout: Layout, adapter: Adapter, inputs: TextInputs, **options: Any) -> np.ndarray:
    state = layout.stack(adapter, backbone.sites).state
    found = jax.jit(lambda *a: backbone.forward(*a, **options).pooled)(backbone.params, state, inputs)
    return np.asarray(found)[:, :3]


#: targets -> depth by stack, and where what they change begins
CASES = {
    r".*stages\.1\.1\.fc": ((0, 1), Cut("high.layers", 1, top=False)),
    r".*stages\.1\.\d\.fc": ((0, 2), Cut("high.layers", 0, top=False)),
    r".*stages\.0\.2\.fc": ((1, 0), Cut("low.layers", 2, top=False)),
    r".*(stages\.0\.1|stages\.1\.1)\.fc": ((2, 1), Cut("low.layers", 1, top=False)),
    r".*down": ((0, 0), Cut("low.layers", 3, top=False)),
    r".*last": ((0, 0), Cut("high.layers", 2, top=True)),
    r".*stem": ((3, 2), Cut("low.layers", 0, top=False)),
}


@pytest.mark.parametrize("targets", CASES)
def test_an_adapter_anywhere(targets: str, backbone: Backbone, tensors: dict[str, np.ndarray], inputs: TextInputs) -> None:
    """It says what NumPy says, in a loop and unrolled, and from features kept below it; the layout has a depth by stack."""
    adapter = adapter_at(backbone, targets)
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    depths, cut = CASES[targets]
    assert layout.depths == (("low.layers", depths[0]), ("high.layers", depths[1]))
    assert layout.cut(backbone.structure) == cut
    wanted = reference(tensors, adapter, inputs.ids)
    np.testing.assert_allclose(said(backbone, layout, adapter, inputs), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said(backbone, layout, adapter, inputs, layers=backbone.layers), wanted, rtol=1e-5, atol=1e-5)
    kept = backbone.has_frozen_layers(cut)
    assert kept == (cut != ("low.layers", 0, False))
    if kept:
        hidden = np.asarray(backbone.frozen(backbone.params, inputs, cut, pooled=True))
        assert hidden.shape == (5, WIDTHS[cut.stack == "high.layers"])
        known = TextInputs(np.full_like(inputs.ids, np.nan), inputs.mask, None, hidden=hidden)
        np.testing.assert_allclose(said(backbone, layout, adapter, known), wanted, rtol=1e-5, atol=1e-5)


def test_it_trains_in_the_second_stack_alone(backbone: Backbone, inputs: TextInputs) -> None:
    """A packed step moves the adapter's leaves and computes no gradient of a layer below the cut."""
    from graftax.tasks.task_registry import task_named
    from graftax.train.optimizer import rates
    from graftax.train.recipe import Recipe
    from graftax.train.step import Batch, Programs, hyper, start

    adapter = adapter_at(backbone, r".*stages\.1\.1\.fc")
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    stacked = layout.stack(adapter, backbone.sites)
    slot = start(stacked, rates(Recipe(), stacked, backbone.sites, 1), hyper(Recipe(lr=0.05, warmup=0.0), 20, 3), "adamw")
    batch = Batch(inputs, np.arange(5, dtype=np.int32) % 3, np.ones(5, np.float32), np.bool_(True))
    pack, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (slot, batch))
    programs = Programs(backbone, task_named("classify"), slots=1)
    losses = []
    for _ in range(8):
        loss, grads = programs.gradient(backbone.params, backbone.unrolled, pack, batch)
        losses.append(float(loss[0]))
        pack = programs.update(pack, loss, grads, batch.live)
    assert losses[-1] < 0.8 * losses[0]
    after = layout.unstack(adapter, jax.device_get(jax.tree.map(lambda leaf: leaf[0], pack.trainable)), backbone.sites)
    for states in after.values():
        for site, (leaves, _) in states.items():
            before = adapter.states[next(key for key in after if site in after[key])][site][0]
            assert all((leaves[leaf] != before[leaf]).any() for leaf in leaves), site.path


def test_a_bank_and_files(backbone: Backbone, tensors: dict[str, np.ndarray], inputs: TextInputs, tmp_path: Path) -> None:
    """Adapters of unlike depths lie in one bank, a row each; each comes back from its file as it was."""
    from graftax.serve.bank import Bank

    bank = Bank(backbone)
    adapters = [adapter_at(backbone, targets, seed) for seed, targets in enumerate(CASES)]
    for n, adapter in enumerate(adapters):
        save_adapter(adapter, tmp_path / str(n), backbone)
        bank.add(str(n), load_adapter(tmp_path / str(n), backbone))
    rows = np.array([6, 1, 4, 2, 5], np.int32)
    found = jax.jit(backbone.forward)(backbone.params, bank.state, inputs, rows + 1).pooled
    assert found is not None
    wanted = [reference(tensors, adapters[n], inputs.ids[i : i + 1])[0] for i, n in enumerate(rows)]
    np.testing.assert_allclose(found[:, :3], wanted, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_goes_both_ways(backbone: Backbone, tensors: dict[str, np.ndarray]) -> None:
    """`between` is stored as [in, out], the others as [out, in]."""
    again = unstack_weights(backbone, backbone.arrays())
    assert again.keys() == {f"pyramid.{key}" for key in tensors}
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(again[f"pyramid.{key}"], tensor)
    with pytest.raises(GraftaxError, match=r"down\.weight has shape \(8, 6\), config\.json implies \(6, 8\)"):
        stack_weights(PYRAMID, PyramidConfig(), {**tensors, "down.weight": tensors["down.weight"].T}, "float32")


def test_what_a_site_says_of_itself(backbone: Backbone) -> None:
    sites = {site.path: site for site in backbone.sites if site.path}
    low, high, between = (sites[f"pyramid.{path}"] for path in ("stages.0.2.fc", "stages.1.0.fc", "down"))
    assert (low.name, low.role, low.stack, low.layer, low.hidden) == ("low.layers.mix", "mix", "low.layers", 2, 6)
    assert (high.stack, high.layer, high.hidden, high.axes) == ("high.layers", 0, 8, (1, 0))
    assert (between.stack, between.layer, between.above, between.axes) == ("", None, "low.layers", (0, 1))
    assert [site.name for site in backbone.sites if site.kind in ("head", "text")] == [POOLED]
    assert backbone.facts()["layers"] == sum(DEPTHS)
    with pytest.raises(GraftaxError, match="no head"):
        backbone.head(2, tokens=True)


def test_the_last_layers_are_counted_through_all_stacks(backbone: Backbone) -> None:
    """`last` of full fine-tuning, and how fast a layer learns."""
    chosen = [{site.path.removeprefix("pyramid.") for site in Full(last=n).select(backbone.sites)} for n in (1, 3)]
    assert chosen[0] == {"stages.1.1.fc", "last"}
    assert chosen[1] == {"stages.0.2.fc", "stages.1.0.fc", "stages.1.1.fc", "last", "down"}


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (2, 3, 1, 0), (3, 0, 2, 1)])
def test_axes_in_a_checkpoint(axes: tuple[int, ...]) -> None:
    """Ours is the checkpoint's tensor, its axes in this order; back it is the same bytes."""
    (weight, *_) = Part("conv", "kernel", "kernel", (3, 5, 4, 7), axes=axes, bias=False).weights({})
    stored = np.random.default_rng(0).standard_normal(weight.stored_shape)
    own = stored.transpose(axes)
    assert own.shape == weight.shape
    np.testing.assert_array_equal(weight.as_stored(own), stored)


class TableNetwork(Network):
    """W_2 tanh(W_1 x): no layers of one kind, and so no stack."""

    def __init__(self, config: Config, arrays: Arrays):
        self.first, self.second = Linear(arrays, "first"), Linear(arrays, "second")

    def __call__(self, inputs: TextInputs, grafts: Grafts, *, pooled: bool = False, layers: Any = None) -> Outputs:
        calls = grafts.outside()
        h = calls.linear("second", jnp.tanh(calls.linear("first", inputs.ids, self.first)), self.second)
        return Outputs(h, h, h)


def test_a_network_of_two_layers(inputs: TextInputs) -> None:
    """A backbone that is no Transformer and has no stack: facts, sites, a head, and adapters in a bank."""
    from graftax.serve.bank import Bank

    family = Family(
        model_types=("table",),
        summary="two layers over a row of numbers",
        keys={},
        parts=lambda c: (Part("linear", "first", "first", (4, 6)), Part("linear", "second", "second", (6, c.hidden_size))),
        head=TaskHead("pooled", "none", ("classifier",), sites=(POOLED,)),
        config=PyramidConfig,
        module=TableNetwork,
    )
    config = family.configure({})
    tensors = {w.key: np.ones(w.stored_shape, np.float32) for part in family.parts(config) for w in part.weights({})}
    arrays, fingerprint = stack_weights(family, config, tensors, "float32")
    backbone = Backbone.build(family, config, arrays, fingerprint=fingerprint, name="table")
    assert backbone.facts() == {
        "name": "table",
        "family": "table",
        "layers": 0,
        "hidden": 8,
        "parameters": 4 * 6 + 6 + 6 * 8 + 8,
        "weights": "float32",
    }
    assert [site.name for site in backbone.sites] == ["first", "second", POOLED]
    adapter = adapter_at(backbone, "first|second")
    layout = Layout.of([adapter], backbone.sites)
    assert not backbone.has_frozen_layers(layout.cut(backbone.structure))
    bank = Bank(backbone)
    bank.add("a", adapter)
    alone = said(backbone, layout, adapter, inputs)
    mixed = jax.jit(backbone.forward)(backbone.params, bank.state, inputs, np.array([1, 0, 1, 0, 1], np.int32)).pooled
    assert mixed is not None
    np.testing.assert_allclose(mixed[::2, :3], alone[::2], rtol=1e-5, atol=1e-5)
    assert not np.any(mixed[1::2])
