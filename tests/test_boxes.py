"""Boxes: as rows, folders and COCO's files have them, placed and augmented with their pictures; what is none, in one line."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from noted import noted
from PIL import Image
from refusals import refused

from graftax.data import coco_boxes
from graftax.data.box_values import NOTHING, Boxes, Found, LaidBoxes, boxes_of, counterparts, overlap
from graftax.data.picture_values import Picture
from graftax.data.sources import Source, source_of
from graftax.data.splits import parts_to_train
from graftax.data.values import Unreadable
from graftax.models.augment import Augment
from graftax.models.augmented_pictures import augmented
from graftax.models.pictures import Pictures
from graftax.models.preparation import Preparation
from graftax.tasks.task_registry import task_named

BOX = [2.0, 3.0, 4.0, 5.0]
ONE = Boxes(((2.0, 3.0, 6.0, 8.0),), ("1",), (False,))


def read(value: Any, names: tuple[str, ...] = ()) -> Boxes:
    return boxes_of(value, "row 1", Path(), names)


@pytest.mark.parametrize(
    "value",
    [
        {"bbox": [BOX], "category": [1]},
        {"bbox": np.array([BOX]), "categories": np.array([1]), "area": [20.0]},
        {"bbox": [np.array(BOX)], "label": ["1"], "iscrowd": [0]},
        {"bbox": [BOX], "category": [1], "category_id": None},
        [{"bbox": BOX, "category_id": 1, "id": 7}],
    ],
)
def test_forms_of_boxes(value: Any) -> None:
    assert read(value) == ONE


def test_what_stands_beside_boxes() -> None:
    """Names of numbered classes, a crowd, no box at all; and equal boxes are equal wherever they were read."""
    found = read({"bbox": [BOX, BOX], "category": [1, 0], "iscrowd": [0, 1]}, ("a", "b"))
    assert (found.names, found.crowd) == (("b", "a"), (False, True))
    assert len(read([])) == len(read({"bbox": [], "category": []})) == 0
    assert repr(ONE) == repr(boxes_of([{"bbox": BOX, "category": 1}], "row 9", Path()))


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"bbox": [[1, 1, 0, 2]], "category": [1]}, "box 1: it is 0 wide and 2 high"),
        ([{"bbox": BOX, "category": 1}, {"bbox": [1, 1, 3, -2], "category": 1}], "box 2: it is 3 wide and -2 high"),
        ({"bbox": [[1, float("nan"), 2, 2]], "category": [1]}, "box 1: [1, nan, 2, 2] is no box: its numbers must be finite"),
        ({"bbox": [[1, 2, 3]], "category": [1]}, "box 1: a list is no box: it is x, y, width and height"),
        ({"bbox": [["a", 1, 2, 3]], "category": [1]}, "box 1: 'a' is not a number"),
        ({"bbox": [BOX], "category": [1, 2]}, "1 bbox, 2 category: there must be one of each for every box"),
        ({"bbox": [BOX]}, "box 1: no category of it (as category, categories, category_id, label)"),
        ({"bbox": [BOX], "category": [1], "label": [1]}, "box 1: more than one category of it"),
        (
            {"boxes": [BOX]},
            'an object with boxes says no boxes: give {"bbox": [[x, y, width, height], ...], "category": [...]}',
        ),
        ("cat", "a text says no boxes"),
        ([BOX], "box 1: a list is no object with a box and its category"),
        ({"bbox": [BOX], "category": [5]}, "box 1: 5 is no class: they are numbered 0 to 1 (a, b)"),
    ],
)
def test_what_are_no_boxes(value: Any, line: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(value, ("a", "b"))
    assert str(caught.value).startswith(line)


def test_boxes_that_are_not_of_their_picture() -> None:
    """By less than a pixel they are rounded, and cut at the edge; the size that a row says must be the picture's, upright."""
    assert read([{"bbox": [-0.5, 0, 10.9, 5], "category": 1}]).within((5, 10)).corners == ((0.0, 0.0, 10, 5),)
    for box in ([-2, 0, 5, 5], [0, 1, 5, 5.5], [11, 1, 2, 2], [10, 1, 0.5, 2], [-0.9, 0, 0.5, 3]):
        said = refused(lambda box=box: read([{"bbox": box, "category": 1}]).within((5, 10)))
        assert said == f"row 1: the box [{', '.join(f'{x:g}' for x in box)}] reaches out of the picture of 10 x 5 pixels."
    sized = read({"bbox": [], "category": [], "size": (10, 5)})
    assert sized.within((10, 5)) == sized
    assert refused(lambda: sized.within((9, 5))) == "row 1: boxes for a picture of 5 x 10 pixels, and it has 5 x 9."
    assert "it is turned as its camera says, and boxes must be those of the upright" in str(
        refused(lambda: sized.within((5, 10)))
    )


