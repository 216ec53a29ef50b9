"""Checkpoints of training loops as they lie on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_servers import speaker

from graftax import GraftaxError
from graftax.models.backbone import Backbone
from graftax.tuning.loops.calls import Moments
from graftax.tuning.tinker.asked_methods import LoraConfig
from graftax.tuning.tinker.kept_models import Kept, KeptModels, Where, where_of

RUN = "abc:train:0"
MOMENTS = Moments(7, {"lora/a": np.ones((2, 3), np.float32)}, {"lora/a": np.full((2, 3), 0.5, np.float32)})


class Clock:
    """Seconds since 1970, which pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(teller: Backbone, tmp_path: Path, clock: Clock) -> Iterator[KeptModels]:
    made = KeptModels(tmp_path, teller, clock)
    made.describe(RUN, Kept("ann", "backbone", LoraConfig(rank=2), {"of": "ann"}, clock.now))
    yield made
    made.close()


def test_what_is_kept_is_read_again(kept: KeptModels, teller: Backbone, clock: Clock) -> None:
    """The adapter, the moments and what was noted; a directory of them is all that there is."""
    where, adapter = Where(RUN, "weights", "one"), speaker(teller, 1)
    saved = kept.save(where, adapter, MOMENTS, ttl=3600, user_metadata={"at": "1"})
    found = kept.find("ann", "tinker://abc:train:0/weights/one")
    assert (found, found.expires, found.user_metadata) == (saved, clock.now + 3600, {"at": "1"})
    assert kept.list("ann") == [saved]
    for site, (trainable, _) in adapter.states["lora"].items():
        np.testing.assert_array_equal(kept.adapter(where).states["lora"][site][0]["b"], trainable["b"])
    moments = kept.moments(where)
    assert (moments.steps, moments.first.keys()) == (7, {"lora/a"})
    np.testing.assert_array_equal(moments.second["lora/a"], np.full((2, 3), 0.5, np.float32))
    assert kept.of_run("ann", RUN).lora == LoraConfig(rank=2)


def test_one_whose_time_is_over_is_gone(kept: KeptModels, teller: Backbone, clock: Clock, tmp_path: Path) -> None:
    """Unless it was given another time; and its name is free."""
    first, second = Where(RUN, "weights", "one"), Where(RUN, "sampler_weights", "two")
    for where in (first, second):
        kept.save(where, speaker(teller, 1), None, ttl=3600)
    kept.change_expiry(kept.at("ann", second), None)
    clock.now += 3601
    assert [one.where for one in kept.list("ann")] == [second]
    assert not (tmp_path / RUN / "weights" / "one").exists()
    with pytest.raises(GraftaxError, match=r"there is no checkpoint .*one, or its time is over"):
        kept.at("ann", first)
    kept.save(first, speaker(teller, 2), None)
    with pytest.raises(GraftaxError, match="exists already"):
        kept.save(first, speaker(teller, 3), None)


@pytest.mark.parametrize("ttl", [0, 3599, 400_000_000])
def test_a_time_that_is_none(ttl: int, kept: KeptModels, teller: Backbone) -> None:
    with pytest.raises(GraftaxError, match="ttl_seconds must be from 3,600"):
        kept.save(Where(RUN, "weights", "one"), speaker(teller, 1), None, ttl=ttl)


@pytest.mark.parametrize(
    "path",
    [
        "tinker://abc:train:0/weights",
        "tinker://abc:train:0/weights/one/two",
        "tinker://../weights/one",
        "tinker://abc:train:0/weights/..",
        "tinker://abc:train:0/weights/.hidden",
        "tinker://abc:train:0/samplers/1",
        "tinker://abc:train:x/weights/one",
        "abc:train:0/weights/one",
        "tinker://abc:train:0/weights/" + "x" * 200,
    ],
)
def test_what_is_no_address(path: str) -> None:
    with pytest.raises(GraftaxError, match="is no checkpoint's address"):
        where_of(path)


def test_a_killed_process_leaves_nothing_behind(teller: Backbone, tmp_path: Path, clock: Clock) -> None:
    """Neither half a checkpoint nor a sampler's files; a directory is one process's at a time."""
    first: Any = KeptModels(tmp_path, teller, clock)
    first.describe(RUN, Kept(None, "backbone", LoraConfig()))
    first.save(Where(RUN, "weights", "one"), speaker(teller, 1), None)
    sampler = first.save_unnamed(RUN, 3, speaker(teller, 1))
    with pytest.raises(GraftaxError, match="another process is training into"):
        KeptModels(tmp_path, teller, clock)
    draft = tmp_path / RUN / "weights" / ".graftax-draft-0123456789abcdef"
    draft.mkdir()
    first.close()  # as a kill does
    second = KeptModels(tmp_path, teller, clock)
    assert [one.where.name for one in second.list(None)] == ["one"]
    assert not draft.exists()
    assert not sampler.exists()
    second.close()
