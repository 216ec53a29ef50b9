"""Methods at convolutions of every geometry, against PEFT's modules, merged, in mixed batches, filled up."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from feature_maps import CASES, from_torch, picture, site_of, to_torch, torch_layer, weights_of
from refusals import refused

from graftax.adapters.adapter import Adapter
from graftax.adapters.formats.peft.dialect_table import dialect_of
from graftax.adapters.geometry import Geometry
from graftax.adapters.graft import SiteCalls
from graftax.adapters.method import Leaves, Method
from graftax.adapters.methods.adalora import AdaLoRA
from graftax.adapters.methods.bitfit import BitFit
from graftax.adapters.methods.boft import BOFT
from graftax.adapters.methods.bottleneck import Bottleneck
from graftax.adapters.methods.dora import DoRA
from graftax.adapters.methods.full import Full
from graftax.adapters.methods.hira import HiRA
from graftax.adapters.methods.hra import HRA
from graftax.adapters.methods.ia3 import IA3
from graftax.adapters.methods.ln_tuning import LayerNormTuning
from graftax.adapters.methods.loha import LoHa
from graftax.adapters.methods.lokr import LoKr
from graftax.adapters.methods.lora import LoRA, OnResidual
from graftax.adapters.methods.lora_fa import LoRAFA
from graftax.adapters.methods.oft import OFT
from graftax.adapters.sites import ConvWeights, Site
from graftax.errors import GraftaxError
from graftax.models.layers import BatchNorm, Conv
from graftax.notes import GraftaxNote

RANK = 4  # a multiple of every case's groups
METHODS: dict[str, Method] = {
    "lora": LoRA(r=RANK, alpha=7.0, bias=True),
    "lora_fa": LoRAFA(r=RANK, alpha=7.0),
    "dora": DoRA(r=RANK, alpha=7.0),
    "ia3": IA3(targets=("conv",), feedforward=()),
    "ia3_input": IA3(targets=("conv",), feedforward=("conv",)),
    "bitfit": BitFit(),
    "full": Full(),
    "adalora": AdaLoRA(init_r=RANK, target_r=2, alpha=7.0),
    "loha": LoHa(r=RANK, alpha=7.0),
    "lokr": LoKr(r=1, alpha=7.0),  # C2 is a product where it is large enough
    "lokr_whole": LoKr(r=RANK, alpha=7.0),
    "loha_effective": LoHa(r=RANK, alpha=7.0, use_effective_conv2d=True),
    "lokr_effective": LoKr(r=1, alpha=7.0, use_effective_conv2d=True),
    "hira": HiRA(r=RANK),
    "hra": HRA(r=3),
    "boft": BOFT(boft_block_size=2, boft_n_butterfly_factor=2),
    "boft_odd": BOFT(boft_block_size=3),  # which fits nine cells
    "oft": OFT(oft_block_size=4),
    "oft_shared": OFT(r=3, oft_block_size=0, block_share=True, use_cayley_neumann=False),
}
#: PEFT's configs of those that have one tensor to a leaf.
IN_PEFT: dict[str, Any] = {
    "adalora": peft.AdaLoraConfig(init_r=RANK, target_r=2, lora_alpha=7, total_step=1, target_modules=["conv"]),
    "loha": peft.LoHaConfig(r=RANK, alpha=7, target_modules=["conv"]),
    "lokr": peft.LoKrConfig(r=1, alpha=7, target_modules=["conv"]),
    "lokr_whole": peft.LoKrConfig(r=RANK, alpha=7, target_modules=["conv"]),
    "loha_effective": peft.LoHaConfig(r=RANK, alpha=7, target_modules=["conv"], use_effective_conv2d=True),
    "lokr_effective": peft.LoKrConfig(r=1, alpha=7, target_modules=["conv"], use_effective_conv2d=True),
    "hira": peft.HiraConfig(r=RANK, target_modules=["conv"]),
    "hra": peft.HRAConfig(r=3, target_modules=["conv"]),
    "boft": peft.BOFTConfig(boft_block_size=2, boft_n_butterfly_factor=2, target_modules=["conv"]),
}
SQUARE = ("hra", "boft")  # for which PEFT takes the kernel's height for its width, and leaves dilations out


def fitting(*cases: str) -> list[tuple[str, str]]:
    """Every method at those of these cases, of all unless some are named, whose sizes it takes."""
    every = [(name, case) for name in METHODS for case in cases or CASES]
    return [(name, case) for name, case in every if refused(lambda name=name, case=case: selected(name, case)) is None]


def selected(name: str, case: str) -> Any:
    targets = {"targets": "block.conv"} if METHODS[name].targets is None else {}
    return dataclasses.replace(METHODS[name], **targets).select([site_of(case)])


def cases(name: str) -> list[str]:
    """Those of `CASES` on which PEFT has a method."""
    return [case for case in CASES if dialect_of(METHODS[name]).has(site_of(case))]


class _Torch(torch.nn.Module):
    def __init__(self, conv: torch.nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def randomised(method: Method, site: Site, seed: int = 0, size: int | None = None) -> Leaves:
    """State of an adapter that is nowhere zero; `size`: padded to it."""
    random = np.random.default_rng(seed)
    made = method.init(jax.random.key(seed), site)
    trainable = {name: 0.3 * random.standard_normal(leaf.shape, np.float32) + (name == "m") for name, leaf in made.items()}
    state = {**method.fixed(site), **trainable}
    if size is None:
        return state
    blank = method.identity(site, size)
    padded = {name: np.array(blank[name not in blank[0]][name]) for name in state}
    for name, leaf in state.items():
        padded[name][tuple(slice(0, n) for n in np.shape(leaf))] = leaf
    return padded


def answer(method: Method, state: Leaves, weights: ConvWeights, x: jax.Array, mixed: bool = False) -> np.ndarray:
    module = Conv({"c.kernel": weights.kernel, "c.bias": weights.bias}, "c", weights.geometry)
    return np.asarray(
        jax.jit(lambda state, x: SiteCalls({"c": {method.key: state}}, mixed=mixed).conv("c", x, module))(state, x)
    )


def sited(case: str, weights: ConvWeights) -> Site:
    """The case's site, that knows its weights."""
    held = jax.tree.map(np.asarray, weights)
    return dataclasses.replace(site_of(case), weights=lambda: held)


