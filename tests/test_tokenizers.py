"""Tokenizers of generated directories against transformers' AutoTokenizer; what is no tokenizer is refused in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import transformers
from conftest import MINILM, SHARED, needs_assets
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tokenizers import ALGORITHM_OF, EXTRA, NAMED_IN, Made, directories, write
from refusals import refused
from tiny import tokenizer_json, write_backbone, write_decoder
from tokenizers import Tokenizer as Tokenizers

from graftax import Generator, GraftaxError, load_backbone
from graftax.models.backbone import Backbone
from graftax.models.family_registry import FAMILIES
from graftax.models.tokenizer_classes import TOKENIZER_CLASSES
from graftax.models.tokenizer_files import TokenizerFiles
from graftax.models.tokens import Tokenizer

TEXTS = ["apple tree", "The Käse of iron <call> app", "a<|im_end|>b", "\u4e2d\u6587 APPLES", "[SEP] </s> x", "", "  \u03b1 "]


def tokenizer_of(directory: Path, eos_ids: tuple[int, ...] = ()) -> Tokenizer:
    config = json.loads((directory / "config.json").read_text())
    return Tokenizer(TokenizerFiles(directory, config, eos_ids), 512, 0, 2, 40_000, eos_ids)


def reference(directory: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)


def transformers_reads(directory: Path) -> bool:
    try:
        reference(directory)
    except Exception:  # of any kind
        return False
    return True


@settings(max_examples=100, deadline=None, derandomize=True)
@given(made=directories())
def test_the_tokenizer_is_transformers(made: Made) -> None:
    """The same ids and texts, or refused: where transformers fails, or makes up a vocabulary."""
    with TemporaryDirectory() as folder:
        directory = write(made, Path(folder) / "made")
        mine = tokenizer_of(directory)
        said = refused(lambda: mine.backend)
        if said is not None:
            assert not made.whole or not transformers_reads(directory), (made, said)
            return
        theirs = reference(directory)
        assert [ids.tolist() for ids in mine.ids(TEXTS)] == [theirs(text)["input_ids"] for text in TEXTS], made
        assert [ids.tolist() for ids in mine.ids(TEXTS, special=False)] == [
            theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS
        ]
        pair = mine(["apple"], ["tree a"], 16)[0]
        assert pair.ids.tolist() == theirs("apple", "tree a")["input_ids"]
        ids = mine.ids(TEXTS[:1])[0]
        assert mine.text(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("named_in", NAMED_IN)
def test_tokens_named_anywhere_are_one_token(named_in: str, tmp_path: Path) -> None:
    made = Made("bytes", True, False, "PreTrainedTokenizerFast", "llama", named_in, False, {})
    mine = tokenizer_of(write(made, tmp_path))
    assert mine.ids(["a<call>b"])[0].tolist() == reference(tmp_path)("a<call>b").input_ids
    assert mine.ids([EXTRA[0]], special=False)[0].tolist() == [mine.backend.token_to_id(EXTRA[0])]


@pytest.mark.parametrize(
    ("key", "text"), [("do_lower_case", "IRON"), ("strip_accents", "k\u00e4"), ("tokenize_chinese_chars", "\u4e2d\u6587")]
)
def test_settings_of_bert_are_honoured(key: str, text: str, tmp_path: Path) -> None:
    found = []
    for value in (True, False):
        made = Made("wordpiece", True, False, "BertTokenizer", "bert", "tokenizer.json", False, {key: value})
        directory = write(made, tmp_path / str(value))
        found.append(tokenizer_of(directory).ids([text])[0].tolist())
        assert found[-1] == reference(directory)(text).input_ids
    assert found[0] != found[1]


@pytest.mark.parametrize("added", ["tokenizer.json", "added_tokens_decoder", None])
@pytest.mark.parametrize(
    ("algorithm", "of_class", "model_type"),
    [(ALGORITHM_OF.get(one.names[0], "bytes"), one.names[0], "llama") for one in TOKENIZER_CLASSES]
    + [(ALGORITHM_OF.get(one.names[0], "bytes"), None, t) for one in TOKENIZER_CLASSES for t in one.model_types],
)
def test_common_directories_are_read_alone(
    algorithm: str, of_class: Any, model_type: str, added: str | None, tmp_path: Path
) -> None:
    """As they are published: all tokens in tokenizer.json, whether the config lists them again or not."""
    directory = write(Made(algorithm, True, False, of_class, model_type, "tokenizer.json", True, {}), tmp_path)
    if added == "added_tokens_decoder":
        again = Tokenizers.from_file(str(directory / "tokenizer.json")).get_added_tokens_decoder()
        said = json.loads((directory / "tokenizer_config.json").read_text())
        said["added_tokens_decoder"] = {str(i): token.__getstate__() for i, token in again.items()}
        (directory / "tokenizer_config.json").write_text(json.dumps(said))
    if added is None:
        (directory / "tokenizer_config.json").unlink()
        said = {"model_type": model_type, **({"tokenizer_class": of_class} if of_class else {})}
        (directory / "config.json").write_text(json.dumps(said))
    mine, theirs = tokenizer_of(directory), reference(directory)
    assert [ids.tolist() for ids in mine.ids(TEXTS)] == [theirs(text)["input_ids"] for text in TEXTS]
    assert "by_transformers" not in vars(mine.files)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_tokenizer_json_is_the_whole_tokenizer_of_a_class(model_type: str, tmp_path: Path) -> None:
    """For every family: of a directory whose class says so, the file is read alone, unless another library may read it."""
    directory = write(Made("bytes", True, False, "PreTrainedTokenizerFast", model_type, "tokenizer.json", True, {}), tmp_path)
    mine, theirs = tokenizer_of(directory), reference(directory)
    assert mine.ids(["app ab"])[0].tolist() == theirs("app ab").input_ids
    assert ("by_transformers" not in vars(mine.files)) == (model_type != "mistral")


def test_start_up_without_transformers(tiny_dir: Path) -> None:
    """A BERT directory and a language model's, as they are published, need no import of a second and more."""
    code = "import sys; from graftax import load_backbone; from graftax.models.tokens import Tokenizer; "
    code += "Tokenizer.of(load_backbone(sys.argv[1])).ids(['a']); assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tiny_dir)], check=True)


