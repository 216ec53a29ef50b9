"""`graftax train`: one adapter per data file."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from annotated_doc import Doc

from .. import processes, typed, watchdog
from ..errors import GraftaxError
from ..train.recipe import Recipe
from ..tuning.grpo.grpo_settings import GrpoSettings
from .arguments import (
    chat_template_of,
    columns_of,
    fleets_for,
    is_given,
    parse_adapter,
    read_config,
    read_val,
    shelf_for,
    use_config,
)
from .dataclass_options import OptionPerField, options_from_fields
from .grpo_command import OPTIONS, TASK, refuse_options, train_by_rewards
from .options import (
    BackboneOption,
    ChatTemplateOption,
    ClusterOptions,
    ColumnOption,
    ColumnsOptions,
    Loading,
    out_option,
)

_OF_REWARDS = "Rewards, of task grpo"  # a panel of the help
BESIDE = ("fuse", "adapter", "context_words")  # what is no method by a name


@dataclass(frozen=True)
class MethodInWords:
    """A method in words: all but `BESIDE` is what `make_method` takes."""

    method: Annotated[
        str, Doc("Adapter method (see `graftax methods`), or several, as lora+prefix; `probe` trains the head alone.")
    ] = "lora"
    rank: Annotated[int | None, Doc("Rank of LoRA and its kin. Default: 8.")] = None
    alpha: Annotated[float | None, Doc("Of LoRA: the update is scaled by alpha / rank. Default: 16.")] = None
    start: Annotated[
        str | None, Doc("How LoRA begins: default, gaussian, orthogonal, pissa, olora, eva, corda or lora_ga.")
    ] = None
    fuse: Annotated[
        tuple[str, ...],
        Doc("An adapter, as --adapter elsewhere, once for each: train AdapterFusion over these, in place of a method."),
    ] = ()
    adapter: Annotated[
        str | None,
        Doc("An adapter to train on, with its head and labels; --method, if it is given, stands fresh beside it."),
    ] = None
    context_words: Annotated[
        int | None,
        Doc(
            "Of task contrastive-names: learn so many words in front of the labels, in place of a prompt (CoOp); --method, if "
            "it is given, stands beside them."
        ),
    ] = None
    target: Annotated[str | None, Doc("Regex over module paths: where the method acts.")] = None
    option: Annotated[tuple[str, ...], Doc("Any other field of the method, as name=value (width=64, rslora=true).")] = ()


@dataclass(frozen=True)
class Running:
    """How the run goes, as `train_many` takes it."""

    pack_size: Annotated[int | None, Doc("Adapters trained at once. Default: measured.")] = None
    devices: Annotated[int | None, Doc("Spread them over so many. Default: all accelerators.")] = None
    fsdp: Annotated[bool, Doc("Give each device a part of the frozen weights, in place of all; with --remat layers.")] = False
    overwrite: Annotated[bool, Doc("Replace adapters that are there already.")] = False
    save_every: Annotated[float, Doc("Seconds between checkpoints.")] = 30.0


@dataclass(frozen=True)
class Together:
    """How this process trains with others, and who looks after it."""

    distributed: Annotated[
        bool, Doc("One run by several processes: start the same command in each (docs/many_devices.md).")
    ] = False
    join_within: Annotated[float, Doc("Seconds for which the processes wait for one another at the start.")] = 300.0
    stall_after: Annotated[
        float | None, Doc("End the process, with exit code 124, where it has done nothing for so many seconds. Default: never.")
    ] = None

    def __post_init__(self) -> None:
        typed.checked(self.join_within, Annotated[float, typed.Within(1.0)], "--join-within, in seconds,")
        if self.stall_after is not None:
            typed.checked(self.stall_after, Annotated[float, typed.Within(1.0)], "--stall-after, in seconds,")

    def refuse(self, what: str) -> None:
        """An error where these are asked for beside something that has nothing of them."""
        if self.distributed or self.stall_after is not None:
            raise GraftaxError(f"--distributed and --stall-after are not for {what}: leave them out.")

    def begin(self) -> None:
        """Let a child do the rest, where somebody is to look after it; in the child, join the others."""
        if not (self.distributed or self.stall_after is not None):
            return
        if not watchdog.is_watched():
            command = [sys.executable, "-m", "graftax", *sys.argv[1:]]
            sys.exit(watchdog.watch(command, self.stall_after, among_others=self.distributed))
        watchdog.hold_on()
        if self.distributed:
            patience = None if self.stall_after is None else 0.8 * self.stall_after  # so that it is said who does not come
            processes.join(self.join_within, patience)


@dataclass(frozen=True)
class LoadingToTrain(Loading):
    """How a backbone is loaded that gradients go through."""

    remat: Annotated[
        str | None,
        Doc("Compute again rather than keep for gradients: none, products (all but theirs) or layers (all)."),
    ] = None


@options_from_fields
def train(
    context: typer.Context,
    backbone: BackboneOption,
    out: Annotated[Path, out_option(help="Directory of the run: one adapter per data file, DIR/NAME.")],
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="CSV, TSV, JSONL, Parquet or (lm) TXT files, one adapter each, named after it."),
    ],
    more_data: Annotated[Optional[list[Path]], typer.Argument(metavar="FILE", help="More data files.")] = None,
    *,
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="classify, multilabel, regress or tag; of language models lm (plain text), sft (prompts with responses, or "
            "chats), dpo (preferences) or grpo (rewards); of encoder-decoders seq2seq; of pictures image-classify, "
            "image-segment or image-detect; of a pair of towers contrastive (as CLIP), contrastive-sigmoid (as SigLIP) or "
            "contrastive-names (as CoOp).",
        ),
    ] = "classify",
    words: Annotated[MethodInWords, OptionPerField("The method", metavars={"fuse": "[NAME=]DIR", "adapter": "[NAME=]DIR"})],
    recipe: Annotated[Recipe, OptionPerField("The recipe", last=("clip", "patience", "seed"))],
    reward: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="exact|regex:PATTERN|FILE.py",
            help="What a completion is worth (docs/grpo.md); once for each. A FILE.py is your own program, and is run.",
            rich_help_panel=_OF_REWARDS,
        ),
    ] = None,
    settings: Annotated[GrpoSettings, OptionPerField(_OF_REWARDS, only=OPTIONS)],
    columns: ColumnsOptions,
    column: ColumnOption = None,
    chat_template: ChatTemplateOption = None,
    val: Annotated[
        Optional[str],
        typer.Option(
            help="Validation rows: a fraction to hold out, a file, or a directory with a file of each data file's name."
        ),
    ] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(
            help=r"TOML with any of these settings; \[adapters.NAME] tables change them for one adapter.",
            callback=use_config,
            is_eager=True,
        ),
    ] = None,
    push: Annotated[
        Optional[str],
        typer.Option(metavar="PREFIX", help="Put the adapters on the hub ($GRAFTAX_HUB, else your own), each as PREFIX/NAME."),
    ] = None,
    running: Annotated[Running, OptionPerField()],
    cluster: ClusterOptions,
    together: Annotated[Together, OptionPerField("Several processes")],
    loading: Annotated[LoadingToTrain, OptionPerField()],
) -> None:
    """Train one adapter per data file, all in one run.

    Interrupt it with Ctrl-C, or kill it: the same command goes on where it stopped, and ends with the same adapters.

        graftax train -b sentence-transformers/all-MiniLM-L6-v2 --data bank.csv airline.csv --out adapters --val 0.1
    """
    from ..adapters.files import load_adapter
    from ..adapters.method import Method
    from ..adapters.methods.fusion import Fuse
    from ..adapters.methods.named import make_method
    from ..models.load import load_backbone
    from ..train.checks import check_arguments
    from ..train.learned_words import context_of_labels
    from ..train.run import train_many

    read = columns_of(context, columns, column)
    recipe = recipe.replace(chat_template=chat_template_of(chat_template))
    chosen = {name: value for name, value in asdict(words).items() if name not in BESIDE}
    tables = read_config(config)[1] if config is not None else {}
    each = {name: _settings_of(table, chosen) for name, table in tables.items()}
    named = _by_name([*data, *(more_data or [])])
    made, held = make_method(**chosen), read_val(val, list(named.values()))
    if task == TASK:
        together.refuse("--task grpo")
        train_by_rewards(
            context,
            backbone,
            out,
            named,
            reward=reward or (),
            words=words,
            method=made,
            recipe=recipe,
            settings=settings,
            columns=read,
            tables=tables,
            running=running,
            loading=loading,
            push=push,
        )
        return
    refuse_options(context, task)
    # before anything is loaded
    check_arguments(named, out, made, task, recipe, each, held, read, running.pack_size, running.save_every)
    if words.context_words is not None and task != "contrastive-names":
        raise GraftaxError(f"--context-words is for --task contrastive-names, and the task is {task!r}.")
    if cluster.ray is not None:
        together.refuse("--ray, whose workers are looked after by Ray")
    together.begin()
    with processes.sound("the backbone"):
        shelf = shelf_for(push, list(named)) if push is not None else None
        fleet_of = fleets_for(context, cluster)
        if running.fsdp and loading.remat is None:
            loading = replace(loading, remat="layers")  # what else is kept takes more than the weights that are shared
        fleet = None if fleet_of is None else fleet_of(backbone, **asdict(loading))
        loaded = load_backbone(backbone, **asdict(loading), unread=running.fsdp)
        method: Any = made
        if words.fuse:
            method = Fuse(trained=tuple(load_adapter(parse_adapter(text).location, loaded) for text in words.fuse))
        beside = list[Any]()
        if words.context_words is not None:
            learnt, read = context_of_labels(loaded, named, read, tokens=words.context_words)
            beside.append(learnt)
        if words.adapter is not None:
            beside.append(load_adapter(parse_adapter(words.adapter).location, loaded))
    if beside:
        alone = not words.fuse and not is_given(context, "method")
        fresh = () if alone or method is None else (method,) if isinstance(method, Method) else method
        method = (*fresh, *beside)
    results = train_many(
        loaded,
        named,
        out,
        method=method,
        task=task,
        recipe=recipe,
        each=each,
        val=held,
        columns=read,
        **asdict(running),
        push=shelf,
        fleet=fleet,
    )
    for result in results.values() if processes.is_first() else ():
        numbers = "  ".join(f"{metric} {value:.4f}" for metric, value in result.metrics.items())
        print(f"{result.directory}  {numbers}")
        if shelf is not None:
            print(f"{result.pushed} on {shelf.hub.store.url}")


def _settings_of(table: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """One adapter's table of the TOML file as `train_many` takes it; `chosen` is the method that all others have, in words."""
    from ..adapters.methods.named import is_lora, make_method

    settings = {name: value for name, value in table.items() if name not in chosen}
    if "chat_template" in settings:
        settings["chat_template"] = chat_template_of(settings["chat_template"])
    own = {name: value for name, value in table.items() if name in chosen}
    if own:
        lora = is_lora(own.get("method", chosen["method"]))
        general = chosen if lora else chosen | {"rank": None, "alpha": None, "start": None}
        settings["method"] = make_method(**general | own)
    return settings


def _by_name(files: list[Path]) -> dict[str, Path]:
    """Files and folders of data by the names of their adapters."""
    from ..data.sources import expect_rows, name_of

    names = [name_of(file) for file in files]
    if len(set(names)) < len(names):
        raise GraftaxError(f"two data files have the same name: {', '.join(names)}.")
    for file in files:
        expect_rows(file)
    return dict(zip(names, files, strict=True))
