"""LoRA's factors at a convolution as PEFT's tensors: A [r, in, kh, kw], B [out, r / groups, 1, 1].

Here they are the matrices of `methods/patches.py`, A [r, kh kw in] and B [r, out / groups]. Of several groups PEFT has each
group's ranks side by side, and here all groups' take turns.
"""

from __future__ import annotations

import numpy as np

from ...sites import Site


def _ranks(site: Site, r: int) -> np.ndarray:
    """Which of our ranks each of PEFT's is."""
    groups = site.geometry.groups if site.geometry else 1
    return np.arange(r).reshape(r // groups, groups).T.reshape(-1)


def to_peft(site: Site, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PEFT's A and B of ours."""
    (height, width, _, out), r = site.shape, len(a)
    ranks = _ranks(site, r)
    their_a = a[ranks].reshape(r, height, width, site.inputs).transpose(0, 3, 1, 2)
    groups = out // b.shape[1]
    by_group = b[ranks].reshape(groups, r // groups, b.shape[1])
    return their_a, by_group.transpose(0, 2, 1).reshape(out, r // groups, 1, 1)


def from_peft(site: Site, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `to_peft`."""
    r, out = len(a), site.shape[-1]
    own, groups = np.argsort(_ranks(site, r)), r // b.shape[1]
    by_group = b.reshape(groups, out // groups, r // groups).transpose(0, 2, 1)
    return a.transpose(0, 2, 3, 1).reshape(r, -1)[own], by_group.reshape(r, -1)[own]
