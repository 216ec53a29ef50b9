"""What PEFT saves beside its method (weights, biases, rows of tokens), read with PEFT's logits and written as PEFT reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import test_decoders
import test_encoder_decoders
import torch
import transformers
from cases import LABELS, logits, randomised
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft_pairs import Pair, at_tokens, make, rows
from reference import saved, torch_logits, torch_model
from refusals import refused
from safetensors.numpy import load_file, save_file
from test_peft_decoders import our_logits

from graftax import (
    Adapter,
    BitFit,
    DoRA,
    Full,
    GraftaxError,
    LoRA,
    Method,
    TrainableTokens,
    load_adapter,
    load_backbone,
    merge,
    save_adapter,
)
from graftax.models.backbone import Backbone

Pairs = Callable[..., Pair]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A pair by name: `bert` and `roberta` classify; the others are language models, `+N` with N more rows of words."""

    @functools.cache
    def directory(name: str) -> Path:
        shape, _, more = name.partition("+")
        model = torch_model(shape) if shape in ("bert", "roberta") else test_decoders.torch_model(shape)
        if more:
            model.resize_token_embeddings(97 + int(more))
        return saved(model, tmp_path_factory.mktemp(name))

    @functools.cache
    def backbone(name: str) -> Backbone:
        return load_backbone(directory(name))

    def get(name: str) -> Pair:
        if name in ("bert", "roberta"):
            auto, more = transformers.AutoModelForSequenceClassification, {"num_labels": len(LABELS)}
        else:
            auto, more = transformers.AutoModelForCausalLM, {}
        return Pair(backbone(name), lambda: auto.from_pretrained(directory(name), dtype=torch.float32, **more).eval())

    return get


def said(backbone: Backbone, adapter: Adapter) -> np.ndarray:
    return (our_logits if backbone.family.generates else logits)(backbone, adapter, rows(backbone))


def assert_same(pair: Pair, adapter: Adapter, theirs: np.ndarray) -> None:
    ours = at_tokens(said(pair.backbone, adapter), pair)
    np.testing.assert_allclose(ours, at_tokens(theirs, pair), atol=1e-4, rtol=1e-4)


LORA: dict[str, Any] = {"r": 3, "lora_alpha": 7}
#: backbone, options beside a LoRA, the methods that they become, and whether PEFT reads what we write of them
CASES: dict[str, tuple[str, dict[str, Any], set[str], bool]] = {
    "bias-all": ("bert", {"bias": "all"}, {"bitfit"}, True),
    "bias-lora": ("bert", {"bias": "lora_only", "target_modules": ["query", "output.dense"]}, {"bitfit"}, True),
    "bias-all-decoder": ("gpt2", {"bias": "all", "target_modules": ["c_attn"]}, {"bitfit"}, True),
    "bias-of-none": ("llama", {"bias": "all"}, set(), True),
    "lora_bias": ("bert", {"lora_bias": True}, set(), True),
    "lora_bias-where-is-none": ("llama", {"lora_bias": True}, set(), True),
    "pooler": ("bert", {"modules_to_save": ["pooler"]}, {"full"}, True),
    "norms": ("roberta", {"modules_to_save": ["LayerNorm"]}, {"full"}, True),
    "norms-decoder": ("llama", {"modules_to_save": ["input_layernorm", "norm"]}, {"full"}, True),
    "embeddings": ("bert", {"modules_to_save": ["word_embeddings"]}, {"full"}, True),
    "both-tables": ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}, {"full"}, True),
    "a-conv1d": ("gpt2", {"modules_to_save": ["mlp.c_fc"], "target_modules": ["c_attn"]}, {"full"}, True),
    "tied-read": ("llama-biased", {"modules_to_save": ["embed_tokens"]}, {"full"}, True),
    "tied-said": ("gpt2", {"modules_to_save": ["lm_head"], "target_modules": ["c_attn"]}, {"full"}, True),
    "tokens": ("llama", {"trainable_token_indices": [12, 79]}, {"trainable_tokens"}, True),
    "tokens-tied": ("llama-biased", {"trainable_token_indices": {"embed_tokens": [12, 79]}}, {"trainable_tokens"}, True),
    "tokens-both": (
        "llama",
        {"trainable_token_indices": {"embed_tokens": [12], "lm_head": [12]}},
        {"trainable_tokens"},
        False,
    ),
    "lora-said-tied": ("llama-biased", {"target_modules": ["lm_head", "q_proj"]}, set(), True),
    "lora-tied-weights": ("llama-biased", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, set(), True),
    "saved-tied-weights": (
        "llama-biased",
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"full"},
        True,
    ),
    "all-at-once": (
        "llama-biased",
        {"modules_to_save": ["norm"], "trainable_token_indices": [12], "bias": "lora_only"},
        {"full", "trainable_tokens", "bitfit"},
        True,
    ),
    "saved-among-all-linear": (
        "llama",
        {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": "all-linear"},
        {"full"},
        True,
    ),
    "norms-of-heads": ("qwen3", {"modules_to_save": ["q_norm", "k_norm"], "target_modules": ["q_proj"]}, {"full"}, True),
    "norms-that-add-one": (
        "gemma2",
        {"modules_to_save": ["pre_feedforward_layernorm", "lm_head"], "target_modules": ["q_proj"]},
        {"full"},
        True,
    ),
    "fused": ("phi3", {"modules_to_save": ["lm_head"], "target_modules": "all-linear", "bias": "lora_only"}, {"full"}, True),
    "other-names-of-tables": (
        "neox",
        {"modules_to_save": ["embed_in", "embed_out"], "target_modules": ["query_key_value"], "bias": "all"},
        {"full", "bitfit"},
        True,
    ),
    "dora-and-norms": ("llama", {"use_dora": True, "modules_to_save": ["norm"]}, {"full"}, True),
}


