"""Checkpoints of two towers, one for pictures and one for texts, of which one is read as a backbone.

What a tower is stands in a part of such a checkpoint's `config.json`; its weights are under a prefix, which its family takes
for that of a task model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..adapters.sites import IMAGE, TEXT
from ..errors import GraftaxError
from .checkpoint import stored_tensors
from .open_clip_config import PREPROCESSING

if TYPE_CHECKING:
    from .backbone import Backbone

#: Model types of whole checkpoints -> towers -> where the config has each, and its model type.
WHOLE: dict[str, dict[str, tuple[str, str]]] = {
    name: {"image": ("vision_config", f"{name}_vision_model"), "text": ("text_config", f"{name}_text_model")}
    for name in ("clip", "siglip")
}
WHOLE["open_clip"] = {
    "image": ("vision_cfg", "open_clip_vision_model"),
    "text": ("text_cfg", "open_clip_text_model"),
}
#: What a whole config says of both towers, and what it is where it does not.
_SHARED: dict[str, dict[str, Any]] = {
    "clip": {"projection_dim": 512},
    "siglip": {},
    "open_clip": {"embed_dim": None, "quick_gelu": False, PREPROCESSING: {}},
}
TOWERS = (IMAGE, TEXT)
BOTH = "both"  # of them, in place of the name of one
#: What a whole config says of a classifier on its tower of pictures.
_OF_A_HEAD = ("architectures", "id2label", "label2id", "problem_type")


def tower_said(raw: Mapping[str, Any], tower: str | None, name: str) -> Mapping[str, Any]:
    """The config of a tower, of that of a whole checkpoint; one without towers stays as it is.

    `name` is the checkpoint's, for errors. Raises GraftaxError where a tower is asked for that there is not, or none is where
    there are two.
    """
    kind = raw.get("model_type")
    towers = WHOLE.get(kind) if isinstance(kind, str) else None
    if towers is None:
        if tower is not None:
            raise GraftaxError(f"{name} is of model_type {kind!r}, which is no pair of towers: load it without tower.")
        return raw
    if tower is None:
        raise GraftaxError(f"{name} has two towers: say which, tower='image' or tower='text', or 'both' (--tower).")
    key, model_type = towers[tower]
    older = raw.get(f"{key}_dict")  # of configs that transformers wrote in 2022, and what counts where it is there
    said = raw.get(key) if older is None else older
    if not isinstance(said, dict | None):
        raise GraftaxError(f"{name}: config.json: {key} must be an object.")
    shared = {name: raw.get(name, default) for name, default in _SHARED[str(kind)].items()}
    head = {name: raw[name] for name in _OF_A_HEAD if name in raw}
    return {**(said or {}), **shared, **head, "model_type": model_type}


def comparison(tower: Backbone) -> tuple[float, float] | None:
    """By what the product of two unit vectors is multiplied, and what is added, for a logit; None where nothing says it.

    It stands in a whole checkpoint, beside the towers.
    """
    tensors = stored_tensors(Path(tower.directory)) if tower.directory is not None else {}
    if "logit_scale" not in tensors:
        return None
    scale = float(np.exp(np.asarray(tensors["logit_scale"], np.float32).reshape(())))
    bias = float(np.asarray(tensors["logit_bias"], np.float32).reshape(())) if "logit_bias" in tensors else 0.0
    return scale, bias
