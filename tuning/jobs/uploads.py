"""The files that were uploaded: rows to train on, one JSON object a line.

    uploads = Uploads(folder, table)
    file = uploads.keep(content, name="rows.jsonl", purpose="fine-tune", tenant=None)    # checked, hashed, and on the disk
    uploads.rows(file.id)                                                                # as a `Source` of them

The content of a file lies in `FOLDER/ID`, what is known of it in the table of jobs. A file is in the table only when the whole
of it is on the disk, so a process that is killed in between leaves content that nobody knows; the next one removes it. A file
that is being removed may be left in the table without content, and can be removed once more.

Every line must be a row, blank ones are refused: so the number of a row, by which all errors name it, is that of its line.

A file that a job needs which has not ended cannot be deleted, and one whose time is over meanwhile stays until then.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ... import disk
from ...data.sources import Source
from ...errors import GraftaxError
from ...json_files import parse_json
from .job_record import JobRecord
from .job_table import JobTable, UploadedFile, new_file_id

PURPOSE = "fine-tune"  # the only one that a server which trains has a use for
RESULT_PURPOSE, RESULTS = "fine-tune-results", "step_metrics.csv"  # of a file that a job leaves, and its name
_LONGEST_LINE = 1 << 24  # bytes: parsing one takes some times as much memory
_MARK = b"\xef\xbb\xbf"  # of UTF-8, with which editors on Windows begin a file


class NoSuchFile(GraftaxError):
    """A file that was never uploaded, is deleted, or is another's."""


class StillNeeded(GraftaxError):
    """A file that a job needs which has not ended."""


class NoRoom(GraftaxError):
    """A tenant's files would have more bytes than they may."""


