"""Pictures prepared as a suite says, in place of the checkpoint's way: of another size, or normalised by other statistics.

Published tables differ in both: VTAB's pictures are resized to 224 x 224 without a crop, and one half of its tables normalises
by the statistics of ImageNet, the other by 0.5 and 0.5. And a network of convolutions takes small pictures as well, at a part
of the cost.

How pictures are prepared is said by a backbone's directory. So the suite's way is one, too: a directory in the benchmark's,
with links to all files of the checkpoint, and a `preprocessor_config.json` of its own. Whoever goes on with the adapters of a
benchmark, or trains them by another library, loads that one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from .. import disk
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.pictures import Pictures
from ..models.preprocessor_config import NAME
from .suite import NORMALISATIONS, Suite


def prepared_as(suite: Suite, backbone: Backbone, folder: Path) -> Backbone:
    """A backbone of pictures that prepares them as the suite says, its directory in `folder`; others as they are."""
    if (suite.picture_size, suite.normalisation) == (None, None) or not isinstance(backbone.processor, Pictures):
        return backbone
    if backbone.directory is None:
        raise GraftaxError(
            f"suite {suite.name}: {backbone.name} is in no directory, so its pictures are prepared in one way only."
        )
    there = folder / Path(backbone.directory).name
    there.mkdir(parents=True, exist_ok=True)
    for file in Path(backbone.directory).iterdir():
        if file.name != NAME and not (there / file.name).exists():
            (there / file.name).symlink_to(file.resolve())
    disk.write_json(there / NAME, _config(suite, backbone.processor))
    return dataclasses.replace(backbone, directory=str(there))


def _config(suite: Suite, pictures: Pictures) -> dict[str, Any]:
    """The suite's preparation in the words of transformers; what it leaves open is the checkpoint's."""
    own = pictures.preparation
    if own.scale is None or own.mean is None or own.std is None or own.divided is not None or own.shift:
        raise GraftaxError(f"suite {suite.name}: how this checkpoint scales pictures has no other size or normalisation.")
    height, width = own.size if suite.picture_size is None else (suite.picture_size, suite.picture_size)
    mean, std = (own.mean, own.std) if suite.normalisation is None else NORMALISATIONS[suite.normalisation]
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": own.resample,
        "do_rescale": True,
        "rescale_factor": own.scale,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
