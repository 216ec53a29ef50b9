"""Combining adapters: the properties of each combination, on kernels and on logits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import fresh, logits, mapped, random_adapter
from conftest import some_inputs
from noted import noted

from graftax import (
    IA3,
    Adapter,
    BitFit,
    Full,
    GraftaxError,
    LoKr,
    LoRA,
    Prefix,
    combine,
    load_adapter,
    merge,
    save_adapter,
    to_lora,
)
from graftax.adapters.combining import Deltas, deltas, trim
from graftax.adapters.methods.head import Head

SCALES = {"alpha": LoRA(r=3, alpha=7.0), "rslora": LoRA(r=3, alpha=7.0, rslora=True)}
SCALES |= {"pattern": LoRA(r=2, alpha=5.0, rank_pattern={"query": 4}, alpha_pattern={"value": 3.0})}
IA3_KERNELS = IA3(targets=("output.dense",), feedforward=("output.dense",))  # on inputs alone: biases stay


def body(adapter: Adapter) -> Adapter:
    return dataclasses.replace(adapter, methods=tuple(m for m in adapter.methods if not isinstance(m, Head)))


def changes(adapter: Adapter) -> Deltas:
    return deltas(body(adapter))


def assert_close(found: Deltas, wanted: Deltas, atol: float = 1e-4) -> None:
    assert found.keys() == wanted.keys()
    for site, change in wanted.items():
        np.testing.assert_allclose(found[site], change, atol=atol, err_msg=site.path)


@pytest.mark.parametrize("name", [*SCALES, "ia3"])
@pytest.mark.parametrize("how", ["linear", "cat", "svd"])
def test_one_at_weight_one_is_itself(name: str, how: str, backbone_of: Any) -> None:
    """Invariant 22: for every scaling rule; the logits too, head included."""
    backbone = backbone_of("bert")
    adapter = random_adapter(backbone, (SCALES.get(name, IA3_KERNELS),))
    same = combine([adapter], [1.0], how)
    assert_close(changes(same), changes(adapter))
    np.testing.assert_allclose(
        logits(backbone, same, some_inputs(backbone)), logits(backbone, adapter, some_inputs(backbone)), atol=1e-4
    )


def test_weight_minus_one_negates(backbone_of: Any) -> None:
    """Invariant 22."""
    adapter = random_adapter(backbone_of("bert"), (SCALES["rslora"],))
    assert_close(changes(combine([adapter], [-1.0])), {site: -d for site, d in changes(adapter).items()})


@pytest.mark.parametrize("how", ["linear", "cat", "svd"])
def test_two_are_the_sum(how: str, backbone_of: Any) -> None:
    """Invariant 22: of different methods, ranks, scales and sites."""
    backbone = backbone_of("bert")
    one = random_adapter(backbone, (SCALES["rslora"],), seed=1)
    others = [random_adapter(backbone, (LoRA(r=2, alpha=5.0, targets=("key", "value")),), seed=2)]
    others += [random_adapter(backbone, (IA3_KERNELS,), seed=3)]
    for other in others:
        wanted = {site: 0.7 * d for site, d in changes(one).items()}
        for site, d in changes(other).items():
            wanted[site] = wanted.get(site, 0.0) - 1.5 * d
        assert_close(changes(combine([one, other], [0.7, -1.5], how)), wanted)


def test_of_convolutions_too(backbone_of: Any) -> None:
    """Invariant 22: kernels of a ResNet as those of linear layers, changed by methods of unlike kinds; not in groups."""
    backbone = backbone_of("cifar_resnet")
    one = random_adapter(backbone, (LoRA(r=2, alpha=5.0),), seed=1)
    other = random_adapter(backbone, (LoKr(r=3, alpha=7.0),), seed=2)
    inputs, others = some_inputs(backbone), [random_adapter(backbone, (LoRA(r=3, alpha=2.0),), seed=3), other]
    for how in ("linear", "svd"):
        for second in others:
            made = combine([one, second], [0.7, -0.5], how)
            kernels = [merge(backbone, adapter)[0].arrays() for adapter in (one, second, made)]
            for name, frozen in backbone.arrays().items():
                wanted = frozen + 0.7 * (kernels[0][name] - frozen) - 0.5 * (kernels[1][name] - frozen)
                np.testing.assert_allclose(kernels[2][name], wanted, atol=1e-4)
    np.testing.assert_allclose(
        logits(backbone, to_lora(other), inputs), logits(backbone, other, inputs), atol=1e-4 * np.abs(inputs.pixels).max()
    )
    grouped = random_adapter(backbone_of("mobilenet_v2"), (LoRA(r=10, targets=("layer.0.conv_3x3.convolution",)),))
    with pytest.raises(
        GraftaxError, match=r"conv_3x3\.convolution, a convolution of 10 groups, where a LoRA changes more than"
    ):
        combine([grouped], [1.0])


def test_cutting(backbone_of: Any) -> None:
    """The best of a rank; the least ranks for a share of the energy."""
    adapter = random_adapter(backbone_of("bert"), (LoRA(r=6, alpha=4.0),))
    for site, change in changes(to_lora(adapter, rank=2)).items():
        s = np.linalg.svd(changes(adapter)[site], compute_uv=False)
        lost = np.linalg.norm(changes(adapter)[site] - change)
        np.testing.assert_allclose(lost, np.sqrt((s[2:] ** 2).sum()), rtol=1e-4)
    for energy in (0.5, 0.9, 1.0):
        cut = to_lora(adapter, energy=energy)
        method, ranks = cut.method("lora"), []
        assert isinstance(method, LoRA)
        for site, change in changes(adapter).items():
            shares = np.cumsum(np.linalg.svd(change, compute_uv=False).astype(np.float64) ** 2)
            wanted = 1 + int(np.sum(shares / shares[-1] < energy - 1e-7)) if energy < 1 else 6
            a = cut.states["lora"][site][0]["a"]
            ranks.append(int(np.count_nonzero(np.abs(a).max(1) > 1e-4)))
            assert ranks[-1] == wanted
        assert method.r >= max(ranks)


@pytest.mark.parametrize("how", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_density_one_drops_nothing(how: str, backbone_of: Any) -> None:
    """Invariant 23: of one adapter the adapter, of two the sum (ties: where they agree the mean)."""
    backbone = backbone_of("bert")
    one, two = (random_adapter(backbone, (LoRA(r=2, alpha=5.0),), seed=seed) for seed in (1, 2))
    assert_close(changes(combine([one], [1.0], how, density=1.0)), changes(one))
    both = changes(combine([one, two], [1.0, 1.0], how, density=1.0))
    for site, found in both.items():
        a, b = changes(one)[site], changes(two)[site]
        if how.endswith("ties"):
            agree = (a > 0) == (b > 0)
            np.testing.assert_allclose(found[agree], ((a + b) / 2)[agree], atol=1e-4)
            np.testing.assert_allclose(found[~agree], np.where(np.abs(a) > np.abs(b), a, b)[~agree], atol=1e-4)
        else:
            np.testing.assert_allclose(found, a + b, atol=1e-4)


def test_sign_election_by_hand() -> None:
    """Invariant 23: three changes of four entries, density 3/4, weights 1, 2, 1."""
    from graftax.adapters.combining import _agreeing

    each = np.array([[4.0, -1.0, 0.5, 3.0], [-1.0, -2.0, 3.0, 0.1], [2.0, 5.0, -0.2, -1.0]], np.float32)
    trimmed = np.stack([trim(one, 0.75) for one in each])
    np.testing.assert_array_equal(trimmed, [[4, -1, 0, 3], [-1, -2, 3, 0], [2, 5, 0, -1]])
    # sums 5, 2, 3, 2: entry 0 of the first and third, 1 of the third, 2 of the second, 3 of the first agree
    merged = _agreeing(trimmed, trimmed * np.array([[1.0], [2.0], [1.0]], np.float32))
    np.testing.assert_allclose(merged, [(4 + 2) / 2, 5, 6, 3])


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.999])
def test_density_is_exact(density: float) -> None:
    """Invariant 23: magnitude pruning keeps exactly that many entries, the largest."""
    change = np.random.default_rng(0).standard_normal((37, 23)).astype(np.float32)
    kept = trim(change, density)
    assert np.count_nonzero(kept) == round(density * change.size)
    assert np.abs(change[kept == 0]).max() <= np.abs(kept[kept != 0]).min()


def test_dare_expects_the_change(backbone_of: Any) -> None:
    """Invariant 23: the mean over seeds is the change; each keeps about its density."""
    adapter = random_adapter(backbone_of("bert"), (LoRA(r=2, alpha=5.0),))
    site, change = next(iter(changes(adapter).items()))
    draws = [changes(combine([adapter], [1.0], "dare_linear", density=0.4, seed=s))[site] for s in range(200)]
    assert abs(np.mean([np.mean(np.abs(d) > 1e-4) for d in draws]) - 0.4) < 0.02
    error = np.abs(np.mean(draws, 0) - change)
    assert error.max() < 6 * np.abs(change).max() * np.sqrt(0.6 / 0.4 / 200)


def test_combined_is_saved_like_any(backbone_of: Any, tmp_path: Path) -> None:
    backbone = backbone_of("bert")
    adapters = [random_adapter(backbone, (LoRA(r=2, alpha=5.0),), seed=seed) for seed in (1, 2)]
    made = combine(adapters, [0.5, 0.5], "ties", density=0.5, rank=4, head=1)
    loaded = load_adapter(save_adapter(made, tmp_path / "a", backbone), backbone)
    assert loaded.labels == adapters[1].labels
    np.testing.assert_array_equal(
        logits(backbone, loaded, some_inputs(backbone)), logits(backbone, made, some_inputs(backbone))
    )
    assert combine(adapters, [1.0, 1.0], head=None).labels == ()


@pytest.mark.parametrize(
    ("methods", "settings", "message"),
    [
        ((Prefix(tokens=2),), {}, "prefix cannot be combined: it is no change of the weights"),
        ((BitFit(),), {"how": "svd"}, "bitfit cannot be combined: it changes"),
        ((Full(targets=("word_embeddings",)),), {}, "which is no linear layer"),
        ((IA3(),), {}, "ia3 cannot be combined: it changes biases"),
        ((LoRA(),), {"how": "median"}, "combination 'median' is none of linear, cat"),
        ((LoRA(),), {"weights": [1.0, 2.0]}, "1 adapter but 2 weights"),
        ((LoRA(),), {"weights": [float("nan")]}, r"weights must be a list, each of which is a number, got \[nan\]"),
        ((LoRA(),), {"how": "ties"}, "ties needs density"),
        ((LoRA(),), {"density": 0.5}, "linear takes no density"),
        ((LoRA(),), {"how": "ties", "density": 0.0}, "density must be a number, above 0 and at most 1 or null, got 0.0"),
        ((LoRA(),), {"how": "svd", "rank": 0}, "rank must be a whole number, at least 1"),
        ((LoRA(),), {"how": "svd", "energy": 1.5}, "energy must be a number, above 0 and at most 1"),
    ],
)
def test_bad_combinations(methods: Any, settings: dict[str, Any], message: str, backbone_of: Any) -> None:
    adapter = random_adapter(backbone_of("bert"), methods)
    with pytest.raises(GraftaxError, match=message):
        combine([adapter], **{"weights": [1.0], **settings})


def test_other_backbones_are_refused(backbone_of: Any) -> None:
    one = fresh(backbone_of("bert"), "lora")
    other = mapped(dataclasses.replace(one, fingerprint="another"), lambda site, leaf, value: value)
    with pytest.raises(GraftaxError, match="different backbones"):
        combine([one, other], [1.0, 1.0])


def test_what_a_combination_of_different_adapters_is_for(backbone_of: Any) -> None:
    """Bodies of different tasks and labels may be combined, as in the papers; a note says whose head and labels answer."""
    backbone = backbone_of("bert")
    one, same = (random_adapter(backbone, (LoRA(r=2, alpha=5.0),), seed=seed) for seed in (1, 2))
    other = dataclasses.replace(same, labels=("x", "y", "z"))
    said = "these adapters are for different things; combined they are for classify "
    assert noted(lambda: combine([one, same], [1.0, 1.0])) == []
    assert noted(lambda: combine([one, other], [1.0, 1.0])) == [f"{said}({', '.join(one.labels)}), as adapter 1 is."]
    assert noted(lambda: combine([one, other], [1.0, 1.0], head=1)) == [f"{said}(x, y, z), as adapter 2 is."]
    assert noted(lambda: combine([one, other], [1.0, 1.0], head=None)) == []
    bare = dataclasses.replace(body(other), labels=(), task="sft", states={"lora": other.states["lora"]})
    assert noted(lambda: combine([one, bare], [1.0, 1.0])) == [f"{said}({', '.join(one.labels)}), as adapter 1 is."]
