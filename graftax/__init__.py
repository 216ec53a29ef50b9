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
        Adapter,
        BitFit,
        Bottleneck,
        FourierFT,
        Full,
        Head,
        LayerNormTuning,
        LoRA,
        Method,
        Prefix,
        RoAd,
        SHiRA,
        Site,
        load_adapter,
        merge,
        save_adapter,
    )
    from .errors import GraftaxError
    from .models import Backbone, load_backbone
    from .serve import Prediction, Predictor
    from .train import Columns, Interrupted, Recipe, Result, train_many

__version__ = "0.1.0"

_HOMES = {
    "adapters": (
        "BOFT HRA IA3 METHODS OFT Adapter BitFit Bottleneck FourierFT Full Head LayerNormTuning LoRA Method Prefix RoAd SHiRA "
        "Site load_adapter merge save_adapter"
    ),
    "errors": "GraftaxError",
    "models": "Backbone load_backbone",
    "serve": "Prediction Predictor",
    "train": "Columns Interrupted Recipe Result train_many",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "BOFT",
    "HRA",
    "IA3",
    "METHODS",
    "OFT",
    "Adapter",
    "Backbone",
    "BitFit",
    "Bottleneck",
    "Columns",
    "FourierFT",
    "Full",
    "GraftaxError",
    "Head",
    "Interrupted",
    "LayerNormTuning",
    "LoRA",
    "Method",
    "Prediction",
    "Predictor",
    "Prefix",
    "Recipe",
    "Result",
    "RoAd",
    "SHiRA",
    "Site",
    "load_adapter",
    "load_backbone",
    "merge",
    "save_adapter",
    "train_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'graftax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
