"""`graftax serve` under load, beside itself with fewer adapters and beside the servers that people write around PEFT.

    python benchmarks/speed/served.py [WHAT ...] [--seconds S]

Servers are processes of their own, asked over HTTP by the callers of `graftax loadtest`, in turns, three seeds each; a row has
the time per request, the inverse of throughput, if it says nothing else. Adapters are LoRA of rank 8 on queries and values.
Llama is the 135 M shape of language_models.py, with 16 callers; MiniLM has 64. What can be asked for, each up to three minutes:

    thousand     Llama: 1,000 adapters in 16 slots, against one
    base         Llama: one adapter, against the base alone
    slots        Llama, 16 slots: time to the first token with 32 adapters, all asked alike, against 16; at half the capacity
    complete     Llama: texts under 16 adapters, against PEFT with batches of one adapter
    classify     MiniLM: classes under 32 adapters, against the same
    many         MiniLM: under 128 adapters, all asked alike, against the same
    mixed        MiniLM: under 32 adapters, against PEFT with mixed batches
    embeddings   MiniLM: vectors, against sentence-transformers behind the same little server
    encode       the same without servers: 1,024 texts of CLINC150 in a call
    disk         directories that the server has never seen, loaded and asked once each, against 20 ms

The Python that runs this needs sentence-transformers for two of them, beside what graftax's tests need.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters_on_disk import write
from harness import MINILM, ROOT, Work, Worker, clinc, duel, report, row, summary
from language_models import LLAMA, noisy, write_backbone

sys.path.insert(0, str(ROOT))

from graftax.serve.loadtest.light_client import LightClient
from graftax.serve.loadtest.load_report import facts
from graftax.serve.loadtest.load_run import Rate, Settings, measure
from graftax.serve.loadtest.workload import Workload

SEEDS, DIRECTORIES = 3, 32
TEXTS = 1024  # of `encode`
TEXTS_ASKED: dict[str, Any] = {"workload": Workload(words=(4, 32), tokens=(8, 32))}
_CACHE = Path(tempfile.gettempdir()) / "graftax-served"  # of compiled programs: what is measured is a server that has warmed up


class Server:
    """A server's process; its first line ends with its address."""

    def __init__(self, command: Sequence[str]):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(_CACHE)}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]
        while self.url and asyncio.run(LightClient(self.url).ask("GET", "/ready"))[0] == 503:  # it compiles what may be asked
            time.sleep(0.5)

    def peak_mb(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1e3

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()  # whatever has failed: a server that was left would train on beside all that is measured later


def ours(backbone: str, adapters: dict[str, str], *options: str) -> Server:
    named = [part for name, directory in adapters.items() for part in ("-a", f"{name}={directory}")]
    return Server([sys.executable, "-m", "graftax", "serve", "-b", backbone, *named, "--port", "0", *options])


def peer(what: str, backbone: str, adapters: dict[str, str], *options: str) -> Server:
    named = [f"{name}={directory}" for name, directory in adapters.items()]
    return Server([sys.executable, str(Path(__file__).with_name("peer_servers.py")), what, backbone, *named, *options])


def asked(server: Server, seed: int, seconds: float, **changes: Any) -> dict[str, Any]:
    """What one run of a load test says."""
    given: dict[str, Any] = {"models": [], "most": None, "kinds": ["completions"], "workload": Workload(), "rate": None}
    given |= {"seconds": seconds, "seeds": 1, "callers": 16, "timeout": 600.0} | changes
    settings = Settings(first_seed=seed, **given)
    said = facts(asyncio.run(measure(LightClient(server.url), settings, lambda doing: None)), settings)
    assert not said["errors"], said["errors"]
    assert not said["wrong"], "another adapter answered"
    return said


def per_request(server: Server, said: dict[str, Any]) -> dict[str, float]:
    return {"seconds": 1 / said["requests_per_second"], "peak_mb": server.peak_mb()}


def beside(
    what: str, note: str, one: tuple[Server, dict[str, Any]], other: tuple[Server, dict[str, Any]], seconds: float
) -> None:
    """A row of two servers' throughput, or of two ways to ask one; they take turns."""
    pairs = []
    for seed in range(SEEDS):
        said = [asked(server, seed, seconds, **how) for server, how in (one, other)]
        print(
            f"  seed {seed}: {said[0]['requests_per_second']:.2f} / {said[1]['requests_per_second']:.2f} requests/s", flush=True
        )
        pairs.append((per_request(one[0], said[0]), per_request(other[0], said[1])))
    report(row(what, summary(pairs), note))


# -- what is measured ---------------------------------------------------------------------------------------------------------


def thousand(folder: Path, seconds: float) -> None:
    llama, directories = written_llama(folder)
    server = ours(llama, {f"a{i}": directories[i % DIRECTORIES] for i in range(1000)})
    note = "both columns graftax; 16 slots, alpha 1, 16 callers (`served.py`)"
    what = "serve, 135 M Llama: 1,000 adapters, time per request, against one"
    beside(what, note, (server, TEXTS_ASKED), (server, {**TEXTS_ASKED, "models": ["a0"]}), seconds)
    server.end()


def base(folder: Path, seconds: float) -> None:
    llama, directories = written_llama(folder)
    server = ours(llama, {"a0": directories[0]})
    what = "serve, 135 M Llama: one adapter, time per request, against the base alone"
    alone = {**TEXTS_ASKED, "models": [Path(llama).name]}
    beside(what, "both columns graftax; 16 callers (`served.py`)", (server, TEXTS_ASKED), (server, alone), seconds)
    server.end()


def slots(folder: Path, seconds: float) -> None:
    llama, directories = written_llama(folder)
    server = ours(llama, {f"a{i}": directories[i] for i in range(32)}, "--slots", "16")
    how: dict[str, Any] = {"workload": Workload(alpha=0.0, words=(4, 32), tokens=(8, 32))}
    capacity = asked(server, 9, seconds, **how, most=16)["requests_per_second"]
    pairs = []
    for seed in range(SEEDS):
        said = [asked(server, seed, seconds, **how, rate=Rate(capacity / 2), most=most)["first_token_ms"] for most in (32, 16)]
        medians = [one["median"] / 1e3 for one in said]
        print(f"  seed {seed}: {medians[0] * 1e3:.0f} / {medians[1] * 1e3:.0f} ms", flush=True)
        pairs.append(
            ({"seconds": medians[0], "peak_mb": server.peak_mb()}, {"seconds": medians[1], "peak_mb": server.peak_mb()})
        )
    server.end()
    what = "serve, 135 M Llama, 16 slots: median time to the first token with 32 adapters, against 16"
    report(row(what, summary(pairs), f"both columns graftax; half of {capacity:.1f} requests/s (`served.py`)"))


def complete(folder: Path, seconds: float) -> None:
    llama, directories = written_llama(folder)
    named = {f"a{i}": directories[i] for i in range(16)}
    here, there = ours(llama, named), peer("peft-complete", llama, named)
    what = "serve, 135 M Llama: texts under 16 adapters, time per request, against PEFT's batches of one adapter"
    beside(what, "16 callers, alpha 1 (`served.py`)", (here, TEXTS_ASKED), (there, TEXTS_ASKED), seconds)
    here.end(), there.end()


def classify(folder: Path, seconds: float, count: int = 32, alpha: float = 1.0, *options: str) -> None:
    directories = list(written_minilm(folder).values())
    named = {f"a{i}": directories[i % DIRECTORIES] for i in range(count)}
    here, there = ours(MINILM, named, "--slots", str(count)), peer("peft-classify", MINILM, named, *options)
    how = {"kinds": ["classify"], "callers": 64, "workload": Workload(alpha=alpha, words=(4, 10))}
    batches = "mixed batches (`adapter_names`)" if options else "batches of one adapter"
    what = f"serve, MiniLM: classes under {count} adapters, time per request, against PEFT's {batches}"
    beside(what, f"64 callers, alpha {alpha:g} (`served.py`)", (here, how), (there, how), seconds)
    here.end(), there.end()


def many(folder: Path, seconds: float) -> None:
    classify(folder, seconds, 128, 0.0)


def mixed(folder: Path, seconds: float) -> None:
    classify(folder, seconds, 32, 1.0, "--mixed")


def embeddings(folder: Path, seconds: float) -> None:
    here, there = ours(MINILM, {}), peer("sentences", MINILM, {})
    how = {"kinds": ["embeddings"], "callers": 64, "workload": Workload(words=(4, 10))}
    what = "serve, MiniLM: vectors, time per request, against sentence-transformers behind Starlette"
    beside(what, "64 callers (`served.py`)", (here, how), (there, how), seconds)
    here.end(), there.end()


def encode(folder: Path, seconds: float) -> None:
    found = duel(Worker(our_vectors), Worker(their_vectors), 7, warmup=2)
    report(row(f"vectors of {TEXTS:,} texts of CLINC150, MiniLM, against sentence-transformers' encode", found))


def our_vectors() -> Work:
    import graftax

    predictor, texts = graftax.Predictor(graftax.load_backbone(MINILM)), [one["text"] for one in clinc("test")[:TEXTS]]
    yield {}
    while True:
        began = time.perf_counter()
        predictor.embed(texts)
        yield {"seconds": time.perf_counter() - began}


def their_vectors() -> Work:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(MINILM, device="cpu", model_kwargs={"dtype": torch.float32})
    texts = [one["text"] for one in clinc("test")[:TEXTS]]
    yield {}
    while True:
        began = time.perf_counter()
        model.encode(texts)
        yield {"seconds": time.perf_counter() - began}


def disk(folder: Path, seconds: float) -> None:
    """Each directory is loaded under a name of its own, and asked once."""
    llama, of_llama = written_llama(folder)
    asked = {"input": "my card is gone"}
    _from_disk("classes, MiniLM", MINILM, list(written_minilm(folder).values()), "/v1/classify", asked)
    asked = {"prompt": "My card is", "max_tokens": 1}
    _from_disk("a token, 135 M Llama", llama, of_llama, "/v1/completions", asked)


def _from_disk(what: str, backbone: str, directories: Sequence[str], path: str, asked: dict[str, Any]) -> None:
    server = ours(backbone, {"there": directories[0]}, "--allow-path", str(Path(directories[0]).parent))
    found, alone = asyncio.run(_first_answers(server, directories, path, asked))
    limit = {"seconds": 0.02, "peak_mb": 0.0}
    result = summary([({"seconds": one, "peak_mb": server.peak_mb()}, limit) for one in found])
    server.end()
    note = f"load_lora_adapter and one request, over HTTP, which alone takes {alone * 1e3:.1f} ms (`served.py`)"
    report(row(f"serve: from a directory on disk to an answer, {what}, against the limit", result, note))


async def _first_answers(
    server: Server, directories: Sequence[str], path: str, asked: dict[str, Any]
) -> tuple[list[float], float]:
    """Seconds of loading and asking, of each directory; and of asking one that was there, the median."""
    client, found, alone = LightClient(server.url), list[float](), list[float]()
    for index, directory in enumerate(directories):
        (of_text,) = [name for name in asked if name in ("input", "prompt")]
        began = time.perf_counter()
        await client.ask("POST", path, {**asked, "model": "there", of_text: f"{index}. {asked[of_text]}"})
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        loaded, _ = await client.ask("POST", "/v1/load_lora_adapter", {"lora_name": f"d{index}", "lora_path": directory})
        answered, _ = await client.ask("POST", path, {**asked, "model": f"d{index}"})
        found.append(time.perf_counter() - began)
        if (loaded, answered) != (200, 200):
            raise SystemExit(f"{directory}: the server answers {loaded} and {answered}")
    return found[4:], statistics.median(alone[4:])


# -- backbones and adapters on disk -------------------------------------------------------------------------------------------


def written_minilm(folder: Path) -> dict[str, str]:
    """Names and directories of adapters with heads for MiniLM."""
    out = folder / "minilm"
    if not out.exists():
        Worker(write, out=str(out), count=DIRECTORIES).close()
    return {f"a{i}": str(out / str(i)) for i in range(DIRECTORIES)}


def written_llama(folder: Path) -> tuple[str, list[str]]:
    """A backbone of random weights, and directories of adapters for it."""
    checkpoint, out = folder / "llama-135m", folder / "llama"
    if not out.exists():
        checkpoint.mkdir()
        write_backbone(checkpoint, LLAMA, "model.")
        Worker(write_for, checkpoint=str(checkpoint), out=str(out)).close()
    return str(checkpoint), [str(out / str(i)) for i in range(DIRECTORIES)]


def write_for(checkpoint: str, out: str) -> Work:
    import graftax

    backbone = graftax.load_backbone(checkpoint)
    for seed in range(DIRECTORIES):
        made = graftax.Adapter.create((graftax.LoRA(r=8, alpha=16.0),), backbone.sites, seed=seed, task="lm")
        graftax.save_adapter(noisy(made), Path(out) / str(seed), backbone)
    yield {}


MEASURED = (thousand, base, slots, complete, classify, many, mixed, embeddings, encode, disk)


def main() -> None:
    each = {measured.__name__: measured for measured in MEASURED}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", default=list(each))
    parser.add_argument("--seconds", type=float, default=12.0, help="Of each run.")
    parser.add_argument("--folder", type=Path, help="Where backbones and adapters are kept between runs; default: nowhere.")
    chosen = parser.parse_args()
    if unknown := set(chosen.what) - set(each):
        parser.error(f"{', '.join(unknown)}: one of {', '.join(each)}")
    with tempfile.TemporaryDirectory() as made:
        for what in chosen.what:
            each[what](chosen.folder or Path(made), chosen.seconds)


if __name__ == "__main__":
    main()
