"""Objects: bytes under keys, in a folder on a disk or in a bucket of S3, Google or Azure.

A store needs five things of the place where it lies, and no more, so that they can all be had everywhere: to read an object, to
*create* one (which fails where there is one already; of several writers exactly one succeeds), to replace one, to list keys
and to delete. An object appears whole or not at all. Everything else, such as the order in which versions were pushed, is built
from "create" alone: there is no lock and no server.

Keys are texts such as `blobs/3f/3f0a...`, of the store's own making: letters, digits, `.`, `-` and `_`, between slashes.
"""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import disk
from ..errors import GraftaxError

_CHUNK = 1 << 16  # bytes of a large object that are in memory at once: few enough for memory that is there already
_SETTLED = 3 * 10**9  # nanoseconds; no disk's clock ticks in steps of more than two seconds
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

    def download(self, key: str, file: Path) -> str | None:
        """Write what is under a key into a file, and return its sha256; None where there is nothing."""
        content = self.get(key)
        return None if content is None else _write(file, [content])

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Put an object where there is none; False where there is one, which stays as it is."""

    def begin(self) -> None:
        """Make the place itself; most are there, or are made by what is put there."""
        return

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Put an object, in place of what is there."""

    def upload(self, key: str, file: Path) -> None:
        """Put what is in a file, in place of what is there."""
        self.put(key, file.read_bytes())

    @abstractmethod
    def size(self, key: str) -> int | None:
        """The bytes of an object; None where there is none."""

    @abstractmethod
    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Of every object whose key begins with `folder/` its key and its bytes, in no order."""

    @abstractmethod
    def after(self, folder: str, key: str) -> Iterator[tuple[str, str | None]]:
        """The keys that begin with `folder/` and come behind a key, in order, each with the stamp of what is there (see
        `get_stamped`): whoever takes the first waits for few."""

    def get_stamped(self, key: str) -> tuple[bytes | None, str | None]:
        """`get`, and with it a text that no other content under this key has, by which it is known again without being
        read; None where the place has no such stamps, or where to read is as cheap."""
        return self.get(key), None

    @abstractmethod
    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """`get` of each key, in their order."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""

    def sweep(self) -> None:
        """Delete what writers that are no more had not finished; few places ever hold such a thing."""
        return

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether nothing at all is in the place; what is no object of ours counts too, but no draft of one."""


class LocalObjects(Objects):
    """Files in a folder. It is made by `begin` alone: one that was moved away is not made anew by who writes into it."""

    def __init__(self, folder: Path):
        self._folder, self.url = folder.absolute(), str(folder)
        self._listed: dict[str, tuple[tuple[int, int, int], list[str]]] = {}  # by folder: what tells it is the same, its names

    def get(self, key: str) -> bytes | None:
        try:
            return (self._folder / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise GraftaxError(f"{self._folder / key}: cannot be read ({error.strerror}).") from error

    def download(self, key: str, file: Path) -> str | None:
        try:
            source = (self._folder / key).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise GraftaxError(f"{self._folder / key}: cannot be read ({error.strerror}).") from error
        with source:
            return _write(file, iter(partial(source.read, _CHUNK), b""))

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        return map(self.get, keys)

    def begin(self) -> None:
        disk.make_directory(self._folder)

    def create(self, key: str, content: bytes) -> bool:
        self._refuse_gone()
        created = disk.create_bytes(self._folder / key, content)
        if not created:  # it should have been in a listing
            self._listed.clear()
        return created

    def put(self, key: str, content: bytes) -> None:
        self._refuse_gone()
        disk.write_bytes(self._folder / key, content)

    def upload(self, key: str, file: Path) -> None:
        self._refuse_gone()
        disk.copy_file(file, self._folder / key)

    def _refuse_gone(self) -> None:
        if not self._folder.is_dir():
            raise GraftaxError(f"{self.url}: the folder is there no more; nothing was put there. Was it moved or removed?")

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

    def after(self, folder: str, key: str) -> Iterator[tuple[str, str | None]]:
        try:
            names = self._names(folder)
        except OSError as error:
            _refuse_unreadable(error)
            return
        rest = key.removeprefix(f"{folder}/") if key > folder else ""  # what comes before it is looked at no further
        for name in sorted([name for name in names if name >= rest[: len(name)]]):
            path = f"{folder}/{name}"
            if not os.path.isdir(f"{self._folder}/{path}"):
                yield from [(path, None)] if path > key else []
            elif not disk.is_draft(name):
                yield from self.after(path, key)

    def _names(self, folder: str) -> list[str]:
        """What is in a folder, which is listed again only where it may have changed since.

        Its time is that of its last change. Two changes within one tick of the disk's clock have the same; so what is listed
        soon after one does not count again.
        """
        there = os.stat(f"{self._folder}/{folder}")
        same = there.st_dev, there.st_ino, there.st_mtime_ns
        known = self._listed.get(folder)
        if known is not None and known[0] == same:
            return known[1]
        names = os.listdir(f"{self._folder}/{folder}")
        if time.time_ns() - there.st_mtime_ns > _SETTLED:
            self._listed[folder] = same, names
        return names

    def _files(self, folder: Path) -> Iterator[Path]:
        """The files in a folder and those below, without drafts, which are no objects yet."""
        for where, folders, names in os.walk(folder, onerror=_refuse_unreadable):
            folders[:] = [one for one in folders if not disk.is_draft(one)]
            yield from (Path(where, name) for name in names)

    def delete(self, keys: Iterable[str]) -> None:
        with disk.writing(self._folder):
            for key in keys:
                (self._folder / key).unlink(missing_ok=True)

    def sweep(self) -> None:
        for where, folders, _ in os.walk(self._folder, onerror=_refuse_unreadable):
            disk.sweep(Path(where))
            folders[:] = [one for one in folders if not disk.is_draft(one)]

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
        self._pool = ThreadPoolExecutor(_AT_ONCE)  # whose threads begin when they are needed

    def get(self, key: str) -> bytes | None:
        return self.get_stamped(key)[0]

    def get_stamped(self, key: str) -> tuple[bytes | None, str | None]:
        import obstore

        with _in_one_line(self.url):
            try:
                found = obstore.get(self._place, key)
                return bytes(found.bytes()), found.meta["e_tag"]
            except FileNotFoundError:
                return None, None

    def download(self, key: str, file: Path) -> str | None:
        import obstore

        with _in_one_line(self.url):
            try:
                return _write(file, map(bytes, obstore.get(self._place, key).stream(_CHUNK)))
            except FileNotFoundError:
                return None

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        return self._pool.map(self.get, keys)

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

    def upload(self, key: str, file: Path) -> None:
        import obstore

        with _in_one_line(self.url):
            obstore.put(self._place, key, file)

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

    def after(self, folder: str, key: str) -> Iterator[tuple[str, str | None]]:
        import obstore

        with _in_one_line(self.url):
            for some in obstore.list(self._place, folder, offset=key):
                yield from ((one["path"], one["e_tag"]) for one in some)

    def delete(self, keys: Iterable[str]) -> None:
        import obstore

        with _in_one_line(self.url):
            obstore.delete(self._place, list(keys))

    def is_empty(self) -> bool:
        import obstore

        with _in_one_line(self.url):
            return not any(obstore.list(self._place, chunk_size=1))


def _write(file: Path, chunks: Iterable[bytes]) -> str:
    """Write a file piece by piece, of which few are in memory at once; returns its sha256."""
    digest = hashlib.sha256()
    with file.open("wb") as target:
        for chunk in chunks:
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _refuse_unreadable(error: OSError) -> None:
    """What is to be done where nobody can look: a folder that is gone has nothing in it."""
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