# -- files --------------------------------------------------------------------------------------------------------------


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


def annotations(**changes: Any) -> str:
    return json.dumps(
        {
            "images": [{"id": 4, "file_name": "a.png", "width": 8, "height": 8}, {"id": 2, "file_name": "b.png"}],
            "annotations": [{"id": 1, "image_id": 2, "category_id": 9, "bbox": [1, 1, 2, 2], "iscrowd": 1}],
            "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
        }
        | changes
    )


def test_a_folder_with_annotations(tmp_path: Path) -> None:
    """Beside the pictures, beside a folder of them, or named itself; of splits; classes in the order of their ids."""
    for place in ("beside", "above/images", "splits/train", "splits/val"):
        put(tmp_path / place, "a.png", "b.png")
    for place in ("beside/_annotations.coco.json", "above/annotations.json", "above/val.json", "splits/train/annotations.json"):
        (tmp_path / place).write_text(annotations())
    (tmp_path / "splits/val/annotations.json").write_text(annotations(annotations=[]))
    for place, pictures in (("beside", "beside"), ("above", "above/images"), ("above/val.json", "above/images")):
        source = source_of(tmp_path / place)
        assert [row["image"] for row in source.rows] == [tmp_path / pictures / "a.png", tmp_path / pictures / "b.png"]
        assert source.classes == {"objects": ("cat", "dog")}
        empty, full = (boxes_of(row["objects"], "row", Path(), source.classes["objects"]) for row in source.rows)
        assert (len(empty), empty.size) == (0, (8, 8))
        assert (full.corners, full.names, full.crowd, full.size) == (((1, 1, 3, 3),), ("dog",), (True,), None)
    assert parts_to_train(tmp_path / "splits", None) == (f"{tmp_path / 'splits'}:train", f"{tmp_path / 'splits'}:val")
    assert len(source_of(f"{tmp_path / 'splits'}:val").rows) == 2


