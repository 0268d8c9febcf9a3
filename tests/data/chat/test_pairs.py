"""Both answers of a pair are in one row, told apart token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.chat.made import assistant, preference, system, user, write_known, write_lines, write_tokenizer
from tests.data.chat.test_samples import made_source
from xgen.data import samples_of
from xgen.data.chat.order import epoch_of
from xgen.data.chat.pairs import PairSamples
from xgen.data.chat.prepare import chat_store, prepare
from xgen.data.chat.samples import Weighted
from xgen.data.chat.template import CHATML
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.samples import IGNORE


def test_a_row_holds_whole_pairs_and_says_which_tokens_are_whose(tmp_path: Path) -> None:
    lengths = [int(n) for n in np.random.default_rng(1).integers(3, 60, size=400)]
    source = made_source(tmp_path, lengths, per_record=2, first=1000)
    samples = PairSamples([Weighted(source)], 256, 0, "o", one_epoch=True)
    batch = samples.batch(0, samples.num_samples)
    assert np.array_equal(batch.answers >= 0, batch.labels != IGNORE)
    seen = []
    for row in range(samples.num_samples):
        pairs = batch.pairs[row][batch.pairs[row] >= 0]
        seen += pairs.tolist()
        for k, pair in enumerate(pairs.tolist()):
            for which in (0, 1):
                tokens, learn = source.conversation(2 * (pair - 1000) + which)
                expected = [int(token) for token, known in zip(tokens[1:], learn[1:], strict=True) if known]
                assert batch.labels[row][batch.answers[row] == 2 * k + which].tolist() == expected
    assert sorted(seen) == list(range(1000, 1200))


def test_the_same_whoever_asks(tmp_path: Path) -> None:
    source = made_source(tmp_path, [20] * 200, per_record=2)
    whole = PairSamples([Weighted(source)], 128, 5, "o").batch(0, 40)
    part = PairSamples([Weighted(source)], 128, 5, "o").batch(17, 3)
    for name in ("tokens", "labels", "positions", "answers"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[17:20])
    assert part.pairs.tolist() == whole.pairs[17:20].tolist()


@pytest.mark.parametrize("template", [CHATML, "chatml_tools"])
def test_turns_that_both_answers_begin_with_are_no_part_of_them(tmp_path: Path, template: str) -> None:
    if template == CHATML:
        write_tokenizer(tmp_path / "tokenizer", CHATML)
    else:
        write_known(tmp_path / "tokenizer", template)
    turns = [user("a?"), assistant("shared"), user("b?")]
    row = {"messages": turns, "chosen": "yes", "rejected": [assistant("no"), user("c?"), assistant("fox")]}
    write_lines(tmp_path / "a.jsonl", [row])
    job = preference(tmp_path)
    done = prepare(job, chat_store(job))
    assert done
    backend = ChatTokenizer.load(tmp_path / "tokenizer").backend
    learnt = []
    for number in (0, 1):
        tokens, learn = done.store.source("train", "a").conversation(number)
        learnt.append(backend.decode(tokens[learn].tolist(), skip_special_tokens=False))
    assert learnt == ["yes<|im_end|>", "no<|im_end|>fox<|im_end|>"]


def test_a_preference_job_is_read_from_records(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", CHATML)
    rows = [{"messages": [system("Be kind."), user(f"{n}?")], "chosen": "yes", "rejected": "no fox"} for n in range(30)]
    write_lines(tmp_path / "a.jsonl", rows)
    job = preference(tmp_path, "validation.sources.h=a.jsonl")
    done = prepare(job, chat_store(job))
    assert done
    samples = samples_of(job)
    assert isinstance(samples, PairSamples)
    batch = samples.batch(0, 4)
    decode = done.store.path.parent / "tokenizer" / "tokenizer.json"
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(decode))
    for row in range(4):
        for answer in range(batch.answers[row].max() + 1):
            tokens = batch.labels[row][batch.answers[row] == answer].tolist()
            said = backend.decode(tokens, skip_special_tokens=False)
            assert said == ("no fox<|im_end|>" if answer % 2 else "yes<|im_end|>")
    # The numbers of held-out pairs go on where those of the training end.
    held = epoch_of(done.store, "held-out", "h")
    pairs = held.batch(0, held.num_samples).pairs  # type: ignore[attr-defined]
    assert sorted(pairs[pairs >= 0].tolist()) == list(range(30, 60))
    assert done.store.num_records == 60
