"""Every public call, each of its parameters in turn given what it cannot mean: one line that names it, or a right result.

What is right among these values is listed (`RIGHT`); whatever else a call takes without a word is a failure, and so is a name
that is public and not asked.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from tiny import toy_rows, write_towers

import graftax
from graftax import (
    Adapter,
    Average,
    Columns,
    Generator,
    GrpoSettings,
    LoRA,
    Method,
    Predictor,
    Recipe,
    Sampling,
    Split,
    across,
    clip_adapter,
    combine,
    explain,
    export_adapter,
    grpo,
    learned_context,
    load_adapter,
    load_backbone,
    mad_x,
    mam,
    merge,
    pair,
    save_adapter,
    serve,
    tip_adapter,
    to_lora,
    train,
    train_many,
    unipelt,
    zero_shot,
)
from graftax.hub import Hub
from graftax.models.backbone import Backbone
from graftax.serve import Bank, evaluate, evaluate_generation, evaluate_language, export, export_merged, measure, report_on
from graftax.serve.engine import Engine
from graftax.serve.evaluation import Measured
from graftax.serve.residents import Residents
from graftax.store.manifest import DataFacts
from graftax.store.query import Query
from graftax.train.queue import Run

ROWS = toy_rows(count=4)
PROMPTS = [{"prompt": "a", "completion": "b"}]

Arguments = dict[str, Any]

#: Values that hardly any parameter takes, by name; paths lie in the folder that is given.
WRONG: dict[str, Callable[[Path], Any]] = {
    "None": lambda folder: None,
    "-1": lambda folder: -1,
    "0": lambda folder: 0,
    "nan": lambda folder: math.nan,
    "inf": lambda folder: math.inf,
    "10**30": lambda folder: 10**30,
    "blank": lambda folder: "",
    "zero byte": lambda folder: "\0",
    "two lines": lambda folder: "a\nb",
    "long": lambda folder: "x" * 5000,
    "[]": lambda folder: [],
    "{}": lambda folder: {},
    "object": lambda folder: object(),
    "bytes": lambda folder: b"x",
    "True": lambda folder: True,
    "[None]": lambda folder: [None],
    "directory": lambda folder: folder / "empty",
    "missing": lambda folder: folder / "missing",
    "nowhere": lambda folder: Path("/proc/nowhere/x"),
}


class World:
    """What the calls are made on."""

    def __init__(self, tiny_dir: Path, tiny: Backbone, teller: Backbone, folder: Path):
        self.tiny_dir, self.tiny, self.teller, self.folder = tiny_dir, tiny, teller, folder
        known = {"labels": ("fruit", "metal"), "fingerprint": tiny.fingerprint}
        self.adapter = Adapter.create((LoRA(r=2), tiny.head(2)), tiny.sites, **known)
        self.teller_adapter = Adapter.create((LoRA(r=2),), teller.sites, task="lm", fingerprint=teller.fingerprint)
        self.run = folder / "run"
        self.directory = save_adapter(self.adapter, self.run / "adapter", tiny)
        self.predictor, self.generator, self.bank = Predictor(tiny), Generator(teller), Bank(tiny)
        self.predictor.load("a", self.adapter)
        self.generator.load("a", self.teller_adapter)
        self.bank.add("a", self.adapter)
        self.hub = Hub(folder / "hub")
        self.version = self.hub.push("a", self.directory)
        self.hub.record(self.version, Measured({"accuracy": 1.0}, data=DataFacts("0" * 64, 1, "x")))
        towers = write_towers(folder / "towers")
        (towers / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor", "do_resize": false}')
        self.pictures, self.texts = (load_backbone(towers, tower=name) for name in ("image", "text"))
        self.both = pair(self.pictures, self.texts)
        self.named = zero_shot(self.pictures, self.texts, ["a", "b"])
        self.count = 0

    def new(self) -> Path:
        """A path where nothing is."""
        self.count += 1
        return self.folder / f"new-{self.count}"


@pytest.fixture(scope="module")
def world(tiny_dir: Path, tiny: Backbone, teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tiny_dir, tiny, teller, tmp_path_factory.mktemp("calls"))


#: By name: the call, and all of its arguments.
CALLS: dict[str, Callable[[World], tuple[Callable[..., Any], Arguments]]] = {
    "load_backbone": lambda w: (
        load_backbone,
        {
            "path_or_hub_id": w.tiny_dir,
            "revision": "main",
            "dtype": "float32",
            "quantize": None,
            "remat": "none",
            "tower": None,
            "text_tower": None,
            "adapter_dtype": None,
            "tensor_parallel_size": 1,
            "unread": False,
        },
    ),
    "pair": lambda w: (pair, {"image": w.pictures, "text": w.texts, "name": None}),
    "load_adapter": lambda w: (
        load_adapter,
        {"directory": w.directory, "backbone": w.tiny, "revision": "main", "any_backbone": False},
    ),
    "save_adapter": lambda w: (
        save_adapter,
        {"adapter": w.adapter, "directory": w.new(), "backbone": w.tiny, "overwrite": False},
    ),
    "export_adapter": lambda w: (
        export_adapter,
        {"adapter": w.adapter, "directory": w.new(), "backbone": w.tiny, "name": "x", "overwrite": False},
    ),
    "export_merged": lambda w: (
        export_merged,
        {
            "backbone": w.tiny,
            "adapter": w.adapter,
            "out": w.new(),
            "labels": None,
            "overwrite": False,
            "any_backbone": False,
        },
    ),
    "merge": lambda w: (merge, {"backbone": w.tiny, "adapter": w.adapter, "any_backbone": False}),
    "combine": lambda w: (
        combine,
        {
            "adapters": [w.adapter],
            "weights": [1.0],
            "how": "ties",
            "rank": 2,
            "energy": None,
            "density": 0.5,
            "seed": 0,
            "head": 0,
        },
    ),
    "to_lora": lambda w: (to_lora, {"adapter": w.adapter, "rank": 2, "energy": None}),
    "train": lambda w: (
        train.train,
        {"backbone": w.tiny, "data": ROWS, "out": w.new() / "a", "recipe": Recipe(max_length=16), "progress": False},
    ),
    "grpo": lambda w: (
        grpo,
        {
            "backbone": w.teller,
            "data": PROMPTS,
            "out": w.new() / "a",
            "reward": "regex:a",
            "method": LoRA(r=2),
            "recipe": Recipe(),
            "settings": GrpoSettings(num_generations=2, max_new_tokens=2, steps=1),
            "columns": Columns(),
            "overwrite": False,
            "save_every": 30.0,
            "progress": False,
        },
    ),
    "train_many": lambda w: (
        train_many,
        {
            "backbone": w.tiny,
            "data": {"a": ROWS},
            "out": w.new(),
            "method": LoRA(r=2),
            "task": "classify",
            "recipe": Recipe(max_length=16),
            "each": None,
            "val": None,
            "columns": Columns(),
            "pack_size": 1,
            "devices": 1,
            "fsdp": False,
            "overwrite": False,
            "save_every": 30.0,
            "progress": False,
            "push": None,
            "fleet": None,
        },
    ),
    "measure": lambda w: (measure, {"predictor": w.predictor, "name": "a", "data": ROWS, "columns": Columns()}),
    "evaluate": lambda w: (evaluate, {"predictor": w.predictor, "name": "a", "data": ROWS, "columns": Columns()}),
    "report_on": lambda w: (
        report_on,
        {
            "backbone": w.teller,
            "adapters": {"a": w.teller_adapter},
            "data": [{"text": "a plum"}],
            "slices": ("text",),
            "against": None,
            "columns": Columns(),
            "chat_template": None,
        },
    ),
    "explain": lambda w: (
        explain,
        {
            "backbone": w.tiny,
            "adapter": w.adapter,
            "rows": ["a plum"],
            "method": "integrated-gradients",
            "target": "fruit",
            "labels": None,
            "truths": None,
            "name": "it",
            "any_backbone": False,
            "steps": 2,
            "draws": 0,
            "seed": 0,
        },
    ),
    "evaluate_language": lambda w: (
        evaluate_language,
        {
            "backbone": w.teller,
            "adapter": w.teller_adapter,
            "data": [{"text": "a plum"}],
            "columns": Columns(),
            "chat_template": None,
        },
    ),
    "evaluate_generation": lambda w: (
        evaluate_generation,
        {
            "generator": w.generator,
            "name": "a",
            "data": PROMPTS,
            "score": "text",
            "sampling": Sampling(max_new_tokens=2),
            "columns": Columns(),
        },
    ),
    "zero_shot": lambda w: (
        zero_shot,
        {"pictures": w.pictures, "texts": w.texts, "names": ["a", "b"], "prompts": ["{}"], "adapter": None},
    ),
    "across": lambda w: (
        across,
        {
            "pair": w.both,
            "adapter": w.named,
            "texts": ["a", "b"],
            "pictures": [np.zeros((8, 8, 3), np.uint8)],
        },
    ),
    "learned_context": lambda w: (learned_context, {"pair": w.both, "names": ["a", "b"], "tokens": 2, "each": False}),
    "tip_adapter": lambda w: (
        tip_adapter,
        {
            "pictures": w.pictures,
            "named": w.named,
            "data": [{"image": np.zeros((8, 8, 3), np.uint8), "label": "a"}],
            "columns": Columns(),
            "alpha": 1.0,
            "beta": 5.5,
        },
    ),
    "clip_adapter": lambda w: (
        clip_adapter,
        {"pictures": w.pictures, "named": w.named, "reduction": 4, "ratio": 0.2, "seed": 0},
    ),
    "mam": lambda w: (mam, {"tokens": 2, "width": 4}),
    "mad_x": lambda w: (mad_x, {"width": 4, "reduction": 2}),
    "unipelt": lambda w: (unipelt, {"tokens": 2, "width": 4, "r": 2}),
    "Average": lambda w: (lambda part, weights: Average("a", part, weights=weights), {"part": "b", "weights": (1.0, 2.0)}),
    "Split": lambda w: (lambda part, at: Split("a", part, at=at), {"part": "b", "at": (3,)}),
    "Stack": lambda w: (lambda part: graftax.Stack("a", part), {"part": "b"}),
    "Parallel": lambda w: (lambda part: graftax.Parallel("a", part), {"part": "b"}),
    "Predictor": lambda w: (Predictor, {"backbone": w.tiny, "max_length": 8} | sharing(w.tiny)),
    "Predictor.load": lambda w: (
        Predictor(w.tiny).load,
        {"name": "b", "adapter": w.adapter, "labels": None, "any_backbone": False},
    ),
    "Predictor.unload": lambda w: (w.predictor.unload, {"name": loaded(w)}),
    "Predictor.labels": lambda w: (w.predictor.labels, {"name": "a"}),
    "Predictor.task": lambda w: (w.predictor.task, {"name": "a"}),
    "Predictor.predict": lambda w: (w.predictor.predict, {"rows": ["a plum"], "adapters": "a", "top_k": 1, "threshold": 0.3}),
    "Predictor.begin": lambda w: (w.predictor.begin, {"rows": ["a plum"], "adapters": "a", "top_k": 1, "threshold": 0.3}),
    "Predictor.begin_embedding": lambda w: (w.predictor.begin_embedding, {"rows": ["a plum"], "adapters": "a"}),
    "Predictor.embed": lambda w: (w.predictor.embed, {"rows": ["a plum"], "adapters": "a"}),
    "Generator": lambda w: (
        Generator,
        {"backbone": w.teller, "chat_template": "plain", "most_lanes": 4} | sharing(w.teller),
    ),
    "Generator.begin": lambda w: (
        w.generator.begin,
        {"prompt": "a", "adapter": None, "sampling": Sampling(max_new_tokens=2), "told": 1, "guide": None},
    ),
    "Generator.tokens": lambda w: (w.generator.tokens, {"prompt": "a", "adapter": None}),
    "Generator.load": lambda w: (Generator(w.teller).load, {"name": "b", "adapter": w.teller_adapter, "any_backbone": False}),
    "Generator.unload": lambda w: (w.generator.unload, {"name": continuing(w)}),
    "Generator.generate": lambda w: (
        w.generator.generate,
        {"prompts": ["a"], "adapters": "a", "sampling": Sampling(max_new_tokens=2)},
    ),
    "Generator.stream": lambda w: (
        lambda **given: list(w.generator.stream(**given)),
        {"prompts": ["a"], "adapters": "a", "sampling": Sampling(max_new_tokens=2)},
    ),
    "Bank": lambda w: (Bank, {"backbone": w.tiny, "capacity": 8, "apart": False}),
    "Bank.add": lambda w: (Bank(w.tiny).add, {"name": "b", "adapter": w.adapter, "any_backbone": False}),
    "Bank.remove": lambda w: (w.bank.remove, {"name": resident(w)}),
    "Bank.slot": lambda w: (w.bank.slot, {"name": "a"}),
    "Adapter.create": lambda w: (
        Adapter.create,
        {"methods": (LoRA(r=2),), "sites": w.tiny.sites, "seed": 0},
    ),
    "Hub": lambda w: (Hub, {"url": w.new(), "trusted": None}),
    "Hub.push": lambda w: (
        w.hub.push,
        {
            "name": "a",
            "directory": w.directory,
            "version": None,
            "tags": ("prod",),
            "keep_for": None,
            "sign": None,
        },
    ),
    "Hub.import_": lambda w: (
        w.hub.import_,
        {
            "name": "a",
            "source": w.directory,
            "backbone": None,
            "version": None,
            "tags": ("prod",),
            "keep_for": None,
            "sign": None,
        },
    ),
    "Hub.export": lambda w: (
        w.hub.export,
        {"reference": "a:1", "target": w.new(), "format": None, "backbone": None, "overwrite": False},
    ),
    "Hub.diff": lambda w: (
        w.hub.diff,
        {"left": "a:1", "right": w.directory, "backbone": None, "data": None, "columns": Columns()},
    ),
    "Hub.push_run": lambda w: (w.hub.push_run, {"prefix": "x", "directory": w.run, "tags": ("prod",), "sign": None}),
    "Hub.forget": lambda w: (w.hub.forget, {"unused_for": timedelta(days=30)}),
    "Hub.under": lambda w: (w.hub.under, {"prefix": "x", "tags": ("prod",), "sign": None}),
    "Hub.pull": lambda w: (
        w.hub.pull,
        {"reference": "a:1", "directory": w.new(), "overwrite": False, "route": "x"},
    ),
    "Hub.pull_all": lambda w: (w.hub.pull_all, {"references": ("a:1",), "route": "x"}),
    "Hub.find": lambda w: (w.hub.find, {"query": Query("a"), "limit": 1}),
    "Hub.list": lambda w: (w.hub.list, {"prefix": "a", "limit": 1}),
    "Hub.search": lambda w: (
        w.hub.search,
        {
            "text": "a",
            "fits": w.tiny,
            "backbone": "x",
            "task": "x",
            "method": "x",
            "label": "x",
            "metric": "x>1",
            "all_versions": False,
            "limit": 1,
        },
    ),
    "Hub.versions": lambda w: (w.hub.versions, {"name": "a"}),
    "Hub.resolve": lambda w: (w.hub.resolve, {"reference": "a:1", "route": "x"}),
    "Hub.show": lambda w: (w.hub.show, {"reference": "a:1"}),
    "Hub.tag": lambda w: (w.hub.tag, {"name": "a", "tag": "prod", "to": 1}),
    "Hub.yank": lambda w: (w.hub.yank, {"reference": second(w), "reason": None}),
    "Hub.remove": lambda w: (w.hub.remove, {"reference": second(w), "force": True}),
    "Hub.verify": lambda w: (w.hub.verify, {"reference": "a:1"}),
    "Hub.leaderboard": lambda w: (w.hub.leaderboard, {"task": "classify", "metric": None, "data": None}),
    "Recipe.replace": lambda w: (lambda epochs: Recipe().replace(epochs=epochs), {"epochs": 2}),
    "Sampling.changed": lambda w: (Sampling().changed, {"changes": {"max_new_tokens": 2}}),
}


def loaded(world: World) -> str:
    world.predictor.load("gone", world.adapter)
    return "gone"


def sharing(backbone: Backbone) -> dict[str, Any]:
    """Residents, and an engine that has them."""
    residents = Residents(backbone)
    return {"residents": residents, "engine": Engine(backbone, residents)}


def continuing(world: World) -> str:
    world.generator.load("gone", world.teller_adapter)
    return "gone"


def second(world: World) -> str:
    """A version that may go."""
    return str(world.hub.push(f"gone/{world.new().name}", world.directory))


def resident(world: World) -> str:
    world.bank.add("gone", world.adapter)
    return "gone"


ANY_TEXT = {"zero byte", "two lines", "long"}
A_NAME = {"blank", *ANY_TEXT}
NOTHING, NONE_OF_THEM, FLAG, ZERO = {"None"}, {"[]"}, {"True"}, {"0"}
A_PLACE = {"two lines", "directory", "missing"}
#: By call and parameter: those of the values above that it takes for what they are; all others must be refused.
RIGHT: dict[str, set[str]] = {
    "load_backbone.revision": A_NAME,  # of a Hub id, and this is a directory
    "load_backbone.quantize": NOTHING,
    "load_backbone.remat": NOTHING,
    "load_backbone.tower": NOTHING,
    "load_backbone.text_tower": NOTHING,
    "load_backbone.adapter_dtype": NOTHING,
    "load_backbone.unread": FLAG,
    "pair.name": {"None", "two lines", "long", "zero byte"},
    "zero_shot.prompts": NOTHING,
    "zero_shot.adapter": NOTHING,
    "learned_context.each": FLAG,
    "tip_adapter.alpha": {"10**30"},
    "tip_adapter.beta": {"10**30"},
    "clip_adapter.ratio": ZERO,
    "clip_adapter.seed": ZERO,
    "load_adapter.revision": A_NAME,
    "load_adapter.any_backbone": FLAG,
    "save_adapter.directory": {"two lines", "missing"},
    "save_adapter.overwrite": FLAG,
    "export_adapter.directory": {"two lines", "missing"},
    "export_adapter.name": {"None", "two lines", "long"},
    "export_adapter.overwrite": FLAG,
    "export_merged.out": {"two lines", "missing"},
    "export_merged.labels": NOTHING,
    "export_merged.overwrite": FLAG,
    "export_merged.any_backbone": FLAG,
    "merge.any_backbone": FLAG,
    "combine.rank": NOTHING,
    "combine.energy": NOTHING,
    "combine.seed": ZERO,
    "combine.head": {"None", "0"},
    "to_lora.rank": NOTHING,
    "to_lora.energy": NOTHING,
    "train.out": {"missing"},  # its name is the adapter's
    "train.progress": FLAG,
    "grpo.out": {"missing"},
    "grpo.overwrite": FLAG,
    "grpo.save_every": ZERO,
    "grpo.progress": FLAG,
    "train_many.out": A_PLACE,
    "train_many.method": {"None", "[]"},  # the head alone
    "train_many.each": {"None", "{}"},
    "train_many.val": NOTHING,
    "train_many.pack_size": NOTHING,
    "train_many.devices": NOTHING,
    "train_many.overwrite": FLAG,
    "train_many.save_every": ZERO,
    "train_many.progress": FLAG,
    "train_many.push": NOTHING,
    "train_many.fleet": NOTHING,
    "explain.method": NOTHING,
    "explain.target": NOTHING,
    "explain.labels": NOTHING,
    "explain.truths": NOTHING,
    "explain.name": {"None", *ANY_TEXT},
    "explain.any_backbone": FLAG,
    "explain.draws": ZERO,
    "explain.seed": ZERO,
    "report_on.slices": NONE_OF_THEM,
    "report_on.against": NOTHING,
    "report_on.chat_template": NOTHING,
    "evaluate_language.chat_template": NOTHING,
    "evaluate_generation.name": NOTHING,
    "Average.part": A_NAME,  # which adapters there are is seen where rows ask for one
    "Average.weights": NOTHING,
    "Split.part": A_NAME,
    "Stack.part": A_NAME,
    "Parallel.part": A_NAME,
    "Predictor.max_length": NOTHING,
    "Predictor.engine": NOTHING,
    "Predictor.begin.rows": NONE_OF_THEM,
    "Predictor.begin.adapters": {"None", "[None]"},
    "Predictor.begin.top_k": NOTHING,
    "Predictor.begin.threshold": ZERO,
    "Predictor.begin_embedding.rows": NONE_OF_THEM,
    "Predictor.begin_embedding.adapters": {"None", "[None]"},
    "Predictor.load.name": ANY_TEXT,
    "Predictor.load.labels": NOTHING,
    "Predictor.load.any_backbone": FLAG,
    "Predictor.predict.rows": NONE_OF_THEM,
    "Predictor.predict.adapters": {"None", "[None]"},
    "Predictor.predict.top_k": NOTHING,
    "Predictor.predict.threshold": ZERO,
    "Predictor.embed.rows": NONE_OF_THEM,
    "Predictor.embed.adapters": {"None", "[None]"},
    "Generator.chat_template": NOTHING,
    "Generator.engine": NOTHING,
    "Generator.begin.prompt": {"zero byte", "two lines"},  # a long one has no room
    "Generator.begin.adapter": NOTHING,
    "Generator.begin.guide": NOTHING,
    "Generator.begin.told": {"None", "0"},
    "Generator.tokens.prompt": {"zero byte", "two lines", "long"},
    "Generator.tokens.adapter": NOTHING,
    "Generator.load.name": ANY_TEXT,
    "Generator.load.any_backbone": FLAG,
    "Generator.generate.prompts": NONE_OF_THEM,
    "Generator.generate.adapters": {"None", "[None]"},
    "Generator.stream.prompts": NONE_OF_THEM,
    "Generator.stream.adapters": {"None", "[None]"},
    "Bank.apart": FLAG,
    "Bank.add.name": ANY_TEXT,
    "Bank.add.any_backbone": FLAG,
    "Bank.slot.name": NOTHING,  # slot 0
    "Adapter.create.methods": NONE_OF_THEM,
    "Adapter.create.seed": ZERO,
    "Hub.url": {"None", "nowhere", *A_PLACE},  # what is there is seen when something is asked
    "Hub.trusted": NOTHING,
    "Hub.push.version": NOTHING,
    "Hub.push.tags": NONE_OF_THEM,
    "Hub.push.keep_for": NOTHING,
    "Hub.push.sign": NOTHING,
    "Hub.import_.backbone": NOTHING,
    "Hub.import_.version": NOTHING,
    "Hub.import_.tags": NONE_OF_THEM,
    "Hub.import_.keep_for": NOTHING,
    "Hub.import_.sign": NOTHING,
    "Hub.export.target": {"two lines", "missing"},
    "Hub.export.format": NOTHING,
    "Hub.export.backbone": NOTHING,
    "Hub.export.overwrite": FLAG,
    "Hub.diff.backbone": NOTHING,
    "Hub.diff.data": NOTHING,
    "Hub.push_run.prefix": {"blank"},
    "Hub.push_run.tags": NONE_OF_THEM,
    "Hub.push_run.sign": NOTHING,
    "Hub.under.prefix": {"blank"},
    "Hub.under.tags": NONE_OF_THEM,
    "Hub.under.sign": NOTHING,
    "Hub.pull.directory": {"None", "two lines", "missing"},
    "Hub.pull.overwrite": FLAG,
    "Hub.pull.route": {"None", *A_NAME},
    "Hub.pull_all.references": NONE_OF_THEM,
    "Hub.pull_all.route": {"None", *A_NAME},
    "Hub.list.prefix": {"blank"},
    "Hub.search.text": {"None", "blank", "two lines", "long"},
    "Hub.search.fits": {"None", *A_NAME},
    "Hub.search.backbone": {"None", *A_NAME},
    "Hub.search.task": {"None", *A_NAME},
    "Hub.search.method": {"None", *A_NAME},
    "Hub.search.label": {"None", *A_NAME},
    "Hub.search.metric": NOTHING,
    "Hub.search.all_versions": FLAG,
    "Hub.resolve.route": {"None", *A_NAME},
    "Hub.tag.to": NOTHING,
    "Hub.yank.reason": {"None", *ANY_TEXT},
    "Hub.remove.force": FLAG,
    "Hub.verify.reference": NOTHING,
    "Hub.leaderboard.metric": NOTHING,
    "Hub.leaderboard.data": NOTHING,
    "Sampling.changed.changes": {"{}"},
}


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run would train, and how far a merged model is from its parts, are other tests' matter."""
    monkeypatch.setattr(Run, "go", lambda self: {job.name: job for job in self.jobs})
    monkeypatch.setattr(export, "_drift", lambda *_: 0.0)