#: Compared every time; the others differ from these in a place of the same code.
EVERY_TIME = ("bias-all", "bias-lora", "lora_bias", "both-tables", "a-conv1d", "tied-read", "tied-said", "tokens-tied")
EVERY_TIME += ("lora-tied-weights", "all-at-once")


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in EVERY_TIME else pytest.mark.slow) for c in CASES])
def test_options_beside_a_lora(case: str, pairs: Pairs, tmp_path: Path) -> None:
    """Invariant 11: PEFT's logits, the methods that the options are, and back."""
    name, options, beside, both_ways = CASES[case]
    pair = pairs(name)
    task = "CAUSAL_LM" if pair.backbone.family.generates else "SEQ_CLS"
    model, path = make(pair, tmp_path / "theirs", peft.LoraConfig(task_type=task, **LORA, **options))
    theirs = torch_logits(model, rows(pair.backbone))
    adapter = load_adapter(path, pair.backbone)
    assert {method.name for method in adapter.methods} - {"lora", "dora", "head"} == beside
    assert_same(pair, adapter, theirs)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    again = load_adapter(back, pair.backbone)
    assert again.methods == adapter.methods
    assert_same(pair, again, theirs)
    assert (json.loads((back / "adapter_config.json").read_text())["peft_type"] == "LORA") == both_ways
    if both_ways:
        loaded = peft.PeftModel.from_pretrained(pair.model(), back).eval()
        np.testing.assert_allclose(torch_logits(loaded, rows(pair.backbone)), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "beside"),
    [
        (peft.OFTConfig(task_type="SEQ_CLS", oft_block_size=8, target_modules=["query"], bias="oft_only"), "bitfit"),
        (peft.AdaLoraConfig(task_type="SEQ_CLS", init_r=3, total_step=9, target_modules=["query"], bias="all"), "bitfit"),
        (peft.IA3Config(task_type="SEQ_CLS", modules_to_save=["LayerNorm"]), "full"),
    ],
    ids=["oft", "adalora", "ia3"],
)
def test_options_beside_other_methods(config: Any, beside: str, pairs: Pairs, tmp_path: Path) -> None:
    """They are read with PEFT's logits; together they are written as graftax's own."""
    pair = pairs("bert")
    model, path = make(pair, tmp_path / "theirs", config)
    adapter = load_adapter(path, pair.backbone)
    assert adapter.method(beside) is not None
    theirs = torch_logits(model, rows(pair.backbone))
    assert_same(pair, adapter, theirs)
    back = save_adapter(adapter, tmp_path / "back", pair.backbone)
    assert json.loads((back / "adapter_config.json").read_text())["peft_type"] == "GRAFTAX"
    assert_same(pair, load_adapter(back, pair.backbone), theirs)


