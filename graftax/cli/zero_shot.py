"""`graftax zero-shot`: a classifier of pictures from the names of its classes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Optional

import typer

from ..counted import counted
from ..errors import GraftaxError
from .arguments import parse_adapter
from .dataclass_options import options_from_fields
from .options import BackboneOption, ExactLoadingOptions, OutOption, one_adapter


@options_from_fields
def zero_shot(
    backbone: BackboneOption,
    name: Annotated[list[str], typer.Option("--name", help="Of a class, as a text would say it; once for each.")],
    out: OutOption,
    more_names: Annotated[Optional[list[str]], typer.Argument(metavar="NAME", help="More of them.")] = None,
    adapter: Annotated[Optional[str], one_adapter] = None,
    *,
    prompt: Annotated[
        Optional[list[str]],
        typer.Option(
            help="A text with {} where the name stands; of several, the mean. Default: the one that the adapter was trained "
            "with, or else: a photo of a {}."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    loading: ExactLoadingOptions,
) -> None:
    """Make a classifier of pictures from names alone, with a pair of towers: --tower both, or --text-tower.

    --adapter is one of the pair, of task contrastive. What is written is an adapter of the tower of pictures.

        graftax zero-shot -b clip --tower both --name cat dog -o named
        graftax predict -b clip --tower image -a named -i new
    """
    from ..adapters.files import save_adapter
    from ..models.load import load_backbone
    from ..models.pairs import PairConfig, tower_of
    from ..serve.named_classes import zero_shot as named

    both = load_backbone(backbone, **asdict(loading))
    if not isinstance(both.config, PairConfig):
        raise GraftaxError(f"{both.name} alone knows no names: give --tower both, or --text-tower.")
    image = tower_of(both, "image")
    located, names = None if adapter is None else parse_adapter(adapter).location, [*name, *(more_names or [])]
    made = named(image, both, names, prompts=prompt, adapter=located)
    save_adapter(made, out, image, overwrite=overwrite)
    print(f"{out}: {counted(len(names), 'class', 'classes')}, for {image.name}")
