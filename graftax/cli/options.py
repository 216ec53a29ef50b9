"""Options that several commands share, and the names that some of them take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from annotated_doc import Doc

from ..errors import GraftaxError
from ..serve.sampling import Sampling
from .dataclass_options import OptionPerField


class ScoreName(StrEnum):
    text = "text"
    gsm8k = "gsm8k"


class FormatName(StrEnum):
    adapters = "adapters"
    graftax = "graftax"


def _directory(given: str | Path) -> Path:
    """What --out names; an empty text, of a variable that is not set, say, would be the current directory."""
    if not str(given).strip():
        raise GraftaxError("--out is empty, and names no directory; '.' is the current one.")
    return Path(given)


out_option = partial(typer.Option, "--out", "-o", metavar="DIR", parser=_directory)
OutOption = Annotated[Path, out_option(help="Directory to write.")]

BackboneOption = Annotated[
    str,
    typer.Option("--backbone", "-b", help="Directory with config.json and safetensors, a GGUF file, or a Hugging Face Hub id."),
]
_ADAPTER = "Adapter: a directory (graftax's, PEFT's, AdapterHub's) or a Hub id. What it is called, if not as that is: NAME=DIR"
one_adapter = typer.Option("--adapter", "-a", metavar="[NAME=]DIR", help=f"{_ADAPTER}.")
_adapters = typer.Option("--adapter", "-a", metavar="[NAME=]DIR", help=f"{_ADAPTER}; once for each.")
AdapterOption = Annotated[str, one_adapter]
AdaptersOption = Annotated[list[str], _adapters]
OptionalAdaptersOption = Annotated[Optional[list[str]], _adapters]
InputsOption = Annotated[
    list[Path],
    typer.Option(
        "--input",
        "-i",
        help='JSON lines {"text": ..., "adapter": NAME or null}, - reads them from stdin; or pictures, and folders of them.',
    ),
]
MoreInputs = Annotated[Optional[list[Path]], typer.Argument(metavar="FILE", help="More of them.")]


@dataclass(frozen=True)
class Loading:
    """How a backbone is loaded, as `load_backbone` takes it."""

    revision: Annotated[str, Doc("Branch, tag or commit of the backbone's Hub id.")] = "main"
    dtype: Annotated[str, Doc("Of the frozen weights in memory: float32 or bfloat16.")] = "float32"
    quantize: Annotated[str | None, Doc("Hold the layers' weights as int8 or nf4 (needs the package qwix).")] = None
    adapter_dtype: Annotated[str | None, Doc("float32: of adapters' products on accelerators, too.")] = None
    tensor_parallel_size: Annotated[int, Doc("How many devices share the weights, each computing with its part.")] = 1
    tower: Annotated[str | None, Doc("Of a checkpoint of two, such as CLIP's: image, text or both.")] = None
    text_tower: Annotated[str | None, Doc("A backbone of texts, to be a pair with this one of pictures.")] = None


@dataclass(frozen=True)
class OverCluster:
    """Machines that train in place of this one."""

    ray: Annotated[
        str | None,
        Doc("Train on the machines of a Ray cluster: the one that this machine is in, or another's (docs/fleet.md)."),
    ] = None
    ray_cpus: Annotated[int, Doc("CPUs that each worker takes there; where there are GPUs, one of these as well.")] = 1


@dataclass(frozen=True)
class NamedColumns:
    """The columns that have options of their own, by their fields; those of every other kind of input are for `--column`."""

    text: Annotated[str, Doc("Column with the text.")] = "text"
    pair: Annotated[str | None, Doc("Column with a second text, for tasks on two.")] = None
    label: Annotated[str, Doc("Column with the label.")] = "label"
    prompt: Annotated[str, Doc("Column with the prompt, or source, of tasks sft, dpo and seq2seq.")] = "prompt"
    completion: Annotated[str, Doc("Column with the response to it, or target.")] = "completion"
    messages: Annotated[str, Doc("Column with a chat, a list of {role, content}; where there is one, it is used.")] = "messages"
    chosen: Annotated[str, Doc("Column with the better response of task dpo, or a chat that ends in it.")] = "chosen"
    rejected: Annotated[str, Doc("Column with the worse one.")] = "rejected"


def column_option(field: str) -> str:
    """What the option is called that names the column of a field."""
    return "text_pair_column" if field == "pair" else f"{field}_column"


OF_COLUMNS = "Columns of the data"  # a panel of the help
LoadingOptions = Annotated[Loading, OptionPerField()]
ExactLoadingOptions = Annotated[
    Loading, OptionPerField(only=("revision", "tower", "text_tower"))
]  # for what is made of the weights
ColumnsOptions = Annotated[NamedColumns, OptionPerField(OF_COLUMNS, column_option)]
LabelledOptions = Annotated[NamedColumns, OptionPerField(OF_COLUMNS, column_option, only=("text", "pair", "label"))]
ColumnOption = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="FIELD=NAME", help="The column of any field, once for each, as text=question.", rich_help_panel=OF_COLUMNS
    ),
]
ClusterOptions = Annotated[OverCluster, OptionPerField("Over a cluster", metavars={"ray": "auto|HOST:PORT"})]
SamplingOptions = Annotated[Sampling, OptionPerField("What is generated")]
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
