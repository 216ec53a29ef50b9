"""Chats: templates by name and of one's own, templates that refuse or rewrite, and what of a chat is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from of_texts import read_examples
from refusals import refused
from tiny import write_decoder, write_jsonl

from graftax import Columns, Generator, GraftaxError, LoRA, Recipe, Sampling, load_adapter, load_backbone, train_many
from graftax.data.prepared import Prepared
from graftax.models.backbone import Backbone
from graftax.models.chat import TEMPLATES, template_of
from graftax.models.tokens import Tokenizer
from graftax.serve import evaluate_generation, evaluate_language
from graftax.tasks.outputs import IGNORE
from graftax.tasks.task_registry import TASKS

#: As Qwen3's and DeepSeek's: what the assistant thought in earlier turns is dropped, and a first system message is optional.
THINKING = """\
{%- for m in messages %}
    {%- set said = m.content if loop.last else m.content.split('</think>')[-1] %}
    {{- '<' + m.role + '>' + said + eos_token }}
{%- endfor %}
{{- '<assistant>' if add_generation_prompt }}"""
STRICT = """\
{%- for m in messages %}
    {%- if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
    {{- '<' + m.role + '>' + m.content + eos_token }}
{%- endfor %}
{{- '<assistant>' if add_generation_prompt }}"""
TURNS = ["system", "user", "assistant"]
LORA = LoRA(r=2, alpha=3.0, targets=("q_proj",))


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


TWO_TURNS = chat(("user", "1+1"), ("assistant", "<think>one more</think>2"))
TWO_TURNS += chat(("user", "2+2"), ("assistant", "<think>4?</think>4"))


def rows_of(backbone: Backbone, chats: list[Any], template: str | None = None, task: str = "sft", **settings: Any) -> Prepared:
    data = [{"messages": messages} for messages in chats] if task == "sft" else chats
    tokenizer = Tokenizer.of(backbone, template)
    return TASKS[task].prepare(read_examples(data, Columns(), task), (), tokenizer, settings.pop("max_length", 96), **settings)


def texts(backbone: Backbone, rows: Prepared) -> list[tuple[str, str]]:
    """Of each row all that it holds, and what of it is said."""
    backend = Tokenizer.of(backbone).backend
    whole = [backend.decode(row.ids.tolist(), skip_special_tokens=False) for row in rows.items]
    said = [backend.decode(own[own != IGNORE].tolist(), skip_special_tokens=False) for own in rows.labels]
    return list(zip(whole, said, strict=True))


# -- templates that rewrite ----------------------------------------------------------------------------------------------


def test_dropped_thoughts_give_every_turn_a_row(teller: Backbone) -> None:
    rows = rows_of(teller, [TWO_TURNS, TWO_TURNS[:2]], THINKING)
    first = "<user>1+1</s><assistant><think>one more</think>2</s>"
    second = "<user>1+1</s><assistant>2</s><user>2+2</s><assistant><think>4?</think>4</s>"
    assert texts(teller, rows) == [
        (first, "<think>one more</think>2</s>"),
        (second, "<think>4?</think>4</s>"),
        (first, "<think>one more</think>2</s>"),
    ]
    assert rows.owners == [0, 0, 1]


def test_a_chat_without_thoughts_is_one_row(teller: Backbone) -> None:
    rows = rows_of(teller, [chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))], THINKING)
    assert texts(teller, rows) == [("<user>a</s><assistant>b</s><user>c</s><assistant>d</s>", "b</s>d</s>")]


def test_turns_beyond_the_limit_are_cut_where_that_is_asked(teller: Backbone) -> None:
    chats = [[*TWO_TURNS[:2], *chat(("user", "and two times two"), ("assistant", "4"))]]
    with pytest.raises(GraftaxError, match=r"row 1 has \d+ tokens, more than the 50 of max_length"):
        rows_of(teller, chats, THINKING, max_length=50)
    rows = rows_of(teller, chats, THINKING, max_length=50, truncate=True)
    assert [said for _, said in texts(teller, rows)] == ["<think>one more</think>2</s>"]


def test_preferences_are_of_the_last_turn(teller: Backbone) -> None:
    pair = {"chosen": TWO_TURNS, "rejected": [*TWO_TURNS[:3], {"role": "assistant", "content": "<think>!</think>5"}]}
    rows = rows_of(teller, [pair], THINKING, task="dpo")
    assert [said for _, said in texts(teller, rows)] == ["<think>4?</think>4</s>", "<think>!</think>5</s>"]


def test_turns_of_a_chat_are_held_out_together(teller: Backbone, tmp_path: Path) -> None:
    """No chat is trained in one turn and measured in another."""
    from graftax.train.intake import prepare

    chats = [chat(("user", str(i)), ("assistant", f"<think>{i}</think>a"), ("user", "?"), ("assistant", "b")) for i in range(6)]
    known: dict[str, Any] = {"backbone": teller, "task": TASKS["sft"], "method": LORA, "columns": Columns()}
    known |= {"recipe": Recipe(max_length=90, chat_template=THINKING)}
    job = prepare("a", [{"messages": c} for c in chats], 0.34, **known)
    assert job.val is not None
    sides = [{messages[0]["content"] for messages in rows.examples.fields["messages"]} for rows in (job.train, job.val)]
    assert (len(job.train), len(job.val)) == (8, 4)
    assert [len(side) for side in sides] == [4, 2]
    assert not sides[0] & sides[1]


# -- templates that refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "template", "message"),
    [
        (chat(("system", "be"), ("user", "a"), ("assistant", "b")), STRICT, r"row 2: .*cannot be.*System role not supported"),
        (chat(("user", "a"), ("user", "a"), ("assistant", "b")), STRICT, r"row 2: .*Roles must alternate"),
        (chat(("user", "a"), ("assistant", "b")), "{% for m in messages %}", r"row 1: .*TemplateSyntaxError"),
        (chat(("user", "a"), ("assistant", "b")), "{{ messages[0].name.first }}", r"row 1: .*UndefinedError"),
        (chat(("user", "a"), ("assistant", "b")), "{{ messages[0].content.__class__.__mro__ }}", r"row 1: .*SecurityError"),
    ],
)
def test_a_template_that_refuses_names_the_row(messages: Any, template: str, message: str, teller: Backbone) -> None:
    first = chat(("user", "a"), ("assistant", "b"))
    with pytest.raises(GraftaxError, match=message):
        rows_of(teller, [first, messages], template)
    generator, data = Generator(teller, chat_template=template), [{"messages": first}, {"messages": messages}]
    with pytest.raises(GraftaxError, match=message.replace("row", "prompt")):
        generator.generate([first[:1], messages[:-1]], max_new_tokens=2)
    with pytest.raises(GraftaxError, match=message.replace("row", "prompt")):
        evaluate_generation(generator, None, data)


def test_an_answer_that_begins_elsewhere_than_its_prompt_ends_is_refused(teller: Backbone) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ '<bot>' if add_generation_prompt }}"
    with pytest.raises(GraftaxError, match="row 1: the chat template asks for an answer in another way than it writes one"):
        rows_of(teller, [chat(("user", "a"), ("assistant", "b"))], template)


parts = st.sampled_from([{"type": "text", "text": "a"}, {"type": "image"}, 5])
contents = st.none() | st.text("ab<", max_size=3) | st.lists(parts, max_size=2)
messages = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from([*TURNS, 5, None]), "content": contents, "tool_calls": st.just([{}])}
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    messages=st.lists(messages | st.sampled_from([None, "a", 5]), max_size=4),
    template=st.sampled_from([None, THINKING, STRICT, *TEMPLATES, "{{ x", "{{ messages }}", 5]),
)
def test_any_chat_is_a_right_row_or_one_line(messages: list[Any], template: Any, teller: Backbone) -> None:
    """What is trained ends with the assistant's words, of every turn; and begins where the prompt for an answer ends."""
    found: list[Prepared] = []
    if refused(lambda: found.append(rows_of(teller, [messages], template))) is None:
        said = [said for _, said in texts(teller, found[0])]
        for message in messages:
            if message["role"] == "assistant" and isinstance(message["content"], str):
                assert any(message["content"] in one for one in said)
    refused(lambda: Tokenizer.of(teller, template).chat(messages, "here", answer=True))


# -- templates that are given --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A language model whose tokenizer has no template."""
    return load_backbone(write_decoder(tmp_path_factory.mktemp("without"), chat=None))


def test_a_template_by_name(without: Backbone) -> None:
    rows = rows_of(without, [TWO_TURNS], "plain")
    assert texts(without, rows)[0] == (
        "<s>User: 1+1\n\nAssistant: <think>one more</think>2</s>\n\nUser: 2+2\n\nAssistant: <think>4?</think>4</s>\n\n",
        " <think>one more</think>2</s>\n\n <think>4?</think>4</s>\n\n",
    )
    with pytest.raises(GraftaxError, match=r"no chat template; give one \(--chat-template"):
        rows_of(without, [TWO_TURNS])
    with pytest.raises(GraftaxError, match=r"'chatml' ends a turn with <\|im_end\|>, which is not among the tokens"):
        rows_of(without, [TWO_TURNS], "chatml")
    wrong: list[tuple[Any, str]] = [("chatlm", "none of chatml, llama3, gemma, plain"), (5, "must be a text or null, got 5")]
    for template, match in wrong:
        with pytest.raises(GraftaxError, match=match):
            Recipe(chat_template=template)


@pytest.mark.parametrize(("name", "end"), [(name, end) for name, (_, end) in TEMPLATES.items() if end])
def test_named_templates_fit_tokenizers_that_have_their_tokens(name: str, end: str, tmp_path: Path) -> None:
    """A turn ends with one token, which ends a text in generation, and answers begin where the prompt ends."""
    directory = write_decoder(tmp_path, chat=None, eos_token_id=[2, 259])
    saved = json.loads((directory / "tokenizer.json").read_text())
    saved["added_tokens"].append({**saved["added_tokens"][0], "id": 259, "content": end})
    (directory / "tokenizer.json").write_text(json.dumps(saved))
    backbone = load_backbone(directory)
    rows = rows_of(backbone, [chat(("user", "a"), ("assistant", "b"))], name)
    assert texts(backbone, rows)[0][1].strip() == f"b{end}"
    assert 259 in rows.items[0].ids.tolist()


def prompt_of(generator: Generator, messages: Any, name: str) -> np.ndarray:
    """The tokens that it continues."""
    return generator.begin(messages, name).request.ids


def test_generation_uses_the_template_of_training(without: Backbone, tmp_path: Path) -> None:
    data, how = [{"messages": chat(("user", "a"), ("assistant", "b"))}] * 4, Sampling(max_new_tokens=4)
    recipe = Recipe(epochs=1, max_length=64)
    named = {"a": data, "b": data}
    each = {"a": {"chat_template": "plain"}, "b": {"chat_template": STRICT}}
    train_many(without, named, tmp_path, task="sft", method=LORA, recipe=recipe, each=each, progress=False, pack_size=1)
    generator = Generator(without, chat_template="adapter")
    for name in named:
        generator.load(name, tmp_path / name)
    question = chat(("user", "why"))
    answers = generator.generate([question] * 2, ["a", "b"], how)
    texts = ["<s>User: why\n\nAssistant:", "<user>why</s><assistant>"]
    for answer, name, text in zip(answers, named, texts, strict=True):
        ids = without.config.vocab_size and Tokenizer.of(without).ids([text], special=False)[0]
        asked = prompt_of(generator, question, name)
        assert asked.tolist() == ids.tolist()
        assert answer.tokens
    with pytest.raises(GraftaxError, match="no chat template"):
        generator.generate([question], None, how)
    from graftax import Average

    with pytest.raises(GraftaxError, match="trained with different chat templates"):
        generator.generate([question], Average("a", "b"), how)
    over = Generator(without, chat_template="plain")
    over.load("b", tmp_path / "b")
    assert prompt_of(over, question, "b").tolist() == prompt_of(generator, question, "a").tolist()
    wary = Generator(without)
    for name in named:
        wary.load(name, tmp_path / name)
    assert prompt_of(wary, question, "a").tolist() == prompt_of(generator, question, "a").tolist()
    assert wary.generate(["a text"], "b", how)[0].tokens
    with pytest.raises(GraftaxError, match=r"prompt 1: the adapter brings a chat template of its own.*--chat-template adapter"):
        wary.generate([question], "b", how)
    generator.unload("b")
    adapter = load_adapter(tmp_path / "a", without)
    assert evaluate_language(without, adapter, data) == evaluate_language(without, adapter, data, chat_template="plain")
    assert evaluate_language(without, adapter, data) != evaluate_language(without, adapter, data, chat_template=STRICT)
    own = load_adapter(tmp_path / "b", without)
    with pytest.raises(GraftaxError, match="row 1: the adapter brings a chat template of its own"):
        evaluate_language(without, own, data)
    assert evaluate_language(without, own, data, chat_template="adapter")["perplexity"] > 1.0


def test_the_command_line_takes_a_file_or_a_name(without: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from graftax.cli import app

    def run(*arguments: object) -> str:
        app(args=list(map(str, arguments)), standalone_mode=False)
        return capsys.readouterr().out

    data = write_jsonl(tmp_path / "a.jsonl", [{"messages": chat(("user", "a"), ("assistant", "b"))}] * 4)
    (tmp_path / "mine.jinja").write_text(STRICT)
    common = ["-b", without.directory, "--chat-template"]
    settings = ["--task", "sft", "--epochs", 1, "--max-length", 64, "--rank", 2, "--pack-size", 1, "--target", ".*q_proj"]
    run("train", *common, tmp_path / "mine.jinja", "-d", data, "-o", tmp_path / "run", *settings)
    assert json.loads((tmp_path / "run" / "a" / "graftax.json").read_text())["recipe"]["chat_template"] == STRICT
    write_jsonl(tmp_path / "ask.jsonl", [{"messages": chat(("user", "why"))}])
    said = run("generate", *common, "plain", "-i", tmp_path / "ask.jsonl", "--max-new-tokens", 3, "--json")
    assert json.loads(said)["tokens"] == 3
    assert "perplexity" in run("eval", *common, "plain", "-d", data, "-a", tmp_path / "run" / "a")
    with pytest.raises(GraftaxError, match="no such file, and none of chatml, llama3, gemma, plain"):
        run("generate", *common, "nothing", "-i", tmp_path / "ask.jsonl")


JINJA = [
    "{{ messages }}",
    "{{ messages[0].content }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ m.content }}",
    "{% if",
    "%}",
]
JINJA += [
    "{% endif %}",
    "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}",
    "{{ eos_token }}",
    "{% set x = messages[9] %}",
    "{{ x.y.z }}",
]
JINJA += [
    "{% generation %}",
    "{{ messages | tojson }}",
    "{{ strftime_now('%Y') }}",
    "{% include 'a' %}",
    "{{ ''.__class__ }}",
    "a",
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(template=st.lists(st.sampled_from(JINJA), max_size=5).map("".join))
def test_any_template_makes_a_text_or_is_one_line(template: str, teller: Backbone) -> None:
    messages = chat(("user", "a"), ("assistant", "b"))
    made: list[Tokenizer] = []
    if refused(lambda: made.append(Tokenizer.of(teller, template_of(template)))) is None:
        refused(lambda: made[0].chat(messages, "here", answer=True))
        refused(lambda: rows_of(teller, [messages], template))
