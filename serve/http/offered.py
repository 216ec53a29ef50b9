"""/catalogue, /catalogue/NAME and /leaderboard/TASK: which adapters can be asked here, what they are, and how they do.

What the hub has is told by this machine's index, which is brought up to date once a second at most, so that many who look do
not ask the hub many times, and nobody waits while it is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...adapters.adapter import Adapter
from ...adapters.task_words import words_for
from ...errors import GraftaxError
from ...store.index import Index
from ...store.manifest import DataFacts, Manifest
from ...store.query import Query
from ...store.version import Score, Version
from ..handles import Handle
from .complaints import Refused, as_json
from .markdown import tree_of
from .service import Service, Telling

T = TypeVar("T")
_MOST = 200  # adapters in one answer
_MOST_LABELS = 40  # in a list of adapters
_MOST_KNOWN = 4096  # adapters of which is remembered what they are


@dataclass(frozen=True)
class _Facts:
    """What is known of an adapter that was loaded by hand."""

    manifest: Manifest  # as if it were on a hub; without files
    size: int  # bytes of its arrays


async def list_adapters(service: Service, request: Request) -> Response:
    """The base, and the adapters that fit it of which all that is asked is true: those loaded by hand, then the hub's."""
    asked = request.query_params
    query = Query(
        text=asked.get("q") or None,
        fingerprint=service.backbone.fingerprint,
        task=asked.get("task") or None,
        method=asked.get("method") or None,
        label=asked.get("label") or None,
        metric=asked.get("metric") or None,
    )
    limit = _number(asked.get("limit", str(_MOST)), "limit", most=_MOST)
    where = _where(service)
    loaded = [
        _loaded(name, handle, facts, where)
        for name, handle in service.registered().items()
        if _is_asked_for(query, name, (facts := await _facts(service, handle)).manifest)
    ]
    found = await _on_hub(service, lambda index: [(one, index.tags(one.name)) for one in index.search(query, limit + 1)]) or []
    registered = service.registered()
    adapters = [*loaded, *(_version(one, tags, where) for one, tags in found if one.name not in registered)]
    return as_json(
        {
            "base": await _base(service),
            "hub": None if service.hub is None else {"away": service.hub.away},
            "adapters": adapters[:limit],
            "more": len(adapters) > limit,
        }
    )


async def show_adapter(service: Service, request: Request) -> Response:
    """One by its name: all its versions, how they did, and the card of the newest, or of that which `version` says."""
    name = request.path_params["name"]
    if (handle := service.named(name)) is not None:
        facts, where = await _facts(service, handle), _where(service)
        card, problem = await _card(service, facts.manifest)
        adapter = _loaded(name, handle, facts, where, every_label=True)
        return as_json({"adapter": adapter, "versions": [], "card": card, "card_problem": problem})
    there, tags = await _on_hub(service, partial(_of_name, name)) or ([], {})
    said = request.query_params.get("version")
    wanted = None if said is None else _number(said, "version")
    chosen = [one for one, _ in there if one.version == wanted or (wanted is None and one.yanked is None)]
    if not chosen:
        raise Refused(404, f"there is no adapter {name}{'' if wanted is None else f':{wanted}'} here.", code="model_not_found")
    card, problem = await _card(service, chosen[-1])
    return as_json(
        {
            "adapter": _version(chosen[-1], tags, _where(service), every_label=True),
            "versions": [_one_of_name(one, scores) for one, scores in reversed(there)],
            "card": card,
            "card_problem": problem,
        }
    )


async def leaderboard(service: Service, request: Request) -> Response:
    """The adapters of a task that fit the base and were measured on the same rows, the best first."""
    task, data = request.path_params["task"], request.query_params.get("data")
    scores = await _on_hub(service, lambda index: index.scores(task, None, None)) or []
    fitting = [one for one in scores if one.version.fingerprint == service.backbone.fingerprint]
    if not fitting:
        return as_json({"task": task, "places": [], "others": []})
    try:
        return as_json(_telling(service).ranking(fitting, task, data))
    except GraftaxError as error:
        raise Refused(404, str(error), param="data") from None


def _of_name(name: str, index: Index) -> tuple[list[tuple[Version, list[Score]]], dict[str, dict[int, float]]]:
    """The versions of a name with how they did, and its tags."""
    return [(one, index.evaluations(one)) for one in index.versions(name)], index.tags(name)


async def _on_hub(service: Service, question: Callable[[Index], T]) -> T | None:
    """What this machine's index of the hub answers; None where there is no hub."""
    if service.store is None or service.hub is None:
        return None
    await service.read(service.hub.refresh)
    return await service.read(service.store.known, question)


def _telling(service: Service) -> Telling:
    if service.telling is None:
        raise Refused(404, "this server was started without a hub.", code="no_hub")
    return service.telling


async def _card(service: Service, what: Version | Manifest) -> tuple[list[Any] | None, str | None]:
    """The card of a version, or of what was loaded by hand, as a tree; or why it cannot be shown."""
    if service.telling is None:
        return None, None
    telling = service.telling
    try:
        if isinstance(what, Manifest):
            return tree_of(telling.card_without_hub(what)), None
        return await service.read(lambda: tree_of(telling.card(what))), None
    except GraftaxError as error:
        return None, str(error)


