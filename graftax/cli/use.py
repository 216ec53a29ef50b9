"""The commands that ask adapters: `eval`, `predict`, `embed`, `generate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import GraftaxError
from .arguments import (
    Named,
    chat_template_of,
    columns_of,
    parse_adapters,
    rows_to_continue,
    rows_to_read,
    split_names,
    version_to_record,
)
from .dataclass_options import options_from_fields
from .options import (
    AnyBackboneOption,
    BackboneOption,
    ChatTemplateOption,
    ColumnOption,
    ColumnsOptions,
    InputsOption,
    LabelsOption,
    LoadingOptions,
    MoreInputs,
    OptionalAdaptersOption,
    SamplingOptions,
    ScoreName,
)
from .output import print_json, print_measured

if TYPE_CHECKING:
    from ..data.mask_values import Mask
    from ..models.backbone import Backbone
    from ..serve.evaluation import Measured
    from ..serve.report.reporter import Reporter

_OF_REPORT = "A report"  # a panel of the help


@options_from_fields
def evaluate(
    context: typer.Context,
    backbone: BackboneOption,
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Rows as for training: CSV, TSV, JSONL, Parquet, for lm also TXT.")
    ],
    more_slices: Annotated[Optional[list[str]], typer.Argument(metavar="COLUMN", help="More columns of --slices.")] = None,
    adapter: OptionalAdaptersOption = None,
    *,
    report: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR",
            help="Write a page that looks closely at the answers, report.html, and its numbers; of several adapters, too.",
            rich_help_panel=_OF_REPORT,
        ),
    ] = None,
    slices: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="COLUMN",
            help="Columns of the rows: the metrics of the rows with each value there, the worst shown.",
            rich_help_panel=_OF_REPORT,
        ),
    ] = None,
    against: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="Other rows, as those of the training: how much better it is there, and how far they lie apart.",
            rich_help_panel=_OF_REPORT,
        ),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Answer every prompt, and compare the answer with its completion.")
    ] = False,
    score: Annotated[
        ScoreName, typer.Option(help="Of what is generated: as text, or (gsm8k) the number behind ####, else the last one.")
    ] = ScoreName.text,
    sampling: SamplingOptions,
    chat_template: ChatTemplateOption = None,
    columns: ColumnsOptions,
    column: ColumnOption = None,
    labels: LabelsOption = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the metrics on the hub that has the adapter, for `hub leaderboard`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object, last.")] = False,
    any_backbone: AnyBackboneOption = False,
    loading: LoadingOptions,
) -> None:
    """Measure an adapter on rows of its task, or without --adapter the head that the backbone's checkpoint brings.

    Of a pair of towers, whose rows are pictures with texts, it is retrieval; CLIP's two are measured without an adapter, too.

    With --generate a language model is measured by what it says behind the prompts, without --adapter the backbone alone.
    """
    from ..models.load import load_backbone

    read, names, template = columns_of(context, columns, column), split_names(labels), chat_template_of(chat_template)
    sliced = [*(slices or []), *(more_slices or [])]
    _refuse_without_report(report, adapter or [], sliced, against, generate)
    loaded = load_backbone(backbone, **asdict(loading))
    every: list[Named | None] = [*parse_adapters(adapter or [])] or [None]
    versions = [version_to_record(named) if record else None for named in every]
    if every == [None] and not generate and loaded.own_head is None and not _compares(loaded):
        raise GraftaxError("give --adapter: this checkpoint brings no head of its own. A language model alone: --generate.")
    if names is not None and (generate or every == [None]):
        raise GraftaxError("--labels names the classes of an adapter's head, and none is asked here.")
    if template is not None and every == [None] and not generate:
        raise GraftaxError("--chat-template is for language models, and the checkpoint's own head is asked here.")
    reporter = None
    if report is not None:
        from ..serve.report.evaluation_report import expect_place
        from ..serve.report.reporter import Reporter

        expect_place(report)  # before anything is computed
        reporter = Reporter(loaded, data, slices=sliced, against=against, columns=read, chat_template=template)
    for named, version in zip(every, versions, strict=True):
        if named is not None and version is not None:  # of a tag that is shared the very one that is drawn here
            named = named._replace(location=f"{version.name}@sha256:{version.digest}")
        if generate:
            how: dict[str, Any] = {"score": score.value, "sampling": sampling, "columns": read}
            measured = _measured_as_it_writes(loaded, named, data, template, any_backbone, how)
        else:
            reading = {"columns": read, "chat_template": template}
            measured = _measured(loaded, reporter, named, data, any_backbone, names, reading)
        print_measured(measured, as_json, named.name if named and len(every) > 1 else None)
        if version is not None:
            from ..hub.hub import Hub

            Hub().record(version, measured)
    if reporter is not None and report is not None:
        print(f"report: {reporter.report().write(report)}", file=sys.stderr)


def _compares(backbone: Backbone) -> bool:
    """Whether it is a pair of towers of one model, which compares pictures and texts without an adapter."""
    from ..models.pairs import PairConfig

    return isinstance(backbone.config, PairConfig) and backbone.config.joined


def _refuse_without_report(
    report: Path | None, adapters: Sequence[str], slices: Sequence[str], against: Path | None, generate: bool
) -> None:
    """An error where an option is given that is of a report, without one, or a report of what has none."""
    if report is not None and not str(report).strip():
        raise GraftaxError("--report is empty, and names no directory; '.' is the current one.")
    if report is not None and generate:
        raise GraftaxError("--report is of what is answered, and not of texts that are generated; leave out --generate.")
    if report is None and len(adapters) > 1:
        raise GraftaxError("several adapters are compared in a report: give --report DIR.")
    if report is None and slices:
        raise GraftaxError(f"slices by {', '.join(slices)} are part of a report: give --report DIR.")
    if report is None and against is not None:
        raise GraftaxError("--against is part of a report: give --report DIR.")


def _measured_as_it_writes(
    backbone: Backbone, named: Named | None, data: Path, template: Any, any_backbone: bool, how: dict[str, Any]
) -> Measured:
    """By what a language model says behind the prompts."""
    from ..serve.evaluation import measure_generation
    from ..serve.generator import Generator

    generator = Generator(backbone, chat_template=template)
    if named is not None:
        generator.load(named.name, named.location, any_backbone=any_backbone)
    return measure_generation(generator, named.name if named else None, data, **how)


def _measured(
    backbone: Backbone,
    reporter: Reporter | None,
    named: Named | None,
    data: Path,
    any_backbone: bool,
    names: list[str] | None,
    reading: dict[str, Any],
) -> Measured:
    """By what an adapter, or the backbone's own head, answers; a language model's by how likely it finds the rows.

    `reading`: columns of the rows, and the template of chats. A reporter, which knows both, looks at it, too.
    """
    from ..adapters.files import load_adapter
    from ..serve.evaluation import measure, measure_adapter, measure_language
    from ..serve.predictor import Predictor

    if named is None and reporter is None and _compares(backbone):
        return measure_language(backbone, None, data, columns=reading["columns"])
    if named is None:
        return reporter.add_own_head() if reporter else measure(Predictor(backbone), None, data, columns=reading["columns"])
    adapter = load_adapter(named.location, backbone, any_backbone=any_backbone)
    if reporter:
        return reporter.add(named.name, adapter, names)
    return measure_adapter(Predictor(backbone), named.name, adapter, data, labels=names, **reading)


@options_from_fields
def predict(
    backbone: BackboneOption,
    input: InputsOption,
    more_input: MoreInputs = None,
    adapter: OptionalAdaptersOption = None,
    *,
    top_k: Annotated[
        Optional[int], typer.Option(min=1, help="Say the probabilities of this many labels, the likeliest, in each line.")
    ] = None,
    masks: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="Of image-segment: write the masks there, PNGs called as the pictures are."),
    ] = None,
    threshold: Annotated[
        Optional[float],
        typer.Option(min=0.0, max=1.0, help="Of image-detect: how sure an object must be to be told. Default: 0.5."),
    ] = None,
    labels: LabelsOption = None,
    any_backbone: AnyBackboneOption = False,
    loading: LoadingOptions,
) -> None:
    """Answer rows, each with the adapter it names, as JSON lines in the same order.

    A row may have "text_pair" too, and "adapter" may be left out where only one is loaded. Several adapters in one row:
    {"a": 0.7, "b": 0.3} is their weighted average, ["a", "b"] a stack. Rows without an adapter are answered by the head that
    the backbone's checkpoint brings, if any.
    """
    from ..data.box_values import THRESHOLD, Found
    from ..data.mask_values import Mask
    from ..models.load import load_backbone
    from ..serve.predictor import Predictor

    named = parse_adapters(adapter or [])
    predictor = Predictor(load_backbone(backbone, **asdict(loading)))
    rows, wanted = rows_to_read([*input, *(more_input or [])], named, predictor.processor)
    if not named and predictor.backbone.own_head is None:
        raise GraftaxError("give --adapter: this checkpoint brings no head of its own.")
    if labels is not None and not named:
        raise GraftaxError("--labels names the classes of an adapter's head, and no adapter is given.")
    for name, location in named:
        predictor.load(name, location, labels=split_names(labels), any_backbone=any_backbone)
        if not predictor.labels(name):
            task, can = predictor.task(name).name, "generate and eval" if predictor.backbone.generates else "embed and eval"
            raise GraftaxError(f"{name} is of task {task} and has no head that could answer; {can} can use it.")
    if masks is not None and not any(predictor.task(name).output.of_pixels for name, _ in named):
        raise GraftaxError("--masks is for adapters of task image-segment, and none is given.")
    if threshold is not None and not any(predictor.task(name).name == "image-detect" for name, _ in named):
        raise GraftaxError("--threshold is for adapters of task image-detect, and none is given.")
    least = THRESHOLD if threshold is None else threshold
    answers, written = predictor.predict(rows, wanted, top_k=top_k, threshold=least), set[Path]()
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True), 1):
        if isinstance(answer.label, Mask):
            file = None if masks is None else _write_mask(answer.label, _free(masks, row, number, written))
            print_json({"adapter": answer.adapter, "classes": answer.score, "mask": file})
            continue
        if isinstance(answer.label, Found):
            print_json({"adapter": answer.adapter, "objects": answer.label})
            continue
        told = ({"probabilities": answer.probabilities} if top_k else {}) | ({"cut": True} if answer.cut else {})
        print_json({"adapter": answer.adapter, "label": answer.label, "score": answer.score, **told})


def _free(directory: Path, row: Any, number: int, written: set[Path]) -> Path:
    """A file for the mask of a row, called as its picture is; with the row's number, where another mask is called so."""
    from ..data.picture_values import Picture

    stem = row.content.stem if isinstance(row, Picture) and isinstance(row.content, Path) else f"row-{number}"
    file = directory / f"{stem}.png"
    file = directory / f"{stem}-{number}.png" if file in written else file
    written.add(file)
    return file


