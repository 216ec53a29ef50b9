"""What jobs have made, by the names that requests use: adapters in directories, each known to its tenant alone."""

from __future__ import annotations

from pathlib import Path

from ... import disk
from ...serve.http.service import Service
from .job_record import JobRecord
from .job_table import JobTable


class PublishedModels:
    """The models of jobs that a server answers with. Calls may come from several threads."""

    def __init__(self, service: Service, table: JobTable):
        self._service, self._table = service, table
        self._directories: dict[str, Path] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._directories

    def publish(self, job: JobRecord, name: str, directory: Path) -> None:
        """Let the adapter in a directory, which was just made, be asked by whoever asked for the job."""
        self._service.owners[name] = job.tenant  # before anybody can ask
        handle = self._service.residents.register(name, directory)
        self._table.note_digest(name, handle.digest)
        self._directories[name] = directory

    def publish_again(self, job: JobRecord, name: str, directory: Path) -> None:
        """The same of one that a process before this one has published: it is read when somebody asks for it."""
        self._service.owners[name] = job.tenant
        self._service.residents.register_unread(name, directory, self._table.digest(name))
        self._directories[name] = directory

    def delete(self, name: str) -> bool:
        """Take a model away, with its directory; what is being answered goes on. Whether there was one."""
        directory = self._directories.pop(name, None)
        if directory is None:
            return False
        self._service.residents.unregister(name)
        del self._service.owners[name]
        self._table.forget_digest(name)
        disk.remove_directory(directory)
        return True
