"""The public `tinker` client against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tinker
from http_servers import Served, served
from tinker import types

from graftax.models.backbone import Backbone
from graftax.tuning.jobs.job_table import JobTable
from graftax.tuning.jobs.training_quotas import TrainingQuotas
from graftax.tuning.tinker.accounts import Accounts
from graftax.tuning.tinker.tinker_api import TinkerApi


@contextmanager
def training_server(backbone: Backbone, directory: Path, **options: Any) -> Iterator[tuple[Served, TinkerApi]]:
    """A server with Tinker's API while the block runs; options are those of `served`."""
    made: list[TinkerApi] = []

    def further(service: Any) -> Sequence[TinkerApi]:
        directory.mkdir(parents=True, exist_ok=True)
        table = JobTable(directory / "jobs.sqlite")
        made.append(TinkerApi(service, directory / "tinker", Accounts(table, TrainingQuotas(options.get("keys", ()), table))))
        return made

    with served(backbone, further=further, **options) as there:
        yield there, made[0]


def client_of(server: Served, key: str = "tml-none") -> tinker.ServiceClient:
    return tinker.ServiceClient(base_url=server.url, api_key=key)


def datum(tokens: Sequence[int], **arrays: Any) -> types.Datum:
    """A text whose every token but the first is learnt; arrays go before those that follow from it."""
    given = {"target_tokens": np.asarray(tokens[1:], np.int64), "weights": np.ones(len(tokens) - 1, np.float32)}
    return types.Datum(model_input=types.ModelInput.from_ints(list(tokens[:-1])), loss_fn_inputs=given | arrays)


def prompt(tokens: Sequence[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(list(tokens))
