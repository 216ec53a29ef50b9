"""`graftax serve`: adapters asked over HTTP, by OpenAI's API."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import GraftaxError
from ..serve.http.limits import Limits
from ..tuning.training_settings import TrainingSettings
from .arguments import chat_template_of, parse_adapters
from .dataclass_options import OptionPerField, options_from_fields
from .options import AnyBackboneOption, BackboneOption, ChatTemplateOption, LoadingOptions, OptionalAdaptersOption
from .serve_on_ray import OnRay, refuse_without_ray, replicated, serve_replicas
from .served_backbone import ServedBackbone, say

if TYPE_CHECKING:
    from ..serve.http.further import Further
    from ..train.shelf import Shelf


@options_from_fields
def serve(
    context: typer.Context,
    backbone: BackboneOption,
    adapter: OptionalAdaptersOption = None,
    *,
    hub: Annotated[
        Optional[str], typer.Option(metavar="URL", help="A hub, whose names are known. Default: $GRAFTAX_HUB, else none.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0: to everybody who can reach this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    lanes: Annotated[int, typer.Option(min=1, max=64, help="Texts that are written at once.")] = 16,
    slots: Annotated[int, typer.Option(min=1, max=4096, help="Adapters that are on the device at once.")] = 16,
    api_key_file: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="A line for each key that may ask: its sha256, and admin if it may load."),
    ] = None,
    ssl_certfile: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="A certificate in PEM's form: then the server speaks TLS.")
    ] = None,
    ssl_keyfile: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Its key, without a password. Default: in the same file.")
    ] = None,
    otlp_traces_endpoint: Annotated[
        Optional[str], typer.Option(metavar="URL", help="Where a span of each request is told to, by OTLP over HTTP.")
    ] = None,
    allowed_origins: Annotated[
        Optional[list[str]],
        typer.Option(metavar="ORIGIN", help="Whose pages may ask, such as https://chat.example.org; once for each. *: any."),
    ] = None,
    allow_path: Annotated[
        Optional[list[Path]],
        typer.Option(metavar="DIR", help="Folder from which adapters may be loaded while it runs; once for each."),
    ] = None,
    training: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR", help="Train as well: jobs by OpenAI's API, loops by Tinker's. What is kept lies in this folder."
        ),
    ] = None,
    training_settings: Annotated[TrainingSettings, OptionPerField("Training")],
    limits: Annotated[Limits, OptionPerField("Limits")],
    on_ray: Annotated[OnRay, OptionPerField("Replicas, on a Ray cluster")],
    warm_up: Annotated[
        bool, typer.Option(help="Compile all programs at start, so that no request waits for one; /ready says how far it is.")
    ] = True,
    chat_template: ChatTemplateOption = None,
    any_backbone: AnyBackboneOption = False,
    loading: LoadingOptions,
) -> None:
    """Serve a backbone and its adapters by OpenAI's API; the model of a request is the base, an adapter, a name on the hub.

    graftax serve -b stories260K -a sea=adapters/sea --port 8000
    """
    try:
        from ..serve.http.app import make_app
        from ..serve.http.keys import read_keys
        from ..serve.http.origins import origins_of
        from ..serve.http.rounds import at_once
        from ..serve.http.serving import address_of, listening, run
        from ..serve.http.tls import certificate_of
        from ..serve.http.traces import Traced, tracer_to
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn", "anyio", "markdown_it"):
            raise
        raise GraftaxError(f"graftax serve needs {missing}: pip install 'graftax[serve]'.") from None
    from ..tuning.device_time import DeviceTime
    from ..tuning.training_endpoints import training_endpoints

    keys = () if api_key_file is None else read_keys(api_key_file)
    certificate = certificate_of(ssl_certfile, ssl_keyfile)
    origins = origins_of(allowed_origins or [])
    tracer = None if otlp_traces_endpoint is None else tracer_to(otlp_traces_endpoint)
    url = hub or os.environ.get("GRAFTAX_HUB")
    served = ServedBackbone(
        backbone,
        asdict(loading),
        tuple(parse_adapters(adapter or [])),
        any_backbone,
        url,
        lanes,
        slots,
        limits,
        tuple(_folder(path) for path in allow_path or []),
        chat_template_of(chat_template),
        warm_up,
    )
    if on_ray.ray is not None:
        refused = {
            "--training": training is not None,
            "--otlp-traces-endpoint": tracer is not None,
            "--allow-path": bool(allow_path),
            "--port 0": port == 0,
        }
        server = replicated(served, on_ray, keys, origins, refused)
        if context.obj is None:
            serve_replicas(server, on_ray.ray, host, port, certificate)
        else:  # Ray Serve asks what it is to begin (`ray_service.py`)
            context.obj(server)
        return
    refuse_without_ray(context)
    with listening(host, port) as there:
        device = DeviceTime(training_settings.training_share)
        service = served.service(at_once if training is None else device.round)
        host, number = there.getsockname()[:2]
        where = address_of(host, number, certificate)
        further: Sequence[Further] = []
        if training is not None:
            shelf = _shelf(url, training_settings.training_push)
            further = training_endpoints(service, training, device, keys, training_settings, shelf)
        app = make_app(service, keys, origins, further)
        say(f"{service.name} at {where}/ (a page to look at) and {where}/v1")
        run(app if tracer is None else Traced(app, tracer), there, limits, certificate)


def _shelf(url: str | None, prefix: str | None) -> Shelf | None:
    """Where what jobs have made is put; None: nowhere."""
    if prefix is None:
        return None
    if url is None:
        raise GraftaxError(f"--training-push {prefix}: there is no hub to push to; name it with --hub.")
    from ..hub.hub import Hub

    return Hub(url).under(prefix)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise GraftaxError(f"--allow-path {path}: no such folder.")
    return path
