"""Where pictures come from: folders of class folders, archives of NumPy, files with a column of paths."""

from __future__ import annotations

import io
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED, needs_assets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused

from graftax.cli.arguments import read_val
from graftax.data.labels import in_one_spelling, in_words_of
from graftax.data.picture_values import picture_of
from graftax.data.sources import Source, expect_rows, name_of, read_file, source_of
from graftax.data.values import class_of


def put(path: Path, shade: int = 0) -> Path:
    """A picture of 2 x 2 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (shade,) * 3).save(path)
    return path


def line_of(path: Path | str) -> str:
    line = refused(lambda: source_of(str(path)))
    assert line is not None
    return line


# -- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(tmp_path: Path) -> None:
    """Rows in the order of names; endings in any case; what is hidden is passed over."""
    pets = tmp_path / "pets"
    for name, shade in (("dog/2.PNG", 5), ("dog/1.bmp", 4), ("cat/b.webp", 3), ("cat/a.jpeg", 2), ("10/x.gif", 1)):
        put(pets / name, shade)
    for hidden in (".git/a.txt", "cat/.DS_Store", "cat/Thumbs.db", ".hidden.png", "desktop.ini"):
        (pets / hidden).parent.mkdir(exist_ok=True)
        (pets / hidden).write_bytes(b"x")
    source = source_of(pets)
    assert [row["image"].name for row in source.rows] == ["x.gif", "a.jpeg", "b.webp", "1.bmp", "2.PNG"]
    assert [row["label"] for row in source.rows] == ["10", "cat", "cat", "dog", "dog"]
    assert [int(picture.pixels()[0, 0, 0]) for picture in source.located("image", picture_of)] == [1, 2, 3, 4, 5]


def test_names_of_class_folders(tmp_path: Path) -> None:
    """With blanks and of any script, as the folders are called; é of one character and of two is one class."""
    names = ("a cat", "kůň", "犬", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"))
    for name in names:
        put(tmp_path / name / "1.png")
    source = source_of(tmp_path)
    assert {row["label"] for row in source.rows} == {*names}
    assert {*in_one_spelling([row["label"] for row in source.rows])} == {*names[:4]}
    assert in_words_of([names[4]], [names[3]]) == [names[4]]  # of an adapter trained on such folders, and measured on a CSV


def test_one_picture_in_two_classes(tmp_path: Path) -> None:
    """It is a row of each, for somebody has said so."""
    for name in ("cat", "dog"):
        put(tmp_path / name / "same.png", 7)
    assert [row["label"] for row in source_of(tmp_path).rows] == ["cat", "dog"]


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    """As pictures to predict lie about; to train on them a column is missing."""
    put(tmp_path / "b.png")
    put(tmp_path / "a.png")
    source = source_of(tmp_path)
    assert source.rows == [{"image": tmp_path / "a.png"}, {"image": tmp_path / "b.png"}]
    assert refused(lambda: source.require("image", "label")) == f"{tmp_path}: no column 'label'; it has image."


def test_relative_folders_are_found_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "pets" / "cat" / "a.png", 9)
    monkeypatch.chdir(tmp_path)
    (picture,) = source_of("pets").located("image", picture_of)
    assert picture.pixels()[0, 0].tolist() == [9, 9, 9]


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    """Each is refused by the name of what does not belong there."""
    put(tmp_path / "text" / "cat" / "a.png")
    (tmp_path / "text" / "cat" / "notes.txt").write_text("x")
    put(tmp_path / "beside" / "cat" / "a.png")
    (tmp_path / "beside" / "metadata.csv").write_text("x")
    put(tmp_path / "deep" / "pets" / "cat" / "a.png")
    put(tmp_path / "lacking" / "cat" / "a.png")
    (tmp_path / "lacking" / "dog").mkdir()
    put(tmp_path / "mixed" / "a.png")
    (tmp_path / "mixed" / "b.txt").write_text("x")
    put(tmp_path / "bare" / "cat" / "a.png").rename(tmp_path / "bare" / "cat" / "a")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("text,label\na,x\n")
    (tmp_path / "empty").mkdir()
    said = {
        "text": f"{tmp_path}/text/cat/notes.txt: no picture, by its name",
        "beside": f"{tmp_path}/beside/metadata.csv: a file beside the folders of",
        "deep": f"{tmp_path}/deep/pets/cat: a folder within a class",
        "lacking": f"{tmp_path}/lacking/dog: no picture of this class",
        "bare": f"{tmp_path}/bare/cat/a: no picture, by its name",
        "mixed": f"{tmp_path}/mixed/b.txt: no picture, by its name",
        "csv": f"{tmp_path}/csv: a directory; a file is wanted here, or a folder of pictures: it holds a.csv",
        "empty": f"{tmp_path}/empty: a directory; a file is wanted here.",
    }
    for name, line in said.items():
        assert line_of(tmp_path / name).startswith(line)


TREES = st.dictionaries(
    st.sampled_from(["cat", "dog", ".git", "a.png", "b.JPG", "notes.txt", "Thumbs.db", "x.npz"]),
    st.none() | st.dictionaries(st.sampled_from(["1.png", "2.gif", ".hid", "deep", "read.me"]), st.none(), max_size=3),
    max_size=4,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(tree=TREES)
def test_any_folder_is_read_or_refused(
    tree: dict[str, dict[str, None] | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every visible file is a row, with its folder's name, or there is a line."""
    root = tmp_path_factory.mktemp("tree")
    for name, below in tree.items():
        if below is None:
            (root / name).write_bytes(b"")
            continue
        (root / name).mkdir()
        for file in below:
            (root / name / file).write_bytes(b"")
    sources: list[Source] = []
    if refused(lambda: sources.append(source_of(root))) is None:
        rows = [(row["image"].relative_to(root), row.get("label")) for row in sources[0].rows]
        files = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
        visible = [path for path in files if not any(part[0] == "." or part == "Thumbs.db" for part in path.parts)]
        assert rows == [(path, path.parts[0] if len(path.parts) > 1 else None) for path in visible]
        assert all(path.suffix.lower() in (".png", ".jpg", ".gif") for path, _ in rows)


