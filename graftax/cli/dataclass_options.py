"""Options that follow from the fields of a dataclass, so that a name, a type, a default and its words stand once.

    @options_from_fields
    def generate(prompt: str, *, sampling: Annotated[Sampling, OptionPerField(panel="What is generated")]) -> None: ...

is a command with the options --max-new-tokens, --temperature and so on instead of `sampling`, and is called with one
`Sampling`, made of what was given. What a field takes and its default are as the dataclass says, the help is its `Doc`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Annotated, Any

import typer
from annotated_doc import Doc

Command = Callable[..., None]


@dataclass(frozen=True)
class OptionPerField:
    """Says of a parameter of a command that it stands for an option for each field of its dataclass."""

    panel: str | None = None  # of the help
    called: Callable[[str], str] = str  # the option's name, with underscores, of a field's
    only: Collection[str] | None = None  # the fields that are options; None: all
    last: tuple[str, ...] = ()  # the fields that the help shows behind the others
    metavars: Mapping[str, str] = field(default_factory=dict)  # what the help shows in place of a field's type

    def fields(self, cls: type, others: Collection[str]) -> dict[str, dataclasses.Field[Any]]:
        """The fields by their options' names; one for which the command has a parameter of its own (`others`) is left to it."""
        fields = [one for one in dataclasses.fields(cls) if self.only is None or one.name in self.only]
        in_order = sorted(fields, key=lambda one: self.last.index(one.name) if one.name in self.last else -1)
        return {name: one for one in in_order if (name := self.called(one.name)) not in others}

    def option(self, name: str, one: dataclasses.Field[Any], annotation: Any) -> Parameter:
        """A field, and its annotation, as a parameter of a command."""
        words = next(mark.documentation for mark in annotation.__metadata__ if isinstance(mark, Doc))
        default = None if one.default == () else one.default
        option = typer.Option(default, help=words, rich_help_panel=self.panel, metavar=self.metavars.get(one.name))
        return Parameter(name, Parameter.KEYWORD_ONLY, default=option, annotation=_as_typer_reads(annotation))


@dataclass(frozen=True)
class _Bundle:
    """A parameter with such a mark."""

    cls: Callable[..., Any]
    options: Mapping[str, str]  # fields by the names of their options

    def made(self, given: dict[str, Any]) -> Any:
        """The dataclass of what was given, which is taken out; what is None was not."""
        values = {name: given.pop(option, None) for option, name in self.options.items()}
        return self.cls(**{name: value for name, value in values.items() if value is not None})


def options_from_fields(command: Command) -> Command:
    """A command whose parameters with an `OptionPerField` have become the options for which they stand."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[Parameter] = []
    bundles: dict[str, _Bundle] = {}
    for parameter in signature.parameters.values():
        mark = _mark_of(parameter.annotation)
        if mark is None:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        cls = parameter.annotation.__origin__
        fields, annotations = mark.fields(cls, signature.parameters), typing.get_type_hints(cls, include_extras=True)
        parameters += [mark.option(name, one, annotations[one.name]) for name, one in fields.items()]
        bundles[parameter.name] = _Bundle(cls, {name: one.name for name, one in fields.items()})

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> None:
        made = {name: bundle.made(given) for name, bundle in bundles.items()}
        command(*args, **given, **made)

    # typer reads the signature, and beside it annotations, which are the function's and say nothing more
    typing.cast(Any, run).__signature__, run.__annotations__ = signature.replace(parameters=parameters), {}
    return run


def _mark_of(annotation: Any) -> OptionPerField | None:
    return next((mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, OptionPerField)), None)


def _as_typer_reads(annotation: Any) -> Any:
    """An annotation without bounds and words, which are the dataclass's matter; several values are a list."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _as_typer_reads(inner[0])
    if origin is tuple:
        return types.GenericAlias(list, _as_typer_reads(inner[0])) | None
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_as_typer_reads, inner))
    return annotation
