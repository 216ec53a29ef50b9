"""Where LoRA's factors A [r, in] and B [r, out] may start: from the frozen weights, the layer's inputs, or the loss's gradient.

The kernel is W [in, out], s the scale of the update. *Plain* starts leave the layer as it was (A^T B = 0); with the *others*
the product A0^T B0 is taken out of the frozen weights, so that training goes on from it (`lora.OnResidual`).

| start        | A0, B0                                                                        | from       | source           |
|--------------|-------------------------------------------------------------------------------|------------|------------------|
| `default`    | A uniform (Kaiming), B zero                                                   |            | arXiv:2106.09685 |
| `gaussian`   | A normal, of deviation 1 / r, B zero                                          |            | arXiv:2106.09685 |
| `orthogonal` | both normal, in the odd and the even rows of one rotation, so A^T B = 0       |            |                  |
| `eva`        | A: the inputs' first principal axes, B zero; sites share out the ranks        | inputs     | arXiv:2410.07170 |
| `pissa`      | the r largest singular triples of W / s, their values' roots in each factor   | weights    | arXiv:2404.02948 |
| `olora`      | W^T = Q R: the first r rows of R, and columns of Q                            | weights    | arXiv:2406.01775 |
| `corda`      | the r largest triples of C W, C the inputs' second moments; A is C^-1's of it | inputs     | arXiv:2406.05223 |
| `lora_ga`    | of the gradient's triples the first r in A, the next r in B                   | gradient   | arXiv:2407.05000 |

In the order of the table: Hu et al. (2021), twice; datta0's blog, as in PEFT; Paischer et al. (2024); Meng, Wang & Zhang
(2024); Buyukakyuz (2024); Yang et al. (2024), instruction-previewed mode; Wang, Yu & Li (2024). Numbers are PEFT's. What
is decomposed is decomposed on the host in float64, so a run that is resumed starts from the same bits.
At embeddings every start is the default one, as in PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import jax
import numpy as np

from ...errors import GraftaxError
from ..sites import Site

DRAWN = ("default", "gaussian", "orthogonal")
FROM_WEIGHTS, FROM_DATA = ("pissa", "olora"), ("eva", "corda", "lora_ga")
ON_RESIDUAL = ("pissa", "olora", "corda", "lora_ga")  # those that change the frozen weights
STARTS = (*DRAWN, *FROM_WEIGHTS, *FROM_DATA)

_SPREAD = 2.0  # EVA: a site gets at most so many times its rank (PEFT's rho)
_DAMPING = 0.01  # CorDA: so much of the mean moment is added to each, so that C has an inverse
_GAMMA = 16.0  # LoRA-GA: the smaller, the larger B0 is (PEFT's stable_gamma)

Factors = tuple[np.ndarray, np.ndarray]


class Moments(NamedTuple):
    """Of what enters a layer: x over the tokens of some rows."""

    gram: np.ndarray  # mean of x x^T [in, in]
    mean: np.ndarray  # [in]


class Statistics(NamedTuple):
    """Of what enters a batch norm, channel by channel, over the positions of some pictures."""

    mean: np.ndarray  # [d]
    var: np.ndarray  # [d], unbiased


class TrainingData(Protocol):
    """What a start may ask of the rows that are to be trained on (`train/calibration.py`)."""

    @property
    def steps(self) -> int:
        """How many the run will take."""

    @property
    def ids(self) -> list[np.ndarray]:
        """The token ids of every text."""

    def moments(self, sites: Sequence[Site], unit: bool) -> Mapping[Site, Moments]:
        """Of the inputs; `unit`: with each batch divided by its largest entry, as CorDA takes them."""

    def statistics(self, sites: Sequence[Site]) -> Mapping[Site, Statistics]:
        """Of what enters batch norms, those among these sites below a batch norm having done as `adabn.Rebatched` does."""

    def gradients(self, sites: Sequence[Site]) -> Mapping[Site, np.ndarray]:
        """Of the loss in the kernels [in, out], under a fresh head."""


# -- plain starts ----------------------------------------------------------------------------------------------------------


def orthogonal(key: jax.Array, shape: tuple[int, ...], r: int) -> tuple[jax.Array, jax.Array]:
    rotation, left, right = jax.random.split(key, 3)
    q = jax.numpy.linalg.qr(jax.random.normal(rotation, (r, r)))[0]
    a, b = (
        jax.random.normal(k, (n, r // 2)) @ half for k, n, half in zip((left, right), shape, (q[0::2], q[1::2]), strict=True)
    )
    return a.T / 10.0, b.T / 10.0


def eva(moments: Mapping[Site, Moments], ranks: Mapping[Site, int]) -> dict[Site, np.ndarray]:
    """A at every site: the principal axes that explain most of their site's variance; a site may end up without any."""
    axes, shares = {}, []
    for site, (gram, mean) in moments.items():
        values, vectors = np.linalg.eigh(np.asarray(gram, np.float64) - np.outer(mean, np.asarray(mean, np.float64)))
        most = min(round(ranks[site] * _SPREAD), len(values))
        axes[site] = vectors.T[::-1][:most]
        shares += [(value / max(float(values.sum()), 1e-30), site) for value in values[::-1][:most]]
    shares.sort(key=lambda share: -share[0])
    kept = [site for _, site in shares[: sum(ranks.values())]]
    return {site: axes[site][: kept.count(site)].astype(np.float32) for site in moments}


