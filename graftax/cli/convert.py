"""The commands on adapter directories: `merge`, `combine`, `export`, `inspect`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Optional

import typer

from ..counted import counted
from ..errors import GraftaxError
from .arguments import parse_adapter, split_names
from .dataclass_options import options_from_fields
from .options import (
    AdapterOption,
    AdaptersOption,
    AnyBackboneOption,
    BackboneOption,
    ExactLoadingOptions,
    FormatName,
    LabelsOption,
    OutOption,
)
from .output import print_page


@options_from_fields
def merge(
    backbone: BackboneOption,
    adapter: AdapterOption,
    out: OutOption,
    *,
    labels: LabelsOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    any_backbone: AnyBackboneOption = False,
    loading: ExactLoadingOptions,
) -> None:
    """Fold an adapter into the weights: a plain Hugging Face directory that transformers loads."""
    from ..models.load import load_backbone
    from ..serve.export import export_merged

    drift = export_merged(
        load_backbone(backbone, **asdict(loading)),
        parse_adapter(adapter).location,
        out,
        labels=split_names(labels),
        overwrite=overwrite,
        any_backbone=any_backbone,
    )
    print(f"{out}: largest difference of the logits to the unmerged adapter's {drift:.1e}")


@options_from_fields
def combine(
    backbone: BackboneOption,
    adapter: AdaptersOption,
    out: OutOption,
    *,
    weight: Annotated[
        Optional[list[float]],
        typer.Option("--weight", "-w", help="Once per adapter, in their order. Default: equal, their sum 1."),
    ] = None,
    how: Annotated[str, typer.Option(help="linear, cat, svd, ties, dare_linear, dare_ties or magnitude_prune.")] = "linear",
    rank: Annotated[Optional[int], typer.Option(help="Cut the result at this rank.")] = None,
    energy: Annotated[Optional[float], typer.Option(help="Cut where this share of the change's energy is kept.")] = None,
    density: Annotated[Optional[float], typer.Option(help="Share of entries ties, dare_*, magnitude_prune keep.")] = None,
    seed: Annotated[int, typer.Option(help="Of what dare_* drops.")] = 0,
    head: Annotated[int, typer.Option(help="The adapter (from 1) whose head and labels are kept; 0: no head.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    any_backbone: AnyBackboneOption = False,
    loading: ExactLoadingOptions,
) -> None:
    """Combine adapters into one LoRA, or turn one into a LoRA of another rank."""
    from ..adapters.combining import combine as combined
    from ..adapters.files import load_adapter, save_adapter
    from ..models.load import load_backbone

    if not 0 <= head <= len(adapter):
        raise GraftaxError(f"--head {head}: it is the number of none of {counted(len(adapter), 'adapter')}.")
    loaded = load_backbone(backbone, **asdict(loading))
    adapters = [load_adapter(parse_adapter(text).location, loaded, any_backbone=any_backbone) for text in adapter]
    weights = weight or [1.0 / len(adapters)] * len(adapters)
    settings: dict[str, Any] = {"rank": rank, "energy": energy, "density": density, "seed": seed}
    made = combined(adapters, weights, how, head=head - 1 if head else None, **settings)
    save_adapter(made, out, loaded, overwrite=overwrite)
    print(f"{out}: a LoRA of rank {made.methods[0].size(next(iter(made.states['lora'])))}")


@options_from_fields
def export(
    backbone: BackboneOption,
    adapter: AdapterOption,
    out: OutOption,
    *,
    format: Annotated[FormatName, typer.Option(help="Of the files written; graftax's are PEFT's where PEFT has the method.")],
    name: Annotated[Optional[str], typer.Option(help="The adapter's in `adapters`. Default: as --adapter.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    any_backbone: AnyBackboneOption = False,
    loading: ExactLoadingOptions,
) -> None:
    """Write an adapter as another library's files: those of AdapterHub's `adapters`, or graftax's and PEFT's."""
    from ..adapters.files import export_adapter, load_adapter, save_adapter
    from ..models.load import load_backbone

    loaded = load_backbone(backbone, **asdict(loading))
    named = parse_adapter(adapter)
    read = load_adapter(named.location, loaded, any_backbone=any_backbone)
    if format is FormatName.adapters:
        export_adapter(read, out, loaded, name=name or named.name, overwrite=overwrite)
    else:
        save_adapter(read, out, loaded, overwrite=overwrite)
    print(f"{out}: {'+'.join(method.name for method in read.methods)}, {counted(read.parameters, 'parameter')}")


def inspect(
    adapter: Annotated[
        str, typer.Argument(metavar="DIR", help="Adapter directory, graftax's, PEFT's or AdapterHub's, or a Hub id.")
    ],
) -> None:
    """Show what an adapter file holds; needs no backbone."""
    from ..adapters.inspect import describe

    print_page(describe(adapter))
