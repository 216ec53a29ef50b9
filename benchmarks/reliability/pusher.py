"""Pushes adapters to a hub, one after another, and says of each what the hub has acknowledged; to be killed at any moment.

    python benchmarks/reliability/pusher.py HUB FOLDER PAUSE SEED

A line is printed for each push when it has returned: the name, the version, its digest, and which of the adapters it is.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from graftax import GraftaxError, Hub

NAMES = 3


def main() -> None:
    hub, folder, pause, drawn = Hub(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), random.Random(sys.argv[4])
    adapters = sorted(folder.iterdir())
    while True:
        time.sleep(pause)
        adapter = drawn.choice(adapters)
        try:
            version = hub.push(f"shop/p{drawn.randrange(NAMES)}", adapter)
        except GraftaxError as error:  # while the hub is away
            print(error, file=sys.stderr, flush=True)
        else:
            print(version.name, version.version, version.digest, adapter.name, flush=True)


if __name__ == "__main__":
    main()
