"""Lengths, determinism and errors of the generator."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tests.conftest import ROOT
from tests.evals.ruler.conftest import TEXT, hotpot, made
from xgen.data.errors import StoreError
from xgen.evals.ruler import FILL, TASKS, Counter, Haystack, Questions, Recipe, Ruler

ROOM = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}


def lengths(tokenizer: Path, ruler: Ruler, recipes: list[Recipe]) -> list[int]:
    """Of prompt and answer room, counted by the library itself."""
    counter = tokenizers.Tokenizer.from_file(str(tokenizer))
    prompts = [ruler.render(recipe).prompt for recipe in recipes]
    room = ROOM[TASKS[recipes[0].task].kind]
    return [len(counter.encode(prompt, add_special_tokens=False).ids) + room for prompt in prompts]


@pytest.mark.parametrize("task", TASKS)
def test_every_prompt_fills_its_length_and_is_never_over(folder: Path, ruler: Ruler, task: str) -> None:
    length = 4096  # where a unit of haystack is the largest share
    recipes = ruler.plan(task, length, 8, seed=3)
    counted = lengths(folder / "tokenizer.json", ruler, recipes)
    assert all(FILL * length <= tokens <= length for tokens in counted)
    assert [recipe.tokens + ROOM[TASKS[task].kind] for recipe in recipes] == counted  # the plan knew


@pytest.mark.parametrize("task", ["niah_single_2", "niah_multikey_2", "cwe"])
def test_256k_is_filled_as_well(folder: Path, ruler: Ruler, task: str) -> None:
    (tokens,) = lengths(folder / "tokenizer.json", ruler, ruler.plan(task, 262144, 1, seed=1, first=7))
    assert FILL * 262144 <= tokens <= 262144


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(list(TASKS)), st.integers(2500, 9000), st.integers(0, 2**40), st.integers(0, 2**30))
def test_any_length_seed_and_index_fits(ruler: Ruler, task: str, length: int, seed: int, index: int) -> None:
    (recipe,) = ruler.plan(task, length, 1, seed, first=index, reserved=17)
    ids = ruler.fit(recipe).ids
    assert FILL * length <= len(ids) + ROOM[TASKS[task].kind] + 17 <= length


@pytest.fixture(scope="session")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose tokens cross words and sentences, as sentencepiece's may."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Replace("▁", " ")
    noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n" * 3
    alphabet = [*pre_tokenizers.ByteLevel.alphabet(), "\n", "▁"]
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT[at : at + 200] for at in range(0, 60_000, 200)] + [noise] * 5, trainer)
    path = tmp_path_factory.mktemp("crossing") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("task", ["niah_single_1", "vt", "fwe", "qa_1"])
def test_a_tokenizer_that_merges_across_words_is_filled_too(folder: Path, crossing: Path, task: str) -> None:
    ruler = made(folder, crossing)
    length = 4096  # such a tokenizer takes the square of it
    recipes = ruler.plan(task, length, 1, seed=5)
    assert all(FILL * length <= tokens <= length for tokens in lengths(crossing, ruler, recipes))


def test_such_a_tokenizer_is_known_by_counts_that_do_not_add_up(folder: Path, crossing: Path, ruler: Ruler) -> None:
    assert not made(folder, crossing).plan("niah_single_1", 4096, 1, seed=5)[0].exact
    assert ruler.plan("niah_single_1", 4096, 1, seed=5)[0].exact


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_does_not_depend_on_how_many_are_made(ruler: Ruler, task: str) -> None:
    several = ruler.plan(task, 4096, 6, seed=9)
    assert ruler.plan(task, 4096, 2, seed=9, first=3) == several[3:5]
    other_seed = ruler.plan(task, 4096, 1, seed=10)[0]
    texts = [ruler.render(recipe).input for recipe in (*several, other_seed)]
    assert len(set(texts)) == 7


def _text(recipe: bytes, folder: Path) -> str:
    return made(folder, folder / "tokenizer.json").render(pickle.loads(recipe)).prompt


def test_a_recipe_makes_the_same_text_in_another_process(folder: Path, ruler: Ruler) -> None:
    recipes = [ruler.plan(task, 4096, 1, seed=9, first=2)[0] for task in TASKS]
    assert all(len(pickle.dumps(recipe)) < 600 for recipe in recipes)  # numbers, not text
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        texts = list(pool.map(_text, map(pickle.dumps, recipes), [folder] * len(recipes)))
    assert texts == [ruler.render(recipe).prompt for recipe in recipes]


def test_what_cannot_be_made_says_why(folder: Path, ruler: Ruler) -> None:
    with pytest.raises(StoreError, match="niah_single_9 is not one of RULER's; write one of niah_single_1"):
        ruler.plan("niah_single_9", 4096, 1, seed=0)
    with pytest.raises(StoreError, match=r"length 512: sample 0 of vt takes \d+ tokens .+ answer 30; ask for a longer"):
        ruler.plan("vt", 512, 1, seed=0)
    with pytest.raises(StoreError, match="beside 900 of a chat template; ask for a longer one"):
        ruler.plan("vt", 1024, 1, seed=0, reserved=900)
    bare = Ruler(Counter.load(folder / "tokenizer.json"))
    with pytest.raises(StoreError, match="niah_single_2: needs a haystack; name a text with --haystack"):
        bare.plan("niah_single_2", 4096, 1, seed=0)
    with pytest.raises(StoreError, match="name a JSON file of HotpotQA with --qa_2"):
        bare.plan("qa_2", 4096, 1, seed=0)
    with pytest.raises(StoreError, match=r"its documents fill \d+ of 262144 tokens; give a larger set"):
        ruler.plan("qa_1", 262144, 1, seed=0)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"data": []}', '[{"question": 1}]', '{"data": [{"paragraphs": 3}]}']
)
def test_a_file_that_is_no_question_set_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(StoreError, match=r"set\.json: (is|has) no question"):
        Questions.read(tmp_path / "set.json")


def test_a_haystack_of_few_words_or_of_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a few words")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe" * 300)
    for name in ("short.txt", "bytes.txt", "missing.txt"):
        with pytest.raises(StoreError, match=name):
            Haystack.read(tmp_path / name)


def test_a_small_haystack_is_repeated(folder: Path) -> None:
    small = Haystack.of([TEXT[:3000]], "small")
    ruler = Ruler(Counter.load(folder / "tokenizer.json"), small)
    recipes = ruler.plan("niah_multikey_1", 32768, 2, seed=0)
    assert all(FILL * 32768 <= tokens <= 32768 for tokens in lengths(folder / "tokenizer.json", ruler, recipes))
    assert small.digest in ruler.source("niah_multikey_1") and ruler.source("vt") == "synthetic"


def test_a_broken_cache_is_made_again_and_two_at_once_agree(tmp_path: Path, folder: Path) -> None:
    expected = made(folder, folder / "tokenizer.json").plan("niah_multikey_2", 4096, 3, seed=0)
    for file in (folder / "cache").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])  # truncated
    assert made(folder, folder / "tokenizer.json").plan("niah_multikey_2", 4096, 3, seed=0) == expected
    command = [sys.executable, "-m", "xgen.evals.ruler", "--tokenizer", folder, "--task", "fwe", "--cache", tmp_path]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in started]
    assert outputs[0] == outputs[1] != b""
    assert not list(tmp_path.glob(".*"))  # no temporary file is left


def test_counts_are_kept_for_all_who_share_the_folder(tmp_path: Path, folder: Path) -> None:
    counter = Counter.load(folder / "tokenizer.json", tmp_path / "shared")
    before = os.umask(0o002)
    try:
        counter.cached("words", "a", lambda: counter.count(["a"]))
    finally:
        os.umask(before)
    (kept,) = (tmp_path / "shared").iterdir()
    assert kept.suffix == ".npz" and kept.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_takes_no_counts_is_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    counter = Counter.load(folder / "tokenizer.json", tmp_path / "of-others")

    def forbidden(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", forbidden)  # root is never refused
    said = f"of-others: keeps no counts of tokens: {os.strerror(number)}; give the folder"
    with pytest.raises(StoreError, match=said):
        counter.cached("words", "a", lambda: counter.count(["a"]))


def test_a_question_that_any_answer_would_answer_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    documents = [["Station", ["The code is 7."]]]
    asked = [("Empty?", "", documents), ("Bare?", "7", []), ("Code?", "7", documents)]
    file.write_text(json.dumps([{"question": q, "answer": a, "context": c} for q, a, c in asked]))
    assert [question.text for question in Questions.read(file).questions] == ["Code?"]
    answers = [{"text": " "}, {"text": "7"}]
    qas = [{"question": "Code?", "answers": answers}, {"question": "Empty?", "answers": answers[:1]}]
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": "The code is 7.", "qas": qas}]}]}))
    assert [(question.text, question.answers) for question in Questions.read(file).questions] == [("Code?", ("7",))]


@pytest.mark.parametrize(("documents", "characters", "length"), [(10, 2000, 32768), (14, 300, 4096)])
def test_a_question_set_that_only_fits_other_lengths_than_the_tried_one_fits_those(
    tmp_path: Path, documents: int, characters: int, length: int
) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE())  # a token a byte
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([TEXT[:100]], trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet))
    file = tmp_path / "hotpot.json"
    many = 40 if length > 8192 else 2
    file.write_text(json.dumps([
        {"question": f"Code of {q}?", "answer": "7", "context": [
            [f"{q} {number}", [TEXT[characters * number + q :][: characters * (number + 1) // documents]]]
            for number in range(documents)
        ]} for q in range(many)
    ]))  # fmt: skip
    ruler = Ruler(Counter(tokenizer), questions={"qa_2": Questions.read(file)})
    (recipe,) = ruler.plan("qa_2", length, 1, seed=0)
    assert len(ruler.fit(recipe).ids) + ROOM["qa"] <= length


@pytest.mark.parametrize("task", ["niah_multikey_2", "niah_multikey_3"])
def test_a_length_beyond_all_lines_is_refused(ruler: Ruler, task: str) -> None:
    with pytest.raises(StoreError, match=rf"{task}: length 4194304 is beyond its \d+ lines; ask for a shorter one"):
        ruler.plan(task, 4 << 20, 1, seed=0)


def test_a_folder_is_no_question_set(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read: Is a directory; name a JSON file of SQuAD or HotpotQA"):
        Questions.read(tmp_path)


def test_hotpot_keeps_all_documents_of_the_question(folder: Path, ruler: Ruler) -> None:
    for recipe in ruler.plan("qa_2", 4096, 5, seed=1):
        sample = ruler.render(recipe)
        assert all(sentences[0] in sample.input for _, sentences in hotpot(5)[recipe.index]["context"])  # type: ignore[attr-defined]
