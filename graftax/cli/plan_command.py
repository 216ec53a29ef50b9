"""`graftax plan`: what fits on an accelerator that is not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..counted import counted
from ..errors import GraftaxError
from .options import BackboneOption

if TYPE_CHECKING:
    from ..benchmarks.accelerators.training_plan import TrainingPlan


def plan(
    backbone: BackboneOption,
    device: Annotated[str, typer.Option(help="h100, a100, v5e or v6e.")],
    slots: Annotated[int, typer.Option(min=1, help="Adapters that are trained at once.")] = 8,
    rows: Annotated[int, typer.Option(min=1, help="Batch rows, or pictures, in the batch of each.")] = 4,
    seq: Annotated[int, typer.Option(min=1, help="Tokens of a batch row, in which several texts may lie.")] = 1024,
    method: Annotated[str, typer.Option("--method", "-m", help="As of graftax train.")] = "lora",
    rank: Annotated[Optional[int], typer.Option(min=1, help="Of LoRA and its kin.")] = None,
    target: Annotated[Optional[str], typer.Option(help="Regex over module paths. Default: the method's own.")] = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Spread the adapters over so many, of one host or one slice; each has as many of them.")
    ] = 1,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Let these devices share the frozen weights.")] = False,
    tensor_parallel_size: Annotated[
        int, typer.Option(min=1, help="Devices that share the weights and compute every adapter together.")
    ] = 1,
    dtype: Annotated[str, typer.Option(help="Of the frozen weights: bfloat16 or float32.")] = "bfloat16",
    quantize: Annotated[Optional[str], typer.Option(help="Hold the frozen kernels as int8 or nf4.")] = None,
    remat: Annotated[
        Optional[str],
        typer.Option(help="What a step computes again: none, products or layers. Default: as of graftax train."),
    ] = None,
) -> None:
    """Say whether so many adapters can be trained at once on a GPU or TPU, before one is rented.

    The step's program is compiled for the device, which need not be there, and its memory is what the compiler says. Of the
    backbone its config.json is enough. It needs JAX's compiler for the device: pip install 'jax[cuda13]' or 'jax[tpu]'.

        graftax plan -b meta-llama/Llama-3.2-1B --device h100 --slots 64
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what computes here; JAX would look for the device of a plugin
    from ..adapters.methods.named import make_method
    from ..benchmarks.accelerators.described_devices import described
    from ..benchmarks.accelerators.training_plan import WantedTraining, smaller_plans, training_plan
    from ..json_files import read_object
    from ..models.checkpoint import config_file, find_backbone
    from ..models.quantised import QTYPES
    from ..models.stack import REMAT

    remat = ("layers" if quantize or fsdp else "none") if remat is None else remat
    if fsdp and devices == 1:
        raise GraftaxError("--fsdp: one device has nobody to share weights with; say how many there are with --devices.")
    if tensor_parallel_size > 1 and devices > 1:
        raise GraftaxError(
            "--devices have adapters of their own, --tensor-parallel-size has all of them on each: leave out one."
        )
    slots = -(-slots // devices) * devices  # as graftax train has it
    choices = [("dtype", dtype, ("bfloat16", "float32")), ("quantize", quantize, QTYPES), ("remat", remat, REMAT)]
    for name, chosen, there in choices:
        if chosen is not None and chosen not in there:
            raise GraftaxError(f"--{name} {chosen!r} is none of {', '.join(there)}.")
    directory = find_backbone(backbone, "main")
    config = read_object(config_file(Path(directory)), f"{backbone}: no backbone there, it has no config.json.")
    made = make_method(method, rank=rank, target=target)
    methods = () if made is None else made if isinstance(made, tuple) else (made,)
    found = training_plan(
        WantedTraining(config, methods, slots, rows, seq, dtype, remat, quantize, devices, fsdp, tensor_parallel_size),
        described(device),
    )
    print(said(found, backbone))
    if found.fits:
        return
    for smaller in smaller_plans(found):
        if smaller.fits:
            print(f"\nThis does:\n{said(smaller, backbone)}")
            return
    print("\nNothing that was tried does: fewer rows, shorter ones, or a larger device are left.")
    raise typer.Exit(1)


def said(plan: TrainingPlan, backbone: str) -> str:
    """A plan in lines."""
    wanted, memory = plan.wanted, plan.device.memory
    length = 1 if wanted.pictures else wanted.length
    each = counted(wanted.rows, "picture") if wanted.pictures else f"{counted(wanted.rows, 'row')} of {length:,} tokens"
    again = {"none": "", "products": ", all but products computed again", "layers": ", layers computed again"}[wanted.remat]
    lines = [
        f"{Path(backbone).name} in {wanted.quantize or wanted.dtype} on {_devices(plan)}: "
        f"{counted(wanted.slots, 'adapter')} at once, {each} each{again}",
        f"  frozen weights        {_amount(plan.weights)}",
        f"  adapters, moments     {_amount(plan.pack)}",
        f"  gradients             {_amount(plan.gradients)}",
    ]
    if plan.temporaries is None or plan.roofline is None:
        return "\n".join([*lines, "  temporaries           more than the device has, by its compiler"])
    verdict = "fits" if plan.fits else "does not fit"
    seconds, bound = plan.roofline.seconds, plan.roofline.bound
    most, what = wanted.slots * wanted.rows * length / seconds, "pictures" if wanted.pictures else "tokens"
    lines += [
        f"  temporaries           {_amount(plan.temporaries)}  (compiled)",
        f"  in all                {_amount(plan.in_all)}  of {memory / 1e9:.0f} GB: {verdict}, with a tenth left over",
        f"  a step at least       {seconds * 1e3:7.1f} ms  by {bound}: at most {most:,.0f} {what}/s (computed)"
        + (", without what devices exchange" if wanted.fsdp or wanted.tensor_parallel_size > 1 else ""),
    ]
    return "\n".join(lines)


def _devices(plan: TrainingPlan) -> str:
    wanted = plan.wanted
    if wanted.tensor_parallel_size > 1:
        return f"each of {wanted.tensor_parallel_size} {plan.device.title} that compute every adapter together"
    if wanted.devices == 1:
        return f"one {plan.device.title}"
    return f"each of {wanted.devices} {plan.device.title}" + (" that share the weights" if wanted.fsdp else "")


def _amount(count: int) -> str:
    return f"{count / 1e9:7.2f} GB"
