"""open_clip's folders, whose `open_clip_config.json` says what both towers of a CLIP are, and how pictures are prepared.

    {"model_cfg": {"embed_dim": 512, "quick_gelu": true,
                   "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
                   "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}},
     "preprocess_cfg": {"mean": [...], "std": [...], "interpolation": "bicubic", "resize_mode": "shortest"}}

`as_whole` makes a whole config of it, of which one tower's is read as of any checkpoint of two (`towers.py`). Towers of other
libraries', which such a file may name, are refused there by their names; what else a tower may be told that is not supported
is refused by its family (`open_clip.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import GraftaxError
from .checkpoint import OPEN_CLIP_CONFIG
from .config_keys import Key, is_number, unread
from .image_processors import BOTH, are_sides, sides_of
from .preparation import Preparation

PREPROCESSING = "preprocess_cfg"
_FILTERS = {"bilinear": 2, "bicubic": 3, "random": 3}  # Pillow's numbers; "random" is for training, and bicubic otherwise
#: What of a model is not open_clip's own, or another model: the part of its config, its key, and what that stands for.
_FOREIGN = (
    ("vision_cfg", "timm_model_name", "a tower of pictures of timm's"),
    ("text_cfg", "hf_model_name", "a tower of texts of transformers'"),
    ("vision_cfg", "attentional_pool", "a tower of pictures that pools by attention"),
    ("", "multimodal_cfg", "a third tower, which writes texts (CoCa)"),
    ("", "custom_text", "a tower of texts under names of its own (CustomTextCLIP)"),
)


def is_of_open_clip(raw: Mapping[str, Any]) -> bool:
    return "model_cfg" in raw and "model_type" not in raw


def as_whole(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A config of two towers. Raises GraftaxError for what is none, and for towers that are not open_clip's own."""
    model = raw["model_cfg"]
    if not isinstance(model, Mapping):
        raise GraftaxError(f"{OPEN_CLIP_CONFIG}: model_cfg must be an object.")
    parts: dict[str, Any] = {"": model, **{name: model.get(name) for name in ("vision_cfg", "text_cfg")}}
    for name, part in parts.items():
        if not isinstance(part, Mapping):
            raise GraftaxError(f"{OPEN_CLIP_CONFIG}: {name} must be an object in model_cfg.")
    for name, key, words in _FOREIGN:
        if said := parts[name].get(key):
            raise GraftaxError(
                f"{OPEN_CLIP_CONFIG}: it has {words} ({key}={said!r}), and only open_clip's ViT and text tower load."
            )
    if isinstance(layers := parts["vision_cfg"].get("layers"), list):
        raise GraftaxError(
            f"{OPEN_CLIP_CONFIG}: its tower of pictures is a ResNet (layers={layers}), and only open_clip's ViT loads."
        )
    if "embed_dim" not in model:
        raise GraftaxError(f"{OPEN_CLIP_CONFIG}: model_cfg lacks embed_dim, the size of the vectors that are compared.")
    return {**model, "model_type": "open_clip", PREPROCESSING: raw.get(PREPROCESSING) or {}}


def _by_channel(least: float) -> Any:
    """Whether it is a number above the least, or one for each of three channels."""
    return lambda value: all(
        is_number(one) and one > least for one in (value if isinstance(value, list) and len(value) == 3 else [value])
    )


#: What open_clip reads of `preprocess_cfg`, with its defaults, which null stands for, too.
_KEYS: Mapping[str, Key] = {
    "mean": Key([0.48145466, 0.4578275, 0.40821073], _by_channel(-1e30), "a number, or one for each of three channels"),
    "std": Key([0.26862954, 0.26130258, 0.27577711], _by_channel(0.0), "a number above 0, or one for each of three channels"),
    "interpolation": Key("bicubic", lambda value: value in tuple(_FILTERS), f"one of {', '.join(_FILTERS)}"),
    "resize_mode": Key("shortest", lambda value: value in ("shortest", "squash"), "one of shortest, squash"),
    "mode": Key("RGB", lambda value: value == "RGB", "only 'RGB' is supported"),
    "size": unread(224),  # the tower's own size counts
    "fill_color": unread(0),  # of a frame around pictures, which these ways of resizing do not make
}


def open_clip_preparation(config: Mapping[str, Any], where: str) -> Preparation:
    """How pictures are prepared for a tower with this config, as open_clip's `image_transform` does it to evaluate.

    The shorter side is resized to the tower's, and the middle cut out (`shortest`), or both sides are resized (`squash`).

    Raises GraftaxError, which begins with `where`, for what is unsound or not supported.
    """
    said, size = config[PREPROCESSING], config.get("image_size", 224)
    if not isinstance(said, Mapping):
        raise GraftaxError(f"{where}: {PREPROCESSING} must be an object.")
    values = {name: key.default if said.get(name) is None else said[name] for name, key in _KEYS.items()}
    wrong = [f"{name}={values[name]!r} ({key.takes})" for name, key in _KEYS.items() if not key.allows(values[name])]
    wrong += [] if are_sides(size) else [f"image_size={size!r} ({BOTH})"]
    if wrong:
        raise GraftaxError(f"{where}: {PREPROCESSING}: not supported: {'; '.join(wrong)}.")
    height, width = sides_of(size)
    squashed = values["resize_mode"] == "squash"
    if not squashed and height != width:
        raise GraftaxError(f"{where}: {PREPROCESSING}: not supported: resize_mode shortest of {width} x {height} pixels.")
    mean, std = (tuple(map(float, v if isinstance(v, list) else [v] * 3)) for v in (values["mean"], values["std"]))
    return Preparation(
        (height, width),
        resize=(height, width) if squashed else height,
        resample=_FILTERS[values["interpolation"]],
        crop=True,
        to_even=True,
        scale=1 / 255,
        mean=mean,
        std=std,
    )
