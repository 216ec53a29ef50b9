"""Endpoints of what is kept: training runs, their checkpoints, and archives of these."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ...errors import GraftaxError
from ...serve.http.bodies import read_object
from ...serve.http.complaints import Refused, as_json
from ...serve.http.parameters import parameters_of
from ...serve.http.service import in_thread
from ...typed import Count, Name
from .kept_models import KINDS, Checkpoint, Kept, Where, at
from .pages import page_of
from .tickets import SECONDS
from .tinker_service import TinkerService

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OfCheckpoint:
    tinker_path: Name


@dataclass(frozen=True, kw_only=True)
class ToKeepLonger:
    ttl_seconds: Count | None = None  # None: for ever


async def weights_info(tinker: TinkerService, request: Request) -> Response:
    """What kind of model a checkpoint is of."""
    asked = parameters_of(OfCheckpoint, await read_object(request, tinker.service.limits))

    def told() -> dict[str, Any]:
        kept = tinker.kept.of_run(tenant, tinker.kept.find(tenant, asked.tinker_path).where.run)
        lora = kept.lora
        flags = {"train_unembed": lora.train_unembed, "train_mlp": lora.train_mlp, "train_attn": lora.train_attn}
        return {"base_model": kept.base_model, "is_lora": True, "lora_rank": lora.rank, **flags}

    tenant = tinker.tenant
    return as_json(await _there(told))


async def list_runs(tinker: TinkerService, request: Request) -> Response:
    """A tenant's training runs: those that are open, and those of which something is kept."""
    runs = await in_thread(_runs, tinker, tinker.tenant, _asked(tinker))
    page = page_of(request, runs, 20)
    return as_json({"training_runs": page.items, "cursor": page.cursor})


async def show_run(tinker: TinkerService, request: Request) -> Response:
    """A training run."""
    name = request.path_params["run"]
    runs = await in_thread(_runs, tinker, tinker.tenant, _asked(tinker))
    for run in runs:
        if run["training_run_id"] == name:
            return as_json(run)
    raise Refused(404, f"there is no training run {name!r}.", code="training_run_not_found")


def _asked(tinker: TinkerService) -> dict[str, tuple[Kept, float]]:
    """The models that a tenant has open, and when each was asked something last."""
    open_models = (model for session in tinker.sessions.of(tinker.tenant) for model in session.models.values())
    return {model.id: (model.kept, model.asked) for model in open_models}


def _runs(tinker: TinkerService, tenant: str | None, asked: dict[str, tuple[Kept, float]]) -> list[dict[str, Any]]:
    """All runs as they are told, the one that was asked last first. In a thread."""
    found = asked | {
        run: (kept, asked[run][1] if run in asked else kept.created) for run, kept in tinker.kept.runs(tenant).items()
    }
    told = []
    for run, (kept, when) in sorted(found.items(), key=lambda pair: -pair[1][1]):
        last: dict[str, Checkpoint] = {}
        for checkpoint in tinker.kept.list(tenant, run) if run in tinker.kept.runs(tenant) else []:
            last.setdefault(checkpoint.where.folder, checkpoint)
        told.append(
            {
                "training_run_id": run,
                "base_model": kept.base_model,
                "model_owner": "you",
                "is_lora": True,
                "corrupted": False,
                "lora_rank": kept.lora.rank,
                "last_request_time": at(when),
                "last_checkpoint": last["weights"].told if "weights" in last else None,
                "last_sampler_checkpoint": last["sampler_weights"].told if "sampler_weights" in last else None,
                "user_metadata": dict(kept.user_metadata),
            }
        )
    return told


# -- checkpoints --------------------------------------------------------------------------------------------------------------


async def list_checkpoints(tinker: TinkerService, request: Request) -> Response:
    """All checkpoints of a tenant, the newest first."""
    page = page_of(request, await in_thread(tinker.kept.list, tinker.tenant), 100)
    return as_json({"checkpoints": [checkpoint.told for checkpoint in page.items], "cursor": page.cursor})


