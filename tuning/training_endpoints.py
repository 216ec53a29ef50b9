"""What training brings to a server's endpoints: everything below the directory that `graftax serve --training` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..serve.http.further import Further
from ..serve.http.service import Service
from .tinker.tinker_api import TinkerApi


def training_endpoints(
    service: Service, directory: Path, turn: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Sequence[Further]:
    """What a server is to answer besides, if it trains.

    Args:
        service: of a decoder.
        directory: what is kept lies below it.
        turn: entered around each call of a program that trains, for who shares the device.
    """
    return [TinkerApi(service, directory / "tinker", turn)]
