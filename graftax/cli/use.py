"""The commands that ask adapters: `eval`, `predict`, `embed`, `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import GraftaxError
from .arguments import (
    chat_template_of,
    columns_of,
    parse_adapter,
    parse_adapters,
    rows_to_continue,
    rows_to_read,
    sampling_of,
    split_names,
)
from .options import (
    AnyBackboneOption,
    BackboneOption,
    ChatTemplateOption,
    ChosenOption,
    CompletionOption,
    DrawOption,
    DtypeOption,
    EarlyStoppingOption,
    InputOption,
    LabelOption,
    LabelsOption,
    LengthPenaltyOption,
    MaxNewTokensOption,
    MessagesOption,
    MinPOption,
    NumBeamsOption,
    OptionalAdapterOption,
    OptionalAdaptersOption,
    PairOption,
    PenaltyOption,
    PromptOption,
    QuantizeOption,
    RejectedOption,
    RevisionOption,
    ScoreName,
    StopOption,
    TemperatureOption,
    TextOption,
    TopKOption,
    TopPOption,
)
from .output import print_json, print_measured


def evaluate(
    backbone: BackboneOption,
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Rows as for training: CSV, TSV, JSONL, Parquet, for lm also TXT.")
    ],
    adapter: OptionalAdapterOption = None,
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
    repetition_penalty: PenaltyOption = None,
    stop: StopOption = None,
    seed: DrawOption = 0,
    num_beams: NumBeamsOption = 1,
    length_penalty: LengthPenaltyOption = None,
    early_stopping: EarlyStoppingOption = None,
    chat_template: ChatTemplateOption = None,
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
    """Measure an adapter on rows of its task, or without --adapter the head that the backbone's checkpoint brings.

    With --generate a language model is measured by what it says behind the prompts, without --adapter the backbone alone.
    """
    from ..adapters.files import load_adapter
    from ..adapters.fitting import names_for
    from ..models.load import load_backbone
    from ..serve.evaluate import Measured, evaluate_generation, evaluate_language, measure
    from ..serve.generator import Generator
    from ..serve.predictor import Predictor
    from ..tasks.registry import task_named

    columns, names = columns_of(locals()), split_names(labels)
    sampling, template = sampling_of(locals()), chat_template_of(chat_template)
    loaded = load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize)
    named = parse_adapter(adapter) if adapter is not None else None
    if named is None and not generate and loaded.own_head is None:
        raise GraftaxError("give --adapter: this checkpoint brings no head of its own. A language model alone: --generate.")
    if names is not None and (generate or named is None):
        raise GraftaxError("--labels names the classes of an adapter's head, and none is asked here.")
    if generate:
        generator, name = Generator(loaded, chat_template=template), named.name if named else None
        if named:
            generator.load(named.name, named.place, any_backbone=any_backbone)
        numbers = evaluate_generation(generator, name, data, score=score.value, sampling=sampling, columns=columns)
        measured = Measured(numbers)
    elif named is None:
        measured = measure(Predictor(loaded), None, data, columns=columns)
    elif not task_named((read := load_adapter(named.place, loaded, any_backbone=any_backbone)).task).output.headed:
        names_for(read, names, named.name)
        measured = Measured(evaluate_language(loaded, read, data, columns=columns, chat_template=template))
    else:
        predictor = Predictor(loaded)
        predictor.load(named.name, read, labels=names)
        measured = measure(predictor, named.name, data, columns=columns)
    print_measured(measured, as_json)


def predict(
    backbone: BackboneOption,
    input: InputOption,
    adapter: OptionalAdaptersOption = None,
    top_k: Annotated[
        Optional[int], typer.Option(min=1, help="Say the probabilities of this many labels, the likeliest, in each line.")
    ] = None,
    labels: LabelsOption = None,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
    dtype: DtypeOption = "float32",
    quantize: QuantizeOption = None,
) -> None:
    """Answer rows, each with the adapter it names, as JSON lines in the same order.

    A row may have "text_pair" too, and "adapter" may be left out where only one is loaded. Several adapters in one row:
    {"a": 0.7, "b": 0.3} is their weighted average, ["a", "b"] a stack. Rows without an adapter are answered by the head that
    the backbone's checkpoint brings, if any.
    """
    from ..models.load import load_backbone
    from ..serve.predictor import Predictor

    named = parse_adapters(adapter or [])
    texts, wanted = rows_to_read(input, named)
    predictor = Predictor(load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize))
    if not named and predictor.backbone.own_head is None:
        raise GraftaxError("give --adapter: this checkpoint brings no head of its own.")
    if labels is not None and not named:
        raise GraftaxError("--labels names the classes of an adapter's head, and no adapter is given.")
    for name, place in named:
        predictor.load(name, place, labels=split_names(labels), any_backbone=any_backbone)
        if not predictor.labels(name):
            task = predictor.task(name).name
            raise GraftaxError(f"{name} is of task {task} and has no head that could answer; generate and eval can use it.")
    for answer in predictor.predict(texts, wanted, top_k=top_k):
        told = ({"probabilities": answer.probabilities} if top_k else {}) | ({"cut": True} if answer.cut else {})
        print_json({"adapter": answer.adapter, "label": answer.label, "score": answer.score, **told})


def embed(
    backbone: BackboneOption,
    input: InputOption,
    adapter: OptionalAdaptersOption = None,
    max_length: Annotated[
        Optional[int],
        typer.Option(min=1, help="Tokens of a text without an adapter; longer ones are cut. Default: as the directory says."),
    ] = None,
    any_backbone: AnyBackboneOption = False,
    revision: RevisionOption = "main",
    dtype: DtypeOption = "float32",
    quantize: QuantizeOption = None,
) -> None:
    """Print a vector of each row, under the adapter it names or none, as JSON lines in the same order.

    The mean of the last layer over the tokens, or what the directory of a sentence-transformers model says.

        echo '{"text": "my card is gone"}' | graftax embed -b sentence-transformers/all-MiniLM-L6-v2 -i -
    """
    from ..models.load import load_backbone
    from ..serve.predictor import Predictor

    named = parse_adapters(adapter or [])
    texts, wanted = rows_to_read(input, named)
    predictor = Predictor(load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize), max_length=max_length)
    for name, place in named:
        predictor.load(name, place, any_backbone=any_backbone)
    for what, vector in zip(wanted, predictor.embed(texts, wanted), strict=True):
        print_json(
            {"adapter": None if what is None else str(what), "vector": [float(str(value)) for value in vector]}
        )  # as short as a float32 can be said


def generate(
    backbone: BackboneOption,
    prompt: Annotated[Optional[list[str]], typer.Option("--prompt", "-p", help="Text to continue; once per text.")] = None,
    adapter: OptionalAdaptersOption = None,
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
    repetition_penalty: PenaltyOption = None,
    stop: StopOption = None,
    seed: DrawOption = 0,
    num_beams: NumBeamsOption = 1,
    length_penalty: LengthPenaltyOption = None,
    early_stopping: EarlyStoppingOption = None,
    chat_template: ChatTemplateOption = None,
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
    from ..models.load import load_backbone
    from ..serve.generator import Generator
    from .console import Printer

    named = parse_adapters(adapter or [])
    rows = rows_to_continue(prompt or [], [one.name for one in named], input)
    sampling = sampling_of(locals())
    template = chat_template_of(chat_template)
    generator = Generator(load_backbone(backbone, revision=revision, dtype=dtype, quantize=quantize), chat_template=template)
    for name, place in named:
        generator.load(name, place, any_backbone=any_backbone)
    printer = Printer(rows, stream, as_json)
    for row, text, end in generator.stream([prompt for prompt, _ in rows], [what for _, what in rows], sampling):
        printer.hear(row, text, end)
