"""`generation_config.json`: what of it texts obey, what is the caller's, what is refused; fetched, and copied by a merge."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from safetensors.numpy import save_file
from tiny import write_decoder

from graftax import Generator, GraftaxError, LoRA, Sampling, load_backbone
from graftax.adapters.adapter import Adapter
from graftax.models.generation import Rules, with_generation
from graftax.models.random import random_tensors
from graftax.models.tokens import Tokenizer
from graftax.notes import GraftaxNote
from graftax.serve import export_merged

PROMPTS = ["the early bird", "a", "one, two, one, two, one"]
BART: dict[str, Any] = {"model_type": "bart", "vocab_size": 272, "d_model": 32, "max_position_embeddings": 96}
BART |= {
    "pad_token_id": 0,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
BART |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "eos_token_id": 2, "bos_token_id": 1, "decoder_start_token_id": 2}


def saying(directory: Path, **said: Any) -> Path:
    (directory / "generation_config.json").write_text(json.dumps(said))
    return directory


def write_bart(directory: Path) -> Path:
    """An encoder-decoder with the decoder's tokenizer."""
    write_decoder(directory)
    (directory / "config.json").write_text(json.dumps(BART))
    tensors = {key: 10 * t if "norm" not in key else t for key, t in random_tensors(BART, 3).items()}
    named = {key if key == "final_logits_bias" else f"model.{key}": t for key, t in tensors.items()}
    save_file(named, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def theirs(directory: Path, count: int, **options: Any) -> list[list[int]]:
    """What transformers generates behind each prompt by itself, with all that its own reading of the directory asks."""
    config = json.loads((directory / "config.json").read_text())
    auto = transformers.AutoModelForSeq2SeqLM if config["model_type"] == "bart" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(directory, dtype=torch.float32).eval()
    backend, found = Tokenizer.of(load_backbone(directory)), []
    for prompt in PROMPTS:
        ids = torch.tensor(backend.ids([prompt])[0][None].astype("int64"))
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, **options)[0]
        found.append(out[1 if config["model_type"] == "bart" else ids.shape[1] :].tolist())
    return found


def mine(directory: Path, count: int, **options: Any) -> list[list[int]]:
    return [list(one.tokens) for one in Generator(load_backbone(directory)).generate(PROMPTS, max_new_tokens=count, **options)]


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """What is said where there is no such file."""
    return mine(write_decoder(tmp_path_factory.mktemp("free")), 16)


RULES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 9},
    {"begin_suppress_tokens": "first", "suppress_tokens": "second", "bad_words_ids": "third"},
    {"forced_eos_token_id": 9, "forced_bos_token_id": 70, "min_length": 14},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules)))
def test_decoders_obey_as_in_transformers(rules: dict[str, Any], free: list[list[int]], tmp_path: Path) -> None:
    """Greedy texts, with ends of texts that come early: tokens that are said fifth and fourth without rules."""
    named = {"first": [free[0][0]], "second": [free[1][1]], "third": [[free[2][2]]]}
    rules = {key: named[value] if isinstance(value, str) else value for key, value in rules.items()}
    saying(write_decoder(tmp_path), eos_token_id=[2, free[0][4], free[1][3]], pad_token_id=0, **rules)
    found = mine(tmp_path, 16)
    assert found == theirs(tmp_path, 16)
    saying(tmp_path, eos_token_id=[2, free[0][4], free[1][3]])
    assert found != mine(tmp_path, 16)


@pytest.mark.parametrize("beams", [1, 3])
def test_encoder_decoders_obey_as_in_transformers(beams: int, tmp_path: Path) -> None:
    """All rules of a summarizer at once; the beams are the caller's, what is said of them is not."""
    rules = {"no_repeat_ngram_size": 3, "min_length": 6, "forced_bos_token_id": 1, "forced_eos_token_id": 2, "eos_token_id": 2}
    rules |= {"begin_suppress_tokens": [40, 41], "decoder_start_token_id": 5, "length_penalty": 2.0, "early_stopping": True}
    saying(write_bart(tmp_path), **rules, pad_token_id=0, bos_token_id=1, num_beams=4, do_sample=True, temperature=0.2)
    assert load_backbone(tmp_path).config.start_id == 5
    assert mine(tmp_path, 14, num_beams=beams) == theirs(tmp_path, 14, num_beams=beams)


