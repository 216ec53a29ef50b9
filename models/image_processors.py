"""The image processors of transformers: which are known, what their files may say, and what each does where its file is silent.

They all resize, crop, rescale and normalise, in this order, and differ in their defaults. Two do more: ConvNeXt's resizes and
crops by one key (`crop_pct`), EfficientNet's may shift what it has rescaled, and divides once more for a classifier
(`rescale_offset`, `include_top`).

DINOv3's exists in transformers for torchvision alone, and resizes floats. Here it resizes 8 bits as the others do: a pixel may
differ by about one of its 256 steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import GraftaxError
from .config_keys import Key, flag, is_number, nullable, number, only, unread_all

LONGEST = 1 << 13  # side of a picture
_SIDES = ({"height", "width"}, {"shortest_edge"})  # what an object may say of a size
_ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")  # that transformers has had


@dataclass(frozen=True)
class ImageProcessor:
    """What is known of one."""

    name: str
    models: tuple[str, ...]  # types of models whose checkpoints need not name it
    keys: Mapping[str, Key]  # that it reads, with its defaults; null is no default there: the step is not done
    crops_a_share: bool = False  # whether it has `crop_pct` in place of a crop


def processor_of(raw: Mapping[str, Any], config: Mapping[str, Any], where: str) -> ImageProcessor:
    """The one that a `preprocessor_config.json` names, or else that of the model which `config.json` describes.

    Raises GraftaxError, which begins with `where`: one that is not known, or none.
    """
    named = {key: raw[key] for key in ("image_processor_type", "feature_extractor_type") if raw.get(key) is not None}
    known = ", ".join(one.name for one in _KNOWN)
    for key, name in named.items():
        if not isinstance(name, str) or name not in _BY_SPELLING:
            raise GraftaxError(f"{where}: not supported: {key}={name!r} (one of {known}).")
    for name in named.values():
        return _BY_SPELLING[name]
    of_model = [one for one in _KNOWN if config.get("model_type") in one.models]
    if not of_model:
        raise GraftaxError(f"{where}: it does not say whose it is; image_processor_type is one of {known}.")
    return of_model[0]


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LONGEST


def are_sides(value: Any) -> bool:
    """Whether both sides are said."""
    if isinstance(value, Mapping):
        return value.keys() == _SIDES[0] and all(map(_is_side, value.values()))
    return _is_side(value) or (isinstance(value, list) and len(value) == 2 and all(map(_is_side, value)))


def sides_of(size: Any) -> tuple[int, int]:
    """Height and width of a size that is an object, a list of both, or a number for both."""
    if isinstance(size, Mapping):
        return size["height"], size["width"]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _is_size(value: Any) -> bool:
    """Whether both sides are said, or the shorter."""
    return are_sides(value) or _is_edge(value)


def _is_edge(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == _SIDES[1] and all(map(_is_side, value.values()))


def _each(sound: Any) -> Any:
    """Whether a value, or each number of a list of up to four, is one of a kind."""
    return lambda value: sound(value) or (isinstance(value, list) and 0 < len(value) <= 4 and all(map(sound, value)))


BOTH = f"a height and a width, each from 1 to {LONGEST:,}"
MEAN = Key([0.5] * 3, _each(is_number), "a number, or one for each channel")
STD = Key([0.5] * 3, _each(lambda value: is_number(value) and value > 0), "a number above 0, or one for each channel")

_COMMON: dict[str, Key] = {
    "do_resize": nullable(flag(True)),
    "size": nullable(Key({"height": 224, "width": 224}, _is_size, f"{BOTH}, or a shortest_edge")),
    "default_to_square": nullable(flag(True)),
    "resample": nullable(Key(3, lambda value: type(value) is int and 0 <= value <= 5, "a whole number from 0 to 5")),
    "do_center_crop": nullable(flag(False)),
    "crop_size": nullable(Key({"height": 224, "width": 224}, are_sides, BOTH)),
    "do_rescale": nullable(flag(True)),
    "rescale_factor": nullable(number(1 / 255)),
    "do_normalize": nullable(flag(True)),
    "image_mean": nullable(MEAN),
    "image_std": nullable(STD),
    "do_pad": nullable(only(False)),
    **unread_all(image_processor_type=None, feature_extractor_type=None, processor_class=None, _valid_processor_keys=None),
    **unread_all(do_convert_rgb=None, pad_size=None, data_format=None, input_data_format=None, device=None),
    **unread_all(return_tensors=None, disable_grouping=None, image_seq_length=None, do_reduce_labels=False),
}


def _processor(
    name: str, *models: str, more: Mapping[str, Key] | None = None, crops_a_share: bool = False, **defaults: Any
) -> ImageProcessor:
    """One with these defaults, and keys beside the common ones or in place of them."""
    keys = _COMMON | dict(more or {})
    keys |= {key: replace(keys[key], default=default) for key, default in defaults.items()}
    return ImageProcessor(f"{name}ImageProcessor", models, keys, crops_a_share)


_OF_CLIP: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_OF_MOBILENET: dict[str, Any] = {
    "size": {"shortest_edge": 256},
    "default_to_square": False,
    "resample": 2,
    "do_center_crop": True,
}
_OF_EFFICIENTNET: dict[str, Any] = {
    "size": {"height": 346, "width": 346},
    "crop_size": {"height": 289, "width": 289},
    "more": {"rescale_offset": nullable(flag(False)), "include_top": nullable(flag(True))},
}
_OF_DINOV3: dict[str, Any] = {
    "resample": 2,
    "crop_size": None,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_BY_SHARE = {
    "size": Key({"shortest_edge": 384}, lambda value: _is_side(value) or _is_edge(value), "a shortest_edge"),
    "default_to_square": only(False),
    "do_center_crop": nullable(only(False)),
    "crop_pct": Key(224 / 256, lambda value: is_number(value) and 0.1 <= value <= 1, "a number from 0.1 to 1"),
}

_KNOWN = (
    _processor("ViT", "vit", "swin", "swinv2", resample=2, crop_size=None),
    _processor("DeiT", "deit", size={"height": 256, "width": 256}, do_center_crop=True),
    _processor("Bit", "bit", "dinov2", "dinov2_with_registers", **_OF_CLIP),
    _processor("Beit", "beit", "data2vec-vision"),
    _processor("CLIP", "clip", **_OF_CLIP),
    _processor("Siglip", "siglip", default_to_square=False, crop_size=None),
    _processor("ConvNext", "convnext", "convnextv2", "resnet", "regnet", more=_BY_SHARE, crops_a_share=True),
    _processor("EfficientNet", "efficientnet", **_OF_EFFICIENTNET),
    _processor("MobileNetV1", "mobilenet_v1", **_OF_MOBILENET),
    _processor("MobileNetV2", "mobilenet_v2", **_OF_MOBILENET),
    _processor("DINOv3ViT", "dinov3_vit", "dinov3_convnext", **_OF_DINOV3),
)
_BY_SPELLING = {one.name.removesuffix(_ENDINGS[0]) + ending: one for one in _KNOWN for ending in _ENDINGS}
