"""How a checkpoint says that pictures are prepared: in `preprocessor_config.json`, or in `config.json` itself.

The first is read as transformers' image processor reads it: what it leaves out is that class's default, older spellings of
sizes (`224`, `[224, 224]`) mean what they mean there, and keys that the class does not read are ignored with a note. The
second is how networks say it that are no model of transformers: `image_size`, `image_mean` and `image_std`; there, pictures
come in that size, and nothing is resized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..json_files import read_object
from ..notes import note
from .config_keys import Key, flag, is_number, nullable, number, only, unread_all
from .preparation import Preparation

NAME = "preprocessor_config.json"
_LONGEST = 1 << 13  # side of a picture
_SIDES = ({"height", "width"}, {"shortest_edge"})  # what an object may say of a size
_CLASS = "MobileNetV2ImageProcessor"
_SPELLINGS = (_CLASS, f"{_CLASS}Fast", f"{_CLASS}Pil", "MobileNetV2FeatureExtractor")  # that transformers has had


def preparation_of(directory: str | Path | None, config: Mapping[str, Any]) -> Preparation:
    """How pictures are prepared for the checkpoint in a directory, which has this `config.json`.

    Raises GraftaxError: neither file says, or something that is unsound or not supported.
    """
    if directory is None:  # of random weights
        return _of_config({"image_mean": 0.5, "image_std": 0.5, **config}, "config.json")
    if (file := Path(directory) / NAME).exists():
        return _of_file(read_object(file), config, str(file))
    return _of_config(config, str(Path(directory) / "config.json"))


def _of_config(config: Mapping[str, Any], where: str) -> Preparation:
    values = _values(_IN_CONFIG, config, where)
    if values["image_mean"] is None or values["image_std"] is None:
        raise GraftaxError(
            f"{where}: it does not say how pictures are prepared (image_mean, image_std), nor is there a {NAME}."
        )
    channels = values["num_channels"]
    mean, std = (_by_channel(values[name], channels, name, where) for name in ("image_mean", "image_std"))
    return Preparation(_sides(values["image_size"]), channels, scale=1 / 255, mean=mean, std=std)


def _of_file(raw: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Preparation:
    values = _values(_KEYS, raw, where)
    lacking = [(step, name) for step, names in _STEPS.items() if values[step] for name in names if values[name] is None]
    if lacking:
        raise GraftaxError(f"{where}: {lacking[0][0]} without {lacking[0][1]}.")
    if unread := sorted(raw.keys() - _KEYS.keys()):
        note(f"{where}: ignored, for transformers' {_CLASS} does not read them: {', '.join(unread)}.")
    in_config = _values(_IN_CONFIG, config, "config.json")
    resize, size = _sizes(values, _sides(in_config["image_size"]), where)
    scale, mean, std = values["rescale_factor"] if values["do_rescale"] else None, None, None
    if values["do_normalize"]:
        mean, std = (_by_channel(values[name], in_config["num_channels"], name, where) for name in ("image_mean", "image_std"))
    resample = values["resample"] or 0  # which may be null where nothing is resized
    return Preparation(size, in_config["num_channels"], resize, resample, bool(values["do_center_crop"]), scale, mean, std)


def _sizes(
    values: Mapping[str, Any], taken: tuple[int, int], where: str
) -> tuple[tuple[int, int] | int | None, tuple[int, int]]:
    """What pictures are resized to, and the size of what comes of it; `taken`: that of the backbone."""
    resize = _resize(values["size"], values["default_to_square"]) if values["do_resize"] else None
    if values["do_center_crop"]:
        return resize, _sides(values["crop_size"])
    if isinstance(resize, int):
        raise GraftaxError(f"{where}: not supported: a size of shortest_edge without do_center_crop; pictures would be unlike.")
    return resize, taken if resize is None else resize


def _values(keys: Mapping[str, Key], said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What stands at each key; an error for all that are unsound."""
    wrong = [
        f"{name}={said[name]!r} ({key.takes})" for name, key in keys.items() if name in said and not key.allows(said[name])
    ]
    if wrong:
        raise GraftaxError(f"{where}: not supported: {'; '.join(wrong)}.")
    return {name: said.get(name, key.default) for name, key in keys.items()}


