"""What was withdrawn: what still leads to it, and that it does not come back unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest
from noted import noted
from refusals import refused
from stores import FILES, about, store_of

from graftax.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With two versions of one name."""
    one = store_of(tmp_path / "hub", tmp_path / "machine")
    one.push("bank/intent", about("first"), FILES, tags=["prod"])
    one.push("bank/intent", about("second"), {**FILES, "weights.bin": b"others"})
    return one


def test_a_withdrawn_version_behind_a_tag(store: Store) -> None:
    """It is passed over while the tag has another; what points to it alone finds it, with the warning."""
    store.point("bank/intent", "shared", {1: 0.5, 2: 0.5})
    store.yank("bank/intent", 1, "wrong labels")
    assert noted(lambda: store.resolve("bank/intent:prod")) == ["bank/intent:1 was withdrawn: wrong labels"]
    assert {store.resolve("bank/intent:shared", route=str(i)).version for i in range(20)} == {2}
    assert noted(lambda: store.resolve("bank/intent:shared")) == []
    store.yank("bank/intent", 2, "wrong too")
    assert {store.resolve("bank/intent:shared", route=str(i)).version for i in range(20)} == {1, 2}


def test_what_was_withdrawn_does_not_come_back_unsaid(store: Store) -> None:
    store.yank("bank/intent", 2, "wrong labels")
    again = ("bank/intent", about("second"), {**FILES, "weights.bin": b"others"})
    assert refused(lambda: store.push(*again)) == (
        "bank/intent:2 is the same and was withdrawn: wrong labels. Take that back (hub yank bank/intent:2 --undo), or give "
        "the number of the version that it is to be (--version)."
    )
    assert store.push(*again, version=3)[1]
    assert store.push(*again)[1] is False
    assert store.push("bank/other", *again[1:])[1]
