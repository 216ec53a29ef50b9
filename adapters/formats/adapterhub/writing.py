"""The files of an adapter as AdapterHub's `adapters` saves it: one directory, or a fusion's several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....errors import GraftaxError
from ...adapter import Adapter
from ...fitting import head_of
from ...methods.fusion import Fusion
from ...methods.head import Head
from .fusions import fusion_files
from .reading import head_files, known, method_files

if TYPE_CHECKING:
    from ....models.backbone import Backbone


def files_of(adapter: Adapter, name: str, backbone: Backbone) -> dict[str, bytes]:
    """Contents by file within the adapter's directory; `name`: the adapter's there.

    Raises GraftaxError: a backbone or a method that library has not, a setting that it cannot say, a name that it cannot take.
    """
    known(backbone)
    if not name or any(mark in name for mark in "./\0"):
        raise GraftaxError(
            f"{name!r} is no name there, being part of a module's path and of a file's: it has no dots or slashes."
        )
    head = head_of(adapter)
    body = [(m, adapter.states[m.key]) for m in adapter.methods if not isinstance(m, Head)]
    if len(body) == 1 and isinstance(fusion := body[0][0], Fusion):
        files, beneath = fusion_files(fusion, body[0][1], name, head is not None, backbone), f"{name}/"
    else:
        files, beneath = method_files(body, name, backbone), ""
    if head is not None:
        files |= {f"{beneath}{file}": content for file, content in head_files(adapter, head, name, backbone).items()}
    return files
