"""What a request may say, by its type; whatever would change the answer and cannot be done is refused by its name.

A parameter with the value null is one that was not given, as in OpenAI's API. One that is not supported may still be given with
the value at which it changes nothing, as many clients do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, Literal, TypeVar, cast

from ...errors import GraftaxError
from ...typed import Name, Share, Some, Such, Within, checked, checked_object, kinds_of
from ..chances import MOST_TOLD
from ..sampling import Penalty, Probability
from .complaints import Refused

T = TypeVar("T")
_MOST_STOPS = 16
_TEMPERATURES = Within(0.0, most=1e6)


@dataclass(frozen=True, eq=False)
class Form:
    """Says of a kind what JSON schema has for it, where that does not follow from the kind (`openapi.py`)."""

    schema: Mapping[str, Any]


Off = Annotated[bool, Such("only false", lambda on: not on), Form({"const": False})]
Likeliest = Annotated[int, Within(0, most=MOST_TOLD)]
Stops = Annotated[
    Sequence[Name],
    Such(f"at most {_MOST_STOPS} of them", lambda texts: len(texts) <= _MOST_STOPS),
    Form({"maxItems": _MOST_STOPS}),
]

_A_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_TEXTS = {"anyOf": [_A_TEXT, {"type": "array", "items": _A_TEXT, "minItems": 1}]}
_WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_PROMPTS = {"anyOf": [_A_TEXT, _IDS, {"type": "array", "items": {"anyOf": [_A_TEXT, _IDS]}, "minItems": 1}]}
_TO_TAG = {"anyOf": [_A_TEXT, {"type": "array", "items": {"anyOf": [_A_TEXT, _WORDS]}, "minItems": 1}]}
_PARTS = {"type": "array", "items": {"type": "object"}, "minItems": 1}
_TO_CLASSIFY = {"anyOf": [*_TEXTS["anyOf"], {"type": "object"}, _PARTS]}
_CHAT = {"type": "array", "items": {"type": "object"}, "minItems": 1}

#: What changes no answer: for OpenAI's own bookkeeping, caches and prices.
HARMLESS = {"metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}


@dataclass(frozen=True)
class Unsupported:
    """A parameter of OpenAI's or vLLM's that is not there."""

    why: str
    neutral: tuple[Any, ...] = ()  # values at which it changes nothing


_TOOLS = "tools are not supported"
UNSUPPORTED = {
    "top_logprobs": Unsupported("a parameter of chats; of completions, logprobs is the number", (0,)),
    "prompt_logprobs": Unsupported("log probabilities are told of what is written, not of prompts", (0,)),
    "presence_penalty": Unsupported("not supported; repetition_penalty is", (0, 0.0)),
    "frequency_penalty": Unsupported("not supported; repetition_penalty is", (0, 0.0)),
    "logit_bias": Unsupported("not supported", ({},)),
    "best_of": Unsupported("not supported; n texts are written and all of them answered", (1,)),
    "echo": Unsupported("the prompt is not repeated", (False,)),
    "suffix": Unsupported("texts are continued, never filled in", ("",)),
    "tools": Unsupported(_TOOLS, ([],)),
    "tool_choice": Unsupported(_TOOLS, ("none", "auto")),
    "parallel_tool_calls": Unsupported(_TOOLS, (True, False)),
    "functions": Unsupported(_TOOLS, ([],)),
    "function_call": Unsupported(_TOOLS, ("none", "auto")),
    "modalities": Unsupported("only text is written", (["text"],)),
    "reasoning_effort": Unsupported("not supported", ("none",)),
    "min_tokens": Unsupported("not supported", (0,)),
    "ignore_eos": Unsupported("not supported", (False,)),
    "skip_special_tokens": Unsupported("special tokens are never written", (True,)),
    "use_beam_search": Unsupported("not supported", (False,)),
    "add_generation_prompt": Unsupported("a chat is always to be answered", (True,)),
    "truncate_prompt_tokens": Unsupported("not supported"),
}


@dataclass(frozen=True)
class StreamOptions:
    """Of what comes in pieces."""

    include_usage: bool = False  # a last piece with the numbers of tokens


@dataclass(frozen=True)
class JsonSchema:
    """Of a `response_format` that is one."""

    name: str | None = None  # which, with what follows, changes nothing
    description: str | None = None
    strict: bool | None = None  # a schema is obeyed in any case
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ResponseFormat:
    """The form that texts are to have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


