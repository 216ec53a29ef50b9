"""The command line: a file per group of commands. `graftax COMMAND --help` teaches; `graftax/__main__.py` runs them."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ..signals import heard_at_once
from . import (
    across_command,
    bench,
    convert,
    explain_command,
    few_shot,
    hub_commands,
    lists,
    loadtest_command,
    plan_command,
    serve_command,
    train,
    use,
    zero_shot,
)
from .waiting import waiting

ASKING = (
    "eval",
    "predict",
    "embed",
    "generate",
    "explain",
    "zero-shot",
    "few-shot",
    "across",
)  # these compile, and have no bars to say it
TRAINING = ("train", "bench", "demo")  # these save what they have when they are interrupted


def say_version(wanted: bool) -> None:
    if wanted:
        print(f"graftax {__version__}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train many small adapters on one frozen backbone, and use a different one in every row of a batch.",
    epilog="Start with:  graftax demo",
)


@app.callback()
def graftax(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and exit.", callback=say_version, is_eager=True)
    ] = False,
) -> None:
    """What goes before a command."""
    if context.invoked_subcommand in TRAINING:
        context.with_resource(heard_at_once())
    if context.invoked_subcommand in ("train", *ASKING):
        context.with_resource(waiting(compiles=context.invoked_subcommand in ASKING))


app.command()(train.train)
app.command(name="eval")(use.evaluate)
app.command()(use.predict)
app.command()(use.embed)
app.command()(use.generate)
app.command()(explain_command.explain)
app.command()(serve_command.serve)
app.command()(loadtest_command.loadtest)
app.command()(convert.merge)
app.command()(convert.combine)
app.command()(convert.export)
app.command()(convert.inspect)
app.command(name="zero-shot")(zero_shot.zero_shot)
app.command(name="few-shot")(few_shot.few_shot)
app.command()(across_command.across)
app.command()(plan_command.plan)
app.command()(lists.methods)
app.command()(lists.backbones)
app.command()(lists.demo)
app.add_typer(bench.app, name="bench")
app.add_typer(hub_commands.app, name="hub")
