"""Records as a model will see them, with what it learns told from what it only reads: for a person to check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice

from xgen.data.chat.encode import ChatEncoder, Tokens, choose_engine
from xgen.data.chat.inputs import read_plan
from xgen.data.chat.meta import Kind
from xgen.data.chat.records import render_records
from xgen.data.chat.template import Learn, Rendered
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.readers import place_of

_PROBE_ASKED, _PROBE_ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@dataclass(frozen=True)
class Run:
    """Text of tokens that follow each other, all of which are learnt, or none."""

    text: str
    learnt: bool


@dataclass(frozen=True)
class Shown:
    """A conversation of a record, of a pair the better one first."""

    place: str
    num_tokens: int
    runs: tuple[Run, ...]


def preview(tokenizer: ChatTokenizer, kind: Kind, learn: Learn, path: str, count: int) -> Iterator[Shown]:
    """The first `count` records of a source that can be used. Raises StoreError."""
    encoder = ChatEncoder(tokenizer, choose_engine(tokenizer))

    def leave_out(file: str, line: int, reason: str) -> None:
        del file, line, reason

    found = (
        record for unit in read_plan(path).units for record in render_records(tokenizer, kind, learn, unit, leave_out)
    )
    for record in islice(found, count):
        for tokens in encoder.encode(record.rendered):
            yield Shown(place_of(record.file, record.line), len(tokens.ids), _runs(tokenizer, tokens))


def prompt_continues(tokenizer: ChatTokenizer) -> bool:
    """Whether a prompt's tokens are those that an answer follows in training: not where white space at its end becomes
    one token with the answer's first word."""
    from xgen.data.chat.schema import Conversation

    template = tokenizer.templates["default"]
    encoder = ChatEncoder(tokenizer, "tokenizers")
    prompt = Rendered(template.prompt(Conversation([_PROBE_ASKED])), ())
    whole = template.render(Conversation([_PROBE_ASKED, _PROBE_ANSWER]), "all")
    before, after = (tokens.ids.tolist() for tokens in encoder.encode([prompt, whole]))
    return bool(after[: len(before)] == before)


def _runs(tokenizer: ChatTokenizer, tokens: Tokens) -> tuple[Run, ...]:
    return tuple(
        Run(tokenizer.backend.decode([token for token, _ in own], skip_special_tokens=False), bool(learnt))
        for learnt, own in groupby(
            zip(tokens.ids.tolist(), tokens.learn.tolist(), strict=True), key=lambda pair: pair[1]
        )
    )
