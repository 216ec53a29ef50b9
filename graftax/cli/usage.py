"""What is wrong with a command line, in the words of every other error."""

from __future__ import annotations

from typing import Any

from ..errors import in_a_line
from ..typed import in_words, shown

#: What an option takes, by pydantic's name for what is wrong with its value; typer reads values by pydantic.
_WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), in_words(int)),
    **dict.fromkeys(("float_type", "float_parsing"), in_words(float)),
    **dict.fromkeys(("bool_type", "bool_parsing"), in_words(bool)),
}


def usage_line(error: Any) -> str:
    """The line of an error of the command line's framework; empty where help was shown in its place.

    A value that an option cannot take is said as in Python: which option, what it takes, what it got.
    """
    found = getattr(error.__cause__, "errors", None)  # pydantic's
    said = in_a_line(error.format_message() if found is None else _of_value(max(error.param.opts, key=len), found()[0]))
    if not said:
        return ""
    command = getattr(getattr(error, "ctx", None), "command_path", "graftax")
    return f"{said}{'' if said[-1] in '.?' else '.'} Try {command} --help."


def _of_value(option: str, fault: dict[str, Any]) -> str:
    reason = fault.get("ctx", {}).get("error")  # a choice that there is not, a path that cannot be
    if reason is not None:
        return f"{option}: {reason}"
    wanted = _WANTED.get(fault["type"], fault["msg"].removeprefix("Input should be "))
    return f"{option} must be {wanted}, got {shown(fault['input'])}"
