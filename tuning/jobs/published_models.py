"""What jobs have made, by the names that requests use: adapters in directories, each known to its tenant alone."""

from __future__ import annotations

from pathlib import Path

from ... import disk
from ...serve.http.service import Service
from .job_record import JobRecord


class PublishedModels:
    """The models of jobs that a server answers with. Calls may come from several threads."""

    def __init__(self, service: Service):
        self._service = service
        self._directories: dict[str, Path] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._directories

    def publish(self, job: JobRecord, name: str, directory: Path) -> None:
        """Let the adapter in a directory be asked by whoever asked for the job."""
        self._service.owners[name] = job.tenant  # before anybody can ask
        self._service.residents.register(name, directory)
        self._directories[name] = directory

    def delete(self, name: str) -> bool:
        """Take a model away, with its directory; what is being answered goes on. Whether there was one."""
        directory = self._directories.pop(name, None)
        if directory is None:
            return False
        self._service.residents.unregister(name)
        del self._service.owners[name]
        disk.remove_directory(directory)
        return True
