"""Checks of `train_many`'s arguments before any data are read: what is no mapping, name, number or method is said at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from .. import processes
from ..adapters.adapter import Adapter
from ..adapters.method import Method
from ..data.columns import Columns
from ..data.examples import check_fraction
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..tasks.task import Task
from ..tasks.task_registry import the_task
from ..typed import Location, Some, Within, checked
from .fleet import Fleet
from .recipe import Recipe
from .shelf import Shelf

_LONGEST_NAME = 255  # bytes, of a directory
_DAYS = 1e7  # seconds, a hundred of them and more
_UNSEEN = ("Cc", "Zl", "Zp")  # categories of characters: controls, and ends of lines


def check_arguments(
    data: Any,
    out: Any,
    method: Any,
    task: Any,
    recipe: Any,
    each: Any,
    val: Any,
    columns: Any,
    pack_size: Any,
    save_every: Any,
) -> None:
    """GraftaxError for the first argument that cannot be meant."""
    if not isinstance(data, Mapping):
        raise GraftaxError(f"data must be a mapping from names to rows, got {_described(data)}.")
    if not data:
        raise GraftaxError("there is no data to train on.")
    for name in data:
        check_name(name)
    checked(out, Location, "out")
    if Path(out).exists() and not Path(out).is_dir():
        raise GraftaxError(f"{out} is not a directory.")
    check_method(method)
    if not isinstance(task, str | Task):
        raise GraftaxError(f"task must be the name of a task, or a task; got {_described(task)}.")
    for argument, value, wanted in (("recipe", recipe, Recipe), ("columns", columns, Columns)):
        if not isinstance(value, wanted):
            raise GraftaxError(f"{argument} must be a {wanted.__name__}, got {_described(value)}.")
    the_task(task)
    if pack_size is not None:
        checked(pack_size, Some, "the pack size")
    checked(save_every, Annotated[float, Within(0.0, most=_DAYS)], "save_every, seconds between checkpoints,")
    select_overrides(each, list(data), "settings")
    for name, changes in each.items():
        if not isinstance(changes, Mapping):
            raise GraftaxError(f"settings for {name} must be a mapping from fields of a recipe, got {_described(changes)}.")
        check_method(changes.get("method"))
        changed(recipe, name, changes)
    if isinstance(val, Mapping):
        if not val:
            raise GraftaxError("val names validation rows of no adapter; None is for training without.")
        select_overrides(val, list(data), "validation rows")
    elif isinstance(val, int | float):
        check_fraction(val)
    elif val is not None:
        raise GraftaxError(f"val must be a share of the rows or a mapping from names to rows, got {_described(val)}.")


def check_shelf(push: Any, names: list[str]) -> None:
    """A place that takes finished adapters of these names."""
    if not isinstance(push, Shelf):
        raise GraftaxError(f"push must be a place on a hub such as Hub().under('bank'), got {_described(push)}.")
    push.expect(names)


def check_shared(backbone: Backbone, **elsewhere: Any) -> None:
    """That nothing is said of where slots are, where devices share the weights (`models/tensor_parallel.py`)."""
    if backbone.mesh is not None and (said := [name for name, value in elsewhere.items() if value is not None]):
        raise GraftaxError(
            f"{backbone.mesh.size} devices share the weights of {backbone.name}, and train all adapters together: leave out "
            f"{' and '.join(said)}, or tensor_parallel_size."
        )


def check_fleet(fleet: Any, devices: int | None, fsdp: bool) -> None:
    """Machines that train; how many devices each of their workers has is not said here."""
    if not isinstance(fleet, Fleet):
        raise GraftaxError(f"fleet must be machines such as `ray_fleet` finds, got {_described(fleet)}.")
    if processes.count() > 1:
        raise GraftaxError("several processes train one run together, or a fleet trains it: leave out one.")
    if devices is not None or fsdp:
        raise GraftaxError("devices are those of this process, and a fleet trains elsewhere: leave out one.")


def changed(recipe: Recipe, name: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe of one adapter, whose method may be among the changes; what is wrong with one is said with its name."""
    try:
        return recipe.replace(**{str(field): value for field, value in changes.items() if field != "method"})
    except GraftaxError as error:
        raise GraftaxError(f"{name}: {error}") from error


def check_name(name: Any) -> None:
    """A name that an adapter's directory can have."""
    if not isinstance(name, str) or not name or name.startswith(".") or "/" in name or "\0" in name or name == "metrics.jsonl":
        raise GraftaxError(f"an adapter cannot be named {name!r}: its files go to a directory of that name.")
    if name != name.strip() or any(unicodedata.category(character) in _UNSEEN for character in name):
        raise GraftaxError(
            f"an adapter cannot be named {name!r}: a name has no blanks at its ends, and no control characters or line breaks."
        )
    if (length := len(name.encode("utf-8", "surrogatepass"))) > _LONGEST_NAME:
        raise GraftaxError(
            f"the adapter's name {name[:20]!r}... has {length} bytes; file systems have room for {_LONGEST_NAME}."
        )


def check_method(method: Any) -> None:
    """A method, several, or None; one of them may be an adapter."""
    several = method if isinstance(method, list | tuple) else () if method is None else (method,)
    for one in several:
        if not isinstance(one, Method | Adapter):
            raise GraftaxError(f"method must be a method such as LoRA(), several of them, or None; got {_described(one)}.")
    if sum(isinstance(one, Adapter) for one in several) > 1:
        raise GraftaxError("training goes on from one adapter, and several were given.")


def select_overrides(overrides: Any, names: list[str], what: str) -> None:
    """Settings (or validation rows) of an adapter that is not trained are a slip of the pen."""
    if not isinstance(overrides, Mapping):
        raise GraftaxError(f"{what} of single adapters must be a mapping from their names, got {_described(overrides)}.")
    unknown = [str(name) for name in overrides if name not in names]
    if unknown:
        raise GraftaxError(f"{what} for {', '.join(unknown)}, but the adapters are {', '.join(names)}.")


def _described(value: Any) -> str:
    """A value as an error shows it: a text as it is, of others the type alone."""
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
