"""`graftax across`: a classifier that was trained on texts, of pictures; or the other way round."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..counted import counted
from .arguments import parse_adapter, rows_to_read
from .dataclass_options import options_from_fields
from .options import AdapterOption, BackboneOption, ExactLoadingOptions, OutOption


@options_from_fields
def across(
    backbone: BackboneOption,
    adapter: AdapterOption,
    out: OutOption,
    *,
    texts: Annotated[
        Optional[Path], typer.Option(help='JSON lines {"text": ...}, and with --pictures: how far the two towers lie apart.')
    ] = None,
    pictures: Annotated[Optional[Path], typer.Option(help="A folder of pictures, without classes.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    loading: ExactLoadingOptions,
) -> None:
    """Make of a head that was trained at one tower of a pair (--tower both) one at the other.

    What was learnt of texts classifies pictures then. The head is one of vectors: --method head --option site=head.vector.

        graftax train -b clip --tower text --data said.csv --method head --option site=head.vector -o heads
        graftax across -b clip --tower both -a heads/said -o of-pictures
        graftax predict -b clip --tower image -a of-pictures -i new
    """
    from ..adapters.files import save_adapter
    from ..models.load import load_backbone
    from ..models.pairs import tower_of
    from ..serve.other_tower import across as carried

    pair = load_backbone(backbone, **asdict(loading))
    files = {"text": texts, "image": pictures}
    rows = {
        name: rows_to_read([file], [], tower_of(pair, name).processor)[0] if file is not None else None
        for name, file in files.items()
    }
    made = carried(pair, parse_adapter(adapter).location, texts=rows["text"], pictures=rows["image"])
    tower = tower_of(pair, "image" if made.task == "image-classify" else "text")
    save_adapter(made, out, tower, overwrite=overwrite)
    print(f"{out}: {counted(len(made.labels), 'class', 'classes')}, for {tower.name}")
