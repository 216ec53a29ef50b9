"""Chat templates that mark what the assistant says ({% generation %}): what is trained is what transformers takes for it."""

from __future__ import annotations

import numpy as np
import pytest
from test_chats import TWO_TURNS, chat, rows_of, texts

from graftax import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer

#: As DeepSeek-R1's: the prompt for an answer is no beginning of one, and thoughts are written nowhere.
THINKS = """\
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<assistant>' }}{{ m.content.split('</think>')[-1] + eos_token }}
    {%- else %}
        {{- '<' + m.role + '>' + m.content }}
    {%- endif %}
{%- endfor %}
{{- '<assistant><think>' if add_generation_prompt }}"""
SAID = "{{ m.content.split('</think>')[-1] + eos_token }}"
MARKED = THINKS.replace(SAID, "{% generation %}" + SAID + "{% endgeneration %}")
#: The marks leave out the token that ends a turn.
WITHOUT_END = MARKED.replace(" + eos_token }}{% endgeneration %}", " }}{% endgeneration %}{{ eos_token }}")
#: As SmolLM3's: the marks hold the header too, and thoughts of earlier turns are dropped.
WITH_HEADER = """\
{%- for m in messages %}
    {%- set said = m.content if loop.last else m.content.split('</think>')[-1] %}
    {%- if m.role == 'assistant' %}
        {%- generation %}{{ '<assistant>' + said + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- '<' + m.role + '>' + said }}
    {%- endif %}
{%- endfor %}
{{- '<assistant>' if add_generation_prompt }}"""
PLAIN_TURNS = chat(("user", "1+1"), ("assistant", "2"), ("user", "2+2"), ("assistant", "4"))


def test_what_is_not_marked_and_asked_for_otherwise_is_refused(teller: Backbone) -> None:
    message = (
        r"row 1: .* asks for an answer in another way .*mark in it what the assistant says \(\{% generation %\}\).*as texts"
    )
    with pytest.raises(GraftaxError, match=message):
        rows_of(teller, [TWO_TURNS], THINKS)


@pytest.mark.parametrize("template", [MARKED, WITHOUT_END], ids=["marked", "without-end"])
def test_what_is_marked_is_trained(template: str, teller: Backbone) -> None:
    """With the token that ends a turn, be it marked or not."""
    whole = "<user>1+1<assistant>2</s><user>2+2<assistant>4</s>"
    assert texts(teller, rows_of(teller, [TWO_TURNS, PLAIN_TURNS], template)) == [(whole, "2</s>4</s>")] * 2


def test_the_marks_count_though_the_prompt_begins_the_answer(teller: Backbone) -> None:
    rows = rows_of(teller, [TWO_TURNS[:2]], WITH_HEADER)
    said = "<assistant><think>one more</think>2</s>"
    assert texts(teller, rows) == [("<user>1+1" + said, said)]


def test_dropped_thoughts_give_every_turn_a_row_of_what_is_marked_in_it(teller: Backbone) -> None:
    rows = rows_of(teller, [TWO_TURNS], WITH_HEADER)
    first, last = "<assistant><think>one more</think>2</s>", "<assistant><think>4?</think>4</s>"
    assert texts(teller, rows) == [("<user>1+1" + first, first), ("<user>1+1<assistant>2</s><user>2+2" + last, last)]


@pytest.mark.parametrize("template", [MARKED, WITH_HEADER], ids=["marked", "with-header"])
def test_transformers_takes_the_same_tokens(template: str, teller: Backbone) -> None:
    messages = chat(("system", "be good"), *((m["role"], m["content"]) for m in PLAIN_TURNS))
    rows = rows_of(teller, [messages], template)
    made = Tokenizer.of(teller)._files.by_transformers.apply_chat_template(
        messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    assert rows.items[0].ids.tolist() == made["input_ids"]
    assert (np.flatnonzero(rows.labels[0] >= 0) + 1).tolist() == np.flatnonzero(made["assistant_masks"]).tolist()


def test_preferences_are_of_what_is_marked(teller: Backbone) -> None:
    pair = {"chosen": PLAIN_TURNS, "rejected": [*PLAIN_TURNS[:3], {"role": "assistant", "content": "5"}]}
    both = texts(teller, rows_of(teller, [pair], MARKED, task="dpo"))
    before = "<user>1+1<assistant>2</s><user>2+2<assistant>"
    assert [whole for whole, _ in both] == [f"{before}4</s>", f"{before}5</s>"]


REWRITES = MARKED.replace("'<' + m.role + '>' + m.content", "'<' + m.role + '>' + m.content + messages | length | string")
REFUSED: dict[str, tuple[str, str]] = {
    "marks-nothing-of-this-turn": (
        MARKED.replace("m.role == 'assistant'", "m.role == 'bot'"),
        "writes nothing that the assistant says",
    ),
    "rewrites-what-was-said": (REWRITES, "rewrites a chat that it goes on with"),
    "raises": (
        MARKED + "{{ raise_exception('no') if not add_generation_prompt }}",
        r"cannot be used on it \(TemplateError: no\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_row(case: str, teller: Backbone) -> None:
    template, message = REFUSED[case]
    with pytest.raises(GraftaxError, match=f"row 1: the chat template {message}"):
        rows_of(teller, [PLAIN_TURNS[:2]], template)
