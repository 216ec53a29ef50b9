"""A store beside a model of it: dictionaries of Python, which do as they are told and forget nothing.

Two machines push, point, withdraw, remove and collect in turn, in whatever order Hypothesis thinks of, while time goes by (and
now and then back). After every step, every version that the model has can be pulled from the store with its very bytes, and
none that it has not; a third machine, which comes new and begins from a snapshot, sees the same; and so does one that reads all
of the ledger.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from refusals import refused
from stores import about, clock, content_of, digest, in_memory, store_of, with_files

from graftax.notes import silenced
from graftax.store import snapshots, store
from graftax.store.manifest import Manifest
from graftax.store.store import Store

NAMES, TAGS = ("bank/intent", "pii"), ("prod", "canary")
CONTENTS = ({"a": b"one"}, {"a": b"one", "b": b"two"}, {"b": b"two", "sub/c": b""})
names, tags, machines = st.sampled_from(NAMES), st.sampled_from(TAGS), st.integers(0, 1)
numbers, which = st.integers(1, 3), st.integers(0, 20)


@dataclass
class Kept:
    """What the model knows of a version."""

    manifest: Manifest
    contents: dict[str, bytes]
    expires: str | None
    yanked: str | None = None
    removed: bool = False


@dataclass
class Model:
    """Names with their versions, and tags with their shares."""

    versions: dict[str, dict[int, Kept]] = field(default_factory=lambda: {name: {} for name in NAMES})
    tags: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)

    def there(self, name: str, moment: str) -> dict[int, Kept]:
        """The versions of a name that can be pulled."""
        all_of_it = self.versions[name].items()
        return {n: one for n, one in all_of_it if not one.removed and not (one.expires and one.expires <= moment)}

    def one(self, which: int) -> tuple[str, int]:
        """A version that there is or was."""
        pushed = [(name, number) for name, versions in self.versions.items() for number in versions]
        return pushed[which % len(pushed)]

    def newest(self, name: str, moment: str) -> int | None:
        return max((n for n, one in self.there(name, moment).items() if one.yanked is None), default=None)

    def shares(self, name: str, tag: str, moment: str) -> dict[int, float]:
        there = self.there(name, moment)
        shares = {n: share for n, share in self.tags.get((name, tag), {}).items() if n in there}
        return {n: share / sum(shares.values()) for n, share in shares.items()}


something_was_pushed = precondition(lambda self: any(self.model.versions.values()))


class Stores(RuleBasedStateMachine):
    """The steps, each done to the store and to the model."""

    @initialize()
    def begin(self) -> None:
        self.around = ExitStack()
        self.clock = self.around.enter_context(clock())
        self.around.enter_context(silenced())
        patch = self.around.enter_context(pytest.MonkeyPatch.context())
        for module in (snapshots, store):
            patch.setattr(module, "EVERY", 5)
        self.folder = Path(tempfile.mkdtemp(dir=in_memory()))
        self.around.callback(shutil.rmtree, self.folder)
        self.stores = [self.machine(f"machine{i}") for i in range(2)]
        self.model, self.looked = Model(), False

    def teardown(self) -> None:
        if hasattr(self, "around"):
            self.around.close()

    def machine(self, name: str) -> Store:
        return store_of(self.folder / "hub", self.folder / name)

    @rule(by=machines, name=names, contents=st.sampled_from(CONTENTS), word=st.sampled_from("xyz"))
    def push(self, by: int, name: str, contents: dict[str, bytes], word: str) -> None:
        self.push_so(by, name, word, contents, None, set(), None, None)

    @rule(
        by=machines,
        name=names,
        word=st.sampled_from("xy"),
        contents=st.sampled_from(CONTENTS),
        version=st.sampled_from([None] * 8 + [0, 1, 2, 3, 5]),
        tagged=st.sets(tags, max_size=2),
        seconds=st.sampled_from([None] * 4 + [-1, 5, 50]),
        parent=st.sampled_from([None, None, b"one", b"two"]),
    )
    def push_so(
        self, by: int, name: str, word: str, contents: dict[str, bytes], version: int | None, tagged: set[str],
        seconds: int | None, parent: bytes | None,
    ) -> None:  # fmt: skip
        manifest = with_files(about(word, parents=() if parent is None else (digest(parent),)), contents)
        expires = None if seconds is None else self.clock.at(seconds)
        here, moment = self.model.versions[name], self.clock.at(0)
        last = max(here, default=0)
        same = self.model.newest(name, moment) if version is None else version
        before = self.model.there(name, moment).get(same or 0)
        is_same = before is not None and before.manifest == manifest and expires == before.expires
        wanted = last + 1 if version is None else version
        equal = [one for _, one in sorted(self.model.there(name, moment).items()) if one.manifest == manifest]
        withdrawn = version is None and bool(equal) and equal[-1].yanked is not None
        result: list[Any] = []
        options = {"version": version, "tags": [*tagged], "expires": expires}
        line = refused(lambda: result.append(self.stores[by].push(name, manifest, contents, **options)))
        if expires is not None and expires <= moment:
            assert line == f"{name}: its time would be over at {expires}, which is past."
        elif not is_same and withdrawn:
            assert "is the same and was withdrawn" in str(line)
        elif not is_same and wanted <= last:
            assert "is there already, or was" in str(line) or "at least 1" in str(line)
        elif is_same:
            assert (result[0][0].version, result[0][1]) == (same, False)
            self.model.tags |= {(name, tag): {same: 1.0} for tag in tagged}
        else:
            assert wanted >= 1 or line is not None
            if wanted >= 1:
                assert line is None
                assert (result[0][0].version, result[0][0].digest, result[0][1]) == (wanted, manifest.digest, True)
                here[wanted] = Kept(manifest, contents, expires)
                self.model.tags |= {(name, tag): {wanted: 1.0} for tag in tagged}

    @something_was_pushed
    @rule(by=machines, name=names, tag=tags, shares=st.dictionaries(numbers, st.sampled_from([1.0, 3.0]), max_size=3))
    def point(self, by: int, name: str, tag: str, shares: dict[int, float]) -> None:
        there, moment = self.model.there(name, self.clock.at(0)), self.clock.at(0)
        right = set(shares) <= set(there) and (bool(shares) or bool(self.model.shares(name, tag, moment)))
        assert (refused(lambda: self.stores[by].point(name, tag, shares)) is None) == right
        if right:
            self.model.tags[name, tag] = shares

    @something_was_pushed
    @rule(by=machines, which=which, reason=st.none() | st.sampled_from(["wrong labels", ""]))
    def yank(self, by: int, which: int, reason: str | None) -> None:
        name, number = self.model.one(which)
        kept = self.model.there(name, self.clock.at(0)).get(number)
        assert (refused(lambda: self.stores[by].yank(name, number, reason)) is None) == (kept is not None)
        if kept:
            kept.yanked = reason

    @something_was_pushed
    @rule(by=machines, which=which, force=st.booleans(), collect=st.booleans())
    def remove(self, by: int, which: int, force: bool, collect: bool) -> None:
        name, number = self.model.one(which)
        moment = self.clock.at(0)
        kept = self.model.there(name, moment).get(number)
        line = refused(lambda: self.stores[by].remove(name, number, force=force))
        if kept is None:
            assert line is not None
            return
        pointed = any(number in self.model.shares(name, tag, moment) for tag in TAGS)
        its_files = set(map(digest, kept.contents.values()))
        everything = [one for other in NAMES for one in self.model.there(other, moment).values()]
        children = any(its_files & set(one.manifest.parents) for one in everything)
        assert (line is None) == (force or not (pointed or children)), line
        if line is None:
            kept.removed = True
            if collect:
                self.collect(by)

    @something_was_pushed
    @rule(by=machines)
    def collect(self, by: int) -> None:
        """What nobody refers to is gone from the disk. What is over by now is so for good, as its blobs may be gone."""
        self.collect_as(by)
        live = set()
        for name in NAMES:
            there = self.model.there(name, self.clock.at(0))
            live |= {digest(content) for one in there.values() for content in one.contents.values()}
        there_now = [path.name.split(".")[0] for path in (self.folder / "hub" / "blobs").glob("*/*")]
        assert sorted(there_now) == sorted(live)

    @something_was_pushed
    @rule(by=machines)
    def collect_and_be_killed(self, by: int) -> None:
        """After the event, and before anything is deleted."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.stores[by].objects, "delete", lambda keys: None)
            self.collect_as(by)

    def collect_as(self, by: int) -> None:
        ledger, moment = self.folder / "hub" / "ledger", self.clock.at(0)
        before = len([*ledger.glob("*/*")])
        self.stores[by].collect()
        if len([*ledger.glob("*/*")]) > before:
            for name, versions in self.model.versions.items():
                there = self.model.there(name, moment)
                for number, kept in versions.items():
                    kept.removed |= number not in there

    @something_was_pushed
    @rule(seconds=st.sampled_from([20, 60, -30]))
    def wait(self, seconds: int) -> None:
        self.clock.time += timedelta(seconds=seconds)

    @rule(by=machines)
    def new_process(self, by: int) -> None:
        self.stores[by] = self.machine(f"machine{by}")

    @something_was_pushed
    @rule(by=machines, name=names, tag=tags, route=st.none() | st.text(max_size=3))
    def follow_a_tag(self, by: int, name: str, tag: str, route: str | None) -> None:
        shares = self.model.shares(name, tag, self.clock.at(0))
        found: list[Any] = []
        line = refused(lambda: found.append(self.stores[by].resolve(f"{name}:{tag}", route=route)))
        assert (line is None) == bool(shares)
        if shares:
            there = self.model.there(name, self.clock.at(0))
            assert found[0].version in ({n for n in shares if there[n].yanked is None} or shares)
            assert found[0].tags[tag] == pytest.approx(shares[found[0].version])

    @invariant()
    def all_that_is_there_can_be_read(self) -> None:
        if hasattr(self, "model"):
            self.looked = not self.looked
            self.look(self.stores[self.looked])

    @rule()
    def come_new(self) -> None:
        """By the newest snapshot, and by all of the ledger: the same index; but what is over by the clock alone may differ."""
        if not (self.folder / "hub").exists():
            return
        shutil.rmtree(self.folder / "new", ignore_errors=True)
        new = self.machine("new")
        self.look(new)
        shutil.rmtree(self.folder / "all", ignore_errors=True)
        snapshots_folder = self.folder / "hub" / "snapshots"
        if snapshots_folder.exists():
            snapshots_folder.rename(self.folder / "aside")
        rebuilt = content_of(self.machine("all").index())
        if snapshots_folder.exists() or (self.folder / "aside").exists():
            (self.folder / "aside").rename(snapshots_folder)
        assert content_of(new.index()) == rebuilt
        for one in self.stores:
            assert content_of(one.index()) == rebuilt

    def look(self, one: Store) -> None:
        moment = self.clock.at(0)
        if not one.exists():
            assert refused(one.index) == f"there is no hub at {one.url}; the first push into an empty place makes one."
            return
        for name in NAMES:
            there = self.model.there(name, moment)
            assert [version.version for version in one.index().versions(name)] == sorted(there)
            pointed = {tag: self.model.shares(name, tag, moment) for tag in TAGS}
            assert one.index().tags(name) == {tag: shares for tag, shares in pointed.items() if shares}
            newest = self.model.newest(name, moment)
            if newest is None:
                assert refused(lambda name=name: one.resolve(name)) is not None
            else:
                assert one.resolve(name).version == newest
            for number, kept in there.items():
                version = one.resolve(f"{name}:{number}")
                assert one.files(version) == kept.contents
                assert one.manifest(version) == kept.manifest
                assert version.yanked == kept.yanked
                assert one.resolve(f"{name}@sha256:{kept.manifest.digest[:12]}").digest == kept.manifest.digest
            for number in set(range(1, 6)) - set(there):
                assert refused(lambda text=f"{name}:{number}": one.resolve(text)) is not None


