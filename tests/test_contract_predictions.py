"""The contract of methods: what an adapter changes in predictions, and how many parameters it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import (
    COUNTS,
    HEAD,
    LABELS,
    METHODS,
    D,
    fresh,
    logits,
    only_head,
    random_adapter,
)
from conftest import CONFIGS, GetBackbone, some_inputs
from contract import (
    FAST,
    LACKS,
    assert_texts_may_share_a_row,
    cross,
    digest,
)

from graftax import HRA, GraftaxError
from graftax.adapters.adapter import Layout
from graftax.adapters.methods.method_registry import METHODS as ALL_METHODS
from graftax.cli.methods_page import markdown

#: And the ones whose texts share a batch row every time: one method at each kind of site.
FAST_SHARED = {("bert", name, "pooled") for name in ("lora", "compacter", "loreft", "oft", "full")}
FAST_SHARED |= {("albert", "together", "tokens"), ("llama", "lora-dense", "tokens"), ("llama", "alora", "tokens")}
#: The ones that neither put tokens in front of a text nor read it as a whole, for which it needs a batch row of its own.
SHARING = tuple(name for name, methods in METHODS.items() if not any(m.adds_tokens or m.whole_text for m in methods))


@cross(FAST)
def test_fresh_is_nothing_and_random_is_something(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """Invariants 1, 2, 3, 4: within one program a fresh adapter, or none, is the base bitwise; a random one is not."""
    backbone, tokens = backbone_of(family), head == "tokens"
    inputs, before = some_inputs(backbone), digest(backbone)
    new, grown = fresh(backbone, name, tokens), random_adapter(backbone, name, tokens)
    layout = Layout.of([grown], backbone.sites)
    base = logits(backbone, only_head(new), inputs, layout)
    without = logits(backbone, only_head(new), inputs)  # a program without the method
    np.testing.assert_allclose(base, without, atol=1e-5, err_msg="`identity` changes something")
    within = [m.fresh_within for m in new.methods]
    if METHODS[name] and None not in within:
        np.testing.assert_allclose(logits(backbone, new, inputs, layout), base, atol=max(within), rtol=0.0)
    if METHODS[name]:
        assert np.abs(logits(backbone, grown, inputs, layout) - base).max() > 5e-4
    np.testing.assert_array_equal(logits(backbone, only_head(new), inputs, layout), base)
    assert digest(backbone) == before


def test_reflections_start_in_pairs(backbone_of: GetBackbone) -> None:
    """Invariant 1: HRA of an even rank starts by undoing what it does."""
    backbone = backbone_of("bert")
    adapter, inputs = fresh(backbone, (HRA(r=6),)), some_inputs(backbone)
    layout = Layout.of([adapter], backbone.sites)
    mine, base = (logits(backbone, a, inputs, layout) for a in (adapter, only_head(adapter)))
    np.testing.assert_allclose(mine, base, atol=1e-6)


@cross(FAST_SHARED, SHARING, tuple(CONFIGS))
def test_texts_may_share_a_row(family: str, name: str, head: str, backbone_of: GetBackbone) -> None:
    """Invariant 17: as training batches are."""
    backbone = backbone_of(family)
    assert_texts_may_share_a_row(backbone, random_adapter(backbone, name, head == "tokens"))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "together" and ("bert", name) not in LACKS])
def test_trainable_count_is_the_formula(name: str, backbone_of: GetBackbone) -> None:
    """Invariant 6."""
    assert fresh(backbone_of("bert"), name).parameters == COUNTS[name] + HEAD


@pytest.mark.parametrize(("name", "vectors"), [("vpt", 3 * 4), ("vpt-shallow", 3)])
def test_trainable_count_on_patches(name: str, vectors: int, backbone_of: GetBackbone) -> None:
    """Invariant 6."""
    assert fresh(backbone_of("vit"), name).parameters == vectors * D + HEAD


#: On PICTURES["cifar_resnet"], whose blocks have convolutions [9 in, out] of these channels; without the head's.
CONVOLUTIONS = [*[(4, 4)] * 4, (4, 6), *[(6, 6)] * 3, (6, 10), *[(10, 10)] * 3]
SECOND = [4, 4, 6, 6, 10, 10]  # channels, in and out, of each block's second convolution
CUT = {4: (2, 2), 6: (2, 3), 10: (2, 5)}  # a Kronecker product's cut in two
TURNED = {4: 4, 6: 3, 10: 3}  # by inputs: the size of a rotation's block, of which four is wanted
ON_CONVOLUTIONS = {
    "lora": sum(3 * (9 * i + o) for i, o in CONVOLUTIONS),
    "lora_fa": sum(3 * o for _, o in CONVOLUTIONS),
    "dora": sum(3 * (9 * i + o) + o for i, o in CONVOLUTIONS),
    "loha": sum(2 * 3 * (9 * n + n) for n in SECOND),
    "lokr": sum(CUT[i][0] * CUT[o][0] + 9 * CUT[i][1] * CUT[o][1] for i, o in CONVOLUTIONS),
    "hira": sum(3 * (9 * i + o) for i, o in CONVOLUTIONS),
    "adalora": sum(3 * (9 * i + o + 1) for i, o in CONVOLUTIONS),
    "hra": sum(3 * 9 * i for i, _ in CONVOLUTIONS),
    "oft": sum(9 * i * (TURNED[i] - 1) // 2 for i, _ in CONVOLUTIONS),
    "boft-2": sum(9 * i * 2 + o for i, o in CONVOLUTIONS),
    "ia3": sum(SECOND),
    "houlsby": sum(2 * 5 * n + 5 + n for n in SECOND),
}


@pytest.mark.parametrize("name", ON_CONVOLUTIONS)
def test_trainable_count_on_convolutions(name: str, backbone_of: GetBackbone) -> None:
    """Invariant 6."""
    assert fresh(backbone_of("cifar_resnet"), name).parameters == ON_CONVOLUTIONS[name] + len(LABELS) * (10 + 1)


def test_shared_layers_count_once(backbone_of: GetBackbone) -> None:
    """Invariant 6: ALBERT's one layer is adapted once, however often it is applied."""
    assert fresh(backbone_of("albert"), "lora").parameters == 2 * 3 * (D + D) + HEAD
    assert fresh(backbone_of("albert"), "houlsby").parameters == 2 * (2 * D * 5 + 5 + D) + HEAD


def test_the_table_of_methods() -> None:
    """docs/methods.md is what the methods say of themselves, and every method is a case here but what joins a pair."""
    written = Path(__file__).parent.with_name("docs").joinpath("methods.md").read_text("utf-8")
    assert written == markdown(), "graftax methods --markdown > docs/methods.md"
    assert {m.name for methods in METHODS.values() for m in methods} | {"head", "joint", "maple"} == set(ALL_METHODS)


def test_alpha_is_never_the_rank(backbone_of: GetBackbone) -> None:
    """A scale of one in this suite's cases would hide one that is forgotten."""
    for name, methods in METHODS.items():
        for method in (m for m in methods if hasattr(m, "alpha")):
            fixed = [method.fixed(site) for site in method.select(backbone_of("bert").sites)]
            scales = [leaves["scale"] for leaves in fixed if "scale" in leaves]
            assert scales, name
            assert not np.isclose(scales, 1.0, atol=1e-2).any(), name


@pytest.mark.parametrize(("family", "name"), LACKS)
def test_a_method_without_a_site_is_refused(family: str, name: str, backbone_of: GetBackbone) -> None:
    with pytest.raises(GraftaxError, match=LACKS[family, name]):
        fresh(backbone_of(family), name)