def in_peft(config: Any, case: str, weights: ConvWeights) -> Any:
    """PEFT's module at the convolution, beside which the given weights are frozen."""
    module: Any = peft.get_peft_model(_Torch(torch_layer(weights)), config).base_model.model.conv
    return module


def ranks_by_group(case: str) -> np.ndarray:
    """Which of PEFT's ranks each of ours is: there a group's lie side by side, here all groups' take turns."""
    groups = CASES[case][1].groups
    return np.arange(RANK).reshape(groups, RANK // groups).T.reshape(-1)


def put_lora(module: Any, case: str, state: Leaves) -> None:
    """Our factors as PEFT's tensors."""
    (channels, out, height, width), geometry = CASES[case]
    there = np.argsort(ranks_by_group(case))
    a = np.asarray(state["a"])[there].reshape(RANK, height, width, channels).transpose(0, 3, 1, 2)
    b = np.asarray(state["b"])[there].reshape(geometry.groups, RANK // geometry.groups, out // geometry.groups)
    lora_a, lora_b = module.lora_A["default"], module.lora_B["default"]
    lora_a.weight.data = torch.tensor(np.ascontiguousarray(a))
    lora_b.weight.data = torch.tensor(b.transpose(0, 2, 1).reshape(lora_b.weight.shape))
    if lora_b.bias is not None:
        lora_b.bias.data = torch.tensor(state["bias"])
    lora_a.dilation = geometry.dilation  # which PEFT leaves out: of a dilated layer its A's output has another size


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
@pytest.mark.parametrize(
    ("name", "case"),  # PEFT's DoRA crashes where there are groups
    [("lora", case) for case in CASES] + [("dora", case) for case in CASES if CASES[case][1].groups == 1],
)
def test_lora_is_pefts(name: str, case: str) -> None:
    method, weights, x = METHODS[name], weights_of(case), picture(case, 2)
    state = randomised(method, sited(case, weights))
    options = {"use_dora": True} if name == "dora" else {"lora_bias": True}
    module = in_peft(peft.LoraConfig(r=RANK, lora_alpha=7.0, target_modules=["conv"], **options), case, weights)
    put_lora(module, case, state)
    if name == "dora":
        module.lora_magnitude_vector["default"].weight.data = torch.tensor(state["m"]).reshape(1, -1, 1, 1)
    np.testing.assert_allclose(answer(method, state, weights, x), from_torch(module(to_torch(x))), atol=1e-4, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
@pytest.mark.parametrize("case", ["oblong", "grouped"])
def test_lora_starts_as_pefts(case: str) -> None:
    """By the fan-in of A, which reads all channels: as many weights as there have the same bound and spread."""
    weights = weights_of(case)
    module = in_peft(peft.LoraConfig(r=60, target_modules=["conv"]), case, weights)
    theirs = module.lora_A["default"].weight.detach().numpy()
    ours = LoRA(r=60).init(jax.random.key(0), sited(case, weights))
    assert ours["a"].size == theirs.size
    assert ours["b"].size == module.lora_B["default"].weight.numel()
    assert np.abs(ours["a"]).max() == pytest.approx(np.abs(theirs).max(), rel=0.01)
    assert np.std(ours["a"]) == pytest.approx(theirs.std(), rel=0.05)
    assert not np.any(ours["b"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["ia3", "ia3_input"])
def test_ia3_is_pefts(name: str, case: str) -> None:
    method, weights, x = METHODS[name], weights_of(case), picture(case, 2)
    state = randomised(method, sited(case, weights))
    feedforward = ["conv"] if name == "ia3_input" else []
    module = in_peft(peft.IA3Config(target_modules=["conv"], feedforward_modules=feedforward), case, weights)
    (vector,) = state.values()
    module.ia3_l["default"].data = torch.tensor(vector).reshape(1, -1, 1, 1)
    np.testing.assert_allclose(answer(method, state, weights, x), from_torch(module(to_torch(x))), atol=1e-4)


@pytest.mark.usefixtures("butterflies")
@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n in IN_PEFT for c in cases(n) if n not in SQUARE or c not in ("dilated", "oblong")]
)
def test_the_others_are_pefts(name: str, case: str) -> None:
    """The tensors of a file are PEFT's parameters, all of them and as large, and with them it computes the same."""
    method, weights, x = METHODS[name], weights_of(case), picture(case, 2)
    site, dialect = sited(case, weights), dialect_of(METHODS[name])
    state = randomised(method, site)
    module = in_peft(IN_PEFT[name], case, weights)
    theirs = {key.removesuffix(".default"): p for key, p in module.named_parameters() if key.endswith(".default")}
    theirs.pop("ranknum", None)
    tensors = dialect.tensors(site, {key: state[key] for key in method.trainable(site)})
    assert {key: tensor.shape for key, tensor in tensors.items()} == {key: tuple(p.shape) for key, p in theirs.items()}
    for key, tensor in tensors.items():
        theirs[key].data = torch.tensor(np.ascontiguousarray(tensor))
    with torch.no_grad():
        np.testing.assert_allclose(answer(method, state, weights, x), from_torch(module(to_torch(x))), atol=1e-4, rtol=1e-4)
    for key, leaf in dialect.leaves(site, tensors).items():
        np.testing.assert_array_equal(leaf, state[key])


@pytest.mark.parametrize(("name", "case"), fitting())
def test_merged_is_unmerged(name: str, case: str) -> None:
    method, weights, x = METHODS[name], weights_of(case), picture(case, 2)
    state = randomised(method, sited(case, weights))
    if name in ("lora", "lora_fa", "dora") and CASES[case][1].groups > 1:
        with pytest.raises(GraftaxError, match=r"cannot be merged into a convolution of \d groups"):
            method.merge(weights, state)
        return
    merged = method.merge(weights, state)
    assert merged.geometry == weights.geometry
    found = answer(method, state, weights, x)
    np.testing.assert_allclose(merged.convolve(x), found, atol=1e-4, rtol=1e-5)
    assert np.abs(found - weights.convolve(x)).max() > 0.01


@pytest.mark.parametrize("name", ["hira", "hra", "boft_odd", "oft", "adalora"])
def test_of_groups_each_is_a_convolution_of_its_own(name: str) -> None:
    """The same adapter at each group, where all of them share what is learnt of the inputs."""
    method, weights, x = METHODS[name], weights_of("grouped"), picture("grouped", 2)
    state = randomised(method, sited("grouped", weights))
    found, groups = answer(method, state, weights, x), weights.geometry.groups
    for group in range(groups):
        (ins, outs) = ((slice(n // groups * group, n // groups * (group + 1))) for n in (x.shape[-1], weights.bias.shape[0]))
        kernel, bias = weights.kernel[..., outs], weights.bias[outs]
        own = {
            key: leaf[..., outs] if np.shape(leaf)[-1:] == (6,) and key in ("b", "p", "s") else leaf
            for key, leaf in state.items()
        }
        alone = ConvWeights(kernel, bias, dataclasses.replace(weights.geometry, groups=1))
        np.testing.assert_allclose(answer(method, own, alone, x[..., ins]), found[..., outs], atol=1e-4)


@pytest.mark.parametrize("case", ["plain", "strided", "pointwise"])
def test_oft_is_what_peft_merges(case: str) -> None:
    """And not what it computes before: patches that overlap are turned there and added up."""
    method, weights, x = METHODS["oft"], weights_of(case), picture(case, 2)
    state = randomised(method, sited(case, weights))
    module = in_peft(peft.OFTConfig(oft_block_size=4, target_modules=["conv"]), case, weights)
    module.oft_R["default"].weight.data = torch.tensor(state["skew"])
    before = from_torch(module(to_torch(x)))
    module.merge()
    found = answer(method, state, weights, x)
    np.testing.assert_allclose(found, from_torch(module(to_torch(x))), atol=1e-4)
    assert np.allclose(found, before, atol=1e-3) == (case == "pointwise")


@pytest.mark.parametrize("case", CASES)
def test_dora_has_the_lengths_that_it_was_given(case: str) -> None:
    """Also of a convolution in groups, where PEFT's crashes: W and the update as kernels over all channels."""
    method, weights = METHODS["dora"], weights_of(case)
    site = sited(case, weights)
    state = randomised(method, site)
    # a picture for each weight of a whole kernel, as large as the kernel and one at that weight alone
    pictures = jnp.eye(site.shape[0] * site.shape[1] * site.inputs).reshape(-1, *site.shape[:2], site.inputs)
    bare = ConvWeights(weights.kernel, jnp.zeros(site.shape[-1]), Geometry(groups=weights.geometry.groups))
    columns = answer(method, state, bare, pictures)[:, 0, 0]
    np.testing.assert_allclose(np.linalg.norm(columns, axis=0), np.abs(state["m"]), rtol=1e-4)


@pytest.mark.parametrize(("name", "case"), fitting("oblong", "grouped"))
def test_rows_of_a_batch_have_adapters_of_their_own(name: str, case: str) -> None:
    method, weights, x = METHODS[name], weights_of(case), picture(case, 3)
    states = [randomised(method, sited(case, weights), seed) for seed in range(3)]
    together = answer(method, jax.tree.map(lambda *leaves: np.stack(leaves), *states), weights, x, mixed=True)
    for row, state in enumerate(states):
        alone = answer(method, state, weights, x[row : row + 1])[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, c) for n, m in METHODS.items() if m.padded for c in ("plain", "grouped", "depthwise")],
)
def test_a_padded_rank_changes_nothing(name: str, case: str) -> None:
    method, weights, x = METHODS[name], weights_of(case), picture(case, 2)
    site = sited(case, weights)
    found = answer(method, randomised(method, site, size=8), weights, x)
    np.testing.assert_allclose(found, answer(method, randomised(method, site), weights, x), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", ["loha", "loha_effective", "lokr", "lokr_whole", "lokr_effective"])
def test_with_a_core_or_without_in_one_layout(name: str) -> None:
    """An adapter holds zeros in the leaves of the others, which change nothing."""
    method, weights, x = METHODS[name], weights_of("plain"), picture("plain", 2)
    site = sited("plain", weights)
    state = randomised(method, site)
    every = {leaf: np.array(blank) for leaf, blank in method.identity(site, method.rank(site))[0].items()} | state
    assert every.keys() > state.keys()
    np.testing.assert_allclose(answer(method, every, weights, x), answer(method, state, weights, x), atol=1e-6)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.fresh_within is not None])
def test_a_fresh_one_is_nothing(name: str) -> None:
    case = "grouped" if name != "boft" else "plain"
    method, weights, x = METHODS[name], weights_of(case), picture(case, 2)
    site = sited(case, weights)
    fresh = {**method.fixed(site), **method.init(jax.random.key(0), site)}
    np.testing.assert_allclose(answer(method, fresh, weights, x), weights.convolve(x), atol=2e-5)


def test_what_a_convolution_does_not_take_is_said() -> None:
    grouped, plain = site_of("grouped"), site_of("plain")
    with pytest.raises(GraftaxError, match=r"block.conv is a convolution of 2 groups.*multiple of 2, got 3"):
        LoRA(r=3).select([grouped])
    with pytest.raises(GraftaxError, match=r"start 'pissa' is for linear layers; block.conv is a convolution"):
        OnResidual(start="pissa").select([plain])
    with pytest.raises(GraftaxError, match="start 'eva' is for linear layers"):
        LoRA(start="eva").select([plain])


def test_an_adapter_larger_than_its_layer_is_said() -> None:
    """A depthwise kernel of 36 numbers and four of bias, under factors of 144 and 4."""
    with pytest.warns(
        GraftaxNote, match=r"lora: at block.conv 148 numbers are trained, and the layer has 40; training it whole"
    ):
        Adapter.create([LoRA(r=4)], [site_of("depthwise")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Adapter.create([LoRA(r=2)], [site_of("plain")])


def test_norm_tuning_on_a_batch_norm() -> None:
    random = np.random.default_rng(0)
    arrays = {f"n.{name}": jnp.asarray(random.uniform(0.5, 2.0, 6), jnp.float32) for name in ("scale", "bias", "mean", "var")}
    module, method = BatchNorm(arrays, "n", 1e-3), LayerNormTuning()
    x = jnp.asarray(random.standard_normal((2, 5, 4, 6), np.float32))
    state = {name: jnp.asarray(random.standard_normal(6), jnp.float32) for name in ("scale", "bias")}
    found = SiteCalls({"n": {method.key: state}}).norm("n", x, module)
    normed = (x - arrays["n.mean"]) / np.sqrt(arrays["n.var"] + 1e-3)
    expected = normed * (arrays["n.scale"] + state["scale"]) + arrays["n.bias"] + state["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("place", ["houlsby", "parallel", "plus"])
def test_a_bottleneck_treats_every_position_by_itself(place: str) -> None:
    method = Bottleneck(width=3, place=place)
    site = Site("conv_branch", "branch", "block", (6,), "conv_branch", within="block")
    assert method.select([site]) == [site]
    state, random = randomised(method, site), np.random.default_rng(1)
    x, y = (jnp.asarray(random.standard_normal((2, 5, 4, 6), np.float32)) for _ in range(2))
    found = SiteCalls({"b": {method.key: state}}).branch("b", x, y)
    as_tokens = SiteCalls({"b": {method.key: state}}).branch("b", x.reshape(2, 20, 6), y.reshape(2, 20, 6))
    np.testing.assert_allclose(found.reshape(2, 20, 6), as_tokens, atol=1e-5)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf if leaf.ndim else leaf]), jax.tree.map(jnp.asarray, state))
    mixed = SiteCalls({"b": {method.key: states}}, mixed=True).branch("b", x, y)
    np.testing.assert_allclose(mixed[0], found[0], atol=1e-5)
    weighed = jax.tree.map(lambda leaf: leaf[:, None, None], states)
    half = SiteCalls({"b": {method.key: weighed}}, mixed=True, shares=jnp.full((2, 1, 1), 0.5)).branch("b", x, y)
    np.testing.assert_allclose(half, (mixed + y) / 2.0, atol=1e-5)
