"""Objects: bytes under keys, in a folder on a disk or in a bucket of S3, Google or Azure.

A store needs five things of the place where it lies, and no more, so that they can all be had everywhere: to read an object, to
*create* one (which fails where there is one already; of several writers exactly one succeeds), to replace one, to list keys
and to delete. An object appears whole or not at all. Everything else, such as the order in which versions were pushed, is built
from "create" alone: there is no lock and no server.

Keys are texts such as `blobs/3f/3f0a...`, of the store's own making: letters, digits, `.`, `-` and `_`, between slashes.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import disk
from ..errors import GraftaxError

_AT_ONCE = 16  # requests under way where many objects are asked for
# An endpoint without encryption is one that the user has named so. That nobody listens is said within half a minute, and that
# somebody listens and never answers within two; a large file may take its time as long as it goes on.
_CLIENT: Any = {"allow_http": True, "timeout": "1h", "read_timeout": "60s", "connect_timeout": "5s"}
_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


class Objects(ABC):
    """Bytes under keys. Every error is a GraftaxError that names the place."""

    url: str

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """What is under a key; None where there is nothing."""

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Put an object where there is none; False where there is one, which stays as it is."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Put an object, in place of what is there."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """The bytes of an object; None where there is none."""

    @abstractmethod
    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Of every object whose key begins with `folder/` its key and its bytes, in no order."""

    @abstractmethod
    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """`get` of each key, in their order."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether nothing at all is in the place; what is no object of ours counts too, but no draft of one."""


class LocalObjects(Objects):
    """Files in a folder, which is made when the first is written."""

    def __init__(self, folder: Path):
        self._folder, self.url = folder.absolute(), str(folder)

    def get(self, key: str) -> bytes | None:
        try:
            return (self._folder / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise GraftaxError(f"{self._folder / key}: cannot be read ({error.strerror}).") from error

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        return map(self.get, keys)

    def create(self, key: str, content: bytes) -> bool:
        return disk.create_bytes(self._folder / key, content)

    def put(self, key: str, content: bytes) -> None:
        disk.write_bytes(self._folder / key, content)

    def size(self, key: str) -> int | None:
        try:
            return (self._folder / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise GraftaxError(f"{self._folder / key}: cannot be read ({error.strerror}).") from error

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        for path in self._files(self._folder / folder):
            if (size := self.size(key := path.relative_to(self._folder).as_posix())) is not None:  # else just deleted
                yield key, size

    def _files(self, folder: Path) -> Iterator[Path]:
        """The files in a folder and those below, without drafts, which are no objects yet."""
        for where, folders, names in os.walk(folder, onerror=_refuse_unreadable):
            folders[:] = [one for one in folders if not disk.is_draft(one)]
            yield from (Path(where, name) for name in names)

    def delete(self, keys: Iterable[str]) -> None:
        with disk.writing(self._folder):
            for key in keys:
                (self._folder / key).unlink(missing_ok=True)

    def is_empty(self) -> bool:
        return not any(self._files(self._folder))


class RemoteObjects(Objects):
    """Objects in a bucket, through obstore; credentials and endpoints come from the environment (`AWS_ENDPOINT_URL`, ...)."""

    def __init__(self, url: str):
        _expect_bucket(url)
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise GraftaxError(f"{url}: hubs in object stores need obstore: pip install 'graftax[hub]'.") from error
        with _in_one_line(url):
            self._place, self.url = from_url(url, client_options=_CLIENT, retry_config=_RETRIES), url

    def get(self, key: str) -> bytes | None:
        import obstore

        with _in_one_line(self.url):
            try:
                return bytes(obstore.get(self._place, key).bytes())
            except FileNotFoundError:
                return None

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self.get, keys)

    def create(self, key: str, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with _in_one_line(self.url):
            try:
                obstore.put(self._place, key, content, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def put(self, key: str, content: bytes) -> None:
        import obstore

        with _in_one_line(self.url):
            obstore.put(self._place, key, content)

    def size(self, key: str) -> int | None:
        import obstore

        with _in_one_line(self.url):
            try:
                return obstore.head(self._place, key)["size"]
            except FileNotFoundError:
                return None

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        import obstore

        with _in_one_line(self.url):
            for some in obstore.list(self._place, folder):
                yield from ((one["path"], one["size"]) for one in some)

    def delete(self, keys: Iterable[str]) -> None:
        import obstore

        with _in_one_line(self.url):
            obstore.delete(self._place, list(keys))

    def is_empty(self) -> bool:
        import obstore

        with _in_one_line(self.url):
            return not any(obstore.list(self._place, chunk_size=1))


def _refuse_unreadable(error: OSError) -> None:
    """What `os.walk` is to do where it cannot look: a folder that is gone has nothing in it."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise GraftaxError(f"{error.filename}: cannot be read ({error.strerror}).") from error


# By the scheme of a URL what tells a store who asks.
_AMAZON = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION or AWS_ENDPOINT_URL"
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS, the path of a key's file"
_AZURE = "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
_VARIABLES = {
    **dict.fromkeys(("s3", "s3a"), _AMAZON),
    "gs": _GOOGLE,
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss"), _AZURE),
}

# What obstore's errors of all kinds say, for which it has no class; the first that is found is meant.
_NO_CREDENTIALS = "no credentials are set ({variables}). "
_MEANT = {
    "169.254.169.254": _NO_CREDENTIALS,  # where a machine in a cloud asks who it is, which is tried last
    "metadata.google.internal": _NO_CREDENTIALS,
    "Account must be specified": _NO_CREDENTIALS,
    "403 Forbidden": "these credentials may not do that. ",
    "NoSuchBucket": "there is no such bucket; make it first. ",
    "error sending request": "the store cannot be reached. ",
}


def _expect_bucket(url: str) -> None:
    """An error unless a URL names a bucket of a kind that is known."""
    parts = urlsplit(url)
    if parts.scheme not in _VARIABLES or not parts.netloc:
        missing = "names no bucket" if parts.scheme in _VARIABLES else "no hub can be there"
        known = "a folder, s3://bucket/hub, gs://bucket/hub, az://container/hub, hf://user/hub"
        raise GraftaxError(f"{url}: {missing}; a hub is in one of these: {known}.")


@contextmanager
def _in_one_line(url: str) -> Iterator[None]:
    """What goes wrong at a place, as one line that names it."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        meant = next((meaning for words, meaning in _MEANT.items() if words in str(error)), "")
        meant = meant.format(variables=_VARIABLES[urlsplit(url).scheme])
        raise GraftaxError(f"{url}: {meant}{_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The first line of an error; obstore's go on with Rust's own view of it."""
    return str(error).strip().splitlines()[0]
