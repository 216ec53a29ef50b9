"""A writer that is to be killed: it pushes, points tags, removes and collects in a store, and says what it has done.

Each line it prints is one thing that is done, or, for a removal, about to be:

    pushed NAME VERSION SEED        the version is there; its files are `contents(SEED)`
    tagged NAME TAG VERSION
    removing NAME VERSION

    python tests/store_writer.py URL WRITER ROUND       run by test_store_concurrent.py
"""

from __future__ import annotations

import os
import random
import sys
import warnings

NAMES = ("shared/one", "shared/two")
LAST = 1 << 30  # of the numbers of rounds


def contents(seed: int) -> dict[str, bytes]:
    """The files of a version: one of its own, and one that it has in common with many."""
    draw = random.Random(seed)
    return {"weights.bin": draw.randbytes(2000), "shared.json": b"%d" % (seed % 5)}


def main(url: str, writer: int, turn: int) -> None:
    from graftax.store.manifest import Manifest
    from graftax.store.store import Store

    warnings.simplefilter("ignore")
    draw = random.Random(f"{writer} {turn}")
    store, own = Store(url), f"own/{writer}"
    store.exists()
    say("begun")
    mine: list[int] = []  # versions of its own name, which nobody else touches
    for step in range(LAST):
        deed = draw.choices(["push", "push own", "tag", "remove", "collect"], [4, 3, 2, 1, 1])[0]
        if deed in ("push", "push own"):
            seed, name = draw.randrange(1 << 40), draw.choice(NAMES) if deed == "push" else own
            version, added = store.push(name, Manifest({}, description=f"{writer} {turn} {step}"), contents(seed))
            assert added
            say(f"pushed {name} {version.version} {seed}")
            if name == own:
                mine.append(version.version)
        elif deed == "tag" and mine:
            store.point(own, f"of{turn}", {mine[-1]: 1.0})
            say(f"tagged {own} of{turn} {mine[-1]}")
        elif deed == "remove" and len(mine) > 2:
            say(f"removing {own} {mine[0]}")
            store.remove(own, mine.pop(0), force=True)
        elif deed == "collect" and store.exists():
            store.collect()


def say(line: str) -> None:
    """In one piece, and beyond this process at once: it may be killed at any moment."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
