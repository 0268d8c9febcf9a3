"""What a template may do, what is kept out of it, and what is said when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.chat.made import assistant, system, user, write_known, write_tokenizer
from xgen.data import StoreError
from xgen.data.chat.encode import ChatEncoder
from xgen.data.chat.schema import Conversation, RecordError
from xgen.data.chat.template import CHATML, ChatTemplate
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.encode import Resolved

HELLO = Conversation([user("hello"), assistant("hi")])
TURNS = Conversation([user("a"), assistant("b"), user("c"), assistant("d")])


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, "made.jinja", {"bos_token": "<s>"}, ["<s>", "<e>"], ["<think>"])


@pytest.mark.parametrize(
    ("learn", "learnt"),
    [("assistant", ["b<|im_end|>", "d<|im_end|>"]), ("last", ["d<|im_end|>"])],
)
def test_the_end_of_a_turn_is_learnt_and_the_next_line_is_not(learn: str, learnt: list[str]) -> None:
    rendered = ChatTemplate(CHATML, "x", {}, ["<|im_start|>", "<|im_end|>"]).render(TURNS, learn)  # type: ignore[arg-type]
    assert [rendered.text[begin:end] for begin, end in rendered.spans] == learnt


def test_all_is_every_character() -> None:
    rendered = template("{% for m in messages %}{{ m.content }}{% endfor %}").render(TURNS, "all")
    assert (rendered.text, rendered.spans) == ("abcd", ((0, 4),))


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(_x=1) %}{{ n }}",
        "{{ raise_exception('no') }}",
        "{{ messages[0].content + 3 }}",
        "{{ messages[7].content.nothing }}",
        "{% for i in range(10000000) %}x{% endfor %}",
    ],
)
def test_a_template_that_fails_or_reaches_for_python_costs_the_record(source: str) -> None:
    with pytest.raises(RecordError):
        template(source).render(HELLO, "all")


def test_the_day_that_a_template_writes_is_always_the_same() -> None:
    rendered = template("{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}").render(HELLO, "all")
    assert rendered.text == "26 Jul 2024hello"


def test_what_is_no_jinja_names_the_line() -> None:
    with pytest.raises(StoreError, match=r"made.jinja: line 2: is no Jinja"):
        template("a\n{% if %}")


def test_a_template_that_tags_nothing_costs_the_record() -> None:
    source = "{% generation %}{% endgeneration %}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(RecordError, match="tags nothing as the assistant's"):
        template(source).render(HELLO, "assistant")


def test_a_conversation_that_begins_with_the_assistant_needs_a_tag() -> None:
    source = "{% for m in messages %}{{ m.content }}<e>{% endfor %}"
    with pytest.raises(RecordError, match="begins with the assistant"):
        template(source).render(Conversation([assistant("a"), user("b")]), "assistant")


def test_a_noncharacter_costs_the_record() -> None:
    with pytest.raises(RecordError, match=r"holds a noncharacter, which no text has: U\+FDD2"):
        template("{{ messages[0].content }}").render(Conversation([user("a\ufdd2b")]), "all")


def test_a_quote_that_the_template_escapes_costs_the_record() -> None:
    with pytest.raises(RecordError, match="quotes a special token where the chat template escapes it"):
        template("{{ messages[0].content | tojson(ensure_ascii=True) }}").render(Conversation([user("<e>")]), "all")


def test_an_added_token_that_is_not_special_is_the_assistants_to_write() -> None:
    rendered = template("<think>{% for m in messages %}{{ m.content }}|{% endfor %}").render(
        Conversation([user("<think>"), assistant("<think><e>")]), "all"
    )
    assert rendered.text == "<think>\ufdd2<think>\ufdd3|<think>\ufdd2<e>\ufdd3|"


PARTS = st.sampled_from([*"ab <|>imend_\n\U0001f389é", "<|im_end|>", "<|im_start|>", "<|endoftext|>"])


@given(st.lists(st.lists(PARTS).map("".join), min_size=2, max_size=4))
@pytest.mark.parametrize("engine", ["tiktoken", "tokenizers"])
def test_no_content_becomes_a_control_token(tokenizer: ChatTokenizer, engine: Resolved, contents: list[str]) -> None:
    messages = [(user, assistant)[number % 2](content) for number, content in enumerate(contents)]
    template = tokenizer.templates["default"]
    rendered = template.render(Conversation(messages), "all")
    ids = ChatEncoder(tokenizer, engine).encode([rendered])[0].ids.tolist()
    control = [tokenizer.added["<|im_start|>"], tokenizer.added["<|im_end|>"]]
    assert [token for token in ids if token in tokenizer.added.values()] == control * len(messages)
    plain = CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    expected = ChatTemplate(plain, "x", {}).render(Conversation(messages), "all").text
    assert tokenizer.backend.decode(ids, skip_special_tokens=False) == expected


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer.load(write_tokenizer(tmp_path_factory.mktemp("chatml"), CHATML))


def test_a_file_of_the_spec_goes_before_the_folder_and_that_before_the_configuration(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", chat_template="{{ 'config' }}")
    said = [ChatTokenizer.load(folder).templates["default"].render(HELLO, "all").text]
    (folder / "chat_template.jinja").write_text("{{ 'file' }}")
    said.append(ChatTokenizer.load(folder / "tokenizer.json").templates["default"].render(HELLO, "all").text)
    (tmp_path / "own.jinja").write_text("{{ 'own' }}")
    own = ChatTokenizer.load(folder, tmp_path / "own.jinja")
    assert [*said, own.templates["default"].render(HELLO, "all").text] == ["config", "file", "own"]


def test_of_named_templates_tools_choose_theirs(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "{{ 'plain' }}"}, {"name": "tool_use", "template": "{{ 'tools' }}"}]
    tokenizer = ChatTokenizer.load(write_tokenizer(tmp_path, chat_template=named))
    assert tokenizer.template(HELLO).source == "{{ 'plain' }}"
    assert tokenizer.template(Conversation(HELLO.messages, [{}])).source == "{{ 'tools' }}"


def test_chatml_is_the_default_where_the_tokenizer_has_its_tokens(tmp_path: Path) -> None:
    assert ChatTokenizer.load(write_tokenizer(tmp_path / "a")).templates["default"].source == CHATML
    with pytest.raises(
        StoreError, match=r"has no chat template, and lacks <\|im_start\|> and <\|im_end\|>.*template: FILE"
    ):
        ChatTokenizer.load(write_tokenizer(tmp_path / "b", special=()))


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), ("{", "is no tokenizer"), ("\xff", "is no tokenizer|not UTF-8")],
)
def test_a_tokenizer_that_is_missing_or_broken_is_named(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match=rf"tokenizer.json: {said}"):
        ChatTokenizer.load(tmp_path)


def test_ends_of_an_answer_are_found_by_asking_the_template(tmp_path: Path) -> None:
    found = {
        name: ChatTokenizer.load(write_known(tmp_path / name, name)) for name in ("llama3", "gemma", "chatml_tools")
    }
    names = {name: [k for k, v in t.added.items() if v in t.stop] for name, t in found.items()}
    assert names == {"llama3": ["<|eot_id|>"], "gemma": ["<end_of_turn>"], "chatml_tools": ["<|im_end|>"]}


def test_the_tiny_template_costs_few_tokens_and_ends_every_answer(tmp_path: Path) -> None:
    from tests.conftest import ROOT

    tokenizer = ChatTokenizer.load(write_tokenizer(tmp_path, special=()), ROOT / "jobs/tiny/chat.jinja")
    assert [tokenizer.backend.id_to_token(number) for number in tokenizer.stop] == ["<|endoftext|>"]
    conversation = Conversation([system("Add."), user("1 + 2"), assistant("3"), user("4"), assistant("5")])
    rendered = tokenizer.template(conversation).render(conversation, "assistant")
    assert rendered.text == "Add.\nQ: 1 + 2\nA:\n3<|endoftext|>Q: 4\nA:\n5<|endoftext|>"
    assert [rendered.text[begin:end] for begin, end in rendered.spans] == ["3<|endoftext|>", "5<|endoftext|>"]


def test_a_configuration_that_is_no_json_is_named(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps([1]))
    with pytest.raises(StoreError, match=r"tokenizer_config.json: is no JSON object"):
        ChatTokenizer.load(folder)
