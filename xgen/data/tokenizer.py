"""A byte-level BPE tokenizer: training, loading, encoding in batches. Any text comes back unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
MIN_VOCAB_SIZE = 257  # 256 bytes and the end of text


class Tokenizer:
    """Text to token ids and back. `end_of_text` is the id that ends every document in a store."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, place: Path | str) -> None:
        """Raises StoreError when the tokenizer has no `<|endoftext|>`."""
        end_of_text = tokenizer.token_to_id(END_OF_TEXT)
        if end_of_text is None:
            raise StoreError(place, f"has no token {END_OF_TEXT}", "add it as a special token")
        # Otherwise a document that quotes "<|endoftext|>" would end in its middle.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.end_of_text: int = end_of_text
        self.vocab_size: int = tokenizer.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `tokenizer.json`. Raises StoreError when there is none or it is broken."""
        import tokenizers

        if not path.is_file():
            raise StoreError(path, "does not exist", "name a tokenizer.json")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 (the Rust side raises plain Exception)
            raise StoreError(path, f"is no tokenizer: {error}", "name a tokenizer.json") from None
        return cls(tokenizer, path)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Train on `texts`: the same texts in the same order give the same file, byte for byte.

        Raises StoreError when `texts` are too few for `vocab_size`.
        """
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if vocab_size < MIN_VOCAB_SIZE:
            raise StoreError("vocab_size", f"{vocab_size} is too small", f"write {MIN_VOCAB_SIZE} or more")
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        trained = cls(tokenizer, "tokenizer")
        if trained.vocab_size != vocab_size:
            fix = f"train on more text or write {trained.vocab_size}"
            raise StoreError("vocab_size", f"the text yields {trained.vocab_size} of {vocab_size} tokens", fix)
        return trained

    def to_json(self) -> str:
        """What `save` writes."""
        document: str = self._tokenizer.to_str(pretty=True)
        return document

    def save(self, path: Path) -> None:
        """Raises OSError, where the library's own `save` raises a plain Exception."""
        path.write_text(self.to_json(), encoding="utf-8")

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Token ids of each text, without the end of text. Uses all cores unless TOKENIZERS_PARALLELISM=false."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, tokens: NDArray[np.integer]) -> str:
        """Text of `tokens`; the end of text is written out. A character cut by the ends becomes U+FFFD."""
        text: str = self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        return text
