"""What the command line's arguments mean: a TOML file, validation rows, rows on standard input."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from ..errors import GraftaxError
from ..paths import expect_file
from ..typed import shown
from .options import NamedColumns, OverCluster, column_option

if TYPE_CHECKING:
    from ..data.columns import Columns
    from ..hub.runs import Under
    from ..models.processor import Processor
    from ..store.version import Version
    from ..train.fleet import Fleet


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """General settings of a TOML file, and those of single adapters."""
    from ..toml_files import read_toml

    content = read_toml(path)
    each = content.pop("adapters", {})
    if not isinstance(each, dict) or not all(isinstance(table, dict) for table in each.values()):
        raise GraftaxError(f"{path}: [adapters.NAME] must be tables.")

    def plain(table: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("-", "_"): value for name, value in table.items()}

    return plain(content), {name: plain(table) for name, table in each.items()}


def use_config(context: typer.Context, path: Path | None) -> Path | None:
    """The settings of a TOML file become the defaults of the options: what the command line says wins."""
    if path is not None:
        general, _ = read_config(path)
        known = [p.name for p in context.command.params if p.name not in ("config", "help", "more_data")]
        unknown = [name for name in general if name not in known]
        if unknown:
            raise GraftaxError(f"{path}: no such setting: {', '.join(unknown)}; there are {', '.join(map(str, known))}.")
        switches = {p.name for p in context.command.params if getattr(p, "is_flag", False)}
        for name, value in general.items():
            if isinstance(value, bool) != (name in switches):
                takes = "true or false" if name in switches else "a value, and is no switch"
                raise GraftaxError(f"{path}: {name} takes {takes}, got {shown(value)}.")
        context.default_map = general
    return path


def fleets_for(context: typer.Context, cluster: OverCluster) -> Callable[..., Fleet] | None:
    """The machines of the cluster that is asked for, as `ray_fleets` has them until the command ends; None where none is."""
    if cluster.ray is None:
        return None
    import jax

    from ..fleet.on_ray import ray_fleets

    jax.config.update("jax_platforms", "cpu")  # accelerators are for the workers
    return context.with_resource(ray_fleets(cluster.ray, cpus=cluster.ray_cpus))


def read_val(val: str | None, files: list[Path]) -> Any:
    """A fraction, or the validation file of each data file, or the folder of a folder."""
    from ..data.sources import name_of

    if val is None:
        return None
    if not val.strip():
        raise GraftaxError("--val is empty: give a share of the rows, a file, or a directory.")
    try:
        return float(val)
    except ValueError:
        path = Path(val)
    inside = {name_of(file): path / file.name for file in files}
    of_a_folder = len(files) == 1 and files[0].is_dir() and not (path / files[0].name).exists()
    if path.is_dir() and not of_a_folder:
        return inside
    if len(files) > 1:
        raise GraftaxError(f"--val {val}: with several data files give a fraction or a directory with a file for each.")
    return dict.fromkeys(inside, path)


def read_stdin() -> list[dict[str, Any]]:
    """Rows as JSON lines on standard input."""
    from ..data.sources import parse_json_lines
    from ..data.text_files import decoded

    name = "standard input"
    text = decoded(sys.stdin.buffer.read(), name) if isinstance(sys.stdin, io.TextIOWrapper) else sys.stdin.read()
    return parse_json_lines(text, name)


def columns_of(context: typer.Context, own: NamedColumns, more: Sequence[str] | None) -> Columns:
    """The columns that a command's own options name (--text-column, ...), and those of --column FIELD=NAME, `more`."""
    from ..data.columns import Columns

    columns: dict[str, str | None] = {}
    for text in more or ():
        field, _, column = text.partition("=")
        if not field or not column:
            raise GraftaxError(f"--column {text!r}: expected FIELD=NAME, as in text=question.")
        if field in columns or is_given(context, column_option(field)):
            raise GraftaxError(f"--column {text!r}: the column of {field!r} is named twice.")
        columns[field] = column
    given = {field: column for field, column in dataclasses.asdict(own).items() if is_given(context, column_option(field))}
    return Columns(**given | columns)


def is_given(context: typer.Context, option: str) -> bool:
    """Whether somebody gave an option, on the command line or in its file of settings."""
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def chat_template_of(given: Any) -> Any:
    """A template's name as it is, or the text in a file."""
    from ..data.text_files import read_text
    from ..models.chat import AS_TRAINED, TEMPLATES

    if not isinstance(given, str) or given in (*TEMPLATES, AS_TRAINED):  # what is no text, a TOML file can say
        return given
    expect_file(Path(given), f"--chat-template {given}: no such file, and none of {', '.join(TEMPLATES)}.")
    return read_text(Path(given))


