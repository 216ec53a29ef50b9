"""Settings in words: a TOML file of `--config` and `--option name=value` are understood, or one line and exit code 2."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conftest import Graftax
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from tiny import toy_rows, write_csv

from graftax import METHODS
from graftax.adapters.methods.named import make_method
from graftax.adapters.methods.unions import UNIONS
from graftax.train.queue import Run

#: Of `graftax train`, and words that are none of its.
SETTINGS = ["data", "out", "backbone", "task", "method", "rank", "alpha", "start", "fuse", "target", "option", "epochs", "lr"]
SETTINGS += ["batch-size", "max_length", "schedule", "clip", "patience", "text-column", "val", "seed", "pack-size", "overwrite"]
SETTINGS += ["save_every", "dtype", "quantize", "remat", "chat-template", "config", "revision", "help", "truncate", "nothing"]
VALUES: Any = st.booleans() | st.integers(-1, 4) | st.sampled_from([10**9, 2**63 - 1, 0.5, -1.0, math.inf, math.nan])
VALUES |= st.sampled_from(["", "a", "lora", "ia3", "classify", "1", "0.5", "nan", "(", "width=3", "r=2", "linear", "float32"])
TOML: Any = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["r", "a"]), inner, max_size=2),
    max_leaves=3,
)


def written(value: Any) -> str:
    """A value as TOML has it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + value + '"'
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{key} = {written(one)}" for key, one in value.items()) + "}"
    return repr(value)


@pytest.fixture
def train(graftax: Graftax, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with a file of settings; it trains nothing."""
    monkeypatch.setattr(Run, "go", lambda self: {})
    monkeypatch.chdir(tmp_path)
    data, file = write_csv(tmp_path / "bank.csv", toy_rows(count=12)), tmp_path / "settings.toml"
    runs = (tmp_path / f"run-{number}" for number in range(10**6))

    def call(content: bytes) -> Any:
        file.write_bytes(content)
        return graftax("train", "-b", tiny_dir, "-d", data, "-o", next(runs), "--config", file)

    return call


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    general=st.dictionaries(st.sampled_from(SETTINGS), TOML, max_size=2),
    own=st.none() | st.dictionaries(st.sampled_from(SETTINGS), TOML, max_size=2),
    name=st.sampled_from(["bank", "bnak"]),
)
def test_any_settings(train: Any, general: dict[str, Any], own: dict[str, Any] | None, name: str) -> None:
    lines = [f"{key} = {written(value)}" for key, value in general.items()]
    if own is not None:
        lines += [f"[adapters.{name}]", *(f"{key} = {written(value)}" for key, value in own.items())]
    understood_or_refused(train("\n".join(["max-length = 16", *lines]).encode()))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"epochs",
        b"epochs = 1\nepochs = 2",
        b"epochs = 1" + b"0" * 6000,
        b"a = " + b"[" * 5000,
        b"adapters = 3",
        b"adapters = [{}]",
        b"[adapters]\nbank = 1",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ],
    ids=range(10),
)
def test_what_is_no_file_of_settings(train: Any, content: bytes) -> None:
    understood_or_refused(train(content))


def understood_or_refused(said: Any) -> None:
    assert said.code in (0, 2), said
    if said.code == 2:
        (line,) = said.err.splitlines()
        assert line.startswith("graftax: ")
        assert line.isprintable()
        assert len(line) < 2500


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    method=st.sampled_from([*METHODS, *UNIONS, "probe", "lora+prefix", "lora+", "", "nothing"]),
    words=st.lists(
        st.tuples(
            st.sampled_from(["r", "alpha", "dropout", "width", "tokens", "targets", "start", "n", "rank_pattern", "x"]),
            st.text(max_size=6),
        )
        | st.tuples(
            st.sampled_from(["r", "targets", "ids", "rank_pattern"]),
            st.sampled_from(["[", "{}", '{"a": 2}', "[1]", "1e999", "null"]),
        ),
        max_size=2,
    ),
    rank=st.sampled_from([None, 4, 0, 10**9]),
)
def test_any_words_of_a_method(method: str, words: list[tuple[str, str]], rank: int | None) -> None:
    refused(lambda: make_method(method, rank=rank, option=[f"{name}={value}" for name, value in words]))
    refused(lambda: make_method(method, option=[value for _, value in words]))
