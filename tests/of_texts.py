"""Examples of texts, without a backbone: read of rows, or made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graftax.data.columns import Columns
from graftax.data.examples import Examples
from graftax.models.tokens import Tokenizer
from graftax.tasks import read_examples as of_tasks
from graftax.tasks.task_registry import task_named


def read_examples(data: Any, columns: Columns, task: str, names: Sequence[str] = (), called: str = "") -> Examples:
    """Examples of a task by its name, for a backbone that reads texts."""
    return of_tasks.read_examples(data, columns, task_named(task), Tokenizer, names, called)


def of_texts(texts: Sequence[Any], labels: Sequence[Any] | None, source: str = "data") -> Examples:
    return Examples({"text": tuple(texts)}, None if labels is None else tuple(labels), source)
