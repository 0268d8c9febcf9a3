"""Chat templates: a tokenizer's own Jinja, rendered as transformers renders it, with what is learnt marked.

What people wrote is kept apart from what the template writes: special tokens that a message quotes are put between two
noncharacters, and later encoded as text. transformers does so with `sanitize_control_tokens`; by default it lets them
through, and data could end its own turn and begin another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError

from xgen.data.chat.jinja import BEGIN, END, environment
from xgen.data.chat.schema import Conversation, Message, RecordError
from xgen.data.errors import StoreError

CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
        {{- '\\n' -}}
    {%- else -%}
        {{- message['content'] + '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
Learn = Literal["assistant", "last", "all"]
Span = tuple[int, int]  # characters of a rendered text, the end not included
QUOTE, UNQUOTE = "\ufdd2", "\ufdd3"  # around a control token that a message quotes
_MARKS = "\ufdd0-\ufdd3"
_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


class BrokenTemplateError(StoreError):
    """The template is not fit for what is asked of it, whatever the record."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with QUOTE and UNQUOTE in it, and the parts that are learnt."""

    text: str
    spans: tuple[Span, ...]


class ChatTemplate:
    """A template, with the tokens of the tokenizer that it writes."""

    def __init__(
        self,
        source: str,
        place: str,
        variables: Mapping[str, Any],
        special: Collection[str] = (),
        added: Collection[str] = (),
    ) -> None:
        """`variables`: bos_token and the like; `special`: tokens that are, `added`: added ones that are not.

        Raises StoreError for one that is no Jinja.
        """
        self.source, self.place, self._variables = source, place, dict(variables)
        try:
            self._template = environment().from_string(source)
        except TemplateSyntaxError as error:
            raise StoreError(f"{place}: line {error.lineno}", f"is no Jinja: {error.message}", "mend it") from None
        self.has_tag = bool(_TAG.search(source))
        self._special = tuple(special)
        # What is added but not special, such as <think>, an assistant may write; to others it is a control token, too,
        # where the template writes it.
        written = {token for token in added if token in source and not token.isspace()}
        self._in_answers, self._elsewhere = _any_of(self._special), _any_of({*self._special, *written})

    def render(self, conversation: Conversation, learn: Learn, num_read: int = 0) -> Rendered:
        """The whole conversation. `num_read`: its first messages, of which nothing is learnt but by `all`; others are
        the assistant's. Raises RecordError for what the template refuses, BrokenTemplateError where nobody can tell
        what of the text is the assistant's."""
        messages, tools = self._quote(conversation)
        if learn == "all":
            text = self._render(messages, tools)
            return Rendered(text, ((0, len(text)),))
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        later = answers[-1:] if learn == "last" else [number for number in answers if number >= num_read]
        if self.has_tag:
            return self._by_tag(messages, tools, later[0] if later != answers else 0)
        return self._by_prefixes(messages, tools, later, learn)

    def prompt(self, conversation: Conversation) -> str:
        """Up to where the assistant begins. Raises RecordError for what the template refuses."""
        return self._render(*self._quote(conversation), begin_answer=True)

    @cached_property
    def end_of_turn(self) -> str:
        """The special token that ends an answer; '' for a template that has none, or cannot be asked."""
        try:
            rendered = self.render(Conversation(_PROBE), "last")
        except (RecordError, BrokenTemplateError):
            return ""
        begin, end = rendered.spans[-1]
        found = _any_of(self._special).search(rendered.text, rendered.text.find("b", begin), end)
        return found.group() if found else ""

    def _by_tag(self, messages: Sequence[Message], tools: Any, num_read: int) -> Rendered:
        rendered = _untagged(self._render(messages, tools, tagged=True))
        if not any(begin < end for begin, end in rendered.spans):
            raise RecordError("is a conversation of which the template tags nothing as the assistant's")
        if num_read:
            earlier = len(_untagged(self._render(messages[:num_read], tools, tagged=True)).spans)
            return Rendered(rendered.text, rendered.spans[earlier:])
        return rendered

    def _by_prefixes(self, messages: Sequence[Message], tools: Any, answers: Sequence[int], learn: Learn) -> Rendered:
        """What a message of the assistant adds to the text of those before it, and of the beginning of its turn."""
        text, spans = self._render(messages, tools), []
        for number in answers:
            if number == 0:
                raise RecordError("begins with the assistant, and the template has no {% generation %} tag")
            before = self._render(messages[:number], tools, begin_answer=True)
            is_last = number + 1 == len(messages)
            through = text if is_last else self._render(messages[: number + 1], tools)
            if not (text.startswith(through) and through.startswith(before)):
                self._refuse(number, learn)
            # Nobody generates the white space after the end of a turn.
            bare = through.rstrip()
            spans.append((len(before), len(bare) if bare.endswith(self._special) else len(through)))
        return Rendered(text, tuple(spans))

    def _refuse(self, number: int, learn: Learn) -> NoReturn:
        what = f"renders earlier messages otherwise when others follow (message {number}): what is the assistant's?"
        fix = "put {% generation %} and {% endgeneration %} around what the assistant writes"
        raise BrokenTemplateError(self.place, what, fix if learn == "last" else f"{fix}, or write learn: last")

    def _render(self, messages: Sequence[Message], tools: Any, begin_answer: bool = False, tagged: bool = False) -> str:
        variables = {**self._variables, "messages": messages, "tools": tools, "documents": None}
        try:
            text = self._template.render(add_generation_prompt=begin_answer, xgen_tags=tagged, **variables)
        except TemplateError as error:
            raise RecordError(f"is refused by the chat template: {error.message}") from None
        except Exception as error:  # noqa: BLE001 - the template is a program, and says in its own way what it lacks
            raise RecordError(f"is nothing that the chat template can render: {error}") from None
        if "\\ufdd" in text:
            raise RecordError("quotes a special token where the chat template escapes it")
        return text

    def _quote(self, conversation: Conversation) -> tuple[Sequence[Message], Any]:
        messages = [
            _quoted(message, self._in_answers if message["role"] == "assistant" else self._elsewhere)
            for message in conversation.messages
        ]
        return messages, _quoted(conversation.tools, self._elsewhere)


def _any_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Any of the tokens, the longest first, or one of our marks."""
    return re.compile("|".join([*map(re.escape, sorted(tokens, key=len, reverse=True)), f"[{_MARKS}]"]))


def _quoted(value: Any, control: re.Pattern[str]) -> Any:
    """The same, with marks around the control tokens in its texts. Raises RecordError for a text that has marks."""
    if isinstance(value, str):
        return control.sub(_mark, value) if control.search(value) else value
    if isinstance(value, dict):
        return {_quoted(key, control): _quoted(item, control) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item, control) for item in value]
    return value


def _mark(found: re.Match[str]) -> str:
    token = found.group()
    if len(token) == 1 and "\ufdd0" <= token <= "\ufdd3":
        raise RecordError(f"holds a noncharacter, which no text has: U+{ord(token):04X}")
    return f"{QUOTE}{token}{UNQUOTE}"


def unquoted(text: str) -> str:
    """A rendered text as a person reads it."""
    return text.replace(QUOTE, "").replace(UNQUOTE, "")


def _untagged(text: str) -> Rendered:
    """The text without the marks of the tag, and what was between them."""
    parts = re.split(f"([{BEGIN}{END}])", text)
    kept, spans, at, begin = list[str](), list[Span](), 0, 0
    for part in parts:
        if part == BEGIN:
            begin = at
        elif part == END:
            spans.append((begin, at))
        else:
            kept.append(part)
            at += len(part)
    return Rendered("".join(kept), tuple(spans))
