"""Splits of folders and archives, webdataset's shards, and one picture: how they are named, trained on and refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noted import noted
from PIL import Image
from refusals import refused

from graftax.data.picture_values import picture_of
from graftax.data.sources import Source, name_of, source_of
from graftax.data.splits import parts_to_train

pytestmark = pytest.mark.filterwarnings("ignore::graftax.notes.GraftaxNote")


def picture(shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (shade,) * 3).save(file, "PNG")
    return file.getvalue()


def put(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(shade))


def shard(path: Path, members: dict[str, Any], mode: Literal["w", "w:gz"] = "w") -> Path:
    """A tar of files by their names; of None a folder, of a text that begins with > a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            data = b""
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str) and content.startswith(">"):
                member.type, member.linkname = tarfile.SYMTYPE, content[1:]
            else:
                data = content if isinstance(content, bytes) else content.encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def shades(source: Source) -> list[int]:
    return [int(one.pixels()[0, 0, 0]) for one in source.located("image", picture_of)]


# -- splits -----------------------------------------------------------------------------------------------------------


def test_a_folder_of_splits(tmp_path: Path) -> None:
    """Each is read by its name; the adapter is called as the whole is. A class may be called train, and one split is all."""
    pets = tmp_path / "pets"
    for shade, name in enumerate(("train/cat/a.png", "train/dog/a.png", "val/cat/a.png", "test/dog/a.png")):
        put(pets / name, shade)
    assert shades(source_of(f"{pets}:train")) == [0, 1]
    assert shades(source_of(f"{pets}:val")) == shades(source_of(pets / "val")) == [2]
    assert [row["label"] for row in source_of(f"{pets}:test").rows] == ["dog"]
    assert name_of(Path(f"{pets}:train")) == "pets"
    assert (
        refused(lambda: source_of(pets)) == f"{pets}: it has the splits test, train, val; name one of them, as in {pets}:test."
    )
    assert refused(lambda: source_of(f"{pets}:dev")) == f"{pets}: no split 'dev'; it has test, train, val."
    put(tmp_path / "vehicles" / "train" / "a.png")
    put(tmp_path / "vehicles" / "bus" / "a.png")
    assert {row["label"] for row in source_of(tmp_path / "vehicles").rows} == {"train", "bus"}
    put(tmp_path / "one" / "train" / "cat" / "a.png", 9)
    assert shades(source_of(tmp_path / "one")) == [9]


def test_what_is_trained_on_where_there_are_splits(tmp_path: Path) -> None:
    """The one for training, validated on the one for that unless somebody says otherwise; a note says so."""
    pets = tmp_path / "pets"
    for name in ("train/cat/a.png", "validation/cat/a.png", "test/cat/a.png"):
        put(pets / name)
    found = (f"{pets}:train", f"{pets}:validation")
    assert parts_to_train(pets, None) == parts_to_train(str(pets), None) == found
    assert parts_to_train(pets, 0.2) == (f"{pets}:train", 0.2)
    assert parts_to_train(f"{pets}:test", None) == (f"{pets}:test", None)
    assert parts_to_train([{"image": "a"}], None) == ([{"image": "a"}], None)
    (said,) = noted(lambda: parts_to_train(pets, None))
    assert said == f"{pets}: it has the splits test, train, validation; trained on train, and validated on validation."
    x = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, x_test=x)
    assert parts_to_train(tmp_path / "a.npz", None) == (f"{tmp_path}/a.npz:train", None)
    assert parts_to_train(tmp_path / "gone.npz", None) == (tmp_path / "gone.npz", None)
    (tmp_path / "text.npz").write_text("no archive")
    assert parts_to_train(tmp_path / "text.npz", None) == (tmp_path / "text.npz", None)


def test_one_picture_is_a_row(tmp_path: Path) -> None:
    put(tmp_path / "a.PNG", 5)
    assert shades(source_of(tmp_path / "a.PNG")) == [5]
    assert refused(lambda: source_of(tmp_path / "b.png")) == f"{tmp_path}/b.png: no such file."


# -- shards -----------------------------------------------------------------------------------------------------------


