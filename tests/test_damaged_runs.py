"""What an unfinished run left on the disk, damaged: the same call goes on or is one line, and `overwrite` begins anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import random_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from tiny import toy_rows

from graftax import LoRA, Recipe, merge, train_many
from graftax.models.backbone import Backbone
from graftax.train.queue import Run

FACTS = ["digest", "pack_sizes", "jobs", "machine", "versions", "more"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def call(backbone: Backbone, out: Path, **settings: Any) -> None:
    recipe = Recipe(epochs=2, batch_size=8, max_length=16)
    train_many(backbone, {"a": toy_rows()}, out, recipe=recipe, progress=False, save_every=0.0, **settings)


@pytest.fixture(scope="module")
def left(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that was killed in its second epoch has left."""
    out, fill = tmp_path_factory.mktemp("left") / "out", Run._fill

    def killed(run: Run) -> None:
        fill(run)
        if run.ticks == 4:
            run.checkpoints.wait()
            raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_fill", killed)
        with pytest.raises(ZeroDivisionError):
            call(tiny, out)
    assert (out / ".run" / "run.json").is_file()
    return out


@pytest.fixture
def copy(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of that, of which a call trains nothing more."""

    def go(run: Run) -> dict[str, Any]:
        with run.checkpoints, run.metrics:
            return {}

    monkeypatch.setattr(Run, "go", go)
    copies = (tmp_path / str(number) for number in range(10**6))
    return lambda: Path(shutil.copytree(left, next(copies)))


def test_another_backbone_does_not_go_on(tiny: Backbone, copy: Any, tmp_path: Path) -> None:
    """Two merges of one backbone are two: each has a fingerprint of its own."""
    out, others = copy(), [merge(tiny, random_adapter(tiny, (LoRA(r=2),), seed=seed))[0] for seed in (1, 2)]
    for other in others:
        assert "unfinished run with other settings or data" in (refused(lambda other=other: call(other, out)) or "")
    call(others[0], out, overwrite=True)
    assert refused(lambda: call(others[0], out)) is None
    assert "unfinished run with other settings or data" in (refused(lambda: call(others[1], out)) or "")


def goes_on_or_is_refused(backbone: Backbone, out: Path) -> None:
    if refused(lambda: call(backbone, out)) is not None:
        call(backbone, out, overwrite=True)
    shutil.rmtree(out)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes=st.dictionaries(st.sampled_from(FACTS), VALUES, max_size=2), gone=st.sampled_from([None, *FACTS[:5]]))
def test_any_note_of_a_run(tiny: Backbone, copy: Any, changes: dict[str, Any], gone: str | None) -> None:
    out = copy()
    file = out / ".run" / "run.json"
    facts = json.loads(file.read_text())
    facts.pop(gone, None)
    file.write_text(json.dumps(facts | changes))
    goes_on_or_is_refused(tiny, out)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(max_size=40)
    | VALUES.map(lambda value: json.dumps(value).encode() + b"\n")
    | st.sampled_from([b"[" * 100_000, b'{"adapter": ' + b"9" * 6000 + b"}", b'{"adapter": "b", "epoch": 1}\n\xff\n', b""]),
    goes_on=st.booleans(),
)
def test_any_journal(tiny: Backbone, copy: Any, content: bytes, goes_on: bool) -> None:
    """Lines of others stay where they can be read; what is none of ours stands in nobody's way."""
    out = copy()
    (out / "metrics.jsonl").write_bytes(content + b'\n{"adapter": "other", "epoch": 1}\n')
    if goes_on:
        goes_on_or_is_refused(tiny, out)
    else:
        shutil.rmtree(out / ".run")
        call(tiny, out)
        assert '"other"' in (out / "metrics.jsonl").read_text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's coroutines
def test_a_damaged_checkpoint(tiny: Backbone, copy: Any, left: Path) -> None:
    """Whichever of its files is cut or gone, the line names what to remove, and the checkpoint before serves as well."""
    newest = max((left / ".run" / "checkpoints").iterdir(), key=lambda path: int(path.name)).relative_to(left)
    files = sorted(path.relative_to(left) for path in (left / newest).rglob("*") if path.is_file())
    assert len(files) > 3
    refusals = 0
    for number, file in enumerate(files):
        out = copy()
        (out / file).write_bytes([b"", b"{"][number % 2])
        line = refused(lambda out=out: call(tiny, out))
        if line is not None:
            refusals += 1
            assert f"{out / newest}: the checkpoint is damaged" in line
            shutil.rmtree(out / newest)
            call(tiny, out)
        shutil.rmtree(out)
    assert refusals
