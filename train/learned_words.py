"""Words around the names of classes that are learnt, in place of "a photo of a" (CoOp: Zhou et al., 2022, arXiv:2109.01134).

    [v_1] ... [v_M] cat .           v_m [e] trained, in place of the embeddings of M words; the class stands at the end

So CoOp is `TrainableTokens` over M words that no name has, in the texts of a pair of towers that is trained by names
(`tasks/by_names.py`): nothing else about it is special. The words are looked for at the end of the vocabulary, where the rare
ones are; the vectors start as these words' own, which pretraining has hardly moved from where it began. Of its two kinds the
unified has one context for all classes, the class-specific M words for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..adapters.methods.trainable_tokens import TrainableTokens
from ..data.columns import Columns
from ..data.sources import source_of
from ..data.splits import parts_to_train
from ..data.values import class_of
from ..errors import GraftaxError
from ..models.backbone import Backbone, expect_backbone
from ..models.pairs import PairConfig, tokenizer_of
from ..models.tokens import Tokenizer
from ..notes import silenced
from ..typed import Size, held, shown

_AT_ONCE = 512  # ids


@held
def learned_context(
    pair: Backbone, names: Sequence[str], *, tokens: Size = 16, each: bool = False
) -> tuple[TrainableTokens, dict[str, str]]:
    """What to train, and the text of each class: the method, and names with the words that it learns in front of them.

    Args:
        pair: of towers, of pictures and of texts.
        names: of the classes, those too that are not trained on.
        tokens: words in front of a name.
        each: whether every class has words of its own.

    Raises:
        GraftaxError: no pair; no names, or one twice; fewer words in the vocabulary than are asked for, or than fit in a text.
    """
    method, contexts = _contexts(pair, names, tokens, each)
    return method, {name: f"{context} {name}." for name, context in contexts.items()}


def _contexts(pair: Backbone, names: Sequence[str], tokens: int, each: bool) -> tuple[TrainableTokens, dict[str, str]]:
    """The same, with what stands in front of each name alone."""
    expect_backbone(pair)
    if not isinstance(pair.config, PairConfig):
        raise GraftaxError(f"{pair.name} is no pair of towers: give tower='both', or two backbones to pair().")
    if not names or len({*names}) < len(names):
        raise GraftaxError(f"expected names of classes, none of them twice, got {shown(list(names))}.")
    texts = tokenizer_of(pair)
    words = _rare_words(texts, names, tokens * (len(names) if each else 1))
    ahead, begins = [*words], [i * tokens if each else 0 for i in range(len(names))]
    contexts = {name: " ".join(ahead[begin : begin + tokens]) for name, begin in zip(names, begins, strict=True)}
    longest = max(map(len, texts.ids([f"{context} {name}." for name, context in contexts.items()])))
    if longest > texts.max_length:
        raise GraftaxError(f"a name with its words is {longest} tokens long, and {texts.max_length} are read: take fewer.")
    return TrainableTokens(ids=tuple(words.values())), contexts


def context_of_labels(
    pair: Backbone, data: Mapping[str, Any], columns: Columns, *, tokens: int
) -> tuple[TrainableTokens, Columns]:
    """One context for the labels of all data of a run: the method, and the columns with the text that is made of a label.

    Raises GraftaxError: as of `learned_context`; data without labels; a column of texts that somebody has named.
    """
    if "text" in columns.named and columns["text"] != "text":
        raise GraftaxError(
            f"words are learnt in front of each label, and the text is to be {columns['text']!r}: leave out one."
        )
    names, label = dict[str, None](), columns["label"]
    for called, rows in data.items():
        with silenced():  # `train_many` says which split is read
            source = source_of(parts_to_train(rows, None)[0], called)
        names |= dict.fromkeys(map(str, source.column(label, partial(class_of, names=source.classes.get(label, ())))))
    method, contexts = _contexts(pair, [*names], tokens, each=False)
    (context,) = {*contexts.values()}
    return method, Columns(**columns.named | {"text": f"{context} {{{label}}}."})


def _rare_words(texts: Tokenizer, names: Sequence[str], count: int) -> dict[str, int]:
    """Words of one token each, with their ids, from the end of the vocabulary; none of them is in a name."""
    in_names = {int(i) for ids in texts.ids([f"{name}." for name in names], special=False) for i in ids}
    found: dict[str, int] = {}
    for end in range(texts.vocab_size, 0, -_AT_ONCE):
        candidates = [texts.text([i]).strip() for i in range(max(0, end - _AT_ONCE), end)]
        words = [word for word in dict.fromkeys(reversed(candidates)) if word.isascii() and word.isalpha() and word.islower()]
        for word, ids in zip(words, texts.ids(words, special=False) if words else [], strict=True):
            if len(ids) == 1 and int(ids[0]) not in in_names:
                found.setdefault(word, int(ids[0]))
            if len(found) == count:
                return found
    raise GraftaxError(f"the vocabulary has {len(found)} words of one token that no name has, and {count} are to be learnt.")