@pytest.mark.parametrize("name", CALLS)
def test_each_parameter_takes_what_it_can_mean(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else: a line that a person can read, never an exception from somewhere within."""
    call, good = CALLS[name](world)
    call(**good)
    for parameter in good:
        taken = set()
        for word in WRONG:
            folder = world.new()
            folder.mkdir()
            monkeypatch.chdir(folder)
            (folder / "empty").mkdir()
            call, arguments = CALLS[name](world)
            given = arguments | {parameter: WRONG[word](folder)}
            if refused(functools.partial(call, **given)) is None:
                taken.add(word)
        assert taken == RIGHT.get(f"{name}.{parameter}", set()), f"{name}({parameter}=...)"


def test_every_parameter_is_asked(world: World) -> None:
    """But for what is the run's own, and what is given on to another call."""
    for name, made in CALLS.items():
        call, arguments = made(world)
        wanted = {
            parameter.name
            for parameter in inspect.signature(call).parameters.values()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        assert wanted - {*arguments} <= {"training", "before"} if name == "Adapter.create" else wanted <= {*arguments}, name


def test_unknown_and_missing_arguments_are_pythons_matter(world: World) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'backbone'"):
        load_adapter(world.directory)


# -- what is made of settings -----------------------------------------------------------------------------------------

PUBLIC = {name: getattr(module, name) for module in (graftax, serve, train) for name in module.__all__}
SETTINGS = {
    name: one
    for name, one in PUBLIC.items()
    if inspect.isclass(one)
    and issubclass(one, (Method, Recipe, Sampling, Adapter, GrpoSettings))
    and not inspect.isabstract(one)
}
#: Fields whose values are looked at where they are used.
LATER = {"Adapter.states", "Adapter.metrics", "Fuse.trained"}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_field_holds_what_it_was_given_or_refuses_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cls = SETTINGS[name]
    needed = {"methods": (), "states": {}} if cls is Adapter else {}
    for field in dataclasses.fields(cls):
        for word, make in WRONG.items():
            value = make(tmp_path)
            made = made_of(cls, needed | {field.name: value})
            if made is not None and f"{name}.{field.name}" not in LATER:
                held = getattr(made, field.name)
                assert same(held, value) or (field.name, word) == ("clip", "inf"), f"{name}({field.name}={word}) is {held!r}"


@pytest.mark.parametrize("field", ["text", "pair", "image"])
def test_columns_hold_names_of_columns(field: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for word, make in WRONG.items():
        value = make(tmp_path)
        made = made_of(Columns, {field: value})
        if made is not None:
            assert made[field] == (field if value is None else value), f"Columns({field}={word})"


def made_of(cls: type, given: Arguments) -> Any:
    """The settings, or None where they are refused."""
    made: list[Any] = []
    return made[0] if refused(lambda: made.append(cls(**given))) is None else None


def same(held: Any, given: Any) -> bool:
    """Whether a setting is what was given: an int of a float, a list of a tuple."""
    if isinstance(held, float) and isinstance(given, int):
        return held == float(given)
    return held == (tuple(given) if isinstance(held, tuple) else given)


#: Methods that take nothing, or what graftax itself has made.
OF_OUR_OWN = {
    *(f"{cls}.facts" for cls in ("Predictor", "Generator", "Hub")),
    *("Sampling.under", "Bank.put", "Bank.reserve", "Bank.state_for", "Bank.kinds"),
    *("Hub.record", "Hub.collect", "Hub.parents", "Hub.children"),
}


def test_every_public_name_is_asked() -> None:
    """Those that are not are made by graftax, or of functions to be traced."""
    asked = {*SETTINGS, *CALLS, "Columns"}
    answers = {
        "Prediction",
        "Continuation",
        "Result",
        "GrpoResult",
        "Measured",
        "Report",
        "Explanation",
        "Explanations",
        "Confusion",
        "Examples",
        "Interrupted",
        "GraftaxError",
    }
    others = {"METHODS", "Method", "Composition", "Backbone", "Site"}
    assert {*PUBLIC} - asked - answers - others == set()
    for cls in (Predictor, Generator, Bank, Hub, Sampling, Recipe):
        for method in (name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")):
            assert f"{cls.__name__}.{method}" in asked | OF_OUR_OWN


BROKEN: list[Any] = [None, [], {"lora": None}, {"lora": {}}, {"lora": {None: ({}, {})}}, {"lora": [1]}, {1: {}}]


@pytest.mark.parametrize("states", BROKEN, ids=str)
def test_arrays_that_are_none_are_refused_where_they_meet_a_backbone(states: Any, world: World) -> None:
    for meet in (
        lambda one: world.predictor.load("x", one),
        lambda one: save_adapter(one, world.new(), world.tiny),
        lambda one: merge(world.tiny, one),
        lambda one: combine([one], [1.0]),
    ):
        line = refused(lambda meet=meet: meet(Adapter((LoRA(r=2),), states)))
        assert line is not None


def test_the_home_of_somebody_unknown() -> None:
    assert refused(lambda: load_backbone("~nobody-of-this-name/x")) is not None