def test_a_folder_as_cocos_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose annotations are in a folder of their own; and are as large as may be."""
    for place in ("train2017", "val2017"):
        put(tmp_path / place, "a.png", "b.png")
    file = tmp_path / "annotations/instances_val2017.json"
    file.parent.mkdir()
    file.write_text(annotations())
    assert [row["image"] for row in source_of(file).rows] == [tmp_path / "val2017" / name for name in ("a.png", "b.png")]
    monkeypatch.chdir(file.parent)
    assert [row["image"].parent.name for row in source_of(file.name).rows] == ["val2017"] * 2
    monkeypatch.setattr(coco_boxes, "_MOST_BYTES", size := file.stat().st_size)
    assert len(source_of(file).rows) == 2
    monkeypatch.setattr(coco_boxes, "_MOST_BYTES", size - 1)
    assert refused(lambda: source_of(file)) == f"{file}: {size:,} bytes are too many for a file of its kind."


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"images": []}, "annotations.json: annotation 1 is of image 2, which is not among its images."),
        ({"categories": [{"id": 3, "name": "cat"}]}, "annotations.json: annotation 1 is of category 9, and there are 3."),
        ({"categories": [{"id": 9, "name": "a"}, {"id": 9, "name": "b"}]}, "must each have a name and an id of their own"),
        ({"categories": [{"id": 9}]}, "must each have a name and an id of their own"),
        ({"images": [{"id": 2, "file_name": "c.png"}]}, "image 2, 'c.png', lies in none of "),
        ({"images": [{"id": "2", "file_name": "b.png"}]}, "an image has the id '2', which is no whole number."),
        ({"images": [{"id": 2, "file_name": "b.png"}] * 2}, "annotations.json: two images have one id."),
        ({"annotations": {}}, "no annotations as COCO has them: its 'annotations' must be a list of objects."),
    ],
)
def test_annotations_that_are_none(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "annotations.json").write_text(annotations(**changes))
    said = refused(lambda: source_of(tmp_path))
    assert said is not None
    assert said.startswith(str(tmp_path / "annotations.json"))
    assert line in said


def test_a_folder_with_metadata(tmp_path: Path) -> None:
    """As `datasets` has it: what a line says of a picture stands in its row; names of classes in a file beside it."""
    put(tmp_path, "a.png", "b.png", "c.png")
    lines = [{"file_name": f"{name}.png", "objects": {"bbox": [BOX], "categories": [1]}, "who": name} for name in "ba"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    said = noted(lambda: source_of(tmp_path))
    assert said == [f"{tmp_path}: metadata.jsonl names no c.png; passed over."]
    source = source_of(tmp_path)
    assert [(row["image"].name, row["who"]) for row in source.rows] == [("b.png", "b"), ("a.png", "a")]
    task = task_named("image-detect")
    from graftax.data.columns import Columns

    examples = task.read(source, Columns(), Pictures, ())
    assert examples.labels is not None
    assert [boxes.names for boxes in examples.labels] == [("dog",)] * 2
    assert task.label_names(examples) == ("cat", "dog")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "d.png"}')
    assert (
        refused(lambda: source_of(tmp_path))
        == f"{tmp_path / 'metadata.jsonl'}: line 1: no picture 'd.png' (file_name) in {tmp_path}."
    )


def test_a_data_set_names_what_is_in_boxes() -> None:
    datasets = pytest.importorskip("datasets")
    names = ["cat", "dog"]
    objects = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"), 4)),
        "category": datasets.List(datasets.ClassLabel(names=names)),
    }
    rows = {"image": [Image.new("RGB", (8, 8))], "objects": [{"bbox": [[1, 1, 2, 2]], "category": [1]}]}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(), "objects": objects}))
    source = source_of(data)
    assert source.classes == {"objects": ("cat", "dog")}
    assert read(source.rows[0]["objects"], source.classes["objects"]).names == ("dog",)


# -- placed and augmented ---------------------------------------------------------------------------------------------------


def around(mask: np.ndarray) -> list[int]:
    """The box around what is 1 in a mask: left, top, right, bottom."""
    high, wide = np.nonzero(mask == 1)
    return [int(wide.min()), int(high.min()), int(wide.max()) + 1, int(high.max()) + 1]


def corners(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In pixels of a picture of this size: left, top, right, bottom."""
    middle, side = np.split(np.asarray(box, np.float64), 2, axis=-1)
    return np.concatenate([middle - side / 2, middle + side / 2], -1) * [*size[::-1], *size[::-1]]


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation((40, 60), resize=(40, 60)),
        Preparation((40, 40), resize=50, crop=True),
        Preparation((90, 100), crop=True),
        Preparation((70, 50), resize=(35, 70), crop=True),
    ],
)
def test_placed_as_the_pixels_are(preparation: Preparation) -> None:
    """A box lies around what a mask of its pixels is in the prepared picture, and leads back to where it was."""
    picture, label = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    processor, all_boxes = (
        Pictures(preparation),
        Boxes(((22.0, 14.0, 52.0, 44.0), (0.0, 0.0, 3.0, 3.0)), ("a", "b"), (False, False)),
    )
    label[14:44, 22:52] = 1
    items = processor.items({"image": [Picture(picture)]}, 1)
    (placed,) = processor.boxes([all_boxes], items)
    wanted = around(preparation.mask(label, "a mask"))
    np.testing.assert_allclose(corners(placed.boxes[0], preparation.size), wanted, atol=1.0)
    back = items[0].frame.from_prepared(corners(placed.boxes[0], preparation.size).reshape(2, 2))
    if not placed.cut:
        np.testing.assert_allclose(back.ravel(), all_boxes.corners[0], atol=1e-4)
    in_the_corner = preparation.frame((60, 80)).to_prepared(np.array([[0, 0], [3, 3]]))
    assert placed.kept.tolist() == ([0, 1] if (in_the_corner[1] > 0.5).all() else [0])


