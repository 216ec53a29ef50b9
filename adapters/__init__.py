"""Adapter methods, adapters, their files."""

from .adapter import Adapter, Layout
from .bitfit import BitFit
from .bottleneck import Bottleneck
from .files import load_adapter, save_adapter
from .full import Full
from .head import Head
from .ia3 import IA3
from .ln_tuning import LayerNormTuning
from .lora import LoRA
from .merging import merge, merged_arrays
from .method import Method
from .oft import OFT
from .prefix import Prefix
from .registry import METHODS
from .sites import Site

__all__ = [
    "IA3",
    "METHODS",
    "OFT",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "Full",
    "Head",
    "LayerNormTuning",
    "Layout",
    "LoRA",
    "Method",
    "Prefix",
    "Site",
    "load_adapter",
    "merge",
    "merged_arrays",
    "save_adapter",
]