class Uploads:
    """The files of a training folder. Calls may come from several threads."""

    def __init__(self, folder: Path, table: JobTable, clock: Callable[[], float] = time.time, *, most: int | None = None):
        """`clock`: seconds since 1970; `most`: bytes of all files of a tenant. GraftaxError where the folder cannot be made."""
        self._folder, self._table, self._clock, self._most = folder, table, clock, most
        self._coming = threading.Lock()  # of what a tenant has, between its sum and the table
        disk.make_directory(folder)
        disk.sweep(folder)
        known = {file.id for file in table.files(None)}
        for left in folder.iterdir():
            if left.name not in known and left.is_file():
                left.unlink()

    def keep(
        self,
        content: BinaryIO,
        *,
        name: str,
        purpose: str,
        tenant: str | None,
        seconds: int | None = None,
    ) -> UploadedFile:
        """Keep what somebody uploads, from where it stands to its end.

        `seconds`: after which it is removed; None: only when it is deleted.

        Raises GraftaxError, which names the line, where it is not a JSON object in every line, and NoRoom where the tenant has
        no room for it; then nothing is kept.
        """
        if purpose != PURPOSE:
            raise GraftaxError(f"purpose {purpose!r}: files are taken to be trained on, of purpose {PURPOSE!r}.")
        file, digest, size = new_file_id(), hashlib.sha256(), 0
        with disk.new_file(self._folder / file) as draft, draft.open("wb") as out:
            for line, _ in _lines(content, name):
                out.write(line)
                digest.update(line)
                size += len(line)
            if size == 0:
                raise GraftaxError(f"{name} is empty; every line must be a row, a JSON object.")
            self._expect_room(tenant, size, name)  # before it is kept, for the sake of the disk
        now = int(self._clock())
        kept = UploadedFile(
            file, tenant, name, purpose, size, digest.hexdigest(), now, None if seconds is None else now + seconds
        )
        try:
            with self._coming:
                self._expect_room(tenant, size, name)
                self._table.add_file(kept)
        except BaseException:
            self.path(file).unlink(missing_ok=True)
            raise
        return kept

    def _expect_room(self, tenant: str | None, size: int, name: str) -> None:
        """NoRoom where a tenant's files and one of so many bytes are too much."""
        had = sum(file.bytes for file in self.listed(tenant))
        if self._most is not None and had + size > self._most:
            whose = "the files on this server" if tenant is None else "this key's files"
            said = f"{name}: it has {size:,} bytes, and {whose} have {had:,} of the {self._most:,} that they may have in all"
            raise NoRoom(f"{said} (--max-uploads); delete some.")

    def keep_results(self, job: JobRecord, content: bytes) -> None:
        """Keep what the steps of a job came to as a file of whoever asked for it."""
        file = _result_file(job)
        with disk.new_file(self._folder / file) as draft:
            draft.write_bytes(content)
        digest, now = hashlib.sha256(content).hexdigest(), int(self._clock())
        self._table.add_file(UploadedFile(file, job.tenant, RESULTS, RESULT_PURPOSE, len(content), digest, now, None))

    def results(self, job: JobRecord) -> list[str]:
        """The ids of the files that `keep_results` has kept of a job, and nobody has deleted."""
        file = _result_file(job)
        return [file] if self._table.file(file) is not None else []

    def path(self, file: str) -> Path:
        """Where the content of a file lies."""
        return self._folder / file

    def file(self, file: str, tenant: str | None) -> UploadedFile:
        """What is known of a tenant's file (None: of anybody's); NoSuchFile where it is not there."""
        found = self._table.file(file)
        if found is None or (tenant is not None and found.tenant != tenant) or self._is_over(found):
            raise NoSuchFile(f"there is no file {file!r}.")
        return found

    def listed(self, tenant: str | None) -> list[UploadedFile]:
        """A tenant's files (None: everybody's), the newest first."""
        return [file for file in self._table.files(tenant) if not self._is_over(file)]

    def remove(self, file: UploadedFile) -> None:
        """Remove a file; StillNeeded where a job that has not ended needs it."""
        if (job := self._needed_by(file.id)) is not None:
            said = f"{file.name} ({file.id}) is needed by job {job.id}, which is {job.status}; cancel that first."
            raise StillNeeded(said)
        self._remove(file.id)

    def rows(self, file: str) -> Source:
        """The rows of a file.

        Raises GraftaxError where it is no longer there, or its content is another than was uploaded.
        """
        known = self._table.file(file)
        if known is None:
            raise NoSuchFile(f"the file {file} was deleted.")
        name, digest, rows = f"{known.name} ({file})", hashlib.sha256(), list[dict[str, Any]]()
        try:
            with self.path(file).open("rb") as content:
                for line, row in _lines(content, name):
                    digest.update(line)
                    rows.append(row)
        except OSError as error:
            raise GraftaxError(f"{name} cannot be read on the server's disk ({error.strerror}).") from error
        if digest.hexdigest() != known.sha256:
            raise GraftaxError(f"{name} is damaged on the server's disk: its sha256 is not that of what was uploaded.")
        return Source(name, rows)

    def _is_over(self, file: UploadedFile) -> bool:
        """Whether a file's time is over, in which case it is removed."""
        if file.expires is None or self._clock() < file.expires or self._needed_by(file.id) is not None:
            return False
        self._remove(file.id)
        return True

    def _needed_by(self, file: str) -> JobRecord | None:
        """A job that has not ended and needs a file."""
        needing = (job for job in self._table.not_over() if file in (job.request.training_file, job.request.validation_file))
        return next(needing, None)

    def _remove(self, file: str) -> None:
        self.path(file).unlink(missing_ok=True)  # first: on a full disk the table can be written only when there is room
        self._table.remove_file(file)


def _result_file(job: JobRecord) -> str:
    """The id of the file of a job's results: that of the job, as a file's."""
    return job.id.replace("ftjob-", "file-", 1)


def _lines(content: BinaryIO, name: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line with the row that it is; GraftaxError, which names the line, where it is none."""
    number = 0
    while line := content.readline(_LONGEST_LINE + 1):
        number += 1
        where = f"{name}: line {number}"
        if len(line) > _LONGEST_LINE:
            raise GraftaxError(f"{where} has more than {_LONGEST_LINE:,} bytes; write a JSON object in each line.")
        if not line.strip():
            raise GraftaxError(f"{where} is empty; every line must be a row, a JSON object.")
        try:
            text = line.removeprefix(_MARK if number == 1 else b"").decode()
        except UnicodeDecodeError as error:
            raise GraftaxError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start} of it).") from None
        row = parse_json(text, where, not_numbers=True)
        if not isinstance(row, dict):
            raise GraftaxError(f"{where} is not a JSON object.")
        yield line, row
