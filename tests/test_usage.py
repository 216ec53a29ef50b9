"""A command line that is wrong: one plain line, in the words of every other error, and exit code 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Graftax

WRONG = {
    "predict -b x -i y --top-k many": "--top-k must be a whole number, got 'many'. Try graftax predict --help.",
    "predict -b x -i y --top-k 1.5": "--top-k must be a whole number, got '1.5'. Try graftax predict --help.",
    "predict -b x -i y --top-k 0": "--top-k must be greater than or equal to 1, got '0'. Try graftax predict --help.",
    "train -b x -d y -o z --lr fast": "--lr must be a number, got 'fast'. Try graftax train --help.",
    "combine -b x -a y -o z -w one": "--weight must be a number, got 'one'. Try graftax combine --help.",
    "export -b x -a y -o z --format zip": "--format: 'zip' is not one of 'adapters', 'graftax'. Try graftax export --help.",
    "bench --seeds x": "--seeds must be a whole number, got 'x'. Try graftax bench --help.",
    "predict -b x": "Missing option '--input' / '-i'. Try graftax predict --help.",
    "predict --tpo-k 1": "No such option: --tpo-k (Possible options: --top-k). Try graftax predict --help.",
    "nothing": "No such command 'nothing'. Try graftax --help.",
    "methods extra": "Got unexpected extra argument(s) (extra). Try graftax methods --help.",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_one_line(line: str, graftax: Graftax) -> None:
    said = graftax(*line.split())
    assert (said.code, said.out, said.err) == (2, "", f"graftax: {WRONG[line]}\n")


@pytest.mark.parametrize("value", ["\x1b[31m", "a\nb", "9" * 10_000])
def test_whatever_is_given_the_line_is_one_that_can_be_read(value: str, graftax: Graftax) -> None:
    """Escape codes and lines do not reach the terminal, nor do ten thousand digits."""
    for arguments in (["predict", "-b", "x", "-i", "y", "--top-k", f"x{value}"], ["predict", f"--{value}"], [f"x{value}"]):
        said = graftax(*arguments)
        assert said.code == 2
        line = said.err.removesuffix("\n")
        assert line.isprintable()
        assert len(line) < 2500


def test_a_path_that_cannot_be(graftax: Graftax) -> None:
    """Each version of Python has words of its own: "embedded null byte", "stat: embedded null character in path"."""
    said = graftax("predict", "-b", "x", "-i", "a\0b")
    assert said.code == 2
    assert re.fullmatch(r"graftax: --input: [^\n]*embedded null [^\n]*\. Try graftax predict --help\.\n", said.err)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs = 1.5", "--epochs must be a whole number, got 1.5."),
        ("epochs = [1]", "--epochs must be a whole number, got [1]."),
        ('lr = "fast"', "--lr must be a number, got 'fast'."),
    ],
)
def test_settings_in_a_file_are_options(setting: str, said: str, graftax: Graftax, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(setting)
    line = graftax("train", "-b", "x", "-d", "y", "-o", "z", "--config", tmp_path / "a.toml").err
    assert line == f"graftax: {said} Try graftax train --help.\n"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rank = true", "rank takes a value, and is no switch, got True."),
        ('overwrite = "yes"', "overwrite takes true or false, got 'yes'."),
        ("overwrite = 1", "overwrite takes true or false, got 1."),
    ],
)
def test_switches_and_values_in_a_file_of_settings(setting: str, said: str, graftax: Graftax, tmp_path: Path) -> None:
    """`rank = true` counted as 1, and "yes" replaced what was there."""
    (tmp_path / "a.toml").write_text(f"{setting}\nepochs = 1")
    line = graftax("train", "-b", "x", "-d", "y", "-o", "z", "--config", tmp_path / "a.toml")
    assert line.code == 2
    assert line.err.endswith(f"a.toml: {said}\n")
