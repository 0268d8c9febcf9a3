"""Samples as the token ids that a model reads: in its chat template, or as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgen.data.chat.encode import ChatEncoder
from xgen.data.chat.schema import Conversation, RecordError
from xgen.data.chat.template import ChatTemplate, Rendered
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.errors import StoreError
from xgen.evals.ruler import Counter, Sample

if TYPE_CHECKING:
    import tokenizers

_PROBE = Sample("What is the special magic number?", " The special magic number is", ())


class Prompts:
    """`begin`: ids before a text, where no template writes its own; `reserved`: tokens that stand around a sample."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, template: ChatTemplate | None, cache: Path, begins: bool
    ) -> None:
        """`begins`: a text gets what the tokenizer puts before it, such as `<s>`; a question in a template gets what
        that writes. Raises StoreError for a template that refuses a question without a system message."""
        document = tokenizer.to_str()
        self.counter = Counter(_copy(document), cache)
        self._chat = _Chat(document, template) if template else None
        self.begin = _begin(_copy(document)) if begins else ()
        self.reserved = max(0, len(self.encode(_PROBE)) - len(self.counter.encode(_PROBE.prompt)))

    def encode(self, sample: Sample) -> list[int]:
        """The sample is the user's message, and the answer begins with its prefix, as in NVIDIA's scripts. A special
        token that the sample quotes is text."""
        if self._chat:
            return self._chat.encode(sample)
        return [*self.begin, *self.counter.encode(sample.prompt)]

    def first_tokens(self, text: str, count: int) -> list[int]:
        """Of a document of any length, without the encoding of all of it."""
        wanted, size = count - len(self.begin), 5 * count
        while True:
            ids = self.counter.encode(text[:size])
            # Where a text is cut the last tokens may be others.
            if size >= len(text) or len(ids) >= wanted + _CUT:
                return [*self.begin, *ids[:wanted]]
            size *= 2


_CUT = 64  # tokens


class _Chat:
    def __init__(self, document: str, template: ChatTemplate) -> None:
        added = {token["content"]: token["id"] for token in json.loads(document).get("added_tokens", [])}
        tokenizer = ChatTokenizer(Path(template.place), document, _copy(document), added, {}, {"default": template})
        self._template, self._encoder = template, ChatEncoder(tokenizer, "tokenizers")

    def encode(self, sample: Sample) -> list[int]:
        try:
            text = self._template.prompt(Conversation([{"role": "user", "content": sample.input}]))
        except RecordError as error:
            what = f"cannot put a question into a turn of the user: {error}"
            raise StoreError(self._template.place, what, "write template: none, or name another") from None
        ids: list[int] = self._encoder.encode([Rendered(text + sample.answer_prefix, ())])[0].ids.tolist()
        return ids


def _copy(document: str) -> tokenizers.Tokenizer:
    """What counts has settings of its own."""
    import tokenizers

    copied = tokenizers.Tokenizer.from_str(document)
    copied.no_truncation()
    copied.no_padding()
    return copied


def _begin(tokenizer: tokenizers.Tokenizer) -> tuple[int, ...]:
    """Ids that the tokenizer puts before a text."""
    whole: Sequence[int] = tokenizer.encode("a").ids
    bare: Sequence[int] = tokenizer.encode("a", add_special_tokens=False).ids
    at = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
    return tuple(whole[:at])
