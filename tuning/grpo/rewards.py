"""Rewards: what a completion is worth, said by a rule or by a function of the user's.

    exact             1 where the completion is the row's answer, else 0, blanks at the ends aside
    regex:PATTERN     the first place of the completion that the pattern matches: 1 where its first group (without groups: all
                      of it) is the answer, blanks at the ends aside; in rows without answers 1 where there is such a place
    FILE.py           reward(prompts, completions, **columns) in that file: a list of numbers, one for each completion

The function is called as TRL calls it: by names, with the prompts, the completions, their tokens (`completion_ids`), and every
other column of the rows, each a list with an entry for each completion. It gets those of them that it has parameters for. Where
prompts are chats a completion is a chat too, of one message of the assistant. The file is the user's own program, which is run
as it is. A reward that fails, or says what is no finite number, ends the run with the row that it was asked about: what is left
out would be a reward of 0 that nobody gave.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import numbers
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...adapters.patterns import compiled
from ...counted import counted
from ...errors import GraftaxError, in_a_line
from ...paths import expect_file
from ...typed import shown
from .prompt_rows import PromptRows

FUNCTION = "reward"  # what it is called in a file
_GIVEN = ("prompts", "completions", "completion_ids")  # beside the columns


@dataclass(frozen=True)
class Completion:
    """What was sampled for a row."""

    row: int
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Reward:
    """One reward."""

    name: str  # in the metrics
    digest: str  # changes with whatever it says
    score: Callable[[PromptRows, Sequence[Completion]], list[float]]  # one finite number each
    check: Callable[[PromptRows], None]  # a GraftaxError where it cannot be asked about such rows


def rewards_of(given: Any) -> tuple[Reward, ...]:
    """Rewards as they are given: one or several, each a text (see above) or a function. No two are called the same."""
    several = given if isinstance(given, list | tuple) else (given,)
    if not several:
        raise GraftaxError("there is no reward; give exact, regex:PATTERN, a FILE.py or a function.")
    found: list[Reward] = []
    for one in several:
        reward = _reward_of(one)
        before = sum(other.name.partition("#")[0] == reward.name for other in found)
        found.append(replace(reward, name=f"{reward.name}#{before + 1}") if before else reward)
    return tuple(found)


def _reward_of(given: Any) -> Reward:
    if isinstance(given, Reward):
        return given
    if callable(given):
        return _by_function(_called(given), given, f"the reward {_called(given)}", _said_of(given))
    if not isinstance(given, str | Path):
        raise GraftaxError(f"a reward must be exact, regex:PATTERN, a FILE.py or a function, got {shown(given)}.")
    kind, colon, pattern = str(given).partition(":")
    if str(given) == "exact":
        return Reward("exact", "exact", _exact, _needs_answers)
    if kind == "regex" and colon:
        return _by_pattern(pattern)
    if Path(given).suffix == ".py":
        return _by_file(Path(given))
    raise GraftaxError(f"reward {str(given)!r} is none of exact, regex:PATTERN and FILE.py.")


# -- rules ----------------------------------------------------------------------------------------------------------------


def _exact(rows: PromptRows, completions: Sequence[Completion]) -> list[float]:
    assert rows.answers is not None
    return [float(one.text.strip() == rows.answers[one.row].strip()) for one in completions]


def _needs_answers(rows: PromptRows) -> None:
    if rows.answers is None:
        raise GraftaxError(
            f"{rows.source}: reward exact compares with the answer, and there is no column {rows.answer_column!r}; "
            f"there are {', '.join(rows.names)}."
        )


def _by_pattern(pattern: str) -> Reward:
    regex = compiled(pattern)

    def found(text: str) -> str | None:
        match = regex.search(text)
        return None if match is None else (match[1] if regex.groups else match[0]) or ""

    def score(rows: PromptRows, completions: Sequence[Completion]) -> list[float]:
        said = [found(one.text) for one in completions]
        if rows.answers is None:
            return [float(text is not None) for text in said]
        answers = [rows.answers[one.row].strip() for one in completions]
        return [float(text is not None and text.strip() == answer) for text, answer in zip(said, answers, strict=True)]

    return Reward("regex", f"regex:{pattern}", score, lambda rows: None)


# -- functions ------------------------------------------------------------------------------------------------------------


def _by_file(file: Path) -> Reward:
    expect_file(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise GraftaxError(f"{file}: cannot be read ({error}).") from error
    module = ModuleType(f"graftax_reward_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(content, str(file), "exec"), vars(module))
    except Exception as error:
        raise GraftaxError(f"{file}: {_what(error, file)}.") from error
    function = vars(module).get(FUNCTION)
    if not callable(function):
        raise GraftaxError(f"{file}: there is no function {FUNCTION} in it.")
    return _by_function(file.stem, function, f"{file}: {FUNCTION}", hashlib.sha256(content).hexdigest(), file)


def _by_function(name: str, function: Callable[..., Any], where: str, digest: str, file: Path | None = None) -> Reward:
    """The reward that a function says; `where`: what errors call it."""
    parameters = _parameters(function, where)
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = {one.name: one.default is one.empty for one in parameters.values() if one.kind in _BY_NAME}

    def ask(rows: PromptRows, completions: Sequence[Completion]) -> list[float]:
        given: dict[str, Any] = {
            "prompts": [rows.prompts[one.row] for one in completions],
            "completions": [_as_said(rows, one) for one in completions],
            "completion_ids": [list(one.tokens) for one in completions],
        }
        given |= {column: [values[one.row] for one in completions] for column, values in rows.columns.items()}
        said = function(**{key: value for key, value in given.items() if takes_all or key in named})
        return _numbers(said, where, rows, completions)

    def score(rows: PromptRows, completions: Sequence[Completion]) -> list[float]:
        try:
            return ask(rows, completions)
        except GraftaxError:
            raise
        except Exception as error:
            failed, culprit = error, "one of the rows of this step"
        for one in completions:  # which row was it?
            try:
                ask(rows, [one])
            except Exception as error:
                failed, culprit = error, rows.row_name(one.row)
                break
        raise GraftaxError(f"{where} failed at {culprit}: {_what(failed, file)}.") from failed

    def check(rows: PromptRows) -> None:
        there = {*_GIVEN, *rows.columns}
        if missing := [key for key, needed in named.items() if needed and key not in there]:
            raise GraftaxError(
                f"{where} asks for {', '.join(missing)}; it can have {', '.join(_GIVEN)} and the columns of {rows.source}: "
                f"{', '.join(rows.columns) or 'there are no others'}."
            )

    return Reward(name, digest, score, check)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(function: Callable[..., Any], where: str) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise GraftaxError(f"{where}: Python does not know its parameters ({error}).") from error
    if inspect.iscoroutinefunction(function):
        raise GraftaxError(f"{where} is asynchronous; a reward is a plain function here.")
    if alone := [one.name for one in parameters.values() if one.kind is one.POSITIONAL_ONLY]:
        raise GraftaxError(f"{where}: {', '.join(alone)} must be taken by name.")
    return parameters


def _as_said(rows: PromptRows, one: Completion) -> Any:
    """A completion as functions get it: a text, or, behind a chat, the assistant's message as a chat."""
    return one.text if isinstance(rows.prompts[one.row], str) else [{"role": "assistant", "content": one.text}]


