"""Pages of HTML, without scripts or anything from elsewhere, light and dark, on paper and on a telephone.

What they share is `frame.html.jinja`; a page is a template beside the code that it belongs to, which extends that. All that
comes from data is escaped there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .findings import number, words


def rendered(template: Path, **values: Any) -> str:
    """The page of a template."""
    from jinja2 import Environment, FileSystemLoader

    folders = [template.parent, Path(__file__).parent]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "words": words}
    return environment.get_template(template.name).render(**values)
