"""graftax: many parameter-efficient adapters on one frozen JAX backbone.

The public names; each is imported when it is first used, so that `import graftax` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazily

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
    from .hub import Hub
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
    "Hub",
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

_HOMES = {
    ".errors": "GraftaxError",
    ".hub": "Hub",
    ".models": "Backbone load_backbone",
    ".serve": "Average Continuation Generator Parallel Prediction Predictor Sampling Split Stack",
    ".train": "Columns Interrupted Recipe Result train_many",
}
_ELSEWHERE = {name for names in _HOMES.values() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, {**_HOMES, ".adapters": " ".join(name for name in __all__ if name not in _ELSEWHERE)})
