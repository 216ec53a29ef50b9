"""Every `adapter_config.json` of a collection that strangers published: read with PEFT's logits, or refused with a reason."""

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
import torch
import transformers
from conftest import SHARED
from peft_pairs import Pair, at_tokens, make, rows
from reference import saved, torch_logits
from safetensors.numpy import save_file
from test_peft_decoders import our_logits

from graftax import GraftaxError, load_adapter, load_backbone

CONFIGS = SHARED / "real_configs" / "adapter_config"
pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason="the shared assets are not there")

ENDING = "__adapter_config.json"
#: What the names of PEFT's own experiments begin with, behind the number; left out below.
EXPERIMENTS = tuple(
    f"huggingface+peft__method_comparison__{folder}__experiments__"
    for folder in ("MetaMathQA", "image-gen", "text_generation_benchmark")
)

#: By method: the files that are read as one.
READ: dict[str, tuple[str, ...]] = {
    "adalora": ("051_adalora__llama-3.2-3B-rank32",),
    "boft": ("056_boft__llama-3.2-3B-default",),
    "dora": ("078_lora__llama-3.2-3B-rank32-dora",),
    "fourierft": (
        "061_fourierft__llama-3.2-3B-default",
        "062_fourierft__llama-3.2-3B-n_frequency-5000",
    ),
    "hira": ("068_hira__llama-3.2-3B-rank32-lr4.5e-3",),
    "ia3": (
        "069_ia3__llama-3.2-3B-all-attn-5k-lr0.005",
        "070_ia3__llama-3.2-3B-default",
    ),
    "ln_tuning": ("073_ln_tuning__llama-3.2-3B-default",),
    "loha": ("074_loha__llama-3.2-3B-rank32",),
    "lokr": ("075_lokr__llama-3.2-3B-rank32-factor4-lr0.003",),
    "lora": (
        "046_branbot6+sift-opf-zh__adapter",
        "076_lora__llama-3.2-3B-rank10-target-mlp",
        "080_lora__llama-3.2-3B-rank32-lorafa",
        "081_lora__llama-3.2-3B-rank32-mica",
        "082_lora__llama-3.2-3B-rank64-rslora",
        "083_lora__llama-3.2-3B-rank64",
        "149_lora__lora_r8",
        "156_kirilssw+Phishing-analyzer-LoRA",
        "162_shibbir24+Smart-Review-AI__lora_adapter",
    ),
    "miss": (
        "085_miss__llama-3.2-3B-default",
        "086_miss__llama-3.2-3B-mini",
    ),
    "oft": ("087_oft__llama-3.2-3B-rank32",),
    "p_tuning": ("098_ptuning__llama-3.2-3B-default",),
    "prefix": (
        "091_prefixtuning__llama-3.2-3B-lr_0.001",
        "092_prefixtuning__llama-3.2-3B-lr_0.005_zero_init",
        "093_prefixtuning__llama-3.2-3B-tokens50-init_prefix-lr_0.005",
    ),
    "prompt": (
        "094_prompt_tuning__llama-3.2-3B-default",
        "095_prompt_tuning__llama-3.2-3B-sample_vocab-lr_0.001",
    ),
    "randlora": ("101_randlora__llama-3.2-3B-default",),
    "road": ("102_road__llama-3.2-3B-lr_0.001",),
    "shira": ("103_shira__llama-3.2-3B-lr_0.0003-random_seed_42",),
    "trainable_tokens": ("111_trainable_tokens__llama-3.2-3B-sos+eos",),
    "vera": ("115_vera__llama-3.2-3B-default",),
}