def _write_mask(mask: Mask, file: Path) -> str:
    from .. import disk

    disk.make_directory(file.parent)
    disk.write_bytes(file, mask.png())
    return str(file)


@options_from_fields
def embed(
    backbone: BackboneOption,
    input: InputsOption,
    more_input: MoreInputs = None,
    adapter: OptionalAdaptersOption = None,
    *,
    max_length: Annotated[
        Optional[int],
        typer.Option(min=1, help="Tokens of a text without an adapter; longer ones are cut. Default: as the directory says."),
    ] = None,
    any_backbone: AnyBackboneOption = False,
    loading: LoadingOptions,
) -> None:
    """Print a vector of each row, under the adapter it names or none, as JSON lines in the same order.

    The mean of the last layer over the tokens, or what the directory of a sentence-transformers model says.

        echo '{"text": "my card is gone"}' | graftax embed -b sentence-transformers/all-MiniLM-L6-v2 -i -
    """
    from ..models.load import load_backbone
    from ..serve.predictor import Predictor

    named = parse_adapters(adapter or [])
    predictor = Predictor(load_backbone(backbone, **asdict(loading)), max_length=max_length)
    rows, wanted = rows_to_read([*input, *(more_input or [])], named, predictor.processor)
    for name, location in named:
        predictor.load(name, location, any_backbone=any_backbone)
    for what, vector in zip(wanted, predictor.embed(rows, wanted), strict=True):
        print_json(
            {"adapter": None if what is None else str(what), "vector": [float(str(value)) for value in vector]}
        )  # as short as a float32 can be said