# -- starts that change the frozen weights -----------------------------------------------------------------------------------

#: Those that follow from the weights, by the object that gives the weights: jobs of a run begin alike, and each SVD takes time.
_known: WeakKeyDictionary[Any, dict[tuple, Factors]] = WeakKeyDictionary()


def from_weights(start: str, site: Site, r: int, scale: float) -> Factors:
    """PiSSA's or OLoRA's A0 and B0 at a site."""
    known = _known.setdefault(site.weights, {})
    if (start, r, scale) not in known:
        _check(start, site, r)
        kernel = np.asarray(site.weights().kernel, np.float64)
        if start == "pissa":
            u, s, vt = np.linalg.svd(kernel, full_matrices=False)
            known[start, r, scale] = _rooted(u.T[:r], s[:r] / scale, vt[:r])
        else:
            q, rest = np.linalg.qr(kernel.T)
            known[start, r, scale] = _single(rest[:r], q.T[:r])
    return known[start, r, scale]


def corda(site: Site, moments: Moments, r: int, scale: float) -> Factors:
    _check("corda", site, r)
    moment = np.asarray(moments.gram, np.float64)
    moment = moment + _DAMPING * np.mean(np.diag(moment)) * np.eye(len(moment))
    u, s, vt = np.linalg.svd(moment @ np.asarray(site.weights().kernel, np.float64), full_matrices=False)
    return _rooted(np.linalg.solve(moment, u[:, :r]).T, s[:r] / scale, vt[:r])


def lora_ga(site: Site, gradient: np.ndarray, r: int) -> Factors:
    _check("lora_ga", site, r, 2 * r)
    u, s, vt = np.linalg.svd(np.asarray(gradient, np.float64), full_matrices=False)
    size = site.shape[1] ** 0.25 / _GAMMA**0.5
    return _single(u.T[:r], size * s[r : 2 * r, None] * vt[r : 2 * r])


def _rooted(left: np.ndarray, values: np.ndarray, right: np.ndarray) -> Factors:
    root = np.sqrt(values)[:, None]
    return _single(root * left, root * right)


def _single(a: np.ndarray, b: np.ndarray) -> Factors:
    return np.asarray(a, np.float32, order="C"), np.asarray(b, np.float32, order="C")


def _check(start: str, site: Site, r: int, wanted: int | None = None) -> None:
    if (wanted or r) > min(site.shape):
        raise GraftaxError(
            f"start {start!r} takes {wanted or r} directions of {site.path}, which has {min(site.shape)}; lower the rank {r}."
        )
