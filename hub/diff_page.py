"""A page about how two adapters differ, for people, in 80 columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from ..counted import counted
from ..errors import in_a_line
from .answers import AnswersCompared
from .diff import AtModule, Difference, Setting

_KEY, _VALUE, _NUMBER = 24, 27, 9  # columns of a key, a value, a number
_PAGE = 80  # columns of the page
_MODULE = _PAGE - 4 * _NUMBER
_OF = {"weights": "added to the weights", "arrays": "arrays of methods, where their change of the weights is not known"}


def diff_page(found: Difference, most: int = 10) -> str:
    """The page: norms of both at each module and of their difference, and the cosine; of modules and of changed answers the
    `most` that differ most."""
    blocks = [*_apart(found), _columns("", found.left, found.right)]
    blocks += [line for setting in found.settings for line in _setting(setting)] or ["nothing that is known of them differs"]
    for total in found.totals:
        blocks += ["", f"{_OF[total.of]} (norms):", *_modules(found, total, most)]
    if rest := [one for one in found.modules if one.apart is None]:
        blocks += ["", f"{counted(len(rest), 'module')} where they cannot be compared:"]
        blocks += [f"  {_end(one.module, 76)}" for one in rest[:most]] + _more(len(rest) - most)
    if found.answers is not None:
        blocks += ["", *_answers(found.answers, most)]
    return "\n".join(line.rstrip() for line in blocks)


def _apart(found: Difference) -> list[str]:
    """That the two are for different backbones, where both say for which."""
    known = {one.key: one for one in found.settings if one.left is not None and one.right is not None}
    if (types := known.get("model_type")) is not None:
        return [in_a_line(f"for different kinds of backbones: {types.left} and {types.right}")[:_PAGE], ""]
    if "fingerprint" in known:
        return ["for backbones of different weights (fingerprints), so that norms and cosines say little", ""]
    return []


def _setting(setting: Setting) -> list[str]:
    left, right = setting.left, setting.right
    if isinstance(left, tuple) and isinstance(right, tuple):
        gone, new = [one for one in left if one not in right], [one for one in right if one not in left]
        differ = _columns("", _list(gone), _list(new)) if gone or new else _columns("", "in another order", "")
        return [_columns(setting.key, f"{len(left)}", f"{len(right)}"), differ]
    return [_columns(setting.key, _value(left), _value(right))]


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(_value, values)) or "-"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _modules(found: Difference, total: AtModule, most: int) -> list[str]:
    numbers = "".join(f"{title:>{_NUMBER}}" for title in ("left", "right", "apart", "cosine"))
    each = [one for one in found.modules if one.of == total.of and one.apart is not None]
    lines = [_fitted("module", _MODULE) + numbers, *map(_line, each[:most])]
    return [*lines, *_more(len(each) - most), _line(total)]


def _line(one: AtModule) -> str:
    cosine = "-" if one.cosine is None else f"{one.cosine:.4f}"
    norms = [f"{norm:>{_NUMBER}.3g}" for norm in (one.left, one.right, one.apart)]
    for side, there in enumerate((one.on_left, one.on_right)):
        if not there:
            norms[side] = f"{'-':>{_NUMBER}}"
    return f"{_end(one.module, _MODULE)}{''.join(norms)}{cosine:>{_NUMBER}}"


def _answers(answers: AnswersCompared, most: int) -> list[str]:
    if answers.apart is not None:
        return [f"answers to {counted(answers.rows, 'row')}: {answers.apart:.4g} apart, on average"]
    lines = [f"answers to {counted(answers.rows, 'row')}: {answers.alike:.1%} alike"]
    if (truth := answers.truth) is not None:
        lines += [
            f"correct: left {truth.left:.1%}, right {truth.right:.1%}",
            f"correct on the left alone {counted(truth.only_left, 'row')}, on the right alone {truth.only_right:,}",
            f"McNemar's exact p {truth.p:.3g}",
        ]
    changed = sorted(answers.changed.items(), key=lambda item: -item[1])
    lines += ["answered otherwise:"] if changed else []
    for (left, right), count in changed[:most]:
        names = ("(none)" if name is None else name for name in (left, right))
        lines.append(f"{count:>7,}  {' -> '.join(_fitted(name, 32).rstrip() for name in names)}")
    return lines + _more(len(changed) - most)


def _more(count: int) -> list[str]:
    return [f"  and {count:,} more"] if count > 0 else []


def _columns(key: str, left: str, right: str) -> str:
    return f"{_fitted(key, _KEY)} {_fitted(left, _VALUE)} {_fitted(right, _VALUE)}"


def _fitted(text: str, width: int) -> str:
    """A text in exactly so many columns, of which some characters take two."""
    line = in_a_line(text)
    return set_cell_size(line, width) if cell_len(line) <= width else set_cell_size(line, width - 1) + "~"


def _end(text: str, width: int) -> str:
    """The same with the end of a text that is too long: of a module's path that tells most."""
    line = in_a_line(text)
    while cell_len(line) > width - 1:
        line = f"~{line[2:]}"
    return set_cell_size(line, width)
