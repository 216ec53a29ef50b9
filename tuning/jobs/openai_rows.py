"""Rows as OpenAI's fine-tuning takes them, made graftax's rows.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "...", "weight": 1}]}
    {"prompt": "...", "completion": "..."}
    {"input": {"messages": [...]}, "preferred_output": [message], "non_preferred_output": [message]}

The first two are graftax's own (task `sft`, docs/data.md). Of a preference (task `dpo`) the columns have other names there.
Tools are refused: their definitions are no part of what is learnt here, and a model that was trained without them would be
another than was asked for.

Rows come from strangers, so a picture is never a path on the server's disk: it is a data URL, `data:image/png;base64,...`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...data.columns import Columns, Field
from ...data.sources import Source
from ...errors import GraftaxError

_INPUT, _PREFERRED, _OTHER = "input", "preferred_output", "non_preferred_output"
_TOOLS = ("tools", "functions")
_ROLES_OF_TOOLS = ("tool", "function")
_CALLS = ("tool_calls", "function_call")


def rows_to_learn(source: Source, task: str, columns: Columns, fields: Sequence[Field]) -> Source:
    """The rows of a file as graftax's task reads them.

    `fields`: those of the task. Raises GraftaxError, which names the row, for what cannot be learnt from.
    """
    located = [columns[field.name] for field in fields if field.located]
    rows = []
    for i, row in enumerate(source.rows):
        where = source.row_name(i)
        _refuse_tools(row, where)
        row = _preference(row, where) if task == "dpo" and (_PREFERRED in row or _OTHER in row) else row
        rows.append(row | {column: _without_paths(row[column], column, where) for column in located if column in row})
    return replace(source, rows=rows)


def _preference(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A preference under graftax's names."""
    if missing := [key for key in (_INPUT, _PREFERRED, _OTHER) if key not in row]:
        raise GraftaxError(f"{where} is a preference without {' and '.join(missing)}.")
    asked = row[_INPUT]
    if not isinstance(asked, Mapping) or not isinstance(asked.get("messages"), list) or not asked["messages"]:
        raise GraftaxError(f"{where}: {_INPUT} must be an object with messages.")
    _refuse_tools(asked, where)
    for key in (_PREFERRED, _OTHER):
        if not _is_answer(row[key]):
            raise GraftaxError(f"{where}: {key} must be a list of messages, the first of them the assistant's.")
        _refuse_tools({"messages": row[key]}, where)
    return {"prompt": asked["messages"], "chosen": row[_PREFERRED], "rejected": row[_OTHER]}


def _is_answer(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and isinstance(messages[0], Mapping)
        and messages[0].get("role") == "assistant"
    )


def _refuse_tools(row: Mapping[str, Any], where: str) -> None:
    if there := [key for key in _TOOLS if row.get(key)]:
        raise GraftaxError(f"{where}: {there[0]} are not supported in training.")
    messages = row.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, Mapping):
            continue
        if message.get("role") in _ROLES_OF_TOOLS or any(message.get(key) for key in _CALLS):
            raise GraftaxError(f"{where}: a message calls a tool or is of one, which is not supported in training.")


def _without_paths(value: Any, column: str, where: str) -> Any:
    """A value of a column in which paths would be taken: a data URL as its bytes, lists and objects of numbers as they are."""
    if not isinstance(value, str) and not (isinstance(value, Mapping) and value.keys() == {"bytes", "path"}):
        return value
    form, _, content = value.partition(",") if isinstance(value, str) else ("", "", "")
    if not form.lower().startswith("data:") or not form.lower().endswith(";base64"):
        said = "a picture of an uploaded row is a data URL, data:image/png;base64,...; paths are not read"
        raise GraftaxError(f"{where}: {said} (column {column!r}).")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise GraftaxError(f"{where}: its data URL is not base64 (column {column!r}).") from None
