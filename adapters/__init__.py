"""Adapter methods, adapters, their files."""

from .adalora import AdaLoRA
from .adapter import Adapter, Layout
from .bitfit import BitFit
from .bottleneck import Bottleneck
from .combining import COMBINATIONS, combine, to_lora
from .compacter import Compacter
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
from .prompt import PromptTuning
from .reft import DiReFT, LoReFT
from .registry import METHODS
from .sites import Site
from .unions import mam
from .vera import VeRA

__all__ = [
    "COMBINATIONS",
    "IA3",
    "METHODS",
    "AdaLoRA",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "Compacter",
    "DiReFT",
    "DoRA",
    "Full",
    "Head",
    "HiRA",
    "Layout",
    "LoHa",
    "LoKr",
    "LoRA",
    "LoReFT",
    "Method",
    "MiSS",
    "Prefix",
    "PromptTuning",
    "Site",
    "VeRA",
    "combine",
    "load_adapter",
    "mam",
    "merge",
    "merged_arrays",
    "save_adapter",
    "to_lora",
]
