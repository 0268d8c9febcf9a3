"""fastText's models, where fasttext is installed, and what is said where it is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.data.curate.classify.spam import real_texts
from xgen.data.curate.classify.model import load_classifier, probabilities
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError

HERE = importlib.util.find_spec("fasttext") is not None


@pytest.mark.skipif(HERE, reason="fasttext is installed")
def test_without_fasttext_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "lid.bin").write_bytes(b"x")
    with pytest.raises(StoreError, match="fasttext is not installed; run pip install fasttext-numpy2-wheel"):
        load_classifier(tmp_path / "lid.bin")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"lid\.ftz: does not exist"):
        load_classifier(tmp_path / "lid.ftz")


@pytest.mark.skipif(not HERE, reason="fasttext is not installed")
def test_a_fasttext_model_gives_its_own_probabilities(tmp_path: Path) -> None:
    import fasttext

    real = {"bad": real_texts()["code"][:60], "good": real_texts()["literature"][:60]}
    lines = [
        f"__label__{label} {' '.join(text.split())}\n"
        for pair in zip(*real.values(), strict=True)
        for label, text in zip(real, pair, strict=True)
    ]
    (tmp_path / "train.txt").write_text("".join(lines), encoding="utf-8")
    model = fasttext.train_supervised(str(tmp_path / "train.txt"), epoch=20, thread=1, wordNgrams=2, bucket=1 << 16)
    model.save_model(str(tmp_path / "m.bin"))
    found = load_classifier(tmp_path / "m.bin", first="good")
    assert found.labels == ("good", "bad")
    texts = [real["good"][0], real["bad"][0], ""]
    shares = probabilities(found.logits(Texts.of(texts)))
    assert shares[:2].argmax(axis=1).tolist() == [0, 1]
    for row, text in zip(shares, texts, strict=True):
        own = {label: share for share, label in model.f.predict(text.replace("\n", " ") + "\n", -1, 0.0, "strict")}
        assert row == pytest.approx([own.get("__label__good", 0), own.get("__label__bad", 0)], abs=1e-4)
    with pytest.raises(StoreError, match="has no label best; name one of bad, good"):
        load_classifier(tmp_path / "m.bin", first="best")
    (tmp_path / "m.bin").write_bytes(b"no model")
    with pytest.raises(StoreError, match="cannot be read by fasttext"):
        load_classifier(tmp_path / "m.bin")