def test_a_shard(tmp_path: Path) -> None:
    """Members of one name are a row: a class, an object's keys, a text beside a picture; what else is there is noted once."""
    members = {
        "__meta__.json": "{}",
        "cat": None,
        "cat/1.jpg.png": picture(3),
        "cat/1.cls": "cat\n",
        ".DS_Store": "x",
        "2.png": picture(4),
        "2.json": json.dumps({"label": "dog", "width": 2}),
        "2.seg.npy": b"x",
        "3.PNG": picture(5),
        "3.txt": "a dog",
        "3.cls": "1",
    }
    rows = source_of(shard(tmp_path / "a.tar", members))
    assert shades(rows) == [3, 4, 5]
    assert [row["label"] for row in rows.rows] == ["cat", "dog", "1"]
    assert (rows.rows[1]["width"], rows.rows[2]["text"]) == (2, "a dog")
    (said,) = noted(lambda: source_of(tmp_path / "a.tar"))
    assert said == f"{tmp_path}/a.tar: ignored, for no picture, class, text or object is called so: .seg.npy."


def test_several_shards(tmp_path: Path) -> None:
    """A folder of them is one set of rows, in the order of names, and may be a split."""
    for split, first in (("train", 1), ("val", 5)):
        for index in range(2):
            content = {"1.png": picture(first + index), "1.cls": "x"}
            shard(tmp_path / "data" / split / f"{index}.tar", content)
    assert shades(source_of(tmp_path / "data" / "train")) == [1, 2]
    rows = source_of(tmp_path / "data" / "val").rows
    assert [row["image"].where for row in rows] == [f"{tmp_path}/data/val/{index}.tar: 1.png" for index in range(2)]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"1.png": picture(), "1.jpg": picture()}, "1.jpg: a second 'image' of 1; a row has one of each"),
        ({"1.png": picture(), "1.cls": "a", "1.json": '{"label": 1}'}, "1.json: a second 'label' of 1"),
        ({"1.json": "[]"}, "1.json is not a JSON object"),
        ({"1.json": "{"}, "1.json: not valid JSON"),
        ({"1.cls": b"\xff"}, "1.cls"),
        ({"1.png": ">2.png"}, "1.png is a link or the like, and no file"),
        ({"1.cls": "0" * (1 << 21)}, "1.cls: 2,097,152 bytes are too many"),
        ({}, "no rows in it"),
        ({"notes.md": "x"}, "no rows in it"),
    ],
)
def test_shards_that_are_refused(members: dict[str, Any], said: str, tmp_path: Path) -> None:
    line = refused(lambda: source_of(shard(tmp_path / "a.tar", members)))
    assert line is not None
    assert line.startswith(f"{tmp_path}/a.tar: ")
    assert said in line


def test_files_that_are_no_shards(tmp_path: Path) -> None:
    shard(tmp_path / "packed.tar", {"1.png": picture()}, "w:gz")
    (tmp_path / "text.tar").write_text("no archive at all")
    for name, said in (("packed", "or a compressed one"), ("text", "no sound tar archive"), ("gone", "no such file")):
        line = refused(lambda name=name: source_of(tmp_path / f"{name}.tar"))
        assert line is not None
        assert line.startswith(f"{tmp_path}/{name}.tar: ")
        assert said in line


def test_a_shard_that_ends_in_a_picture(tmp_path: Path) -> None:
    """What it lost is said where the picture is wanted, or before."""
    path = shard(tmp_path / "a.tar", {"1.png": picture(), "1.cls": "a"})
    rows = source_of(path)
    path.write_bytes(path.read_bytes()[:550])
    line = refused(rows.located("image", picture_of)[0].pixels)
    assert line == f"{path}: it ends in the middle of a picture."


@settings(max_examples=100, deadline=None, derandomize=True)
@given(damage=st.data())
def test_damaged_shards_are_read_or_refused(damage: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut anywhere, with other bytes anywhere."""
    path = tmp_path_factory.mktemp("shard") / "a.tar"
    data = bytearray(shard(path, {"1.png": picture(), "1.cls": "a", "2.json": "{}"}).read_bytes())
    for index, byte in damage.draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4)):
        data[index] = byte
    path.write_bytes(data[: damage.draw(st.integers(0, len(data)))])
    sources: list[Source] = []
    if refused(lambda: sources.append(source_of(path))) is None:
        for row in sources[0].rows:
            refused(lambda row=row: picture_of(row.get("image", "x"), "row", Path()).pixels())