# -- vocabularies that were resized ------------------------------------------------------------------------------------------


def on_resized(pair: Pair, directory: Path, seed: int = 0, **options: Any) -> tuple[Any, Path, Path]:
    """PEFT's model of a LoRA beside three added tokens, its directory, and that of the resized model it was trained on."""
    torch.manual_seed(seed)
    model = pair.model()
    model.resize_token_embeddings(100, mean_resizing=False)
    base = saved(model, directory / "resized")
    model, path = make(
        Pair(pair.backbone, lambda: model), directory / "adapter", peft.LoraConfig(task_type="CAUSAL_LM", **LORA, **options)
    )
    return model, path, base


@pytest.mark.parametrize("name", ["llama", "llama-biased"])
@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=["added", "trained"])
def test_resized_vocabulary(name: str, options: dict[str, Any], pairs: Pairs, tmp_path: Path) -> None:
    """PEFT saves both tables. On the backbone that was resized in the same way they are its own, or the trained ones count."""
    model, path, base = on_resized(pairs(name), tmp_path, **options)
    assert {"embed_tokens.weight", "lm_head.weight"} <= {
        ".".join(key.split(".")[-2:]) for key in load_file(path / "adapter_model.safetensors")
    }
    auto = transformers.AutoModelForCausalLM
    pair = Pair(load_backbone(base), lambda: auto.from_pretrained(base, dtype=torch.float32).eval())
    adapter = load_adapter(path, pair.backbone)
    assert {method.name for method in adapter.methods} == ({"lora", "full"} if options else {"lora"})
    assert_same(pair, adapter, torch_logits(model, rows(pair.backbone)))


@pytest.mark.parametrize("name", ["llama", "llama-biased"])
def test_tables_of_another_resizing(name: str, pairs: Pairs, tmp_path: Path) -> None:
    """Added rows that began elsewhere than this backbone's are the adapter's, as when PEFT loads its file."""
    _, path, _ = on_resized(pairs(name), tmp_path / "one", seed=1)
    _, _, base = on_resized(pairs(name), tmp_path / "other", seed=2)
    auto = transformers.AutoModelForCausalLM
    pair = Pair(load_backbone(base), lambda: auto.from_pretrained(base, dtype=torch.float32).eval())
    adapter = load_adapter(path, pair.backbone)
    assert {site.name for site in adapter.states["full"]} == {"word_embeddings", "lm_head"}
    theirs = torch_logits(peft.PeftModel.from_pretrained(pair.model(), path).eval(), rows(pair.backbone))
    assert_same(pair, adapter, theirs)


@pytest.mark.parametrize("name", ["llama", "llama-biased"])
def test_embeddings_that_are_saved_and_were_not_trained(name: str, pairs: Pairs, tmp_path: Path) -> None:
    """`save_embedding_layers=True`: the backbone's own tables, once more."""
    pair = pairs(name)
    model, path = make(pair, tmp_path, peft.LoraConfig(task_type="CAUSAL_LM", **LORA))
    model.save_pretrained(path, save_embedding_layers=True)
    assert "base_model.model.model.embed_tokens.weight" in load_file(path / "adapter_model.safetensors")
    adapter = load_adapter(path, pair.backbone)
    assert [method.name for method in adapter.methods] == ["lora"]
    assert_same(pair, adapter, torch_logits(model, rows(pair.backbone)))


def test_more_words_than_the_backbone(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("llama")
    _, path, _ = on_resized(pair, tmp_path)
    message = rf"made for {pair.backbone.name}.*another vocabulary: model\.embed_tokens has 100 rows, .* has 97\. .*resized"
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, pair.backbone)


