"""The methods there are. A new one is a file and a line here."""

from __future__ import annotations

import functools

from ..errors import GraftaxError
from .bitfit import BitFit
from .bottleneck import Bottleneck
from .full import Full
from .head import Head
from .ia3 import IA3
from .ln_tuning import LayerNormTuning
from .lora import LoRA
from .method import Method
from .oft import OFT
from .prefix import Prefix

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
