"""From seeds to a model on disk: planted spam of another making is found, real text is kept."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.data.curate.classify.spam import SPAM, halves, real_texts, sections, spam
from xgen.data.curate.classify.figures import figures
from xgen.data.curate.classify.model import Model, load_classifier, log_odds, probabilities, read_model
from xgen.data.curate.classify.train import Recipe, Stage, train
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError


@dataclass(frozen=True)
class Half:
    real: list[str]
    spam: list[tuple[str, str]]

    @property
    def texts(self) -> Texts:
        return Texts.of([*self.real, *(text for _, text in self.spam)])

    @property
    def truth(self) -> np.ndarray:
        return np.repeat([0, 1], [len(self.real), len(self.spam)])


@pytest.fixture(scope="module")
def both() -> tuple[Half, Half]:
    """To train on, and of other documents, products, places and sentences, to try it on."""
    real = [halves(texts) for texts in real_texts().values()]
    found = []
    for half, count in ((0, 5600), (1, 1400)):
        texts = sections([text for domain in real for text in domain[half]])
        found.append(Half(texts, spam(count, half, texts)))
    return found[0], found[1]


def seeds(half: Half) -> dict[str, list[str]]:
    return {"good": half.real, "bad": [text for _, text in half.spam]}


@pytest.fixture(scope="module", params=["fast", pytest.param("ensemble", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest, both: tuple[Half, Half], tmp_path_factory: pytest.TempPathFactory) -> Model:
    stage: Stage = request.param
    out = tmp_path_factory.mktemp("model") / stage
    train(out, seeds(both[0]), Recipe(stage=stage), sample=both[1].real)
    return read_model(out)


def test_spam_goes_and_real_text_stays_on_the_other_half(model: Model, both: tuple[Half, Half]) -> None:
    other = both[1]
    scores = log_odds(model.logits(other.texts))
    real, unwanted = scores[other.truth == 0], scores[other.truth == 1]
    gone = unwanted < np.quantile(real, 0.02)
    by_kind = {kind: gone[[name == kind for name, _ in other.spam]].mean() for kind in SPAM}
    assert gone.mean() >= 0.98, by_kind  # where exactly 0.98 of real text stays
    assert min(by_kind.values()) >= 0.95, by_kind  # 200 documents each
    # The model's own bound is of a few hundred documents and errs on the side of keeping: 10 trainings on other splits
    # and halves kept 0.984 to 0.995 and rejected 0.968 to 0.989.
    bound = next(cut.log_odds for cut in model.meta.cuts if cut.wanted == 0.98)
    assert (real >= bound).mean() >= 0.98
    assert (unwanted < bound).mean() >= 0.95


def test_probabilities_mean_what_they_say_on_the_other_half(model: Model, both: tuple[Half, Half]) -> None:
    found = figures(model.logits(both[1].texts), both[1].truth, model.labels)
    assert found.ece < 0.02
    assert found.auc > 0.998
    assert abs(found.log_loss - model.meta.figures.log_loss) < 0.03  # its own are of a fifth as many documents


def test_the_bands_are_those_of_the_sample(model: Model, both: tuple[Half, Half]) -> None:
    assert len(model.meta.bands) == 9
    texts = Texts.of(both[1].real)
    scores = log_odds(model.logits(texts))
    bands = np.searchsorted(model.meta.bands, scores, side="right")
    assert np.bincount(bands, np.diff(texts.offsets), 10) / texts.num_bytes == pytest.approx(np.full(10, 0.1), abs=0.02)


def test_an_ensemble_is_at_least_as_good_as_its_members(model: Model) -> None:
    assert model.meta.figures.log_loss <= min(member.figures.log_loss for member in model.meta.members) + 0.002


@pytest.fixture(scope="module")
def few() -> dict[str, list[str]]:
    texts = {name: sections(found, most=1)[:80] for name, found in real_texts().items()}
    assert all(len(found) == 80 for found in texts.values())
    return texts


def test_a_domain_model_is_the_same_bytes_whatever_the_order(few: dict[str, list[str]], tmp_path: Path) -> None:
    mixed = {name: random.Random(1).sample(texts, len(texts)) for name, texts in few.items()}
    one, other = (train(tmp_path / name, given, Recipe("domain")) for name, given in (("a", few), ("b", mixed)))
    for file in ("model.json", "weights.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    third = train(tmp_path / "c", few, Recipe("domain", seed=1))
    assert one.fingerprint == other.fingerprint != third.fingerprint
    assert one.labels == ("code", "reference", "literature")
    guesses = probabilities(
        load_classifier(tmp_path / "a").logits(Texts.of(["import os\n\ndef f(x):\n    return x"] * 2))
    )
    assert guesses.shape == (2, 3)
    assert guesses.argmax(axis=1).tolist() == [0, 0]
    assert one.meta.figures.accuracy > 0.85


def test_copies_and_texts_of_two_labels_are_left_out_and_counted(few: dict[str, list[str]], tmp_path: Path) -> None:
    code, plays = few["code"], few["literature"]
    given = {"good": [*plays, *plays[:5], code[0]], "bad": [*code, code[0], code[1]]}
    found = train(tmp_path / "model", given, Recipe()).meta.seeds
    assert (found["good"].documents, found["good"].duplicates, found["good"].ambiguous) == (86, 5, 1)
    assert (found["bad"].documents, found["bad"].duplicates, found["bad"].ambiguous) == (82, 1, 2)
    for label, unique in (("good", 80), ("bad", 79)):
        assert found[label].trained + found[label].calibrated + found[label].held_out == unique


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ({"good": 80, "bed": 80}, "quality", "labels: good, bed: a quality model has good and bad; name these"),
        ({"web": 80}, "domain", "labels: a classifier tells apart two or more; name another one"),
        ({"good": 80, "bad": 7}, "quality", "label bad: has 7 different documents, and a label needs 50"),
    ],
)
def test_seeds_that_cannot_do_are_named(labels: dict[str, int], kind: str, message: str, tmp_path: Path) -> None:
    given = {name: [f"{name} {number}" for number in range(count)] for name, count in labels.items()}
    with pytest.raises(StoreError) as error:
        train(tmp_path / "model", given, Recipe(kind))  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
    assert not (tmp_path / "model").exists()


def test_a_model_that_was_changed_is_refused(few: dict[str, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "model"
    model = train(out, {"a": few["code"], "b": few["literature"]}, Recipe("domain", stage="ensemble"))
    texts = Texts.of(few["reference"])
    assert np.array_equal(read_model(out).logits(texts), model.logits(texts))
    weights = bytearray((out / "weights.npz").read_bytes())
    weights[len(weights) // 2] ^= 1
    (out / "weights.npz").write_bytes(weights)
    with pytest.raises(StoreError, match="is not the file that the model was written with"):
        read_model(out)
    (out / "model.json").write_text('{"version": 1}')
    with pytest.raises(StoreError, match="kind: Field required"):
        read_model(out)
    (out / "model.json").unlink()
    with pytest.raises(StoreError, match=r"is no classifier: it has no model\.json"):
        read_model(out)


def test_prediction_is_fast_enough_for_everything(both: tuple[Half, Half], model: Model) -> None:
    """A bound that only a kernel that went wrong misses; the figures of the machine at hand are the benchmark's."""
    texts = both[1].texts
    model.logits(texts)
    began = time.process_time()
    model.logits(texts)
    assert texts.num_bytes / (time.process_time() - began) > (8e6 if model.meta.recipe["stage"] == "fast" else 3e6)