# -- archives ---------------------------------------------------------------------------------------------------------


def labels(source: Source) -> tuple[str, ...]:
    return source.column("label", lambda value: class_of(value, source.classes.get("label", ())))


def test_archives_with_splits(tmp_path: Path) -> None:
    """Suffixes, or prefixes, are splits; x and y are image and label; classes name the numbers."""
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8)
    y = np.array([1, 0, 1, 1, 0])
    names = np.array(["cat", "dog"])
    np.savez(tmp_path / "a.npz", x_train=x[:3], y_train=y[:3], x_test=x[3:], y_test=y[3:, None], classes=names)
    np.savez(tmp_path / "b.npz", train_images=x[:3], train_labels=y[:3], test_images=x[3:], test_labels=y[3:], classes=names)
    for name in ("a", "b"):
        train, test = (source_of(f"{tmp_path}/{name}.npz:{split}") for split in ("train", "test"))
        for source, part, expected in ((train, x[:3], ("dog", "cat", "dog")), (test, x[3:], ("dog", "cat"))):
            np.testing.assert_array_equal([picture.pixels() for picture in source.located("image", picture_of)], part)
            assert labels(source) == expected
            assert source.classes == {"label": ("cat", "dog")}
        assert "name one of them, as in" in line_of(tmp_path / f"{name}.npz")
        assert line_of(f"{tmp_path}/{name}.npz:val") == f"{tmp_path}/{name}.npz: no split 'val'; it has train, test."
    assert train.located("image", picture_of)[0].where == f"{tmp_path}/b.npz:train: row 1"


def test_archives_without_splits(tmp_path: Path) -> None:
    """One split alone need not be named; other columns keep their names; numbers without names are their own."""
    x = np.zeros((2, 4, 4), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.array([7, 10]), speaker=np.array(["a", "b"]), rate=np.array([8, 8]))
    source = source_of(tmp_path / "a.npz")
    assert list(source.rows[0]) == ["image", "label", "speaker", "rate"]
    assert labels(source) == ("7", "10")
    assert source.column("speaker", str) == ("a", "b")
    np.savez(tmp_path / "b.npz", x_train=x, y_train=np.array(["cat", "dog"]))
    assert labels(source_of(tmp_path / "b.npz")) == labels(source_of(f"{tmp_path}/b.npz:train")) == ("cat", "dog")
    assert line_of(f"{tmp_path}/a.npz:train") == f"{tmp_path}/a.npz: no split 'train'; it has none."
    np.savez(tmp_path / "c.npz", x=x, image=x)
    assert list(source_of(tmp_path / "c.npz").rows[0]) == ["x", "image"]