def _resize(size: Any, square: bool) -> tuple[int, int] | int:
    """Height and width, or the shorter side alone."""
    if isinstance(size, int):
        return (size, size) if square else size
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    return _sides(size)


def _sides(size: Any) -> tuple[int, int]:
    """Height and width of a size that is an object, a list of both, or a number for both."""
    if isinstance(size, Mapping):
        return size["height"], size["width"]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _by_channel(value: Any, channels: int, name: str, where: str) -> tuple[float, ...]:
    numbers = tuple(map(float, value)) if isinstance(value, list) else (float(value),) * channels
    if len(numbers) != channels:
        raise GraftaxError(f"{where}: {name} has {len(numbers)} numbers, and pictures have channels: {channels}.")
    return numbers


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LONGEST


def _are_sides(value: Any) -> bool:
    """Whether both sides are said."""
    if isinstance(value, Mapping):
        return value.keys() == _SIDES[0] and all(map(_is_side, value.values()))
    return _is_side(value) or (isinstance(value, list) and len(value) == 2 and all(map(_is_side, value)))


def _is_size(value: Any) -> bool:
    """Whether both sides are said, or the shorter."""
    return _are_sides(value) or (
        isinstance(value, Mapping) and value.keys() == _SIDES[1] and all(map(_is_side, value.values()))
    )


def _each(sound: Any) -> Any:
    """Whether a value, or each number of a list of up to four, is one of a kind."""
    return lambda value: sound(value) or (isinstance(value, list) and 0 < len(value) <= 4 and all(map(sound, value)))


_BOTH = f"a height and a width, each from 1 to {_LONGEST:,}"
_MEAN = Key([0.5] * 3, _each(is_number), "a number, or one for each channel")
_STD = Key([0.5] * 3, _each(lambda value: is_number(value) and value > 0), "a number above 0, or one for each channel")

#: What `MobileNetV2ImageProcessor` reads, with its defaults. Null is no default there: the step is not done,
_KEYS: dict[str, Key] = {
    "image_processor_type": Key(_CLASS, lambda value: value in _SPELLINGS, f"only {_CLASS} is supported"),
    "feature_extractor_type": Key(_CLASS, lambda value: value in _SPELLINGS, f"only {_CLASS} is supported"),
    "do_resize": nullable(flag(True)),
    "size": nullable(Key({"shortest_edge": 256}, _is_size, f"{_BOTH}, or a shortest_edge")),
    "default_to_square": nullable(flag(False)),
    "resample": nullable(Key(2, lambda value: type(value) is int and 0 <= value <= 5, "a whole number from 0 to 5")),
    "do_center_crop": nullable(flag(True)),
    "crop_size": nullable(Key({"height": 224, "width": 224}, _are_sides, _BOTH)),
    "do_rescale": nullable(flag(True)),
    "rescale_factor": nullable(number(1 / 255)),
    "do_normalize": nullable(flag(True)),
    "image_mean": nullable(_MEAN),
    "image_std": nullable(_STD),
    "do_pad": nullable(only(False)),
    **unread_all(do_convert_rgb=None, pad_size=None, data_format=None, input_data_format=None, device=None),
    **unread_all(return_tensors=None, disable_grouping=None, image_seq_length=None, do_reduce_labels=False),
    **unread_all(processor_class=None, _valid_processor_keys=None),
}
#: and a step that is done must not lack what it needs.
_STEPS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
#: What a config says of pictures.
_IN_CONFIG: dict[str, Key] = {
    "image_size": Key(224, _are_sides, _BOTH),
    "num_channels": Key(3, lambda value: type(value) is int and value in (1, 3), "1 or 3"),
    "image_mean": nullable(replace(_MEAN, default=None)),
    "image_std": nullable(replace(_STD, default=None)),
}
