import math

import numpy as np
import pytest

from xgen.data.curate.filters.chain import run
from xgen.data.curate.filters.language import LanguageFilter, NaiveBayes
from xgen.data.curate.filters.thresholds import Language
from xgen.data.curate.filters.trace import Batch
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError

langid = pytest.importorskip("py3langid.langid")
SENTENCES = {
    "en": "The river was low that year, and people had walked out to look at the bridge.",
    "de": "Der Fluss war niedrig in jenem Jahr, und die Leute gingen hinaus, um die Br\u00fccke zu sehen.",
    "fr": "Le fleuve \u00e9tait bas cette ann\u00e9e-l\u00e0, et les gens sortaient pour regarder le pont.",
    "es": "El r\u00edo estaba bajo aquel a\u00f1o y la gente sal\u00eda a mirar el puente.",
    "ru": "\u0420\u0435\u043a\u0430 \u0432 \u0442\u043e\u043c "
    "\u0433\u043e\u0434\u0443 \u0431\u044b\u043b\u0430 \u043c\u0435\u043b\u043a\u043e\u0439.",
    "ja": "\u305d\u306e\u5e74\u3001\u5ddd\u306e\u6c34\u306f\u5c11\u306a\u304b\u3063\u305f\u3002",
}  # fmt: skip


def test_languages_are_told_and_the_others_go() -> None:
    passage = run([LanguageFilter.open(Language(languages=("en", "fr")))], Batch(Texts.of(list(SENTENCES.values()))))
    assert passage.labels["language.language"].tolist() == list(SENTENCES)
    assert passage.kept.tolist() == [code in ("en", "fr") for code in SENTENCES]
    assert passage.why(1) == "language.languages: wanted = 0 < 1"
    assert (passage.measures["language.score"] > 0.7).all()


def test_the_kernel_scores_as_the_package() -> None:
    theirs = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    texts = [*SENTENCES.values(), SENTENCES["en"].upper(), " ".join(SENTENCES.values()), "x = y[1]", "ok", "a" * 5000]
    trace = LanguageFilter.open(Language()).check(Batch(Texts.of(texts)))
    for number, text in enumerate(texts):
        label, score = theirs.classify(text)
        assert trace.labels["language"][number] == (label if score * len(set(theirs.nb_classes)) > 3 else "und")
        assert trace.measures["score"][number] == pytest.approx(score, abs=0.02)  # it sums in half precision


def test_what_says_nothing_has_no_language() -> None:
    trace = LanguageFilter.open(Language()).check(Batch(Texts.of(["", "\u2603"])))
    assert trace.labels["language"].tolist() == ["und", "und"]
    assert not trace.kept.any()


def test_only_the_beginning_counts() -> None:
    text = SENTENCES["de"] + (" " + SENTENCES["en"]) * 50
    labels = [
        LanguageFilter.open(Language(sample_bytes=size))
        .check(Batch(Texts.of([text, "\u00e9" * 40])))
        .labels["language"][0]
        for size in (81, 8192)
    ]
    assert labels == ["de", "en"]


def test_two_scripts_of_a_language_are_one_label() -> None:
    model = NaiveBayes.open()
    doubled = [label for label in set(model.labels) if model.labels.count(label) > 1]
    logits = model.logits(Texts.of([SENTENCES["en"]]))
    for label in doubled:
        columns = [number for number, name in enumerate(model.labels) if name == label]
        assert math.isfinite(logits[0, columns[0]])
        assert np.isneginf(logits[0, columns[1:]]).all()
    assert doubled


def test_a_language_that_the_model_does_not_know_is_named() -> None:
    with pytest.raises(StoreError, match="does not know klingon"):
        LanguageFilter.open(Language(languages=("en", "klingon")))
    with pytest.raises(StoreError, match="does not exist"):
        LanguageFilter.open(Language(model="no/such.bin"))
