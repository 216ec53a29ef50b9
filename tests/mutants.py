"""Makes mistakes in the code and looks whether a test finds them; the mistakes are in `mutations.py`.

    python tests/mutants.py                    every one (`make mutants`)
    python tests/mutants.py --part 20785/10    every tenth, another one for each number of a day (`make mutants-part`)
    python tests/mutants.py --file choice      those in files whose path has this in it
    python tests/mutants.py --workers 2        two at a time

Tests that pass whatever the code does are worse than none. A mistake that no test finds *survives*: then a test is missing. It
is listed, and the exit code is 1. So is a mistake whose text is no longer in its file: write it for the text that is there now.

What is on disk is not touched: the files that git knows of, or would, are copied to a temporary folder as they are now,
one for each worker.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED = 0, 1  # exit codes of pytest; all others are of tests that were not run


def main() -> None:
    parser = argparse.ArgumentParser(description="Make mistakes in the code, and look whether a test finds them.")
    parser.add_argument("--part", metavar="K/N", help="only every N-th, from the K-th")
    parser.add_argument("--file", metavar="TEXT", default="", help="only those in files whose path has this in it")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="so many at a time (default 1)")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in part_of(MUTATIONS, arguments.part) if arguments.file in mutation.file]
    with tempfile.TemporaryDirectory(prefix="graftax-mutants-") as folder, ThreadPoolExecutor(arguments.workers) as threads:
        copies = [Path(folder) / f"graftax-{worker}" for worker in range(arguments.workers)]
        refuse_failing(copied(copies[0]), chosen, arguments.workers)
        for copy in copies[1:]:
            shutil.copytree(copies[0], copy, symlinks=True)
        shares = (chosen[worker :: len(copies)] for worker in range(len(copies)))
        complaints = [said for share in threads.map(complaints_of, copies, shares) for said in share]
    print(f"{len(chosen) - len(complaints)} of {len(chosen)} mistakes were found by the tests", *complaints, sep="\n")
    sys.exit(bool(complaints))


def part_of(mutations: list[Mutation], part: str | None) -> list[Mutation]:
    """Those of a part; all where none is named."""
    index, count = map(int, (part or "0/1").split("/"))
    return mutations[index % count :: count]


def copied(to: Path) -> Path:
    """The repository as it is on disk, without what git ignores; what lies in links to folders is there once, as here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if os.path.lexists(ROOT / name):  # else it was removed and git has not been told
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def refuse_failing(copy: Path, mutations: Iterable[Mutation], workers: int) -> None:
    """Without a mistake the tests must pass: else their failing says nothing. Python's bytecode of the sound files is kept."""
    several = ["-n", str(workers), "--dist", "worksteal"] if workers > 1 else []
    code, said = tested(copy, *several, *dict.fromkeys(mutation.tests for mutation in mutations), keep_bytecode=True)
    if code != PASSED:
        sys.exit(f"{said}\nthese tests fail without any mistake, or could not be run")


def complaints_of(copy: Path, mutations: Iterable[Mutation]) -> list[str]:
    """What is wrong with some mistakes, made in one copy one after another."""
    return [said for mutation in mutations if (said := complaint(copy, mutation))]


def complaint(copy: Path, mutation: Mutation) -> str | None:
    """What is wrong with a mistake, or the tests; None where they find it."""
    file, mistake = copy / mutation.file, f"{mutation.file}: {mutation.old!r} -> {mutation.new!r}"
    sound = file.read_text("utf-8") if file.is_file() else ""
    if (count := sound.count(mutation.old)) != 1:
        return f"outdated: {mistake}: the text is there {count} times"
    began = time.monotonic()
    file.write_text(sound.replace(mutation.old, mutation.new), "utf-8")
    code, said = tested(copy, mutation.tests, "--exitfirst", keep_bytecode=False)
    file.write_text(sound, "utf-8")
    print(f"{'found' if code == FAILED else 'NOT found'} in {time.monotonic() - began:.0f} s: {mistake}", flush=True)
    if code == FAILED:
        return None
    return f"survived: {mistake}: {mutation.tests}" if code == PASSED else f"{said}\nnot run: {mistake}: {mutation.tests}"


def tested(copy: Path, *arguments: str, keep_bytecode: bool) -> tuple[int, str]:
    """pytest's exit code and last lines, of the fast ones among some tests of the copy. Of a file with a mistake no bytecode is
    kept, which would be taken for the sound file's when that has its time and size."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "" if keep_bytecode else "1"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(copy.parent / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "--timeout", "120"]
    run = subprocess.run([*command, *arguments], cwd=copy, env=environment, capture_output=True, text=True)
    return run.returncode, "\n".join((run.stdout + run.stderr).splitlines()[-15:])


if __name__ == "__main__":
    main()
