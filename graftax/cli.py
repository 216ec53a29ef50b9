"""The commands. `graftax COMMAND --help` teaches; `__main__.py` runs them and turns errors into one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import benching
from .arguments import (
    columns_of,
    make_method,
    parse_adapter,
    read_config,
    read_stdin,
    read_val,
    rows_to_continue,
    sampling_of,
    split_names,
    use_config,
)
from .errors import GraftaxError
from .options import (
    AnyBackboneOption,
    BackboneOption,
    ChosenOption,
    CompletionOption,
    DrawOption,
    DtypeOption,
    EarlyStoppingOption,
    FormatName,
    LabelOption,
    LabelsOption,
    LengthPenaltyOption,
    MaxNewTokensOption,
    MessagesOption,
    MinPOption,
    NumBeamsOption,
    PairOption,
    PenaltyOption,
    PromptOption,
    QuantizeOption,
    RejectedOption,
    RevisionOption,
    ScoreName,
    StopOption,
    TaskName,
    TemperatureOption,
    TextOption,
    TopKOption,
    TopPOption,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train many small adapters on one frozen backbone, and use a different one in every row of a batch.",
    epilog="Start with:  graftax demo",
)


app.add_typer(benching.app, name="bench")


@app.command()
def train(
    backbone: BackboneOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the run: one adapter per data file, DIR/NAME.")],
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="CSV, JSONL, Parquet or (lm) TXT files, one adapter each, named after it."),
    ],
    more_data: Annotated[Optional[list[Path]], typer.Argument(metavar="[FILE]...", help="More data files.")] = None,
    task: Annotated[
        TaskName,
        typer.Option(
            help="What the labels are; for language models lm (plain text), sft (prompts and responses), dpo, or seq2seq."
        ),
    ] = TaskName.classify,
    method: Annotated[
        str,
        typer.Option(help="Adapter method (see `graftax methods`), or several, as lora+prefix; `probe` trains the head alone."),
    ] = "lora",
    rank: Annotated[int, typer.Option(help="LoRA's rank.")] = 8,
    alpha: Annotated[float, typer.Option(help="LoRA's alpha: the update is scaled by alpha / rank.")] = 16.0,
    start: Annotated[
        str, typer.Option(help="LoRA's start: default, gaussian, orthogonal, pissa, olora, eva, corda or lora_ga.")
    ] = "default",
    fuse: Annotated[
        Optional[list[Path]],
        typer.Option(help="Adapter directory, once for each: train AdapterFusion over these, in place of a method."),
    ] = None,
    target: Annotated[Optional[str], typer.Option(help="Regex over module paths: where the method acts.")] = None,
    option: Annotated[
        Optional[list[str]], typer.Option(help="Any other field of the method, as name=value (width=64, rslora=true).")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the rows.")] = 3,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 32,
    max_length: Annotated[int, typer.Option(help="Tokens per row; longer rows are cut, by sft and seq2seq refused.")] = 128,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut rows with a response, too.")] = False,
    schedule: Annotated[str, typer.Option(help="After the warm-up: linear, cosine or constant.")] = "linear",
    warmup: Annotated[float, typer.Option(help="Share of the steps with a rising learning rate.")] = 0.06,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay.")] = 0.0,
    optimizer: Annotated[str, typer.Option(help="optax's name for it: adamw, lion, sgd, ...")] = "adamw",
    preconditioned: Annotated[bool, typer.Option(help="Riemannian preconditioning of low-rank gradients.")] = False,
    lora_plus: Annotated[float, typer.Option(help="LoRA+: B's learning rate as a multiple of A's.")] = 1.0,
    layer_decay: Annotated[float, typer.Option(help="A layer's learning rate as a multiple of the next one's above.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Of task dpo: how firmly the adapter is held to what the backbone says.")] = 0.1,
    unfreeze: Annotated[float, typer.Option(help="Epochs until the next layer below begins to train; 0: all at once.")] = 0.0,
    clip: Annotated[float, typer.Option(help="Clip the gradient's norm to this, per adapter.")] = 1.0,
    patience: Annotated[
        Optional[int], typer.Option(help="Stop after this many epochs without improvement (needs --val).")
    ] = None,
    text_column: TextOption = "text",
    text_pair_column: PairOption = None,
    label_column: LabelOption = "label",
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    messages_column: MessagesOption = "messages",
    chosen_column: ChosenOption = "chosen",
    rejected_column: RejectedOption = "rejected",
    val: Annotated[
        Optional[str],
        typer.Option(
            help="Validation rows: a fraction to hold out, a file, or a directory with a file of each data file's name."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the start, the order of the rows and dropout.")] = 0,
    config: Annotated[
        Optional[Path],
        typer.Option(
            help=r"TOML with any of these settings; \[adapters.NAME] tables change them for one adapter.",
            callback=use_config,
            is_eager=True,
        ),
    ] = None,
    pack_size: Annotated[Optional[int], typer.Option(help="Adapters trained at once. Default: measured.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace adapters that are there already.")] = False,
    save_every: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 30.0,
    revision: RevisionOption = "main",
    dtype: DtypeOption = "float32",
    quantize: QuantizeOption = None,
    remat: Annotated[
        Optional[str],
        typer.Option(help="Compute again rather than keep for gradients: none, products (all but theirs) or layers (all)."),
    ] = None,
) -> None:
    """Train one adapter per data file, all in one run.

    Interrupt it with Ctrl-C, or kill it: the same command goes on where it stopped, and ends with the same adapters.

        graftax train -b sentence-transformers/all-MiniLM-L6-v2 --data bank.csv airline.csv --out adapters --val 0.1
    """
    from .adapters.files import load_adapter
    from .adapters.fusion import Fuse
    from .models.load import load_backbone
    from .train.recipe import Recipe
    from .train.run import train_many

    settings = {name: value for name, value in locals().items() if name in Recipe.__dataclass_fields__}
    columns = columns_of(locals())
    chosen: dict[str, Any] = {"method": method, "rank": rank, "alpha": alpha, "target": target, "start": start}
    chosen["option"] = option or []
    each = read_config(config)[1] if config is not None else {}
    for table in each.values():
        own = {key: table.pop(key) for key in chosen if key in table}
        if own:
            table["method"] = make_method(**{**chosen, **own})
    files = [*data, *(more_data or [])]
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        raise GraftaxError(f"two data files have the same name: {', '.join(names)}.")
    for file in files:
        if not file.is_file():
            raise GraftaxError(f"{file}: no such file.")
    loaded = load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize, remat=remat)
    fused = Fuse(trained=tuple(load_adapter(path, loaded) for path in fuse)) if fuse else None
    results = train_many(
        loaded,
        dict(zip(names, files, strict=True)),
        out,
        method=fused or make_method(**chosen),
        task=task.value,
        recipe=Recipe().replace(**settings),
        each=each,
        val=read_val(val, files),
        columns=columns,
        pack_size=pack_size,
        overwrite=overwrite,
        save_every=save_every,
    )
    for result in results.values():
        numbers = "  ".join(f"{key} {value:.4f}" for key, value in result.metrics.items())
        print(f"{result.directory}  {numbers}")


@app.command(name="eval")
def evaluate(
    backbone: BackboneOption,
    data: Annotated[Path, typer.Option("--data", "-d", help="Rows as for training: CSV, JSONL or Parquet, for lm also TXT.")],
    adapter: Annotated[Optional[Path], typer.Option("--adapter", "-a", help="Adapter directory.")] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Answer every prompt, and compare the answer with its completion.")
    ] = False,
    score: Annotated[
        ScoreName, typer.Option(help="Of what is generated: as text, or (gsm8k) the number behind ####, else the last one.")
    ] = ScoreName.text,
    max_new_tokens: MaxNewTokensOption = 64,
    temperature: TemperatureOption = 0.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 1.0,
    min_p: MinPOption = 0.0,
    repetition_penalty: PenaltyOption = 1.0,
    stop: StopOption = None,
    seed: DrawOption = 0,
    num_beams: NumBeamsOption = 1,
    length_penalty: LengthPenaltyOption = 1.0,
    early_stopping: EarlyStoppingOption = False,
    text_column: TextOption = "text",
    text_pair_column: PairOption = None,
    label_column: LabelOption = "label",
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    messages_column: MessagesOption = "messages",
    chosen_column: ChosenOption = "chosen",
    rejected_column: RejectedOption = "rejected",
    labels: LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object, last.")] = False,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
    dtype: DtypeOption = "float32",
    quantize: QuantizeOption = None,
) -> None:
    """Measure an adapter on rows of its task.

    With --generate a language model is measured by what it says behind the prompts, without --adapter the backbone alone.
    """
    from .adapters.files import load_adapter
    from .models.load import load_backbone
    from .serve.evaluate import evaluate as measure
    from .serve.evaluate import evaluate_generation, evaluate_language
    from .serve.generator import Generator
    from .serve.predictor import Predictor
    from .train.tasks import task_named

    columns = columns_of(locals())
    sampling = sampling_of(locals())
    if adapter is None and not generate:
        raise GraftaxError("give --adapter; the backbone alone is measured with --generate.")
    loaded = load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize)
    if generate or adapter is None:
        generator, name = Generator(loaded), None if adapter is None else adapter.name
        if adapter is not None:
            generator.load(adapter.name, adapter, any_backbone=any_backbone)
        numbers = evaluate_generation(generator, name, data, score=score.value, sampling=sampling, columns=columns)
    elif task_named((read := load_adapter(adapter, loaded, any_backbone=any_backbone)).task).headless:
        numbers = evaluate_language(loaded, read, data, columns=columns)
    else:
        predictor = Predictor(loaded)
        predictor.load(adapter.name, read, labels=split_names(labels))
        numbers = measure(predictor, adapter.name, data, columns=columns)
    if as_json:
        print(json.dumps(numbers))
    else:
        for name, value in numbers.items():
            print(f"{name:12} {value:.4f}")


@app.command()
def predict(
    backbone: BackboneOption,
    adapter: Annotated[list[str], typer.Option("--adapter", "-a", help="NAME=DIR; once per adapter.")],
    input: Annotated[
        Path, typer.Option("--input", "-i", help='JSON lines {"text": ..., "adapter": NAME or null}; - reads them from stdin.')
    ],
    labels: LabelsOption = None,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
    dtype: DtypeOption = "float32",
    quantize: QuantizeOption = None,
) -> None:
    """Answer rows, each with the adapter it names, as JSON lines in the same order.

    A row may have "text_pair" too, and "adapter" may be left out where only one is loaded. Several adapters in one row:
    {"a": 0.7, "b": 0.3} is their weighted average, ["a", "b"] a stack.
    """
    from .models.load import load_backbone
    from .serve.composition import from_json
    from .serve.predictor import Predictor
    from .train.data import read_rows

    named = [parse_adapter(text) for text in adapter]
    rows = read_stdin() if str(input) == "-" else read_rows(input)
    predictor = Predictor(load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize))
    for name, directory in named:
        predictor.load(name, directory, labels=split_names(labels), any_backbone=any_backbone)
    only = named[0][0] if len(named) == 1 else None
    texts = []
    for i, row in enumerate(rows):
        if not isinstance(row.get("text"), str | list):
            raise GraftaxError(f'{input}: row {i + 1} has no "text".')
        if not isinstance(row.get("text_pair"), str | None):
            raise GraftaxError(f'{input}: row {i + 1}: "text_pair" must be a text.')
        texts.append((row["text"], row["text_pair"]) if row.get("text_pair") else row["text"])
    for answer in predictor.predict(texts, [from_json(row.get("adapter", only)) for row in rows]):
        print(json.dumps({"adapter": answer.adapter, "label": answer.label, "score": answer.score}, ensure_ascii=False))


@app.command()
def generate(
    backbone: BackboneOption,
    prompt: Annotated[Optional[list[str]], typer.Option("--prompt", "-p", help="Text to continue; once per text.")] = None,
    adapter: Annotated[
        Optional[list[str]], typer.Option("--adapter", "-a", help="NAME=DIR; once per adapter. Each continues every prompt.")
    ] = None,
    input: Annotated[
        Optional[Path],
        typer.Option(
            "--input", "-i", help='JSON lines {"prompt" or "messages": ..., "adapter": NAME or null} instead; - reads stdin.'
        ),
    ] = None,
    max_new_tokens: MaxNewTokensOption = 64,
    temperature: TemperatureOption = 0.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 1.0,
    min_p: MinPOption = 0.0,
    repetition_penalty: PenaltyOption = 1.0,
    stop: StopOption = None,
    seed: DrawOption = 0,
    num_beams: NumBeamsOption = 1,
    length_penalty: LengthPenaltyOption = 1.0,
    early_stopping: EarlyStoppingOption = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print as it is generated; several rows as lines of NAME: text.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines with adapter, text, tokens and how it finished.")] = False,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
    dtype: DtypeOption = "float32",
    quantize: QuantizeOption = None,
) -> None:
    """Continue texts with a language model, each row with its own adapter, all rows in one batch.

    In --input, "adapter" may also be {"a": 0.7, "b": 0.3}, a weighted average, or ["a", "b"], a stack.

        graftax generate -b stories260K --adapter sea=adapters/sea --prompt "One day," --temperature 0.8 --stream
    """
    from .console import Printer
    from .models.load import load_backbone
    from .serve.generator import Generator

    named = [parse_adapter(text) for text in adapter or []]
    rows = rows_to_continue(prompt or [], [name for name, _ in named], input)
    sampling = sampling_of(locals())
    generator = Generator(load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize))
    for name, directory in named:
        generator.load(name, directory, any_backbone=any_backbone)
    printer = Printer(rows, stream, as_json)
    for row, text, end in generator.stream([prompt for prompt, _ in rows], [what for _, what in rows], sampling):
        printer.hear(row, text, end)


@app.command()
def merge(
    backbone: BackboneOption,
    adapter: Annotated[Path, typer.Option("--adapter", "-a", help="Adapter directory.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    labels: LabelsOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
) -> None:
    """Fold an adapter into the weights: a plain Hugging Face directory that transformers loads."""
    from .models.load import load_backbone
    from .serve.export import export_merged

    drift = export_merged(
        load_backbone(backbone, revision=revision),
        adapter,
        out,
        labels=split_names(labels),
        overwrite=overwrite,
        any_backbone=any_backbone,
    )
    print(f"{out}: largest difference of the logits to the unmerged adapter's {drift:.1e}")


@app.command()
def combine(
    backbone: BackboneOption,
    adapter: Annotated[list[Path], typer.Option("--adapter", "-a", help="Adapter directory; once per adapter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    weight: Annotated[
        Optional[list[float]],
        typer.Option("--weight", "-w", help="Once per adapter, in their order. Default: equal, their sum 1."),
    ] = None,
    how: Annotated[str, typer.Option(help="linear, cat, svd, ties, dare_linear, dare_ties or magnitude_prune.")] = "linear",
    rank: Annotated[Optional[int], typer.Option(help="Cut the result at this rank.")] = None,
    energy: Annotated[Optional[float], typer.Option(help="Cut where this share of the change's energy is kept.")] = None,
    density: Annotated[Optional[float], typer.Option(help="Share of entries ties, dare_*, magnitude_prune keep.")] = None,
    seed: Annotated[int, typer.Option(help="Of what dare_* drops.")] = 0,
    head: Annotated[int, typer.Option(help="The adapter (from 1) whose head and labels are kept; 0: no head.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
) -> None:
    """Combine adapters into one LoRA, or turn one into a LoRA of another rank."""
    from .adapters.combining import combine as combined
    from .adapters.files import load_adapter, save_adapter
    from .models.load import load_backbone

    if not 0 <= head <= len(adapter):
        raise GraftaxError(f"--head {head}: there are {len(adapter)} adapters.")
    loaded = load_backbone(backbone, revision=revision)
    adapters = [load_adapter(path, loaded, any_backbone=any_backbone) for path in adapter]
    weights = weight or [1.0 / len(adapters)] * len(adapters)
    settings: dict[str, Any] = {"rank": rank, "energy": energy, "density": density, "seed": seed}
    made = combined(adapters, weights, how, head=head - 1 if head else None, **settings)
    save_adapter(made, out, loaded, overwrite=overwrite)
    print(f"{out}: a LoRA of rank {made.methods[0].size(next(iter(made.states['lora'])))}")


@app.command()
def export(
    backbone: BackboneOption,
    adapter: Annotated[Path, typer.Option("--adapter", "-a", help="Adapter directory: graftax's, PEFT's or AdapterHub's.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    format: Annotated[FormatName, typer.Option(help="Of the files written; graftax's are PEFT's where PEFT has the method.")],
    name: Annotated[Optional[str], typer.Option(help="The adapter's in `adapters`. Default: the directory's.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the directory if it exists.")] = False,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
) -> None:
    """Write an adapter as another library's files: those of AdapterHub's `adapters`, or graftax's and PEFT's."""
    from .adapters.files import load_adapter, save_adapter
    from .adapters.hub import export_adapter
    from .models.load import load_backbone

    loaded = load_backbone(backbone, revision=revision)
    read = load_adapter(adapter, loaded, any_backbone=any_backbone)
    if format is FormatName.adapters:
        export_adapter(read, out, loaded, name=name, overwrite=overwrite)
    else:
        save_adapter(read, out, loaded, overwrite=overwrite)
    print(f"{out}: {'+'.join(method.name for method in read.methods)}, {read.parameters:,} parameters")


@app.command()
def inspect(directory: Annotated[Path, typer.Argument(help="Adapter directory: graftax's, PEFT's or AdapterHub's.")]) -> None:
    """Show what an adapter file holds; needs no backbone."""
    from .adapters.inspect import describe

    print(describe(directory))


@app.command()
def methods(
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole table, as in docs/methods.md.")] = False,
) -> None:
    """List the adapter methods."""
    from .adapters.registry import METHODS
    from .adapters.table import markdown as table
    from .adapters.unions import UNIONS

    if markdown:
        print(table(), end="")
        return
    said: dict[str, str] = {}
    for name, cls in METHODS.items():
        can = ", ".join(["merge"] * cls.mergeable + ["PEFT files"] * bool(cls.peft_type))
        said[name] = cls.summary + (f"  [{can}]" if can else "")
    said |= {name: f"{'+'.join(method.name for method in union())} in one adapter" for name, union in UNIONS.items()}
    said["probe"] = f"no method: {said.pop('head')}"
    width = max(map(len, said))
    for name, summary in said.items():
        print(f"{name:{width}}  {summary}")


@app.command()
def backbones() -> None:
    """List the backbone families."""
    from .models.registry import FAMILIES

    for model_type, family in FAMILIES.items():
        print(f"{model_type:12} {family.summary}")


@app.command()
def demo(
    backbone: Annotated[
        Optional[str], typer.Option("--backbone", "-b", help="Default: all-MiniLM-L6-v2, fetched if need be.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the adapters and the picture go.")] = Path("demo-output"),
) -> None:
    """Train eight domain adapters on one backbone, then use them all in one batch. About two minutes on two cores."""
    from .demo import run

    run(backbone, out)
