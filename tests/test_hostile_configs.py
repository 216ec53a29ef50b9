"""Configs and weights that cannot be: one line, quickly, before anything is made of what they say."""

from __future__ import annotations

import json
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configs import SIZES, THEIRS, WHOLE, assert_same, auto_of, our_logits, write_checkpoint, write_config
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from safetensors.numpy import load_file, save_file

from graftax import load_backbone


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A directory with a tiny checkpoint, by family."""

    @cache
    def made(model_type: str) -> Path:
        directory: Path = tmp_path_factory.mktemp(model_type)
        write_checkpoint(directory, WHOLE[model_type])
        return directory

    return made


@pytest.mark.parametrize("model_type", THEIRS)
def test_sizes_are_compared_before_anything_is_allocated(model_type: str, checkpoints: Any) -> None:
    """None of them is believed: a line each, at once."""
    directory = checkpoints(model_type)
    for key in SIZES[model_type].keys() - {"pad_token_id"}:
        for size in (10**12, 1 << 24, 4096, 0):
            write_config(directory, {**WHOLE[model_type], key: size})
            began = time.monotonic()
            said = refused(lambda: load_backbone(directory))
            assert time.monotonic() - began < 30
            unshaped = key in _UNSHAPED or (model_type, key) == ("dinov3_vit", "image_size")  # which has no table of positions
            assert said is not None or unshaped, f"{key}={size}"
    write_config(directory, WHOLE[model_type])


#: Of sizes that no tensor has, those below their bounds.
_UNSHAPED = {"max_position_embeddings", "sliding_window", "relative_attention_max_distance"}
_UNSHAPED |= {"original_max_position_embeddings", "num_hidden_layers"}  # of a shared layer's applications

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.sampled_from([10**9, -(10**12), 10**400, 1 << 63]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["relu", "silu", "gelu", "default", "yarn", "gated-gelu", "full_attention", "", "\x1b[31m", "LABEL_0"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rope_type", "factor", "x", "0"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A family, and what stands in its config instead: at keys that it reads, that it does not, and nowhere."""
    model_type = draw(st.sampled_from(list(THEIRS)))
    family = THEIRS[model_type]
    names = [*family.keys, *family.older, *family.aliases, "architectures", "id2label", "num_labels", "a_key"]
    change: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        there = WHOLE[model_type].get(name, getattr(family.keys.get(name), "default", None))
        change[name] = draw(_VALUES | st.sampled_from(near(there)))
    return model_type, change


def near(value: Any) -> list[Any]:
    """What might stand there as well."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, value * 2, max(1, value // 2), 1.5, None]
        case str():
            return ["relu", "mish", "gelu_new", "gated-relu6", "xielu", None]
        case list():
            return [[*value, *value[:1]], value[::-1], value[:1], [], None]
        case dict():
            return [{**value, "rope_theta": 9}, {**value, "rope_type": "default"}, {**value, "factor": "3"}, {}, None]
    return [2, 0.5, True, [], {}]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(mutation=mutations())
@pytest.mark.filterwarnings("ignore::graftax.notes.GraftaxNote")
def test_a_mutated_config_is_refused_or_right(mutation: tuple[str, dict[str, Any]], checkpoints: Any) -> None:
    """One line; or transformers' logits, where transformers takes it (what is silent for both is compared once)."""
    model_type, change = mutation
    directory = checkpoints(model_type)
    write_config(directory, {**WHOLE[model_type], **change})
    loaded: list[Any] = []
    if refused(lambda: loaded.append(load_backbone(directory))) is None:
        compared(directory, loaded[0])


_SEEN: set[Any] = set()


def compared(directory: Path, backbone: Any) -> None:
    """Each config of ours once; those of the unchanged ones are compared elsewhere."""
    key = (backbone.family.model_types, backbone.config)
    if key in _SEEN or backbone.config == backbone.family.configure(WHOLE[backbone.family.model_types[0]]):
        return
    _SEEN.add(key)
    try:
        auto = auto_of(backbone.family.model_types[0])
        model, told = auto.from_pretrained(directory, attn_implementation="eager", output_loading_info=True)
    except Exception:  # transformers takes less
        return
    if not told["missing_keys"] and not told["mismatched_keys"]:
        assert_same(backbone, model.eval())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(model_type=st.sampled_from(["bert", "llama", "t5"]), content=_VALUES)
def test_any_json_for_a_config_is_refused(model_type: str, content: Any, checkpoints: Any) -> None:
    directory = checkpoints(model_type)
    (directory / "config.json").write_text(json.dumps(content))
    line = refused(lambda: load_backbone(directory)) or ""
    assert str(directory / "config.json") in line or line.startswith("model_type None is not supported; supported are albert,")


@pytest.mark.parametrize("deep", [200_000, 500])
def test_nesting_in_a_config_is_a_line(deep: int, checkpoints: Any) -> None:
    directory = checkpoints("llama")
    whole = json.dumps(WHOLE["llama"])[:-1]
    (directory / "config.json").write_text(f'{whole}, "rope_scaling": {"[" * deep}{"]" * deep}}}')
    assert "config.json" in (refused(lambda: load_backbone(directory)) or "")


# -- weights that are not finite ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_that_are_not_finite_are_named(number: float, key: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, WHOLE["llama"])
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[key].flat[-1] = number
    save_file(tensors, tmp_path / "model.safetensors")
    for load in (load_backbone, partial(load_backbone, dtype="bfloat16")):
        said = refused(partial(load, tmp_path))
        assert said == f"the weights are damaged: {key.removeprefix('model.')} holds NaN or infinite numbers."


def test_large_weights_are_finite(tmp_path: Path) -> None:
    """Though their sum is not, in float32."""
    write_checkpoint(tmp_path, WHOLE["bert"])
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["pooler.dense.weight"][:] = 3e38
    save_file(tensors, tmp_path / "model.safetensors")
    assert np.isfinite(our_logits(load_backbone(tmp_path))).all()


def test_a_head_beside_tied_words_must_be_their_table(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, WHOLE["llama"])
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, tmp_path / "model.safetensors")
    load_backbone(tmp_path)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, tmp_path / "model.safetensors")
    said = refused(lambda: load_backbone(tmp_path))
    assert said == "the weights do not fit the config: lm_head.weight is not embed_tokens.weight."