@pytest.mark.parametrize("name", ["llama", "llama-biased"])
def test_tables_under_a_lora(name: str, pairs: Pairs, tmp_path: Path) -> None:
    """PEFT saves the table that a LoRA acts on; another than the backbone's stands in for it, at both places of a tied one."""
    pair = pairs(name)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **LORA, target_modules=["embed_tokens", "q_proj"])
    _, path = make(pair, tmp_path, config)
    assert {method.name for method in load_adapter(path, pair.backbone).methods} == {"lora"}
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    (key,) = (key for key in tensors if key.endswith("base_layer.weight"))
    save_file(
        {**tensors, key: tensors[key] + 0.5 * np.random.default_rng(0).standard_normal(tensors[key].shape, np.float32)}, file
    )
    theirs = torch_logits(peft.PeftModel.from_pretrained(pair.model(), path).eval(), rows(pair.backbone))
    adapter = load_adapter(path, pair.backbone)
    assert len(adapter.states["full"]) == (2 if name == "llama-biased" else 1)
    assert_same(pair, adapter, theirs)


def test_copies_in_half_precision(pairs: Pairs, tmp_path: Path) -> None:
    """A copy rounded to bfloat16 is the backbone's; in float32 the smallest change is one."""
    pair = pairs("llama")
    _, path = make(pair, tmp_path, peft.LoraConfig(task_type="CAUSAL_LM", **LORA))
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    (site,) = (site for site in pair.backbone.sites if site.name == "final_norm")
    key, scale = f"base_model.model.{site.path}.weight", site.weights().scale
    rounded = torch.tensor(scale).bfloat16().float().numpy()
    assert (rounded != scale).any()
    save_file({**tensors, key: rounded}, file)
    assert len(load_adapter(path, pair.backbone).methods) == 1
    save_file({**tensors, key: np.nextafter(scale, np.float32(9.0))}, file)
    ((changed, (leaves, _)),) = load_adapter(path, pair.backbone).states["full"].items()
    assert changed == site
    np.testing.assert_allclose(leaves["kernel"] if "kernel" in leaves else leaves["scale"], np.nextafter(scale, 9) - scale)


# -- what is refused ----------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]], str]] = {
    "a-bias-that-is-not-there": ({"bias": "all"}, {}, r"bias='all' but no tensor .*\.bias"),
    "a-module-that-is-not-there": (
        {"modules_to_save": ["lm_head"]},
        {},
        r"modules_to_save='lm_head' but no tensor .*lm_head\.weight",
    ),
    "another-head": (
        {"modules_to_save": ["qa_outputs"]},
        {"qa_outputs.weight": (2, 32)},
        r"modules_to_save='qa_outputs'.*no module",
    ),
    "another-shape": ({}, {"model.norm.weight": (31,)}, r"holds model\.norm whole, with shape \(31,\).*\(32,\)"),
    "other-rows": (
        {"trainable_token_indices": {"embed_tokens": [1], "lm_head": [2]}},
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": (1, 32)},
        "every module must have the same tokens",
    ),
    "rows-under-a-lora": (
        {"trainable_token_indices": [1], "target_modules": ["embed_tokens"]},
        {},
        r"model\.embed_tokens: new weights under lora are not supported",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_option(case: str, pairs: Pairs, tmp_path: Path) -> None:
    """The option is named, and the model that the file says it is for."""
    pair, (changes, more, message) = pairs("llama-biased" if case.startswith("a-bias") else "llama"), REFUSED[case]
    _, path = make(pair, tmp_path, peft.LoraConfig(task_type="CAUSAL_LM", **LORA, target_modules=["q_proj"]))
    config = json.loads((path / "adapter_config.json").read_text()) | {"base_model_name_or_path": "a/base"} | changes
    (path / "adapter_config.json").write_text(json.dumps(config))
    file = path / "adapter_model.safetensors"
    added = {f"base_model.model.{key}": np.ones(shape, np.float32) for key, shape in more.items()}
    save_file({**load_file(file), **added}, file)
    with pytest.raises(GraftaxError, match=rf"made for a/base, .*{message}"):
        load_adapter(path, pair.backbone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules_to_save": ["shared"]}, r"modules_to_save='shared': .*shared\.weight is not this backbone's weight"),
        (
            {"target_modules": ["q", "shared"]},
            r"shared is a table that both towers read, where no method acts: .*lora_embedding_A",
        ),
        ({"trainable_token_indices": [3, 5]}, r"shared is a table that both towers read, where no method acts"),
    ],
    ids=["saved", "targeted", "tokens"],
)
def test_the_table_of_both_towers(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = test_encoder_decoders.torch_model("t5")
    base = saved(model, tmp_path / "base")
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **LORA, **{"target_modules": ["q"], **options})
    pair = Pair(load_backbone(base), lambda: model)
    _, path = make(pair, tmp_path / "adapter", config)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, pair.backbone)


