"""The command line: a file per group of commands. `graftax COMMAND --help` teaches; `graftax/__main__.py` runs them."""

from __future__ import annotations

import typer

from . import bench, files, lists, train, use

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train many small adapters on one frozen backbone, and use a different one in every row of a batch.",
    epilog="Start with:  graftax demo",
)
app.command()(train.train)
app.command(name="eval")(use.evaluate)
app.command()(use.predict)
app.command()(use.generate)
app.command()(files.merge)
app.command()(files.combine)
app.command()(files.export)
app.command()(files.inspect)
app.command()(lists.methods)
app.command()(lists.backbones)
app.command()(lists.demo)
app.add_typer(bench.app, name="bench")
