"""Writing an adapter as AdapterHub's `adapters` saves it: one directory, or a fusion's several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .... import disk
from ....errors import GraftaxError
from ....notes import note
from ....typed import Location, Name, held
from ...adapter import Adapter
from ...directory import MARKS
from ...files import adapter_for
from ...fitting import head_of, length_for
from ...methods.fusion import Fusion
from ...methods.head import Head
from .fusions import fusion_files
from .reading import head_files, known, method_files

if TYPE_CHECKING:
    from ....models.backbone import Backbone


@held
def export_adapter(
    adapter: Adapter | Location, directory: Location, backbone: Backbone, *, name: Name | None = None, overwrite: bool = False
) -> Path:
    """Write an adapter as `adapters` saves it, whole or not at all, and return its directory.

    Those files have no place for the length at which texts are cut; a note says it.

    Args:
        adapter: in memory or its directory; of methods that library has, as docs/files.md lists them.
        directory: to be made.
        backbone: BERT, RoBERTa or XLM-R.
        name: the adapter's there; default the directory's.
        overwrite: replace the directory if it exists.

    Raises:
        GraftaxError: what that library cannot say; the directory exists and `overwrite` is not given.
    """
    known(backbone)
    adapter = adapter_for(backbone, adapter, name=f"{directory}: not saved")
    directory = Path(directory)
    name = name or directory.name
    if not name or any(mark in name for mark in "./\0"):
        raise GraftaxError(
            f"{name!r} is no name there, being part of a module's path and of a file's: it has no dots or slashes."
        )
    head = head_of(adapter)
    body = [(m, adapter.states[m.key]) for m in adapter.methods if not isinstance(m, Head)]
    if len(body) == 1 and isinstance(fusion := body[0][0], Fusion):
        files, at = fusion_files(fusion, body[0][1], name, head is not None, backbone), f"{name}/"
    else:
        files, at = method_files(body, name, backbone), ""
    if head is not None:
        files |= {f"{at}{file}": content for file, content in head_files(adapter, head, name, backbone).items()}
    with disk.new_directory(directory, overwrite, MARKS) as draft:
        for file, content in files.items():
            (draft / file).parent.mkdir(exist_ok=True)
            (draft / file).write_bytes(content)
    most = backbone.config.max_tokens
    if "max_length" in adapter.recipe and (length := length_for(adapter, backbone, most)) < most:
        note(f"{directory}: no file there says that it reads {length} tokens of a text; cut them there (max_length).")
    return directory
