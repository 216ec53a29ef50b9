"""/v1/files: rows are uploaded, listed, looked at, read again and deleted.

A body of several parts (multipart/form-data) is read as it comes, and lies on the disk from its first megabyte on: of a file of
half a gigabyte no more is in memory. Of one that is too large no more is read than shows that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from ...disk import DiskFull
from ...errors import GraftaxError
from ...serve.http.complaints import Gone, Refused, as_json
from ...serve.http.service import in_thread
from ...typed import shown
from ..jobs.job_table import UploadedFile
from ..jobs.uploads import PURPOSE, NoRoom, NoSuchFile, StillNeeded
from .job_objects import file_object
from .job_service import JobService, tenant
from .result_pages import behind, limit_of, page_of

_MOST_LISTED = 10_000
_MOST_FIELDS, _LONGEST_FIELD = 16, 1 << 12  # beside the file; bytes
_AROUND = 1 << 16  # bytes of a body that are not the file's
_LONGEST_NAME = 255
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_FIELDS = ("file", "purpose", _ANCHOR, _SECONDS)
_SHORTEST, _LONGEST = 3600, 2_592_000  # seconds: an hour, thirty days

#: What a form holds, as JSON schema.
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "purpose": {"const": PURPOSE},
        _ANCHOR: {"const": "created_at"},
        _SECONDS: {"type": "integer", "minimum": _SHORTEST, "maximum": _LONGEST},
    },
    "required": ["file", "purpose"],
    "additionalProperties": False,
}


async def upload(jobs: JobService, request: Request) -> Response:
    """Keep a file."""
    async with _form(jobs, request) as form:
        if unknown := [name for name in form if name not in _FIELDS]:
            raise Refused(400, f"no such field: {unknown[0]}; there are {', '.join(_FIELDS)}.", param=unknown[0])
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise Refused(400, "file is missing: the content of a file, as a part that has a filename.", param="file")
        if not isinstance(purpose, str):
            raise Refused(400, "purpose is missing.", param="purpose")
        if file.size is not None and file.size > jobs.max_upload:
            raise _too_large(jobs)
        options: dict[str, Any] = {"name": _name(file), "purpose": purpose, "tenant": tenant(), "seconds": _seconds(form)}
        try:
            kept = await in_thread(lambda: jobs.uploads.keep(file.file, **options))
        except DiskFull:
            raise
        except NoRoom as error:
            raise Refused(413, str(error), param="file", code="storage_quota_exceeded") from None
        except GraftaxError as error:
            raise Refused(400, str(error), param="file", code="invalid_file_format") from None
    return as_json(file_object(kept))


async def list_files(jobs: JobService, request: Request) -> Response:
    """Whoever asks is told of his files."""
    asked = request.query_params
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Refused(400, f"order must be asc or desc, got {shown(order)}.", param="order")
    files = await in_thread(jobs.uploads.listed, tenant())
    objects = [file_object(file) for file in files if asked.get("purpose") in (None, file.purpose)]
    limit = limit_of(request, _MOST_LISTED, _MOST_LISTED)
    there = behind(objects if order == "desc" else objects[::-1], asked.get("after"))
    return as_json(page_of(there, limit))


async def show_file(jobs: JobService, request: Request) -> Response:
    """What is known of a file."""
    return as_json(file_object(await _file(jobs, request)))


async def file_content(jobs: JobService, request: Request) -> Response:
    """The file as it was uploaded."""
    file = await _file(jobs, request)
    path = jobs.uploads.path(file.id)
    if not path.is_file():
        raise Refused(404, f"{file.name} ({file.id}) is gone from the server's disk.", param="file_id")
    return FileResponse(path, media_type="application/octet-stream", filename=file.name)


async def delete_file(jobs: JobService, request: Request) -> Response:
    """Delete a file, unless a job needs it."""
    file = await _file(jobs, request)
    try:
        await in_thread(jobs.uploads.remove, file)
    except StillNeeded as error:  # in vain to try again at once, as clients do by themselves
        headers = {"x-should-retry": "false"}
        raise Refused(409, str(error), param="file_id", code="file_in_use", headers=headers) from None
    return as_json({"id": file.id, "object": "file", "deleted": True})


async def _file(jobs: JobService, request: Request) -> UploadedFile:
    """The file of whoever asks that the address names."""
    try:
        return await in_thread(jobs.uploads.file, request.path_params["file"], tenant())
    except NoSuchFile as error:
        raise Refused(404, str(error), param="file_id") from None


@asynccontextmanager
async def _form(jobs: JobService, request: Request) -> AsyncGenerator[FormData, None]:
    """The parts of a body; Refused where it has none, is too large or does not come."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused(400, "a file is uploaded as multipart/form-data, with the parts file and purpose.")
    options = {"max_files": 1, "max_fields": _MOST_FIELDS, "max_part_size": _LONGEST_FIELD}
    try:
        form = await MultiPartParser(request.headers, _pieces(jobs, request), **options).parse()
    except MultiPartException as error:
        raise Refused(400, f"the body cannot be read: {error.message}") from None
    except ClientDisconnect:
        raise Gone from None
    try:
        yield form
    finally:
        await form.close()


async def _pieces(jobs: JobService, request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it comes, each piece within the time that clients have."""
    size, patience, stream = 0, jobs.service.limits.patience, request.stream()
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > jobs.max_upload + _AROUND:
        raise _too_large(jobs)
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, None), patience)
        except TimeoutError:
            raise Refused(408, f"nothing of the body came within {patience:g} s.") from None
        if piece is None:
            return
        size += len(piece)
        if size > jobs.max_upload + _AROUND:
            raise _too_large(jobs)
        yield piece


def _too_large(jobs: JobService) -> Refused:
    return Refused(
        413, f"the file has more than the {jobs.max_upload:,} bytes that this server takes (--max-upload).", param="file"
    )


def _name(file: UploadFile) -> str:
    """What a file is called: the last part of what the client says."""
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        said = f"the file's name must be at most {_LONGEST_NAME} characters that can be seen, got {shown(file.filename)}."
        raise Refused(400, said, param="file")
    return name


def _seconds(form: FormData) -> int | None:
    """After how many seconds a file is to be removed."""
    anchor, seconds = form.get(_ANCHOR), form.get(_SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise Refused(400, 'expires_after: its anchor must be "created_at".', param="expires_after")
    if not (isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal() and len(seconds) < 10):
        raise Refused(400, "expires_after: seconds must be a whole number.", param="expires_after")
    if not _SHORTEST <= int(seconds) <= _LONGEST:
        raise Refused(400, f"expires_after: seconds must be from {_SHORTEST:,} to {_LONGEST:,}.", param="expires_after")
    return int(seconds)
