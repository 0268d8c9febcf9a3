"""Building a store of one's own text: in parallel, interrupted, with every kind of broken input."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.conftest import ROOT
from tests.data.test_build import content
from xgen.data import StoreError, TokenStore
from xgen.data.errors import InterruptedBuildError
from xgen.data.ingest import Built, Recipe, build_store
from xgen.data.readers import Defaults, Keys

KEYS = Keys("text", "domain", "source", "licence")


@pytest.fixture(scope="session")
def tokenizer(store: TokenStore) -> Path:
    return store.path / "tokenizer.json"


@pytest.fixture
def many(tmp_path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files of every kind, one unit each."""
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr("xgen.data.units._MIN_UNIT", 1)
    folder = tmp_path / "input"
    folder.mkdir()
    rows = [record(n, domain="ab"[n % 2], source=f"s{n % 5}") for n in range(400)]
    lines = [json.dumps(row).encode() for row in rows]
    (folder / "0.jsonl").write_bytes(b"\n".join(lines[:100]))
    (folder / "1.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines[100:200]) + b"\n"))
    (folder / "2.jsonl.zst").write_bytes(zstandard.compress(b"\n".join(lines[200:300])))
    parquet.write_table(pyarrow.Table.from_pylist(rows[300:]), folder / "3.parquet", row_group_size=30)
    (folder / "README.md").write_text("not data")
    (folder / ".hidden.jsonl").write_text("nobody's data")
    return folder


def record(number: int, **changes: Any) -> dict[str, Any]:
    text = f"Document number {number}. " + "All of it is text. " * (number % 7)
    return {"text": text, "domain": "web", "source": "crawl", "licence": "CC0-1.0", "id": number} | changes


def build(out: Path, inputs: Path | str, tokenizer: Path, **changes: Any) -> Built:
    workers = changes.pop("workers", 1)
    facts = {"defaults": Defaults("web", "crawl"), "keys": Keys(), "tokenizer": tokenizer} | changes
    return build_store(out, Recipe(inputs=(str(inputs),), **facts), workers)


def texts(store: TokenStore) -> list[str]:
    tokenizer = store.tokenizer()
    documents = (part.document(n) for part in store.parts for n in range(part.meta.num_documents))
    return [tokenizer.decode(tokens[:-1]) for tokens in documents]


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def test_every_kind_of_file_becomes_the_same_store_with_any_number_of_workers(
    many: Path, tmp_path: Path, tokenizer: Path
) -> None:
    one = build(tmp_path / "one", many, tokenizer, keys=KEYS)
    two = build(tmp_path / "two", many, tokenizer, keys=KEYS, workers=2)
    assert one.encoded == two.encoded == 4 and one.ignored == {".md": 1}
    assert content(tmp_path / "one") == content(tmp_path / "two")
    two.store.verify()
    meta = two.store.meta
    assert [part.name for part in meta.parts] == [f"{n:05}-{'ab'[n % 2]}" for n in range(8)]
    assert sorted(texts(two.store)) == sorted(record(n)["text"] for n in range(400))
    for part in two.store.domain("b"):
        first = two.store.tokenizer().decode(part.document(0))
        number = int(first.split(".")[0].rsplit(" ", 1)[1])
        assert meta.sources[part.sources[0]].name == f"s{number % 5}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".one.lock", ".two.lock", "input", "one", "two"]


def test_second_call_has_nothing_to_do_and_another_input_builds_again(tmp_path: Path, tokenizer: Path) -> None:
    file = write(tmp_path / "a.jsonl", record(0))
    assert build(tmp_path / "store", file, tokenizer).encoded == 1
    again = build(tmp_path / "store", file, tokenizer)
    assert again.encoded == again.found == 0
    write(file, record(0), record(1))
    assert build(tmp_path / "store", file, tokenizer).store.meta.num_documents == 2


@pytest.mark.parametrize("kill", ["parent", "worker", "assembling"])
def test_killed_build_goes_on_and_gives_the_same_store(many: Path, tmp_path: Path, tokenizer: Path, kill: str) -> None:
    whole = build(tmp_path / "whole", many, tokenizer, keys=KEYS)
    out, building = tmp_path / "out", tmp_path / ".out.building"
    code = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
import xgen.data.units, xgen.data.workers, xgen.data.assemble, xgen.data.ingest
from pathlib import Path
from tests.data.test_ingest import KEYS, build
xgen.data.units._MIN_UNIT = 1
move, calls = xgen.data.assemble._move, []
def slow(*arguments):
    calls.append(1)
    if {kill == "assembling"} and len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return move(*arguments)
xgen.data.assemble._move = slow
def pause(what, done, total):
    if what == "units" and done >= 2 and {kill != "assembling"}:
        time.sleep(0.1)
        print("here", flush=True)
        time.sleep(60)
import tests.data.test_ingest as test
from xgen.data.ingest import Recipe, build_store
from xgen.data.readers import Defaults
recipe = Recipe((sys.argv[1],), Defaults("web", "crawl"), KEYS, Path(sys.argv[2]))
if __name__ == "__main__":
    build_store(Path(sys.argv[3]), recipe, 1, 0, pause)
"""
    script = write(tmp_path / "script.py", code.encode())
    process = subprocess.Popen(
        [sys.executable, script, many, tokenizer, out], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        if kill != "assembling":
            assert process.stdout is not None and process.stdout.readline() == "here\n"
            workers = children(process.pid)
            assert workers
            os.kill(workers[0] if kill == "worker" else process.pid, signal.SIGKILL)
            if kill == "worker":
                process.kill()
            wait_until_gone(workers)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert not out.exists() and building.is_dir()
    with pytest.raises(StoreError, match=r"interrupted build with other keys; run that one to its end, or remove"):
        build(out, many, tokenizer)
    built = build(out, many, tokenizer, keys=KEYS)
    assert built.found >= 2 and built.found + built.encoded == 4
    assert content(out) == content(whole.store.path)
    assert not building.exists()


def children(pid: int) -> list[int]:
    """The workers of a build: children that are not the tracker of multiprocessing."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(p) for p in found if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_unit_whose_files_were_cut_is_encoded_again(many: Path, tmp_path: Path, tokenizer: Path) -> None:
    whole = build(tmp_path / "whole", many, tokenizer, keys=KEYS)
    bad = write(many / "4.jsonl", b"{")
    with pytest.raises(StoreError, match=r"4\.jsonl: line 1: is no JSON"):
        build(tmp_path / "out", many, tokenizer, keys=KEYS)
    units = sorted((tmp_path / ".out.building" / "units").glob("0*[0-9]"))
    assert len(units) == 4
    os.truncate(next(units[0].glob("*/tokens.bin")), 10)
    (tmp_path / ".out.building" / "recipe.json").write_text("{}")
    bad.unlink()
    with pytest.raises(StoreError, match="remove the folder to begin again"):
        build(tmp_path / "out", many, tokenizer, keys=KEYS)
    facts = Recipe((str(many),), Defaults("web", "crawl"), KEYS, tokenizer)
    from xgen.data.units import plan_units

    (tmp_path / ".out.building" / "recipe.json").write_text(json.dumps(facts.facts(plan_units(facts.inputs))))
    built = build(tmp_path / "out", many, tokenizer, keys=KEYS)
    assert (built.encoded, built.found) == (1, 3)
    assert content(built.store.path) == content(whole.store.path)


BROKEN = {
    "json": (b'{"text": ', 2, "is no JSON: EOF"),
    "no object": ([1], 2, "is no object but list"),
    "no key": ({"body": "x"}, 2, "has no 'text'; its keys are body"),
    "wrong type": ({"text": 7}, 2, "has 'text' that is not text: 7"),
    "null": ({"text": None}, 2, "has 'text' that is not text: None"),
    "surrogate": (b'{"text": "half \\ud800 pair"}', 2, "is no JSON: "),
    "not UTF-8": (b'{"text": "caf\xe9"}', 2, "is no JSON: "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_record_stops_the_build_or_is_quarantined(tmp_path: Path, tokenizer: Path, kind: str) -> None:
    broken, line, reason = BROKEN[kind]
    file = write(tmp_path / "a.jsonl", record(0), broken, b"", record(1))
    with pytest.raises(StoreError) as caught:
        build(tmp_path / "store", file, tokenizer)
    assert str(caught.value).startswith(f"{file}: line {line}: {reason}")
    assert "--on-bad-record quarantine" in str(caught.value) and not (tmp_path / "store").exists()
    store = build(tmp_path / "quarantined", file, tokenizer, on_bad_record="quarantine").store
    store.verify()
    (entry,) = map(json.loads, (store.path / "quarantine.jsonl").read_text().splitlines())
    assert (entry["file"], entry["line"]) == (str(file), line) and entry["reason"].startswith(reason)
    assert store.meta.num_quarantined == 1 and texts(store) == [record(0)["text"], record(1)["text"]]


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("fault", ["truncated", "flipped", "empty"])
def test_damaged_file_stops_the_build_or_is_quarantined_with_what_is_whole(
    tmp_path: Path, tokenizer: Path, suffix: str, fault: str
) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [record(n, text=os.urandom(40).hex()) for n in range(3000)]
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / f"a{suffix}"
    data = b"\n".join(json.dumps(row).encode() for row in rows) + b"\n"
    if suffix == ".parquet":
        # A flipped byte of text in parquet cannot be told: its checksums are off by default, and few readers heed them.
        parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=100)
        fault = "truncated" if fault == "flipped" else fault
    else:
        compress = gzip.compress if suffix.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress
        file.write_bytes(compress(data))
    raw = bytearray(file.read_bytes())
    if fault == "flipped":
        raw[len(raw) // 2] ^= 0xFF
    file.write_bytes({"truncated": raw[: len(raw) * 3 // 4], "empty": b"", "flipped": raw}[fault])
    write(tmp_path / "in" / "b.jsonl", record(1))
    # What a flipped byte became is read before the checksum at the end of its frame is.
    expected = {"empty": r"holds no record|is damaged", "flipped": r"line \d+: |is damaged"}.get(fault, "is damaged")
    with pytest.raises(StoreError, match=rf"a\{suffix}: ({expected})"):
        build(tmp_path / "store", tmp_path / "in", tokenizer)
    store = build(tmp_path / "quarantined", tmp_path / "in", tokenizer, on_bad_record="quarantine").store
    found = texts(store)
    entries = [json.loads(line) for line in (store.path / "quarantine.jsonl").read_text().splitlines()]
    assert found[-1] == record(1)["text"]
    whole = [row["text"] for row in rows]
    if fault == "truncated" and suffix != ".parquet":
        last = int(entries[-1]["reason"].split("after line ")[1].split(":")[0])
        assert 0 < last == len(found) - 1 and found[:-1] == whole[:last]
    assert all(entry["file"] == str(file) for entry in entries)
    assert re.match(r"holds no record|is damaged", entries[-1]["reason"])


def test_line_of_any_length_and_a_quoted_end_of_text_come_back(tmp_path: Path, tokenizer: Path) -> None:
    long = "A line that does not end. " * 200_000
    quoted = "before <|endoftext|> after"
    store = build(
        tmp_path / "store", write(tmp_path / "a.jsonl", record(0, text=long), record(1, text=quoted)), tokenizer
    ).store
    assert texts(store) == [long, quoted]
    assert store.meta.end_of_text not in store.parts[0].document(1)[:-1]


def test_saved_data_set_and_its_stream_give_the_text_of_its_rows(tmp_path: Path, tokenizer: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [record(n) for n in range(50)]
    made = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(train=made, test=made).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        StoreError, match=r"holds the splits train, test, which would be mixed; name one, e\.g\. .*/train"
    ):
        build(tmp_path / "store", tmp_path / "saved", tokenizer)
    (tmp_path / "saved" / "train" / "cache-0123.arrow").write_bytes(b"left by a map()")
    saved = build(tmp_path / "store", tmp_path / "saved" / "train", tokenizer)
    assert texts(saved.store) == [row["text"] for row in rows] and saved.ignored == {".arrow": 1, ".json": 2}
    (tmp_path / "hub" / "data").mkdir(parents=True)
    made.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet")
    made.to_parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet")
    made.to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    streamed = build(tmp_path / "streamed", f"hf:{tmp_path / 'hub'}:train", tokenizer, workers=2)
    assert streamed.encoded == 2 and texts(streamed.store) == 2 * [row["text"] for row in rows]
    with pytest.raises(StoreError, match=r"hf:.*nosuch: cannot be read: .*check name and split"):
        build(tmp_path / "other", f"hf:{tmp_path / 'hub'}:nosuch", tokenizer)


def test_small_files_share_parts(tmp_path: Path, tokenizer: Path) -> None:
    for number in range(100):
        write(tmp_path / f"{number:03}.jsonl", record(number))
    store = build(tmp_path / "store", tmp_path, tokenizer).store
    assert len(store.parts) == 1 and texts(store) == [record(n)["text"] for n in range(100)]


def test_part_that_is_full_is_followed_by_another(
    tmp_path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xgen.data.encode import Encoder
    from xgen.data.readers import Record
    from xgen.data.writer import write_unit

    monkeypatch.setattr("xgen.data.writer._PART_TOKENS", 50)
    monkeypatch.setattr("xgen.data.writer._MAX_DOMAINS", 2)
    tokenizer = store.tokenizer()
    records = [Record("words " * 10, "ab"[n % 2], "s", "l", 60) for n in range(20)]
    meta = write_unit(tmp_path, records, Encoder(tokenizer), "uint16", tokenizer.end_of_text)
    assert len(meta.parts) > 2 and sum(part.num_documents for part in meta.parts) == 20
    assert all(part.num_tokens <= 100 for part in meta.parts)
    with pytest.raises(StoreError, match="domain c: is domain number 3 of one unit; a domain is a kind of text"):
        more = [Record("x", domain, "s", "l", 1) for domain in "abc"]
        write_unit(tmp_path / "more", more, Encoder(tokenizer), "uint16", tokenizer.end_of_text)


def test_trained_tokenizer_is_the_same_each_time(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *(record(n) for n in range(200)))
    recipe = Recipe((str(file),), Defaults("web", "crawl"), vocab_size=300)
    stores = [build_store(tmp_path / name, recipe, 1).store for name in ("a", "b")]
    assert stores[0].meta.vocab_size == 300 and stores[0].meta.fingerprint == stores[1].meta.fingerprint


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_full_disk_says_so_and_the_build_goes_on_when_there_is_room(
    many: Path, tmp_path: Path, tokenizer: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        with pytest.raises(InterruptedBuildError, match="No space left on device; make room and run it again"):
            build(disk / "store", many, tokenizer, keys=KEYS)
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        assert build(disk / "store", many, tokenizer, keys=KEYS).found > 0
        TokenStore.open(disk / "store").verify()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_row_that_is_no_utf8_is_named_and_its_neighbours_are_read(tmp_path: Path, kind: str) -> None:
    import pyarrow
    from pyarrow import parquet

    from xgen.data.readers import Bad, Defaults, Keys, Record, read_unit
    from xgen.data.units import plan_units

    raw = pyarrow.array([b"first", b"\xff\xfe broken", b"third"], type=pyarrow.binary())
    column = pyarrow.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    table = pyarrow.table({"text": column})
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        parquet.write_table(table, file)
    else:
        with pyarrow.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    [unit] = plan_units([str(file)]).units
    first, broken, third = read_unit(unit, Keys(), Defaults("web", "crawl"))
    assert isinstance(first, Record)
    assert isinstance(third, Record)
    assert (first.text, third.text) == ("first", "third")
    assert isinstance(broken, Bad)
    assert broken.line == 2
    assert "is not UTF-8" in broken.reason
