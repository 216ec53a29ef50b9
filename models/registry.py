"""The families there are. A new one is a file and a line here."""

from __future__ import annotations

from ..errors import GraftaxError
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
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise GraftaxError(f"model_type {model_type!r} is not supported; supported are {', '.join(sorted(FAMILIES))}.")
    return FAMILIES[model_type]
