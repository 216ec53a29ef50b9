"""How commands print: JSON that every reader takes, and pages that stay in their columns on a narrow terminal."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Any


def print_json(content: Any) -> None:
    """One line of JSON. It has no word for what is no finite number (the correlation with a constant, say): that is null."""
    print(json.dumps(_finite(content), ensure_ascii=False, allow_nan=False), flush=True)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def print_page(page: str) -> None:
    """Lines of columns; on a terminal folded to its width, elsewhere (for grep, say) as they are."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in page.splitlines():
        print(line if width is None else folded(line, width))


def folded(line: str, width: int) -> str:
    """A line as several of at most `width` characters: the others begin below its second column, or a little further in."""
    first = re.match(r"\s*\S+\s{2,}", line)
    begin = len(first[0]) if first else width
    if begin > width // 2:
        begin = len(line) - len(line.lstrip()) + 4
    lines = textwrap.wrap(line, max(width, begin + 8), subsequent_indent=" " * begin, break_on_hyphens=False)
    return "\n".join(lines)
