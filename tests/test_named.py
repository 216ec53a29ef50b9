"""Methods by name and settings, as the command line and suites give them."""

from __future__ import annotations

from typing import Any

import pytest

from graftax import ALoRA, Bottleneck, DiReFT, DoRA, GatedLoRA, GraftaxError, HiRA, LoRA, Prefix, unipelt
from graftax.adapters.methods.named import is_lora, make_method


def test_the_words_make_the_method() -> None:
    assert make_method("lora") == LoRA()
    assert make_method("lora", rank=4, alpha=6.0, start="olora") == LoRA(r=4, alpha=6.0, start="olora")
    assert make_method("hira", option=["r=4"]) == HiRA(r=4)
    assert make_method("bottleneck", target=".*output", option=["width=4", "place=pfeiffer"]) == Bottleneck(
        targets=".*output", width=4, place="pfeiffer"
    )
    assert make_method("unipelt") == unipelt()
    assert [make_method(name) for name in ("probe", "head", "linear_probe")] == [None] * 3


@pytest.mark.parametrize(("name", "cls"), [("dora", DoRA), ("alora", ALoRA), ("gated_lora", GatedLoRA)])
def test_rank_and_alpha_are_of_loras_kin_too(name: str, cls: Any) -> None:
    assert make_method(name, rank=4, alpha=32.0) == cls(r=4, alpha=32.0)
    assert is_lora(name)


def test_settings_of_a_union_go_where_they_belong() -> None:
    """LoRA's rank to LoRA alone, an option to every part that has the field."""
    assert make_method("lora+direft", rank=4) == (LoRA(r=4), DiReFT())
    assert make_method("lora+direft", option=["r=4"]) == (LoRA(r=4), DiReFT(r=4))
    assert make_method("lora+prefix", option=["tokens=2", "dropout=0.25"]) == (LoRA(dropout=0.25), Prefix(tokens=2))
    assert not is_lora("mam")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("Lora", {}, r"unknown method 'Lora': did you mean lora\? There are lora, "),
        ("juggle", {}, r"unknown method 'juggle'. There are lora, "),
        ("lora+head", {}, "every adapter has a head"),
        ("hira", {"rank": 4}, "rank is for LoRA and its kin; settings of hira are given as --option name=value: r."),
        ("mam", {"start": "pissa"}, "start is for LoRA and its kin"),
        ("lora", {"start": "x"}, "start 'x' is none of"),
        ("lora", {"option": ["width=3"]}, "expected name=value with a field of lora: r, alpha"),
        ("lora", {"option": ["r=abc"]}, "lora: r must be a whole number, at least 1 and below 32,768, got 'abc'"),
        ("lora", {"option": ["rslora=1"]}, "rslora must be true or false, got 1"),
        ("lora", {"option": ["rslora"]}, "expected name=value"),
        ("lora", {"option": ["rank_pattern=5"]}, "^lora: "),
    ],
)
def test_what_does_not_fit_is_named(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(GraftaxError, match=said):
        make_method(name, **settings)
