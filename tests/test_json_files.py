"""Reading JSON files that others wrote: a sound object, or one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax.errors import GraftaxError
from graftax.json_files import json_line, parse_json, read_object, refuse_pointer

UNSOUND = {
    "not UTF-8": b'{"a": "\xff"}',
    "valid JSON (Expecting": b"{",
    "nested too deep": b"[" * 200_000 + b"]" * 200_000,
    "limit": b'{"r": ' + b"9" * 6000 + b"}",
    "NaN is not a number": b'{"alpha": NaN}',
    "-Infinity is not a number": b'{"alpha": -Infinity}',
    "1e999 is too large": b'{"alpha": 1e999}',
    "'r' is there twice": b'{"r": 1, "r": 2}',
    "surrogate": rb'{"label": "\ud800"}',
    "expected a JSON object": b"[1]",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
}


@pytest.mark.parametrize("said", UNSOUND)
def test_unsound_files_are_refused_in_a_line_that_names_them(said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(UNSOUND[said])
    line = refused(lambda: read_object(file, "missing"))
    assert line is not None
    assert said in line
    assert str(file) in line


def test_a_missing_file_is_said_in_the_callers_words(tmp_path: Path) -> None:
    assert refused(lambda: read_object(tmp_path / "config.json", "no backbone there.")) == "no backbone there."


def test_a_file_of_weights_may_be_a_pointer_too(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"\x00" * 200)
    refuse_pointer(file)
    file.write_bytes(UNSOUND["Git LFS pointer"])
    assert "git lfs pull" in (refused(lambda: refuse_pointer(file)) or "")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(values)
def test_sound_values_are_read_as_they_are(value: object) -> None:
    assert parse_json(json.dumps(value), "here") == value


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text())
def test_an_error_is_one_printable_line_whatever_it_quotes(text: str) -> None:
    def quote() -> None:
        raise GraftaxError(f"before {text}")

    assert refused(quote) is not None


def test_an_error_keeps_its_words_and_shows_control_characters() -> None:
    assert str(GraftaxError("a name,\n with \x1b[31mcolour and two  blanks")) == r"a name, with \x1b[31mcolour and two  blanks"
    long = str(GraftaxError("begin " + "x" * 1_000_000 + " end"))
    assert len(long) < 2100
    assert long.startswith("begin")
    assert long.endswith("end")


def test_what_is_no_finite_number_is_written_as_null() -> None:
    content = {"loss": float("nan"), "all": [1.5, float("-inf"), {"deep": (float("inf"), "ä")}]}
    assert json.loads(json_line(content)) == {"loss": None, "all": [1.5, None, {"deep": [None, "ä"]}]}
    assert json_line("ä", ensure_ascii=False) == '"ä"'
