"""A cell with AdapterHub's `adapters`: `python with_adapters.py FOLDER` (see `loop.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from loop import Job, config_of, run

import adapters


def load(job: Job, adapter: Path) -> Any:
    model = adapters.AutoAdapterModel.from_pretrained(job["backbone"], config=config_of(job), dtype=torch.float32)
    name = model.load_adapter(str(adapter), use_safetensors=True, set_active=True)
    model.train_adapter(name)
    return model


if __name__ == "__main__":
    run("adapters", load)
