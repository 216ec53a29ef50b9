"""Jobs as bytes, for a worker that has the same backbone.

A job's adapter has its leaves by site, and a site knows the backbone's frozen weights. These stay where they are: a site is
sent as its number among the backbone's, and at the other end it is the one of that number there.

The bytes are a pickle, which may run anything where it is read. A cluster's machines run what the driver sends by their
nature; no file is read so.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

from ..adapters.sites import Site
from ..train.job import Job


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, sites: Sequence[Site]):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._numbers = {site: number for number, site in enumerate(sites)}

    def persistent_id(self, value: Any) -> Any:
        return self._numbers[value] if isinstance(value, Site) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, sites: Sequence[Site]):
        super().__init__(file)
        self._sites = sites

    def persistent_load(self, number: Any) -> Site:
        return self._sites[number]


def sent(jobs: Sequence[Job], sites: Sequence[Site]) -> bytes:
    """Jobs as bytes; `sites`: the backbone's."""
    file = io.BytesIO()
    _Pickler(file, sites).dump(list(jobs))
    return file.getvalue()


def received(content: bytes, sites: Sequence[Site]) -> list[Job]:
    """The jobs that were sent; `sites`: of the same backbone here."""
    jobs: list[Job] = _Unpickler(io.BytesIO(content), sites).load()
    return jobs