Stores.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
test_a_store_does_what_its_model_does = Stores.TestCase


@pytest.mark.slow
class TestLonger(Stores.TestCase):
    """The same, with more and longer stories."""

    settings = settings(Stores.TestCase.settings, max_examples=200, stateful_step_count=60)


def test_the_same_after_each_step_of_one_story(tmp_path: Path) -> None:
    """A story by hand, for who reads this first: of two versions one is removed; its blob goes, the shared one stays."""
    one = store_of(tmp_path / "hub", tmp_path / "machine")
    first, _ = one.push("bank/intent", about("first"), {"a": b"shared", "b": b"only here"}, tags=["prod"])
    second, added = one.push("bank/intent", about("second"), {"a": b"shared"})
    assert added
    assert str(one.resolve("bank/intent")) == "bank/intent:2"
    assert one.push("bank/intent", about("second"), {"a": b"shared"}) == (second, False)
    assert refused(lambda: one.remove("bank/intent", 1)) == (
        "bank/intent:1: tag prod refers to it; --force removes it all the same."
    )
    one.point("bank/intent", "prod", {2: 1})
    one.remove("bank/intent", 1)
    garbage = one.collect()
    assert (garbage.blobs, garbage.bytes) == (1, len(b"only here"))
    assert one.files(replace(second, tags={})) == {"a": b"shared"}
    assert first.digest != second.digest
