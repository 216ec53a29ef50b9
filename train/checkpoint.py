"""The state of an unfinished run on disk, through orbax.

A checkpoint is one composite: the arrays of every slot, and as JSON where each slot is in its task's data, which tasks wait
and which are done. Orbax commits it atomically, so a crash in the middle of a save leaves the one before. Adapters are never
kept this way: they are the product, and have files of their own.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Checkpoints:
    """Saves and restores `(arrays, facts)`; the newest two are kept."""

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every step of its own at INFO and WARNING
        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, arrays: Any, facts: dict[str, Any]) -> None:
        """Start a save; it goes on in the background. Both are copied first: the next step changes them."""
        copied, facts = jax.tree.map(lambda leaf: np.array(leaf, copy=True), arrays), json.loads(json.dumps(facts))
        args = self._ocp.args
        self._manager.save(step, args=args.Composite(arrays=args.StandardSave(copied), facts=args.JsonSave(facts)), force=True)

    def arrays(self, like: Any) -> Any:
        """The arrays of the newest complete checkpoint, with the structure and shapes of `like`."""
        args = self._ocp.args
        wanted = args.Composite(arrays=args.StandardRestore(like))
        return self._manager.restore(self._manager.latest_step(), args=wanted)["arrays"]

    def facts(self) -> dict[str, Any] | None:
        """The facts of the newest complete checkpoint; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        return self._manager.restore(step, args=self._ocp.args.Composite(facts=self._ocp.args.JsonRestore()))["facts"]

    def close(self) -> None:
        """Wait for the save that is under way."""
        self._manager.wait_until_finished()
        self._manager.close()
