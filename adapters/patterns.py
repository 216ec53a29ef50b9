"""Regular expressions over module paths: `target_modules`, rank patterns and their kin, which users and files write.

They are run by RE2, whose time grows with the text and never with what a pattern makes of it: Python's own engine would try the
ways in which `(?:[a-z]+)+!` may match "attention" one after another, for longer than anybody waits. RE2 reads what Python does,
but for look-arounds and references back to a group, which no such engine has. What the two would read in different ways is
refused.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..errors import GraftaxError

_LONGEST = 20_000  # characters of a pattern
_MEMORY = 1 << 20  # bytes of a compiled one
_AMBIGUOUS = ("{,", "[:")  # a{,2} is a repetition to Python and a text to RE2, [[:alpha:]] a class to RE2 alone

T = TypeVar("T")


def matches(targets: str | Sequence[str], *paths: str) -> bool:
    """PEFT's rule: a string is a regex for the whole path, a list holds whole paths or dotted suffixes.

    Whether that is so of one of the paths that a module has.
    """
    if isinstance(targets, str):
        return any(fullmatch(targets, path) for path in paths)
    return any(path == t or path.endswith(f".{t}") for t in targets for path in paths)


def pattern_value(patterns: Mapping[str, T], default: T, *paths: str) -> T:
    """PEFT's rule for rank and alpha patterns: the first key that, as a regex, matches the end of a path at a dot.

    Of the paths that a module has, as of `matches`; `default` where no key matches one.
    """
    for key, value in patterns.items():
        if any(fullmatch(rf"(.*\.)?({key})", path) for path in paths):
            return value
    return default


def fullmatch(pattern: str, path: str) -> Any:
    """The match of a pattern with a whole path, or None, as `re.fullmatch` has it.

    Raises:
        GraftaxError: what is no regular expression, or one that needs an engine that tries and goes back.
    """
    return compiled(pattern, "; name the modules one by one instead").fullmatch(path)


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str, advice: str = "") -> Any:
    """A pattern, to be searched for; GraftaxError as of `fullmatch`, at whose end stands what can be done instead."""
    import re2

    if len(pattern) > _LONGEST:
        raise GraftaxError(f"a regular expression of {len(pattern):,} characters is too long: {pattern}")
    options = re2.Options()
    options.log_errors, options.max_mem = False, _MEMORY
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that a later Python may read [[a] in another way
            re.compile(pattern)  # RE2 reads some texts that are none to Python
        if not any(words in pattern for words in _AMBIGUOUS):
            return re2.compile(pattern, options)
        why = f"{' and '.join(_AMBIGUOUS)} mean different things to different engines"
    except re2.error as error:
        why = error.args[0].decode("utf-8", "replace")
    except (re.error, ValueError, OverflowError, RecursionError) as error:  # half of a surrogate pair is a ValueError
        why = str(error)
    raise GraftaxError(
        f"{pattern!r} is not a regular expression here: {why}. Look-arounds, references to groups and repetitions beyond "
        f"1,000 are not taken{advice}."
    )
