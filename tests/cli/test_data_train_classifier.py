"""`xgen data train-classifier` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import xgen
from tests.data.curate.classify.spam import real_texts, sections, spam


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    real = [text for texts in real_texts().values() for text in sections(texts, most=1)][:300]
    for name, texts in (("good", real), ("bad", [text for _, text in spam(300, 0, real)])):
        lines = [json.dumps({"body": text}) for text in [*texts, texts[0]]]
        (folder / f"{name}.jsonl").write_text("\n".join([*lines, '{"body": 7}', "{"]))
    return folder


def call(folder: Path, out: str, *more: str, bad: str = "bad") -> tuple[int, str, str]:
    labels = ("--label", f"good={folder}/good.jsonl", "--label", f"{bad}={folder}/bad.jsonl", "--text-key", "body")
    done = xgen("data", "train-classifier", str(folder / out), *labels, *more, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_it_says_how_good_the_model_is_and_what_was_not_read(folder: Path) -> None:
    code, out, err = call(folder, "model", "--sample", f"{folder}/good.jsonl")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{folder}/model  fingerprint ")
    good, bad = (line.split() for line in lines[2:4])
    assert good[:4] == ["good", "301", "1", "30"]
    assert bad[:4] == ["bad", "301", "1", "30"]
    found = json.loads((folder / "model/model.json").read_text())["figures"]
    assert lines[4].startswith(f"  on 60 held-out documents: accuracy {found['accuracy']:.3f}, log loss ")
    assert found["auc"] > 0.9  # of 300 documents a label
    assert out.count("of good stays") == 3
    assert "not read: 3  has 'body' that is not text" in out
    assert "not read: 3  is no JSON" in out


def test_json_holds_the_figures_and_the_same_seeds_give_the_same_bytes(folder: Path) -> None:
    code, out, _ = call(folder, "again", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["figures"]["auc"] > 0.9
    assert facts["seeds"]["good"]["duplicates"] == 1
    assert facts["not_read"]["is no JSON"] == 2
    first = json.loads((folder / "again/model.json").read_text())
    call(folder, "third")
    assert json.loads((folder / "third/model.json").read_text()) == first
    assert (folder / "third/weights.npz").read_bytes() == (folder / "again/weights.npz").read_bytes()


@pytest.mark.parametrize(
    ("more", "bad", "message"),
    [
        (("--kind", "taste"), "bad", "--kind 'taste' is not known; write quality or domain"),
        (("--stage", "slow"), "bad", "--stage 'slow' is not known; write fast or ensemble"),
        ((), "evil", "labels: good, evil: a quality model has good and bad; name these"),
        (("--label", "x"), "bad", "--label 'x' names no label and path; write --label NAME=PATH"),
        (("--label", "bad=/none"), "bad", "/none: does not exist; name a file, a folder, a URL, or hf:NAME"),
        (("--kind", "domain", "--sample", "x"), "bad", "--sample gives quality bands, and a domain model has none"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder: Path, more: tuple[str, ...], bad: str, message: str) -> None:
    code, out, err = call(folder, "none", *more, bad=bad)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(message)
    assert not (folder / "none").exists()
