"""The command `explain`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import GraftaxError
from .arguments import columns_of, parse_adapter, rows_to_read, split_names
from .dataclass_options import options_from_fields
from .options import (
    AnyBackboneOption,
    BackboneOption,
    ColumnOption,
    LabelledOptions,
    LabelsOption,
    LoadingOptions,
    MoreInputs,
    OutOption,
)
from .output import print_json

if TYPE_CHECKING:
    from ..adapters.adapter import Adapter
    from ..models.backbone import Backbone
    from ..serve.explaining.explanation import Explanation


class WayName(StrEnum):
    """Those of `serve/explaining/ways.py`, which the help must not wait for."""

    integrated_gradients = "integrated-gradients"
    rollout = "rollout"
    grad_cam = "grad-cam"


@options_from_fields
def explain(
    context: typer.Context,
    backbone: BackboneOption,
    out: OutOption,
    more_input: MoreInputs = None,
    adapter: Annotated[
        Optional[str],
        typer.Option(
            "--adapter",
            "-a",
            metavar="[NAME=]DIR",
            help="Adapter; without one the checkpoint's own head is explained.",
        ),
    ] = None,
    *,
    input: Annotated[
        Optional[list[Path]],
        typer.Option("--input", "-i", help='Pictures, and folders of them; or JSON lines {"text": ...}, - for stdin.'),
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", "-d", help="Rows with labels, as for training, in place of --input.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows of --data, spread evenly over it.")] = 8,
    method: Annotated[
        Optional[WayName],
        typer.Option(help="Default: integrated-gradients of texts, rollout of a Transformer's patches, else grad-cam."),
    ] = None,
    target: Annotated[
        Optional[str], typer.Option(metavar="LABEL", help="The label that is explained. Default: of each row its answer.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Points at which integrated gradients take the derivative.")] = 32,
    draws: Annotated[
        int, typer.Option(min=0, help="Random orders beside which deletion and insertion are seen; 0: neither is computed.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of these.")] = 0,
    columns: LabelledOptions,
    column: ColumnOption = None,
    labels: LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found of each row as a line of JSON.")] = False,
    any_backbone: AnyBackboneOption = False,
    loading: LoadingOptions,
) -> None:
    """Show what in pictures or texts made an adapter answer as it did, and what it changed.

    Beside the answer stands that of the same backbone with the adapter's head alone. OUT/explain.html is a page; of each
    picture there are PNGs beside it.

        graftax explain -b mobilenet -a adapters/pets --input a.jpg b.jpg --out seen
    """
    from ..adapters.files import load_adapter
    from ..models.load import load_backbone
    from ..serve.explaining.explainer import explain as explained
    from ..serve.explaining.explanations import expect_place

    inputs = [*(input or []), *(more_input or [])]
    if bool(inputs) == (data is not None):
        raise GraftaxError("give --input, pictures or rows, or --data.")
    expect_place(out)  # before anything is computed
    loaded = load_backbone(backbone, **asdict(loading))
    named = None if adapter is None else parse_adapter(adapter)
    own = loaded.own_head if named is None else load_adapter(named.location, loaded, any_backbone=any_backbone)
    if own is None:
        raise GraftaxError("give --adapter: this checkpoint brings no head of its own.")
    truths = None
    if data is not None:
        given, truths = _labelled(loaded, own, data, columns_of(context, columns, column), split_names(labels), rows)
    else:
        given, wanted = rows_to_read(inputs, [] if named is None else [named], loaded.processor)
        if other := next((what for what in wanted if what != (named and named.name)), None):
            raise GraftaxError(f"a row names {other}; what is explained is one adapter, which --adapter names.")
    found = explained(
        loaded,
        None if named is None else own,
        given,
        method=method and method.value,
        target=target,
        labels=split_names(labels),
        truths=truths,
        name=named and named.name,
        any_backbone=any_backbone,
        steps=steps,
        draws=draws,
        seed=seed,
    )
    page = found.write(out)
    for row in found.rows:
        if as_json:
            print_json(row.record())
        else:
            print(_line(row))
    print(f"page: {page}", file=sys.stderr)


def _labelled(
    backbone: Backbone, adapter: Adapter, data: Path, columns: Any, labels: list[str] | None, count: int
) -> tuple[list[Any], list[str]]:
    """Some rows of labelled data, spread evenly, and their labels as texts."""
    import numpy as np

    from ..adapters.fitting import names_for
    from ..serve.evaluation import rows_asked
    from ..serve.explaining.explainer import told
    from ..tasks.read_examples import read_examples
    from ..tasks.task_registry import task_named

    names = names_for(adapter, labels, "the adapter")
    examples = read_examples(data, columns, task_named(adapter.task), backbone.processor, names)
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)).tolist()
    some = examples.take(chosen)
    return rows_asked(some, backbone.processor), [told(label) for label in some.labels or ()]


def _line(row: Explanation) -> str:
    """What was found of a row, in a line."""
    from ..errors import in_a_line
    from ..serve.explaining.said import between
    from ..serve.report.findings import number

    label = f"{row.label} {number(row.seen.said)}" if row.label else number(row.seen.said)
    told = [f"{row.name or f'row {row.row}'}: {label}"]
    if row.without is not None:
        told.append(f"without the adapter's changes {number(row.without.said)}")
    if row.curves is not None:
        told.append(f"deletion {number(row.curves.deletion_area)}, at random {between(row.curves.random_deletions)}")
        told.append(f"insertion {number(row.curves.insertion_area)}, at random {between(row.curves.random_insertions)}")
    return in_a_line("; ".join(told))
