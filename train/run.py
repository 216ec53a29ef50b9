"""`train_many`: many adapters on one frozen backbone, resumable at any moment.

A run's directory holds an adapter per job and `metrics.jsonl`; while it is unfinished also `.run/`, with what the run is
(`run.json`) and its newest checkpoints. The same call with the same settings goes on from there, and ends with the adapters of
an uninterrupted run, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import disk, processes, signals
from ..adapters.adapter import Adapter
from ..adapters.method import Method
from ..adapters.methods.lora import LoRA
from ..data.columns import Columns
from ..models.backbone import Backbone, expect_backbone
from ..notes import note
from ..tasks.fit import refuse_unfit_task
from ..tasks.read_examples import check_columns
from ..tasks.task import Task, some_of
from ..tasks.task_registry import the_task
from ..typed import Location, Some, checked
from .checks import changed, check_arguments, check_fleet, check_shared, check_shelf
from .fleet import Fleet
from .intake import prepare
from .progress import Progress
from .queue import open_run
from .recipe import Recipe
from .result import Result
from .shelf import Shelf
from .wanted_run import WantedRun


def train(backbone: Backbone, data: Any, out: str | Path, **settings: Any) -> Result:
    """Train one adapter into directory `out`: `train_many` of one."""
    out = Path(checked(out, Location, "out"))
    return train_many(backbone, {out.name: data}, out.parent, **settings)[out.name]


def train_many(
    backbone: Backbone,
    data: Mapping[str, Any],
    out: str | Path,
    *,
    method: Method | Adapter | Sequence[Method | Adapter] | None = LoRA(),
    task: str | Task = "classify",
    recipe: Recipe = Recipe(),
    each: Mapping[str, Mapping[str, Any]] | None = None,
    val: Any = None,
    columns: Columns = Columns(),
    pack_size: int | None = None,
    devices: int | None = None,
    fsdp: bool = False,
    overwrite: bool = False,
    save_every: float = 30.0,
    progress: bool = True,
    push: Shelf | None = None,
    fleet: Fleet | None = None,
) -> dict[str, Result]:
    """Train an adapter for every entry of `data` and save it to `out/NAME`.

    Args:
        backbone: frozen; not changed.
        data: name -> path of a .csv, .tsv, .jsonl or .parquet file (for "lm" also .txt), or a `datasets.Dataset`, a pandas
            DataFrame, or dicts (docs/data.md).
        out: directory of the run. A finished run there is refused unless `overwrite`; an unfinished one is resumed.
        method: the adapter method, or several that form one adapter together; `None` trains the head alone (a linear probe). An
            adapter in its place, or among several, is trained on, with its own head and labels.
        task: "classify", "multilabel", "regress" or "tag"; of a language model "lm", "sft" or "dpo"; of an encoder-decoder
            "seq2seq"; of pictures "image-classify", "image-segment" or "image-detect"; of a pair of towers "contrastive",
            "contrastive-sigmoid" or "contrastive-names"; or a `Task` of your own (docs/adding_a_task.md).
        recipe: hyperparameters, for all adapters.
        each: name -> fields of the recipe (and "method") that differ for this adapter.
        val: a fraction of the rows to hold out, or name -> data (of some names: the others have none). With validation rows
            the best epoch is kept, else the last.
        columns: which columns hold texts and labels, or what else the task and the backbone's processor read.
        pack_size: how many adapters are trained at once; None measures, once per run. On several devices it is rounded up, so
            that each has as many.
        devices: over how many devices the adapters in training are spread; each has all of the frozen weights, and nothing is
            exchanged between them. None: over all accelerators; a CPU counts as one. In several processes (`jax.distributed`)
            those of all of them: docs/many_devices.md.
        fsdp: each of these devices has a part of the frozen weights, and a layer's are gathered while it is computed. Load the
            backbone with `unread=True` for it: then each process reads the parts of its own devices, and no host has all.
        overwrite: replace adapters that are there, and throw away an unfinished run of other settings.
        save_every: seconds between checkpoints.
        progress: show bars, or a line per epoch, on standard error.
        push: where each adapter is put as well as soon as it is saved: `Hub().under("bank")`, on a hub as bank/NAME.

        fleet: who trains the jobs in place of this process: machines of a cluster (docs/fleet.md).

    Returns:
        name -> `Result`, in the order of `data`.

    Raises:
        GraftaxError: bad input, found before anything is trained; or adapters whose loss was not finite, or that could
            not be pushed, after the rest.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    each = {} if each is None else each
    expect_backbone(backbone)
    check_arguments(data, out, method, task, recipe, each, val, columns, pack_size, save_every)
    if devices is not None:
        checked(devices, Some, "devices")
    for name, value in {"overwrite": overwrite, "progress": progress, "fsdp": fsdp}.items():
        checked(value, bool, name)
    check_shared(backbone, devices=devices, fsdp=fsdp or None, fleet=fleet)
    if not fsdp:
        backbone.expect_in_memory()
    if push is not None:
        check_shelf(push, list(data))
    if fleet is not None:
        check_fleet(fleet, devices, fsdp)
    if isinstance(val, Mapping) and (without := [name for name in data if name not in val]):
        note(f"no validation rows for {some_of(without)}: their last epoch is kept, not the best.")
    out, learnt = Path(out), the_task(task)
    check_columns(columns, learnt, backbone.processor)
    refuse_unfit_task(learnt, backbone)
    with Progress(progress and processes.is_first()) as shown:
        with processes.sound("the data"):
            jobs = []
            for number, (name, rows) in enumerate(data.items(), 1):
                shown.doing(f"reading {name}, {number} of {len(data)}")
                changes = each.get(name, {})
                jobs.append(
                    prepare(
                        name,
                        rows,
                        val.get(name) if isinstance(val, Mapping) else val,
                        backbone=backbone,
                        task=learnt,
                        method=changes.get("method", method),
                        recipe=changed(recipe, name, changes),
                        columns=columns,
                    )
                )
        with held(out) as lock:
            wanted = WantedRun(backbone, learnt, jobs, out, lock, pack_size, overwrite, save_every, shown, push, devices, fsdp)
            run = open_run(wanted) if fleet is None else fleet.open_run(wanted)
            with signals.remembered(shown.stopping) as run.stop:
                return run.go()


@contextmanager
def held(out: Path) -> Iterator[disk.Locked | None]:
    """A run's directory, held by the first process against others that would train into it; None in the others."""
    with ExitStack() as stack:
        with processes.sound("the directory"):
            lock = stack.enter_context(disk.locked(out)) if processes.is_first() else None
        yield lock
