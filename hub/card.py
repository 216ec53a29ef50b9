"""An adapter's card: the README.md of its directory, as the Hugging Face Hub shows and searches it.

It is written from the manifest and the evaluations, anew with every version, and people edit it:

    ---                          front matter: what the Hub searches by (`card_metadata.py`)
    license: mit
    ---
    # bank/intent
    <!-- graftax:use -->         sections that graftax writes (`sections.py`), between comments that nobody sees
    ...
    <!-- /graftax:use -->
    Whatever else people write.

Keys, tags and sections that are still as graftax wrote them are renewed; what somebody changed, added or took away stays so
(`kept.py`). The key `written_by_graftax` of the front matter has the digests by which that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GraftaxError, in_a_line
from ..store.manifest import Manifest
from ..store.version import Score
from .card_metadata import bare_name, metadata
from .front_matter import FrontMatter, split_front_matter
from .kept import is_own, renewed
from .prose import first_paragraph, summary
from .sections import SECTIONS, sections_of

FILE = "README.md"
_RECORD = "written_by_graftax"  # the key of the front matter under which it is remembered what was written
_LISTS = ("tags", "datasets")  # keys of which each entry is kept or renewed by itself
_MOST = 1 << 20  # characters of a card


@dataclass(frozen=True)
class Card:
    """What a search asks of a card."""

    description: str = ""  # of the front matter, else the first paragraph that somebody wrote, on one line
    keywords: tuple[str, ...] = ()  # tags that somebody set
    license: str | None = None


def library_of(config: Mapping[str, Any]) -> str:
    """The Hub's `library_name` for an adapter_config.json: of PEFT's files, of AdapterHub's, of graftax's own."""
    if isinstance(config.get("config"), dict) and "peft_type" not in config:
        return "adapter-transformers"
    return "graftax" if config.get("peft_type") == "GRAFTAX" else "peft"


def read_card(text: str, source: str = FILE) -> Card:
    """What people say in a card; GraftaxError, which begins with `source`, where its front matter cannot be read."""
    front, body = _split(text, source)
    record = _record_of(front)
    prose = (
        part.text
        for part in _parts(body)
        if part.section in (None, "description") or not is_own(part.section, part.text, record["sections"])
    )
    tags = [tag for tag, value in _entries(front.values.get("tags")).items() if not is_own(tag, value, record["tags"])]
    licenses = ", ".join(_entries(front.values.get("license")))
    return Card(_described(front) or first_paragraph(prose), tuple(map(in_a_line, tags)), in_a_line(licenses) or None)


def body_of(text: str, source: str = FILE) -> str:
    """What a card says to people: without its front matter, and without graftax's comments."""
    return "\n\n".join(part.text for part in _parts(_split(text, source)[1]))


def _described(front: FrontMatter) -> str:
    """What front matter says in a word for it; empty where it says nothing."""
    said = (front.values.get(key) for key in ("description", "summary"))
    return next((summary(text) for text in said if isinstance(text, str) and text.strip()), "")


def write_card(
    manifest: Manifest, evaluations: Sequence[Score], existing: str | None, name: str, *, library: str = "graftax"
) -> str:
    """The text of a card.

    Args:
        manifest: of the version that it is about.
        evaluations: of that version (`Index.evaluations`), those on the same rows behind one another.
        existing: the card that is there, whoever wrote it.
        name: what the adapter is called in a hub; on the Hugging Face Hub `hf://user/adapter`.
        library: as of `library_of`.

    Raises:
        GraftaxError: the front matter of the existing card cannot be read.
    """
    ending = "\r\n" if existing and "\r\n" in existing else "\n"
    front, body = _split(existing or "", FILE)
    record, parts = _record_of(front), _parts(body)
    if not body.strip():
        parts = [_Part(None, f"# {in_a_line(bare_name(name))}")]
    sections = sections_of(manifest, evaluations, name, library)
    there = {part.section: part.text for part in parts if part.section}
    if "description" not in there and first_paragraph(part.text for part in parts if not part.section):
        sections.pop("description", None)  # somebody's own words are it
    stand, record["sections"] = renewed(there, sections, record["sections"])
    text = _joined(parts, stand)
    front = _renewed_front(front, metadata(manifest, evaluations, name, library), record)
    return (front.text() + "\n" + text).replace("\n", ending)