def test_beams_that_the_file_asks_for_are_noted(free: list[list[int]], tmp_path: Path) -> None:
    saying(write_decoder(tmp_path), num_beams=3)
    with pytest.warns(GraftaxNote, match="generation_config.json asks for 3 beams"):
        assert mine(tmp_path, 16) == free
    assert mine(tmp_path, 16, num_beams=3) == theirs(tmp_path, 16, num_beams=3)


def test_blanks_are_a_prompt(tmp_path: Path) -> None:
    generator = Generator(load_backbone(write_decoder(tmp_path)))
    (blank,) = generator.generate(["  "], max_new_tokens=8)
    assert blank.tokens != generator.generate(["a"], max_new_tokens=8)[0].tokens
    assert len(blank.tokens) == 8


def test_an_end_that_only_this_file_names_ends_texts(free: list[list[int]], tmp_path: Path) -> None:
    directory = saying(write_decoder(tmp_path, eos_token_id=None), eos_token_id=[free[0][4], 2])
    backbone = load_backbone(directory)
    one = Generator(backbone).generate(PROMPTS[:1], max_new_tokens=16)[0]
    assert (list(one.tokens), one.finished) == (free[0][:5], "eos")
    assert Tokenizer.of(backbone).eos_id == 2  # in training the tokenizer's own end of a text
    assert load_backbone(saying(write_decoder(tmp_path), do_sample=True)).config.eos_ids == (2,)


def test_how_it_is_drawn_is_the_callers(free: list[list[int]], tmp_path: Path) -> None:
    asked = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.5,
        "num_beams": 4,
        "max_new_tokens": 2,
        "max_length": 9,
    }
    assert mine(saying(write_decoder(tmp_path), **asked), 16) == free
    saying(tmp_path, repetition_penalty=1.4)
    assert mine(tmp_path, 16) != free
    assert mine(tmp_path, 16, repetition_penalty=1.0) == free


