"""Chats as text: by the tokenizer's own template, or by one that the user names or gives.

A template is a Jinja text in the directory (`chat_template.jinja`, or within `tokenizer_config.json`), and transformers renders
it. For tokenizers without one, or with another than is wanted, there are a few by name; a template of one's own is given as a
text, on the command line as a file.

A template is a program. Jinja's sandbox keeps it from files, the network and Python's inside, but not from running for hours
or filling the memory. That of a backbone's directory is trusted as the backbone is. An adapter brings the template of its
training, and whoever made the adapter made that: unless it is one of those by name, it runs only where somebody asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import GraftaxError

_CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

_LLAMA_3 = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

_GEMMA = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- raise_exception('there is no system role') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
    {{- message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}"""

_PLAIN = """\
{{- bos_token }}
{%- for message in messages %}
    {{- message.role | capitalize + ': ' + message.content }}
    {{- eos_token if message.role == 'assistant' }}
    {{- '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:' }}
{%- endif %}"""

CHAT_TEMPLATE = "chat_template.jinja"  # the file in which a directory holds its template

#: By name: the text, and the token with which it ends a turn ("": the one that ends texts). `plain` suits any tokenizer.
TEMPLATES = {
    "chatml": (_CHATML, "<|im_end|>"),
    "llama3": (_LLAMA_3, "<|eot_id|>"),
    "gemma": (_GEMMA, "<end_of_turn>"),
    "plain": (_PLAIN, ""),
}

#: In place of a template: whatever each adapter brings.
AS_TRAINED = "adapter"

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


def is_named(template: str) -> bool:
    """Whether the text of a template is one of those by name."""
    return any(template == text for text, _ in TEMPLATES.values())


def template_of(given: str) -> str:
    """The text of a template that is given by its name or as a text."""
    if not isinstance(given, str):
        raise GraftaxError(f"a chat template is a name or a text, got {type(given).__name__}.")
    if given in TEMPLATES:
        return TEMPLATES[given][0]
    if "{%" not in given and "{{" not in given:
        raise GraftaxError(f"chat template {given!r} is no Jinja text and none of {', '.join(TEMPLATES)}.")
    return given


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], template: str | None, answer: bool, where: str) -> str:
    """A chat as text, by transformers' tokenizer; with `answer` up to where the assistant is to speak.

    `messages` are as `data/chats.py` reads them, `template` is one's own. `where` names the chat in errors: what a template
    raises (roles that it does not know or want in that order, an undefined name, wrong Jinja) is one of the chat's.
    """
    return str(_applied(tokenizer, messages, template, where, tokenize=False, add_generation_prompt=answer))


def marked(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], template: str | None, where: str
) -> tuple[list[int], list[int]] | None:
    """Token ids of a whole chat, and of each whether the template marks it as the assistant's (1); None where it marks none.

    The marks are transformers' {% generation %} and {% endgeneration %}, and which tokens they are around is its matter, too.
    """
    if not _MARK.search(template or _own_template(tokenizer)):
        return None
    wanted = {
        "tokenize": True,
        "return_dict": True,
        "return_assistant_tokens_mask": True,
        "tokenizer_kwargs": {"verbose": False},
    }
    made = _applied(tokenizer, messages, template, where, **wanted)
    return made["input_ids"], made["assistant_masks"]


def _own_template(tokenizer: Any) -> str:
    """The template in the tokenizer's files; of several the one that transformers takes for chats without tools."""
    own = tokenizer.chat_template or ""
    return str(own if isinstance(own, str) else own.get("default", ""))


def _applied(tokenizer: Any, messages: Sequence[Mapping[str, Any]], template: str | None, where: str, **wanted: Any) -> Any:
    if template is None and not tokenizer.chat_template:
        raise GraftaxError(
            f"{where}: {tokenizer.name_or_path}: its tokenizer has no chat template; give one (--chat-template, in Python "
            "chat_template), or prompts and completions."
        )
    try:
        return tokenizer.apply_chat_template(list(messages), chat_template=template, **wanted)
    except Exception as error:  # of Jinja's, of the template's own, or of Python's from within it
        raise GraftaxError(f"{where}: the chat template cannot be used on it ({type(error).__name__}: {error}).") from error
