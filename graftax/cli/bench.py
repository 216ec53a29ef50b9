"""`graftax bench`: run a suite, report on it, compare two."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import GraftaxError
from .arguments import fleets_for
from .dataclass_options import options_from_fields
from .options import ClusterOptions, LabelledOptions, NamedColumns, out_option

if TYPE_CHECKING:
    from ..benchmarks.suite import Suite

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
@options_from_fields
def bench(
    context: typer.Context,
    *,
    suite: Annotated[
        str, typer.Option(help="Name of a suite (quick, domains, text, pictures, vtab, ...), or a TOML file.")
    ] = "quick",
    out: Annotated[Path, out_option(help="Directory of the results, the adapters and the report.")] = Path("bench-output"),
    data: Annotated[
        Optional[list[Path]],
        typer.Option("--data", "-d", help="Your own labelled rows, once for each file: replaces the suite's tasks."),
    ] = None,
    test: Annotated[
        Optional[Path], typer.Option(help="Test rows of --data. Default: a quarter of the rows is held out.")
    ] = None,
    backbone: Annotated[
        Optional[list[str]], typer.Option("--backbone", "-b", help="Replaces the suite's; once for each.")
    ] = None,
    data_dir: Annotated[Optional[Path], typer.Option(help="Folder of the suite's files. Default: $GRAFTAX_DATA.")] = None,
    method: Annotated[
        Optional[list[str]], typer.Option("--method", "-m", help="Of the suite's methods only these; once for each.")
    ] = None,
    seeds: Annotated[Optional[int], typer.Option(help="Trainings at each method's best setting.")] = None,
    search: Annotated[
        Optional[str],
        typer.Option(
            help="For settings: widening, or halving (many short runs, ever fewer longer ones). Default: the suite's."
        ),
    ] = None,
    eta: Annotated[
        Optional[int],
        typer.Option(
            help="Of a halving: of so many settings one goes on, for so many times the length. Default: the suite's, or 3."
        ),
    ] = None,
    max_length: Annotated[
        Optional[int], typer.Option(help="Tokens of a text; longer ones are cut. Default: the suite's, with --data 128.")
    ] = None,
    normalisation: Annotated[
        Optional[str],
        typer.Option(help="Of pictures: imagenet or half (0.5 and 0.5). Default: the suite's, or the backbone's."),
    ] = None,
    peer: Annotated[
        Optional[list[str]],
        typer.Option(help="Run the final cells through this library, too: peft or adapters, in an environment of its own."),
    ] = None,
    shard: Annotated[Optional[str], typer.Option(metavar="I/N", help="Run the I-th of N parts; all into one --out.")] = None,
    columns: LabelledOptions,
    cluster: ClusterOptions,
) -> None:
    """Compare fine-tuning methods: which wins where, at what cost, and what cannot be told apart.

    Every method's learning rate and length are searched on validation rows until nothing near is better; then several seeds are
    trained on all rows and measured on test rows. Interrupt it, or kill it: the same command goes on.

        graftax bench --suite quick --out results
        graftax bench --data mine.csv --out mine
    """
    if context.invoked_subcommand is not None:
        return
    from ..benchmarks.peers import LIBRARIES
    from ..benchmarks.report import write_report
    from ..benchmarks.runner import Shard, run_suite
    from ..benchmarks.suite import load_suite

    chosen = load_suite(suite)
    if data_dir is not None:
        chosen = replace(chosen, data=str(data_dir.resolve()))
    if data:
        chosen = _of_rows(chosen, data, test, columns)
    if backbone:
        chosen = replace(chosen, backbones=tuple(str(Path(b).resolve()) if Path(b).is_dir() else b for b in backbone))
    if method:
        chosen = _of_methods(chosen, method)
    given: dict[str, Any] = {"seeds": seeds, "search": search, "eta": eta}
    given |= {"max_length": max_length, "normalisation": normalisation}
    chosen = replace(chosen, **{name: value for name, value in given.items() if value is not None})
    for name in peer or []:
        if name not in LIBRARIES:
            raise GraftaxError(f"--peer {name}: there are {', '.join(LIBRARIES)}.")
    part, fleet_of = _shard(shard, Shard), fleets_for(context, cluster)
    records = run_suite(chosen, out, shard=part, load=_load, fleet_of=fleet_of, peers=tuple(peer or ()))
    answer = write_report(out)
    print(f"\n{answer}\n\n{out / 'report.html'}")
    failed = [record for record in records if record.error]
    if failed:
        raise GraftaxError(f"{len(failed)} of {len(records)} cells failed, {failed[0].method} first: {failed[0].error}")


def _of_rows(suite: Suite, data: list[Path], test: Path | None, columns: NamedColumns) -> Suite:
    """The suite with the user's files for its tasks."""
    from ..benchmarks.suite import TaskSpec

    columns_and_test: dict[str, Any] = {"text": columns.text, "pair": columns.pair, "label": columns.label}
    if test is not None:
        if len(data) > 1:
            raise GraftaxError("--test is for one data file; with several a quarter of each is held out.")
        columns_and_test["test"] = str(test.resolve())
    tasks = {file.stem: TaskSpec(train=str(file.resolve()), **columns_and_test) for file in data}
    if len(tasks) < len(data):
        raise GraftaxError(f"two data files have the same name: {', '.join(file.stem for file in data)}.")
    usual: dict[str, Any] = {"sizes": ("all",), "general": None, "batch_size": 16, "max_length": 128}
    return replace(suite, name="+".join(tasks), description="", tasks=tasks, **usual)


def _of_methods(suite: Suite, names: list[str]) -> Suite:
    """The suite with some of its methods."""
    unknown = [name for name in names if name not in suite.methods]
    if unknown:
        raise GraftaxError(f"no method {', '.join(unknown)} in suite {suite.name}; it has {', '.join(suite.methods)}.")
    return replace(suite, methods={name: spec for name, spec in suite.methods.items() if name in names})


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a benchmark, all its shards in it.")],
) -> None:
    """Write the report of a directory anew: report.html, report.md, plots and results.parquet."""
    from ..benchmarks.report import write_report

    print(write_report(directory))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a benchmark.")],
    b: Annotated[Path, typer.Argument(metavar="DIR", help="Another's.")],
) -> None:
    """Two benchmarks side by side: what got better, worse, faster, slower."""
    from ..benchmarks.compare import compare as compared

    print(compared(a, b))


def _shard(text: str | None, shard: Any) -> Any:
    if text is None:
        return shard()
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise GraftaxError(f"--shard {text}: expected I/N, as in 1/4.")
    return shard(int(found[1]) - 1, int(found[2]))


def _load(name: str, **how: Any) -> Any:
    """A backbone; MiniLM, which the suites that come with graftax use, as the demo finds it."""
    from ..demo import HUB_ID, find_minilm
    from ..models.load import load_backbone

    return load_backbone(str(find_minilm()) if name == HUB_ID else name, **how)
