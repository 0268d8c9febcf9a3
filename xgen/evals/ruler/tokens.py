"""Counting tokens of any `tokenizer.json`, and a cache of the counts by content."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError

if TYPE_CHECKING:
    import tokenizers

Counts = NDArray[np.int64]
_BATCH = 4096  # texts


class Counter:
    """A tokenizer that counts; no begin or end of text is added. `cache`: a folder for counts of what is large."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, cache: Path | None = None) -> None:
        # A text that quotes a special token must not become shorter by it.
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._cache = cache
        self.key: str = hashlib.blake2b(tokenizer.to_str().encode(), digest_size=16).hexdigest()

    @classmethod
    def load(cls, path: Path, cache: Path | None = None) -> Counter:
        """Of a `tokenizer.json`, or of a folder that has one. Raises StoreError when there is none or it is broken."""
        import tokenizers

        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise StoreError(file, "does not exist", "name a tokenizer.json or a folder that has one")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 (the Rust side raises plain Exception)
            raise StoreError(file, f"is no tokenizer: {error}", "name a tokenizer.json") from None
        counter = cls(tokenizer, cache)
        if not counter.count(["The quick brown fox."])[0]:
            raise StoreError(file, "makes no token of text", "name the model's own tokenizer.json")
        return counter

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text."""
        different = list(dict.fromkeys(texts))
        tokens = dict(zip(different, self._lengths(different), strict=True))
        return np.array([tokens[text] for text in texts], dtype=np.int64)

    def added(self, anchor: str, texts: Sequence[str]) -> Counts:
        """Tokens that each text adds when it follows `anchor`."""
        return self.count([anchor + text for text in texts]) - int(self.count([anchor])[0])

    def until(self, text: str, ends: Counts) -> Counts:
        """Tokens of `text` that begin before each of the character offsets `ends`."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        starts = np.fromiter((start for start, _ in offsets), dtype=np.int64, count=len(offsets))
        return np.searchsorted(np.maximum.accumulate(starts), ends, side="left").astype(np.int64)

    def cached(self, what: str, content: str, make: Callable[[], Counts]) -> Counts:
        """`make()`, or what it gave before for this tokenizer, `what` and `content`. A broken file is made again.
        Raises StoreError where nothing may be kept, OSError for a full disk."""
        if self._cache is None:
            return make()
        digest = hashlib.blake2b("\0".join((self.key, what, content)).encode(), digest_size=16).hexdigest()
        path = self._cache / f"{digest}.npz"
        try:
            with np.load(path) as stored:
                return np.asarray(stored["counts"], dtype=np.int64)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            counts = make()
        try:
            self._keep(path, counts)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            fix = "give the folder to the group of those who share it, or name another"
            raise StoreError(self._cache, f"keeps no counts of tokens: {error.strerror}", fix) from None
        return counts

    @staticmethod
    def _keep(path: Path, counts: Counts) -> None:
        """For all who share the folder. Two that make the same file at once write the same: the later rename wins."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
        try:
            with os.fdopen(os.open(partial, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o664), "wb") as file:
                np.savez_compressed(file, counts=counts)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _lengths(self, texts: Sequence[str]) -> Iterator[int]:
        for first in range(0, len(texts), _BATCH):
            batch = self._tokenizer.encode_batch_fast(texts[first : first + _BATCH], add_special_tokens=False)
            yield from map(len, batch)
