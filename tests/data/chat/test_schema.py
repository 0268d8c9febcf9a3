"""What is taken for which kind of record, and what is said of what is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.chat.made import assistant, system, user
from xgen.data.chat.schema import RecordError, conversation_of, pair_of, prompt_of

HELLO = [user("hello"), assistant("hi")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": HELLO},
        {"conversation": HELLO, "id": 7, "tools": None, "system": None},
        {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]},
        {"messages": [{"from": "user", "value": "hello", "weight": None}, {"from": "chatgpt", "value": "hi"}]},
        {"prompt": "hello", "completion": "hi"},
        {"prompt": [user("hello")], "completion": [assistant("hi")]},
        {"instruction": "hello", "input": "", "output": "hi"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"text": "lo"}]}, assistant("hi")]},
    ],
)
def test_shapes_of_public_data_sets_are_one_conversation(row: dict[str, Any]) -> None:
    assert conversation_of(row).messages == HELLO


def test_an_instruction_with_input_and_a_system_beside_the_messages() -> None:
    row = {"instruction": "Sum up.", "input": "A text.", "output": "It is.", "system": "Be brief."}
    assert conversation_of(row).messages == [system("Be brief."), user("Sum up.\n\nA text."), assistant("It is.")]


def test_tools_and_arguments_that_are_text_become_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}, "extra": None}
    row = {
        "messages": [user("?"), {"role": "assistant", "content": None, "tool_calls": [call]}, assistant("3")],
        "tools": '[{"type": "function"}]',
    }
    found = conversation_of(row)
    assert found.tools == [{"type": "function"}]
    assert found.messages[1]["content"] == ""
    assert found.messages[1]["tool_calls"] == [
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    ]


def test_a_sharegpt_function_call_is_a_tool_call() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "It is 3."},
        ]
    }
    _, called, answered, _ = conversation_of(row).messages
    assert called["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert (called["role"], answered) == ("assistant", {"role": "tool", "content": "3"})


def test_thoughts_have_the_names_that_templates_know() -> None:
    message = conversation_of({"messages": [user("?"), assistant("3", reasoning="hm")]}).messages[1]
    assert message["thinking"] == message["reasoning_content"] == "hm"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, "has no conversation; write messages: .*: its keys are text"),
        ({"chosen": "a", "rejected": "b"}, "is a preference pair: write kind: preference"),
        ({"messages": "a"}, "has 'messages' that is no list of messages: 'a'"),
        ({"messages": []}, "has no conversation|no list of messages"),
        ({"messages": ["a"]}, r"is no object: messages\[0\] is 'a'"),
        ({"messages": [{"content": "a"}]}, r"without a role; write role: messages\[0\] has content"),
        (
            {"messages": [{"role": "usr", "content": "a"}]},
            r"role that is not known; write one of .*: messages\[0\] is 'usr'",
        ),
        ({"messages": [user("a"), {"role": "assistant"}]}, r"without content; write content: messages\[1\]"),
        ({"messages": [user("a"), assistant(3)]}, r"content that is not text: messages\[1\] is 3"),  # type: ignore[arg-type]
        ({"messages": [user("a")]}, "no message of the assistant; there is nothing to learn"),
        ({"messages": [user("a"), assistant("", tool_calls=[{"function": {}}])]}, "tool call without a name"),
        ({"messages": [user("a"), assistant("", tool_calls="{")]}, "should be a JSON list"),
        ({"messages": HELLO, "tools": "[" * 100_000}, r"should be a JSON list: tools is '\[\["),
        ({"messages": HELLO, "tools": ["add"]}, "tools that are no JSON schemas"),
        ({"prompt": " ", "completion": "a"}, "has 'prompt' without text"),
        ({"instruction": 3, "output": "a"}, "has 'instruction' that is not text: 3"),
    ],
)
def test_what_is_no_conversation_says_which_key_and_what_to_write(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        conversation_of(row)


BETTER, WORSE = [user("hello"), assistant("hi")], [user("hello"), assistant("go away")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hello", "chosen": "hi", "rejected": "go away"},
        {"messages": [user("hello")], "chosen": "hi", "rejected": [assistant("go away")]},
        {"prompt": [user("hello")], "chosen": [assistant("hi")], "rejected": [assistant("go away")]},
        {"chosen": BETTER, "rejected": WORSE, "score_chosen": 9.0},
        {"prompt": "hello", "chosen": BETTER, "rejected": WORSE},
        {"question": "hello", "chosen": "hi", "rejected": "go away"},
        {"prompt": "hello", "messages": BETTER, "chosen": BETTER, "rejected": WORSE},
    ],
)
def test_shapes_of_preference_data_are_one_pair(row: dict[str, Any]) -> None:
    pair = pair_of(row)
    assert (pair.chosen.messages, pair.rejected.messages) == (BETTER, WORSE)


def test_answers_of_several_turns_follow_their_prompt() -> None:
    turns = [assistant("hi"), user("more")]
    row = {"prompt": "hello", "chosen": [*turns, assistant("a")], "rejected": [*turns, assistant("b")]}
    assert pair_of(row).chosen.messages == [user("hello"), *turns, assistant("a")]
    assert pair_of(row).num_shared == 3


def test_a_system_message_beside_whole_conversations_is_kept() -> None:
    pair = pair_of({"system": "Be kind.", "prompt": "hello", "chosen": BETTER, "rejected": WORSE})
    assert pair.chosen.messages == [system("Be kind."), *BETTER]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "a"}, "has no 'rejected'; write chosen and rejected: its keys are chosen"),
        ({"chosen": "a", "rejected": "b"}, "has answers without a prompt; write messages or prompt beside chosen"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "'chosen' and 'rejected' that are the same"),
        ({"chosen": BETTER, "rejected": [user("other"), assistant("b")]}, "do not begin with the same prompt"),
        (
            {"system": "s", "chosen": BETTER, "rejected": [user("other"), assistant("b")]},
            "do not begin with the same prompt",
        ),
        ({"messages": HELLO, "chosen": "a", "rejected": "b"}, "has 'messages' that ends with an answer"),
        (
            {"prompt": "p", "chosen": [user("a")], "rejected": "b"},
            "'chosen' that does not end with a message of the ass",
        ),
    ],
)
def test_what_is_no_pair_says_so(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        pair_of(row)


def test_a_prompt_keeps_all_other_keys() -> None:
    prompt = prompt_of({"question": "1 + 2?", "answer": 3, "tests": ["assert x"], "level": "easy"})
    assert prompt.conversation.messages == [user("1 + 2?")]
    assert prompt.record == {"answer": 3, "tests": ["assert x"], "level": "easy"}


@pytest.mark.parametrize(
    ("row", "said"),
    [({"answer": "3"}, "has no prompt; write messages or prompt"), ({"messages": HELLO}, "ends with an ans")],
)
def test_what_is_no_prompt_says_so(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        prompt_of(row)
