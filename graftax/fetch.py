"""A directory, or an id on the Hugging Face Hub, which becomes the directory of a snapshot in the local Hub cache.

`HF_HUB_OFFLINE=1` is honoured: what is in the cache is then all there is. Only the files asked for are fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import GraftaxError


def snapshot(hub_id: str, revision: str, files: Sequence[str]) -> Path:
    """The local directory of a repository on the Hub, with those of its files that match one of the patterns.

    Raises GraftaxError where there is none that can be reached or is cached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    _quieten()
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise GraftaxError(f"{hub_id}: neither a directory nor a Hub id that can be reached or is cached ({reason})") from error


@contextmanager
def at_hugging_face(where: str) -> Iterator[None]:
    """What goes wrong while something is read or changed on the Hub, as one line that begins with `where`."""
    _quieten()
    try:
        yield
    except GraftaxError:
        raise
    except Exception as error:  # of huggingface_hub and of the HTTP library beneath, which is another one with each version
        reason = str(error).strip().splitlines() or [repr(error)]
        raise GraftaxError(f"{where}: {reason[0]}") from error


def _quieten() -> None:
    """Let huggingface_hub not tell of each of its tries on stderr, unless somebody has set how much it tells."""
    if (requests := logging.getLogger("huggingface_hub.utils._http")).level == logging.NOTSET:
        requests.setLevel(logging.ERROR)
