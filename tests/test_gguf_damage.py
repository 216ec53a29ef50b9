"""GGUF files that went wrong, or are no models: one line that names the file, or a backbone that can be used."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf_files import TINY, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax import load_backbone
from graftax.notes import GraftaxNote

SMALL = {**TINY, "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
SMALL |= {"intermediate_size": 32, "head_dim": 16}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("whole") / "x.gguf", SMALL).read_bytes()


def patched(whole: bytes, at: int, content: bytes) -> bytes:
    return whole[:at] + content + whole[at + len(content) :]


def behind(whole: bytes, key: str) -> int:
    """Where the value of a key begins, behind its type."""
    return whole.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key) + 4


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda whole: b"", "no GGUF file, it begins with b''"),
        (lambda whole: b"ggjt" + whole[4:], "no GGUF file, it begins with b'ggjt'; one, or a directory is wanted here"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (lambda whole: patched(whole, 4, struct.pack("<I", 1)), "of version 1; versions 2 and 3, little-endian, are read"),
        (lambda whole: patched(whole, 4, struct.pack(">I", 3)), "a GGUF file big-endian"),
        (lambda whole: whole[:20], "truncated, or damaged"),
        (lambda whole: whole[:3000], "truncated, or damaged"),
        (lambda whole: whole[:-2000], "truncated: blk.0"),
        (lambda whole: patched(whole, 16, struct.pack("<Q", 1 << 60)), "truncated, or damaged"),
        (lambda whole: patched(whole, behind(whole, "general.type"), struct.pack("<Q", 1 << 62)), "truncated, or damaged"),
        (lambda whole: patched(whole, behind(whole, "general.type") - 4, struct.pack("<I", 77)), "a value of type 77"),
        (lambda whole: whole.replace(b"blk.0.attn_k.weight", b"blk.0.attn_q.weight"), "blk.0.attn_q.weight is there twice"),
        (
            lambda whole: whole.replace(b"blk.0.attn_k.weight", b"blk.0.attn_x.weight"),
            "missing blk.0.attn_k.weight; unexpected",
        ),
        (lambda whole: whole.replace(b"llama.block_count", b"llama.block_cxunt"), "its metadata lacks llama.block_count"),
        (
            lambda whole: patched(whole, behind(whole, "llama.block_count"), struct.pack("<I", 4000)),
            "4,000 layers in the metadata",
        ),
        (
            lambda whole: patched(whole, behind(whole, "llama.block_count"), struct.pack("<I", 0)),
            "num_hidden_layers=0 (a whole",
        ),
        (
            lambda whole: patched(whole, behind(whole, "llama.feed_forward_length"), struct.pack("<I", 64)),
            "blk.0.ffn_gate.weight has shape (32, 32), the metadata imply (64, 32)",
        ),
        (
            lambda whole: whole.replace(b"llama", b"xlstm"),
            "general.architecture 'xlstm' is not read from GGUF; those read are llama,",
        ),
        (lambda whole: whole.replace(b"<|im_end|>", b"<|im_end\xff>"), "a text in it is not UTF-8"),
    ],
)
def test_refused(damage: Callable[[bytes], bytes], line: str, whole: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "x.gguf").write_bytes(damage(whole))
    said = refused(lambda: load_backbone(path)) or ""
    assert line in said
    assert str(path) in said


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            {"rope_freqs.weight": np.linspace(1, 3, 8).astype(np.float32)},
            "rope_freqs.weight that are none of Llama 3's scaling",
        ),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "rope_type 'longrope' is not supported"),
        ({"llama.rope.dimension_count": 8}, "8 of the 16 channels of a head turned: not supported"),
        ({"blk.0.ffn_gate_exps.weight": np.ones((2, 32, 32), np.float32)}, "unexpected blk.0.ffn_gate_exps.weight"),
        ({"blk.0.attn_k.bias": np.ones(16, np.float32)}, "unexpected blk.0.attn_k.bias"),
        (
            {"llama.logit_scale": 2.0, "llama.attention.causal": False},
            "llama.attention.causal=False, llama.logit_scale=2.0: not",
        ),
        (
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0},
            "lacks llama.rope.scaling.original_context_length",
        ),
        ({"split.count": 3}, "one of 3 parts; name the first"),
    ],
)
def test_what_the_model_has_not_is_refused(more: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert line in (refused(lambda: load_backbone(write_gguf(tmp_path / "x.gguf", SMALL, more=more))) or "")


def test_types_that_are_not_unpacked_are_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {**SMALL, "hidden_size": 256, "head_dim": 128}, {"ffn_up": Kind.Q8_K})
    assert "blk.0.ffn_up.weight is of type Q8_K" in (refused(lambda: load_backbone(path)) or "")


@pytest.mark.parametrize("kind", ["mmproj", "adapter", "imatrix"])
def test_files_of_another_kind_are_no_backbones(kind: str, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_type(kind)
    _close(writer)
    assert f"its general.type is '{kind}'" in (refused(lambda: load_backbone(tmp_path / "x.gguf")) or "")


def test_a_vocabulary_alone_is_no_backbone(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_token_list(["a", "b"])
    _close(writer)
    assert "no token_embd.weight, of 0 tensors" in (refused(lambda: load_backbone(tmp_path / "x.gguf")) or "")


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_parts_that_are_missing_or_of_another_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "y.gguf", split=7)
    first, second, third = sorted(tmp_path.iterdir())
    assert "one of 3 parts; name the first" in (refused(lambda: load_backbone(second)) or "")
    kept = third.read_bytes()
    third.write_bytes(second.read_bytes())
    assert f"{third}: not part 2 (from 0) of {first.name}" in (refused(lambda: load_backbone(first)) or "")
    third.unlink()
    assert f"{third}: no such file" in (refused(lambda: load_backbone(first)) or "")
    third.write_bytes(kept)
    first.rename(renamed := tmp_path / "z.gguf")
    assert "one of 3 parts" in (refused(lambda: load_backbone(renamed)) or "")


def test_directories(tmp_path: Path) -> None:
    """One file is the backbone, several must be named, and safetensors go before."""
    write_gguf(tmp_path / "a.gguf", SMALL)
    assert load_backbone(tmp_path).name == str(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(GraftaxNote, match="the config.json beside it is not read"):
        load_backbone(tmp_path)
    write_gguf(tmp_path / "b.gguf", SMALL)
    assert "has several GGUF files, name one: a.gguf, b.gguf" in (refused(lambda: load_backbone(tmp_path)) or "")
    (tmp_path / "model.safetensors").touch()
    assert "model_type None is not supported" in (refused(lambda: load_backbone(tmp_path)) or "")


def test_keys_that_are_not_read_are_said(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", SMALL, more={"llama.pooling_type": 2, "llama.logit_scale": 1.0})
    with pytest.warns(GraftaxNote, match=r"ignored, for graftax reads nothing from them: llama\.pooling_type\.$"):
        load_backbone(path)


@settings(max_examples=120, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_may_be_another(data: Any, whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One line, or a backbone whose tokenizer works or says in one line why not."""
    draw = data.draw
    begin = whole.index(b"blk.0") - 200
    at = draw(st.one_of(st.integers(0, 1200), st.integers(begin, begin + 1200), st.integers(0, len(whole) - 1)))
    how = draw(st.sampled_from(["byte", "cut", "number", "gone"]))
    damaged = {
        "byte": lambda: patched(whole, at, bytes([whole[at] ^ draw(st.integers(1, 255))])),
        "cut": lambda: whole[:at],
        "number": lambda: patched(whole, at, draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 1 << 40)])))[
            : len(whole)
        ],
        "gone": lambda: whole[:at] + whole[at + draw(st.integers(1, 40)) :],
    }[how]()
    path = tmp_path_factory.mktemp("damaged") / "x.gguf"
    path.write_bytes(damaged)
    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraftaxNote)
        line = refused(lambda: found.append(load_backbone(path)))
        if line is None:
            refused(lambda: found[0].processor.ids(["hello 12"]))
        else:
            assert "x.gguf" in line or "the weights are damaged" in line
    path.unlink()
