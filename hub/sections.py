"""What a card says of an adapter, section by section, as Markdown made of its manifest and its evaluations.

Labels, names of data and recipes come from anybody. They are shown as code, in which Markdown and HTML mean nothing, and on one
line, so that none of them can begin or end anything.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from ..adapters.task_words import TaskWords, words_for
from ..counted import counted
from ..errors import GraftaxError, in_a_line, printable
from ..store.manifest import DataFacts, Manifest
from ..store.version import Score

SECTIONS = ("description", "about", "use", "labels", "training", "metrics", "provenance")  # in their order in a card
_MOST_LABELS = 200  # that are listed
_LONGEST = 120  # characters of a text that is shown as code


def sections_of(manifest: Manifest, evaluations: Sequence[Score], name: str, library: str) -> dict[str, str]:
    """By name, what there is something to say in; `library`: as of `card.library_of`."""
    said = {
        "description": in_a_line(manifest.description),
        "about": _about(manifest),
        "use": _use(manifest, name, library),
        "labels": _labels(manifest.labels),
        "training": _training(manifest),
        "metrics": _metrics(manifest, evaluations),
        "provenance": _provenance(manifest),
    }
    return {section: said[section] for section in SECTIONS if said[section]}


def words_of(task: str | None) -> TaskWords | None:
    """A task in others' words; None for one of a package that is not installed here."""
    try:
        return words_for(task) if task else None
    except GraftaxError:
        return None


def code(text: str) -> str:
    """Any text as code within a line: between more backticks than it has behind one another."""
    shown = printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    room = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{room}{shown}{room}{fence}"


def _about(manifest: Manifest) -> str:
    body = [code(method) for method in manifest.methods if method != "head"]
    said = [" and ".join(body) or "a head alone"]
    said += [f"on {code(manifest.backbone)}"] if manifest.backbone else []
    said += [f"for the task {code(manifest.task)}"] if manifest.task else []
    sizes = [counted(len(manifest.labels), "label")] if manifest.labels else []
    sizes += [counted(manifest.parameters, "parameter")] if manifest.parameters else []
    return f"A graftax adapter: {' '.join(said)}{''.join(f', {size}' for size in sizes)}."


def _use(manifest: Manifest, name: str, library: str) -> str:
    words, backbone, own = words_of(manifest.task), manifest.backbone or "BACKBONE", name.rpartition("/")[2]
    if words is not None and words.head is None:
        maker, asker, asked = "Generator", "generator", f'generator.generate(["Once upon a time"], {_literal(own)})'
        command = f"graftax generate --backbone {_word(backbone)} --adapter {_word(name)} --prompt 'Once upon a time'"
    else:
        row = "picture.png" if words is not None and words.model == "ImageClassification" else "a text"
        maker, asker, asked = "Predictor", "predictor", f'predictor.predict(["{row}"], {_literal(own)})'
        command = f"graftax predict --backbone {_word(backbone)} --adapter {_word(name)} --input rows.jsonl"
    python = [
        "import graftax",
        "",
        f"{asker} = graftax.{maker}(graftax.load_backbone({_literal(backbone)}))",
        f"{asker}.load({_literal(own)}, {_literal(name)})",
        f"print({asked})",
    ]
    also = f"\n\nPEFT reads its files: {_with_peft(name)}." if library == "peft" else ""
    shown = [_block("python", "\n".join(python)), _block("sh", command)]
    return "## Use\n\n" + "\n\n".join(shown) + also


def _with_peft(name: str) -> str:
    """How PEFT finds it: on the Hugging Face Hub (`hf://user/adapter`) by itself."""
    _, scheme, there = name.rpartition("://")
    pulled, first = (there, "") if scheme else ("DIR", f"{code(f'graftax hub pull {name} DIR')}, then ")
    return first + code(f"PeftModel.from_pretrained(model, {pulled!r})")


def _labels(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    left = len(labels) - _MOST_LABELS
    more = f" and {left:,} more" if left > 0 else ""
    return f"## Labels\n\n{', '.join(map(code, labels[:_MOST_LABELS]))}{more}"


def _training(manifest: Manifest) -> str:
    said = [_data_line(manifest.data)] if manifest.data != DataFacts() else []
    if manifest.recipe:
        said.append(_block("json", json.dumps(dict(manifest.recipe), indent=2, sort_keys=True, default=str)))
    return "## Training\n\n" + "\n\n".join(said) if said else ""


def _data_line(data: DataFacts) -> str:
    said = [code(data.name)] if data.name else []
    said += [counted(data.rows, "row")] if data.rows else []
    said += [f"sha256 {code(data.sha256)}"] if data.sha256 else []
    return f"Trained on {', '.join(said)}."


def _metrics(manifest: Manifest, evaluations: Sequence[Score]) -> str:
    """Tables: of each set of rows that it was evaluated on, and of the end of its training."""
    said = []
    for (digest, name, rows), scores in groupby(evaluations, lambda score: (score.data, score.data_name, score.rows)):
        title = f"On {code(name) if name else 'rows'} ({counted(rows, 'row')}, sha256 {code(digest[:12])}):"
        lines = [f"| {_cell(one.metric)} | {one.value:.4g} | {_interval(one.low, one.high)} |" for one in scores]
        said.append("\n".join([title, "", "| metric | value | 95% interval |", "|---|---|---|", *lines]))
    known = [(metric, value) for metric, value in manifest.metrics.items() if value is not None]
    if known:
        lines = [f"| {_cell(metric)} | {value:.4g} |" for metric, value in known]
        title = "As training ended (`val_`: of its validation rows, by which the epoch was chosen):"
        said.append("\n".join([title, "", "| metric | value |", "|---|---|", *lines]))
    return "## Metrics\n\n" + "\n\n".join(said) if said else ""


def _provenance(manifest: Manifest) -> str:
    facts: list[tuple[str, Any]] = [
        ("backbone", manifest.backbone),
        ("fingerprint of its weights", manifest.fingerprint),
        ("sha256 of the training rows", manifest.data.sha256),
        *(("made from", parent) for parent in manifest.parents),
        ("imported from", manifest.imported_from),
        ("graftax", manifest.graftax),
    ]
    said = [f"- {what}: {code(value)}" for what, value in facts if value]
    return "## Provenance\n\n" + "\n".join(said) if said else ""


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _cell(text: str) -> str:
    """Any text as code in a cell of a table, which a bare `|` would end even there."""
    return code(text).replace("|", "\\|")


def _literal(text: str) -> str:
    """A text as Python writes it, with nothing in it that a reader cannot see."""
    return json.dumps(text)


def _word(text: str) -> str:
    """A text as one word of a shell's line."""
    return shlex.quote(printable(text))


def _block(language: str, text: str) -> str:
    """Lines of code. None of them begins with a backtick, for what others have said stands in quotes."""
    return f"```{language}\n{text}\n```"
