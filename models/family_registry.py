"""The families there are. A new one is a file and a line here, or comes with another package (`graftax/plugins.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import plugins
from ..errors import GraftaxError
from ..typed import shown
from . import (
    albert,
    bart,
    beit,
    bert,
    cifar_resnet,
    clip,
    convnext,
    dinov2,
    dinov3_vit,
    distilbert,
    efficientnet,
    efficientnet_layouts,
    gpt2,
    gpt_neox,
    inception_v3,
    llama,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    open_clip,
    resnet,
    roberta,
    siglip,
    swin,
    t5,
    timm_vit,
    vgg,
    vit,
)
from .family import Family
from .open_clip_config import as_whole, is_of_open_clip
from .timm_config import as_config, is_of_timm

FAMILIES: dict[str, Family] = {
    model_type: family
    for family in (
        *(bert.FAMILY, *roberta.FAMILIES, distilbert.FAMILY, albert.FAMILY),
        *(gpt2.FAMILY, gpt_neox.FAMILY, *llama.FAMILIES),
        *(*bart.FAMILIES, *t5.FAMILIES),
        *(cifar_resnet.FAMILY, *resnet.FAMILIES, mobilenet_v1.FAMILY, mobilenet_v2.FAMILY),
        *(efficientnet.FAMILY, *efficientnet_layouts.FAMILIES, *convnext.FAMILIES),
        *(*mobilenet_v3.FAMILIES, vgg.FAMILY, inception_v3.FAMILY),
        *(*vit.FAMILIES, *dinov2.FAMILIES, timm_vit.FAMILY, beit.FAMILY, dinov3_vit.FAMILY),
        *(swin.FAMILY, *clip.FAMILIES, *siglip.FAMILIES, *open_clip.FAMILIES),
    )
    for model_type in family.model_types
}


def config_said(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A `config.json` with a model type, of one that may be timm's, or of an `open_clip_config.json`."""
    if is_of_open_clip(raw):
        return as_whole(raw)
    if not is_of_timm(raw):
        return raw
    return as_config(
        raw, {name: (key, said) for key, family in FAMILIES.items() for name, said in family.architectures.items()}
    )


def family_of(model_type: str | None) -> Family:
    """The family of a config's `model_type`; an unknown one is an error that names all there are."""
    if isinstance(model_type, str) and model_type not in FAMILIES:
        for family in plugins.found("graftax.backbones").values():
            add_family(family)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise GraftaxError(f"model_type {model_type!r} is not supported; supported are {', '.join(sorted(FAMILIES))}.")
    return FAMILIES[model_type]


def add_family(family: Family) -> None:
    """A family of somebody else's, so that `load_backbone` knows its model types from now on.

    Raises GraftaxError for what is no family, and for a model type that another family has.
    """
    if not isinstance(family, Family):
        raise GraftaxError(f"expected a family of backbones, got {shown(family)}.")
    for model_type in family.model_types:
        if FAMILIES.setdefault(model_type, family) != family:
            raise GraftaxError(f"there is a family of model_type {model_type!r} already.")
