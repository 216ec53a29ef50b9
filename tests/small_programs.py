"""What is read off a small step on a described device, as JSON, in a process without the tests' cheap compilation:

    python tests/small_programs.py v5e 4 --remat layers

A decoder in bfloat16 with LoRA of rank 8 on queries and values; and the program that writes texts on with it.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from graftax.adapters.methods.lora import LoRA
from graftax.benchmarks.accelerators.asked_program import AskedProgram
from graftax.benchmarks.accelerators.described_devices import described
from graftax.benchmarks.accelerators.serving_programs import ServingPrograms
from graftax.benchmarks.accelerators.step_programs import language_step
from graftax.benchmarks.accelerators.weightless import weightless_backbone
from graftax.data.batches import Shape

RANK = 8
#: No two of its lengths are those of the texts, 2 x 512 tokens.
DECODER: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 131072,  # so that the logits of 1,024 tokens are computed in several chunks
    "hidden_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 768,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def said(asked: AskedProgram, device: str) -> dict[str, Any]:
    facts = asked.facts(described(device))
    return {
        "temporaries": facts.temporaries,
        "scores": [str(shape) for shape in facts.scores],
        "float32": [f"{product.dtypes} {product.m} x {product.n} x {product.k}" for product in facts.float32_products(RANK)],
        "products": len(facts.products),
        "donated": facts.donated,
        "in_place": facts.in_place,
        "copied": [str(shape) for shape in facts.copied],
        "collectives": dict(facts.collectives),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    parser.add_argument("slots", type=int)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--quantize")
    asked = parser.parse_args()
    backbone, methods = weightless_backbone(DECODER, remat=asked.remat, quantize=asked.quantize), (LoRA(r=RANK),)
    step = language_step(backbone, methods, asked.slots, Shape(items=6, rows=2, length=512))
    serving = ServingPrograms(backbone, methods, resident=32)
    programs = {"gradient": step.gradient, "update": step.update, "decode": serving.decode(8, 512)}
    print(json.dumps({name: said(program, asked.device) for name, program in programs.items()}))
