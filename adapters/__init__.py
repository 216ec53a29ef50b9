"""Adapter methods, adapters, their files."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .adapter import Adapter, Layout
    from .combining import COMBINATIONS, combine, to_lora
    from .files import export_adapter, load_adapter, save_adapter
    from .merging import merge, merged_arrays
    from .method import Method
    from .methods.adabn import AdaBN
    from .methods.adalora import AdaLoRA
    from .methods.adaptformer import AdaptFormer
    from .methods.alora import ALoRA
    from .methods.bitfit import BitFit
    from .methods.boft import BOFT
    from .methods.bottleneck import Bottleneck
    from .methods.compacter import Compacter
    from .methods.convpass import Convpass
    from .methods.detection_head import DetectionHead
    from .methods.dora import DoRA
    from .methods.fact import FacT
    from .methods.fourierft import FourierFT
    from .methods.full import Full
    from .methods.fusion import Fuse
    from .methods.gated import GatedBottleneck, GatedLoRA, GatedPrefix
    from .methods.head import Head
    from .methods.hira import HiRA
    from .methods.hra import HRA
    from .methods.ia3 import IA3
    from .methods.invertible import Invertible
    from .methods.joint import Joint
    from .methods.ln_tuning import LayerNormTuning
    from .methods.loha import LoHa
    from .methods.lokr import LoKr
    from .methods.lora import LoRA
    from .methods.lora_fa import LoRAFA
    from .methods.maple import MaPLe
    from .methods.method_registry import METHODS
    from .methods.miss import MiSS
    from .methods.oft import OFT
    from .methods.p_tuning import PTuning
    from .methods.prefix import Prefix
    from .methods.prompt import PromptTuning
    from .methods.randlora import RandLoRA
    from .methods.reft import DiReFT, LoReFT
    from .methods.repadapter import RepAdapter
    from .methods.road import RoAd
    from .methods.shira import SHiRA
    from .methods.ssf import SSF
    from .methods.trainable_tokens import TrainableTokens
    from .methods.unions import mad_x, mam, unipelt
    from .methods.vera import VeRA
    from .methods.vpt import VPT
    from .sites import Site

__all__ = [
    "BOFT",
    "COMBINATIONS",
    "HRA",
    "IA3",
    "METHODS",
    "OFT",
    "SSF",
    "VPT",
    "ALoRA",
    "AdaBN",
    "AdaLoRA",
    "AdaptFormer",
    "Adapter",
    "BitFit",
    "Bottleneck",
    "Compacter",
    "Convpass",
    "DetectionHead",
    "DiReFT",
    "DoRA",
    "FacT",
    "FourierFT",
    "Full",
    "Fuse",
    "GatedBottleneck",
    "GatedLoRA",
    "GatedPrefix",
    "Head",
    "HiRA",
    "Invertible",
    "Joint",
    "LayerNormTuning",
    "Layout",
    "LoHa",
    "LoKr",
    "LoRA",
    "LoRAFA",
    "LoReFT",
    "MaPLe",
    "Method",
    "MiSS",
    "PTuning",
    "Prefix",
    "PromptTuning",
    "RandLoRA",
    "RepAdapter",
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        ".adapter": "Adapter Layout",
        ".combining": "COMBINATIONS combine to_lora",
        ".files": "export_adapter load_adapter save_adapter",
        ".merging": "merge merged_arrays",
        ".method": "Method",
        ".methods.adabn": "AdaBN",
        ".methods.adalora": "AdaLoRA",
        ".methods.adaptformer": "AdaptFormer",
        ".methods.alora": "ALoRA",
        ".methods.bitfit": "BitFit",
        ".methods.boft": "BOFT",
        ".methods.bottleneck": "Bottleneck",
        ".methods.compacter": "Compacter",
        ".methods.convpass": "Convpass",
        ".methods.detection_head": "DetectionHead",
        ".methods.dora": "DoRA",
        ".methods.fact": "FacT",
        ".methods.fourierft": "FourierFT",
        ".methods.full": "Full",
        ".methods.fusion": "Fuse",
        ".methods.gated": "GatedBottleneck GatedLoRA GatedPrefix",
        ".methods.head": "Head",
        ".methods.hira": "HiRA",
        ".methods.hra": "HRA",
        ".methods.ia3": "IA3",
        ".methods.invertible": "Invertible",
        ".methods.joint": "Joint",
        ".methods.maple": "MaPLe",
        ".methods.ln_tuning": "LayerNormTuning",
        ".methods.loha": "LoHa",
        ".methods.lokr": "LoKr",
        ".methods.lora": "LoRA",
        ".methods.lora_fa": "LoRAFA",
        ".methods.method_registry": "METHODS",
        ".methods.miss": "MiSS",
        ".methods.oft": "OFT",
        ".methods.p_tuning": "PTuning",
        ".methods.prefix": "Prefix",
        ".methods.prompt": "PromptTuning",
        ".methods.randlora": "RandLoRA",
        ".methods.reft": "DiReFT LoReFT",
        ".methods.repadapter": "RepAdapter",
        ".methods.road": "RoAd",
        ".methods.shira": "SHiRA",
        ".methods.ssf": "SSF",
        ".methods.trainable_tokens": "TrainableTokens",
        ".methods.unions": "mad_x mam unipelt",
        ".methods.vera": "VeRA",
        ".methods.vpt": "VPT",
        ".sites": "Site",
    },
)
