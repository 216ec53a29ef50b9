"""The programs that are compiled, by name: which backbone, which adapters, which sizes.

A name says what is computed, for how many adapters, and what is computed again in training (`remat`) where that is something:
`decoder-step/8/layers` is the training step of eight adapters on a decoder that keeps what enters each layer alone. Behind it
stands what kernels are held in, where that is not bfloat16: `decoder-step/8/layers/int8`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...adapters.methods.lora import LoRA
from ...data.batches import Shape
from ...errors import GraftaxError
from ...models.quantised import QTYPES
from .asked_program import AskedProgram, TooLarge
from .described_devices import Device
from .program_facts import Facts
from .serving_programs import ServingPrograms
from .step_programs import StepPrograms, language_step, picture_step, text_step
from .weightless import weightless_backbone

RANK = 16
SLOTS = (1, 8, 64)
METHODS = (LoRA(r=RANK),)  # on queries and values

#: Llama-3.2-1B, four of its sixteen layers.
DECODER: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
#: BERT-base.
ENCODER: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
#: ViT-B/16.
PICTURES: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
}
TEXTS_OF_DECODER = Shape(items=8, rows=4, length=1024)  # a learner's batch: 4,096 tokens
TEXTS_OF_ENCODER = Shape(items=32, rows=8, length=512)  # likewise
ITEMS, CLASSES = 32, 8
RESIDENT = 64
PROMPTS, CHUNK = 4, 256
WRITTEN, COLUMNS = 64, 1024
ASKED, LENGTH = 64, 128


@dataclass(frozen=True)
class Named:
    """A program of the catalogue."""

    name: str
    title: str
    make: Callable[[], AskedProgram]
    rank: int = RANK

    def read(self, device: Device) -> Facts | str:
        """What is read off it, or in words that it needs more memory than a device has."""
        try:
            return self.make().facts(device)
        except TooLarge as error:
            return str(error)


def decoder_step(slots: int, remat: str, layers: int = 4, quantize: str | None = None) -> StepPrograms:
    config = {**DECODER, "num_hidden_layers": layers}
    return language_step(weightless_backbone(config, remat=remat, quantize=quantize), METHODS, slots, TEXTS_OF_DECODER)


def encoder_step(slots: int) -> StepPrograms:
    return text_step(weightless_backbone(ENCODER), METHODS, slots, TEXTS_OF_ENCODER, CLASSES)


def pictures_step(slots: int) -> StepPrograms:
    return picture_step(weightless_backbone(PICTURES), METHODS, slots, ITEMS, CLASSES)


def _serving(config: dict[str, Any], *, headed: bool, quantize: str | None = None) -> ServingPrograms:
    backbone = weightless_backbone(config, quantize=quantize)
    return ServingPrograms(backbone, (*METHODS, *((backbone.head(CLASSES),) if headed else ())), RESIDENT)


def _steps(slots: int) -> list[Named]:
    """The programs of a training step of so many adapters."""
    adapters = f"{slots} adapter" + ("s" if slots > 1 else "")
    decoder = f"decoder, gradient of {adapters}, 4 x 1,024 tokens each"
    again = f"{decoder}, layers computed again"
    return [
        Named(f"decoder-step/{slots}", decoder, lambda: decoder_step(slots, "none").gradient),
        Named(f"decoder-step/{slots}/layers", again, lambda: decoder_step(slots, "layers").gradient),
        Named(f"decoder-update/{slots}", f"decoder, AdamW of {adapters}", lambda: decoder_step(slots, "none").update),
        Named(
            f"encoder-step/{slots}",
            f"BERT-base, gradient of {adapters}, 8 x 512 tokens each",
            lambda: encoder_step(slots).gradient,
        ),
        Named(
            f"pictures-step/{slots}",
            f"ViT-B/16, gradient of {adapters}, {ITEMS} pictures each",
            lambda: pictures_step(slots).gradient,
        ),
    ]


_SERVED = [
    Named(
        "prefill",
        f"decoder, {PROMPTS} prompts of {CHUNK} tokens, {RESIDENT} adapters resident",
        lambda: _serving(DECODER, headed=False).prefill(PROMPTS, CHUNK),
    ),
    Named(
        "decode",
        f"decoder, a token of {WRITTEN} texts in {COLUMNS:,} columns, {RESIDENT} adapters resident",
        lambda: _serving(DECODER, headed=False).decode(WRITTEN, COLUMNS),
    ),
    Named(
        "mixed-rows",
        f"BERT-base, {ASKED} texts of {LENGTH} tokens classified, {RESIDENT} adapters resident",
        lambda: _serving(ENCODER, headed=True).mixed_rows(ASKED, LENGTH),
    ),
]


def _quantised(held: str) -> list[Named]:
    """The programs whose kernels are held in fewer bits."""
    return [
        Named(
            f"decoder-step/8/layers/{held}",
            f"decoder with kernels in {held}, gradient of 8 adapters, 4 x 1,024 tokens each, layers computed again",
            lambda: decoder_step(8, "layers", quantize=held).gradient,
        ),
        Named(
            f"decode/{held}",
            f"decoder with kernels in {held}, a token of {WRITTEN} texts in {COLUMNS:,} columns, {RESIDENT} adapters resident",
            lambda: _serving(DECODER, headed=False, quantize=held).decode(WRITTEN, COLUMNS),
        ),
    ]


_ALL = (*(one for slots in SLOTS for one in _steps(slots)), *_SERVED, *(one for held in QTYPES for one in _quantised(held)))
CATALOGUE = {named.name: named for named in _ALL}


def program_named(name: str) -> Named:
    """The program of that name; GraftaxError where there is none."""
    if name not in CATALOGUE:
        raise GraftaxError(f"program {name!r} is not in the catalogue; there are {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]
