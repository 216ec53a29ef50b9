"""Options that several commands share, and the names that some of them take."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import GraftaxError


class TaskName(StrEnum):
    classify = "classify"
    multilabel = "multilabel"
    regress = "regress"
    tag = "tag"
    lm = "lm"
    sft = "sft"
    dpo = "dpo"
    seq2seq = "seq2seq"


class ScoreName(StrEnum):
    text = "text"
    gsm8k = "gsm8k"


class FormatName(StrEnum):
    adapters = "adapters"
    graftax = "graftax"


of_columns = partial(typer.Option, rich_help_panel="Columns of the data")  # panels of the help
of_generation = partial(typer.Option, rich_help_panel="What is generated")


def _directory(given: str | Path) -> Path:
    """What --out names; an empty text, of a variable that is not set, say, would be the current directory."""
    if not str(given).strip():
        raise GraftaxError("--out is empty, and names no directory; '.' is the current one.")
    return Path(given)


out_option = partial(typer.Option, "--out", "-o", metavar="DIR", parser=_directory)
OutOption = Annotated[Path, out_option(help="Directory to write.")]

BackboneOption = Annotated[
    str, typer.Option("--backbone", "-b", help="Directory with config.json and safetensors, or a Hugging Face Hub id.")
]
_ADAPTER = "Adapter: a directory (graftax's, PEFT's, AdapterHub's) or a Hub id. What it is called, if not as that is: NAME=DIR"
_one_adapter = typer.Option("--adapter", "-a", metavar="[NAME=]DIR", help=f"{_ADAPTER}.")
_adapters = typer.Option("--adapter", "-a", metavar="[NAME=]DIR", help=f"{_ADAPTER}; once for each.")
AdapterOption = Annotated[str, _one_adapter]
AdaptersOption = Annotated[list[str], _adapters]
OptionalAdapterOption = Annotated[Optional[str], _one_adapter]
OptionalAdaptersOption = Annotated[Optional[list[str]], _adapters]
InputOption = Annotated[
    Path, typer.Option("--input", "-i", help='JSON lines {"text": ..., "adapter": NAME or null}; - reads them from stdin.')
]
RevisionOption = Annotated[str, typer.Option(help="Branch, tag or commit of the backbone's Hub id.")]
DtypeOption = Annotated[str, typer.Option(help="Of the frozen weights in memory: float32 or bfloat16.")]
QuantizeOption = Annotated[
    Optional[str], typer.Option(help="Hold the layers' weights as int8 or nf4 (needs the package qwix).")
]
TextOption = Annotated[str, of_columns(help="Column with the text.")]
PairOption = Annotated[Optional[str], of_columns(help="Column with a second text, for tasks on two.")]
LabelOption = Annotated[str, of_columns(help="Column with the label.")]
PromptOption = Annotated[str, of_columns(help="Column with the prompt, or source, of tasks sft, dpo and seq2seq.")]
CompletionOption = Annotated[str, of_columns(help="Column with the response to it, or target.")]
MessagesOption = Annotated[
    str,
    of_columns(help="Column with a chat, a list of {role, content}; where there is one, it is used."),
]
ChosenOption = Annotated[str, of_columns(help="Column with the better response of task dpo, or a chat that ends in it.")]
RejectedOption = Annotated[str, of_columns(help="Column with the worse one.")]
MaxNewTokensOption = Annotated[int, of_generation(help="Tokens to generate at most.")]
TemperatureOption = Annotated[float, of_generation(help="0: the likeliest token, always.")]
TopKOption = Annotated[int, of_generation(help="Draw from this many of the likeliest tokens; 0: from all.")]
TopPOption = Annotated[float, of_generation(help="Draw from the fewest tokens that together have this probability.")]
MinPOption = Annotated[float, of_generation(help="Draw from tokens at least this times as likely as the likeliest.")]
PenaltyOption = Annotated[
    Optional[float],
    of_generation(help="Above 1: tokens that are there already become unlikelier. Default: as generation_config.json says."),
]
StopOption = Annotated[Optional[list[str]], of_generation(help="End before this text; once per text.")]
NumBeamsOption = Annotated[int, of_generation(help="Above 1: beam search, of so many texts at once.")]
LengthPenaltyOption = Annotated[
    Optional[float],
    of_generation(help="Of beams: scores are divided by the length to this power. Default: as of the penalty."),
]
EarlyStoppingOption = Annotated[
    Optional[bool], of_generation(help="Of beams: end with the first that are finished. Default: as of the penalty.")
]
DrawOption = Annotated[int, of_generation(help="Row i draws from seed + i.")]
ChatTemplateOption = Annotated[
    Optional[str],
    typer.Option(
        metavar="FILE|NAME",
        help="Template of chats in place of the tokenizer's own: a Jinja file, or chatml, llama3, gemma or plain; where an "
        "adapter answers also 'adapter', the one of its training.",
    ),
]
LabelsOption = Annotated[
    Optional[str], typer.Option(help="Label names, comma separated, for a PEFT directory that does not name them.")
]
AnyBackboneOption = Annotated[bool, typer.Option(help="Use the adapter although it was made for another backbone.")]
