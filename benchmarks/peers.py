"""The same cell through another library: Hugging Face PEFT, or AdapterHub's `adapters`, in a process of its own.

A comparison says something about two libraries only where nothing else differs. So a peer is given, as data, all that decides
a training: the fresh adapter itself, in the peer's own file format; token ids, or the pixels of prepared pictures; which rows
each batch has; the learning rate of each step. What is left to it is the model, the gradient and AdamW. Without dropout both
sides then end at the same weights, to rounding, and what remains to be compared is time and memory. Batch norms keep the
statistics of the checkpoint on both sides.

Three things are the peer's own, because its users would not do otherwise: a text has a batch row of its own, padded to the
longest of its batch; torch chooses the threads; the random bits of an adapter's dropout are torch's.

The peer lives in another Python, since the libraries want each their own transformers: `python`, or what the environment
variable GRAFTAX_PEER_PEFT or GRAFTAX_PEER_ADAPTERS names, or this one where it has the library. One process trains one cell;
`peer_scripts/` is what it runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..adapters.directory import CONFIG, read_json
from ..adapters.files import export_adapter, save_adapter
from ..adapters.methods.head import Head
from ..adapters.methods.p_tuning import PTuning
from ..adapters.task_words import words_for
from ..data.batches import Shape, plan_epoch
from ..data.prepared import Prepared
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..train.job import Job
from ..train.recipe import Recipe
from ..train.step import learning_rate

LIBRARIES = {"peft": "torch peft", "adapters": "torch adapters safetensors"}
_TASKS = ("classify", "multilabel", "regress", "image-classify")
_ADAMW_ALONE = ("optimizer", "preconditioned", "lora_plus", "layer_decay", "unfreeze", "patience")


@dataclass(frozen=True)
class PeerResult:
    """What a peer made of a cell."""

    logits: np.ndarray  # of the test rows, in their order: [test rows, classes] float32
    losses: tuple[float, ...]  # of every step
    step_seconds: tuple[float, ...]  # of every step, its batch laid and its update done
    process_seconds: float  # from the process's start to its end
    peak_bytes: int  # most memory: of the process, or on a GPU what torch allocated there
    versions: dict[str, str]  # of python, torch, transformers and the library


class Unsupported(GraftaxError):
    """What a peer does not have, and so cannot be compared by."""


def run_peer(library: str, backbone: Backbone, job: Job, test: Prepared, *, python: str | None = None) -> PeerResult:
    """Train `job` from its fresh adapter with a peer, to its last step, and answer the test rows.

    Args:
        library: "peft" or "adapters".
        backbone: float32, loaded from a directory; the peer loads the same.
        job: of the task "classify", "multilabel", "regress" or "image-classify". Its validation rows are not looked at.
        python: the peer's interpreter; see the module's docstring for where it is looked for.

    Raises:
        Unsupported: the peer lacks the method, or cannot train so.
        GraftaxError: it is not installed, or fails.
    """
    if library not in LIBRARIES:
        raise GraftaxError(f"unknown peer {library!r}; there are {', '.join(LIBRARIES)}.")
    interpreter = python or _interpreter(library)
    with tempfile.TemporaryDirectory(prefix="graftax-peer-") as directory:
        folder = Path(directory)
        try:
            _check(library, backbone, job)
            _write_adapter(library, job, folder / "adapter", backbone)
        except GraftaxError as error:
            raise Unsupported(str(error)) from error
        facts = _facts(backbone, job)
        for split, rows in (("train", job.train), ("test", test)):
            if facts["pictures"]:
                np.save(folder / f"{split}.npy", _pixels(backbone, rows))
            facts[split] = _rows(rows, backbone)
        (folder / "job.json").write_text(json.dumps(facts), "utf-8")
        seconds = _run(library, interpreter, folder)
        found = json.loads((folder / "result.json").read_text("utf-8"))
        return PeerResult(
            logits=np.load(folder / "logits.npy"),
            losses=tuple(found["losses"]),
            step_seconds=tuple(found["step_seconds"]),
            process_seconds=seconds,
            peak_bytes=found["peak_bytes"],
            versions=found["versions"],
        )


def _check(library: str, backbone: Backbone, job: Job) -> None:
    if job.adapter.task not in _TASKS:
        raise GraftaxError(f"the peer {library} trains the tasks {', '.join(_TASKS)}, not {job.adapter.task}.")
    if backbone.directory is None:
        raise GraftaxError(f"the peer {library} loads the backbone from its directory, and {backbone.name} has none.")
    if backbone.quantize or backbone.dtype != np.float32:
        raise GraftaxError(f"the peer {library} is compared in float32; load {backbone.name} in float32, not quantised.")
    usual = Recipe()
    other = [f"{n}={getattr(job.recipe, n)!r}" for n in _ADAMW_ALONE if getattr(job.recipe, n) != getattr(usual, n)]
    if other:
        raise GraftaxError(f"the peer {library} trains all epochs with AdamW at one rate; leave out {', '.join(other)}.")


def _interpreter(library: str) -> str:
    variable = f"GRAFTAX_PEER_{library.upper()}"
    if named := os.environ.get(variable):
        return named
    try:
        metadata.version(library)  # of the installed package: a folder that happens to have its name is none
    except metadata.PackageNotFoundError:
        raise GraftaxError(
            f"no Python with the peer {library}: make an environment of its own, `pip install {LIBRARIES[library]}` there, and "
            f"set {variable} to its python."
        ) from None
    return sys.executable


def _write_adapter(library: str, job: Job, directory: Path, backbone: Backbone) -> None:
    """The fresh adapter as the peer's own directory."""
    if library == "adapters":
        fresh = replace(job.adapter.finished(), recipe={})  # the rows it is given are cut already
        export_adapter(fresh, directory, backbone, name="cell")
        return
    body = _body(job)
    if any(isinstance(method, PTuning) for method in job.adapter.methods):
        raise GraftaxError(f"{body}: a file holds the prompt and not the network that makes it, so peft cannot start from one.")
    save_adapter(job.adapter, directory, backbone)
    if body and read_json(directory / CONFIG)["peft_type"] == "GRAFTAX":
        raise GraftaxError(f"{body}: the peer peft has no such method for this backbone and task.")


