"""The methods there are. A new one is a file and a line here."""

from __future__ import annotations

import difflib
import functools

from ...errors import GraftaxError
from ..method import Method
from .adalora import AdaLoRA, Budgeted
from .alora import ALoRA
from .bitfit import BitFit
from .boft import BOFT
from .bottleneck import Bottleneck
from .compacter import Compacter
from .dora import DoRA
from .fourierft import FourierFT
from .full import Full
from .fusion import Fusion
from .gated import GatedBottleneck, GatedLoRA, GatedPrefix
from .head import Head
from .hira import HiRA
from .hra import HRA
from .ia3 import IA3
from .invertible import Invertible
from .ln_tuning import LayerNormTuning
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA, OnResidual
from .lora_fa import LoRAFA
from .miss import MiSS
from .observer import Observer
from .oft import OFT
from .p_tuning import PTuning
from .prefix import Prefix
from .prompt import PromptTuning
from .randlora import RandLoRA
from .reft import DiReFT, LoReFT
from .road import RoAd
from .shira import SHiRA
from .trainable_tokens import TrainableTokens
from .vera import VeRA

_ALL: tuple[type[Method], ...] = (
    *(LoRA, LoRAFA, DoRA, VeRA, RandLoRA, LoHa, LoKr, MiSS, HiRA, AdaLoRA, ALoRA),
    *(OFT, BOFT, HRA, FourierFT, RoAd),
    *(IA3, BitFit, LayerNormTuning, SHiRA, TrainableTokens),
    *(Bottleneck, Compacter, Invertible),
    *(Prefix, PromptTuning, PTuning),
    *(LoReFT, DiReFT),
    *(GatedLoRA, GatedBottleneck, GatedPrefix),
    *(Full, Head),
)
METHODS: dict[str, type[Method]] = {cls.name: cls for cls in _ALL}
_MADE: dict[str, type[Method]] = {Fusion.name: Fusion}  # nobody chooses it: it is made of trained adapters
_INNER: dict[str, type[Method]] = {
    cls.name: cls for cls in (OnResidual, Budgeted, Observer)
}  # nor these, and nobody saves them


@functools.cache
def method_of(key: str) -> Method:
    """The method a key of an adapter tree stands for (`Method.key`)."""
    name = key.partition(":")[0]
    return (_INNER.get(name) or method_class(name)).from_key(key)


def method_class(name: str) -> type[Method]:
    """The method of that name; an unknown one is an error that names the nearest and all there are."""
    found = METHODS.get(name) or _MADE.get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), METHODS, n=1)
        meant = f": did you mean {near[0]}?" if near else "."
        raise GraftaxError(f"unknown method {name!r}{meant} There are {', '.join(METHODS)}.")
    return found
