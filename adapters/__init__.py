"""Adapter methods, adapters, their files."""

from .adapter import Adapter, Layout
from .bitfit import BitFit
from .bottleneck import Bottleneck
from .combining import COMBINATIONS, combine, to_lora
from .compacter import Compacter
from .files import load_adapter, save_adapter
from .full import Full
from .head import Head
from .ia3 import IA3
from .lora import LoRA
from .merging import merge, merged_arrays
from .method import Method
from .prefix import Prefix
from .prompt import PromptTuning
from .reft import DiReFT, LoReFT
from .registry import METHODS
from .sites import Site
from .unions import mam

__all__ = [
    "COMBINATIONS",
    "IA3",
    "METHODS",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "Compacter",
    "DiReFT",
    "Full",
    "Head",
    "Layout",
    "LoRA",
    "LoReFT",
    "Method",
    "Prefix",
    "PromptTuning",
    "Site",
    "combine",
    "load_adapter",
    "mam",
    "merge",
    "merged_arrays",
    "save_adapter",
    "to_lora",
]
