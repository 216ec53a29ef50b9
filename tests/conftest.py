"""Strict JAX for every test, and the small backbones they run on."""

from __future__ import annotations

import atexit
import gc
import io
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["GRAFTAX_HUB"] = os.path.join(tempfile.gettempdir(), "graftax-no-hub")  # whoever runs the tests may have one
os.environ.setdefault("GRAFTAX_CHECK_SHAPES", "1")  # read by graftax/shapes.py when it is imported
# Most of the time of these tests is XLA compiling programs that then run for a millisecond. It takes a quarter as long without
# LLVM's optimisations, with a program in one piece instead of 32, and by the older way of writing out what operations become,
# which jaxlib 0.10 has still. `tests/test_conditions.py` and the second line of Python compile in the newer way.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    if version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # programs are compiled once per session, subprocesses included
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="graftax-xla-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest
import s3_server
from artefacts import as_peft_saves, graftax_directory
from tiny import write_backbone, write_decoder, write_towers
from tower_pairs import PIXELS, prepared

from graftax.__main__ import main
from graftax.models.backbone import Backbone
from graftax.models.cifar_resnet import OPTION_A
from graftax.models.inputs import ImageInputs, PairInputs, TextInputs
from graftax.models.load import load_backbone
from graftax.models.pairs import pair
from graftax.models.random import random_backbone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a script has it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "assets"
MINILM = SHARED / "backbones" / "all-MiniLM-L6-v2"
needs_assets = pytest.mark.skipif(not MINILM.is_dir(), reason="the shared assets are not there")

