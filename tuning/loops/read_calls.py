"""Calls read: what somebody has handed in as arrays, or in one line what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...counted import counted
from ...errors import GraftaxError
from .calls import Call, Datum
from .token_losses import CLIPS, LOSSES


@dataclass(frozen=True)
class ReadCall:
    """A call whose data were read."""

    call: Call
    tokens: list[np.ndarray]  # of each datum, int32 [T]
    inputs: list[dict[str, np.ndarray]]  # likewise, by name: what its loss reads, all of it there

    @property
    def lengths(self) -> list[int]:
        return [len(tokens) for tokens in self.tokens]


def read_call(call: Call, room: int, vocabulary: int) -> ReadCall:
    """A call's data as arrays, or a GraftaxError. `room`: tokens of a datum at most; `vocabulary`: tokens that there are."""
    if call.loss not in LOSSES:
        raise GraftaxError(f"{call.loop}: there is no loss {call.loss!r}; there are {', '.join(LOSSES)}.")
    if not call.data:
        raise GraftaxError(f"{call.loop}: a call without data.")
    settings = _settings(call)
    read = [_datum(call, index, datum, settings, room, vocabulary) for index, datum in enumerate(call.data)]
    return ReadCall(call, [tokens for tokens, _ in read], [inputs for _, inputs in read])


def _datum(
    call: Call, index: int, datum: Datum, settings: Mapping[str, float], room: int, vocabulary: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The tokens of a datum and what its loss reads, arrays `[tokens]` by name."""
    where, loss = f"{call.loop}: datum {index}", LOSSES[call.loss]
    tokens = _whole(datum.tokens, f"{where}: tokens", vocabulary)
    if not 1 <= len(tokens) <= room:
        raise GraftaxError(f"{where}: it has {counted(len(tokens), 'token')}, and this backbone takes 1 to {room} here.")
    known = {"target_tokens", *loss.needs, *loss.may}
    missing, other = {"target_tokens", *loss.needs} - datum.inputs.keys(), datum.inputs.keys() - known
    if missing or other:
        what = f"is without {', '.join(sorted(missing))}" if missing else f"has {', '.join(sorted(map(str, other)))}"
        raise GraftaxError(f"{where}: it {what}; {call.loss} reads {', '.join(sorted(known))}.")
    found = {"target_tokens": _whole(datum.inputs["target_tokens"], f"{where}: target_tokens", vocabulary)}
    found |= {name: _numbers(datum.inputs[name], f"{where}: {name}") for name in datum.inputs if name != "target_tokens"}
    for name, array in found.items():
        if len(array) != len(tokens):
            raise GraftaxError(f"{where}: {len(array)} {name} for {counted(len(tokens), 'token')}.")
    usual = {"weights": 1.0, **settings}
    return tokens, {name: np.full(len(tokens), value, np.float32) for name, value in usual.items()} | found


def _settings(call: Call) -> dict[str, float]:
    """What a call says of its loss, with what it leaves to the loss."""
    usual = LOSSES[call.loss].settings
    if other := call.settings.keys() - usual.keys():
        has = ", ".join(usual) or "none"
        raise GraftaxError(f"{call.loop}: {call.loss} has no setting {', '.join(sorted(map(str, other)))}; it has {has}.")
    found = {**usual, **call.settings}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value) or value < 0:
            raise GraftaxError(f"{call.loop}: {name} must be a finite number, at least 0, got {value!r}.")
    if CLIPS[0] in found and found[CLIPS[0]] > found[CLIPS[1]]:
        raise GraftaxError(f"{call.loop}: {CLIPS[0]} {found[CLIPS[0]]:g} is above {CLIPS[1]} {found[CLIPS[1]]:g}.")
    return found


def _array(values: Any, where: str, kinds: str, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        raise GraftaxError(f"{where} must be {what}, one for each token.") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
        raise GraftaxError(f"{where} must be {what}, one for each token, got {array.dtype} of shape {array.shape}.")
    return array


def _whole(values: Any, where: str, below: int) -> np.ndarray:
    """Token ids, all of them in the vocabulary."""
    array = _array(values, where, "iu", "whole numbers")
    outside = (array < 0) | (array >= below)
    if outside.any():
        raise GraftaxError(f"{where}: {int(array[outside][0])} is no token; there are {below:,}, from 0.")
    return array.astype(np.int32)


def _numbers(values: Any, where: str) -> np.ndarray:
    return _array(values, where, "fiu", "numbers").astype(np.float32)
