"""graftax: many parameter-efficient adapters on one frozen JAX backbone.

The public names; each is imported when it is first used, so that `import graftax` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import (
        BOFT,
        HRA,
        IA3,
        METHODS,
        OFT,
        AdaLoRA,
        Adapter,
        ALoRA,
        BitFit,
        Bottleneck,
        Compacter,
        DiReFT,
        DoRA,
        FourierFT,
        Full,
        Fuse,
        GatedBottleneck,
        GatedLoRA,
        GatedPrefix,
        Head,
        HiRA,
        Invertible,
        LayerNormTuning,
        LoHa,
        LoKr,
        LoRA,
        LoRAFA,
        LoReFT,
        Method,
        MiSS,
        Prefix,
        PromptTuning,
        PTuning,
        RandLoRA,
        RoAd,
        SHiRA,
        Site,
        TrainableTokens,
        VeRA,
        combine,
        export_adapter,
        load_adapter,
        mad_x,
        mam,
        merge,
        save_adapter,
        to_lora,
        unipelt,
    )
    from .errors import GraftaxError
    from .models import Backbone, load_backbone
    from .serve import Average, Continuation, Generator, Parallel, Prediction, Predictor, Sampling, Split, Stack
    from .train import Columns, Interrupted, Recipe, Result, train_many

__version__ = "0.1.0"

__all__ = [
    "BOFT",
    "HRA",
    "IA3",
    "METHODS",
    "OFT",
    "ALoRA",
    "AdaLoRA",
    "Adapter",
    "Average",
    "Backbone",
    "BitFit",
    "Bottleneck",
    "Columns",
    "Compacter",
    "Continuation",
    "DiReFT",
    "DoRA",
    "FourierFT",
    "Full",
    "Fuse",
    "GatedBottleneck",
    "GatedLoRA",
    "GatedPrefix",
    "Generator",
    "GraftaxError",
    "Head",
    "HiRA",
    "Interrupted",
    "Invertible",
    "LayerNormTuning",
    "LoHa",
    "LoKr",
    "LoRA",
    "LoRAFA",
    "LoReFT",
    "Method",
    "MiSS",
    "PTuning",
    "Parallel",
    "Prediction",
    "Predictor",
    "Prefix",
    "PromptTuning",
    "RandLoRA",
    "Recipe",
    "Result",
    "RoAd",
    "SHiRA",
    "Sampling",
    "Site",
    "Split",
    "Stack",
    "TrainableTokens",
    "VeRA",
    "combine",
    "export_adapter",
    "load_adapter",
    "load_backbone",
    "mad_x",
    "mam",
    "merge",
    "save_adapter",
    "to_lora",
    "train_many",
    "unipelt",
]

#: Where a name comes from; those not named here come from `adapters`.
_HOMES = {
    "errors": "GraftaxError",
    "models": "Backbone load_backbone",
    "serve": "Average Continuation Generator Parallel Prediction Predictor Sampling Split Stack",
    "train": "Columns Interrupted Recipe Result train_many",
}
_HOME_OF = dict.fromkeys(__all__, "adapters") | {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'graftax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
