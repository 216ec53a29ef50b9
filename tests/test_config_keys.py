"""Configs as transformers reads them: every family's keys, what they are where a file does not say, and what is not read."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import warnings
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np
import pytest
import torch
import transformers
from configs import (
    OTHERS,
    SIZES,
    TEXT_FAMILIES,
    THEIRS,
    WHOLE,
    assert_same,
    auto_of,
    their_logits,
    write_checkpoint,
    write_config,
)
from conftest import SHARED, needs_assets
from refusals import refused
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from graftax import GraftaxError, load_backbone
from graftax.models import config_keys
from graftax.models.encoder import EncoderConfig
from graftax.models.encoder_decoder import EncoderDecoderConfig
from graftax.models.family import COMMON
from graftax.models.family_registry import FAMILIES
from graftax.notes import GraftaxNote, print_notes

_BASE = {field.name: field.default for field in dataclasses.fields(transformers.PreTrainedConfig)}
#: Of every model, for training alone; and what says where the model runs.
_EVERYWHERE = {"_attn_implementation", "num_labels", "problem_type", "get_text_config", "to_dict"}


def declared(model_type: str) -> dict[str, Any]:
    """The fields of transformers' config class, without those that every class has."""
    fields = {field.name: field for field in dataclasses.fields(CONFIG_MAPPING[model_type])}
    return {name: field for name, field in fields.items() if name not in _BASE or field.default != _BASE[name]}


@pytest.mark.parametrize("model_type", THEIRS)
def test_keys_are_those_of_transformers_class(model_type: str) -> None:
    """Each with its default, and null where null may stand."""
    family, theirs = THEIRS[model_type], declared(model_type)
    assert {name: key.default for name, key in family.keys.items()} == {name: f.default for name, f in theirs.items()}
    assert family.aliases == CONFIG_MAPPING[model_type].attribute_map
    for name, key in family.keys.items():
        nullable = NoneType in get_args(theirs[name].type)
        if not key.read:
            continue
        assert nullable or not key.null, f"{name}: null is transformers' error"
        needed = (name, model_type) in {("pad_token_id", "roberta"), ("pad_token_id", "xlm-roberta")}
        needed |= model_type in ("clip_vision_model", "clip_text_model") and name in (
            "image_size",
            "patch_size",
            "layer_norm_eps",
        )
        needed |= family.encodes and name not in ("pad_token_id", "eos_token_id", "num_decoder_layers", "forced_eos_token_id")
        assert key.null or not nullable or needed, f"{name}: null may stand there"
    assert {*_BASE} <= COMMON


@pytest.mark.parametrize("model_type", THEIRS)
def test_every_key_that_a_model_reads_is_known(model_type: str) -> None:
    """Whatever stands behind `config.` in the module of transformers' model is one of the family's keys, or of all models."""
    family = THEIRS[model_type]
    module = type(auto_of(model_type).from_config(CONFIG_MAPPING[model_type](**SIZES[model_type]))).__module__
    source = inspect.getsource(sys.modules[module])
    read = {*re.findall(r"\bconfig\.(\w+)", source), *re.findall(r"getattr\((?:self\.)?config, \"(\w+)\"", source)}
    known = {*family.keys, *family.older, *family.aliases, *COMMON, *_EVERYWHERE}
    elsewhere = {"gemma3_text": {"text_config", "vision_config", "image_token_id", "mm_tokens_per_image"}}  # the whole Gemma 3
    elsewhere |= {"efficientnet": {"pooling"}}  # in an error message
    for kind in ("clip", "siglip"):  # whose two towers are in one module, with the whole
        towers = (f"{kind}_vision_model", f"{kind}_text_model")
        whole = {"text_config", "vision_config", "logit_scale_init_value", "initializer_factor"}.union(
            *(THEIRS[tower].keys for tower in towers)
        )
        elsewhere |= dict.fromkeys(towers, whole)
    dropouts = {"classifier_dropout", "hidden_dropout", "summary_last_dropout"}  # which GPT-2 configs need not say
    assert not read - known - elsewhere.get(model_type, set()) - dropouts


@pytest.mark.parametrize("model_type", THEIRS)
def test_sizes_alone(model_type: str, tmp_path: Path) -> None:
    """A config that says nothing but sizes: everything else is transformers' default."""
    model = write_checkpoint(tmp_path, {"model_type": model_type, **SIZES[model_type]})
    backbone = load_backbone(tmp_path)
    assert_same(backbone, model)
    assert_ends(backbone.config, model.config)


#: Where transformers, too, has no model with its default beside the other keys.
_REFUSED = {"phi3": {"pad_token_id": "pad_token_id is 32000, in a vocabulary of 97"}}
_REFUSED |= {key: {"use_sliding_window": r"layers with a window \(layer_types\)"} for key in ("qwen2", "qwen3")}

