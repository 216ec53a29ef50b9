"""Names of classes, as a file, a checkpoint or a caller gives them: each class has one, or one line says why not."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import random_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from test_own_heads import write_classifier

from graftax import Adapter, LoRA, Predictor, load_adapter, load_backbone, save_adapter
from graftax.models.backbone import Backbone

NAME: Any = st.sampled_from(
    ["a", "b", "c", " a", "", " ", "LABEL_0", "\x1b[31m", "\ud800", "x" * 5000, 0, 1, 1.5, None, True, b"a"]
)
NAMES: Any = st.lists(NAME | st.lists(NAME, max_size=2), max_size=4)
ANYTHING = (
    NAMES | NAMES.map(tuple) | NAME | st.dictionaries(st.sampled_from(["0", "1", "2", "01", "a", "-1", ""]), NAME, max_size=4)
)


def nameless(backbone: Backbone) -> Adapter:
    """Of three classes."""
    return replace(random_adapter(backbone, (LoRA(r=1),)), labels=())


def are_names(labels: Any, count: int) -> None:
    """As many texts, which a person can tell apart."""
    assert isinstance(labels, tuple)
    assert len(labels) == count
    assert all(isinstance(name, str) and name.strip() for name in labels)
    assert len(set(labels)) == count
    "".join(labels).encode()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(labels=ANYTHING)
def test_a_caller_names_each_class(tiny: Backbone, labels: Any) -> None:
    predictor = Predictor(tiny)
    if refused(lambda: predictor.load("a", nameless(tiny), labels=labels)) is None:
        are_names(predictor.labels("a"), 3)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=ANYTHING.filter(lambda value: not isinstance(value, bytes) and "b'" not in repr(value)))
def test_a_file_names_each_class(tiny: Backbone, tmp_path: Path, labels: Any) -> None:
    """Or none, where `graftax.json` is another's."""
    if not (tmp_path / "a").exists():
        save_adapter(random_adapter(tiny, (LoRA(r=1),)), tmp_path / "a", tiny)
    facts = tmp_path / "a" / "graftax.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"labels": labels}))
    found: list[Any] = []
    if refused(lambda: found.append(load_adapter(tmp_path / "a", tiny).labels)) is None and found[0]:
        are_names(found[0], 3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("classifier")
    write_classifier(directory, "bert", "SequenceClassification", 3)
    return directory


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    said=ANYTHING.filter(lambda value: not isinstance(value, bytes) and "b'" not in repr(value)),
    count=st.sampled_from([None, 2, 3, "3", True]),
)
def test_a_checkpoint_names_each_class_of_its_head(classifier: Path, said: Any, count: Any) -> None:
    """By `id2label`; a head that it does not fit is left out."""
    config = json.loads((classifier / "config.json").read_text())
    changes = {"id2label": said} | ({} if count is None else {"num_labels": count})
    try:
        (classifier / "config.json").write_text(json.dumps(config | changes))
        found: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the note that a head is left out
            if refused(lambda: found.append(load_backbone(classifier).own_head)) is None and found[0] is not None:
                are_names(found[0].labels, 3)
    finally:
        (classifier / "config.json").write_text(json.dumps(config))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(st.sampled_from("ab, \x1b\u00fc"), max_size=8))
def test_the_command_line_names_each_class(tiny: Backbone, text: str) -> None:
    from graftax.cli.arguments import split_names

    predictor = Predictor(tiny)
    if refused(lambda: predictor.load("a", nameless(tiny), labels=split_names(text))) is None:
        are_names(predictor.labels("a"), 3)
