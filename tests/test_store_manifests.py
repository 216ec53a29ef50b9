"""Manifests that the index puts together again: the very text that was pushed, or none."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from stores import FILES, about, digest, store_of

from graftax.store.events import Begun, Pushed, event_text
from graftax.store.index import Index
from graftax.store.manifest import DataFacts, File, Manifest
from graftax.store.store import Store

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
manifests = st.builds(
    Manifest,
    files=st.dictionaries(st.sampled_from(["README.md", "a/b.bin", "weights.bin"]), st.sampled_from(
        [File(digest(content), len(content)) for content in (b"", b"one", b"two")]), max_size=3),
    backbone=st.none() | texts,
    fingerprint=st.none() | texts,
    methods=st.lists(texts, max_size=2).map(tuple),
    task=st.none() | texts,
    labels=st.lists(texts, max_size=3).map(tuple),
    parameters=st.integers(0, 10**9),
    recipe=st.dictionaries(texts, anything, max_size=3),
    data=st.builds(DataFacts, name=st.none() | texts, rows=st.none() | st.integers(0, 99)),
    metrics=st.dictionaries(texts, st.none() | st.floats(-9, 9), max_size=2),
    description=texts,
    license=st.none() | texts,
)  # fmt: skip


def indexed(text: str) -> tuple[Index, Any]:
    """An index in memory of one version with the manifest that is a text, and the version."""
    index = Index()
    with index.writing():
        index.apply([(1, "", Begun()), (2, "", Pushed("x", 1, digest(text.encode()), text))])
    return index, index.version("x", 1)


@given(manifest=manifests, place=st.none() | texts)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_manifest_is_the_same_text_again(manifest: Manifest, place: str | None) -> None:
    manifest = manifest if place is None else manifest.found(place)
    index, version = indexed(manifest.text())
    assert index.manifest_of(version) == manifest.text()


@pytest.mark.parametrize("written", [json.dumps, lambda _: json.dumps({"files": {}, "schema": 1})])
def test_a_manifest_of_another_form_is_read_from_its_event(written: Callable[[Any], str], tmp_path: Path) -> None:
    """It has another digest when it is put together here: that of a form which nobody has pushed."""
    text = written(json.loads(about("a", labels=("é", "b")).text()))
    index, version = indexed(text)
    assert index.manifest_of(version) is None
    begun = event_text(Begun(), "")
    objects = store_of(tmp_path / "hub", tmp_path).objects
    objects.begin()
    objects.create("ledger/000000/000000001.json", begun.encode())
    pushed = Pushed("x", 1, hashlib.sha256(text.encode()).hexdigest(), text)
    objects.create("ledger/000000/000000002.json", event_text(pushed, digest(begun.encode())).encode())
    store = store_of(tmp_path / "hub", tmp_path)
    assert store.manifest(store.resolve("x")).labels == (("é", "b") if "labels" in text else ())
    assert store.verify() == []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With two versions of one name."""
    one = store_of(tmp_path / "hub", tmp_path / "machine")
    one.push("x", about("first"), FILES)
    one.push("x", about("second"), {**FILES, "weights.bin": b"others"})
    return one


@pytest.mark.parametrize(
    "wrong",
    [
        "blobs = (SELECT blobs FROM versions WHERE version = 2)",
        "rest = (SELECT rest FROM versions WHERE version = 2), description = 'second'",
        "description = 'other'",
        "labels = '[3]'",
        "rest = x'00'",
        "rest = zeroblob(99)",
        "rest = ''",
        "blobs = ''",
    ],
)
def test_an_index_that_has_it_wrong(store: Store, tmp_path: Path, wrong: str) -> None:
    """What is given out is what the manifest says whose digest the version has."""
    version = store.resolve("x:1")
    with sqlite3.connect(store._index.file) as tables:
        tables.execute(f"UPDATE versions SET {wrong} WHERE version = 1")
    assert store._index.look_up(lambda index: index.manifest_of(version)) is None
    assert store.files(version) == FILES
    assert store.manifest(version).description == "first"


def test_a_machine_whose_index_has_not_come_so_far(store: Store, tmp_path: Path) -> None:
    version = store.resolve("x:2")
    assert store_of(store.url, tmp_path / "new").files(version) == {**FILES, "weights.bin": b"others"}


def test_a_damaged_event_of_a_manifest_that_is_known(store: Store, tmp_path: Path) -> None:
    """Who has read it does not ask again; `verify` reads everything."""
    version = store.resolve("x:1")
    event = tmp_path / "hub" / "ledger" / "000000" / "000000002.json"
    event.write_bytes(event.read_bytes().replace(b"first", b"worst"))
    assert store.files(version) == FILES
    assert [str(damage.version) for damage in store.verify([version])] == ["x:1"]
    assert "the event before it" in str(refused(store.verify))