def test_pixels_lie_in_memory_once(tmp_path: Path) -> None:
    """A row holds a view of the array that was read, and so does its picture."""
    np.savez(tmp_path / "a.npz", x=np.zeros((100, 8, 8, 3), np.uint8))
    source = source_of(tmp_path / "a.npz")
    assert {id(row["image"].base) for row in source.rows} == {id(source.rows[0]["image"].base)}
    assert all(
        np.shares_memory(p.pixels(), row["image"])
        for p, row in zip(source.located("image", picture_of), source.rows, strict=True)
    )


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 4), np.uint8)

    def saved(name: str, **arrays: Any) -> None:
        np.savez(tmp_path / f"{name}.npz", **arrays)

    saved("objects", x=x, y=np.array(["a", None], object))
    saved("unlike", x=x, y=np.zeros(3, int))
    saved("number", x=x, rate=np.array(8000))
    saved("lone", x_train=x, y_train=x, mean=x)
    saved("twice", x=x, images=x)
    saved("none", classes=np.array(["a"]))
    saved("nothing", x=x[:0])
    saved("classes", x=x, classes=np.array([1, 2]))
    np.save(tmp_path / "one.npy", x)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    (tmp_path / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("x.txt", "no array")
    said = {
        "objects": "cannot be read (Object arrays cannot be loaded when allow_pickle=False)",
        "unlike": "its arrays have unlike numbers of rows: x 2, y 3",
        "number": "'rate' is no array of rows",
        "lone": "its array 'mean' belongs to none of its splits, train",
        "twice": "its arrays 'x' and 'images' are both the column 'image'",
        "none": "no rows in it",
        "nothing": "no rows in it",
        "classes": "'classes' is not a list of names",
        "one": "one array and no archive of several",
        "text": "cannot be read",
        "pickle": "cannot be read",
        "pointer": "Git LFS pointer",
        "other": "'x.txt' is no array of rows",
        "gone": "no such file",
    }
    for name, line in said.items():
        found = line_of(tmp_path / f"{name}.npz")
        assert found.startswith(f"{tmp_path}/{name}.npz: ")
        assert line in found


@settings(max_examples=120, deadline=None, derandomize=True)
@given(compressed=st.booleans(), damage=st.data())
def test_damaged_archives_are_read_or_refused(
    compressed: bool, damage: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut anywhere, with other bytes anywhere."""
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, x=np.arange(24, dtype=np.uint8).reshape(2, 3, 4), y=np.array([0, 1]), classes=np.array(["a", "b"]))
    data = bytearray(file.getvalue())
    for index, byte in damage.draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=5)):
        data[index] = byte
    path = tmp_path_factory.mktemp("archive") / "a.npz"
    path.write_bytes(data[: damage.draw(st.integers(len(data) // 2, len(data)))] if damage.draw(st.booleans()) else data)
    sources: list[Source] = []
    if refused(lambda: sources.append(source_of(path))) is None:
        refused(lambda: sources[0].located("image", picture_of))
        refused(lambda: labels(sources[0]))


@needs_assets
@pytest.mark.parametrize(("name", "count"), [("cifar10_jpeg/cifar10_subset.npz:train", 4000), ("mnist_5k/mnist_5k.npz", 5000)])
def test_real_archives(name: str, count: int) -> None:
    source = source_of(SHARED / "data" / name)
    pictures, found = source.located("image", picture_of), labels(source)
    assert len(pictures) == len(found) == count
    size = (32, 32, 3) if "cifar" in name else (28, 28, 3)
    assert pictures[0].pixels().shape == pictures[-1].pixels().shape == size
    expected = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
    assert set(found) == (expected if "cifar" in name else set("0123456789"))


def test_names_of_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a file without its ending, a folder whatever dots it has, an archive without the split."""
    put(tmp_path / "pets.v1" / "cat" / "a.png")
    monkeypatch.chdir(tmp_path / "pets.v1")
    names = {tmp_path / "pets.v1": "pets.v1", Path("."): "pets.v1", Path("a/rows.v1.csv"): "rows.v1", Path("x.npz:test"): "x"}
    assert {path: name_of(path) for path in names} == names


def test_folders_for_validation(tmp_path: Path) -> None:
    """Of one folder `--val` is another, or holds one of the same name; of several it holds one for each."""
    pets, cars, held = tmp_path / "pets", tmp_path / "cars", tmp_path / "held"
    for folder in (pets, cars, held):
        put(folder / "a" / "a.png")
    assert read_val(str(held), [pets]) == {"pets": held}
    assert read_val(str(held), [pets, cars]) == {"pets": held / "pets", "cars": held / "cars"}
    assert read_val("x.npz:test", [Path("x.npz:train")]) == {"x": Path("x.npz:test")}
    put(held / "pets" / "a" / "a.png")
    assert read_val(str(held), [pets]) == {"pets": held / "pets"}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(name=st.text(st.sampled_from(".:/npz train\0\ud800a"), max_size=12) | st.sampled_from([".:npz", "a.npz:", ":.npz"]))
def test_any_path_is_read_or_refused(name: str) -> None:
    """Whatever a path is made of."""
    for path in (name, f"{name}.npz", f"{name}.npz:train", f".npz{name}", f"a.npz:{name}"):
        refused(lambda path=path: read_file(path))
        refused(lambda path=path: name_of(Path(path)))
        refused(lambda path=path: expect_rows(Path(path)))


# -- columns of paths -------------------------------------------------------------------------------------------------


def test_columns_of_paths(tmp_path: Path) -> None:
    """Of CSV and JSON lines; paths are relative to the file, wherever one is; another column may hold them."""
    put(tmp_path / "there" / "a.png", 7)
    (tmp_path / "rows.csv").write_text("file,label\nthere/a.png,x\n")
    (tmp_path / "rows.jsonl").write_text('{"file": "there/a.png", "label": "x"}\n{"file": " ", "label": "y"}\n')
    (picture,) = source_of(tmp_path / "rows.csv").located("file", picture_of)
    assert picture.pixels()[0, 0].tolist() == [7, 7, 7]
    line = refused(lambda: source_of(tmp_path / "rows.csv").located("image", picture_of))
    assert line == f"{tmp_path}/rows.csv: no column 'image'; it has file, label."
    line = refused(lambda: source_of(tmp_path / "rows.jsonl").located("file", picture_of))
    assert line == f"{tmp_path}/rows.jsonl: row 2 has nothing in column 'file'."