@needs_assets
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "stories260K"])
def test_real_tokenizers_are_read_alone(name: str) -> None:
    mine, theirs = tokenizer_of(SHARED / "backbones" / name), reference(SHARED / "backbones" / name)
    assert [ids.tolist() for ids in mine.ids(TEXTS)] == [theirs(text)["input_ids"] for text in TEXTS]
    assert "by_transformers" not in vars(mine.files)


# -- what is no tokenizer ------------------------------------------------------------------------------------------------


def test_a_vocabulary_is_not_made_up(tmp_path: Path) -> None:
    backbone = load_backbone(write_backbone(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(GraftaxError, match=r"no tokenizer there: a BertTokenizer needs tokenizer.json, or vocab.txt"):
        Tokenizer.of(backbone).ids(["a"])


@needs_assets
@pytest.mark.parametrize("name", ["rxnmapper-albert", "mgm-gpt2", "gpt-nano-sort"])
def test_real_directories_without_a_tokenizer(name: str) -> None:
    with pytest.raises(GraftaxError, match="no tokenizer there"):
        tokenizer_of(SHARED / "backbones" / name).ids(["a"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{", r"tokenizer.json: no tokenizer that can be read"),
        ("tokenizer.json", "[" * 200_000, r"tokenizer.json: no tokenizer that can be read"),
        ("tokenizer.json", json.dumps({"model": {"type": "BPE", "vocab": 5}}), "no tokenizer that can be read"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        ("tokenizer.json", tokenizer_json().replace('0,"[UNK]":1', '0,"[none]":1'), "its tokenizer cannot read a row"),
        ("tokenizer_config.json", "[]", r"tokenizer_config.json: expected a JSON object"),
        ("tokenizer_config.json", '{"tokenizer_class": 5}', "tokenizer_class is no name: 5"),
        ("tokenizer_config.json", '{"tokenizer_class": ["a"]}', r"tokenizer_class is no name: \['a'\]"),
        ("tokenizer_config.json", '{"do_lower_case": "no"}', "no tokenizer there that can be loaded"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"0": []}}', "no tokenizer there that can be loaded"),
        ("special_tokens_map.json", "5", "special_tokens_map.json: expected a JSON object"),
    ],
)
def test_damaged_files_are_one_line(file: str, content: str, message: str, tmp_path: Path) -> None:
    backbone = load_backbone(write_backbone(tmp_path))
    (tmp_path / file).write_text(content)
    with pytest.raises(GraftaxError, match=message):
        Tokenizer.of(backbone).ids(["\N{SNOWMAN}"])


def test_a_class_that_is_no_tokenizer_is_never_made(tmp_path: Path) -> None:
    """transformers would take any of its classes that a file names, models included."""
    directory = write(Made("bytes", True, False, "GPT2LMHeadModel", "gpt2", "tokenizer.json", False, {}), tmp_path)
    assert type(tokenizer_of(directory).files.by_transformers).__name__ == "TokenizersBackend"
    assert len(tokenizer_of(directory).ids(["app"], special=False)[0]) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.sampled_from(["", "<s>", "BertTokenizer", "T5Tokenizer", "[CLS]"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["content", "0", "lstrip", "type"]), inner),
    max_leaves=4,
)
keys = ["tokenizer_class", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "bos_token"]
keys += ["cls_token", "do_lower_case", "strip_accents", "auto_map", "init_inputs", "model_max_length", "vocab", "merges"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(said=st.dictionaries(st.sampled_from(keys), anything, max_size=3), algorithm=st.sampled_from(["wordpiece", "bytes"]))
def test_any_config_is_a_tokenizer_or_one_line(said: dict[str, Any], algorithm: str) -> None:
    with TemporaryDirectory() as folder:
        model_type = "bert" if algorithm == "wordpiece" else "gpt2"
        directory = write(Made(algorithm, True, False, None, model_type, "tokenizer.json", False, {}), Path(folder) / "made")
        (directory / "tokenizer_config.json").write_text(json.dumps(said))
        mine = tokenizer_of(directory)
        if refused(lambda: mine.ids(TEXTS)) is None:
            theirs = reference(directory)
            assert [ids.tolist() for ids in mine.ids(TEXTS)] == [theirs.backend_tokenizer.encode(text).ids for text in TEXTS]


parts = st.sampled_from(["model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(part=parts, value=anything, cut=st.integers(0, 3000))
def test_any_damage_to_tokenizer_json_is_one_line(part: str, value: Any, cut: int) -> None:
    with TemporaryDirectory() as folder:
        text = json.dumps({**json.loads(tokenizer_json()), part: value}) if cut < 1500 else tokenizer_json()[:cut]
        (Path(folder) / "tokenizer.json").write_text(text)
        (Path(folder) / "config.json").write_text('{"model_type": "bert"}')
        refused(lambda: tokenizer_of(Path(folder)).ids(TEXTS))


# -- ends of texts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Of a tokenizer that ends every text itself."""
    directory = write_decoder(tmp_path_factory.mktemp("ending"))
    saved = json.loads((directory / "tokenizer.json").read_text())
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    saved["post_processor"]["single"].append(end)
    saved["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    (directory / "tokenizer.json").write_text(json.dumps(saved))
    return Tokenizer.of(load_backbone(directory))


def test_the_tokenizers_own_end_is_the_only_one(ending: Tokenizer) -> None:
    (whole,), (prompt,) = ending.ids(["ab"]), ending.prompts(["ab"])
    assert whole.tolist()[-1] == 2
    assert ending.ended(whole).tolist() == whole.tolist()
    assert ending.ended(prompt).tolist() == whole.tolist()
    assert prompt.tolist() == whole.tolist()[:-1]


def test_generation_goes_on_behind_the_prompt(ending: Tokenizer, teller: Backbone) -> None:
    """What is written is what a tokenizer without that end would have had written."""
    assert ending.files is not None
    both = [Generator(one) for one in (teller, load_backbone(ending.files.directory))]
    plain, own = (generator.generate(["the early bird"], max_new_tokens=6)[0].tokens for generator in both)
    assert plain == own


@needs_assets
def test_of_prompts_nothing_else_is_taken_away() -> None:
    mine = tokenizer_of(MINILM)
    assert mine.prompts(["a [SEP]"])[0].tolist() == [101, 1037, 102]
    assert mine.ids(["a [SEP]"])[0].tolist() == [101, 1037, 102, 102]
