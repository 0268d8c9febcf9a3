"""The tokenizer keeps every text, and special tokens stay out of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data import StoreError, TokenStore
from xgen.data.documents import read_documents
from xgen.data.tokenizer import END_OF_TEXT, Tokenizer


@given(text=st.text())
def test_any_text_comes_back(store: TokenStore, text: str) -> None:
    tokenizer = store.tokenizer()
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == text


def test_text_that_quotes_the_end_of_text_does_not_end_there(store: TokenStore) -> None:
    tokenizer = store.tokenizer()
    tokens = tokenizer.encode_batch([f"a{END_OF_TEXT}b"])[0]
    assert tokenizer.end_of_text not in tokens
    assert tokenizer.decode(tokens) == f"a{END_OF_TEXT}b"


def test_training_twice_gives_the_same_file(store: TokenStore, tmp_path: Path) -> None:
    files = sorted((store.path / "corpus").glob("*.jsonl.zst"))
    texts = [document.text for file in files for document in read_documents(file)]
    for name in ("1", "2"):
        Tokenizer.train(texts, 512).save(tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("vocab_size", "message"), [(256, "write 257 or more"), (4096, r"the text yields \d+ of 4096")]
)
def test_vocabulary_that_cannot_be_is_refused(vocab_size: int, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Tokenizer.train(["too little text"], vocab_size)


def test_broken_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(StoreError, match=r"tokenizer\.json: does not exist"):
        Tokenizer.load(path)
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"tokenizer\.json: is no tokenizer"):
        Tokenizer.load(path)
