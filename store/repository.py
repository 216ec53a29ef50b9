"""Objects in a repository of the Hugging Face Hub: `hf://user/hub`, or `hf://datasets/user/hub`.

Every change is a commit. "Create" is one whose parent must still be the last commit when it arrives (`parent_commit`): who was
slower is refused by the Hub, looks whether the object is there by now, and if not tries again. A commit takes a second or two,
so that this is a place for what is shared, and not for what is pushed a thousand times an hour.

Where the Hub is and who asks is huggingface_hub's affair: `HF_ENDPOINT`, `HF_TOKEN` or what `hf auth login` has kept.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GraftaxError
from ..fetch import at_hugging_face
from .objects import Objects

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

_URL = re.compile(r"hf://(?:(?P<kind>datasets|models)/)?(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)/?")
_KINDS = {None: "model", "models": "model", "datasets": "dataset"}
_OF_THE_HUB = (".gitattributes", "README.md")  # files that a repository has by itself
_AT_ONCE = 8  # requests under way where many objects are asked for
_IN_A_COMMIT = 500  # files that are deleted at once
_TRIES, _PAUSE = 20, 1.0  # of a commit that others are quicker than; seconds between two, at most
_MOVED_ON = (409, 412)  # HTTP's conflict, and precondition failed: the parent is not the last commit any more


class RepositoryObjects(Objects):
    """Files in a repository, which is made, for nobody else to see, when the first is written."""

    def __init__(self, url: str):
        from huggingface_hub import HfApi

        if not (match := _URL.fullmatch(url)):
            raise GraftaxError(f"{url}: a hub on the Hugging Face Hub is named hf://user/name or hf://datasets/user/name.")
        self.url, self._name, self._kind = url, match["name"], _KINDS[match["kind"]]
        self._api = HfApi(library_name="graftax")
        self._reached = False  # yet

    def get(self, key: str) -> bytes | None:
        from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

        with at_hugging_face(self.url):
            try:
                return Path(self._api.hf_hub_download(self._name, key, repo_type=self._kind)).read_bytes()
            except (RemoteEntryNotFoundError, RepositoryNotFoundError):  # not where the Hub cannot be reached
                return None

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self.get, keys)

    def create(self, key: str, content: bytes) -> bool:
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        for _ in range(_TRIES):
            with at_hugging_face(self.url):
                parent = self._last_commit()
                if self._api.get_paths_info(self._name, [key], revision=parent, repo_type=self._kind):
                    return False
                try:
                    self._commit([CommitOperationAdd(key, content)], parent)
                    return True
                except HfHubHTTPError as error:
                    if error.response is None or error.response.status_code not in _MOVED_ON:
                        raise
            time.sleep(random.uniform(0, _PAUSE))
        raise GraftaxError(f"{self.url}: {_TRIES} times others were quicker; try again when less is pushed there.")

    def put(self, key: str, content: bytes) -> None:
        from huggingface_hub import CommitOperationAdd

        with at_hugging_face(self.url):
            self._last_commit()
            self._commit([CommitOperationAdd(key, content)], None)

    def size(self, key: str) -> int | None:
        from huggingface_hub.errors import RepositoryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        with at_hugging_face(self.url):
            try:
                found = self._api.get_paths_info(self._name, [key], repo_type=self._kind)
            except RepositoryNotFoundError:
                return None
            return next((one.size for one in found if isinstance(one, RepoFile)), None)

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        with at_hugging_face(self.url):
            try:
                self._expect_reachable()
                listed = list(self._api.list_repo_tree(self._name, folder or None, recursive=True, repo_type=self._kind))
            except (EntryNotFoundError, RepositoryNotFoundError):
                return
        yield from ((one.path, one.size) for one in listed if isinstance(one, RepoFile))

    def after(self, folder: str, key: str) -> Iterator[tuple[str, str | None]]:
        yield from ((there, None) for there in sorted(there for there, _ in self.sizes(folder) if there > key))

    def delete(self, keys: Iterable[str]) -> None:
        from huggingface_hub import CommitOperationDelete

        keys = list(keys)
        with at_hugging_face(self.url):
            for some in (keys[i : i + _IN_A_COMMIT] for i in range(0, len(keys), _IN_A_COMMIT)):
                there = self._api.get_paths_info(self._name, some, repo_type=self._kind)
                if there:
                    self._commit([CommitOperationDelete(one.path) for one in there], None)

    def is_empty(self) -> bool:
        return all(key in _OF_THE_HUB for key, _ in self.sizes(""))

    def _expect_reachable(self) -> None:
        """An error at once where there is no network; listing, with which all begins, is tried for half a minute."""
        if not self._reached:
            self._api.repo_info(self._name, repo_type=self._kind)
            self._reached = True

    def _last_commit(self) -> str | None:
        """What the repository is at, which is made where there is none."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return self._api.repo_info(self._name, repo_type=self._kind).sha
        except RepositoryNotFoundError:
            self._api.create_repo(self._name, repo_type=self._kind, private=True, exist_ok=True)
            return self._api.repo_info(self._name, repo_type=self._kind).sha

    def _commit(self, operations: list[CommitOperationAdd] | list[CommitOperationDelete], parent: str | None) -> None:
        what = f"graftax hub: {operations[0].path_in_repo}" + (f" and {len(operations) - 1} more" if operations[1:] else "")
        self._api.create_commit(self._name, operations, commit_message=what, repo_type=self._kind, parent_commit=parent)
