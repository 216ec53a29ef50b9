"""`graftax serve --ray` as an application that Ray Serve makes itself, of what a file says.

    applications:
      - name: graftax
        import_path: graftax.cli.ray_service:application
        args: {backbone: /shared/base, hub: s3://team/hub, replicas: 2-8, replica_gpus: 1}

What can be said under `args` are the options of the command, and they are read by the command: its defaults, checks and errors
are these. Where Ray Serve listens is for all that it serves, and stands elsewhere in the file. Whether replicas take a GPU must
be said, for this is read when machines are still to come, and those that are there may have none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer
from ray.serve import Application
from typer.main import get_command

from ..errors import GraftaxError
from ..tuning.training_settings import TrainingSettings
from ..typed import shown
from .serve_command import serve
from .usage import usage_line

if TYPE_CHECKING:
    from ..fleet.ray_serving import ReplicatedServer

_program = typer.Typer(add_completion=False)
_program.command("graftax serve")(serve)
_COMMAND = get_command(_program)
#: Options of the command that are not the application's, and whose they are.
_OTHERS = {
    **dict.fromkeys(("ray", "host", "port"), "Ray Serve's own (http_options)"),
    **dict.fromkeys(("ssl_certfile", "ssl_keyfile"), "Ray Serve's own (ssl_certfile, ssl_keyfile of http_options)"),
    **dict.fromkeys(("training", "otlp_traces_endpoint", "allow_path"), "for a server of one process"),
    **dict.fromkeys((one.name for one in dataclasses.fields(TrainingSettings)), "for a server of one process"),
}
_OPTIONS = {str(option.name): option for option in _COMMAND.params if option.name not in _OTHERS}


def application(args: dict[str, Any]) -> Application:
    """The application that `graftax serve --ray` would begin; `args`: its options by their names, as in `replica_cpus`.

    Raises GraftaxError for what is none of them, and for what the command refuses.
    """
    made: list[ReplicatedServer] = []
    if "replica_gpus" not in {name.replace("-", "_") for name in args}:
        raise GraftaxError(
            "replica_gpus is missing: 1, or 0 where replicas compute on CPUs; machines that have them may come later."
        )
    try:
        _COMMAND.main(["--ray=auto", *_words(args)], prog_name="graftax serve", standalone_mode=False, obj=made.append)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise GraftaxError(usage_line(error)) from error
    (server,) = made
    return server.application()


def _words(args: Mapping[str, Any]) -> Iterator[str]:
    """Options by their names as a command line has them."""
    for said, value in args.items():
        name = said.replace("-", "_")
        if name in _OTHERS:
            raise GraftaxError(f"{said} is no argument of the application: it is {_OTHERS[name]}.")
        if name not in _OPTIONS:
            raise GraftaxError(f"{said} is no argument of the application; there are {', '.join(_OPTIONS)}.")
        option = _OPTIONS[name]
        if getattr(option, "is_flag", False):
            yield _switched(said, value, option.opts[0], option.secondary_opts[0])
            continue
        for one in value if isinstance(value, list) and option.multiple else [value]:
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                several = " or a list of these" if option.multiple else ""
                raise GraftaxError(f"{said} must be a text or a number{several}, got {shown(value)}.")
            yield f"{option.opts[0]}={one}"


def _switched(name: str, value: Any, on: str, off: str) -> str:
    """A switch as a word; `serve run` hands all values on as texts."""
    given = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(given, bool):
        raise GraftaxError(f"{name} must be true or false, got {shown(value)}.")
    return on if given else off
