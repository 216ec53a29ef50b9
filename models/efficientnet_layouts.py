"""EfficientNet under other names than transformers': timm's, and those of the package efficientnet_pytorch; Lite among them.

A config lists the groups of blocks, as scaled; an architecture's name stands for such a config (`timm_config.py`):

    "blocks": [[repeats, kernel, stride, expansion, in, out], ...], "stem": 32, "head": 1280

EfficientNet-Lite (Liu, 2020) leaves out squeeze and excitation and clips its activations at 6. There the first convolution and
the last are not scaled in width, nor the first and the last group in depth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import efficientnet, timm_config
from .config_keys import Key, activation, choice, epsilon, flag, size, unread_all
from .efficientnet import ALIKE, STEM, TENSORFLOW_PADDING, TOP, Group, Spelling, scaled
from .mobile_blocks import Names

#: Of B0: repeats, kernel, stride, expansion, channels in and out of each group.
_B0 = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
#: By how much the others are wider and deeper, and the side of their pictures.
_FACTORS = {
    **{"b0": (1.0, 1.0, 224), "b1": (1.0, 1.1, 240), "b2": (1.1, 1.2, 260), "b3": (1.2, 1.4, 300)},
    **{"b4": (1.4, 1.8, 380), "b5": (1.6, 2.2, 456), "b6": (1.8, 2.6, 528), "b7": (2.0, 3.1, 600)},
}
_LITE_FACTORS = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}


def _groups(value: Any) -> list[list[int]]:
    """Six numbers of each group, of lists of them or of a text that has them; none where it is neither."""
    if isinstance(value, str):
        found = re.findall(r"\d{1,6}(?:, *\d{1,6}){5}", value)
        return [[int(number) for number in six.split(",")] for six in found]
    if not isinstance(value, list | tuple):
        return []
    sound = all(isinstance(six, list | tuple) and len(six) == 6 and all(map(size(None).allows, six)) for six in value)
    return [[*six] for six in value] if sound else []


KEYS: Mapping[str, Key] = {
    "blocks": Key(_B0, lambda value: bool(_groups(value)), "six whole numbers for each group of blocks"),
    "stem": size(STEM, "stem_channels"),
    "head": size(TOP, "hidden_size"),
    "num_channels": size(3, "num_channels"),
    "act": activation("swish"),
    "squeeze_excite": flag(True),
    "batch_norm_eps": epsilon(1e-5),
    "padding": choice(ALIKE, (TENSORFLOW_PADDING,), "padding"),
}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    groups = tuple(Group(*six) for six in _groups(values["blocks"]))
    return {"groups": groups, "squeezed": 0.25 if values["squeeze_excite"] else 0.0}


def _prepared(side: int, mean: list[float], std: list[float], resized: float) -> dict[str, Any]:
    return {"input_size": [3, side, side], "mean": mean, "std": std, "crop_pct": resized, "interpolation": "bicubic"}


def _plain(name: str) -> dict[str, Any]:
    width, depth, side = _FACTORS[name]
    groups = []
    for repeats, *rest, inputs, out in _B0:
        groups.append([math.ceil(repeats * depth), *rest, scaled(inputs, width, 8), scaled(out, width, 8)])
    imagenet = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    shape = {"blocks": groups, "stem": scaled(STEM, width, 8), "head": scaled(TOP, width, 8)}
    return {**shape, "pretrained_cfg": _prepared(side, *imagenet, 0.875 if side < 260 else 0.9)}


def _lite(name: str) -> dict[str, Any]:
    width, depth, side = _LITE_FACTORS[name]
    groups = []
    for index, (repeats, *rest, inputs, out) in enumerate(_B0):
        deep = repeats if index in (0, len(_B0) - 1) else math.ceil(repeats * depth)
        groups.append([deep, *rest, scaled(inputs, width, 8) if index else STEM, scaled(out, width, 8)])
    prepared = _prepared(side, [127 / 255] * 3, [128 / 255] * 3, 0.875)
    return {"blocks": groups, "act": "relu6", "squeeze_excite": False, "pretrained_cfg": prepared}


_TENSORFLOW = {"padding": TENSORFLOW_PADDING, "batch_norm_eps": 1e-3}
_TIMM_SPELLING = Spelling(
    stem=("conv_stem", "bn1"),
    block="blocks.{group}.{index}",
    names=Names(("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"), "se.conv_reduce", "se.conv_expand"),
    bare=Names(("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2"), "se.conv_reduce", "se.conv_expand"),
    last=("conv_head", "bn2"),
)
_PYTORCH_SPELLING = Spelling(
    stem=("_conv_stem", "_bn0"),
    block="_blocks.{number}",
    names=Names(("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"), "_se_reduce", "_se_expand"),
    last=("_conv_head", "_bn1"),
)
_TIMM = replace(
    efficientnet.FAMILY,
    model_types=("timm_efficientnet",),
    summary="EfficientNet, B0 to B7 and Lite, with timm's names",
    task_model="",
    prefix="",
    keys=KEYS,
    older=timm_config.BESIDE,
    architectures={
        **{f"efficientnet_{name}": _plain(name) for name in _FACTORS},
        **{f"tf_efficientnet_{name}": {**_plain(name), **_TENSORFLOW} for name in _FACTORS},
        **{f"efficientnet_{name}": _lite(name) for name in _LITE_FACTORS},
        **{f"tf_efficientnet_{name}": {**_lite(name), **_TENSORFLOW} for name in _LITE_FACTORS},
    },
    defaults={"spelling": _TIMM_SPELLING},
    read=read,
)
_PYTORCH = replace(
    _TIMM,
    model_types=("efficientnet_pytorch",),
    summary="EfficientNet, B0 to B7 and Lite, with the names of efficientnet_pytorch",
    older={**timm_config.BESIDE, **unread_all(input=None)},  # in words
    head=replace(efficientnet.FAMILY.head, modules=("_fc",)),
    architectures={
        **{f"efficientnet-{name}": {**_plain(name), **_TENSORFLOW} for name in _FACTORS},
        **{f"EfficientNet-{name.capitalize()}": {**_lite(name), **_TENSORFLOW} for name in _LITE_FACTORS},
    },
    defaults={"spelling": _PYTORCH_SPELLING},
)
FAMILIES = (_TIMM, _PYTORCH)
