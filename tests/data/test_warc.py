"""Archives of the web: whatever is broken in one is named and counted, and what lies beside it is read."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.data.archives import MODULES, page, pages, record, response, write
from tests.data.test_ingest import build, texts
from xgen.data import StoreError, TokenStore
from xgen.data.pages import UnusableError, text_of
from xgen.data.readers import Bad, Defaults, Keys, Record, read_unit
from xgen.data.units import plan_units
from xgen.data.warc import read_warc

SUFFIXES = (".warc", ".warc.gz", ".warc.zst")
FLAT = b"<html><body><p>" + b"A sentence of a page, and one more. " * 40 + b"</p></body></html>"


def names(path: Path) -> list[str]:
    """The module of each document, and the kind of what could not be read."""
    found = [document for _, document in read_warc(str(path))]
    return [one.partition(":")[0] if isinstance(one, str) else one["id"].removeprefix("urn:uuid:") for one in found]


@pytest.fixture(scope="module")
def records() -> list[bytes]:
    return pages()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_page_becomes_its_text_with_id_and_url(records: list[bytes], tmp_path: Path, suffix: str) -> None:
    found = dict(read_warc(str(write(tmp_path / f"a{suffix}", records))))
    assert list(found) == list(range(1, len(MODULES) + 1))
    for number, name in enumerate(MODULES, start=1):
        document = found[number]
        assert isinstance(document, dict)
        assert (document["id"], document["url"]) == (f"urn:uuid:{name}", f"https://docs.example/{name}")
    json_page = found[1]
    assert isinstance(json_page, dict)
    words = " ".join(json_page["text"].split())
    assert "JSON (JavaScript Object Notation) <https://json.org> is a subset of JavaScript syntax" in words
    assert "<td" not in words and "&nbsp;" not in words


def test_an_archive_that_fastwarc_wrote_gives_the_same(records: list[bytes], tmp_path: Path) -> None:
    from fastwarc.warc import WarcRecord, WarcRecordType

    def member(kind: object, name: str, block: bytes) -> bytes:
        made, out = WarcRecord(), io.BytesIO()
        made.init_headers(kind)
        made.headers["WARC-Target-URI"] = f"https://docs.example/{name}"
        made.headers["Content-Type"] = "application/http"
        made.set_bytes_content(block)
        made.write(out, checksum_data=True)
        return gzip.compress(out.getvalue())

    members = [member(WarcRecordType.warcinfo, "", b"software: a test\r\n")]
    for name in MODULES:
        members.append(member(WarcRecordType.request, name, b"GET / HTTP/1.1\r\n\r\n"))
        members.append(member(WarcRecordType.response, name, response(page(name))))
        members.append(member(WarcRecordType.metadata, name, b"fetchTimeMs: 12\r\n"))
    (tmp_path / "theirs.warc.gz").write_bytes(b"".join(members))
    theirs = dict(read_warc(str(tmp_path / "theirs.warc.gz")))
    ours = dict(read_warc(str(write(tmp_path / "ours.warc.gz", records))))
    assert list(theirs) == [3 * n + 3 for n in range(len(MODULES))]  # the others are the crawl's own notes
    assert [one["text"] for one in theirs.values() if isinstance(one, dict)] == [
        one["text"] for one in ours.values() if isinstance(one, dict)
    ]


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (record("x", response(b"\x89PNG", "image/png")), "is not HTML"),
        (record("x", response(FLAT, "")), "is not HTML"),
        (record("x", response(FLAT, status="404 Not Found")), "is not an HTTP response of success"),
        (record("x", response(FLAT, status="301 Moved", Location="/")), "is not an HTTP response of success"),
        (record("x", b"nothing that HTTP knows"), "is no HTTP response"),
        (record("x", b""), "is no HTTP response"),
        (record("x", response(FLAT), kind="revisit"), "is a revisit record, which holds no page"),
        (record("x", response(b"<div>" * 5000 + b"deep")), "nests too deep"),
        (record("x", response(b"<div>" * 1000 + b"<p>x</p>" * 20_000)), "nests too deep"),
        (record("x", response(b"<div>" * 100 + b"<p>x</p><hr>" * 20_000)), None),
        (record("x", response(b"<div>x</div>" * 20_000)), None),
        (record("x", response(b"<script>a='<div>'</script><!-- <div> -->" * 20_000 + FLAT)), None),
        (record("x", response(b"<div " + b"a=1 " * 5000 + b">wide")), "has a tag of too many attributes"),
        (record("x", response(b"<div " + b'a="x>y" ' * 5000 + b">wide")), "has a tag of too many attributes"),
        (record("x", response(b"<div a='" + b"<a> " * 5000 + b"'>not wide</div>")), None),
        (record("x", response(gzip.compress(FLAT)[:-30], Content_Encoding="gzip")), "has a body that ends inside"),
        (record("x", response(b"50\r\nshort", Transfer_Encoding="chunked")), "has a body that ends inside its chunks"),
        (record("x", response(b"\xff\xff", Content_Encoding="br")), "has a body that does not decompress"),
        (record("x", response(FLAT, Content_Encoding="lzma")), None),
        (record("x", response(b"\x00", Content_Encoding="lzma")), "has a body that does not decompress"),
        (record("x", FLAT, "resource", "text/html"), None),
        (record("x", b"Plain text.", "conversion", "text/plain"), None),
        (record("x", b"{}", "conversion", "application/json"), "is not HTML"),
    ],
)
def test_a_record_that_is_no_page_is_named_and_its_neighbours_are_read(
    records: list[bytes], tmp_path: Path, broken: bytes, kind: str | None
) -> None:
    found = names(write(tmp_path / "a.warc.gz", [records[0], broken, records[1]]))
    assert found[0] == "json" and found[2] == "textwrap" and len(found) == 3
    assert found[1] == "x" if kind is None else found[1].startswith(kind)


@pytest.mark.parametrize(
    "coding",
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
        ("identity", bytes),
        ("gzip", bytes),  # a crawler that has decompressed it leaves the header as it was
        ("br, gzip", lambda body: gzip.compress(brotli.compress(body))),
    ],
)
@pytest.mark.parametrize("chunked", [False, True, "in name only"])
def test_bodies_are_decoded_as_http_says(
    tmp_path: Path, coding: tuple[str, Callable[[bytes], bytes]], chunked: bool | str
) -> None:
    body = coding[1](FLAT)
    headers = {"Content_Encoding": coding[0]} | ({"Transfer_Encoding": "chunked"} if chunked else {})
    if chunked is True:
        cuts = [body[place : place + 100] for place in range(0, len(body), 100)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(cut), cut) for cut in cuts) + b"0\r\n\r\n"
    [(_, document)] = read_warc(str(write(tmp_path / "a.warc", [record("x", response(body, **headers))])))
    assert isinstance(document, dict) and document["text"].startswith("A sentence of a page, and one more.")


def test_a_page_that_grows_without_end_when_it_is_decompressed_is_refused(tmp_path: Path) -> None:
    flood = b"a" * (100 << 20)
    for coding, body in (
        ("gzip", gzip.compress(flood, 1)),
        ("br", brotli.compress(flood, quality=1)),
        ("zstd", zstandard.compress(flood)),
    ):
        packed = record("x", response(body, Content_Encoding=coding))
        assert names(write(tmp_path / "a.warc", [packed])) == ["is longer than 67,108,864 bytes"]


@pytest.mark.parametrize("suffix", [".warc.gz", ".warc.zst"])
@pytest.mark.parametrize("fault", ["flipped", "cut short", "cut short at the end", "garbage"])
def test_after_a_damaged_member_the_next_one_is_found(
    records: list[bytes], tmp_path: Path, suffix: str, fault: str
) -> None:
    path = tmp_path / f"a{suffix}"
    parts = [write(path, [one]).read_bytes() for one in records]
    at = len(parts) - 1 if fault == "cut short at the end" else 3
    hurt = bytearray(parts[at])
    if fault == "flipped":
        hurt[len(hurt) // 2] ^= 0xFF
    elif fault == "garbage":
        hurt = bytearray(b"no frame at all, but a line or two of text\n" * 3)
    else:
        del hurt[len(hurt) * 2 // 3 :]
    path.write_bytes(b"".join([*parts[:at], bytes(hurt), *parts[at + 1 :]]))
    found = names(path)
    assert found == [*MODULES[:at], "is damaged", *MODULES[at + 1 :]]
    [reason] = [what for _, what in read_warc(str(path)) if isinstance(what, str)]
    assert ("no record is found after it" in reason) == (at == len(parts) - 1)


def test_in_one_long_member_what_comes_after_the_damage_is_lost_and_said_to_be(
    records: list[bytes], tmp_path: Path
) -> None:
    whole = gzip.compress(b"".join(records))
    (tmp_path / "a.warc.gz").write_bytes(whole[: len(whole) // 2])
    *read, last = names(tmp_path / "a.warc.gz")
    assert 0 < len(read) < len(MODULES) and read == list(MODULES[: len(read)]) and last == "is damaged"


def shorter(one: bytes) -> bytes:
    return one[: len(one) // 2]


BROKEN = {
    "too long a length": (lambda one: one.replace(b"Content-Length: ", b"Content-Length: 1", 1), "is a WARC record"),
    "too short a body": (shorter, "is a WARC record of another length than it says"),
    "no length": (lambda one: one.replace(b"Content-Length: ", b"X-Length: ", 1), "is a WARC record without a length"),
    "no record": (lambda one: b"stray\r\n" + b"<p>\r\n" * len(one), "is no WARC record"),
    "endless header": (lambda one: one[:90] + b"a" * 70_000 + one[90:], "is a WARC record without a length"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_record_with_a_broken_frame_is_one_fault_and_the_next_is_found(
    records: list[bytes], tmp_path: Path, how: str, suffix: str
) -> None:
    hurt, kind = BROKEN[how]
    changed = [*records[:2], hurt(records[2]) + b"\r\n", *records[3:]]
    found = names(write(tmp_path / f"a{suffix}", changed))
    assert found[:2] == list(MODULES[:2]) and found[3:] == list(MODULES[3:])
    assert found[2].startswith(kind)


def test_a_file_that_ends_inside_a_record_says_so(records: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(records)[:-100])
    assert names(path) == [*MODULES[:-1], "is a WARC record that the file ends inside of"]


def test_records_are_the_same_however_the_bytes_come(
    records: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [records[0], b"stray\n", records[1][:300], *records[2:]]
    whole = list(read_warc(str(write(tmp_path / "a.warc", broken))))
    for size in (1, 7, 1000):
        monkeypatch.setattr("xgen.data.inflate.READ_BYTES", size)
        assert list(read_warc(str(tmp_path / "a.warc"))) == whole
        if size == 1:
            continue  # a frame is not decompressed byte by byte in a blink
        packed = write(tmp_path / "b.warc.gz", broken)
        assert list(read_warc(str(packed))) == whole


@given(st.data())
def test_no_bytes_at_all_make_reading_fail(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("fuzz") / data.draw(st.sampled_from(["a.warc", "a.warc.gz", "a.warc.zst"]))
    small = [record("a", response(FLAT)), record("b", response(gzip.compress(FLAT), Content_Encoding="gzip"))]
    raw = bytearray(write(path, small * 2).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=30))
    path.write_bytes(bytes(raw))
    for number, found in read_warc(str(path)):
        assert number > 0 and isinstance(found if isinstance(found, str) else found["text"], str)


def test_a_dictionary_at_the_head_of_a_zstd_archive_is_used(records: list[bytes], tmp_path: Path) -> None:
    samples = [one[place : place + 400] for one in records for place in range(0, len(one), 400)]
    trained = zstandard.train_dictionary(4096, samples)
    frames = [zstandard.ZstdCompressor(dict_data=trained).compress(one) for one in records]
    for kept in (trained.as_bytes(), zstandard.compress(trained.as_bytes())):
        head = struct.pack("<II", 0x184D2A5D, len(kept)) + kept
        (tmp_path / "a.warc.zst").write_bytes(head + b"".join(frames))
        assert names(tmp_path / "a.warc.zst") == list(MODULES)


def test_text_is_decoded_as_the_server_or_the_page_says() -> None:
    said = "<html><body><p>Grüße aus Köln, schöne Straße und viele Wörter mehr.</p></body></html>"
    assert "schöne Straße" in text_of(said.encode("latin-1"), "iso-8859-1")
    meta = said.replace("<body>", '<head><meta charset="utf-8"></head><body>')
    assert "schöne Straße" in text_of(meta.encode())
    assert "sch\ufffdne" in text_of(said.encode("latin-1"), "utf-8")
    assert text_of(b"") == text_of(b"<script>x()</script>") == ""
    with pytest.raises(UnusableError, match="nests too deep: 5,000"):
        text_of(b"<DIV>" * 5000)


def test_a_folder_of_archives_and_pages_becomes_a_store_and_a_list_of_what_is_not_in_it(
    records: list[bytes], tmp_path: Path, store: TokenStore
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.warc.gz", [*records[:3], record("png", response(b"\x89PNG", "image/png"))])
    write(folder / "b.warc.gz", [record("note", b"software: x\r\n", "warcinfo", "application/warc-fields")])
    (folder / "c.html").write_bytes(page("difflib"))
    (folder / "d.html.gz").write_bytes(gzip.compress(page("string"))[:-9])
    (folder / "e.htm").write_bytes(b"<html><body><script>nothing</script></body></html>")
    (folder / "f.warc.wet.gz").write_bytes(gzip.compress(record("wet", b"Text of a page.", "conversion", "text/plain")))
    tokenizer = store.path / "tokenizer.json"
    with pytest.raises(StoreError, match=r"a\.warc\.gz: line 4: is not HTML: image/png; .*--on-bad-record quarantine"):
        build(tmp_path / "stopped", folder, tokenizer)
    keys = Keys("body", id="number")  # of other inputs: pages have names of their own
    built = build(tmp_path / "store", folder, tokenizer, on_bad_record="quarantine", keys=keys).store
    assert [text.split(None, 1)[0] for text in texts(built)] == [*MODULES[:3], "difflib", "Text"]
    entries = map(json.loads, (built.path / "quarantine.jsonl").read_text().splitlines())
    assert [(Path(entry["file"]).name, entry["line"], entry["reason"]) for entry in entries] == [
        ("a.warc.gz", 4, "is not HTML: image/png"),
        ("b.warc.gz", 0, "holds no record"),
        ("d.html.gz", 0, "is damaged: the file ends inside a frame"),
        ("e.htm", 0, "has no text"),
    ]


def test_what_has_no_text_is_no_document(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in ("", " \n\t\u3000", "a")))
    [unit] = plan_units([str(file)]).units
    first, second, third = read_unit(unit, Keys(), Defaults("web", "crawl"))
    assert first == Bad(str(file), 1, "has no text") and second == Bad(str(file), 2, "has no text")
    assert isinstance(third, Record) and third.text == "a"
