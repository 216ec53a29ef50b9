"""One cell trained and tested in plain torch; `with_peft.py` and `with_adapters.py` say how the model comes to be.

Runs in the peer's own environment and imports nothing of graftax. What to do is in FOLDER/job.json, which `benchmarks/peers.py`
writes: everything that could make two trainings differ (tokens, batches, learning rates) is data there, so this file has no
sampler and no schedule. Pixels of pictures lie beside it, in train.npy and test.npy. It leaves FOLDER/logits.npy and
FOLDER/result.json.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

Job = dict[str, Any]
_TEST_ROWS = 64  # batch rows in prediction


def run(library: str, load: Callable[[Job, Path], Any]) -> None:
    """`load(job, adapter directory)` makes the model; what requires a gradient in it is what is trained."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text("utf-8"))
    if job["pictures"]:
        for split in ("train", "test"):
            job[split]["pixels"] = np.load(folder / f"{split}.npy", mmap_mode="r")
    torch.manual_seed(job["seed"])  # for the adapter's dropout: all else is given
    model = load(job, folder / "adapter").to(job["device"])
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if parameters != job["parameters"]:
        sys.exit(f"{library} would train {parameters} parameters of this adapter, graftax trains {job['parameters']}.")
    losses, seconds = train(model, job)
    np.save(folder / "logits.npy", predict(model, job))
    versions = {name: version(name) for name in ("torch", "transformers", library)}
    result = {
        "losses": losses,
        "step_seconds": seconds,
        "peak_bytes": peak_bytes(job["device"]),
        "versions": {"python": platform.python_version(), **versions},
    }
    (folder / "result.json").write_text(json.dumps(result), "utf-8")


def config_of(job: Job) -> Any:
    """The backbone's config with the job's number of labels and loss, and without dropout, as graftax trains it."""
    own = {"num_labels": job["classes"], "problem_type": job["problem_type"]}
    own |= {} if job["pictures"] else {"pad_token_id": job["pad"]}
    config = transformers.AutoConfig.from_pretrained(job["backbone"], **own)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def train(model: Any, job: Job) -> tuple[list[float], list[float]]:
    """The loss and the seconds of every step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=job["weight_decay"])
    allocate = getattr(model.base_model, "update_and_allocate", None)  # AdaLoRA's ranks, which its user moves
    losses, seconds = [], []
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # statistics stay those of the checkpoint, as graftax has them
    for step, (chosen, rate) in enumerate(zip(job["batches"], job["rates"], strict=True)):
        begun = time.perf_counter()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = model(**batch_of(job, job["train"], chosen, labels=True)).loss
        loss.backward()
        if job["clip"] is not None:
            torch.nn.utils.clip_grad_norm_(trained, job["clip"])
        optimizer.step()
        if allocate is not None:
            allocate(step)
        losses.append(loss.item())
        wait(job["device"])
        seconds.append(time.perf_counter() - begun)
    return losses, seconds


@torch.no_grad()
def predict(model: Any, job: Job) -> np.ndarray:
    """Logits of the test rows `[rows, classes]`, in their order; batches are of rows of like length."""
    model.eval()
    rows = job["test"]
    lengths = [1] * len(rows["labels"]) if job["pictures"] else [len(ids) for ids in rows["ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    logits = np.zeros((len(order), job["classes"]), np.float32)
    for begin in range(0, len(order), _TEST_ROWS):
        chosen = order[begin : begin + _TEST_ROWS]
        logits[chosen] = model(**batch_of(job, rows, chosen)).logits.float().cpu().numpy()
    return logits


def batch_of(job: Job, rows: dict[str, Any], chosen: Sequence[int], labels: bool = False) -> dict[str, torch.Tensor]:
    """The chosen rows."""
    batch = pictures_of(job, rows, chosen) if job["pictures"] else texts_of(job, rows, chosen)
    if labels:
        batch["labels"] = torch.tensor([rows["labels"][i] for i in chosen], device=job["device"])
    return batch


def pictures_of(job: Job, rows: dict[str, Any], chosen: Sequence[int]) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.from_numpy(rows["pixels"][list(chosen)]).to(job["device"])}


def texts_of(job: Job, rows: dict[str, Any], chosen: Sequence[int]) -> dict[str, torch.Tensor]:
    """Padded to the longest of them."""
    lengths = [len(rows["ids"][i]) for i in chosen]
    filling = [max(lengths) - length for length in lengths]

    def padded(lists: Sequence[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([own + [value] * empty for own, empty in zip(lists, filling, strict=True)], device=job["device"])

    batch = {
        "input_ids": padded([rows["ids"][i] for i in chosen], job["pad"]),
        "attention_mask": padded([[1] * length for length in lengths], 0),
    }
    if "types" in rows:
        batch["token_type_ids"] = padded([rows["types"][i] for i in chosen], 0)
    return batch


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    """The most memory in use: on a GPU what torch allocated there, else what the process had resident."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage also counts what the process that started this one held
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
