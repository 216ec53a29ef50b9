"""A page about one version: what it is, what it fits, how it did, and where it comes from, as a chain.

bank/both:1
  backbone  all-MiniLM-L6-v2, fingerprint 5e0a...
  data      bank.csv, 120 rows, sha256 77ab...
  made from bank/intent:3
    data      ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..counted import counted
from ..errors import printable
from ..store.manifest import Manifest
from ..store.store import Store
from ..store.version import Score, Version
from .provenance import provenance

_DIGITS = 12  # of a digest, for people
_MOST_NAMED = 3  # versions of the same weights


def page_of(store: Store, version: Version) -> str:
    """The page, as lines of two columns."""
    manifest = store.manifest(version)
    lines = [f"{version}  sha256:{version.digest}"]
    lines += _section("", _facts(version, manifest, store.is_name_signed(version)))
    lines += _section("labels", {"": ", ".join(map(printable, version.labels))} if version.labels else {})
    lines += _section("recipe", {key: value for key, value in manifest.recipe.items() if value is not None})
    lines += _section("metrics of its training", {name: f"{value:.4f}" for name, value in version.metrics.items()})
    lines += _section("measured", dict(map(_measured, store.index().evaluations(version))))
    lines += _section("files", {path: f"{file.size:,} bytes, sha256 {file.sha256}" for path, file in manifest.files.items()})
    lines += ["", "where it comes from", *_chain(provenance(store, version))]
    return "\n".join(lines)


def _facts(version: Version, manifest: Manifest, named: bool) -> dict[str, Any]:
    tags = ", ".join(f"{tag} ({share:.0%})" if share < 1 else tag for tag, share in sorted(version.tags.items()))
    signer = version.signer.split()[-1][-_DIGITS:] if version.signer else None
    said = {
        "withdrawn": version.yanked,
        "tags": tags,
        "about": manifest.description,
        "keywords": ", ".join(manifest.keywords),
        "license": manifest.license,
        "task": version.task,
        "methods": " and ".join(version.methods),
        "parameters": f"{version.parameters:,}",
        "size": f"{version.size:,} bytes",
        "pushed": version.pushed,
        "gone after": version.expires,
        "signed by": signer and f"an Ed25519 key that ends in {signer}{'' if named else ', under any name'}",
        "imported from": manifest.imported_from,
        "graftax": manifest.graftax,
    }
    return {key: value for key, value in said.items() if value}


def _measured(score: Score) -> tuple[str, str]:
    """A measurement as a line of two columns."""
    between = "" if score.low is None or score.high is None else f" [{score.low:.4f}, {score.high:.4f}]"
    name = score.data_name or "rows"
    return (
        f"{score.metric}, {name}",
        f"{score.value:.4f}{between}  ({counted(score.rows, 'row')}, sha256 {score.data[:_DIGITS]})",
    )


def _chain(known: Mapping[str, Any], depth: int = 1) -> Iterator[str]:
    """The lines of a chain (`provenance.py`), what something was made from a step further in."""
    room = "  " * depth
    if "problem" in known:
        yield f"{room}which may not be taken: {printable(known['problem'])}"
        return
    if known["fingerprint"] or known["backbone"]:
        fingerprint = f", fingerprint {known['fingerprint'][:_DIGITS]}" if known["fingerprint"] else ", of unknown weights"
        yield f"{room}backbone   {printable(known['backbone'] or 'without a name')}{fingerprint}"
    if (data := _data(known["data"])) is not None:
        yield f"{room}data       {data}"
    if method := known["recipe"].get("method"):
        yield f"{room}recipe     {printable(str(method))}, seed {known['recipe'].get('seed', 'unknown')}"
    for parent in known["parents"]:
        if "weights" in parent:
            yield f"{room}made from  weights that are not on this hub, sha256 {parent['weights'][:_DIGITS]}"
        else:
            yield f"{room}made from  {parent['reference']}{_also(parent.get('also', []))}"
            yield from _chain(parent, depth + 1)


def _also(others: Sequence[str]) -> str:
    """That other versions have the very same weights, any of which may be what was meant."""
    if not others:
        return ""
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return f", the same weights as {', '.join(others[:_MOST_NAMED])}{more}"


def _data(data: Mapping[str, Any]) -> str | None:
    known = [
        printable(data["name"] or ""),
        counted(data["rows"], "row") if data["rows"] else "",
        f"sha256 {data['sha256'][:_DIGITS]}" if data["sha256"] else "",
    ]
    return ", ".join(filter(None, known)) or None


def _section(title: str, content: Mapping[str, Any]) -> Sequence[str]:
    """A title, and lines of two columns; nothing where there is nothing to say."""
    if not content:
        return []
    width = max(12, *(len(key) for key in content))
    said = [f"  {printable(key):{width}}  {printable(_text(value))}".rstrip() for key, value in content.items()]
    return ["", title, *said] if title else said


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
