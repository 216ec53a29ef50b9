"""The methods that graftax brings. A new one is a file and a line here; the registry has them from the start."""

from __future__ import annotations

from ..method import Method
from .adabn import AdaBN, Rebatched
from .adalora import AdaLoRA, Budgeted
from .adaptformer import AdaptFormer
from .alora import ALoRA
from .bitfit import BitFit
from .boft import BOFT
from .bottleneck import Bottleneck
from .clip_adapter import ClipAdapter
from .compacter import Compacter
from .convpass import Convpass
from .detection_head import DetectionHead
from .dora import DoRA
from .fact import FacT
from .fourierft import FourierFT
from .full import Full
from .fusion import Fusion
from .gated import GatedBottleneck, GatedLoRA, GatedPrefix
from .head import Head
from .hira import HiRA
from .hra import HRA
from .ia3 import IA3
from .invertible import Invertible
from .joint import Joint
from .joint_head import JointHead
from .lenses import Attended, ClassMap, Seed, Shift
from .ln_tuning import LayerNormTuning
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA, OnResidual
from .lora_fa import LoRAFA
from .maple import MaPLe
from .method_registry import INNER, MADE, METHODS
from .miss import MiSS
from .observer import Observer
from .oft import OFT
from .p_tuning import PTuning
from .prefix import Prefix
from .prompt import PromptTuning
from .randlora import RandLoRA
from .reft import DiReFT, LoReFT
from .repadapter import RepAdapter
from .road import RoAd
from .shira import SHiRA
from .ssf import SSF
from .tip_adapter import TipAdapter
from .trainable_tokens import TrainableTokens
from .vera import VeRA
from .vpt import VPT

_CHOSEN: tuple[type[Method], ...] = (
    *(LoRA, LoRAFA, DoRA, VeRA, RandLoRA, LoHa, LoKr, MiSS, HiRA, AdaLoRA, ALoRA, FacT),
    *(OFT, BOFT, HRA, FourierFT, RoAd),
    *(IA3, BitFit, LayerNormTuning, AdaBN, SHiRA, TrainableTokens),
    *(Bottleneck, AdaptFormer, Compacter, Invertible, RepAdapter, Convpass, SSF),
    *(Prefix, PromptTuning, PTuning, VPT),
    *(LoReFT, DiReFT),
    *(GatedLoRA, GatedBottleneck, GatedPrefix),
    *(Full, Head, Joint, MaPLe),
)
METHODS.update({method.name: method for method in _CHOSEN})
MADE.update({method.name: method for method in (Fusion, JointHead, DetectionHead, ClipAdapter, TipAdapter)})
INNER.update({method.name: method for method in (OnResidual, Budgeted, Observer, Rebatched, Shift, ClassMap, Attended, Seed)})
