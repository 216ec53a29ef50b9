"""`graftax train --task grpo`: one adapter, trained by what its completions are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import GraftaxError
from ..train.recipe import Recipe
from ..tuning.grpo.grpo_settings import USUAL, GrpoSettings
from .arguments import is_given, parse_adapter, shelf_for

if TYPE_CHECKING:
    from ..data.columns import Columns
    from .train import LoadingToTrain, MethodInWords, Running

TASK = "grpo"
OPTIONS = tuple(field.name for field in fields(GrpoSettings) if field.name != "beta")  # which is the recipe's option, too
_OTHERS = ("val", "pack_size", "devices", "ray", "ray_cpus", "fuse", "context_words")  # options that this task has no use for


def refuse_options(context: typer.Context, task: str) -> None:
    """A GraftaxError where options of this task are given for another."""
    for name in ("reward", *OPTIONS):
        if is_given(context, name):
            raise GraftaxError(f"--{name.replace('_', '-')} is for --task {TASK}, and the task is {task!r}.")


def train_by_rewards(
    context: typer.Context,
    backbone: str,
    out: Path,
    data: Mapping[str, Path],
    *,
    reward: Sequence[str],
    words: MethodInWords,
    method: Any,
    recipe: Recipe,
    settings: GrpoSettings,
    columns: Columns,
    tables: Mapping[str, Any],
    running: Running,
    loading: LoadingToTrain,
    push: str | None,
) -> None:
    """What `graftax train` does for this task; `data`: by the adapter's name."""
    from ..adapters.files import load_adapter
    from ..models.load import load_backbone
    from ..tuning.grpo.grpo_run import grpo
    from ..tuning.grpo.rewards import rewards_of

    for name in _OTHERS:
        if is_given(context, name):
            raise GraftaxError(f"--{name.replace('_', '-')} is for other tasks; {TASK} has no use for it.")
    if len(data) > 1 or tables:
        raise GraftaxError(f"task {TASK} trains one adapter: give one data file, and no settings of single adapters.")
    if words.adapter is not None and is_given(context, "method"):
        raise GraftaxError(f"task {TASK} trains an adapter on by itself: give --adapter or --method.")
    if not reward:
        raise GraftaxError(f"task {TASK} needs --reward: exact, regex:PATTERN or a FILE.py, once or more.")
    if is_given(context, "beta"):
        recipe, settings = recipe.replace(beta=Recipe.beta), replace(settings, beta=recipe.beta)
    recipe = recipe.replace(**{name: value for name, value in USUAL.items() if not is_given(context, name)})
    rewards = rewards_of(list(reward))
    shelf = shelf_for(push, list(data)) if push is not None else None
    ((name, rows),) = data.items()
    loaded = load_backbone(backbone, **asdict(loading))
    if words.adapter is not None:
        method = load_adapter(parse_adapter(words.adapter).location, loaded)
    result = grpo(
        loaded,
        rows,
        out / name,
        reward=rewards,
        method=method,
        recipe=recipe,
        settings=settings,
        columns=columns,
        overwrite=running.overwrite,
        save_every=running.save_every,
    )
    numbers = "  ".join(f"{metric} {value:.4f}" for metric, value in result.metrics.items())
    print(f"{result.directory}  {numbers}")
    if shelf is not None:
        print(f"{shelf.put(name, result.directory)} on {shelf.hub.store.url}")
