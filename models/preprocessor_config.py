"""How a checkpoint says that pictures are prepared: in `preprocessor_config.json`, or in `config.json` itself.

The first is read as transformers' image processor reads it (`image_processors.py`): what it leaves out is that class's default,
older spellings of sizes (`224`, `[224, 224]`) mean what they mean there, and keys that the class does not read are ignored with
a note. The second is timm's way (`timm_config.py`), and that of networks which are no model of transformers: `image_size`,
`image_mean` and `image_std`; there, pictures come in that size, and nothing is resized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..json_files import read_object
from ..notes import note
from .checkpoint import OPEN_CLIP_CONFIG
from .config_keys import Key, nullable
from .image_processors import BOTH, MEAN, STD, are_sides, processor_of, sides_of
from .open_clip_config import PREPROCESSING, open_clip_preparation
from .preparation import Preparation
from .timm_config import PRETRAINED, timm_preparation

NAME = "preprocessor_config.json"
_WARPED = 384  # from this side on ConvNeXt's processor resizes to a square, and crops nothing


def preparation_of(directory: str | Path | None, config: Mapping[str, Any]) -> Preparation:
    """How pictures are prepared for the checkpoint in a directory, which has this `config.json`.

    Raises GraftaxError: neither file says, or something that is unsound or not supported.
    """
    if directory is None:  # of random weights
        return _of_config({"image_mean": 0.5, "image_std": 0.5, **config}, "config.json")
    if PREPROCESSING in config:
        return open_clip_preparation(config, OPEN_CLIP_CONFIG)
    if (file := Path(directory) / NAME).exists():
        return _of_file(read_object(file), config, str(file))
    where = str(Path(directory) / "config.json")
    return timm_preparation(config, where) if PRETRAINED in config or "architecture" in config else _of_config(config, where)


def _of_config(config: Mapping[str, Any], where: str) -> Preparation:
    values = _values(_IN_CONFIG, config, where)
    if values["image_mean"] is None or values["image_std"] is None:
        raise GraftaxError(
            f"{where}: it does not say how pictures are prepared (image_mean, image_std), nor is there a {NAME}."
        )
    channels = values["num_channels"]
    mean, std = (_by_channel(values[name], channels, name, where) for name in ("image_mean", "image_std"))
    return Preparation(sides_of(values["image_size"]), channels, scale=1 / 255, mean=mean, std=std)


def _of_file(raw: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Preparation:
    processor = processor_of(raw, config, where)
    values = _values(processor.keys, raw, where)
    if processor.crops_a_share:
        values |= _cropped_by_share(values["size"], values["crop_pct"])
    lacking = [(step, name) for step, names in _STEPS.items() if values.get(step) for name in names if values[name] is None]
    if lacking:
        raise GraftaxError(f"{where}: {lacking[0][0]} without {lacking[0][1]}.")
    if unread := sorted(raw.keys() - processor.keys.keys()):
        note(f"{where}: ignored, for transformers' {processor.name} does not read them: {', '.join(unread)}.")
    in_config = _values(_IN_CONFIG, config, "config.json")
    channels = in_config["num_channels"]
    resize, size = _sizes(values, sides_of(in_config["image_size"]), where)
    statistics = {
        name: _by_channel(values[name], channels, name, where)
        for name in ("image_mean", "image_std")
        if values["do_normalize"] or values.get("include_top")
    }
    return Preparation(
        size,
        channels,
        resize,
        values["resample"] or 0,  # which may be null where nothing is resized
        crop=bool(values["do_center_crop"]),
        scale=values["rescale_factor"] if values["do_rescale"] else None,
        shift=-1.0 if values["do_rescale"] and values.get("rescale_offset") else 0.0,
        mean=statistics["image_mean"] if values["do_normalize"] else None,
        std=statistics["image_std"] if values["do_normalize"] else None,
        divided=statistics["image_std"] if values.get("include_top") else None,
    )


def _sizes(
    values: Mapping[str, Any], taken: tuple[int, int], where: str
) -> tuple[tuple[int, int] | int | None, tuple[int, int]]:
    """What pictures are resized to, and the size of what comes of it; `taken`: that of the backbone."""
    resize = _resize(values["size"], values["default_to_square"]) if values["do_resize"] else None
    if values["do_center_crop"]:
        return resize, sides_of(values["crop_size"])
    if isinstance(resize, int):
        raise GraftaxError(f"{where}: not supported: a size of shortest_edge without do_center_crop; pictures would be unlike.")
    return resize, taken if resize is None else resize


def _cropped_by_share(size: Any, share: float) -> dict[str, Any]:
    """What ConvNeXt's processor does, in the others' keys: `size` is cut out of a picture of which it is this share."""
    side = size["shortest_edge"] if isinstance(size, Mapping) else size
    if side >= _WARPED:
        return {"size": {"height": side, "width": side}, "do_center_crop": False}
    cropped = {"height": side, "width": side}
    return {"size": {"shortest_edge": int(side / share)}, "do_center_crop": True, "crop_size": cropped}


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
    return sides_of(size)


def _by_channel(value: Any, channels: int, name: str, where: str) -> tuple[float, ...]:
    numbers = tuple(map(float, value)) if isinstance(value, list) else (float(value),) * channels
    if len(numbers) != channels:
        raise GraftaxError(f"{where}: {name} has {len(numbers)} numbers, and pictures have channels: {channels}.")
    return numbers


#: A step that is done must not lack what it needs.
_STEPS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
    "include_top": ("image_mean", "image_std"),
}
#: What a config says of pictures.
_IN_CONFIG: dict[str, Key] = {
    "image_size": Key(224, are_sides, BOTH),
    "num_channels": Key(3, lambda value: type(value) is int and value in (1, 3), "1 or 3"),
    "image_mean": nullable(replace(MEAN, default=None)),
    "image_std": nullable(replace(STD, default=None)),
}