TINY = {"vocab_size": 97, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
TINY |= {"max_position_embeddings": 48, "type_vocab_size": 2}

#: Hugging Face configs of one tiny backbone per family: encoders,
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **TINY},
    "roberta": {"model_type": "roberta", **TINY, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 97,
        "n_layers": 3,
        "dim": 32,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 48,
    },
    "albert": {"model_type": "albert", **TINY, "embedding_size": 16, "num_hidden_groups": 1, "inner_group_num": 1},
}
#: and a decoder, whose layers have no biases and whose queries share keys and values in pairs.
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "vocab_size": 97,
        "num_hidden_layers": 3,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
    },
}
CONFIGS = ENCODERS | DECODERS
#: An encoder-decoder, on which adapters have no head; towers and projection have weights of their own, so that all can merge.
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "bart": {
        "model_type": "bart",
        "vocab_size": 97,
        "d_model": 32,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 48,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
}
#: Of pictures, of convolutions: no two numbers of channels are one, so that a leaf of another site would not fit;
CONVOLUTIONAL: dict[str, dict[str, Any]] = {
    "cifar_resnet": {
        "model_type": "cifar_resnet",
        "depth": 14,
        "blocks_per_stage": 2,
        "stage_channels": [4, 6, 10],
        "block": "basic",
        "shortcut": OPTION_A,
        "batch_norm_eps": 1e-3,
    },
    "mobilenet_v2": {
        "model_type": "mobilenet_v2",
        "depth_multiplier": 0.25,
        "depth_divisible_by": 2,
        "min_depth": 4,
        "expand_ratio": 2.5,
        "finegrained_output": False,
        "layer_norm_eps": 1e-2,
    },
}
#: and of patches.
PATCHES: dict[str, dict[str, Any]] = {
    "vit": {
        "model_type": "vit",
        "num_hidden_layers": 3,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 4,
    },
}
PICTURES = CONVOLUTIONAL | PATCHES
#: Pairs of towers, CLIP's of one checkpoint.
PAIRS = ("clip_pair",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-parity", action="store_true", help="write models/parity.json (tests/parity.py)")
    parser.addoption("--part", metavar="K/N", help="of the chosen tests only every N-th, from the K-th (by a hash of the name)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`--part 3/10`: of the slow tests, which nobody has an hour for each time, a tenth; ten runs in turn have run them all."""
    if part := config.getoption("--part"):
        index, count = map(int, part.split("/"))
        items[:] = [item for item in items if zlib.crc32(item.nodeid.encode()) % count == index % count]


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: looking for garbage in it takes a second, over and over."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--record-parity"):
        import parity  # torch, for the tests that need it alone

        parity.record()


TESTS_RUN = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Drop compiled programs before they fill the process's table of memory maps (65,530 on Linux; a test makes about 200):
    what would load the next one is a segmentation fault. Counting them takes 10 ms, so one test in 8 does."""
    yield
    maps = Path("/proc/self/maps")
    if next(TESTS_RUN) % 8 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


GetBackbone = Callable[[str], Backbone]


@pytest.fixture(scope="session")
def backbone_of() -> GetBackbone:
    """A tiny random backbone by family, made once."""
    made: dict[str, Backbone] = {}

    def get(family: str) -> Backbone:
        if family in PAIRS:
            made[family] = made.get(family) or load_backbone(write_towers(Path(tempfile.mkdtemp()), wide=64), tower="both")
        elif family not in made:
            made[family] = random_backbone((CONFIGS | ENCODER_DECODERS | PICTURES)[family], seed=7)
        return made[family]

    return get


@pytest.fixture(scope="session")
def bert(backbone_of: GetBackbone) -> Backbone:
    return backbone_of("bert")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Two towers of one model."""
    return load_backbone(prepared(write_towers(tmp_path_factory.mktemp("clip"))), tower="both")


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Two that were never trained together: convolutions, and an encoder of texts."""
    texts = load_backbone(write_backbone(tmp_path_factory.mktemp("texts")))
    return pair(random_backbone({**CONVOLUTIONAL["cifar_resnet"], "image_size": PIXELS}, seed=3), texts)


@pytest.fixture(scope="module")
def clip_in_torch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Backbone, Backbone]:
    """transformers' CLIP, and its towers here."""
    from torch_towers import with_towers  # torch, for the tests that need it alone

    directory = tmp_path_factory.mktemp("whole")
    found = with_towers("clip", directory)
    said = {"image_processor_type": "CLIPImageProcessor", "do_rescale": False, "do_normalize": False}
    said |= {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (directory / "preprocessor_config.json").write_text(json.dumps(said))
    return found


@pytest.fixture(scope="module")
def of_graftax(bert: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter's directory as graftax saves it."""
    return graftax_directory(bert, tmp_path_factory.mktemp("of") / "bank")


@pytest.fixture(scope="module")
def of_peft(of_graftax: Path) -> Path:
    """And the same as PEFT does."""
    return as_peft_saves(of_graftax)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, to look at pages with."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(names)}), so nobody looks at the page")
    with sync_playwright() as playwright:
        there = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield there
        there.close()


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """An object store on loopback, and the environment in which it is found."""
    pytest.importorskip("moto")
    with s3_server.running() as environment:
        yield environment


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny backbone directory (tests/tiny.py)."""
    return write_backbone(tmp_path_factory.mktemp("tiny") / "backbone")


@pytest.fixture(scope="session")
def tiny(tiny_dir: Path) -> Backbone:
    """The same, loaded."""
    return load_backbone(tiny_dir)


@pytest.fixture(scope="session")
def teller_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny language model's directory (tests/tiny.py)."""
    return write_decoder(tmp_path_factory.mktemp("teller") / "backbone")


@pytest.fixture(scope="session")
def teller(teller_dir: Path) -> Backbone:
    """The same, loaded."""
    return load_backbone(teller_dir)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Encoders as ours and as transformers' (tests/peft_pairs.py)."""
    from peft_pairs import Pairs  # torch and PEFT, for the tests that need them alone

    return Pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def butterflies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PEFT's CUDA extension for BOFT computes, without which it takes one factor for any number of them."""
    import torch

    def forward(factors: Any) -> Any:
        return [torch.stack([torch.block_diag(*factor) for factor in factors])]

    monkeypatch.setattr("peft.tuners.boft.layer._FBD_CUDA", SimpleNamespace(forward=forward))


class Said(NamedTuple):
    code: int
    out: str
    err: str


Graftax = Callable[..., Said]


@pytest.fixture
def graftax(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Graftax:
    """The command, in this process."""

    def call(*arguments: Any, stdin: str | None = None) -> Said:
        monkeypatch.setattr(sys, "argv", ["graftax", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Said(stop.value.code, said.out, said.err)

    return call


def some_inputs(backbone: Backbone, rows: int = 3, seed: int = 0) -> Any:
    """Random rows: texts, pictures where the backbone reads these, or both."""
    if backbone.family.processor.kind == "pair":
        text = some_texts(backbone, rows, seed=seed, config=replace(backbone.config.text.config, vocab_size=97))
        return PairInputs(some_pictures(rows, seed), text, np.zeros(rows, bool))
    return some_pictures(rows, seed) if backbone.family.processor.kind == "image" else some_texts(backbone, rows, seed=seed)


def some_pictures(rows: int = 3, seed: int = 0) -> ImageInputs:
    return ImageInputs(np.random.default_rng(seed).standard_normal((rows, 18, 16, 3), np.float32))


def some_texts(backbone: Backbone, rows: int = 3, tokens: int = 9, seed: int = 0, config: Any = None) -> TextInputs:
    """All but the first end in padding. Of an encoder-decoder with a target each."""
    random, config = np.random.default_rng(seed), config or backbone.config
    ids = random.integers(5, config.vocab_size, (rows, tokens)).astype(np.int32)
    mask = np.arange(tokens) < np.array([tokens] + [int(n) for n in random.integers(3, tokens, rows - 1)])[:, None]
    ids[~mask] = config.pad_id
    types = np.zeros_like(ids)
    if config.type_vocab_size > 1:
        types[:, tokens // 2 :] = 1
    if not backbone.family.encodes:
        return TextInputs(ids, mask, types)
    target = random.integers(5, config.vocab_size, (rows, 7)).astype(np.int32)
    target[:, 0] = config.start_id
    return TextInputs(ids, mask, types, target=TextInputs(target, np.ones_like(target, bool), np.zeros_like(target)))
