"""`graftax few-shot`: a classifier of pictures from the names of its classes and a few pictures of each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..counted import counted
from ..errors import GraftaxError
from .arguments import columns_of, is_given, parse_adapter
from .dataclass_options import options_from_fields
from .options import AdapterOption, BackboneOption, ColumnOption, ExactLoadingOptions, LabelledOptions, OutOption


@options_from_fields
def few_shot(
    context: typer.Context,
    backbone: BackboneOption,
    adapter: AdapterOption,
    out: OutOption,
    data: Annotated[
        Optional[Path], typer.Option("--data", "-d", help="Pictures with labels that are the names: all of them are kept.")
    ] = None,
    *,
    method: Annotated[
        str, typer.Option(help="tip_adapter, which keeps the pictures; or clip_adapter, to be trained, which needs none.")
    ] = "tip_adapter",
    alpha: Annotated[float, typer.Option(help="Of tip_adapter: how much the pictures count beside the names.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Of tip_adapter: how near a picture must be to count.")] = 5.5,
    ratio: Annotated[float, typer.Option(help="Of clip_adapter: how much of what is compared is learnt.")] = 0.2,
    reduction: Annotated[int, typer.Option(help="Of clip_adapter: how many times narrower its bottleneck is.")] = 4,
    seed: Annotated[int, typer.Option(help="Of clip_adapter: what it starts with is drawn from it.")] = 0,
    columns: LabelledOptions,
    column: ColumnOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    loading: ExactLoadingOptions,
) -> None:
    """Put a few labelled pictures beside classes by their names, which zero-shot has written: Tip-Adapter, CLIP-Adapter.

    What is written can be trained on (train --adapter); tip_adapter need not be.

        graftax few-shot -b clip --tower image -a named --data pets -o kept
        graftax train -b clip --tower image --task image-classify --data pets --adapter kept -o trained
    """
    from ..adapters.files import save_adapter
    from ..models.load import load_backbone
    from ..serve.few_pictures import clip_adapter, tip_adapter

    ours = {"tip_adapter": ("alpha", "beta"), "clip_adapter": ("ratio", "reduction", "seed")}
    if method not in ours:
        raise GraftaxError(f"--method {method!r}: use {' or '.join(ours)}.")
    others = {name for other, names in ours.items() if other != method for name in names}
    if given := [name for name in sorted(others) if is_given(context, name)]:
        raise GraftaxError(f"--{given[0]} is no option of {method}.")
    if (data is None) == (method == "tip_adapter"):
        raise GraftaxError(
            f"{method} {'keeps pictures: give --data' if data is None else 'is trained on pictures later, by train'}."
        )
    read = columns_of(context, columns, column)
    pictures = load_backbone(backbone, **asdict(loading))
    named = parse_adapter(adapter).location
    if data is not None:
        made = tip_adapter(pictures, named, data, columns=read, alpha=alpha, beta=beta)
    else:
        made = clip_adapter(pictures, named, reduction=reduction, ratio=ratio, seed=seed)
    save_adapter(made, out, pictures, overwrite=overwrite)
    print(f"{out}: {method} for {counted(len(made.labels), 'class', 'classes')}, for {pictures.name}")