def test_a_bias_beside_a_dora(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft.LoraConfig(task_type="SEQ_CLS", **LORA, use_dora=True, bias="lora_only"))
    with pytest.raises(GraftaxError, match="a trained bias beside dora is not supported"):
        load_adapter(path, pair.backbone)


def test_refused_where_there_is_no_bias_to_merge(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("llama")
    _, path = make(pair, tmp_path, peft.LoraConfig(task_type="CAUSAL_LM", **LORA, lora_bias=True))
    with pytest.raises(GraftaxError, match=r"adds a bias to model\.layers\.0\.self_attn\.q_proj, which has none"):
        merge(pair.backbone, load_adapter(path, pair.backbone))


# -- what graftax trains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ((LoRA(r=2), BitFit()), {"bias": "all"}),
        ((LoRA(r=2), BitFit(targets=("q_proj",))), None),
        ((LoRA(r=2), Full(targets=("embed_tokens",))), {"modules_to_save": ["model.embed_tokens"]}),
        ((LoRA(r=2), Full(targets=("q_proj",))), None),
        ((LoRA(r=2), TrainableTokens(ids=(5, 6))), {"trainable_token_indices": [5, 6]}),
        ((DoRA(r=2), BitFit()), None),
    ],
    ids=["bitfit", "some-biases", "full", "under-lora", "tokens", "dora"],
)
def test_written_as_pefts_options(
    methods: tuple[Method, ...], words: dict[str, Any] | None, pairs: Pairs, tmp_path: Path
) -> None:
    """Where PEFT has words for all of it, PEFT reads it; else the file is graftax's own."""
    pair = pairs("llama-biased")
    adapter = randomised(Adapter.create(methods, pair.backbone.sites, task="lm", fingerprint=pair.backbone.fingerprint))
    path = save_adapter(adapter, tmp_path / "a", pair.backbone)
    config = json.loads((path / "adapter_config.json").read_text())
    ours = said(pair.backbone, adapter)
    np.testing.assert_allclose(said(pair.backbone, load_adapter(path, pair.backbone)), ours, atol=1e-5)
    assert config["peft_type"] == ("GRAFTAX" if words is None else "LORA")
    if words is not None:
        assert {key: config[key] for key in words} == words
        loaded = peft.PeftModel.from_pretrained(pair.model(), path).eval()
        assert_same(pair, adapter, torch_logits(loaded, rows(pair.backbone)))


# -- whatever a config says ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["lm_head", "embed_tokens", "norm", "q_proj", "", "all", "lora_only", "model", "all-linear"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
OPTIONS = ("bias", "modules_to_save", "trainable_token_indices", "lora_bias", "ensure_weight_tying", "target_modules")
OPTIONS += ("task_type", "auto_mapping", "base_model_name_or_path", "use_dora")


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=3))
def test_any_option_is_read_or_refused_in_a_line(changes: dict[str, Any], lora_directory: tuple[Backbone, Path]) -> None:
    """What is read has the file's LoRA; all else is one line."""
    backbone, path = lora_directory
    config = {"peft_type": "LORA", "r": 3, "target_modules": ["q_proj"], **changes}
    (path / "adapter_config.json").write_text(json.dumps(config))
    refused(lambda: load_adapter(path, backbone).states["lora"])


@pytest.fixture
def lora_directory(pairs: Pairs, tmp_path: Path) -> tuple[Backbone, Path]:
    pair = pairs("llama")
    config = peft.LoraConfig(task_type="CAUSAL_LM", **LORA, target_modules=["q_proj"])
    return pair.backbone, make(pair, tmp_path, config)[1]