FAST = {("gemma2", "attn_logit_softcapping"), ("gemma3_text", "rope_parameters"), ("gemma3_text", "sliding_window")}
FAST |= {("t5", "feed_forward_proj"), ("bart", "scale_embedding"), ("gpt_neox", "attention_bias")}
_DROPPED = [
    pytest.param(name, key, marks=() if (name, key) in FAST else pytest.mark.slow) for name in THEIRS for key in OTHERS[name]
]


@pytest.mark.parametrize(("model_type", "key"), _DROPPED)
def test_a_key_that_is_missing(model_type: str, key: str, tmp_path: Path) -> None:
    """The others say something else than the class does; this one is the class's default."""
    config = {name: value for name, value in WHOLE[model_type].items() if name != key}
    if key in _REFUSED.get(model_type, {}):
        with pytest.raises(GraftaxError, match=_REFUSED[model_type][key]):
            THEIRS[model_type].configure(config)
        return
    if key == "sliding_window":
        config["max_position_embeddings"] = max(config["max_position_embeddings"], 4200)
    model = write_checkpoint(tmp_path, config)
    backbone = load_backbone(tmp_path)
    assert_same(backbone, model)
    assert_ends(backbone.config, model.config)
    assert_window(backbone.config, model.config)


@pytest.mark.parametrize("model_type", THEIRS)
def test_whole_config(model_type: str, tmp_path: Path) -> None:
    """Every key otherwise than the class has it."""
    model = write_checkpoint(tmp_path, WHOLE[model_type])
    backbone = load_backbone(tmp_path)
    assert_same(backbone, model)
    assert_ends(backbone.config, model.config)


@pytest.mark.parametrize("model_type", THEIRS)
def test_a_size_that_is_missing(model_type: str) -> None:
    """It is the class's, as typed values: no model of that size is made."""
    theirs = CONFIG_MAPPING[model_type]()
    ours = THEIRS[model_type].configure({"model_type": model_type})
    if model_type in TEXT_FAMILIES:
        assert (ours.vocab_size, ours.hidden_size, ours.num_heads) == (
            theirs.vocab_size,
            theirs.hidden_size,
            theirs.num_attention_heads,
        )
    for name, size in SIZES[model_type].items():
        key = THEIRS[model_type].keys.get(name) or THEIRS[model_type].older[name]
        if key.field and getattr(theirs, name, None) is not None:
            assert getattr(ours, key.field) in (getattr(theirs, name), 0), f"{name}: {size}"
    assert_ends(ours, theirs)
    assert_window(ours, theirs)


def assert_window(ours: Any, theirs: Any) -> None:
    """How far layers look back, which short texts do not show."""
    layer_types = getattr(theirs, "layer_types", None)
    slides = layer_types is None or "sliding_attention" in layer_types
    assert (getattr(ours, "window", 0) or None) == (getattr(theirs, "sliding_window", None) if slides else None)


def assert_ends(ours: Any, theirs: Any) -> None:
    """What ends a text, begins it and fills rows."""
    if theirs.model_type not in TEXT_FAMILIES:
        return
    assert ours.pad_id == max(0, getattr(theirs, "pad_token_id", 0) or 0)
    if not isinstance(ours, EncoderConfig):
        eos = theirs.eos_token_id
        several = eos if isinstance(eos, list) else [] if eos is None else [eos]
        assert ours.eos_ids == tuple(token for token in several if token < ours.vocab_size)
    if isinstance(ours, EncoderDecoderConfig):
        assert ours.start_id == (getattr(theirs, "decoder_start_token_id", 0) or 0)
        assert ours.last_id == (-1 if getattr(theirs, "forced_eos_token_id", None) is None else theirs.forced_eos_token_id)


@pytest.mark.parametrize("model_type", [name for name in THEIRS if name != "resnet"])  # all of whose keys are read
def test_what_is_not_read_changes_nothing(model_type: str, tmp_path: Path) -> None:
    """transformers' logits are the same whatever the keys say that we take for silent."""
    model = write_checkpoint(tmp_path, WHOLE[model_type])
    before = their_logits(model)
    # which say what weights there are that no head reads, and what a model is that is not asked for a feature map
    elsewhere = ("is_encoder_decoder", "pooler_output_size", "use_mask_token", "add_fpn", "pool_scales")
    elsewhere += ("_out_features", "_out_indices")
    silent = [name for name, key in THEIRS[model_type].keys.items() if not key.read and name not in elsewhere]
    changed = {name: _another(declared(model_type)[name]) for name in silent}
    assert changed, "nothing is tried"
    config = transformers.AutoConfig.from_pretrained(write_config(tmp_path, {**WHOLE[model_type], **changed}))
    again = auto_of(model_type).from_config(config, attn_implementation="eager").eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(torch.tensor(their_logits(again)), torch.tensor(before))


