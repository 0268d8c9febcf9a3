"""Rendered conversations to token ids and what of them is learnt: the ids of transformers, several times as fast.

tiktoken encodes what stands between the control tokens, where it does what the tokenizer does (xgen.data.encode); a
part of all is encoded by both. A token is learnt that has a character of a learnt span, as in transformers.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xgen.data.chat.template import QUOTE, UNQUOTE, Rendered, Span
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.encode import Fast, Resolved, differs_on_its_tokens, why_not_merges

if TYPE_CHECKING:
    import tokenizers

_CHECK_EVERY = 100  # batches


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

    def encode(texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [tokens.ids for tokens in slow.encode([Rendered(text, ()) for text in texts])]

    slow = ChatEncoder(tokenizer, "tokenizers")
    differs = why_not_merges(document) or differs_on_its_tokens(encode, document)
    return "tokenizers" if differs else "tiktoken"


class ChatEncoder:
    """Encodes batches. `checked` counts the conversations that both engines gave the same ids for."""

    def __init__(self, tokenizer: ChatTokenizer, engine: Resolved) -> None:
        self.checked = self._batches = 0
        self._added = tokenizer.added
        tokens = "|".join(map(re.escape, sorted(tokenizer.added, key=len, reverse=True)))
        self._pieces = re.compile(f"({QUOTE}[^{UNQUOTE}]*{UNQUOTE}|{tokens})" if tokens else f"({QUOTE}.*?{UNQUOTE})")
        self._slow = _Slow(tokenizer)
        self._fast: Fast | None = None
        if engine == "tiktoken":
            document = json.loads(tokenizer.document)
            self._fast = Fast(document)
            self._composes = bool(document.get("normalizer"))
            sizes = np.zeros(tokenizer.vocab_size, dtype=np.int64)
            for token, number in document["model"]["vocab"].items():
                sizes[number] = len(token)  # a character stands for a byte
            self._num_bytes = sizes

    def encode(self, batch: Sequence[Rendered]) -> list[Tokens]:
        """Raises DifferentIdsError where the fast engine gives other ids than the tokenizer; the first batch and every
        hundredth are held against it."""
        if self._fast is None:
            return self._slow.encode(batch)
        found = [self._encode(self._fast, rendered) for rendered in batch]
        if self._batches % _CHECK_EVERY == 0:
            for ours, theirs in zip(found, self._slow.encode(batch), strict=True):
                if not np.array_equal(ours.ids, theirs.ids):
                    raise DifferentIdsError
            self.checked += len(batch)
        self._batches += 1
        return found

    def _encode(self, fast: Fast, rendered: Rendered) -> Tokens:
        text = rendered.text
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return self._slow.encode([rendered])[0]
        ids: list[NDArray[np.uint32]] = []
        learn: list[NDArray[np.bool_]] = []
        at = 0
        # Of a split by a group every second part is what the group found.
        for number, part in enumerate(self._pieces.split(text)):
            if not part:
                continue
            end = at + len(part)
            if number % 2 and part[0] != QUOTE:
                ids.append(np.array([self._added[part]], dtype=np.uint32))
                learn.append(np.array([_overlaps(rendered.spans, at, end)]))
            else:
                begin, plain = (at + 1, part[1:-1]) if number % 2 else (at, part)
                own = fast.encode(plain)
                if own is None:
                    return self._slow.encode([rendered])[0]
                ids.append(own)
                learn.append(self._learnt(own, plain, begin, rendered.spans))
            at = end
        if not ids:
            return Tokens(np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.bool_))
        return Tokens(np.concatenate(ids), np.concatenate(learn))

    def _learnt(self, ids: NDArray[np.uint32], text: str, at: int, spans: Sequence[Span]) -> NDArray[np.bool_]:
        """Of the tokens of `text`, which begins at character `at`."""
        learn = np.zeros(len(ids), dtype=np.bool_)
        ends: NDArray[np.int64] | None = None
        for begin, end in spans:
            low, high = max(begin - at, 0), min(end - at, len(text))
            if low >= high:
                continue
            if low == 0 and high == len(text):
                learn[:] = True
                continue
            if ends is None:
                ends = np.cumsum(self._num_bytes[ids])
            first, last = len(text[:low].encode()), len(text[:high].encode())
            learn |= (ends > first) & (ends - self._num_bytes[ids] < last)
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
        for number, part in enumerate(re.split(f"[{QUOTE}{UNQUOTE}]", rendered.text)):
            if part:
                encoder = self._without_added if number % 2 else self._with_added
                encoding, skip = encoder.encode(part, add_special_tokens=False), 0
                if at and self._prepends:
                    after = encoder.encode(f"\n{part}", add_special_tokens=False)
                    if after.ids[: len(self._newline)] == self._newline:
                        encoding, skip = after, len(self._newline)
                found.append(_tokens(encoding, rendered.spans, at - 1 if skip else at, skip))
            at += len(part) + 1
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


def _overlaps(spans: Sequence[Span], begin: int, end: int) -> bool:
    return any(begin < last and first < end for first, last in spans)