def _body(job: Job) -> str:
    """Names of the methods beside the head; empty of a linear probe."""
    return "+".join(method.name for method in job.adapter.methods if not isinstance(method, Head))


def _facts(backbone: Backbone, job: Job) -> dict[str, Any]:
    """What decides the training beside the rows, as JSON."""
    recipe, pictures = job.recipe, not backbone.processor.sequences
    epochs = [plan_epoch(job.train.lengths, job.shape, recipe.seed, epoch) for epoch in range(recipe.epochs)]
    batches = [list(planned.items) for epoch in epochs for planned in epoch]
    return {
        "backbone": backbone.directory,
        "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
        "probe": not _body(job),
        "parameters": job.adapter.parameters,
        "classes": len(job.adapter.labels),
        "problem_type": words_for(job.adapter.task).problem,
        "pictures": pictures,
        "pad": None if pictures else backbone.config.pad_id,
        "seed": recipe.seed,
        "weight_decay": recipe.weight_decay,
        "clip": recipe.clip,
        "rates": np.asarray(learning_rate(job.hyper(), jax.numpy.arange(len(batches)))).tolist(),
        "batches": batches,
    }


def _rows(rows: Prepared, backbone: Backbone) -> dict[str, list[Any]]:
    """Labels of rows; of texts their token ids, too, and token types where the backbone has several."""
    lists: dict[str, list[Any]] = {"labels": [np.asarray(one).tolist() for one in rows.labels]}
    if backbone.processor.sequences:
        lists["ids"] = [text.ids.tolist() for text in rows.items]
        lists |= {"types": [text.types.tolist() for text in rows.items]} if backbone.config.type_vocab_size > 1 else {}
    return lists


def _pixels(backbone: Backbone, pictures: Prepared) -> np.ndarray:
    """Prepared pictures as torch has them: float32 `[pictures, channels, height, width]`."""
    count = len(pictures.items)
    laid = backbone.processor.lay(pictures.items, [(row, 0) for row in range(count)], Shape(count, count, shared=False))
    return np.moveaxis(laid.pixels, -1, 1)


def _run(library: str, interpreter: str, folder: Path) -> float:
    """The peer's process; its seconds. Without PYTHONPATH: what it names is for this Python."""
    script = Path(__file__).with_name("peer_scripts") / f"with_{library}.py"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            [interpreter, script, folder],
            env=environment | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise GraftaxError(f"the peer {library}: {interpreter} cannot be run ({error.strerror}).") from error
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        if done.returncode < 0:
            raise GraftaxError(f"the peer {library} was ended by signal {-done.returncode}.")
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise GraftaxError(f"the peer {library} failed: {said[-1] if said else 'it says nothing.'}")
    return seconds
