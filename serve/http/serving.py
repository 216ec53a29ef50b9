"""A service made of a backbone, and run by uvicorn until it is told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...models.tokens import Tokenizer
from ...signals import STOPPING
from ...store.store import Store
from ..engine import Engine
from ..generator import Generator
from ..on_hub import OnHub
from ..predictor import Predictor
from ..residents import Residents
from ..warm_up import WarmUp
from .connections import Connection
from .limits import Limits
from .rounds import Around, Rounds, at_once
from .service import Service, Telling
from .tls import Certificate

_KINDS = ("text", "image")  # of input that are asked about
_MOST_CALLERS = 2048  # that wait for being accepted


def make_service(
    backbone: Backbone,
    *,
    store: Store | None = None,
    telling: Telling | None = None,
    lanes: int = 16,
    slots: int = 16,
    limits: Limits = Limits(),
    roots: Sequence[Path] = (),
    chat_template: str | None = None,
    warm_up: Callable[[str], None] | None = None,
    around: Around = at_once,
) -> Service:
    """What the endpoints share.

    Args:
        backbone: of texts; a language model writes, any but an encoder-decoder answers and makes vectors. Or of pictures, about
            which heads answer.
        store: the hub whose names are known.
        telling: what people are told of its adapters and of others, on the page.
        lanes: texts that are written at once.
        slots: adapters that are on the device at once.
        limits: how much may be asked.
        roots: folders from which adapters may be loaded while the server runs.
        chat_template: as of `Generator`.
        warm_up: is told how programs are compiled before they are asked for; None: they are compiled when they are.
        around: what each of the engine's rounds is done in (`Rounds`), for who shares the device with others.
    """
    kind = backbone.family.processor.kind
    if kind not in _KINDS:
        raise GraftaxError(f"{backbone.name} reads input of kind {kind!r}, and the server {' and '.join(_KINDS)}.")
    hub = None if store is None else OnHub(store, backbone)
    residents = Residents(backbone, slots=slots, source=hub, max_lora_rank=limits.max_lora_rank)
    engine = Engine(backbone, residents, most_lanes=lanes)
    generator = None
    if backbone.generates:
        generator = Generator(backbone, residents=residents, engine=engine, chat_template=chat_template)
    return Service(
        name=called(backbone.name),
        backbone=backbone,
        tokenizer=Tokenizer.of(backbone) if kind == "text" else None,
        residents=residents,
        engine=engine,
        rounds=Rounds(engine, around),
        predictor=Predictor(backbone, residents=residents, engine=engine),
        generator=generator,
        store=store,
        hub=hub,
        telling=telling,
        limits=limits,
        warm_up=None if warm_up is None else WarmUp(engine, warm_up),
        slots=slots,
        roots=tuple(root.resolve(strict=True) for root in roots),
    )


def called(backbone: str) -> str:
    """What a request names the base by: the last part of its directory, its GGUF file's name, or its Hub id."""
    there = Path(backbone)
    return there.resolve().name if there.is_dir() else there.stem if there.is_file() else backbone


def address_of(host: str, port: int, certificate: Certificate | None) -> str:
    """The URL of a server that listens there."""
    return f"{'http' if certificate is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address; of port 0 whichever is free. GraftaxError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        there = socket.socket(family, kind, protocol)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        there.bind(address)
        there.listen(_MOST_CALLERS)  # who calls before the app has begun waits
    except (OSError, OverflowError) as error:
        raise GraftaxError(f"{host}:{port}: cannot be listened at ({error}).") from error
    return there


def server_of(app: ASGIApp, limits: Limits, certificate: Certificate | None = None) -> uvicorn.Server:
    """A server that, when it is told to end, takes no more requests and finishes those that it began.

    `certificate`: for TLS; None: without.
    """
    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False, "lifespan": "on"}
    options |= {"http": Connection, "ws": "none"}
    if certificate is not None:
        options |= {"ssl_certfile": certificate.file, "ssl_keyfile": certificate.key}
    options |= {"timeout_keep_alive": ceil(limits.patience), "timeout_graceful_shutdown": ceil(limits.timeout)}
    return uvicorn.Server(uvicorn.Config(app, **options))


def run(app: ASGIApp, there: socket.socket, limits: Limits, certificate: Certificate | None) -> None:
    """Serve until Ctrl-C or SIGTERM; a second one ends it at once."""
    server = server_of(app, limits, certificate)
    for number in STOPPING:  # until uvicorn hears them; what it has heard it hands on when it has ended, and that is no error
        signal.signal(number, partial(_end, server))
    server.run(sockets=[there])


def _end(server: uvicorn.Server, *_: object) -> None:
    server.should_exit = True