# -- the front matter (`front_matter.py`) --------------------------------------------------------------------------------


def _renewed_front(front: FrontMatter, own: Mapping[str, Any], record: dict[str, dict[Any, str]]) -> FrontMatter:
    """The front matter with what is graftax's in it renewed; `record` comes to say what that is."""
    there = {key: value for key, value in front.values.items() if key != _RECORD}
    whole = {key: value for key, value in own.items() if key not in _LISTS}
    others = {key: value for key, value in there.items() if key not in _LISTS}
    values, record["keys"] = renewed(others, whole, record["keys"])
    for key in _LISTS:
        entries = _entries(there.get(key))
        kept, record[key] = renewed(entries, _entries(own.get(key)), record[key])
        if kept:  # `datasets: squad` says as much as a list
            values[key] = there[key] if kept == entries else list(kept.values())
    order = [key for key in [*there, *own] if key in values]
    return front.changed({key: values[key] for key in order} | {_RECORD: record})


def _record_of(front: FrontMatter) -> dict[str, dict[Any, str]]:
    """What was written last, by place: the digest of each key, tag, data set and section; what is no digest is passed over."""
    found = front.values.get(_RECORD)
    record: dict[str, dict[Any, str]] = {}
    for place in ("keys", *_LISTS, "sections"):
        said = found.get(place) if isinstance(found, dict) else None
        digests = said.items() if isinstance(said, dict) else ()
        record[place] = {name: digest for name, digest in digests if isinstance(digest, str)}
    return record


def _entries(value: Any) -> dict[str, Any]:
    """The entries of a list, or of what stands in place of one, each by its text."""
    return {str(entry): entry for entry in (value if isinstance(value, list) else [value]) if entry is not None}


# -- the body ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Some of a card's lines: a section that graftax has begun, or (None) what lies between."""

    section: str | None
    text: str  # of a section, without the comments around it


def _split(text: str, source: str) -> tuple[FrontMatter, str]:
    """Front matter and body, whose lines end as on Unix."""
    if len(text) > _MOST:
        raise GraftaxError(f"{source}: {len(text):,} characters are too many for a card; at most {_MOST:,} are read.")
    return split_front_matter(text.removeprefix("\ufeff").replace("\r\n", "\n"), source)


def _parts(body: str) -> list[_Part]:
    """The parts of a body, in their order; comments without a partner are nothing but lines."""
    lines = body.split("\n")
    found: list[tuple[int, int, str]] = []
    for section in SECTIONS:
        begin, end = _comments(section)
        if begin in lines and end in lines[(first := lines.index(begin)) :]:
            found.append((first, lines.index(end, first), section))
    parts, at = [], 0
    for first, last, section in sorted(found):
        if first >= at:  # else it begins within another one
            parts += [_Part(None, _trimmed(lines[at:first])), _Part(section, _trimmed(lines[first + 1 : last]))]
            at = last + 1
    return [part for part in [*parts, _Part(None, _trimmed(lines[at:]))] if part.section or part.text]


def _joined(parts: Sequence[_Part], stand: Mapping[str, str]) -> str:
    """A body: its parts with the sections as they stand now, and new ones behind the last section, or at the end."""
    texts = [(part.section, part.text if part.section is None else stand.get(part.section)) for part in parts]
    known = {part.section for part in parts}
    behind = max((i for i, part in enumerate(parts) if part.section), default=len(parts) - 1) + 1
    texts[behind:behind] = [(section, text) for section, text in stand.items() if section not in known]
    return "\n\n".join(_between_comments(section, text) for section, text in texts if text is not None) + "\n"


def _between_comments(section: str | None, text: str) -> str:
    if section is None:
        return text
    begin, end = _comments(section)
    return f"{begin}\n{text}\n{end}"


def _comments(section: str) -> tuple[str, str]:
    return f"<!-- graftax:{section} -->", f"<!-- /graftax:{section} -->"


def _trimmed(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip("\n")
