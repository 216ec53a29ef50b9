"""Metrics of masks, all made of one table: how many pixels of each class were said to be of each.

    IoU_c = right_c / (labelled_c + said_c - right_c)         of all pictures together
    mean IoU = the mean of IoU_c over the classes that occur, in labels or in answers

That is the mean of PASCAL VOC and ADE20K: a mean over pictures would weigh a picture with a few pixels of a class as one that
is full of it. Pixels without a label are left out, and so are those that were not seen; how many these are is said beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..data.mask_values import VOID, Mask
from ..errors import GraftaxError


def counts(label: Mask, answer: Mask, classes: int) -> np.ndarray:
    """`[classes, classes + 1]`: pixels by their class and the class that was answered, the last column those without answer."""
    wanted, said = label.pixels(), answer.pixels()
    if wanted.shape != said.shape:
        (high, wide), (height, width) = wanted.shape, said.shape
        raise GraftaxError(f"{label.where}: a mask of {wide} x {high} pixels for a picture of {width} x {height}.")
    labelled = wanted != VOID
    said = np.minimum(said[labelled], classes)  # VOID becomes the last column
    cells = wanted[labelled].astype(np.int64) * (classes + 1) + said
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def of_counts(total: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The metrics of a table; `unseen` where some labelled pixels were not seen."""
    seen = total[:, :-1]
    right, either = np.diag(seen), seen.sum(0) + seen.sum(1) - np.diag(seen)
    each = {name: float(right[i] / either[i]) for i, name in enumerate(names) if either[i]}
    found = {
        "mean_iou": float(np.mean([*each.values()])) if each else 0.0,
        "pixel_accuracy": float(right.sum() / seen.sum()) if seen.sum() else 0.0,
        **{f"iou_{name}": value for name, value in each.items()},
    }
    return found | ({"unseen": float(total[:, -1].sum() / total.sum())} if total[:, -1].any() else {})


def confusions(total: np.ndarray, names: Sequence[str]) -> Counter[tuple[str | None, str | None]]:
    """How many pixels of each class were said to be of each; those that were not seen are not among them."""
    seen = total[:, :-1]
    return Counter({(names[i], names[j]): int(seen[i, j]) for i, j in np.argwhere(seen).tolist()})