@options_from_fields
def generate(
    backbone: BackboneOption,
    *,
    prompt: Annotated[Optional[list[str]], typer.Option("--prompt", "-p", help="Text to continue; once per text.")] = None,
    adapter: OptionalAdaptersOption = None,
    input: Annotated[
        Optional[Path],
        typer.Option(
            "--input", "-i", help='JSON lines {"prompt" or "messages": ..., "adapter": NAME or null} instead; - reads stdin.'
        ),
    ] = None,
    sampling: SamplingOptions,
    chat_template: ChatTemplateOption = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print as it is generated; several rows as lines of NAME: text.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines with adapter, text, tokens and how it finished.")] = False,
    any_backbone: AnyBackboneOption = False,
    loading: LoadingOptions,
) -> None:
    """Continue texts with a language model, each row with its own adapter, all rows in one batch.

    In --input, "adapter" may also be {"a": 0.7, "b": 0.3}, a weighted average, or ["a", "b"], a stack.

        graftax generate -b stories260K --adapter sea=adapters/sea --prompt "One day," --temperature 0.8 --stream
    """
    from ..models.load import load_backbone
    from ..serve.generator import Generator
    from .console import Printer

    named = parse_adapters(adapter or [])
    rows = rows_to_continue(prompt or [], [one.name for one in named], input)
    template = chat_template_of(chat_template)
    generator = Generator(load_backbone(backbone, **asdict(loading)), chat_template=template)
    for name, location in named:
        generator.load(name, location, any_backbone=any_backbone)
    printer = Printer(rows, stream, as_json)
    for row, text, end in generator.stream([prompt for prompt, _ in rows], [what for _, what in rows], sampling):
        printer.hear(row, text, end)
