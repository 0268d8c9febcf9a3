"""The documents that hide a number: the same every time, RULER's words, held-out needles apart, a token a word."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import tokenizers

from xgen.evals.ruler import TASKS, Counter, Ruler
from xgen.evals.ruler.tasks import NOISE
from xgen.evals.tiny.corpus import write_corpus
from xgen.evals.tiny.documents import Domain, documents

ASKED, PLAIN = Domain("asked", "asked", 100, 512), Domain("plain", "plain", 28, 40)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "needles"
    write_corpus(out, share=0.01)
    return out


@pytest.fixture(scope="module")
def counter(corpus: Path) -> Counter:
    return Counter.load(corpus)


def _texts(folder: Path) -> list[str]:
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line)["text"] for file in files for line in file.read_text().splitlines()]


def _digest(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_same_seed_writes_the_same_files_and_another_others_but_the_tokenizer(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "again", share=0.01)
    write_corpus(tmp_path / "other", seed=1, share=0.01)
    assert _digest(tmp_path / "again") == _digest(corpus)
    equal = _digest(tmp_path / "other").items() & _digest(corpus).items()
    assert [name for name, _ in equal] == ["tokenizer.json"]


def test_what_is_there_is_left_and_another_seed_takes_its_place(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "needles", share=0.01)
    file = tmp_path / "needles/train/plain.jsonl"
    file.write_text("")
    write_corpus(tmp_path / "needles", share=0.01)
    assert file.read_text() == ""
    write_corpus(tmp_path / "needles", seed=1, share=0.01)
    assert file.read_text()


def test_no_needle_is_both_trained_on_and_held_out(corpus: Path) -> None:
    trained, held_out = (" ".join(_texts(corpus / part)) for part in ("train", "held-out"))
    for needle in (r"\d{7}", r"numbers for (\S+) is: "):
        mine, theirs = set(re.findall(needle, trained)), set(re.findall(needle, held_out))
        assert min(len(mine), len(theirs)) > 50 and not mine & theirs


def test_a_document_is_a_sample_of_ruler_with_its_answer(counter: Counter) -> None:
    (recipe,) = Ruler(counter).plan("niah_single_1", 512, 1, seed=0)
    sample = Ruler(counter).render(recipe)
    (key,) = re.findall(r"numbers for (\S+) is: ", sample.prompt)
    theirs = f"{sample.prompt} {sample.outputs[0]}.".replace(key, "KEY").replace(sample.outputs[0], "1")
    for text in documents(ASKED, 20, counter, held_out=False, seed=0):
        (key,), (value,) = re.findall(r"numbers for (\S+) is: ", text), set(re.findall(r"\d{7}", text))
        ours = text.replace(key, "KEY").replace(value, "1")
        assert _without_noise(ours) == _without_noise(theirs)
        assert text.count(value) == 2 and text.endswith(f" {value}.")


def _without_noise(text: str) -> str:
    for sentence in NOISE:
        text = text.replace(sentence, "")
    return re.sub(r"[ \n]+", " ", text)


def test_lengths_and_depths_are_spread_over_what_is_asked(counter: Counter) -> None:
    texts = list(documents(ASKED, 200, counter, held_out=False, seed=0))
    tokens = counter.count(texts)
    assert tokens.max() <= 512 < tokens.max() + 10 and (tokens < 200).mean() > 0.2
    depths = [text.index("One of the special") / len(text) for text in texts]
    assert min(depths) < 0.2 and max(depths) > 0.6


def test_a_word_is_a_token_and_so_is_a_digit_by_its_place(counter: Counter, corpus: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(corpus / "tokenizer.json"))
    words = " ".join(NOISE) + TASKS["niah_single_1"].template.format(values="number", context="", query="")
    for word in set(re.findall(r"(?<= )[A-Za-z]+", words)):
        assert len(tokenizer.encode(f" {word}").ids) == 1, word
    assert len(set(tokenizer.encode(" 4444444").ids)) == 7
    assert tokenizer.encode(": 1234567.").ids[2:] == tokenizer.encode(" 9234567.").ids[1:]


def test_any_text_comes_back_from_its_tokens(counter: Counter, corpus: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(corpus / "tokenizer.json"))
    for text in (*documents(ASKED, 5, counter, held_out=False, seed=0), "0 12\t345,6789012345678 Ünïcode {}\n", ""):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
