"""Adapter methods, adapters, their files."""

from .adalora import AdaLoRA
from .adapter import Adapter, Layout
from .alora import ALoRA
from .bitfit import BitFit
from .boft import BOFT
from .bottleneck import Bottleneck
from .combining import COMBINATIONS, combine, to_lora
from .compacter import Compacter
from .dora import DoRA
from .files import load_adapter, save_adapter
from .fourierft import FourierFT
from .full import Full
from .fusion import Fuse
from .gated import GatedBottleneck, GatedLoRA, GatedPrefix
from .head import Head
from .hira import HiRA
from .hra import HRA
from .hub import export_adapter
from .ia3 import IA3
from .invertible import Invertible
from .ln_tuning import LayerNormTuning
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA
from .lora_fa import LoRAFA
from .merging import merge, merged_arrays
from .method import Method
from .miss import MiSS
from .oft import OFT
from .p_tuning import PTuning
from .prefix import Prefix
from .prompt import PromptTuning
from .randlora import RandLoRA
from .reft import DiReFT, LoReFT
from .registry import METHODS
from .road import RoAd
from .shira import SHiRA
from .sites import Site
from .trainable_tokens import TrainableTokens
from .unions import mad_x, mam, unipelt
from .vera import VeRA

__all__ = [
    "BOFT",
    "COMBINATIONS",
    "HRA",
    "IA3",
    "METHODS",
    "OFT",
    "ALoRA",
    "AdaLoRA",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "Compacter",
    "DiReFT",
    "DoRA",
    "FourierFT",
    "Full",
    "Fuse",
    "GatedBottleneck",
    "GatedLoRA",
    "GatedPrefix",
    "Head",
    "HiRA",
    "Invertible",
    "LayerNormTuning",
    "Layout",
    "LoHa",
    "LoKr",
    "LoRA",
    "LoRAFA",
    "LoReFT",
    "Method",
    "MiSS",
    "PTuning",
    "Prefix",
    "PromptTuning",
    "RandLoRA",
    "RoAd",
    "SHiRA",
    "Site",
    "TrainableTokens",
    "VeRA",
    "combine",
    "export_adapter",
    "load_adapter",
    "mad_x",
    "mam",
    "merge",
    "merged_arrays",
    "save_adapter",
    "to_lora",
    "unipelt",
]
