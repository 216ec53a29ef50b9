"""Adapters in repositories of the Hugging Face Hub: fetched from there, and put there with a card.

Where the Hub is and who asks is huggingface_hub's affair: `HF_ENDPOINT`, `HF_TOKEN` or what `hf auth login` has kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..adapters.directory import CONFIG, HUB_WEIGHTS, WEIGHTS
from ..errors import GraftaxError
from ..fetch import at_hugging_face, snapshot
from .card import FILE as CARD
from .describing import BESIDE, OF_ADAPTERS


def fetch_repository(hub_id: str, revision: str) -> Path:
    """The directory of an adapter's files in a repository, with its card and license; from the Hub's cache if need be.

    Raises GraftaxError where the repository cannot be reached, or is no adapter's.
    """
    directory = snapshot(hub_id, revision, (*OF_ADAPTERS, *BESIDE))
    if not (directory / CONFIG).is_file():
        raise GraftaxError(f"hf://{hub_id}: no adapter: the repository has no {CONFIG}.")
    if not any((directory / weights).is_file() for weights in (WEIGHTS, HUB_WEIGHTS)):
        raise GraftaxError(f"hf://{hub_id}: neither {WEIGHTS} nor {HUB_WEIGHTS} there; weights in a pickle are never read.")
    return directory


def put_repository(hub_id: str, revision: str, files: Mapping[str, bytes], message: str) -> str:
    """Put an adapter's files into a repository, a private one made if need be, in one commit; returns its URL.

    Files of an adapter that are there and not among these are deleted in it: a `graftax.json` of other weights would make the
    whole unreadable. Everything else stays.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    with at_hugging_face(f"hf://{hub_id}"):
        api = HfApi(library_name="graftax")
        api.create_repo(hub_id, private=True, exist_ok=True)
        there = api.list_repo_files(hub_id, revision=revision)
        added = [CommitOperationAdd(path, content) for path, content in files.items()]
        deleted = [CommitOperationDelete(path) for path in there if path in OF_ADAPTERS and path not in files]
        return str(api.create_commit(hub_id, [*added, *deleted], commit_message=message, revision=revision).commit_url)


def card_there(hub_id: str, revision: str) -> str | None:
    """The card of a repository as it is now, edited there perhaps; None where there is none."""
    from huggingface_hub import HfApi

    with at_hugging_face(f"hf://{hub_id}"):
        api = HfApi(library_name="graftax")
        if not api.file_exists(hub_id, CARD, revision=revision):
            return None
        return Path(api.hf_hub_download(hub_id, CARD, revision=revision)).read_text("utf-8")
