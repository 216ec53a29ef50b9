"""The README's paragraph and table of a benchmark in a directory: `python benchmarks/speed/readme_table.py bench-output`."""

from __future__ import annotations

import sys
from pathlib import Path

from graftax.benchmarks.analysis import analyse
from graftax.benchmarks.tables import Table, main_table, provenance
from graftax.benchmarks.wording import answer, caveats

LEFT_OUT = ("step, ms", "compiling, s", "memory", "FLOPs", "energy, J", "forgetting", "ECE, %", "worst slice")


def main(folder: Path) -> None:
    analysis = analyse(folder)
    whole = main_table(analysis)
    kept = [i for i, column in enumerate(whole.columns) if column not in LEFT_OUT]
    lines = tuple(tuple(line[i] for i in kept) for line in whole.lines)
    columns = tuple(whole.columns[i].removesuffix(", accuracy") for i in kept)
    facts = dict(provenance(analysis).lines)
    print(f"({facts['commit']}, {facts['dates']}, {facts['device']})", *answer(analysis)[:1], *caveats(analysis), sep="\n\n")
    print(f"\n{Table('Methods and tasks', columns, lines, whole.note).markdown()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
