"""What somebody wrote in a card, told from headings, tables, code and the texts of templates."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import in_a_line

_SUMMARY = 300  # characters of a description
#: how blocks of lines begin that are no paragraph, and how headings end that are underlined
_NO_PROSE = re.compile(r"#|\||>|[-+*]\s|\d+[.)]\s|```|~~~|<|!\[|\[!\[|={3,}|-{3,}|.+\n(?:=+|-+)\s*\Z")
#: how paragraphs begin that the templates of PEFT, the Hub and transformers put into a card
_TEMPLATES = re.compile(
    r"Users \(both direct and downstream\)|Use the code below to get started|Carbon emissions can be estimated|"
    r"This is the model card of a|The following `bitsandbytes` quantization config|More information needed|"
    r"It achieves the following results|The following hyperparameters were used|\*\*(?:BibTeX|APA):\*\*|\{\{",
    re.IGNORECASE,
)
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\([^()]*\)")


def first_paragraph(texts: Iterable[str]) -> str:
    """The first paragraph of some Markdown, on one line and not too long; empty where there is none."""
    for text in texts:
        code = False
        for block in re.split(r"\n\s*\n", text):
            fences = sum(line.lstrip().startswith(("```", "~~~")) for line in block.split("\n"))
            inside, code = code, code ^ bool(fences % 2)
            prose = block.strip()
            if not prose or inside or _NO_PROSE.match(prose) or _is_of_template(prose):
                continue
            return summary(_LINK.sub(lambda link: link["text"], prose))
    return ""


def _is_of_template(prose: str) -> bool:
    """Whether nobody wrote a paragraph, but a template."""
    return bool(_TEMPLATES.match(prose)) or "[More Information Needed]" in prose


def summary(text: str) -> str:
    """A text on one line, and not too long."""
    line = in_a_line(text)
    return line if len(line) <= _SUMMARY else f"{line[: _SUMMARY - 3].rstrip()}..."
