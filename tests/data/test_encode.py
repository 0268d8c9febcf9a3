"""Two engines, the same ids: what may differ is found before it is in a store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data import StoreError, TokenStore
from xgen.data.documents import read_documents
from xgen.data.encode import Choice, Encoder, choose_engine
from xgen.data.tokenizer import END_OF_TEXT, Tokenizer

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRICKY = st.text(st.sampled_from([*" \t\n\r\u00a0\u3000\u2028\u0085\u001c", *"ab'sZé1二=;.", "\ue000", "\u0301"]))


def llama_split() -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def changed(tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    import tokenizers

    document = json.loads(tokenizer.to_json()) | changes
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(document)), "changed")


@pytest.fixture(scope="module", params=["ByteLevel", "Llama-3"])
def tokenizer(request: pytest.FixtureRequest, store: TokenStore) -> Tokenizer:
    plain = store.tokenizer()
    return plain if request.param == "ByteLevel" else changed(plain, pre_tokenizer=llama_split())


@pytest.fixture(scope="module")
def fast(tokenizer: Tokenizer) -> Encoder:
    assert choose_engine(tokenizer, "auto") == Choice("tiktoken")
    return Encoder(tokenizer, "tiktoken")


def test_both_engines_agree_on_the_corpus(store: TokenStore, tokenizer: Tokenizer, fast: Encoder) -> None:
    files = sorted((store.path / "corpus").glob("*.jsonl.zst"))
    texts = [document.text for file in files for document in read_documents(file)]
    for one, other in zip(fast.encode(texts), tokenizer.encode_batch(texts), strict=True):
        assert np.array_equal(one, other)


@given(text=st.one_of(st.text(), TRICKY))
def test_both_engines_agree_on_any_text(tokenizer: Tokenizer, fast: Encoder, text: str) -> None:
    assert np.array_equal(fast.encode([text])[0], tokenizer.encode_batch([text])[0])


def test_text_that_quotes_the_end_of_text_does_not_end_there(tokenizer: Tokenizer, fast: Encoder) -> None:
    (tokens,) = fast.encode([f"a{END_OF_TEXT}b"])
    assert tokenizer.end_of_text not in tokens and tokenizer.decode(tokens) == f"a{END_OF_TEXT}b"


@pytest.mark.parametrize("unit", ["a", " ", "\n", " \n", "=", "7", "漢", "\t \r\n", "'s"])
def test_a_megabyte_of_one_thing_takes_linear_time(tokenizer: Tokenizer, fast: Encoder, unit: str) -> None:
    text = "x" + unit * (1_000_000 // len(unit)) + "y"
    begin = time.process_time()
    (tokens,) = fast.encode([text])
    assert time.process_time() - begin < 20  # seconds; quadratic time would be hours
    assert np.array_equal(tokens, tokenizer.encode_batch([text])[0])


def with_unlisted_pair(tokenizer: Tokenizer) -> tuple[Tokenizer, str]:
    """A tokenizer without the merge of one of its tokens: tiktoken cannot know that it is gone."""
    document = json.loads(tokenizer.to_json())
    merges = document["model"]["merges"]
    left, right = merges.pop()
    return changed(tokenizer, model=document["model"]), (left + right).replace("Ġ", " ")


def test_token_that_merges_do_not_lead_to_is_left_to_the_other_engine(store: TokenStore) -> None:
    odd, token = with_unlisted_pair(store.tokenizer())
    assert choose_engine(odd, "auto") == Choice("tokenizers", f"its merges do not lead to its token {token!r}")
    with pytest.raises(StoreError, match=r"--engine tiktoken: cannot stand in .*; write --engine auto or --engine tok"):
        choose_engine(odd, "tiktoken")
    assert choose_engine(odd, "tokenizers") == Choice("tokenizers")


def test_difference_in_the_first_text_of_a_unit_ends_the_build(store: TokenStore) -> None:
    odd, token = with_unlisted_pair(store.tokenizer())
    wrong = Encoder(odd, "tiktoken")
    text = f"{token} and {token}" + token * 3
    with pytest.raises(StoreError, match=r"tiktoken and tokenizers give other tokens near .*; write --engine tok"):
        wrong.encode([text], first=True)


def test_a_hundredth_of_the_batches_is_encoded_by_both_whatever_their_order(fast: Encoder) -> None:
    batches = [[f"text number {number}"] for number in range(2000)]
    before = fast.checked
    for batch in batches:
        fast.encode(batch)
    checked = fast.checked - before
    for batch in reversed(batches):
        fast.encode(batch)
    assert 5 <= checked <= 50 and fast.checked - before == 2 * checked


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "it normalizes text"),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "it splits text in a way of its own"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
            "it splits text in a way of its own",
        ),
    ],
)
def test_what_tiktoken_cannot_do_is_left_to_the_other_engine(
    store: TokenStore, changes: dict[str, Any], reason: str
) -> None:
    assert choose_engine(changed(store.tokenizer(), **changes), "auto") == Choice("tokenizers", reason)


def test_no_other_special_token_is_made_of_text(store: TokenStore, tmp_path: Path) -> None:
    document = json.loads(store.tokenizer().to_json())
    word = {**document["added_tokens"][0], "id": 511, "content": "and", "special": False}
    document["added_tokens"].append(word)
    odd = changed(store.tokenizer(), added_tokens=document["added_tokens"])
    assert choose_engine(odd, "auto").reason == "it has added tokens that are not special"