#: By `peft_type`: the files of methods that graftax does not have.
UNKNOWN: dict[str, tuple[str, ...]] = {
    "ADAMSS": ("052_adamss__llama-3.2-3B-rank32",),
    "ADAPTION_PROMPT": (
        "053_adaptionprompt__llama-3.2-3B-lr_0.0005",
        "054_adaptionprompt__llama-3.2-3B-lr_5e-3",
    ),
    "BEFT": ("055_beft__llama-3.2-3B-target-v_proj",),
    "C3A": (
        "057_c3a__llama-3.2-3B-default",
        "119_c3a__flux2-klein-default",
    ),
    "DEFT": (
        "058_deft__llama-3.2-3B-rank32-para",
        "059_deft__llama-3.2-3B-rank32",
        "120_deft__flux2-klein-default",
        "121_deft__flux2-klein-para",
    ),
    "DELORA": (
        "060_delora__llama-3.2-3B-rank32",
        "122_delora__flux2-klein-default",
    ),
    "FROD": (
        "063_frod__llama-3.2-3B-default",
        "064_frod__llama-3.2-3B-sparse0.02-lr_0.001",
        "125_frod__flux2-klein-default",
    ),
    "GLORA": (
        "065_glora__llama-3.2-3B-default",
        "066_glora__llama-3.2-3B-vector-paths",
        "126_glora__flux2-klein-default",
    ),
    "GRALORA": (
        "067_gralora__llama-3.2-3B-rank32",
        "127_gralora__flux2-klein-default",
    ),
    "LILY": (
        "071_lily__llama-3.2-3B-rank140-mlp-a2-b2-s8.0",
        "072_lily__llama-3.2-3B-rank896-a2-b2-s2.0",
        "130_lily__flux2-klein-default",
    ),
    "OSF": (
        "088_osf__llama-3.2-3B-rank128",
        "139_osf__flux2-klein-default",
    ),
    "PEANUT": (
        "089_peanut__llama-3.2-3B-rank1-relu-depth0-s32.0",
        "090_peanut__llama-3.2-3B-rank32-relu-depth0-s2.0",
        "140_peanut__flux2-klein-default",
    ),
    "PSOFT": (
        "096_psoft__llama-3.2-3B-default",
        "097_psoft__llama-3.2-3B-fast",
        "141_psoft__flux2-klein-default",
    ),
    "PVERA": (
        "099_pvera__llama-3.2-3B-default",
        "100_pvera__llama-3.2-3B-rank64",
        "142_pvera__flux2-klein-default",
    ),
    "SUPERTUNING": (
        "104_supertuning__llama-3.2-3B-s974-topk",
        "105_supertuning__llama-3.2-3B-s99-supra-r32",
        "106_supertuning__llama-3.2-3B-s99-supra-r8",
        "107_supertuning__llama-3.2-3B-s9935-bottomk",
        "108_supertuning__llama-3.2-3B-s9935-topk",
    ),
    "TINYLORA": (
        "109_tinylora__llama-3.2-3B-default",
        "110_tinylora__llama-3.2-3B-weight-tying",
    ),
    "UNILORA": ("112_unilora__llama-3.2-3B-default",),
    "VBLORA": (
        "113_vblora__llama-3.2-3B-bank1024-lr5e4",
        "114_vblora__llama-3.2-3B-default",
        "146_vblora__flux2-klein-default",
    ),
    "WAVEFT": (
        "116_waveft__llama-3.2-3B-n_frequency-5000",
        "148_waveft__flux2-klein-default",
    ),
}

#: By what the error says: modules of other architectures, other libraries' files, variants that compute something else.
REFUSED: dict[str, tuple[str, ...]] = {
    "target .* matches no site\\. Sites there are": (
        "008_Import-Saurabh+Gliner_Finetuning__gliner-news-geo",
        "040_amazon-science+chronos-forecasting__test__dummy-chronos2-lora",
        "117_adalora__flux2-klein-default",
        "118_boft__flux2-klein-default",
        "123_dora__flux2-klein-rank64",
        "124_fourierft__flux2-klein-default",
        "128_hra__flux2-klein-default",
        "129_ia3__flux2-klein-default",
        "131_ln_tuning__flux2-klein-default",
        "132_loha__flux2-klein-default",
        "133_lokr__flux2-klein-lr1e-3",
        "134_lora__flux2-klein-default",
        "136_lora__flux2-klein-rank64",
        "137_miss__flux2-klein-default",
        "138_oft__flux2-klein-default",
        "143_randlora__flux2-klein-default",
        "144_road__flux2-klein-default",
        "145_shira__flux2-klein-default",
        "147_vera__flux2-klein-default",
    ),
    "of another library": (
        "009_Inishpy+lerobot-libero",
        "038_alphrc+lilm__adapters-llama3-70b",
        "039_alphrc+lilm__adapters",
    ),
    "would change the result: use_bdlora=": ("077_lora__llama-3.2-3B-rank14-target-mlp-bdlora",),
    "would change the result: kasa_config=": (
        "079_lora__llama-3.2-3B-rank32-kasa",
        "135_lora__flux2-klein-rank64-kasa",
    ),
    "would change the result: init_weights='bat'": ("084_miss__llama-3.2-3B-bat",),
    "would change the result: enable_lora=": ("166_wujindou+BLOOM-LORA",),
}