class Named(NamedTuple):
    """An adapter as the command line names it."""

    name: str
    location: str  # directory, name on a hub or Hub id


def parse_adapter(text: str) -> Named:
    """[NAME=]DIR, or a name on a hub in place of DIR; without a name it is called by the last part of where it is."""
    from ..adapters.located import called

    name, equals, location = text.partition("=")
    if not equals or "/" in name or Path(text).is_dir():  # a path may hold a =
        name, location = called(text), text
    if not name or not location:
        raise GraftaxError(f"--adapter {text!r}: expected NAME=DIR or DIR.")
    return Named(name, location)


def version_to_record(named: Named | None) -> Version:
    """The version on the hub whose measurement is to be kept there."""
    from ..hub.hub import Hub

    if named is None or Path(named.location).exists():
        raise GraftaxError("--record keeps the metrics of an adapter on a hub; name it as it is called there.")
    return Hub().resolve(named.location)


def shelf_for(prefix: str, names: list[str]) -> Under:
    """The place on the hub where adapters of these names are put; an error before anything is loaded where they cannot be."""
    from ..hub.hub import Hub

    shelf = Hub().under(prefix)
    shelf.expect(names)
    return shelf


def parse_adapters(texts: Iterable[str]) -> list[Named]:
    """Several, of different names."""
    named = [parse_adapter(text) for text in texts]
    twice = [one.name for i, one in enumerate(named) if one.name in [other.name for other in named[:i]]]
    if twice:
        raise GraftaxError(f"two adapters are called {twice[0]!r}; call one of them otherwise, with --adapter NAME=DIR.")
    return named


def split_names(labels: str | None) -> list[str] | None:
    """Label names from a text with commas; None where none is given."""
    return None if labels is None else [name.strip() for name in labels.split(",")]


def rows_to_read(files: list[Path], named: list[Named], processor: Processor) -> tuple[list[Any], list[Any]]:
    """The rows of files, one behind another, or of standard input; and the adapter or composition of each."""
    from ..data.sources import Source, read_file
    from ..serve.composition import from_json

    rows, wanted = list[Any](), list[Any]()
    for file in files:
        source = Source("-", read_stdin()) if str(file) == "-" else read_file(file)
        rows += [processor.told(row, f"{file}: row {i + 1}", source.folder) for i, row in enumerate(source.rows)]
        wanted += [from_json(what) for what in _named_by(source.rows, [one.name for one in named], str(file))]
    return rows, wanted


def _named_by(rows: Sequence[Mapping[str, Any]], loaded: Sequence[str], source: str) -> list[Any]:
    """What each row has under "adapter"; without that the one adapter that is loaded, or none where none is."""
    silent = next((i for i, row in enumerate(rows) if "adapter" not in row), None)
    if silent is not None and len(loaded) > 1:
        known = ", ".join(loaded)
        raise GraftaxError(f'{source}: row {silent + 1} names no "adapter"; loaded are {known}, and null stands for none.')
    return [row.get("adapter", loaded[0] if loaded else None) for row in rows]


def rows_to_continue(prompts: list[str], names: list[str], file: Path | None) -> list[tuple[Any, Any]]:
    """Prompts and what continues each: every adapter every prompt, or as the lines of a file say.

    A prompt is a text, or a chat; of one that ends with the assistant's message, what comes before that.
    """
    from ..data.chats import chat_in
    from ..data.sources import read_file
    from ..serve.composition import from_json

    if bool(prompts) == (file is not None):
        raise GraftaxError("give --prompt, once or more, or --input.")
    if file is None:
        each: list[str | None] = list(names) if names else [None]
        return [(prompt, name) for name in each for prompt in prompts]
    rows = read_stdin() if str(file) == "-" else read_file(file).rows
    asked: list[Any] = []
    for i, row in enumerate(rows):
        if "messages" in row:
            messages = chat_in(row, "messages", i, str(file))
            asked.append(messages[:-1] if messages[-1]["role"] == "assistant" else messages)
        elif isinstance(row.get("prompt"), str):
            asked.append(row["prompt"])
        else:
            raise GraftaxError(f'{file}: row {i + 1} has neither "prompt" nor "messages".')
    return [(prompt, from_json(what)) for prompt, what in zip(asked, _named_by(rows, names, str(file)), strict=True)]
