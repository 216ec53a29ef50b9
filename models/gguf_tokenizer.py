"""The tokenizer of a GGUF file, made of its vocabulary as llama.cpp reads it.

A file has no `tokenizer.json`, it has tokens, and

    gpt2     the pairs of bytes that are merged, and a name for how a text is cut into words first (`tokenizer.ggml.pre`)
    llama    a score of each token: of two neighbours that make a token, those with the best are merged first (SentencePiece)

Where transformers' reading of such files differs from llama.cpp's, llama.cpp's is taken: it knows more names of how words are
cut (SmolLM's digits are tokens of their own), takes a word that is a token for one in Llama 3's vocabulary whatever the merges
say, and puts SentencePiece's space before each piece of a text between special tokens, also where that begins with a space.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..typed import shown
from .chat import CHAT_TEMPLATE
from .gguf_file import read_gguf
from .gguf_vocabulary import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary
from .tokenizer_files import TOKENIZER_CONFIG

_SPACE = "\u2581"  # SentencePiece's mark where a word begins

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"  # don't, we'll
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|"

#: Names of how texts are cut into words, one pattern after another.
_WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion"): (_GPT2,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"): (r"\p{N}", _GPT2),
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx", "smaug-bpe"): (
        rf"{_SHORT}{_LETTERS}\p{{N}}{{1,3}}{_REST}",
    ),
    ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open"): (
        rf"{_SHORT}{_LETTERS}\p{{N}}{_REST}",
    ),
    ("tekken",): (rf"{_CASED}\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",),
}
#: Of which a word that is a token is one, whatever the merges say, and which put their first token before a text.
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")


class GgufTokenizer:
    """The tokenizer of a file, with what `TokenizerFiles` has of a directory's."""

    def __init__(self, file: Path):
        self.directory = file  # as errors name it
        gguf = read_gguf(file)
        self.vocabulary, self._metadata = Vocabulary(file, gguf.metadata), gguf.metadata

    @cached_property
    def backends(self) -> tuple[Any, Any]:
        """`tokenizers.Tokenizer` of what is read and of what is written: one."""
        makers = {"gpt2": _byte_level, "llama": _pieces}
        if self.vocabulary.model not in makers or not self.vocabulary.tokens:
            raise GraftaxError(
                f"{self.directory}: tokenizer.ggml.model is {shown(self.vocabulary.model)}, of {len(self.vocabulary.tokens)} "
                f"tokens; those read are {', '.join(makers)}."
            )
        try:
            backend = makers[self.vocabulary.model](self.vocabulary)
            _add_tokens(backend, self.vocabulary)
            _put_around(backend, self.vocabulary)
        except GraftaxError:
            raise
        except Exception as error:  # of no narrower kind: a merge of what is no token, say
            raise GraftaxError(f"{self.directory}: no tokenizer can be made of its vocabulary ({error}).") from error
        return backend, backend

    @cached_property
    def by_transformers(self) -> Any:
        """transformers' own object, which also has the chat template."""
        from transformers import PreTrainedTokenizerFast

        named = {**self._named, "clean_up_tokenization_spaces": False, "name_or_path": str(self.directory)}
        return PreTrainedTokenizerFast(tokenizer_object=self.backends[0], chat_template=self._chat_template, **named)

    @property
    def eos_id(self) -> int | None:
        """The token that the tokenizer itself takes for a text's end."""
        return self.vocabulary.id_of("eos")

    @property
    def _named(self) -> dict[str, str]:
        """The tokens that have names, as tokenizer_config.json has them."""
        names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        found = {f"{name}_token": self.vocabulary.token_of(key) for name, key in names.items()}
        return {name: token for name, token in found.items() if token is not None}

    @property
    def _chat_template(self) -> str | None:
        template = self._metadata.get("tokenizer.chat_template")
        if not isinstance(template, str | None):
            raise GraftaxError(f"{self.directory}: tokenizer.chat_template is {shown(template)}, no text.")
        return template or None

    def save(self, directory: Path) -> None:
        """Write the files of a directory's tokenizer, and what a text ends with (`generation_config.json`)."""
        self.backends[0].save(str(directory / "tokenizer.json"))
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **self._named}
        generation = self.vocabulary.named_ids()
        for name, content in ((TOKENIZER_CONFIG, said), ("generation_config.json", generation)):
            (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if self._chat_template is not None:
            (directory / CHAT_TEMPLATE).write_text(self._chat_template, "utf-8")


def _byte_level(vocabulary: Vocabulary) -> Any:
    """Pairs of bytes, each byte written as a letter."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    cut = vocabulary.said("pre", str, "default")
    patterns = next((patterns for names, patterns in _WORDS.items() if cut in names), None)
    merges = vocabulary.listed("merges", str)
    if patterns is None or not merges:
        known = f"tokenizer.ggml.pre is {shown(cut)}; those read are {', '.join(name for names in _WORDS for name in names)}"
        raise GraftaxError(f"{vocabulary.path}: {known if merges else 'it has no merges (tokenizer.ggml.merges)'}.")
    pairs = [(merge[:1] + left, right) for merge in merges for left, _, right in [merge[1:].partition(" ")]]
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    backend = Tokenizer(models.BPE(ids, pairs, ignore_merges=cut in _WHOLE_WORDS))
    words = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    return backend


def _pieces(vocabulary: Vocabulary) -> Any:
    """SentencePiece's pairs: what has no token becomes bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    space, unknown = vocabulary.said("add_space_prefix", bool, True), vocabulary.token_of("unknown")
    backend = Tokenizer(models.BPE(ids, _merges(vocabulary, ids), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    before = [normalizers.Prepend(_SPACE)] if space else []
    backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", _SPACE)])
    after = [decoders.Strip(content=" ", left=1)] if space else []
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after])
    return backend


def _merges(vocabulary: Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way in which two tokens make a third, those that make the best scored first."""
    scores: Sequence[float] | None = vocabulary.listed("scores", float)
    if scores is None or len(scores) < len(ids):
        raise GraftaxError(f"{vocabulary.path}: it has no score (tokenizer.ggml.scores) of each of its {len(ids)} tokens.")
    ways = []
    for token, i in ids.items():
        if vocabulary.kinds[i] == NORMAL:
            cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
            ways += [(-scores[i], i, ids[a], ids[b], a, b) for a, b in cuts if a in ids and b in ids]
    return [(a, b) for *_, a, b in sorted(ways)]


def _add_tokens(backend: Any, vocabulary: Vocabulary) -> None:
    """The tokens that are found in a text before it is cut into words."""
    from tokenizers import AddedToken

    for i, token in enumerate(vocabulary.tokens):
        if vocabulary.kinds[i] in (CONTROL, UNKNOWN):
            backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif vocabulary.kinds[i] == USER_DEFINED:
            backend.add_tokens([AddedToken(token, normalized=False, special=False)])


def _put_around(backend: Any, vocabulary: Vocabulary) -> None:
    """The tokens that begin and end a text."""
    from tokenizers import processors

    usual = vocabulary.model == "llama" or vocabulary.said("pre", str, "default") in _WHOLE_WORDS
    wanted = {"bos": vocabulary.said("add_bos_token", bool, usual), "eos": vocabulary.said("add_eos_token", bool, False)}
    tokens = {name: vocabulary.token_of(name) for name, there in wanted.items() if there}
    missing = [name for name, token in tokens.items() if token is None]
    if missing:
        raise GraftaxError(f"{vocabulary.path}: tokenizer.ggml.add_{missing[0]}_token, and it names no {missing[0]} token.")
    first, last = ([str(tokens[name])] if name in tokens else [] for name in ("bos", "eos"))
    backend.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{token}:1" for token in first), "$B:1", *(f"{token}:1" for token in last)],
        special_tokens=[(token, vocabulary.tokens.index(token)) for token in {*first, *last}],
    )
