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

from ..errors import printable
from ..store.manifest import DataFacts, Manifest
from ..store.store import Store
from ..store.version import Score, Version

_DEEPEST = 20  # generations of a chain that are shown
_DIGITS = 12  # of a digest, for people


def page_of(store: Store, version: Version) -> str:
    """The page, as lines of two columns."""
    manifest = store.manifest(version)
    lines = [f"{version}  sha256:{version.digest}"]
    lines += _section("", _facts(version, manifest))
    lines += _section("labels", {"": ", ".join(map(printable, version.labels))} if version.labels else {})
    lines += _section("recipe", {key: value for key, value in manifest.recipe.items() if value is not None})
    lines += _section("metrics of its training", {name: f"{value:.4f}" for name, value in version.metrics.items()})
    lines += _section("measured", dict(map(_measured, store.index().evaluations(version))))
    lines += _section("files", {path: f"{file.size:,} bytes, sha256 {file.sha256}" for path, file in manifest.files.items()})
    lines += ["", "where it comes from", *_chain(store, version, manifest)]
    return "\n".join(lines)


def provenance(store: Store, version: Version) -> dict[str, Any]:
    """Where a version comes from, as JSON: its backbone, rows and recipe, and the same of what it was made from."""
    return _provenance(store, version, _DEEPEST)


def _provenance(store: Store, version: Version, depth: int) -> dict[str, Any]:
    manifest = store.manifest(version)
    parents: list[Any] = []
    for blob in manifest.parents if depth else ():
        parent = next(iter(store.index().holding(blob)), None)
        parents.append({"weights": blob} if parent is None else _provenance(store, parent, depth - 1))
    return {
        "reference": str(version),
        "digest": f"sha256:{version.digest}",
        "backbone": manifest.backbone,
        "fingerprint": manifest.fingerprint,
        "data": vars(manifest.data),
        "recipe": dict(manifest.recipe),
        "parents": parents,
    }


def _facts(version: Version, manifest: Manifest) -> dict[str, Any]:
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
        "signed by": signer and f"an Ed25519 key that ends in {signer}",
        "graftax": manifest.graftax,
    }
    return {key: value for key, value in said.items() if value}


def _measured(score: Score) -> tuple[str, str]:
    """A measurement as a line of two columns."""
    between = "" if score.low is None or score.high is None else f" [{score.low:.4f}, {score.high:.4f}]"
    name = score.data_name or "rows"
    return f"{score.metric}, {name}", f"{score.value:.4f}{between}  ({score.rows:,} rows, sha256 {score.data[:_DIGITS]})"


def _chain(store: Store, version: Version, manifest: Manifest, depth: int = 0) -> Iterator[str]:
    """The lines of where something comes from, what it was made from a step further in."""
    room = "  " * (depth + 1)
    if manifest.fingerprint or manifest.backbone:
        fingerprint = f", fingerprint {manifest.fingerprint[:_DIGITS]}" if manifest.fingerprint else ", of unknown weights"
        yield f"{room}backbone   {printable(manifest.backbone or 'without a name')}{fingerprint}"
    if (data := _data(manifest.data)) is not None:
        yield f"{room}data       {data}"
    if method := manifest.recipe.get("method"):
        yield f"{room}recipe     {printable(str(method))}, seed {manifest.recipe.get('seed', 'unknown')}"
    for blob in manifest.parents if depth < _DEEPEST else ():
        parent = next(iter(store.index().holding(blob)), None)
        yield f"{room}made from  {parent or f'weights that are not on this hub, sha256 {blob[:_DIGITS]}'}"
        if parent is not None:
            yield from _chain(store, parent, store.manifest(parent), depth + 1)


def _data(data: DataFacts) -> str | None:
    known = [
        printable(data.name or ""),
        f"{data.rows:,} rows" if data.rows else "",
        f"sha256 {data.sha256[:_DIGITS]}" if data.sha256 else "",
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