def _numbers(said: Any, where: str, rows: PromptRows, completions: Sequence[Completion]) -> list[float]:
    """What a function has returned, as numbers; a GraftaxError where it is something else."""
    plain = said.tolist() if isinstance(said, np.ndarray) else said
    if not isinstance(plain, list | tuple):
        raise GraftaxError(f"{where} must return a list of numbers, got {shown(said)}.")
    if len(plain) != len(completions):
        raise GraftaxError(f"{where} returned {counted(len(plain), 'number')} for {counted(len(completions), 'completion')}.")
    for one, number in zip(completions, plain, strict=True):
        if not isinstance(number, numbers.Real | np.bool_) or not math.isfinite(number):
            raise GraftaxError(f"{where} said {shown(number)} of {rows.row_name(one.row)}; it must be a finite number.")
    return [float(number) for number in plain]


def _what(error: Exception, file: Path | None) -> str:
    """An exception in a line, with the line of the user's file in which it arose."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if file and Path(frame.filename) == file]
    if isinstance(error, SyntaxError) and error.lineno:
        lines = [error.lineno]
    place = f"line {lines[-1]}: " if lines else ""
    return in_a_line(f"{place}{type(error).__name__}{f': {error}' if str(error) else ''}").rstrip(".")


def _called(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _said_of(function: Callable[..., Any]) -> str:
    """The source of a function, or where Python has none, its name."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', _called(function))}"
