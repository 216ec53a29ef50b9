"""`graftax serve` in a process of its own, which can be killed and begun again at the same port."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny_world import ROOT, Side


class ServerProcess:
    """A server of a side. `url` is there from the beginning on, and stays."""

    def __init__(self, side: Side, folder: Path, slots: int):
        self._options = ["-b", str(side.backbone), "--hub", str(side.hub), "--slots", str(slots), "--lanes", "8"]
        self._options += ["--allow-path", str(side.folder)]
        self._log = folder / f"{side.kind}.log"
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRAFTAX_CACHE": str(folder / f"{side.kind}-cache")}
        self._port = 0
        self.begun = 0
        self.begin()

    def begin(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "graftax", "serve", *self._options, "--port", str(self._port)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=self._environment, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said.startswith("graftax: "):
            raise SystemExit(f"no server: {self._log.read_text()[-2000:]}")
        self.url = said.split()[-1].removesuffix("/v1")
        self._port = int(self.url.rpartition(":")[2])
        self.begun += 1

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self._process.terminate()
        return self._process.wait(120)

    def resident_mb(self) -> float:
        """What the process has in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1e3

    def complaints(self) -> str:
        """What the server has written into its log."""
        return self._log.read_text() if self._log.exists() else ""
