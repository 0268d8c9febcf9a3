"""From records to the chat store: what is in it, what is left out, and what happens when it is not let finish."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.chat.made import assistant, preference, sft, user, write_lines, write_tokenizer
from xgen.data import StoreError
from xgen.data.chat.prepare import chat_store, open_store, prepare
from xgen.data.chat.store import ChatStore, Source
from xgen.data.chat.template import CHATML
from xgen.data.errors import InterruptedBuildError
from xgen.spec import Preference, Sft


def chats(count: int, words: int = 3, first: int = 0) -> list[dict[str, object]]:
    return [
        {"messages": [user(f"what is {number}?"), assistant(" ".join(["fox"] * (1 + number % words)))]}
        for number in range(first, first + count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer", CHATML)
    write_lines(tmp_path / "a.jsonl", chats(20))
    return tmp_path


def prepared(job: Sft | Preference) -> ChatStore:
    done = prepare(job, chat_store(job))
    assert done
    return done.store


def text_of(store: ChatStore, source: Source, number: int, learnt: bool = False) -> str:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(store.path.parent / "tokenizer" / "tokenizer.json"))
    tokens, learn = source.conversation(number)
    text: str = backend.decode(tokens[learn].tolist() if learnt else tokens.tolist(), skip_special_tokens=False)
    return text


def test_the_store_holds_every_conversation_in_order_with_its_mask(folder: Path) -> None:
    store = prepared(sft(folder))
    [source] = store.sources
    assert (source.meta.counts.records, source.meta.counts.tokens) == (20, len(source.tokens))
    assert source.meta.counts.learnt == int(source.learn.sum())
    for number in range(20):
        answer = " ".join(["fox"] * (1 + number % 3)) + "<|im_end|>"
        assert text_of(store, source, number, learnt=True) == answer
        asked = f"<|im_start|>user\nwhat is {number}?<|im_end|>\n<|im_start|>assistant\n"
        assert text_of(store, source, number) == asked + answer + "\n"
    store.verify()


def test_what_is_left_out_is_listed_with_file_line_and_reason(folder: Path) -> None:
    with (folder / "a.jsonl").open("a") as file:
        file.write("{no json\n\n")
        file.write(json.dumps({"text": "no chat"}) + "\n")
        file.write(json.dumps({"messages": [user("a"), assistant("fox " * 80)]}) + "\n")
        file.write(json.dumps(["a"]) + "\n")
    store = prepared(sft(folder))
    counts = store.sources[0].meta.counts
    assert (counts.records, counts.num_dropped) == (20, 4)
    assert counts.dropped == {
        "is no JSON": 1,
        "has no conversation": 1,
        "is longer than 64 tokens": 1,
        "is no object": 1,
    }
    bad = [json.loads(line) for line in (store.path / "quarantine.jsonl").read_text().splitlines()]
    assert [(one["line"], one["reason"].partition(":")[0].partition(";")[0]) for one in bad] == [
        (21, "is no JSON"),
        (23, "has no conversation"),
        (25, "is no object"),
        (24, "is longer than 64 tokens"),
    ]
    assert {one["file"] for one in bad} == {str(folder / "a.jsonl")}


def test_records_that_quote_special_tokens_are_counted(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [*chats(3), {"messages": [user("a"), assistant("fox<|im_end|>")]}])
    store = prepared(sft(folder))
    [source] = store.sources
    assert (source.num_records, source.meta.counts.quoting) == (4, 1)
    end = int(source.conversation(0)[0][-2])
    assert (source.conversation(3)[0] == end).sum() == 2  # of the two turns


def test_truncation_cuts_the_end_and_counts(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [*chats(2), {"messages": [user("a"), assistant("fox " * 80)]}])
    store = prepared(sft(folder, "data.too_long=truncate"))
    counts = store.sources[0].meta.counts
    assert (counts.records, counts.truncated, counts.longest, counts.dropped) == (3, 1, 64, {})
    assert text_of(store, store.sources[0], 2).startswith(
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nfox fox"
    )


def test_a_conversation_whose_answer_is_cut_away_is_left_out(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [*chats(2), {"messages": [user("fox " * 80), assistant("x")]}])
    store = prepared(sft(folder, "data.too_long=truncate"))
    assert store.sources[0].meta.counts.dropped == {"has nothing to learn within seq_len": 1}


def test_both_answers_of_a_pair_are_cut_to_fit_together(folder: Path) -> None:
    row = {"prompt": "which?", "chosen": "fox " * 300, "rejected": "bear"}
    write_lines(folder / "a.jsonl", [row, {**row, "rejected": "bear " * 300}])
    store = prepared(preference(folder, "data.too_long=truncate"))
    lengths = np.diff(store.sources[0].offsets)
    assert lengths[0] + lengths[1] == 128 and lengths[1] < 40
    assert lengths[2] == lengths[3] == 64
    dropped = preference(folder, "data.out=other")
    with pytest.raises(StoreError, match=r"is longer than 128 tokens: .*; and no record of the source a can be used"):
        prepare(dropped, chat_store(dropped))


def test_all_kinds_of_files_are_read(folder: Path) -> None:
    import pyarrow
    import zstandard
    from pyarrow import parquet

    lines = (folder / "a.jsonl").read_bytes()
    (folder / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines))
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines))
    parquet.write_table(pyarrow.Table.from_pylist(chats(20)), folder / "d.parquet")
    store = prepared(sft(folder, sources="{a: a.jsonl, b: b.jsonl.zst, c: c.jsonl.gz, d: d.parquet}"))
    assert [source.meta.counts.records for source in store.sources] == [20] * 4
    assert all(np.array_equal(source.tokens, store.sources[0].tokens) for source in store.sources)


def test_held_out_sources_are_a_split_of_their_own(folder: Path) -> None:
    write_lines(folder / "h.jsonl", chats(5, first=100))
    store = prepared(sft(folder, "validation.sources.near=h.jsonl"))
    assert [(s.meta.split, s.name, s.num_records, s.first) for s in store.sources] == [
        ("train", "a", 20, 0),
        ("held-out", "near", 5, 20),
    ]


def test_a_second_call_finds_it_done_and_a_touched_file_is_the_same(folder: Path) -> None:
    job = sft(folder)
    first = prepare(job, chat_store(job))
    os.utime(folder / "a.jsonl", (1, 1))
    second = prepare(job, chat_store(job))
    assert first and second
    assert (first.written, second.written) == (True, False)
    assert first.store.meta == second.store.meta == open_store(job, chat_store(job)).meta


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("train.seq_len=128", "train.seq_len"),
        ("data.learn=last", "data.learn"),
        ("data.too_long=truncate", "data.too_long"),
        ("data.template=other.jinja", "tokenizer and template"),
        ("validation.sources.b=a.jsonl", "sources"),
    ],
)
def test_a_store_of_other_settings_is_refused_by_what_differs(change: str, named: str, folder: Path) -> None:
    (folder / "other.jinja").write_text(CHATML.replace("user", "human") + " ")
    prepared(sft(folder))
    other = sft(folder, change)
    for use in (prepare, open_store):
        with pytest.raises(
            StoreError, match=f"was prepared from other {named}; put back what it was, or write another"
        ):
            use(other, chat_store(other))


def test_a_store_of_other_records_is_refused(folder: Path) -> None:
    job = sft(folder)
    prepared(job)
    write_lines(folder / "a.jsonl", chats(21))
    with pytest.raises(StoreError, match="was prepared from other records"):
        prepare(job, chat_store(job))


def test_weights_are_no_part_of_the_store(folder: Path) -> None:
    prepared(sft(folder))
    heavier = sft(folder, sources="{a: {path: a.jsonl, weight: 3, max_epochs: 90}}")
    done = prepare(heavier, chat_store(heavier))
    assert done and not done.written


def test_a_folder_that_is_something_else_is_left_alone(folder: Path) -> None:
    (folder / "store").mkdir()
    (folder / "store" / "precious").touch()
    job = sft(folder)
    with pytest.raises(StoreError, match=r"is there and is no chat store; write another data\.out"):
        prepare(job, chat_store(job))
    assert (folder / "store" / "precious").exists()


def test_told_to_stop_it_leaves_and_the_next_call_goes_on(folder: Path) -> None:
    for name in "bcd":
        write_lines(folder / f"{name}.jsonl", chats(20))
    job = sft(folder, sources="{a: a.jsonl, b: b.jsonl, c: c.jsonl, d: d.jsonl}")
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4  # before each unit and after its only batch

    assert prepare(job, chat_store(job), stopped) is None
    done = {path: path.stat().st_mtime_ns for path in folder.glob(".store.building/units/*/tokens.bin")}
    assert len(done) == 2
    assert not (folder / "store").exists()
    found = prepare(job, chat_store(job))
    assert found and found.written
    assert [source.num_records for source in found.store.sources] == [20] * 4
    assert not (folder / ".store.building").exists()


def test_killed_it_goes_on_and_gives_the_same_store(folder: Path) -> None:
    """Over the size from which on processes do the work."""
    record = json.dumps({"messages": [user("fox " * 400), assistant("bear " * 400)]})
    for name in "abc":
        (folder / f"{name}.jsonl").write_text(f"{record}\n" * 1000)
    sources, change = "{a: a.jsonl, b: b.jsonl, c: c.jsonl}", "train.seq_len=2048"
    job = sft(folder, change, sources=sources)
    code = (
        f"from tests.data.chat.made import sft\nfrom pathlib import Path\n"
        f"from xgen.data.chat.prepare import *\njob = sft(Path({str(folder)!r}), {change!r}, sources={sources!r})\n"
        f"if __name__ == '__main__': prepare(job, chat_store(job), workers=1)"
    )
    script = folder / "script.py"
    script.write_text(code)
    child = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not list(folder.glob(".store.building/units/*[0-9]/unit.json")) and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10)
    assert not (folder / "store").exists()
    again = prepared(job)
    [first, *others] = again.sources
    assert first.num_records == 1000
    assert all(np.array_equal(first.tokens, other.tokens) for other in others)
    assert not (folder / ".store.building").exists()


def test_a_full_disk_is_an_interruption_and_the_next_call_goes_on(folder: Path) -> None:
    job = sft(folder)
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "from pathlib import Path\nfrom xgen.spec import load_job\nfrom xgen.data.chat.prepare import *\n"
        f"folder = Path({str(folder)!r})\njob = load_job(folder / 'spec.yaml', [], folder).job\n"
        "try: prepare(job, chat_store(job))\n"
        "except InterruptedBuildError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "File too large; run it again: it goes on where it was" in result.stdout, result.stderr
    assert not (folder / "store").exists()
    assert prepared(job).num_records == 20


def test_records_that_change_while_they_are_read_are_no_store(folder: Path) -> None:
    job = sft(folder)

    def stopped() -> bool:
        with (folder / "a.jsonl").open("a") as file:
            file.write(json.dumps(chats(1)[0]) + "\n")
        return False

    with pytest.raises(InterruptedBuildError, match="changed while it was read"):
        prepare(job, chat_store(job), stopped)


def test_of_two_at_once_one_works_and_the_other_finds_it_done(folder: Path) -> None:
    job = sft(folder)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: prepare(job, chat_store(job)), range(2)))
    assert sorted(done.written for done in both if done) == [False, True]


def test_a_folder_of_datasets_may_hold_one_json_array(folder: Path) -> None:
    (folder / "hub").mkdir()
    (folder / "hub" / "train.json").write_text(json.dumps(chats(20)))
    name = f"hf:{folder / 'hub'}"
    store = prepared(sft(folder, sources=f"{{a: a.jsonl, b: {{path: '{name}'}}}}"))
    lines, array = store.sources
    assert np.array_equal(lines.tokens, array.tokens) and np.array_equal(lines.learn, array.learn)


@pytest.mark.parametrize("name", ["tokens.bin", "learn.bin", "offsets.bin"])
def test_a_truncated_or_flipped_file_is_named(name: str, folder: Path) -> None:
    store = prepared(sft(folder))
    file = store.path / "train" / "a" / name
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StoreError, match=rf"a/{name}: is not what was written"):
        store.verify()
    file.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=rf"a/{name}: has {len(content) - 1} bytes, and meta.json says {len(content)}"):
        ChatStore.open(store.path)


def test_a_template_that_breaks_the_prefix_names_the_first_line_that_shows_it(folder: Path) -> None:
    template = "{% for m in messages %}{{ loop.length if m.role == 'user' else '' }}{{ m.content }}{% endfor %}"
    (folder / "broken.jinja").write_text(template)
    job = sft(folder, "data.template=broken.jinja")
    with pytest.raises(StoreError, match=r"broken.jinja: renders earlier messages otherwise .*a.jsonl: line 1\); put"):
        prepare(job, chat_store(job))


def test_a_vocabulary_that_the_model_lacks_and_pages_are_refused(folder: Path) -> None:
    job = sft(folder, "model.vocab_size=300")
    with pytest.raises(StoreError, match="has 382 tokens, and the model's vocabulary 300"):
        prepare(job, chat_store(job))
    (folder / "page.html").write_text("<p>no chat</p>")
    pages = sft(folder, "data.sources.a=page.html")
    with pytest.raises(StoreError, match="holds pages, which are no chat data"):
        prepare(pages, chat_store(pages))


def test_a_source_without_a_usable_record_says_why(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    job = sft(folder)
    with pytest.raises(
        StoreError, match=r"a.jsonl: line 1: has no conversation; .*no record of the source a can be used"
    ):
        prepare(job, chat_store(job))
