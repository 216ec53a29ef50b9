"""How much the server takes upon itself. The fields are options of the command line, so this file imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_doc import Doc

from ...typed import Positive, Size, Some, settle


@dataclass(frozen=True)
class Limits:
    """What is refused, or ended, beyond it."""

    max_body: Annotated[Some, Doc("Bytes of a request's body; more is answered with 413.")] = 4 << 20
    max_prompt: Annotated[Some | None, Doc("Tokens of a prompt or text. Default: what the backbone takes.")] = None
    max_texts: Annotated[Some, Doc("Texts that one request may ask about, or have written.")] = 2048
    max_queue: Annotated[Some, Doc("Texts that may wait for a lane; beyond, requests are answered with 429.")] = 1024
    max_lora_rank: Annotated[
        Size | None, Doc("Rank of an adapter, or width, or virtual tokens; greater ones are refused. Default: any.")
    ] = None
    timeout: Annotated[Positive, Doc("Seconds that a request may take, waiting included; beyond, the answer is 503.")] = 600.0
    patience: Annotated[Positive, Doc("Seconds to wait for a client that sends or reads nothing; at most twice as long.")] = (
        30.0
    )

    def __post_init__(self) -> None:
        settle(self)
