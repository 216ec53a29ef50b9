"""How far a batch of texts is written: what the programs that write it take and give back."""

from __future__ import annotations

from typing import Any, NamedTuple

from .restraint import Written


class Standing(NamedTuple):
    """Of each text, on the device; a batch row for each."""

    logits: Any  # float32 [rows, vocabulary]: of the next token
    cache: Any  # what the backbone keeps of the tokens so far, such as `models.decoder.Cache`
    written: Written  # prompt and continuation
    done: Any  # bool [rows]
    number: Any  # int32 [rows]: tokens drawn
    most: Any  # int32 [rows]: tokens wanted
