"""The token store: what goes in comes out, and every fault is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from xgen.data import StoreError, TokenStore
from xgen.data.assemble import assemble
from xgen.data.build import Build
from xgen.data.documents import Document, read_documents
from xgen.data.encode import Encoder
from xgen.data.readers import Record
from xgen.data.store import META_FILE, token_type
from xgen.data.tokenizer import Tokenizer
from xgen.data.writer import write_unit


def change_meta(path: Path, **changes: object) -> None:
    file = path / META_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def flip(file: Path, position: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def write_store(folder: Path, documents: list[Document], tokenizer: Tokenizer) -> None:
    """One unit, put together."""
    unit, size = folder / "unit", token_type(tokenizer.vocab_size)
    unit.mkdir()
    records = [Record(d.text, d.domain, d.source, d.licence, len(d.text.encode())) for d in documents]
    write_unit(unit, records, Encoder(tokenizer), size, tokenizer.end_of_text)
    (folder / "store").mkdir()
    assemble(folder / "store", [unit], tokenizer, "none")


def test_every_document_comes_back_with_its_domain_and_source(build: Build) -> None:
    store, tokenizer = build.store, build.store.tokenizer()
    for domain in build.corpus.domains:
        (part,) = store.domain(domain)
        documents = list(read_documents(store.path / "corpus" / f"{domain}.jsonl.zst"))
        assert len(documents) == part.meta.num_documents
        for number, document in enumerate(documents):
            tokens = part.document(number)
            assert tokens[-1] == store.meta.end_of_text and store.meta.end_of_text not in tokens[:-1]
            assert tokenizer.decode(tokens[:-1]) == document.text
            assert store.meta.sources[part.sources[number]].name == document.source


def test_counts_add_up(store: TokenStore) -> None:
    meta = store.meta
    assert meta.num_tokens == sum(len(part.tokens) for part in store.parts) == sum(d.num_tokens for d in meta.domains)
    assert meta.num_documents == sum(domain.num_documents for domain in meta.domains)
    for domain in meta.domains:
        parts = store.domain(domain.name)
        assert sum(int(np.diff(part.offsets.astype(np.int64)).sum()) for part in parts) == domain.num_tokens
    assert store.parts[0].tokens.dtype == np.uint16 and meta.vocab_size == 512
    with pytest.raises(StoreError, match="has no domain 'nosuch'; write one of code, reference, literature"):
        store.domain("nosuch")


def test_whole_store_verifies_and_is_read_only(store: TokenStore) -> None:
    store.verify()
    with pytest.raises(ValueError, match="read-only"):
        store.parts[0].tokens[0] = 1


def test_store_of_very_many_parts_that_was_replaced_is_not_read_on(
    store: TokenStore, store_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xgen.data.store._MAPPED_PARTS", 2)
    reader = TokenStore.open(store_copy)
    assert len(reader.parts[0].tokens)
    store_copy.rename(store_copy.with_name("old"))
    shutil.copytree(store.path, store_copy)
    assert len(reader.parts[0].tokens)
    with pytest.raises(StoreError, match="was replaced while it was in use; put it back"):
        _ = reader.parts[1].tokens


@pytest.mark.parametrize(
    "name",
    [
        "parts/00000-code/tokens.bin",
        "parts/00001-reference/offsets.bin",
        "parts/00002-literature/sources.bin",
        "tokenizer.json",
        "corpus/code.jsonl.zst",
    ],
)
def test_flipped_byte_is_found_by_verify(store_copy: Path, name: str) -> None:
    flip(store_copy / name)
    with pytest.raises(StoreError, match=f"{name}: has another checksum than meta.json says; build the store again"):
        TokenStore.open(store_copy).verify()


def test_flipped_byte_changes_the_fingerprint(store: TokenStore, store_copy: Path) -> None:
    meta = json.loads((store_copy / META_FILE).read_text())
    assert TokenStore.open(store_copy).meta.fingerprint == store.meta.fingerprint
    meta["files"]["parts/00000-code/tokens.bin"]["sha256"] = "0" * 64
    change_meta(store_copy, files=meta["files"])
    assert TokenStore.open(store_copy).meta.fingerprint != store.meta.fingerprint


def test_truncated_file_is_found_on_open(store_copy: Path) -> None:
    with (store_copy / "parts/00000-code/tokens.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(StoreError, match=r"tokens\.bin: has 100 bytes, and meta\.json says \d+"):
        TokenStore.open(store_copy)


def test_missing_file_is_named(store_copy: Path) -> None:
    (store_copy / "parts/00000-code/offsets.bin").unlink()
    with pytest.raises(StoreError, match=r"offsets\.bin: No such file or directory; build the store again"):
        TokenStore.open(store_copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, r"meta\.json: version 1 is not 2, the one that this xgen reads; build the store again"),
        ({"num_tokens": "many"}, r"meta\.json: num_tokens: Input should be a valid integer"),
        ({"token_type": "uint32"}, r"meta\.json: parts/00000-code/tokens\.bin has \d+ bytes, and its counts say \d+"),
        ({"files": {}}, r"meta\.json: files: tokenizer\.json is missing"),
    ],
)
def test_wrong_meta_is_refused(store_copy: Path, changes: dict[str, object], message: str) -> None:
    change_meta(store_copy, **changes)
    with pytest.raises(StoreError, match=message):
        TokenStore.open(store_copy)


def test_no_store_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"none: is no token store: it has no meta\.json; build the store again: python -m"
    ):
        TokenStore.open(tmp_path / "none")


def test_store_without_documents_is_refused(store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no document was given"):
        write_store(tmp_path, [], store.tokenizer())


def test_token_type_holds_the_vocabulary() -> None:
    assert [token_type(size) for size in (257, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


def test_empty_document_is_its_end_alone(store: TokenStore, tmp_path: Path) -> None:
    document = Document(id="e", text="", domain="d", source="s", licence="MIT")
    write_store(tmp_path, [document, document], store.tokenizer())
    written = TokenStore.open(tmp_path / "store")
    written.verify()
    assert written.parts[0].document(1).tolist() == [store.meta.end_of_text]


def test_wide_vocabulary_is_stored_in_32_bits(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers

    vocabulary = {"<|endoftext|>": 0} | {f"w{n}": n for n in range(1, 70_001)}
    wide = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    wide.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    document = Document(id="e", text="w69999 w1", domain="d", source="s", licence="MIT")
    write_store(tmp_path, [document], Tokenizer(wide, "wide"))
    assert TokenStore.open(tmp_path / "store").parts[0].tokens.tolist() == [69_999, 1, 0]
