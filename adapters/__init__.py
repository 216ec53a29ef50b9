"""Adapter methods, adapters, their files."""

from .adapter import Adapter, Layout
from .bitfit import BitFit
from .boft import BOFT
from .bottleneck import Bottleneck
from .files import load_adapter, save_adapter
from .fourierft import FourierFT
from .full import Full
from .head import Head
from .hra import HRA
from .ia3 import IA3
from .ln_tuning import LayerNormTuning
from .lora import LoRA
from .merging import merge, merged_arrays
from .method import Method
from .oft import OFT
from .prefix import Prefix
from .registry import METHODS
from .road import RoAd
from .shira import SHiRA
from .sites import Site

__all__ = [
    "BOFT",
    "HRA",
    "IA3",
    "METHODS",
    "OFT",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "FourierFT",
    "Full",
    "Head",
    "LayerNormTuning",
    "Layout",
    "LoRA",
    "Method",
    "Prefix",
    "RoAd",
    "SHiRA",
    "Site",
    "load_adapter",
    "merge",
    "merged_arrays",
    "save_adapter",
]
