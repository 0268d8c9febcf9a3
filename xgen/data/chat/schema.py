"""Records of chat data, whatever shape they come in: conversations, preference pairs, prompts with answers.

The shapes are told apart by their keys; what is none of them, or is one with something wrong, raises RecordError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]  # role and content, and what else a template may ask for: tool_calls, name, reasoning_content

_ROLES = {"system", "developer", "user", "assistant", "tool"}
# What ShareGPT and its kin call the roles.
_SAME_ROLE = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "function_call": "assistant",
}
_PROMPT_KEYS = ("prompt", "question", "problem", "instruction")
_THOUGHT = ("reasoning_content", "thinking", "reasoning")
_SHAREGPT = {"from": "role", "value": "content"}
_CONVERSATION_KEYS = ("messages", "conversations", "conversation")
_SHAPES = (
    "messages: [{role, content}, …], or conversations: [{from, value}, …], or prompt and completion, "
    "or instruction and output"
)


class RecordError(ValueError):
    """What is wrong with one record: the key, and what to write. What differs from record to record comes after a
    colon."""


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the tools that the assistant may call (JSON schemas)."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Pair:
    """Two whole conversations that differ in how they end."""

    chosen: Conversation
    rejected: Conversation

    @property
    def num_shared(self) -> int:
        """Messages that both begin with; the last one of either is none of them."""
        both = list(zip(self.chosen.messages[:-1], self.rejected.messages[:-1], strict=False))
        return next((at for at, (one, other) in enumerate(both) if one != other), len(both))


@dataclass(frozen=True)
class Prompt:
    """What is answered, and the record with what the answer is verified by: `answer`, `tests` and other keys."""

    conversation: Conversation
    record: Mapping[str, Any] = field(default_factory=dict)


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    """A conversation that is learnt from. Raises RecordError."""
    tools = _tools(row)
    if key := _first(row, _CONVERSATION_KEYS):
        messages = _messages(row[key], key)
    elif "completion" in row and "prompt" in row:
        messages = _as_turns(row["prompt"], "prompt", "user") + _as_turns(row["completion"], "completion", "assistant")
    elif "output" in row and "instruction" in row:
        asked = _text(row, "instruction")
        more = _text(row, "input") if row.get("input") else ""
        turns = [("user", f"{asked}\n\n{more}" if more else asked), ("assistant", _text(row, "output"))]
        messages = [{"role": role, "content": content} for role, content in turns]
    elif "chosen" in row and "rejected" in row:
        raise RecordError("is a preference pair: write kind: preference, or give conversations")
    else:
        raise RecordError(f"has no conversation; write {_SHAPES}: its keys are {_keys(row)}")
    messages = _with_system(row, messages)
    if not any(message["role"] == "assistant" for message in messages):
        raise RecordError("has no message of the assistant; there is nothing to learn")
    return Conversation(messages, tools)


def pair_of(row: Mapping[str, Any]) -> Pair:
    """A preference pair: `chosen` and `rejected` as texts or messages, after `messages` or `prompt`, or whole
    conversations of which each has its own prompt. Raises RecordError."""
    for key in ("chosen", "rejected"):
        if key not in row:
            raise RecordError(f"has no {key!r}; write chosen and rejected: its keys are {_keys(row)}")
    answers = {name: _as_turns(row[name], name, "assistant") for name in ("chosen", "rejected")}
    # Data sets repeat the prompt in the answers; what is beside them is then a third copy, or one of the answers.
    repeated = {name: _opening(answer)[-1]["role"] == "user" for name, answer in answers.items()}
    shared = [] if all(repeated.values()) else _prompt_beside(row)
    both = []
    for name, answer in answers.items():
        messages = _with_system(row, answer if repeated[name] else shared + answer)
        if messages[-1]["role"] != "assistant":
            raise RecordError(f"has {name!r} that does not end with a message of the assistant")
        both.append(Conversation(messages, _tools(row)))
    if _opening(both[0].messages) != _opening(both[1].messages):
        raise RecordError("has 'chosen' and 'rejected' that do not begin with the same prompt")
    if both[0].messages == both[1].messages:
        raise RecordError("has 'chosen' and 'rejected' that are the same")
    return Pair(*both)


def _opening(messages: Sequence[Message]) -> Sequence[Message]:
    """Up to the first that is no instruction: of a conversation, what the user asks."""
    instructions = ("system", "developer")
    end = next((at for at, message in enumerate(messages, 1) if message["role"] not in instructions), len(messages))
    return messages[:end]


def _prompt_beside(row: Mapping[str, Any]) -> list[Message]:
    """What both answers of a pair follow."""
    key = _first(row, (*_PROMPT_KEYS, *_CONVERSATION_KEYS))
    if key is None:
        raise RecordError("has answers without a prompt; write messages or prompt beside chosen and rejected")
    shared = _as_turns(row[key], key, "user")
    if shared[-1]["role"] == "assistant":
        raise RecordError(f"has {key!r} that ends with an answer; leave it to chosen and rejected")
    return shared


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """A prompt for online RL; every other key of the record is kept. Raises RecordError."""
    key = _first(row, (*_CONVERSATION_KEYS, *_PROMPT_KEYS))
    if key is None:
        raise RecordError(f"has no prompt; write messages or prompt: its keys are {_keys(row)}")
    messages = _with_system(row, _as_turns(row[key], key, "user"))
    if messages[-1]["role"] == "assistant":
        raise RecordError(f"has {key!r} that ends with an answer; end it with the user's message")
    record = {name: value for name, value in row.items() if name not in (key, "tools")}
    return Prompt(Conversation(messages, _tools(row)), record)


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if row.get(key) is not None), None)


def _keys(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, list(row)[:8])) or "none"


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise RecordError(f"has {key!r} that is not text: {value!r:.60}")
    return value


def _as_turns(value: Any, key: str, role: str) -> list[Message]:
    """Messages; a text is one of `role`."""
    if isinstance(value, str):
        if not value.strip():
            raise RecordError(f"has {key!r} without text")
        return [{"role": role, "content": value}]
    return _messages(value, key)


def _with_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """`system` beside the messages, as some data sets have it."""
    system = row.get("system")
    if not isinstance(system, str) or not system or (messages and messages[0]["role"] == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _messages(value: Any, key: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RecordError(f"has {key!r} that is no list of messages: {value!r:.60}")
    return [_message(one, f"{key}[{number}]") for number, one in enumerate(value)]


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise RecordError(f"has a message that is no object: {place} is {value!r:.60}")
    # None is what a table has where a message lacks a key; templates take it for a value (as transformers says).
    message = {str(key): item for key, item in value.items() if item is not None}
    if "role" not in message and "from" in message:
        message = {_SHAREGPT.get(key, key): item for key, item in message.items()}
    role = message.get("role")
    if not isinstance(role, str):
        raise RecordError(f"has a message without a role; write role: {place} has {_keys(value)}")
    message["role"] = _SAME_ROLE.get(role, role)
    # The names that templates know it by, as transformers gives it to them.
    if (thought := next((message[key] for key in _THOUGHT if key in message), None)) is not None:
        message = {"thinking": thought, **message, "reasoning_content": thought}
    if message["role"] not in _ROLES:
        known = ", ".join(sorted(_ROLES))
        raise RecordError(f"has a role that is not known; write one of {known}: {place} is {role!r}")
    if role == "function_call":
        message["tool_calls"] = [{"type": "function", "function": _json(message.pop("content", None), dict, place)}]
    if "tool_calls" in message:
        message["tool_calls"] = [_tool_call(call, place) for call in _json(message["tool_calls"], list, place)]
        if not message["tool_calls"]:
            del message["tool_calls"]
    if "content" in message:
        message["content"] = _content(message["content"], place)
    elif "tool_calls" in message:
        message["content"] = ""
    else:
        raise RecordError(f"has a message without content; write content: {place} has {_keys(value)}")
    return message


def _content(value: Any, place: str) -> str:
    """Text; the parts of a list of {type: text, text} one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        return "".join(part["text"] for part in value)
    raise RecordError(f"has content that is not text: {place} is {value!r:.60}")


def _tool_call(value: Any, place: str) -> dict[str, Any]:
    """Arguments as an object: templates print them as JSON, and would quote a text once more."""
    if not isinstance(value, dict):
        raise RecordError(f"has a tool call that is no object: {place} is {value!r:.60}")
    call = {key: item for key, item in value.items() if item is not None}
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RecordError(f"has a tool call without a name: {place} is {value!r:.60}")
    if "arguments" in function:
        function = {**function, "arguments": _json(function["arguments"], dict, place)}
    return {**call, "function": function} if "function" in call else function


def _tools(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    value = row.get("tools")
    if value is None or value in ("", []):
        return None
    tools: list[dict[str, Any]] = _json(value, list, "tools")
    if not all(isinstance(tool, dict) for tool in tools):
        raise RecordError(f"has tools that are no JSON schemas: {value!r:.60}")
    return tools or None


def _json(value: Any, kind: type, place: str) -> Any:
    """An object or a list, which many data sets write as text."""
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, kind):
        what = "object" if kind is dict else "list"
        raise RecordError(f"has what should be a JSON {what}: {place} is {value!r:.60}")
    return found
