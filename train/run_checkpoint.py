"""An unfinished run on disk, through orbax.

A checkpoint is one composite: the arrays of every slot, and as JSON how far each job is in its data, which jobs wait
and which are done. Orbax commits it atomically, so a crash in the middle of a save leaves the one before. Adapters are never
kept this way: they are the product, and have files of their own.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import GraftaxError

#: by directory, what Ctrl-C has left in this process (a notebook's, say): it may be saving or deleting there still
_left: dict[Path, Any] = {}


class Checkpoints:
    """Saves and restores `(arrays, facts)`; the newest two are kept. A `with` block waits at its end for the save under way."""

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp

        # orbax reports every step of its own, and a failing save as some tracebacks before it is an exception here
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._directory = directory
        if (left := _left.pop(directory.absolute(), None)) is not None:
            _closed(left)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, arrays: Any, facts: dict[str, Any]) -> None:
        """Start a save; it goes on in the background. Both are copied first: the next step changes them.

        What a save before it failed of is raised here, or by `wait`.
        """
        copied, facts = jax.tree.map(_copied, arrays), json.loads(json.dumps(facts))
        args = self._ocp.args
        self._manager.save(step, args=args.Composite(arrays=args.StandardSave(copied), facts=args.JsonSave(facts)), force=True)

    def arrays(self, like: Any) -> Any:
        """The arrays of the newest complete checkpoint, with the structure and shapes of `like`."""
        return self._restored(arrays=self._ocp.args.StandardRestore(like))["arrays"]

    def facts(self) -> dict[str, Any] | None:
        """The facts of the newest complete checkpoint; None where there is none."""
        if self._manager.latest_step() is None:
            return None
        found: dict[str, Any] = self._restored(facts=self._ocp.args.JsonRestore())["facts"]
        return found

    def _restored(self, **parts: Any) -> Any:
        """These parts of the newest complete checkpoint; GraftaxError where they are damaged."""
        step = self._manager.latest_step()
        try:
            return self._manager.restore(step, args=self._ocp.args.Composite(**parts))
        except Exception as error:  # of orbax, of tensorstore, or of Python's from within them
            raise GraftaxError(
                f"{self._directory / str(step)}: the checkpoint is damaged ({type(error).__name__}); remove that directory, "
                "and the run goes on from the one before."
            ) from error

    def wait(self) -> None:
        """Until the save that is under way is on the disk."""
        self._manager.wait_until_finished()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: Any) -> None:
        if raised is not None and not issubclass(raised, Exception):  # KeyboardInterrupt: at once
            _left[self._directory.absolute()] = self._manager
        else:
            _closed(self._manager)


def _copied(leaf: Any) -> Any:
    """A copy on the host; of an array whose parts lie in several processes, on the devices: each saves its parts."""
    spread = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return jnp.array(leaf, copy=True) if spread else np.array(leaf, copy=True)


def _closed(manager: Any) -> None:
    """Wait until a manager does nothing more. What it fails of `wait` has told, or the run has ended for another reason."""
    with suppress(Exception):
        manager.close()
