"""Chats as text: by the tokenizer's own template, or by one that the user names or gives.

A template is a Jinja text in the directory (`chat_template.jinja`, or within `tokenizer_config.json`), and transformers renders
it. For tokenizers without one, or with another than is wanted, there are a few by name; a template of one's own is given as a
text, on the command line as a file.
"""

from __future__ import annotations

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

    `messages` are as `train/chats.py` reads them, `template` is one's own. `where` names the chat in errors: what a template
    raises (roles that it does not know or want in that order, an undefined name, wrong Jinja) is one of the chat's.
    """
    if template is None and not tokenizer.chat_template:
        raise GraftaxError(
            f"{where}: {tokenizer.name_or_path}: its tokenizer has no chat template; give one (--chat-template, in Python "
            "chat_template), or prompts and completions."
        )
    try:
        text = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=answer
        )
    except Exception as error:  # of Jinja's, of the template's own, or of Python's from within it
        raise GraftaxError(f"{where}: the chat template cannot be used on it ({type(error).__name__}: {error}).") from error
    return str(text)