def _another(field: Any) -> Any:
    """A value that such a field may have, and that is not its default."""
    if isinstance(field.default, bool):
        return not field.default
    types = {*(get_args(field.type) or (field.type,))}
    if list[str] in types or list[int] in types:
        return ["stem"] if list[str] in types else [0]
    return 0.25 if float in types else 6 if int in types else "tanh"


# -- keys that no model reads --------------------------------------------------------------------------------------------

#: As people publish them: how texts were generated by default, training, and names of things.
IDLE = {"num_beams": 1, "top_k": 50, "max_length": 20, "eos_token_ids": 0, "pruned_heads": {}, "use_bfloat16": False}
IDLE |= {
    "unk_token_id": 3,
    "name": "mine",
    "alpha_mlm": 2.0,
    "do_sample": False,
    "n_ctx": 1024,
    "rotary_base": [1, {"a": None}],
}


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama", "bart", "mobilenet_v2"])
def test_keys_that_say_nothing_are_ignored_with_one_note(model_type: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path, WHOLE[model_type])
    write_config(tmp_path, {**WHOLE[model_type], **IDLE})
    with pytest.warns(GraftaxNote) as notes:
        backbone = load_backbone(tmp_path)
    assert [str(one.message) for one in notes] == [
        f"{tmp_path / 'config.json'}: ignored, for no {model_type} model reads them: {', '.join(sorted(IDLE))}."
    ]
    assert_same(backbone, model)


def test_a_config_without_them_has_no_note(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path, WHOLE["llama"])
    model.save_pretrained(tmp_path)  # config.json as transformers writes it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_backbone(tmp_path)


def test_notes_are_lines_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(warnings, "showwarning", lambda *said: print("another"))
    print_notes()
    warnings.showwarning(GraftaxNote("a line"), GraftaxNote, "file", 1)
    warnings.showwarning(UserWarning("some"), UserWarning, "file", 1)
    assert capsys.readouterr() == ("another\n", "graftax: a line\n")


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"is_decoder": True}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("mistral", {"layer_types": ["full_attention"] * 3}),
        ("qwen2", {"use_sliding_window": False}),  # and layers with one
        ("gemma2", {"sliding_window": None}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("gemma3_text", {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}),
        ("gemma3_text", {"attn_logit_softcapping": 1.0}),
        ("gpt_neox", {"head_dim": 4}),
        ("gpt2", {"hidden_size": 64}),  # another name of n_embd, which is 32
        ("bart", {"forced_bos_token_id": [1, 2]}),
    ],
)
def test_what_a_model_reads_and_we_do_not_is_refused(model_type: str, change: dict[str, Any]) -> None:
    said = refused(lambda: THEIRS[model_type].configure({**WHOLE[model_type], **change}))
    assert said is not None
    assert next(iter(change)) in said or "rope_type" in said or "layer_types" in said


def test_a_resnet_whose_config_says_nothing() -> None:
    """transformers has no class of it: what is not said is what the published one says."""
    family = FAMILIES["cifar_resnet"]
    config = family.configure({"model_type": "cifar_resnet"})
    known = config.depth, config.blocks_per_stage, config.stage_channels, config.norm_eps, config.hidden_size
    assert known == (20, 3, (16, 32, 64), 1e-5, 64)
    for name, key in family.keys.items():
        assert refused(lambda name=name: family.configure({"model_type": "cifar_resnet", name: {}})) or not key.read


def test_other_names_of_keys() -> None:
    config = {key: value for key, value in WHOLE["gpt2"].items() if key != "n_embd"}
    assert THEIRS["gpt2"].configure({**config, "hidden_size": 32}) == THEIRS["gpt2"].configure(WHOLE["gpt2"])


@needs_assets
@pytest.mark.parametrize("name", ["rxnmapper-albert", "mgm-gpt2", "gpt-nano-sort", "stories260K", "aren-transliteration"])
def test_real_checkpoints_load_unmodified(name: str) -> None:
    """With transformers' logits, tokenizer or not."""
    directory = SHARED / "backbones" / name
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        backbone = load_backbone(directory)
    noted = [str(one.message) for one in notes if issubclass(one.category, GraftaxNote)]
    assert len(noted) == (name == "rxnmapper-albert")
    assert all("eos_token_ids" in line and "pruned_heads" in line for line in noted)
    auto = auto_of(backbone.family.model_types[0])
    model = auto.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    ids = np.random.default_rng(0).integers(0, backbone.config.vocab_size, (2, min(24, backbone.config.max_tokens)))
    assert_same(backbone, model, ids.astype(np.int32))


@pytest.mark.parametrize("key", [config_keys.number(1.0), config_keys.epsilon(1e-5), config_keys.size(1)])
def test_a_number_of_hundreds_of_digits_is_unsound(key: config_keys.Key) -> None:
    """JSON has such numbers, and floats have not."""
    assert not key.allows(10**400)
    assert not key.allows(float("nan"))
