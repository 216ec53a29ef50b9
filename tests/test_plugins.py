"""What other packages bring: found by entry points when a name is not known, and refused where it cannot be right."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from graftax import GraftaxError, plugins
from graftax.adapters.task_words import TaskWords, words_for
from graftax.models.family_registry import FAMILIES, add_family
from graftax.tasks import task_registry
from graftax.tasks.labelled import Classify, Regress


class Scores(Regress):
    """A task of another package."""

    name = "scores-of-another-package"
    words = TaskWords(head="item", outputs=1)


class Installed:
    """A package with entry points, as `importlib.metadata` gives them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, group: str, *points: tuple[str, Any]):
        self.points = [metadata.EntryPoint(name, f"{__name__}:{value}", group) for name, value in points]
        self.group = group
        monkeypatch.setattr(metadata, "entry_points", self.of)
        plugins.found.cache_clear()

    def of(self, group: str) -> list[metadata.EntryPoint]:
        return self.points if group == self.group else []


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a test has found is not found by the next one."""
    monkeypatch.setattr(task_registry, "TASKS", dict(task_registry.TASKS))
    yield
    plugins.found.cache_clear()


def test_a_task_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, for commands and for adapters' files; the names that are known cost no search."""
    Installed(monkeypatch, "graftax.tasks", ("scores", "Scores"))
    assert type(task_registry.task_named(Scores.name)) is Scores
    assert words_for(Scores.name).outputs == 1
    assert type(task_registry.task_named("classify")) is Classify


def test_what_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Installed(monkeypatch, "graftax.tasks", ("scores", "Nothing"))
    with pytest.raises(GraftaxError, match=r"its graftax.tasks 'scores' cannot be loaded"):
        task_registry.task_named("unknown")
    Installed(monkeypatch, "graftax.tasks", ("scores", "Scores"), ("scores", "Scores"))
    with pytest.raises(GraftaxError, match="two packages bring 'scores'"):
        task_registry.task_named("unknown")


def test_a_name_is_taken_once() -> None:
    """A task or family that calls itself as another one is refused, and what is neither."""

    class Other(Classify):
        """Another task under the name of one that there is."""

    neither: Any = Other
    with pytest.raises(GraftaxError, match="there is a task 'classify' already"):
        task_registry.add_task(Other())
    with pytest.raises(GraftaxError, match="expected a task, got"):
        task_registry.add_task(neither)
    with pytest.raises(GraftaxError, match="expected a family"):
        add_family(neither)
    add_family(FAMILIES["bert"])  # it is there already


def test_an_unknown_task_is_said() -> None:
    with pytest.raises(GraftaxError, match="unknown task 'sortt'; there are classify, multilabel"):
        task_registry.task_named("sortt")
