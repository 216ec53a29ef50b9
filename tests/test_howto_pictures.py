"""The page on pictures: its commands run as they stand there, and the merged model answers as the adapter does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import PICTURES, Graftax
from PIL import Image
from safetensors.numpy import save_file
from tiny import write_backbone

from graftax.models.random import random_tensors

PAGE = Path(__file__).resolve().parent.parent / "docs" / "pictures.md"
PREPARED = {
    **{"do_resize": True, "size": {"shortest_edge": 40}, "resample": 2},
    **{"do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    **{"do_rescale": True, "rescale_factor": 1 / 255},
    **{"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.3] * 3},
    "image_processor_type": "MobileNetV2ImageProcessor",
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page takes to be there."""
    monkeypatch.chdir(tmp_path)
    Path("mobilenet").mkdir()
    Path("mobilenet/config.json").write_text(json.dumps(PICTURES["mobilenet_v2"]))
    save_file(random_tensors(PICTURES["mobilenet_v2"]), "mobilenet/model.safetensors")
    Path("mobilenet/preprocessor_config.json").write_text(json.dumps(PREPARED))
    write_backbone(Path("minilm"))
    random, rows = np.random.default_rng(0), ["file,what"]
    for index in range(8):
        for name in ("cat", "dog"):
            path = Path(f"pets/{name}/{index}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (50, 44 + index, 3), np.uint8)).save(path)
            rows.append(f"{path},{name}")
    Path("photos.csv").write_text("\n".join(rows))
    Path("new").mkdir()
    for index in range(4):
        Image.fromarray(random.integers(0, 256, (45, 60, 3), np.uint8)).save(f"new/{index}.png")
    for folder in ("images", "masks"):
        Path(f"parts/{folder}").mkdir(parents=True)
    Path("parts/classes.txt").write_text("good\nhole\n")
    for index in range(8):
        Image.fromarray(random.integers(0, 256, (50, 44, 3), np.uint8)).save(f"parts/images/{index}.jpg")
        Image.fromarray(random.integers(0, 2, (50, 44), np.uint8)).save(f"parts/masks/{index}.png")
    Path("holes/images").mkdir(parents=True)
    images = [{"id": index, "file_name": f"{index}.png"} for index in range(8)]
    for index in range(8):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(f"holes/images/{index}.png")
    holes = [{"image_id": index % 8, "category_id": 5, "bbox": [8 + 2 * index, 12, 9, 14]} for index in range(10)]
    said = {"images": images, "annotations": holes, "categories": [{"id": 5, "name": "hole"}]}
    Path("holes/annotations.json").write_text(json.dumps(said))
    digits = random.integers(0, 256, (12, 36, 36), np.uint8)
    np.savez("digits.npz", x_train=digits[:8], y_train=np.arange(8) % 2, x_test=digits[8:], y_test=np.arange(4) % 2)
    return tmp_path


@pytest.mark.slow
def test_the_page_runs(desk: Path, graftax: Graftax) -> None:
    answers = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            said = graftax(*shlex.split(line)[1:])
            assert said.code == 0, (line, said.err)
            if " predict " in line:
                answers.append([json.loads(answer) for answer in said.out.splitlines()])
    adapter, some, masks, boxes, named, kept, merged = answers
    assert [{*one} for one in boxes] == [{"adapter", "objects"}] * 8
    assert [one["mask"] for one in masks] == [f"answered/{index}.png" for index in range(8)]
    assert {one["label"] for one in named} <= {"cat", "dog", "horse"}
    assert len({one["score"] for one in named}) == 4
    assert all(one["score"] != beside["score"] for one, beside in zip(named, kept, strict=True))
    np.testing.assert_allclose([one["score"] for one in some], [adapter[i]["score"] for i in (0, 3)], atol=1e-4)
    assert [one["label"] for one in merged] == [one["label"] for one in adapter]
    np.testing.assert_allclose([one["score"] for one in merged], [one["score"] for one in adapter], atol=1e-4)
    assert len({one["score"] for one in adapter}) == 4
    assert json.loads((desk / "pets-model" / "preprocessor_config.json").read_text()) == PREPARED
    assert {path.name for path in (desk / "adapters").iterdir()} >= {"pets", "photos", "digits"}
