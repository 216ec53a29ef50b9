"""/v1/load_lora_adapter and /v1/unload_lora_adapter: adapters of any method by name while the server runs, as vLLM has it.

What is loaded are directories below the folders that whoever started the server has named (`--allow-path`), and nothing that a
symlink in them leads out of these to. Without such folders neither is allowed. What is being answered goes on with the adapter
that it began with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ...errors import GraftaxError
from ...typed import shown
from .bodies import read_object
from .complaints import Refused
from .parameters import ToLoad, ToUnload, parameters_of
from .service import Service, in_thread

_INVALID, _NOT_FOUND = "InvalidUserInput", "NotFoundError"  # vLLM's words for what is wrong
_MOST_FILES = 1000  # in an adapter's directory
_LONGEST_NAME = 255  # characters


async def load_adapter(service: Service, request: Request) -> Response:
    """Give an adapter of a folder a name."""
    _refuse_unless_allowed(service)
    asked = parameters_of(ToLoad, await read_object(request, service.limits))
    if not asked.lora_name or not asked.lora_path:
        raise Refused(400, "Both 'lora_name' and 'lora_path' must be provided.", kind=_INVALID, code=400)
    if not asked.lora_name.strip() or not asked.lora_name.isprintable() or len(asked.lora_name) > _LONGEST_NAME:
        said = f"'lora_name' must be at most {_LONGEST_NAME} characters that can be seen, got {shown(asked.lora_name)}."
        raise Refused(400, said, kind=_INVALID, code=400)
    if asked.lora_name == service.name:
        said = f"The lora adapter name '{asked.lora_name}' conflicts with a served base model."
        raise Refused(400, said, kind=_INVALID, code=400)
    async with service.changing:
        if not asked.load_inplace and asked.lora_name in service.residents.registered():
            said = f"The lora adapter '{asked.lora_name}' has already been loaded. If you want to load the adapter in place, "
            raise Refused(400, f"{said}set 'load_inplace' to True.", kind=_INVALID, code=400)
        directory = await in_thread(_allowed, asked.lora_path, service.roots)
        try:
            await in_thread(service.residents.register, asked.lora_name, directory)
        except GraftaxError as error:
            raise Refused(400, str(error), kind="BadRequestError", code=400) from None
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")


async def unload_adapter(service: Service, request: Request) -> Response:
    """Take a name away."""
    _refuse_unless_allowed(service)
    asked = parameters_of(ToUnload, await read_object(request, service.limits))
    if not asked.lora_name:
        raise Refused(400, "'lora_name' needs to be provided to unload a LoRA adapter.", kind=_INVALID, code=400)
    async with service.changing:
        if asked.lora_name not in service.residents.registered():
            said = f"The lora adapter '{asked.lora_name}' cannot be found."
            raise Refused(404, said, kind=_NOT_FOUND, code=404)
        service.residents.unregister(asked.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")


def _refuse_unless_allowed(service: Service) -> None:
    if not service.roots:
        raise Refused(403, "adapters are not loaded or unloaded while this server runs; it was started without --allow-path.")


def _allowed(path: str, roots: Sequence[Path]) -> Path:
    """The directory at a path, all of which lies below one of the roots.

    Raises Refused in the same words for what lies outside and for what is not there: nobody learns what there is elsewhere.
    """
    refused = Refused(404, f"No adapter found for {path}: nothing there below --allow-path.", kind=_NOT_FOUND, code=404)
    try:
        directory = Path(os.path.realpath(path, strict=True))
        root = next((root for root in roots if directory.is_relative_to(root)), None)
        if root is None or not directory.is_dir():
            raise refused
        for count, entry in enumerate(directory.rglob("*")):
            if count == _MOST_FILES or not Path(os.path.realpath(entry, strict=True)).is_relative_to(root):
                raise refused
    except (OSError, ValueError):  # nothing there, a circle of links, a name that no disk can hold
        raise refused from None
    return directory
