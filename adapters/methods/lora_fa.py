"""LoRA-FA: LoRA of which B alone is trained (Zhang et al., 2023, arXiv:2308.03303).

    y = x W + b + s (x A^T) B          A [r, in] drawn and frozen, B [r, out] trained, s as LoRA's

A and B start as LoRA's do, so a fresh adapter changes nothing. With A frozen the backward pass needs x A^T, r numbers a token,
where LoRA's keeps x for the gradient of A. Trainable parameters at a site: r out.

PEFT has it as an optimizer for LoRA (which also multiplies B's gradient by (A A^T)^-1; that is not in the paper, nor here), and
a file is a plain LoRA's: PEFT reads it as one, and so does graftax where graftax.json is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..method import Leaves
from ..sites import Site
from .lora import LoRA
from .starts import DRAWN


@dataclass(frozen=True)
class LoRAFA(LoRA):
    """LoRA with its first factor frozen; default targets are LoRA's."""

    name: ClassVar[str] = "lora_fa"
    summary: ClassVar[str] = "LoRA of which the second factor alone is trained"
    count: ClassVar[str] = "r out"
    allowed: ClassVar[tuple[str, ...]] = DRAWN
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv")  # on an embedding A starts at zero, and frozen it would stay there

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        trainable, fixed = super().identity(site, size)
        return {"b": trainable["b"]}, {"a": trainable["a"], **fixed}

    def buffers(self, site: Site) -> tuple[str, ...]:
        return ("a",)

    def precondition(self, leaves: Leaves, grads: Leaves) -> Leaves:
        return grads
