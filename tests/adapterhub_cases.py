"""Adapters as AdapterHub's `adapters` can hold them: for tests/test_hub_*.py."""

from __future__ import annotations

from cases import METHODS, random_adapter

from graftax import IA3, Adapter, Bottleneck, Fuse, GatedBottleneck, GatedLoRA, Head, LoRA, Method, Prefix, unipelt
from graftax.models.backbone import Backbone

OURS: dict[str, tuple[Method, ...]] = {
    **{
        name: METHODS[name]
        for name in ("houlsby", "pfeiffer", "pfeiffer-normed", "parallel", "parallel-learned", "adapterplus")
    },
    **{name: METHODS[name] for name in ("post", "compacter", "compacter++-normed", "prefix-unshifted", "prompt-post", "lora")},
    "lora-everywhere": (
        LoRA(r=2, alpha=5.0, rslora=True, targets=r".*(query|key|value|intermediate\.dense|\d\.output\.dense)"),
    ),
    "ia3": (IA3(targets=("key", "value", "intermediate.dense"), feedforward=()),),
    "some-layers": (Bottleneck(width=7, activation="silu", targets=r".*layer\.[02]\.attention\.output"),),
    "mam": (Prefix(tokens=3, shifted=False), Bottleneck(width=4, place="parallel")),
    "unipelt": unipelt(tokens=3, width=4, r=2),
    "gated": (
        GatedLoRA(r=4, alpha=2.0, rslora=True, targets=("query", "intermediate.dense")),
        GatedBottleneck(width=5, activation="gelu", place="parallel"),
    ),
}
#: A head as the library makes it by default, which on BERT is not transformers'.
FIRST_HEAD = Head(site="head.first", labels=3, hidden="tanh", modules=("classifier.dense", "classifier.out_proj"))
FUSIONS = ("fused", "fused-normed", "fused-compacter")


def fused(backbone: Backbone, case: str) -> Adapter:
    """A random fusion: of bottlenecks in two places and of two scales, of those that read behind the norm, of Compacters."""
    methods: tuple[tuple[Method, ...], ...] = {
        "fused": (METHODS["houlsby"], (Bottleneck(width=3, place="pfeiffer", scaling=0.7),)),
        "fused-normed": (METHODS["pfeiffer-normed"],) * 2 + ((Bottleneck(width=2, activation="tanh", normed=True),),),
        "fused-compacter": (METHODS["compacter"], METHODS["compacter"]),
    }[case]
    trained = tuple(random_adapter(backbone, body, seed=seed) for seed, body in enumerate(methods, 3))
    return random_adapter(backbone, (Fuse(trained=trained, query_normed=case == "fused-normed"),))
