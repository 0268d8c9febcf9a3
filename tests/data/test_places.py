"""Input that lies elsewhere: S3, HTTP, any file system of fsspec. A wire that is cut is not taken for damage."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data import test_fetch, test_ingest
from tests.data.archives import MODULES, pages, write
from tests.data.remote import Bucket, s3_server
from tests.data.test_build import content
from tests.data.test_fetch import Server
from tests.data.test_ingest import build, record, texts
from xgen.data import StoreError
from xgen.data.errors import InterruptedBuildError
from xgen.data.places import find, look, open_input, stem
from xgen.data.readers import Bad, Defaults, Keys, Record, read_unit
from xgen.data.units import plan_units

many, tokenizer, server = test_ingest.many, test_ingest.tokenizer, test_fetch.server


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as environ, s3_server(environ) as made:
        yield made


@pytest.fixture(autouse=True)
def _a_whole_wire(bucket: Bucket) -> Iterator[None]:
    yield
    bucket.wire.limit = 0


def read(path: str) -> list[Record]:
    found = [one for unit in plan_units([path]).units for one in read_unit(unit, Keys(), Defaults("web", "crawl"))]
    records = [one for one in found if isinstance(one, Record)]
    assert len(records) == len(found), found
    return records


def test_a_bucket_gives_the_same_store_as_a_folder(
    bucket: Bucket,
    many: Path,
    tmp_path: Path,
    tokenizer: Path,
) -> None:
    write(many / "4.warc.gz", pages()[:3])
    (many / "5.html").write_bytes(b"<html><body><p>A page that lies in a folder.</p></body></html>")
    url = bucket.upload(many, "store/many")
    keys = Keys()
    here = build(tmp_path / "here", many, tokenizer, keys=keys)
    there = build(tmp_path / "there", url, tokenizer, keys=keys, workers=2)
    assert there.encoded == here.encoded == 6 and there.ignored == here.ignored == {".md": 1}
    assert texts(there.store) == texts(here.store)
    for one, other in zip(here.store.parts, there.store.parts, strict=True):
        assert (one.path / "tokens.bin").read_bytes() == (other.path / "tokens.bin").read_bytes()
    again = build(tmp_path / "there", url, tokenizer, keys=keys)
    assert again.encoded == again.found == 0
    assert content(tmp_path / "there") == content(build(tmp_path / "single", url, tokenizer, keys=keys).store.path)


def test_a_file_is_known_by_size_and_etag(bucket: Bucket) -> None:
    bucket.client.put_object(Bucket="raw", Key="known/a.jsonl", Body=b'{"text": "one"}\n')
    [before] = find(f"{bucket.url}/known")
    assert before == look(before.path) and before.size == 16 and len(str(before.mark)) == 32
    bucket.client.put_object(Bucket="raw", Key="known/a.jsonl", Body=b'{"text": "two"}\n')
    assert look(before.path) != before and find(f"{bucket.url}/known/a.jsonl") == [look(before.path)]


def test_files_come_in_the_order_of_a_folder_and_hidden_ones_are_not_read(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a-b.jsonl", "a/z.jsonl", "a.jsonl", "a/.hidden/x.jsonl", ".x.jsonl", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "x"}\n')
    url = bucket.upload(tmp_path, "order")
    here = [path.removeprefix(f"{tmp_path}/") for path in (file.path for file in plan_units([str(tmp_path)]).files)]
    plan = plan_units([url])
    assert [file.path.removeprefix(f"{url}/") for file in plan.files] == here == ["a/z.jsonl", "a-b.jsonl", "a.jsonl"]
    assert plan.ignored == {"_SUCCESS": 1}


def test_a_saved_data_set_in_a_bucket_gives_its_own_files(bucket: Bucket, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([record(n) for n in range(50)])
    datasets.DatasetDict(train=made, test=made).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "train" / "cache-0123.arrow").write_bytes(b"left by a map()")
    url = bucket.upload(tmp_path / "saved", "saved")
    with pytest.raises(
        StoreError, match=r"s3://raw/saved: holds the splits train, test, .* e\.g\. s3://raw/saved/train"
    ):
        plan_units([url])
    assert [one.text for one in read(f"{url}/train")] == [record(n)["text"] for n in range(50)]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".warc.gz", ".html", ".arrow"])
def test_a_connection_that_dies_is_an_error_that_names_the_file_and_no_damage(
    bucket: Bucket, tmp_path: Path, suffix: str
) -> None:
    import os

    import pyarrow
    import zstandard
    from pyarrow import parquet

    file = tmp_path / "in" / f"a{suffix}"
    file.parent.mkdir()
    rows = [{"text": os.urandom(500).hex()} for _ in range(1000)]
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=100)
    elif suffix == ".arrow":
        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.ipc.new_stream(file, table.schema) as out:
            out.write_table(table, 100)
    elif suffix == ".warc.gz":
        write(file, pages())
    else:
        pack = {".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}.get(suffix, bytes)
        file.write_bytes(pack(lines) if suffix != ".html" else b"<p>" + lines)
    url = bucket.upload(file.parent, f"dies/{suffix}")
    plan = plan_units([url])
    bucket.wire.limit = file.stat().st_size // 2
    with pytest.raises(
        InterruptedBuildError, match=rf"s3://raw/dies/{suffix}/a{suffix}: broke off at byte .* run it again"
    ):
        for unit in plan.units:
            for found in read_unit(unit, Keys(), Defaults("web", "crawl")):
                assert not isinstance(found, Bad)
    bucket.wire.limit = 0
    assert len(read(url)) == len(MODULES if suffix == ".warc.gz" else rows if suffix != ".html" else "1")


def test_a_build_whose_wire_was_cut_goes_on(bucket: Bucket, many: Path, tmp_path: Path, tokenizer: Path) -> None:
    url = bucket.upload(many, "cut")
    bucket.client.put_object(Bucket="raw", Key="cut/3z.jsonl", Body=b"\n".join([b'{"text": "long"}'] * 20_000))
    bucket.wire.limit = 100_000
    with pytest.raises(InterruptedBuildError, match=r"s3://raw/cut/3z\.jsonl: broke off at byte"):
        build(tmp_path / "store", url, tokenizer)
    assert len(list((tmp_path / ".store.building" / "units").glob("0*[0-9]"))) >= 3
    bucket.wire.limit = 0
    built = build(tmp_path / "store", url, tokenizer)
    assert built.found >= 3 and built.store.meta.num_documents == 20_400 and built.store.meta.num_quarantined == 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://raw/none", "s3://raw/none: does not exist; name a file, or a folder that holds some"),
        ("s3://none/none", "s3://none/none: does not exist; name a file, or a folder that holds some"),
        ("s3://raw/kinds/README.md", "s3://raw/kinds/README.md: is of no known kind; it takes .jsonl"),
        ("s3://raw/kinds", "s3://raw/kinds: holds nothing to read, but 1 .md; it takes .jsonl"),
        ("nosuch://a/b", "nosuch://a/b: Protocol not known: nosuch; write a path, or a URL that fsspec knows"),
        ("https://me:secret@host/a.jsonl", "https://…@host/a.jsonl: has credentials or a query in it"),
        ("https://host/a.jsonl?X-Amz-Signature=secret", "https://host/a.jsonl?…: has credentials or a query in it"),
    ],
)
def test_what_cannot_be_read_is_one_line(bucket: Bucket, path: str, message: str) -> None:
    bucket.client.put_object(Bucket="raw", Key="kinds/README.md", Body=b"not data")
    with pytest.raises(StoreError) as caught:
        plan_units([path])
    assert str(caught.value).startswith(message) and "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_no_fault_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InterruptedBuildError, match=r"http://127\.0\.0\.1:9/a\.jsonl: cannot be reached: .*run it again"
    ):
        plan_units(["http://127.0.0.1:9/a.jsonl"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({}, "Unable to locate credentials"),
        ({"AWS_ACCESS_KEY_ID": "id"}, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "none"}, r"The config profile \(none\) could not be found"),
    ],
)
def test_missing_credentials_are_no_fault_of_the_wire(tmp_path: Path, setting: dict[str, str], message: str) -> None:
    settings = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    code = "from xgen.data.units import plan_units; plan_units(['s3://raw/web'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=settings | setting, capture_output=True, text=True, timeout=60
    )
    said = rf"xgen\.data\.errors\.StoreError: s3://raw/web: may not be read: {message}; check who may read it"
    assert re.match(said, done.stderr.splitlines()[-1])


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None; from xgen.data.units import plan_units; plan_units(['s3://raw/web'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("s3://raw/web: needs the package s3fs; pip install 'xgen[s3]'")


def test_a_file_is_read_over_http(server: Server, tmp_path: Path, tokenizer: Path) -> None:
    url = f"{server.address}/files/data/train-00000.jsonl"
    [file] = plan_units([url]).files
    assert (file.size, file.mark) == (len(server.files["data/train-00000.jsonl"]), "1")
    assert build(tmp_path / "store", url, tokenizer, workers=2).store.meta.num_documents == 20_000
    server.breaks_after = 1000
    with pytest.raises(InterruptedBuildError, match=r"train-00000\.jsonl: broke off at byte 0 of"):
        read(url)
    with pytest.raises(StoreError, match=r"/files/none\.jsonl: does not exist"):
        plan_units([f"{server.address}/files/none.jsonl"])


def test_any_file_system_of_fsspec_is_read(tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/web/sub/a.jsonl.gz", gzip.compress(b'{"text": "in memory"}\n'))
    [found] = read("memory://web")
    assert found.text == "in memory" and found.file == "memory:///web/sub/a.jsonl.gz"
    (tmp_path / "a.jsonl").write_text('{"text": "here"}\n')
    [here] = read(f"file://{tmp_path}/a.jsonl")
    assert here.file == str(tmp_path / "a.jsonl")
    with open_input("memory://web/sub/a.jsonl.gz") as file:
        assert (file.seek(2), file.read(1), file.tell(), file.seek(0, 2)) == (2, b"\x08", 3, file.tell())
        assert file.read() == b"" and file.readable() and file.seekable()


def test_collections_are_called_by_the_last_part_of_their_place() -> None:
    names = ("s3://bucket/raw/web/", "hf:org/web:train", "/raw/web.jsonl.zst", "file:///raw/web", "s3://web", "web")
    assert {stem(name) for name in names} == {"web"}