# -- what is told of one ------------------------------------------------------------------------------------------------------


async def _base(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "fingerprint": service.backbone.fingerprint,
        "reads": service.backbone.processor.kind,
        "writes": service.generator is not None,
        "max_tokens": service.longest,
    }


def _loaded(
    name: str, handle: Handle, facts: _Facts, where: Mapping[Handle, str], *, every_label: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "from": "loaded",
        "version": None,
        "digest": handle.digest,
        **_about(facts.manifest, every_label),
        "size": facts.size,
        "where": where.get(handle),
        "description": "",
        "pushed": None,
        "tags": {},
        "metrics": {metric: value for metric, value in facts.manifest.metrics.items() if value is not None},
    }


def _version(
    version: Version, tags: Mapping[str, Any], where: Mapping[Handle, str], *, every_label: bool = False
) -> dict[str, Any]:
    """`tags`: those of its name, each with the shares of versions."""
    handle = Handle(version.name, version.version, version.digest, _never)
    return {
        "name": version.name,
        "from": "hub",
        "version": version.version,
        "digest": version.digest,
        **_about(version, every_label),
        "size": version.size,
        "where": where.get(handle),
        "description": version.description,
        "pushed": version.pushed,
        "tags": {tag: {str(number): share for number, share in shares.items()} for tag, shares in tags.items()},
        "metrics": dict(version.metrics),
    }


def _about(known: Manifest | Version, every_label: bool) -> dict[str, Any]:
    return {
        "base": known.backbone,
        "task": known.task,
        "answers": answers_of(known.task),
        "methods": [method for method in known.methods if method != "head"] or list(known.methods),
        "labels": list(known.labels if every_label else known.labels[:_MOST_LABELS]),
        "label_count": len(known.labels),
        "parameters": known.parameters,
    }


def _one_of_name(version: Version, scores: Sequence[Score]) -> dict[str, Any]:
    """One of the versions of a name."""
    measured = [
        {key: getattr(one, key) for key in ("metric", "value", "low", "high", "data_name", "data", "rows")} for one in scores
    ]
    return {
        "version": version.version,
        "digest": version.digest,
        "pushed": version.pushed,
        "tags": dict(version.tags),
        "withdrawn": version.yanked,
        "signed": version.signer is not None,
        "size": version.size,
        "metrics": dict(version.metrics),
        "measured": measured,
    }


def answers_of(task: str | None) -> Literal["text", "classes", "tags"] | None:
    """What an adapter of a task answers with; None where that is not known."""
    try:
        words = None if task is None else words_for(task)
    except GraftaxError:
        return None
    if words is None:
        return None
    return "text" if words.head is None else "tags" if words.head == "position" else "classes"


def _where(service: Service) -> dict[Handle, str]:
    """The tier of each adapter that is in one."""
    tiers = service.residents.tiers()
    reading = dict.fromkeys(tiers.reading, "reading")
    return reading | dict.fromkeys(tiers.host, "memory") | dict.fromkeys(tiers.device, "device")


async def _facts(service: Service, handle: Handle) -> _Facts:
    """What a loaded adapter is: it is looked at once, and may be on the disk alone when it is shown again."""
    if (known := service.facts.get(handle.digest)) is None:
        known = _facts_of(await service.read(service.residents.adapter, handle), service.name)
        if len(service.facts) >= _MOST_KNOWN:
            service.facts.clear()
        service.facts[handle.digest] = known
    return known


def _facts_of(adapter: Adapter, base: str) -> _Facts:
    """What an adapter of the base says of itself."""
    manifest = Manifest(
        {},
        backbone=base,
        fingerprint=adapter.fingerprint,
        methods=tuple(method.name for method in adapter.methods),
        task=adapter.task,
        labels=adapter.labels,
        parameters=adapter.parameters,
        recipe=adapter.recipe,
        data=adapter.data or DataFacts(),
        metrics=adapter.metrics,
        parents=adapter.parents,
    )
    return _Facts(manifest, adapter.nbytes)


def _is_asked_for(query: Query, name: str, facts: Manifest) -> bool:
    """Whether a loaded adapter is what a query asks for, as the index finds the hub's."""
    words = " ".join([name, *facts.labels, *facts.methods, facts.task or ""]).casefold()
    return (
        all(word in words for word in (query.text or "").casefold().split())
        and query.task in (None, facts.task)
        and (query.method is None or query.method in facts.methods)
        and (query.label is None or query.label.casefold() in map(str.casefold, facts.labels))
        and query.metric is None
    )


def _number(text: str, name: str, most: int = 1 << 31) -> int:
    """A number in the address."""
    if text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= most:
        return int(text)
    raise Refused(400, f"{name} must be a whole number, at least 1 and at most {most:,}.", param=name)


def _never() -> Any:
    raise AssertionError("this handle is compared, and not read")
