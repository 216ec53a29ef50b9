"""The families there are. A new one is a file and a line here, or comes with another package (`graftax/plugins.py`)."""

from __future__ import annotations

from .. import plugins
from ..errors import GraftaxError
from ..typed import shown
from . import albert, bart, bert, cifar_resnet, distilbert, gpt2, gpt_neox, llama, mobilenet_v2, roberta, t5
from .family import Family

FAMILIES: dict[str, Family] = {
    model_type: family
    for family in (
        *(bert.FAMILY, *roberta.FAMILIES, distilbert.FAMILY, albert.FAMILY),
        *(gpt2.FAMILY, gpt_neox.FAMILY, *llama.FAMILIES),
        *(*bart.FAMILIES, *t5.FAMILIES),
        *(cifar_resnet.FAMILY, mobilenet_v2.FAMILY),
    )
    for model_type in family.model_types
}


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
