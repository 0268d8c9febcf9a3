"""Rendered conversations to token ids and what of them is learnt: the ids of transformers, several times as fast.

tiktoken encodes what stands between the control tokens, where it does what the tokenizer does (xgen.data.encode); a
part of all is encoded by both. A token is learnt that has a character of a learnt span, as in transformers.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xgen.data.chat.template import QUOTE, UNQUOTE, Rendered, Span, unquoted
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.encode import Fast, Resolved, differs_on_its_tokens, why_not_merges

if TYPE_CHECKING:
    import tokenizers

_CHECK_EVERY = 100  # conversations


class DifferentIdsError(Exception):
    """tiktoken does not give the ids of this tokenizer after all."""


@dataclass(frozen=True)
class Tokens:
    """ids [n] of uint32; learn [n]: whether the model learns to write the token."""

    ids: NDArray[np.uint32]
    learn: NDArray[np.bool_]


def choose_engine(tokenizer: ChatTokenizer) -> Resolved:
    """tiktoken where it does what this tokenizer does, as far as its description and its own tokens tell."""
    document = json.loads(tokenizer.document)
    normalizer = document.get("normalizer")
    if normalizer and normalizer.get("type") != "NFC":
        return "tokenizers"
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in document["added_tokens"]):
        return "tokenizers"
    if any(a != b and b.startswith(a) for a in tokenizer.added for b in tokenizer.added):
        return "tokenizers"  # tiktoken takes either

    def encode(texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [tokens.ids for tokens in slow.encode([Rendered(text, ()) for text in texts])]

    slow = ChatEncoder(tokenizer, "tokenizers")
    differs = why_not_merges(document) or differs_on_its_tokens(encode, document)
    return "tokenizers" if differs else "tiktoken"


class ChatEncoder:
    """Encodes batches."""

    def __init__(self, tokenizer: ChatTokenizer, engine: Resolved) -> None:
        self._encoded = 0
        tokens = "|".join(map(re.escape, sorted(tokenizer.added, key=len, reverse=True)))
        self._control = re.compile(f"({tokens or '(?!)'})")
        self._slow = _Slow(tokenizer)
        self._fast: Fast | None = None
        if engine == "tiktoken":
            document = json.loads(tokenizer.document)
            self._fast = Fast(document, tokenizer.added)
            self._composes = bool(document.get("normalizer"))
            self._num_bytes = np.zeros(tokenizer.vocab_size, dtype=np.int64)
            for token, number in document["model"]["vocab"].items():
                self._num_bytes[number] = len(token)  # a character stands for a byte
            for token, number in tokenizer.added.items():
                self._num_bytes[number] = len(token.encode())

    def encode(self, batch: Sequence[Rendered]) -> list[Tokens]:
        """Raises DifferentIdsError where the fast engine gives other ids than the tokenizer; the first conversation and
        every hundredth are held against it."""
        if self._fast is None:
            return self._slow.encode(batch)
        found = [self._encode(self._fast, rendered) for rendered in batch]
        for number in range(-self._encoded % _CHECK_EVERY, len(batch), _CHECK_EVERY):
            if not np.array_equal(found[number].ids, self._slow.encode([batch[number]])[0].ids):
                raise DifferentIdsError
        self._encoded += len(batch)
        return found

    def _encode(self, fast: Fast, rendered: Rendered) -> Tokens:
        text = rendered.text
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return self._slow.encode([rendered])[0]
        if QUOTE in text:
            found = [
                fast.encode_around([part] if quoted else self._control.split(part)) for quoted, part in _parts(text)
            ]
        else:
            found = [fast.encode_around(self._control.split(text))]
        known = [ids for ids in found if ids is not None]
        if len(known) < len(found):
            return self._slow.encode([rendered])[0]
        ids = np.concatenate(known)
        return Tokens(ids, self._learnt(ids, rendered))

    def _learnt(self, ids: NDArray[np.uint32], rendered: Rendered) -> NDArray[np.bool_]:
        learn = np.zeros(len(ids), dtype=np.bool_)
        sizes = self._num_bytes[ids]
        ends = np.cumsum(sizes)
        for begin, end in rendered.spans:
            first, last = _num_bytes(rendered.text[:begin]), _num_bytes(rendered.text[:end])
            learn[np.searchsorted(ends, first, side="right") : np.searchsorted(ends - sizes, last)] = True
        return learn


class _Slow:
    """The tokenizer itself, as transformers calls it."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer, self._with_added = tokenizer, tokenizer.backend
        self._newline = self._ids("\n")
        # Some put a space before a text, which the middle of a conversation must not get.
        self._prepends = self._ids("\na")[len(self._newline) :] != self._ids("a")

    def encode(self, batch: Sequence[Rendered]) -> list[Tokens]:
        texts = [rendered.text for rendered in batch if QUOTE not in rendered.text]
        encodings = iter(self._with_added.encode_batch(texts, add_special_tokens=False))
        return [
            self._in_pieces(rendered) if QUOTE in rendered.text else _tokens(next(encodings), rendered.spans)
            for rendered in batch
        ]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._with_added.encode(text, add_special_tokens=False).ids
        return ids

    def _in_pieces(self, rendered: Rendered) -> Tokens:
        """With quoted tokens as text: each between two pieces of its own, as in transformers' encode_marked_chat."""
        found, at = [], 0
        for quoted, part in _parts(rendered.text):
            encoder = self._without_added if quoted else self._with_added
            encoding, skip = encoder.encode(part, add_special_tokens=False), 0
            if at and self._prepends:
                after = encoder.encode(f"\n{part}", add_special_tokens=False)
                if after.ids[: len(self._newline)] == self._newline:
                    encoding, skip = after, len(self._newline)
            begin = at + quoted  # of the part, after its mark
            found.append(_tokens(encoding, rendered.spans, begin - 1 if skip else begin, skip))
            at = begin + len(part) + quoted
        return Tokens(*(np.concatenate(both) for both in zip(*((own.ids, own.learn) for own in found), strict=True)))

    @cached_property
    def _without_added(self) -> tokenizers.Tokenizer:
        import tokenizers

        document = json.loads(self._tokenizer.document)
        return tokenizers.Tokenizer.from_str(json.dumps({**document, "added_tokens": []}))


def _tokens(encoding: Any, spans: Sequence[Span], at: int = 0, skip: int = 0) -> Tokens:
    """Of a text that begins at character `at`, without its first `skip` tokens."""
    ids = np.array(encoding.ids[skip:], dtype=np.uint32)
    learn = np.zeros(len(ids), dtype=np.bool_)
    if spans and len(ids):
        begins, ends = np.array(encoding.offsets[skip:], dtype=np.int64).T + at
        for begin, end in spans:
            learn |= (ends > begin) & (begins < end)
    return Tokens(ids, learn)


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """A text with quotes in parts, and whether each is a quote; marks are left out."""
    for number, part in enumerate(re.split(f"[{QUOTE}{UNQUOTE}]", text)):
        if part:
            yield number % 2 == 1, part


def _num_bytes(text: str) -> int:
    """As tokens cover it: without marks."""
    if text.isascii():
        return len(text)
    return len(unquoted(text).encode())