#: Sizes for a tiny model, where a config says one.
SIZES = {
    "n_frequency": 50,
    "group_size": 8,
    "num_virtual_tokens": 4,
    "token_dim": 32,
    "num_layers": 4,
    "num_attention_heads": 4,
}
SIZES |= {"encoder_hidden_size": 8, "r": 4, "token_indices": [12, 79], "init_r": 4, "target_r": 2, "boft_block_size": 4}


@functools.cache
def files() -> dict[str, Path]:
    """The configs by their names below."""
    found = {}
    for path in CONFIGS.iterdir():
        name = path.name.removesuffix(ENDING)
        for experiments in EXPERIMENTS:
            name = name.replace(experiments, "")
        found[name] = path
    return found


def listed(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(outcome, name) for outcome, names in table.items() for name in names]


def test_every_file_has_an_outcome() -> None:
    assert sorted(files()) == sorted(name for table in (READ, UNKNOWN, REFUSED) for _, name in listed(table))


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Pair]:
    """A tiny model of the architecture and task that a config is for: GPT-2, else Llama."""

    @functools.cache
    def base(shape: str) -> Path:
        return saved(test_decoders.torch_model(shape), tmp_path_factory.mktemp(shape))

    def get(config: dict[str, Any]) -> Pair:
        path = base("gpt2" if config.get("base_model_name_or_path") == "gpt2" else "llama")
        auto = transformers.AutoModelForCausalLM
        if config.get("task_type") == "TOKEN_CLS":
            auto = transformers.AutoModelForTokenClassification
        return Pair(load_backbone(path), lambda: auto.from_pretrained(path, dtype=torch.float32).eval())

    return get


def written(config: dict[str, Any], directory: Path) -> Path:
    """A directory with a config and a file of weights that has nothing to do with it."""
    directory.mkdir(exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.of.nothing": np.zeros(1, np.float32)}, directory / "adapter_model.safetensors")
    return directory


EVERY_TIME = ("lora", "prefix", "adalora", "oft")


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=() if method in EVERY_TIME and names.index(name) < 2 else pytest.mark.slow)
        for method, names in READ.items()
        for name in names
    ],
)
def test_read_with_pefts_logits(method: str, name: str, pair_of: Callable[[dict[str, Any]], Pair], tmp_path: Path) -> None:
    """PEFT makes an adapter of the config, at the size of a tiny model, and saves it."""
    raw = json.loads(files()[name].read_text())
    pair = pair_of(raw)
    small = raw | {key: size for key, size in SIZES.items() if raw.get(key)}
    small |= {"mini_r": 4} if raw.get("init_weights") == "mini" else {}
    config = peft.PeftConfig.from_pretrained(written(small, tmp_path / "config"))
    config.inference_mode = False
    model, path = make(pair, tmp_path / "adapter", config)
    adapter = load_adapter(path, pair.backbone)
    assert [m.name for m in adapter.methods if m.name != "head"] == [method]
    tags = raw.get("task_type") == "TOKEN_CLS"
    assert adapter.task == ("tag" if tags else "lm")
    theirs = at_tokens(torch_logits(model, rows(pair.backbone)), pair)
    ours = our_logits(pair.backbone, adapter, rows(pair.backbone))
    np.testing.assert_allclose(at_tokens(ours, pair)[..., : theirs.shape[-1]], theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("reason", "name"),
    [(f"peft_type '{peft_type}' is not supported", name) for peft_type, name in listed(UNKNOWN)] + listed(REFUSED),
)
def test_refused_with_a_reason(reason: str, name: str, pair_of: Callable[[dict[str, Any]], Pair], tmp_path: Path) -> None:
    """The line names the reason, and the model that the config says it is for."""
    raw = json.loads(files()[name].read_text())
    targets = raw.get("target_modules") or ["q_proj"]  # PEFT writes its default there
    path = written(raw | {"target_modules": targets}, tmp_path / "adapter")
    with pytest.raises(GraftaxError, match=reason) as refused:
        load_adapter(path, pair_of(raw).backbone)
    assert (raw.get("base_model_name_or_path") or "") in str(refused.value)
