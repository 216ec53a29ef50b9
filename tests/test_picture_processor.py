"""The processor of pictures: items of rows in every form, batches of them, rows that callers hand in, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from graftax import large
from graftax.data.batches import Shape
from graftax.data.columns import Columns, read_fields
from graftax.data.picture_values import Picture
from graftax.data.sources import source_of
from graftax.models.pictures import Pictures
from graftax.models.preparation import Preparation

STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def taking(*size: int, **config: Any) -> Pictures:
    """The processor of a backbone that takes pictures of this height and width, and does nothing but normalise them."""
    made: Any = SimpleNamespace(directory=None, hf_config={"image_size": list(size), **STATISTICS, **config})
    return Pictures.of(made)


def items(processor: Pictures, data: Any, **columns: str) -> Any:
    """Of rows, as a task has them read."""
    return processor.items(read_fields(source_of(data), Columns(**columns), processor.fields), 1)


def test_items_of_rows(tmp_path: Path) -> None:
    """Of a column by any name, in the rows' order; an item is one batch row, and told from others by its pixels, and by what
    becomes of them."""
    arrays = [noise(4, 6, 3, seed=i) for i in range(3)]
    Image.fromarray(arrays[1]).save(tmp_path / "b.png")
    (tmp_path / "rows.csv").write_text("file,label\nb.png,x\n")
    processor = taking(4, 6)
    made = [*items(processor, [{"image": arrays[0]}]), *items(processor, tmp_path / "rows.csv", image="file")]
    for item, array in zip(made, arrays, strict=False):
        np.testing.assert_array_equal(item.array, array)
        assert item.array.dtype == np.uint8
        assert (len(item), item.cut, item.target_length) == (1, False, 0)
    whitened = items(taking(4, 6, image_mean=0.1), [{"image": arrays[0]}])
    assert len({item.tobytes() for item in [*made, *whitened]}) == 3


def test_batches() -> None:
    """Items in their batch rows, as floats by the checkpoint's statistics; batch rows without one are filled with numbers."""
    arrays = [noise(4, 6, 3, seed=i) for i in range(3)]
    processor = taking(4, 6)
    made = items(processor, [{"image": array} for array in arrays])
    pixels = processor.lay(made, [(2, 0), (0, 0), (3, 0)], Shape(5, 5, shared=False)).pixels
    assert (pixels.shape, pixels.dtype) == ((5, 4, 6, 3), np.float32)
    mean, std = (np.asarray(values, np.float32) for values in STATISTICS.values())
    for row, array in zip((2, 0, 3), arrays, strict=True):
        np.testing.assert_array_equal(pixels[row], ((array * (1 / 255)).astype(np.float32) - mean) / std)
    assert np.isfinite(pixels).all()
    assert processor.with_hidden(pixels, None).hidden is pixels


def test_random_pictures_compare_backbones() -> None:
    """Each another, the same whenever they are made, as floats like those of pictures."""
    processor = taking(4, 6)
    first, again = (processor.random_inputs(8).pixels for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({picture.tobytes() for picture in first}) == 8
    assert set(first[..., 0].ravel()) <= set(processor.preparation.levels[:, 0])


def test_many_pictures_lie_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image": noise(4, 6, 3, seed=i)} for i in range(3)]
    processor = taking(4, 6)
    kept = items(processor, rows)
    monkeypatch.setattr(large, "IN_MEMORY", 0)
    on_disk = items(processor, rows)
    assert isinstance(on_disk[0].array, np.memmap)
    assert [item.tobytes() for item in on_disk] == [item.tobytes() for item in kept]


def test_rows_as_callers_hand_them_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture in any form, alone or as "image"; and a row as it was read."""
    array = noise(4, 6, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    data = (tmp_path / "a.png").read_bytes()
    processor = taking(4, 6)
    forms: list[Any] = ["a.png", tmp_path / "a.png", data, array, Image.fromarray(array), {"bytes": data, "path": None}]
    forms += [{"image": form} for form in forms] + [Picture(array)]
    for form in forms:
        fields = processor.asked(form, "row 1", None)
        assert processor.asked(processor.row_of(fields), "row 1", None) == fields
        (item,) = processor.items({field: [value] for field, value in fields.items()}, 1)
        np.testing.assert_array_equal(item.array, array)
    for form in (None, 3, {"text": "a"}, ["a.png"], np.zeros((4, 6))):
        line = refused(lambda form=form: processor.asked(form, "row 7", None))
        assert line is not None
        assert line.startswith("row 7: ")


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    """One line that names the row and the file; the first such row, however many are prepared at once."""
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(_png(noise(4, 6, 3, seed=i)))
    (tmp_path / "3.png").write_bytes(_png(noise(5, 6, 3)))
    (tmp_path / "5.png").write_bytes(b"broken")
    processor, rows = taking(4, 6), [{"image": tmp_path / f"{i}.png"} for i in range(8)]
    wanted = "this backbone takes 6 x 4, and its config has nothing resized. Resize it."
    line = f"list: row 4: {tmp_path}/3.png: a picture of 6 x 5 pixels; {wanted}"
    assert refused(lambda: items(processor, rows)) == line
    line = refused(lambda: items(processor, rows[4:]))
    assert line is not None
    assert line.startswith(f"list: row 2: {tmp_path}/5.png: no picture")
    line = refused(lambda: items(taking(4, 6, num_channels=1, image_mean=0.5, image_std=0.5), rows[:1]))
    assert line == f"list: row 1: {tmp_path}/0.png: a picture in colour, and this backbone takes greys, of one channel."
    line = refused(lambda: items(processor, [{"picture": "a.png"}]))
    assert line == "list: no column 'image'; it has picture."


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_pillow_warns_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Of what is read all the same, and of what is refused in a line of its own."""
    image = Image.fromarray(noise(4, 6)).convert("P")
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(range(256)))
    items(taking(4, 6), [{"image": file.getvalue()}])
    assert [str(warning.message) for warning in recwarn] == []


def test_a_checkpoint_that_resizes() -> None:
    """Pictures of every size become those of one."""
    processor = Pictures(Preparation((6, 8), resize=(6, 8)))
    made = items(processor, [{"image": noise(3, 5, 3)}, {"image": noise(60, 50)}, {"image": noise(6, 8, 4)}])
    assert {item.array.shape for item in made} == {(6, 8, 3)}
