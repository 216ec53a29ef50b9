"""timm's folders, whose `config.json` names an architecture, and says no sizes of it.

    {"architecture": "resnet50", "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [...], ...}}

What an architecture's sizes are, its family declares (`Family.architectures`); `as_config` puts them beside what the file
says, so that a family is configured as from any `config.json`. `pretrained_cfg` says how pictures are prepared, and what it
leaves out is timm's default; in older folders its keys stand at the top. A folder of torchvision's weights needs the first key
alone. Of pictures of another size than the architecture's own, `image_size` may say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

from ..errors import GraftaxError
from .config_keys import Key, is_number, nullable, only, unread_all
from .image_processors import BOTH, LONGEST, are_sides, sides_of
from .preparation import Preparation

PRETRAINED = "pretrained_cfg"
#: What such a file says that no model reads, for families that have architectures; heads are read by their tensors.
BESIDE: Mapping[str, Key] = {
    "global_pool": only("avg"),
    "model_args": nullable(only({})),
    **unread_all(architecture=None, num_classes=None, num_features=None, pretrained_cfg=None, image_size=None),
    **unread_all(label_names=None, label_descriptions=None, format=None),
}
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # Pillow's numbers of them


def _numbers(least: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) in (1, 3) and all(is_number(n) and n > least for n in value)


def _is_input(value: Any) -> bool:
    """Channels, height and width."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and value[0] in (1, 3)
        and all(type(number) is int and 0 < number <= LONGEST for number in value)
    )


#: What timm reads of `pretrained_cfg`, with its defaults, which null stands for, too.
_KEYS: Mapping[str, Key] = {
    "input_size": Key([3, 224, 224], _is_input, f"[1 or 3, height, width], these from 1 to {LONGEST:,}"),
    "interpolation": Key("bicubic", lambda value: value in tuple(_FILTERS), f"one of {', '.join(_FILTERS)}"),
    "crop_pct": Key(0.875, lambda value: is_number(value) and 0.1 <= value <= 1, "a number from 0.1 to 1"),
    "crop_mode": Key("center", lambda value: value in ("center", "squash"), "one of center, squash"),
    "mean": Key([0.485, 0.456, 0.406], _numbers(-1e30), "a number for each channel"),
    "std": Key([0.229, 0.224, 0.225], _numbers(0.0), "a number above 0 for each channel"),
}


def is_of_timm(raw: Mapping[str, Any]) -> bool:
    return "architecture" in raw and "model_type" not in raw


def as_config(raw: Mapping[str, Any], architectures: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The `config.json` that transformers would have; of each architecture there are the model type and its sizes.

    Raises GraftaxError for an architecture that there is not, and for keys that are unsound.
    """
    name = raw["architecture"]
    if not isinstance(name, str) or name not in architectures:
        raise GraftaxError(f"architecture {name!r} is not supported; supported are {', '.join(sorted(architectures))}.")
    model_type, sizes = architectures[name]
    config = {**sizes, **raw, "model_type": model_type}
    labels = raw.get("label_names")
    if isinstance(labels, list) and "id2label" not in raw:
        descriptions = raw.get("label_descriptions")
        said = descriptions if isinstance(descriptions, dict) else {}
        config["id2label"] = {str(index): str(said.get(label, label)) for index, label in enumerate(labels)}
    if "image_size" in raw:
        values = _values(config, "config.json")
        config[PRETRAINED] = {**values, "input_size": _of_size(raw, values)}
    channels = _values(config, "config.json")["input_size"][0]
    return {**config, "num_channels": channels} if channels != 3 else config


def _of_size(raw: Mapping[str, Any], values: Mapping[str, Any]) -> list[int]:
    """The `input_size` of a file with an `image_size`; networks have that which are neither timm's nor torchvision's."""
    said = raw["image_size"]
    if not are_sides(said):
        raise GraftaxError(f"config.json: not supported: image_size={said!r} ({BOTH}).")
    found = [values["input_size"][0], *sides_of(said)]
    if found != values["input_size"] and "input_size" in (raw.get(PRETRAINED) or raw):
        raise GraftaxError(f"config.json: image_size={said!r}, and the rest comes with input_size={values['input_size']}.")
    return found


def timm_preparation(config: Mapping[str, Any], where: str) -> Preparation:
    """How pictures are prepared, as timm's `create_transform` does it to evaluate.

    The shorter side is resized to the size that the backbone takes by `crop_pct`, and the middle cut out (`crop_mode` center);
    or both sides are (squash). Channels are divided by 255, less `mean`, by `std`.

    Raises GraftaxError, which begins with `where`, for what is unsound or not supported.
    """
    values = _values(config, where)
    channels, height, width = values["input_size"]
    for name in ("mean", "std"):
        if len(values[name]) != channels:
            counted = f"{name} has {len(values[name])} numbers, and input_size channels: {channels}"
            raise GraftaxError(f"{where}: {PRETRAINED}: {counted}.")
    squashed = values["crop_mode"] == "squash"
    if not squashed and height != width:
        raise GraftaxError(f"{where}: {PRETRAINED}: not supported: crop_mode center of {width} x {height} pixels, no square.")
    resized = floor(height / values["crop_pct"]), floor(width / values["crop_pct"])
    return Preparation(
        (height, width),
        channels,
        resized if squashed else resized[0],
        _FILTERS[values["interpolation"]],
        crop=True,
        to_even=True,
        scale=1 / 255,
        mean=tuple(map(float, values["mean"])),
        std=tuple(map(float, values["std"])),
    )


def _values(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    said = config.get(PRETRAINED, config)
    if not isinstance(said, Mapping):
        raise GraftaxError(f"{where}: {PRETRAINED} must be an object.")
    values = {name: key.default if said.get(name) is None else said[name] for name, key in _KEYS.items()}
    if wrong := [f"{name}={values[name]!r} ({key.takes})" for name, key in _KEYS.items() if not key.allows(values[name])]:
        raise GraftaxError(f"{where}: {PRETRAINED}: not supported: {'; '.join(wrong)}.")
    return values
