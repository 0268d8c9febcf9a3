"""Text to token ids, fast: tiktoken on the merges of a tokenizer.json, held against `tokenizers` on samples.

tiktoken is some five times as fast as `tokenizers`, nearly always with the same ids: it merges any two neighbours
whose concatenation is a token, where `tokenizers` merges listed pairs only. Whether a text tells them apart depends on
the merges, so nothing is assumed: the whole vocabulary and a share of all text are encoded by both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from xgen.data.errors import StoreError
from xgen.data.split import BYTE_LEVEL, FAST_SPLITS, MARK
from xgen.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tiktoken

Engine = Literal["auto", "tiktoken", "tokenizers"]
Resolved = Literal["tiktoken", "tokenizers"]

# tiktoken's regular expressions overflow their stack between 300,000 and 1,000,000 characters of white space.
_LONG_TEXT, _LONG_SPACE = 100_000, re.compile(r"\s{100000}")
_CHECK_EVERY = 100  # batches: of so many about one is encoded by both, besides the first of each unit
_CHECK_TEXT = 1_000_000  # characters: of a longer text the beginning is encoded by both, or the check takes minutes


@dataclass(frozen=True)
class Choice:
    """The engine that encodes, and why not the fast one; `reason` is empty for tiktoken and for what was asked for."""

    engine: Resolved
    reason: str = ""


def choose_engine(tokenizer: Tokenizer, wanted: Engine) -> Choice:
    """tiktoken where it does what this tokenizer does, as far as its description and its own tokens tell.

    Raises StoreError when tiktoken is asked for and cannot stand in.
    """
    if wanted == "tokenizers":
        return Choice("tokenizers")
    document = json.loads(tokenizer.to_json())
    reason = _why_not(document) or differs_on_its_tokens(tokenizer.encode_batch, document)
    if reason and wanted == "tiktoken":
        fix = "write --engine auto or --engine tokenizers"
        raise StoreError("--engine tiktoken", f"cannot stand in for this tokenizer: {reason}", fix)
    return Choice("tokenizers", reason) if reason else Choice("tiktoken")


class Encoder:
    """Encodes batches of texts. `checked` counts the texts that both engines gave the same ids for."""

    def __init__(
        self, tokenizer: Tokenizer, engine: Resolved = "tokenizers", otherwise: str = "--engine tokenizers"
    ) -> None:
        """`engine` is what `choose_engine` gave; `otherwise` is what a person writes to have the slow one."""
        self._tokenizer, self._otherwise, self.checked = tokenizer, otherwise, 0
        self._fast = Fast(json.loads(tokenizer.to_json())) if engine == "tiktoken" else None

    def encode(self, texts: Sequence[str], first: bool = False) -> list[NDArray[np.uint32]]:
        """Token ids of each text, without the end of text.

        The `first` batch of a unit and a hundredth of the others, by a hash of their text, are encoded by both
        engines. Raises StoreError when those differ.
        """
        if self._fast is None:
            return self._tokenizer.encode_batch(texts)
        encoded = [self._encode(self._fast, text) for text in texts]
        if first or xxhash.xxh64_intdigest(texts[0].encode()) % _CHECK_EVERY == 0:
            self._compare(self._fast, texts, encoded)
        return encoded

    def _encode(self, fast: Fast, text: str) -> NDArray[np.uint32]:
        tokens = fast.encode(text)
        return self._tokenizer.encode_batch([text])[0] if tokens is None else tokens

    def _compare(self, engine: Fast, texts: Sequence[str], encoded: Sequence[NDArray[np.uint32]]) -> None:
        begun = [text[:_CHECK_TEXT] for text in texts]
        fasts = [
            tokens if len(text) <= _CHECK_TEXT else self._encode(engine, text[:_CHECK_TEXT])
            for text, tokens in zip(texts, encoded, strict=True)
        ]
        for text, fast, slow in zip(begun, fasts, self._tokenizer.encode_batch(begun), strict=True):
            if not np.array_equal(fast, slow):
                shorter = min(len(fast), len(slow))
                at = int(np.argmin(np.append(fast[:shorter] == slow[:shorter], False)))
                near = self._tokenizer.decode(slow[max(0, at - 3) : at + 3])
                what = f"tiktoken and tokenizers give other tokens near {near!r}"
                raise StoreError(f"text {text[:40]!r}…", what, f"write {self._otherwise}")
        self.checked += len(texts)


class Fast:
    """tiktoken, with the faster form of the split where there is one."""

    def __init__(self, document: dict[str, Any], special: Mapping[str, int] | None = None) -> None:
        """`special`: tokens that `encode_around` takes; without them a text that quotes one is text."""
        pattern, ranks = _pattern(document["pre_tokenizer"]), _ranks(document)
        assert pattern is not None
        self._special = dict(special or {})
        self._plain = _encoding(pattern, ranks, self._special)
        self._split = FAST_SPLITS.get(pattern)
        if self._split:
            self._mark = max((*ranks.values(), *self._special.values())) + 1
            self._marked = _encoding(self._split.pattern, {**ranks, MARK.encode(): self._mark}, self._special)

    def encode(self, text: str) -> NDArray[np.uint32] | None:
        """Token ids, or None for a text that this engine cannot split."""
        return self.encode_around([text])

    def encode_around(self, parts: Sequence[str]) -> NDArray[np.uint32] | None:
        """Token ids of texts with a special token between each two: every second part is one."""
        if any(len(text) >= _LONG_TEXT and _LONG_SPACE.search(text) for text in parts):
            return None
        try:
            if self._split and not any(MARK in text for text in parts):
                marked = [text if number % 2 else self._split.mark(text) for number, text in enumerate(parts)]
                tokens = self._ids(self._marked, marked)
                kept: NDArray[np.uint32] = tokens[tokens != self._mark]
                return kept
            return self._ids(self._plain, parts)
        except ValueError:  # the stack of the regular expression: other patterns have other long runs
            return None

    def _ids(self, encoding: tiktoken.Encoding, parts: Sequence[str]) -> NDArray[np.uint32]:
        if len(parts) == 1:
            return np.array(encoding.encode_ordinary(parts[0]), dtype=np.uint32)
        ids = encoding.encode("".join(parts), allowed_special="all", disallowed_special=())
        return np.array(ids, dtype=np.uint32)


def _why_not(document: dict[str, Any]) -> str:
    """Why tiktoken cannot do what this tokenizer.json says; '' when it can, as far as that tells."""
    if document.get("normalizer"):
        return "it normalizes text"
    if any(not token["special"] for token in document["added_tokens"]):
        return "it has added tokens that are not special"
    return why_not_merges(document)


def why_not_merges(document: dict[str, Any]) -> str:
    """Why tiktoken cannot split and merge as this tokenizer.json says, normalizer and added tokens aside."""
    model = document["model"]
    if model.get("type") != "BPE":
        return f"its model is {model.get('type')}, not BPE"
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            return f"its model has {key}"
    if _pattern(document.get("pre_tokenizer")) is None:
        return "it splits text in a way of its own"
    vocab = model["vocab"]
    if not vocab.keys() >= set(_byte_chars()):
        return "it lacks some of the 256 bytes"
    ids = [vocab["".join(merge.split(" ") if isinstance(merge, str) else merge)] for merge in model["merges"]]
    if any(later < earlier for earlier, later in pairwise(ids)):
        return "its tokens are not numbered in the order of its merges"
    return ""


def differs_on_its_tokens(
    encode_batch: Callable[[Sequence[str]], list[NDArray[np.uint32]]], document: dict[str, Any]
) -> str:
    """tiktoken takes a token that stands alone as it is; `tokenizers` only where its merges lead there."""
    fast = Fast(document)
    tokens = [text for token in _ranks(document) if (text := token.decode(errors="ignore")).encode() == token]
    for text, slow in zip(tokens, encode_batch(tokens), strict=True):
        if (found := fast.encode(text)) is not None and not np.array_equal(found, slow):
            return f"its merges do not lead to its token {text!r}"
    return ""


def _pattern(split: Any) -> str | None:
    """The regular expression by which a pre-tokenizer splits, None for one that is more than that."""
    if not isinstance(split, dict):
        return None
    if split.get("type") == "ByteLevel" and not split.get("add_prefix_space"):
        return BYTE_LEVEL if split.get("use_regex", True) else None
    if split.get("type") == "Sequence" and len(split.get("pretokenizers", ())) == 2:
        first, second = split["pretokenizers"]
        plain = first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert")
        bytes_only = second.get("type") == "ByteLevel" and not second.get("use_regex", True)
        if plain and bytes_only and not second.get("add_prefix_space"):
            pattern: str | None = first.get("pattern", {}).get("Regex")
            return pattern
    return None


def _encoding(pattern: str, ranks: dict[bytes, int], special: dict[str, int]) -> tiktoken.Encoding:
    import tiktoken

    return tiktoken.Encoding("store", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def _ranks(document: dict[str, Any]) -> dict[bytes, int]:
    """The id of each token that was not added, by its bytes."""
    to_byte = {char: byte for byte, char in enumerate(_byte_chars())}
    added = {token["content"] for token in document["added_tokens"]}
    vocab = document["model"]["vocab"]
    return {bytes(to_byte[char] for char in token): rank for token, rank in vocab.items() if token not in added}


def _byte_chars() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2, `bytes_to_unicode`)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    chars, extra = [], 0
    for byte in range(256):
        if byte in printable:
            chars.append(chr(byte))
        else:
            chars.append(chr(256 + extra))
            extra += 1
    return chars
