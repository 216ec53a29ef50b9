"""Files as spreadsheets and other systems write them: separators, encodings; and paths that name something else."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import Graftax
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import noted
from of_texts import read_examples
from refusals import refused
from tiny import toy_rows, write_csv

from graftax import Adapter, LoRA, disk, load_adapter, load_backbone, save_adapter
from graftax.adapters.inspect import describe
from graftax.data.sources import read_file
from graftax.errors import GraftaxError
from graftax.json_files import read_object
from graftax.models.backbone import Backbone
from graftax.train import Columns, Examples

ROWS = [{"text": "Grüße, 日本", "label": "x"}, {"text": 'a;b\t"c"\nd', "label": "y"}, {"text": "  z", "label": "x"}]
TEXTS, LABELS = tuple(row["text"] for row in ROWS), tuple(row["label"] for row in ROWS)


def written(separator: str = ",", quoting: Any = csv.QUOTE_MINIMAL) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["text", "label"], delimiter=separator, quoting=quoting)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


def read(path: Path, task: str = "classify") -> Examples:
    return read_examples(path, Columns(), task)


# -- separators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    ("name", "separator", "said"),
    [("a.csv", ",", None), ("a.csv", ";", "semicolons"), ("a.csv", "\t", "tabs"), ("a.tsv", "\t", None), ("a.TSV", "\t", None)],
)
def test_separators(tmp_path: Path, name: str, separator: str, quoting: Any, said: str | None) -> None:
    """A header that only semicolons, or only tabs, part says how the file is to be read; that is told in a note."""
    (tmp_path / name).write_bytes(written(separator, quoting).encode())
    found: list[Examples] = []
    notes = noted(lambda: found.append(read(tmp_path / name)))
    assert notes == ([] if said is None else [f"{tmp_path / name}: its fields are read as separated by {said}."])
    assert (found[0].fields["text"], found[0].labels) == (TEXTS, LABELS)
    theirs = pandas.read_csv(tmp_path / name, sep=separator)
    assert tuple(theirs["text"]) == TEXTS


def test_separators_that_are_not_certain(tmp_path: Path) -> None:
    """A comma in the header is the separator; where two signs might be, and none is, the columns that there are are named."""
    file = tmp_path / "a.csv"
    file.write_text("text,label;of it\na,x\n")
    assert noted(lambda: read_file(file)) == []
    assert read_file(file).rows == [{"text": "a", "label;of it": "x"}]
    file.write_text("text;label\tof it\na;x\tb\n")
    assert refused(lambda: read(file)) == f"{file}: no column 'text', 'label'; it has text;label\\tof it."
    file.write_text("text\na; b\n")
    assert read(file, "lm").fields["text"] == ("a; b",)
    file.write_text("text;label\na;b;x\n")
    with pytest.raises(GraftaxError, match="row 1 has more fields than the header; quote texts that hold semicolons"):
        read(file)


# -- encodings --------------------------------------------------------------------------------------------------------

MARKED = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKED)
def test_encodings_that_files_name(tmp_path: Path, encoding: str) -> None:
    """UTF-8, and what a mark says, in every file of text."""
    file = tmp_path / "a.csv"
    file.write_bytes(MARKED[encoding] + written("\t").encode(encoding))
    assert (read(file).fields["text"], read(file).labels) == (TEXTS, LABELS)
    file = tmp_path / "a.txt"
    file.write_bytes(MARKED[encoding] + "Grüße\r\n日本\r\n".encode(encoding))
    assert read(file, "lm").fields["text"] == ("Grüße\n日本\n",)
    file = tmp_path / "a.jsonl"
    file.write_bytes(
        MARKED[encoding] + '{"text": "Grüße\u2028", "label": "x"}\r\n\r\n{"text": "b", "label": "y"}'.encode(encoding)
    )
    assert read(file).fields["text"] == ("Grüße\u2028", "b")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("latin-1", "not UTF-8 text (invalid continuation byte at byte 34); save it as UTF-8 (from Latin-1: iconv "),
        ("utf-16-le", "every other byte is zero, as in UTF-16 or UTF-32 without a mark; save it as UTF-8."),
        ("utf-16-be", "every other byte is zero, as in UTF-16 or UTF-32 without a mark; save it as UTF-8."),
    ],
)
def test_encodings_that_files_do_not_name(tmp_path: Path, name: str, encoding: str, said: str) -> None:
    """What it seems to be, where in the file that is seen, and what to do."""
    (tmp_path / name).write_bytes("text,label\nplain enough,x\ncaf: Caf\xe9s,y\n".encode(encoding))
    line = refused(lambda: read(tmp_path / name, "lm" if name == "a.txt" else "classify"))
    assert line is not None
    assert line.startswith(f"{tmp_path / name}: {said}")


def test_a_fault_far_into_a_file(tmp_path: Path) -> None:
    """The byte is counted from the file's beginning."""
    begin = b"text,label\n" + b"a,x\n" * 20_000
    (tmp_path / "a.csv").write_bytes(begin + b"\xff,y\n")
    with pytest.raises(GraftaxError, match=f"at byte {len(begin)}"):
        read(tmp_path / "a.csv")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    text=st.text(st.sampled_from('text,label;\t\n\r"x é日\0'), max_size=40),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32"]),
    end=st.binary(max_size=3),
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_any_text_is_read_or_refused(
    name: str, text: str, encoding: str, end: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In any encoding, whole or not."""
    file = tmp_path_factory.mktemp("text") / name
    file.write_bytes(text.encode(encoding, "replace") + end)
    refused(lambda: read_file(file))


# -- paths ------------------------------------------------------------------------------------------------------------


def test_what_is_no_file(graftax: Graftax, tiny_dir: Path, tmp_path: Path) -> None:
    """A directory where a file is wanted is said to be one, whatever reads it; so are a pipe and a link to nowhere."""
    folder, pipe, link = tmp_path / "data.csv", tmp_path / "pipe.csv", tmp_path / "link.csv"
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to("gone.csv")
    said = {
        folder: f"{folder}: a directory; a file is wanted here.",
        pipe: f"{pipe}: a pipe or a device; a file is wanted here.",
        link: f"{link}: a link to gone.csv, and there is nothing.",
        tmp_path / "none.csv": f"{tmp_path / 'none.csv'}: no such file.",
    }
    for path, line in said.items():
        assert refused(lambda path=path: read(path)) == line
        assert refused(lambda path=path: read_object(path)) == line
        data = ["train", "-b", tiny_dir, "-o", tmp_path / "o", "-d"]
        rows = write_csv(tmp_path / "rows.csv", toy_rows())
        for arguments in ([*data, path], [*data, rows, "--val", path] if path is not folder else [*data, path]):
            assert graftax(*arguments).err == f"graftax: {line}\n"
    assert "--chat-template" in graftax(*data, rows, "--chat-template", tmp_path / "none").err
    assert graftax(*data, rows, "--chat-template", folder).err == f"graftax: {said[folder]}\n"


def test_what_is_no_directory(tiny: Backbone, tmp_path: Path) -> None:
    """A file of a backbone or an adapter, where its directory is wanted."""
    file = tmp_path / "model.safetensors"
    file.touch()
    no_gguf = f"{file}: no GGUF file, it begins with b''; one, or a directory is wanted here."
    no_directory = f"{file}: a file; a directory is wanted here."
    wrong: list[tuple[Callable[[Any], Any], str]] = [
        (load_backbone, no_gguf),
        (lambda path: load_adapter(path, tiny), no_directory),
        (describe, no_directory),
    ]
    for reads, said in wrong:
        for path in (file, str(file)):
            assert refused(lambda reads=reads, path=path: reads(path)) == said
        line = refused(lambda reads=reads: reads(tmp_path / "none"))
        assert line is not None
        assert "no such" in line


def test_a_file_in_the_way_of_a_directory(tiny: Backbone, tmp_path: Path) -> None:
    """One line, in writing as in training."""
    (tmp_path / "file").touch()
    adapter = Adapter.create((LoRA(),), tiny.sites)
    for write in (
        lambda: disk.write_text(tmp_path / "file" / "a", "x"),
        lambda: save_adapter(adapter, tmp_path / "file" / "a", tiny),
    ):
        assert refused(write) == f"{tmp_path / 'file'}: no directory can be made there (File exists)."
