"""`graftax loadtest`: a server measured under requests for many adapters, each answer checked."""

from __future__ import annotations

import asyncio
import re
import sys
from enum import StrEnum
from typing import Annotated, Optional

import typer

from ..errors import GraftaxError
from ..serve.loadtest.workload import Workload
from .dataclass_options import OptionPerField, options_from_fields
from .output import print_json


class Kind(StrEnum):
    completions = "completions"
    classify = "classify"
    embeddings = "embeddings"


@options_from_fields
def loadtest(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server, such as http://127.0.0.1:8000.")],
    *,
    adapter: Annotated[
        Optional[list[str]],
        typer.Option("--adapter", "-a", metavar="NAME", help="Whom to ask, those asked most first. Default: all it lists."),
    ] = None,
    most: Annotated[Optional[int], typer.Option(min=1, help="Of these adapters only the first so many.")] = None,
    kind: Annotated[
        Optional[list[Kind]], typer.Option("--kind", "-k", help="What is asked; several are asked alike. Default: completions.")
    ] = None,
    rate: Annotated[
        str,
        typer.Option(help="Requests in a second; 0.5x: half of what the base alone is found to answer; max: see --callers."),
    ] = "0.5x",
    callers: Annotated[
        int, typer.Option(min=1, max=4096, help="Who ask again as soon as they are answered, for max and to find capacity.")
    ] = 32,
    words: Annotated[str, typer.Option(metavar="A-B", help="Words of a prompt or text.")] = "8-64",
    tokens: Annotated[str, typer.Option(metavar="A-B", help="Tokens to be written behind a prompt.")] = "8-32",
    workload: Annotated[Workload, OptionPerField(only=("alpha", "cv"))],
    seconds: Annotated[
        float, typer.Option(min=0.1, help="For how long requests come; a third of it is asked beforehand.")
    ] = 30,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs, each with other requests; medians are shown.")] = 3,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take.")] = 60,
    api_key: Annotated[Optional[str], typer.Option(envvar="OPENAI_API_KEY", help="What the server asks for.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON, with every seed.")] = False,
) -> None:
    """Measure a server under load, as S-LoRA was: many adapters, few of them popular. Exit code 1: a wrong one answered.

    graftax loadtest http://127.0.0.1:8000 --rate 0.5x --seconds 60
    graftax loadtest http://127.0.0.1:8000 --kind classify --rate max
    """
    from ..serve.loadtest.light_client import LightClient
    from ..serve.loadtest.load_report import facts, page
    from ..serve.loadtest.load_run import Rate, Settings, measure

    drawn = Workload(workload.alpha, workload.cv, _bounds(words, "--words"), _bounds(tokens, "--tokens"))
    kinds = [one.value for one in dict.fromkeys(kind or [Kind.completions])]
    settings = Settings(adapter or [], most, kinds, drawn, Rate.read(rate), seconds, seeds, callers, timeout)
    measured = asyncio.run(measure(LightClient(url, api_key), settings, _say))
    said = facts(measured, settings)
    if json:
        print_json({"url": url, **said})
    else:
        print(page(url, said))
    if said["wrong"]:
        raise typer.Exit(1)


def _say(doing: str) -> None:
    print(f"graftax: {doing}", file=sys.stderr, flush=True)


def _bounds(text: str, option: str) -> tuple[int, int]:
    """The two numbers of a range such as 8-64; a number alone is both."""
    found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    if found is None:
        raise GraftaxError(f"{option} {text}: a number, or two such as 8-64.")
    return int(found[1]), int(found[2] or found[1])
