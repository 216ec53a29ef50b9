"""Texts that are to be read: of a request's `input`, and how many tokens they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...models.tokens import Tokenizer
from ..handles import Handle
from .complaints import Refused
from .limits import Limits
from .mixes import Who, handles_of
from .service import Service, in_thread


def texts_of(given: Any, limits: Limits, *, words: bool = False, name: str = "input") -> list[Any]:
    """The texts; with `words` each may also be a list of words. Refused where there is none, or one is blank.

    `name`: of the parameter.
    """
    texts = [given] if isinstance(given, str) else given
    if (
        not isinstance(texts, list)
        or not texts
        or not all(isinstance(one, str) or (words and _are_words(one)) for one in texts)
    ):
        either = "a text, or a list of texts or of lists of words" if words else "a text or a list of texts"
        raise Refused(400, f"{name} must be {either}; token ids are not taken.", param=name)
    if len(texts) > limits.max_texts:
        raise Refused(400, f"{name} has {len(texts)} texts, more than {limits.max_texts} (--max-texts).", param=name)
    for index, one in enumerate(texts):
        if not "".join(one).strip():
            raise Refused(400, f"{name}[{index}] is empty.", param=name)
    return texts


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


NO_TOKENS = {"prompt_tokens": 0, "total_tokens": 0}  # which pictures have


class Head(NamedTuple):
    """What answers: its task, and the names of its classes."""

    task: str
    labels: tuple[str, ...]


def head_of(service: Service, who: Who) -> Head | None:
    """The head of who answers, of a mix the first that has one; None where nothing has a head."""
    handles: list[Handle | None] = [*handles_of(who)]
    if who is None and service.backbone.own_head is not None:
        handles = [None]
    for handle in handles:
        if labels := service.predictor.labels(handle):
            return Head(service.predictor.task(handle).name, labels)
    return None


async def usage_of(service: Service, texts: Sequence[Any], name: str = "input") -> dict[str, int]:
    """The numbers of tokens, as far as they are read; Refused where a text has more than are taken, or none is read at all.

    `name`: of the parameter that has the texts.
    """
    if service.tokenizer is None:
        raise Refused(422, f"{service.name} reads pictures and no texts; /v1/classify answers them.", param="model")
    counts = await in_thread(_counted, service.tokenizer, [text if isinstance(text, str) else " ".join(text) for text in texts])
    most = service.limits.max_prompt
    for index, count in enumerate(counts):
        if most is not None and count > most:
            said = f"{name}[{index}] has {count} tokens, and this server takes {most} (--max-prompt)."
            raise Refused(400, said, param=name)
    longest = service.predictor.max_length
    total = sum(min(count, longest) for count in counts)
    service.counts.read(total)
    return {"prompt_tokens": total, "total_tokens": total}


def _counted(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """How many tokens each text has."""
    return [len(ids) for ids in tokenizer.ids(texts)]