def test_config_json_has_the_same_keys_where_the_file_is_missing(tmp_path: Path) -> None:
    write_decoder(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text()) | {"repetition_penalty": 1.4, "forced_eos_token_id": 9}
    config = with_generation(load_backbone(tmp_path).config, tmp_path, raw, encodes=False)
    assert (config.rules, config.last_id) == (Rules(repetition_penalty=1.4), 9)
    assert with_generation(config, saying(tmp_path), raw, encodes=False).last_id == -1  # the file's word alone


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"eos_token_id": "2"}, r"generation_config.json: eos_token_id must be a token's id or a list of such, got '2'"),
        ({"eos_token_id": [2.0]}, "eos_token_id must be a token's id"),
        ({"repetition_penalty": "1"}, "repetition_penalty must be a positive number"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a positive number"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be a whole number from 0"),
        ({"bad_words_ids": [5]}, "bad_words_ids must be lists of tokens' ids"),
        ({"suppress_tokens": [10**12]}, "suppress_tokens must be a token's id or a list of such"),
        ({"guidance_scale": 1.5, "stop_strings": ["a"]}, r"not supported: guidance_scale=1.5, stop_strings=\['a'\]"),
        ({"bad_words_ids": [[5, 6]]}, r"not supported: bad_words_ids=\[\[5, 6\]\]"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    directory = saying(write_decoder(tmp_path), **said)
    with pytest.raises(GraftaxError, match=message):
        Generator(load_backbone(directory))


def test_ids_of_another_vocabulary_say_nothing(tmp_path: Path) -> None:
    """Configs are written with the defaults of a larger model; nothing must be looked up beyond the table."""
    config = load_backbone(saying(write_decoder(tmp_path), eos_token_id=[50256, -1, 2], forced_eos_token_id=50256)).config
    assert (config.eos_ids, config.last_id) == ((2,), -1)
    assert load_backbone(saying(write_decoder(tmp_path, eos_token_id=50256))).config.eos_ids == ()


values = st.none() | st.booleans() | st.integers(-5, 300) | st.floats(allow_nan=False) | st.sampled_from(["never", "a", [], {}])
values |= st.lists(st.integers(-5, 300), max_size=3) | st.just(10**400) | st.lists(st.lists(st.integers(0, 300), max_size=2))
keys = ["eos_token_id", "bos_token_id", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "bad_words_ids"]
keys += ["begin_suppress_tokens", "repetition_penalty", "length_penalty", "early_stopping", "min_length", "min_new_tokens"]
keys += ["no_repeat_ngram_size", "guidance_scale", "decoder_start_token_id", "temperature", "sequence_bias"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(said=st.dictionaries(st.sampled_from(keys), values, max_size=4))
def test_any_file_is_read_or_one_line(said: dict[str, Any], teller: Any) -> None:
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        saying(directory, **said)
        found: list[Any] = []
        if refused(lambda: found.append(with_generation(teller.config, directory, {}, encodes=False))) is None:
            hash(found[0])
            assert all(0 <= token < 272 for token in (*found[0].eos_ids, *({found[0].first_id, found[0].last_id} - {-1})))


# -- from the Hub, and into a merge --------------------------------------------------------------------------------------

TEXTS = ["generation_config.json", "chat_template.jinja", "added_tokens.json", "special_tokens_map.json", "tokenizer.model"]
TEXTS += ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model"]
TEXTS += ["additional_chat_templates/a.jinja"]


def with_all_files(directory: Path) -> Path:
    write_decoder(directory)
    for name in TEXTS:
        if not (directory / name).exists():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text("{}")
    (directory / "README.md").write_text("")
    return saying(directory, eos_token_id=[7, 2])


def test_a_merge_has_every_file_about_texts(tmp_path: Path) -> None:
    backbone = load_backbone(with_all_files(tmp_path / "backbone"))
    adapter = Adapter.create((LoRA(r=2, alpha=3.0, targets=("q_proj",)),), backbone.sites, task="lm")
    export_merged(backbone, adapter, tmp_path / "merged", any_backbone=True)
    merged = {str(file.relative_to(tmp_path / "merged")) for file in (tmp_path / "merged").rglob("*") if file.is_file()}
    assert merged == {*TEXTS, "config.json", "model.safetensors"}
    assert load_backbone(tmp_path / "merged").config.eos_ids == (7, 2)


def test_every_file_about_texts_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache as huggingface_hub lays it out, in which a snapshot has all files; what is asked for is what is listed."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    revision = "0" * 40
    repo = tmp_path / "models--someone--teller"
    with_all_files(repo / "snapshots" / revision)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    asked: list[list[str]] = []
    whole = huggingface_hub.snapshot_download

    def snapshot(name: str, **options: Any) -> str:
        asked.append(options["allow_patterns"])
        return str(whole(name, cache_dir=tmp_path, **options))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    backbone = load_backbone("someone/teller")
    assert backbone.config.eos_ids == (7, 2)
    assert Tokenizer.of(backbone).ids(["a"])[0].tolist()[0] == 1
    wanted = [*TEXTS, "config.json", "model.safetensors"]
    assert list(filter_repo_objects([*wanted, "README.md", "pytorch_model.bin"], allow_patterns=asked[0])) == wanted


def test_sampling_without_a_word_of_the_backbone() -> None:
    asked = Sampling(length_penalty=0.5)
    assert asked.under(Rules(repetition_penalty=1.2, length_penalty=2.0)) == Sampling(
        length_penalty=0.5, repetition_penalty=1.2, early_stopping=False
    )
