"""A cell with Hugging Face PEFT: `python with_peft.py FOLDER` (see `loop.py`).

The adapter's directory is one of PEFT's. A linear probe, which PEFT has not, is the head of transformers' model trained alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import peft
import torch
from loop import Job, config_of, run
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification


def load(job: Job, adapter: Path) -> Any:
    kind = AutoModelForImageClassification if job["pictures"] else AutoModelForSequenceClassification
    # the checkpoint's own head, of a picture model, has other classes: the adapter brings one
    base = kind.from_pretrained(job["backbone"], config=config_of(job), dtype=torch.float32, ignore_mismatched_sizes=True)
    tensors = load_file(adapter / "adapter_model.safetensors")
    if job["probe"]:
        return probe(base, {key.removeprefix("base_model.model."): tensor for key, tensor in tensors.items()})
    config = peft.PeftConfig.from_pretrained(adapter)
    config.inference_mode = False
    # not PeftModel.from_pretrained(is_trainable=True), which refuses prefixes and prompts
    model = peft.get_peft_model(base, config)
    unknown = {*peft.set_peft_model_state_dict(model, tensors).unexpected_keys} - {"prompt_embeddings"}  # it has read these
    if unknown:
        sys.exit(f"PEFT has no place for {', '.join(unknown)}.")
    return model


def probe(model: Any, head: dict[str, torch.Tensor]) -> Any:
    model.requires_grad_(False)
    model.load_state_dict(head, strict=False)
    for key in head:
        model.get_parameter(key).requires_grad_()
    return model


if __name__ == "__main__":
    run("peft", load)