async def list_checkpoints_of_run(tinker: TinkerService, request: Request) -> Response:
    """Those of a training run, of which there may be none yet."""
    tenant, run = tinker.tenant, request.path_params["run"]
    if run in _asked(tinker) and run not in await in_thread(tinker.kept.runs, tenant):
        return as_json({"checkpoints": []})
    return as_json({"checkpoints": [one.told for one in await _there(lambda: tinker.kept.list(tenant, run))]})


async def delete_checkpoint(tinker: TinkerService, request: Request) -> Response:
    """Remove a checkpoint. A sampler that was made of it goes on as long as its adapter is in memory."""
    checkpoint = await _of_request(tinker, request)
    await in_thread(tinker.kept.delete, checkpoint.where)
    return Response(status_code=204)


async def change_ttl(tinker: TinkerService, request: Request) -> Response:
    """Keep a checkpoint for another time, from now on."""
    asked = parameters_of(ToKeepLonger, await read_object(request, tinker.service.limits))
    checkpoint = await _of_request(tinker, request)
    await in_thread(tinker.kept.change_expiry, checkpoint, asked.ttl_seconds)
    return Response(status_code=204)


async def publish(tinker: TinkerService, request: Request) -> Response:
    """Refused: nothing is everybody's here."""
    raise Refused(403, "a checkpoint is its tenant's alone here; push its archive to a hub to share it.", code="not_supported")


async def archive(tinker: TinkerService, request: Request) -> Response:
    """Where a checkpoint's archive is: beside this."""
    checkpoint = await _of_request(tinker, request)
    where = checkpoint.where
    there = f"/api/v1/training_runs/{where.run}/checkpoints/{where.folder}/{where.name}/adapter.tar"
    expires = {} if checkpoint.expires is None else {"expires": formatdate(checkpoint.expires, usegmt=True)}
    return Response(status_code=302, headers={"location": there, **expires})


async def download(tinker: TinkerService, request: Request) -> Response:
    """A checkpoint's adapter, as a directory that PEFT reads, in a tar file."""
    checkpoint = await _of_request(tinker, request)
    data = await _there(lambda: _archived(tinker.kept.directory(checkpoint.where)))
    return Response(data, media_type="application/x-tar")


async def external_urls(tinker: TinkerService, request: Request) -> Response:
    """Where the files of a checkpoint are to be fetched, by whoever has their addresses."""
    checkpoint = await _of_request(tinker, request)
    directory = tinker.kept.directory(checkpoint.where)
    ticket = tinker.tickets.give(directory)
    names = await _there(lambda: sorted(file.name for file in directory.iterdir()))
    urls = {name: str(request.url_for("file_by_ticket", ticket=ticket, file=name)) for name in names}
    return as_json({"urls": urls, "expires": at(time.time() + SECONDS)})


async def fetch_file(tinker: TinkerService, request: Request) -> Response:
    """A file of a checkpoint, for a ticket."""
    directory, name = tinker.tickets.directory(request.path_params["ticket"]), request.path_params["file"]
    found = await in_thread(lambda: {file.name: file for file in directory.glob("*") if file.is_file()})
    if name not in found:
        raise Refused(404, f"there is no file {name!r}.", code="not_found")
    return FileResponse(found[name], media_type="application/octet-stream")


def _archived(directory: Path) -> bytes:
    """The files of a directory, as a tar file: the same bytes of the same files."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for file in sorted(directory.iterdir()):
            info = tarfile.TarInfo(file.name)
            content = file.read_bytes()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return held.getvalue()


async def _of_request(tinker: TinkerService, request: Request) -> Checkpoint:
    """The checkpoint that a path names."""
    folder, tenant = request.path_params["folder"], tinker.tenant
    if folder not in KINDS:
        raise Refused(404, f"a checkpoint is {' or '.join(KINDS)}/NAME, and {folder!r} is neither.")
    where = Where(request.path_params["run"], folder, request.path_params["name"])
    return await _there(lambda: tinker.kept.find(tenant, str(where)))


async def _there(look: Callable[[], T]) -> T:
    """What somebody looks for on the disk; Refused (404) where it is not there."""
    try:
        return await in_thread(look)
    except GraftaxError as error:
        raise Refused(404, str(error), code="checkpoint_not_found") from None
