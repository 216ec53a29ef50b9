"""Adapter methods, adapters, their files."""

from .adalora import AdaLoRA
from .adapter import Adapter, Layout
from .bitfit import BitFit
from .bottleneck import Bottleneck
from .dora import DoRA
from .files import load_adapter, save_adapter
from .full import Full
from .head import Head
from .hira import HiRA
from .ia3 import IA3
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA
from .merging import merge, merged_arrays
from .method import Method
from .miss import MiSS
from .prefix import Prefix
from .registry import METHODS
from .sites import Site
from .vera import VeRA

__all__ = [
    "IA3",
    "METHODS",
    "AdaLoRA",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "DoRA",
    "Full",
    "Head",
    "HiRA",
    "Layout",
    "LoHa",
    "LoKr",
    "LoRA",
    "Method",
    "MiSS",
    "Prefix",
    "Site",
    "VeRA",
    "load_adapter",
    "merge",
    "merged_arrays",
    "save_adapter",
]