@dataclass(frozen=True)
class StructuredOutputs:
    """The same as vLLM has it; one of these."""

    json: Mapping[str, Any] | None = None  # a schema
    regex: str | None = None
    choice: Annotated[Sequence[Name], Such("at least one of them", bool)] | None = None
    json_object: bool = False

    @property
    def says(self) -> list[str]:
        """What is given."""
        return [one.name for one in fields(self) if getattr(self, one.name) not in (None, False)]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every request may say."""

    model: Name  # the base, an adapter's name, a name on the hub
    user: str | None = None  # whose request it is: of a tag that shares its traffic, the same user always gets the same version


@dataclass(frozen=True, kw_only=True)
class ToWrite(Asked, ABC):
    """How texts are to be written, with OpenAI's defaults; the last four are vLLM's."""

    n: Annotated[int, Within(1, most=128)] = 1
    max_tokens: Some | None = None
    stop: Name | Stops = ()
    seed: int | None = None
    temperature: Annotated[float, _TEMPERATURES] = 1.0
    top_p: Share = 1.0
    stream: bool = False
    stream_options: StreamOptions = field(default_factory=StreamOptions)
    response_format: ResponseFormat = field(default_factory=ResponseFormat)
    top_k: Annotated[int, Within(-1, below=1 << 31)] = 0  # 0, -1: from all
    min_p: Probability = 0.0
    repetition_penalty: Penalty | None = None
    structured_outputs: StructuredOutputs = field(default_factory=StructuredOutputs)

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple([self.stop] if isinstance(self.stop, str) else self.stop)

    @property
    @abstractmethod
    def told(self) -> int | None:
        """Of how many of the likeliest tokens the log probabilities are told, beside each token's own; None: nothing."""


@dataclass(frozen=True, kw_only=True)
class Completion(ToWrite):
    """Of /v1/completions."""

    prompt: Annotated[Any, Form(_PROMPTS)]  # a text, a list of token ids, or a list of either
    logprobs: Off | Likeliest | None = None

    @property
    def told(self) -> int | None:
        return None if self.logprobs is False else self.logprobs


@dataclass(frozen=True, kw_only=True)
class ChatCompletion(ToWrite):
    """Of /v1/chat/completions."""

    messages: Annotated[Sequence[Any], Form(_CHAT)]  # `data/chats.py` says what one is
    max_completion_tokens: Some | None = None  # the newer name of max_tokens
    logprobs: bool = False
    top_logprobs: Likeliest | None = None

    @property
    def told(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise Refused(400, "top_logprobs: only together with logprobs true.", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


@dataclass(frozen=True, kw_only=True)
class ToRead(Asked):
    """Of what reads texts, such as /classify."""

    input: Annotated[Any, Form(_TEXTS)]  # a text or a list of texts


@dataclass(frozen=True, kw_only=True)
class ToClassify(Asked):
    """Of /classify: texts, or of a backbone of pictures image parts."""

    input: Annotated[Any, Form(_TO_CLASSIFY)] = None  # a text or an image part, or a list of either
    messages: Annotated[Any, Form(_CHAT)] = None  # of the user, in place of it; `pictures_asked.py` says what is in them
    threshold: Annotated[float, Within(0.0, most=1.0)] | None = None  # of image-detect: how sure an object must be to be told


@dataclass(frozen=True, kw_only=True)
class ToTag(ToRead):
    """Of /v1/tag."""

    input: Annotated[Any, Form(_TO_TAG)]  # also a list of lists of words


@dataclass(frozen=True, kw_only=True)
class ToEmbed(ToRead):
    """Of /v1/embeddings."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Some | None = None  # only as many as there are


@dataclass(frozen=True, kw_only=True)
class ToScore(Asked):
    """Of /score."""

    text_1: Annotated[Any, Form(_TEXTS)]  # a text or a list of texts
    text_2: Annotated[Any, Form(_TEXTS)]


@dataclass(frozen=True, kw_only=True)
class ToLoad:
    """Of /v1/load_lora_adapter."""

    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False  # whether one that has the name is replaced
    is_3d_lora_weight: bool = False  # vLLM's, of how its own files lie; the reader sees that itself


@dataclass(frozen=True, kw_only=True)
class ToUnload:
    """Of /v1/unload_lora_adapter."""

    lora_name: str = ""
    lora_int_id: int | None = None  # vLLM's, and of no use here


def parameters_of(cls: type[T], content: Mapping[str, Any]) -> T:
    """What an object of JSON says; Refused, which names the parameter, where something does not fit."""
    kinds = kinds_of(cast(Any, cls))
    given: dict[str, Any] = {}
    for name, value in content.items():
        if value is None or (name in HARMLESS and name not in kinds):
            continue
        if name not in kinds:
            _refuse_unknown(name, value, kinds)
            continue
        try:
            given[name] = (checked_object if isinstance(value, dict) else checked)(value, kinds[name], name)
        except GraftaxError as error:
            raise Refused(400, str(error), param=name) from None
    for one in fields(cast(Any, cls)):
        if one.name not in given and one.default is MISSING and one.default_factory is MISSING:
            raise Refused(400, f"{one.name} is missing.", param=one.name)
    return cls(**given)


def _refuse_unknown(name: str, value: Any, known: Mapping[str, Any]) -> None:
    """An error for a parameter that would change the answer; of one that is known and changes nothing, none."""
    unsupported = UNSUPPORTED.get(name)
    if unsupported is None:
        raise Refused(400, f"no such parameter: {name}; there are {', '.join(known)}.", param=name, code="unknown_parameter")
    if not any(type(value) is type(one) and value == one for one in unsupported.neutral):
        raise Refused(400, f"{name}: {unsupported.why}.", param=name, code="unsupported_parameter")