def test_what_preparation_cuts_away() -> None:
    """A box at the edge is cut, one beyond it dropped, and both are said; metrics are of them as they were given."""
    processor = Pictures(Preparation((20, 20), crop=True))
    objects = {"bbox": [[0, 10, 15, 10], [0, 0, 5, 30], [12, 5, 10, 10]], "category": ["a", "b", "b"]}
    from graftax.data.columns import Columns

    task = task_named("image-detect")
    examples = task.read(Source("s", [{"image": np.zeros((30, 40, 3), np.uint8), "objects": objects}]), Columns(), processor)
    prepared = task.prepare(examples, ("a", "b"), processor, 1)
    np.testing.assert_allclose(prepared.labels[0], [[0, 0.125, 0.5, 0.25, 0.5], [1, 0.35, 0.25, 0.5, 0.5]], atol=1e-6)
    (said,) = noted(lambda: task.prepare(examples, ("a", "b"), processor, 1))
    assert said.startswith(
        "s: 1 box cut at the edge of what the backbone sees of a picture, 1 beyond it or too small to be seen"
    )
    assert prepared.examples.labels is not None
    assert len(prepared.examples.labels[0]) == 3


def test_turned_upright() -> None:
    """Boxes are those of the picture as it is shown: a photograph held sideways is turned before they are looked at."""
    stored = Image.fromarray(np.zeros((6, 10, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    stored.save(file, "JPEG", exif=exif)
    processor = Pictures(Preparation((10, 6), crop=True))
    items = processor.items({"image": [Picture(file.getvalue())]}, 1)
    upright = read({"bbox": [[1, 8, 2, 2]], "category": [1], "size": (10, 6)})
    np.testing.assert_allclose(processor.boxes([upright], items)[0].boxes, [[2 / 6, 9 / 10, 2 / 6, 2 / 10]], atol=1e-6)
    held = read({"bbox": [[8, 1, 2, 2]], "category": [1], "size": (6, 10)})
    assert "boxes must be those of the upright picture" in str(refused(lambda: processor.boxes([held], items)))


@pytest.mark.parametrize("said", ["flip=1", "crop=0.1", "crop=0.1+flip"])
def test_augmented_as_the_picture_is(said: str) -> None:
    """A box lies around what its picture's mask says of it; of one of which little is left there is no box."""
    mask = np.zeros((32, 32), np.uint8)
    mask[6:18, 10:26] = 1
    given = np.zeros((24, 32, 32, 3), np.float32), jax.random.split(jax.random.key(3, impl="threefry2x32"), 24), np.arange(24)
    box = np.array([18 / 32, 12 / 32, 16 / 32, 12 / 32], np.float32)
    laid = LaidBoxes(
        np.tile(np.array([2, NOTHING], np.int32), (24, 1)), np.tile(np.stack([box, np.zeros(4, np.float32)]), (24, 1, 1))
    )
    call = jax.jit(partial(augmented, Augment.of(said)))
    masks, boxes = np.asarray(call(*given, np.tile(mask, (24, 1, 1))).masks), call(*given, laid).masks
    assert isinstance(boxes, LaidBoxes)
    assert (np.asarray(boxes.numbers)[:, 1] == NOTHING).all()
    there = np.asarray(boxes.numbers)[:, 0] == 2
    assert there.sum() >= 12
    assert there.all() == ("crop" not in said)
    for own, moved in zip(masks[there], np.asarray(boxes.boxes)[there, 0], strict=True):
        np.testing.assert_allclose(corners(moved, (32, 32)), around(own), atol=1.01)
    assert all((own == 1).mean() < 0.3 for own in masks[~there])
    assert len({*map(tuple, np.asarray(boxes.boxes)[:, 0].round(3).tolist())}) > (1 if "crop" in said else 0)


def test_counterparts() -> None:
    """Each box is found once, by the surest of its name that overlaps it enough."""
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    boxes = Boxes(((0, 0, 10, 10), (20, 0, 30, 10)), ("a", "b"), (False, False))

    def sure(label: str, box: list[float]) -> dict[str, Any]:
        return {"score": 0.9, "label": label, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}

    found = Found([sure("a", [0, 0, 10, 9]), sure("a", [0, 0, 10, 10]), sure("a", [20, 0, 30, 10]), sure("b", [26, 0, 36, 10])])
    assert counterparts(boxes, found, 0.5) == 1
    assert counterparts(boxes, found, 0.2) == 2
