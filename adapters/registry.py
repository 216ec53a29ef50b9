"""The methods there are. A new one is a file and a line here."""

from __future__ import annotations

import functools

from ..errors import GraftaxError
from .bitfit import BitFit
from .boft import BOFT
from .bottleneck import Bottleneck
from .fourierft import FourierFT
from .full import Full
from .head import Head
from .hra import HRA
from .ia3 import IA3
from .ln_tuning import LayerNormTuning
from .lora import LoRA
from .method import Method
from .oft import OFT
from .prefix import Prefix
from .road import RoAd
from .shira import SHiRA

METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (
        LoRA,
        IA3,
        Bottleneck,
        BitFit,
        Prefix,
        LayerNormTuning,
        OFT,
        HRA,
        RoAd,
        FourierFT,
        SHiRA,
        BOFT,
        Full,
        Head,
    )
}


@functools.cache
def method_of(key: str) -> Method:
    """The method a key of an adapter tree stands for (`Method.key`)."""
    return method_class(key.partition(":")[0]).from_key(key)


def method_class(name: str) -> type[Method]:
    if name not in METHODS:
        raise GraftaxError(f"unknown method {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]
