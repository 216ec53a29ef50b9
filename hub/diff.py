"""How two adapters differ: in what is known of them, in what they do to the weights, and in what they answer.

    found = diff("adapters/bank", "bank/intent:3")                       # needs no backbone
    found = diff(one, other, backbone=backbone, data="test.csv")         # any method's change, and answers
    print(diff_page(found))                                              # diff_page.py

At every module the norm (Frobenius, of all numbers there) is told of what each adapter has there, of their difference, and the
cosine of the angle between them: 1 says that they differ in strength alone, 0 that they have nothing to do with each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..adapters.adapter import Adapter
from ..adapters.directory import is_fusion, read_directory
from ..adapters.facts import Facts
from ..adapters.files import adapter_for
from ..adapters.located import Located, locate
from ..adapters.method import Method
from ..data.columns import Columns
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..serve.predictor import Predictor
from ..store.manifest import DataFacts, Manifest
from ..typed import Location, held
from .answers import AnswersCompared, compare_answers
from .changes import Change, changes_in, changes_of, methods_in, products, square
from .describing import manifest_of

_KNOWN = ("backbone", "model_type", "fingerprint", "task", "labels", "parameters", "parents")  # of a manifest
_OF_BACKBONES = {"backbone", "model_type"}  # what an adapter in memory does not say
_ROUNDED = 1e-14  # of the squares: nearer than float32 tells its numbers apart is no difference


@dataclass(frozen=True)
class Setting:
    """What is known of both adapters, and differs; None: it is not said of that one."""

    key: str
    left: Any
    right: Any


@dataclass(frozen=True)
class AtModule:
    """Two adapters at one module, or all such modules together. Norms are in the unit of the numbers."""

    module: str  # its path; of all, "together"
    of: str  # "weights": what is added to the weights there; "arrays": what the methods hold
    left: float  # norm; 0 where that adapter has nothing there
    right: float
    apart: float | None  # norm of the difference; None: arrays of unlike shapes or methods cannot be compared
    cosine: float | None  # None: likewise, or one of them is zero
    on_left: bool = True  # whether that adapter has something there
    on_right: bool = True


@dataclass(frozen=True)
class Difference:
    """All differences between two adapters."""

    left: str  # what they are called
    right: str
    settings: tuple[Setting, ...]
    totals: tuple[AtModule, ...]  # over all modules with weights that are changed, over all with arrays
    modules: tuple[AtModule, ...]  # those that differ most first, then those that cannot be compared
    answers: AnswersCompared | None = None


@held
def diff(
    left: Adapter | Location | Located,
    right: Adapter | Location | Located,
    *,
    backbone: Backbone | None = None,
    data: Any = None,
    columns: Columns = Columns(),
) -> Difference:
    """Compare two adapters.

    Args:
        left: in memory, its directory, its name on a hub or its Hub id.
        right: likewise.
        backbone: what both are for. With it the change of the weights is known of any method that can be merged; without it of
            LoRA and AdaLoRA alone, and of others the arrays in their files are compared.
        data: rows, which both are asked about on the backbone; as of `measure`, with labels or without.
        columns: of these rows.

    Raises:
        GraftaxError: no adapter there, or none for this backbone; a fusion without a backbone; rows without a backbone.
    """
    if data is not None and backbone is None:
        raise GraftaxError("answers to rows are given on a backbone: say which.")
    sides = one, other = _side(left, backbone), _side(right, backbone)
    modules = list(_modules(one.changes, other.changes))
    ordered = sorted(
        (module for module, _ in modules), key=lambda there: (there.apart is None, -(there.apart or 0.0), there.module)
    )
    answers = None
    if backbone is not None and data is not None:
        predictor = Predictor(backbone)
        for name, side in zip(("left", "right"), sides, strict=True):
            assert side.adapter is not None
            predictor.load(name, side.adapter)
        answers = compare_answers(predictor, "left", "right", data, columns=columns)
    return Difference(one.name, other.name, _settings(one, other), _totals(modules), tuple(ordered), answers)


def diff_record(found: Difference) -> Mapping[str, Any]:
    """For JSON."""
    record = asdict(found)
    if found.answers is not None:
        pairs = found.answers.changed.items()
        record["answers"]["changed"] = [{"left": left, "right": right, "count": count} for (left, right), count in pairs]
    return record


# -- the two sides -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """One of the two."""

    name: str
    settings: Mapping[str, Any]
    changes: Mapping[str, Change]
    adapter: Adapter | None  # None: only its files were looked at


def _side(adapter: Adapter | str | Path | Located, backbone: Backbone | None) -> _Side:
    if isinstance(adapter, Adapter):
        if backbone is not None:
            adapter = adapter_for(backbone, adapter)
        return _Side("in memory", _settings_of(adapter), changes_of(adapter), adapter)
    located = adapter if isinstance(adapter, Located) else locate(adapter)
    with located.named():
        return _of_directory(located.directory, located.name, backbone)


def _of_directory(directory: Path, name: str, backbone: Backbone | None) -> _Side:
    if backbone is not None:
        loaded = adapter_for(backbone, directory)
        known = _of_manifest(manifest_of(directory)) | _of_methods(loaded.methods)
        return _Side(name, known, changes_of(loaded), loaded)
    if is_fusion(directory):
        raise GraftaxError(f"{directory}: a fusion of adapters, which is compared on a backbone: say which.")
    config, facts, _ = read_directory(directory)
    methods = methods_in(config, facts or Facts(), directory)
    return _Side(name, _of_manifest(manifest_of(directory)) | _of_methods(methods), changes_in(directory), None)


def _settings_of(adapter: Adapter) -> dict[str, Any]:
    """Of one in memory, which does not say the name of its backbone."""
    manifest = Manifest(
        {},
        fingerprint=adapter.fingerprint,
        task=adapter.task,
        labels=adapter.labels,
        parameters=adapter.parameters,
        recipe=adapter.recipe,
        data=adapter.data or DataFacts(),
        metrics={name: value if math.isfinite(value) else None for name, value in adapter.metrics.items()},
        parents=adapter.parents,
    )
    known = _of_manifest(manifest) | _of_methods(adapter.methods)
    return {key: value for key, value in known.items() if key not in _OF_BACKBONES}


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    known = {key: getattr(manifest, key) for key in _KNOWN}
    for name in ("recipe", "metrics"):
        known |= {f"{name}.{key}": value for key, value in getattr(manifest, name).items()}
    return known | {f"data.{key}": value for key, value in vars(manifest.data).items()}


def _of_methods(methods: Sequence[Method]) -> dict[str, Any]:
    known: dict[str, Any] = {"methods": tuple(method.name for method in methods)}
    return known | {f"{method.name}.{one.name}": getattr(method, one.name) for method in methods for one in fields(method)}


def _settings(left: _Side, right: _Side) -> tuple[Setting, ...]:
    keys = dict.fromkeys([*left.settings, *right.settings])
    one_alone = _OF_BACKBONES - (left.settings.keys() & right.settings.keys())
    pairs = ((key, left.settings.get(key), right.settings.get(key)) for key in keys if key not in one_alone)
    return tuple(Setting(key, one, other) for key, one, other in pairs if _said(one) != _said(other))


def _said(value: Any) -> str:
    """A value as JSON says it, in which a tuple is a list and NaN is itself."""
    return json.dumps(value, sort_keys=True, default=str)


# -- weights -------------------------------------------------------------------------------------------------------------


def _modules(left: Mapping[str, Change], right: Mapping[str, Change]) -> Iterable[tuple[AtModule, float]]:
    """Every module of either adapter, with the inner product of what both have there; one module is held at a time."""
    for module in sorted({*left, *right}):
        one, other = left.get(module), right.get(module)
        if one and other and (one.of, one.layout) == (other.of, other.layout):
            first, second, product = products(one, other)
            yield _between(module, one.of, first, second, product), product
        elif one and other:
            unlike = one.of if one.of == other.of else "unlike"
            yield AtModule(module, unlike, math.sqrt(square(one)), math.sqrt(square(other)), None, None), 0.0
        else:  # what is not there adds nothing to the weights; of arrays nothing need not be zeros
            (there,) = (change for change in (one, other) if change)
            norm, weights = math.sqrt(square(there)), there.of == "weights"
            norms = (norm, 0.0) if one else (0.0, norm)
            apart = norm if weights else None
            yield AtModule(module, there.of, *norms, apart, None, on_left=one is not None, on_right=other is not None), 0.0


def _between(module: str, of: str, left: float, right: float, product: float) -> AtModule:
    """Of inner products: of each with itself, and of both."""
    apart = left + right - 2 * product
    if apart < _ROUNDED * (left + right):
        apart = 0.0
    cosine = max(-1.0, min(1.0, product / math.sqrt(left * right))) if left and right else None
    return AtModule(module, of, math.sqrt(left), math.sqrt(right), math.sqrt(apart), cosine)


def _totals(modules: Sequence[tuple[AtModule, float]]) -> tuple[AtModule, ...]:
    """Of all modules that can be compared, by what is compared there."""
    totals = []
    for of in ("weights", "arrays"):
        each = [(one, product) for one, product in modules if one.of == of and one.apart is not None]
        if each:
            left, right = (sum(getattr(one, side) ** 2 for one, _ in each) for side in ("left", "right"))
            total = _between("together", of, left, right, sum(product for _, product in each))
            on_left, on_right = any(one.on_left for one, _ in each), any(one.on_right for one, _ in each)
            totals.append(replace(total, on_left=on_left, on_right=on_right))
    return tuple(totals)
