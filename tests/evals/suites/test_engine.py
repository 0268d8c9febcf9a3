"""Suites through the engine of xgen: answers and losses are those of the model's own forward pass, in any company."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from tests.engine.conftest import _one_thread
from tests.evals.suites.readers import ScriptedSubject, job
from tests.evals.suites.test_perplexity import texts, write
from tests.model.parity import SMALL, titan, titan_logits
from xgen.engine.inprocess import InProcessEngine
from xgen.evals.model import EngineModel
from xgen.evals.protocol import Record
from xgen.evals.suites import suites_of
from xgen.evals.suites.answers import digest_of
from xgen.evals.suites.generated import Generated
from xgen.evals.suites.perplexity import PerplexitySuite
from xgen.spec import ModelSpec

SEQ_LEN = 512
__all__ = ["_one_thread"]


@dataclass
class EngineSubject(ScriptedSubject):
    def __post_init__(self) -> None:
        spec = ModelSpec(**SMALL | {"vocab_size": self.tokenizer.get_vocab_size()})
        self.trained = titan(spec, SEQ_LEN)
        self.engine = InProcessEngine(spec, SEQ_LEN, 1e4, at_once=4)
        self.engine.load(0, self.trained.state_dict().items())

    def model(self) -> EngineModel:
        return EngineModel(self.engine, at_once=4)

    def logits(self, ids: list[int]) -> torch.Tensor:
        return titan_logits(self.trained, torch.tensor([ids]))[0]


@pytest.fixture(scope="module")
def subject(tokenizer: tokenizers.Tokenizer) -> EngineSubject:
    return EngineSubject(tokenizer)


def scored(subject: EngineSubject, cache: Path, suites: dict[str, Any], part: slice = slice(None)) -> list[Record]:
    found: list[Record] = []
    for suite in suites_of(job(**suites), subject, cache):
        found += suite.score(subject, suite.items()[part], lambda: False)
    return found


def test_answers_are_greedy_and_the_same_in_any_company(subject: EngineSubject, cache: Path) -> None:
    suites: dict[str, Any] = {
        "ruler": {"tasks": ["niah_single_1"], "lengths": [384, 512], "samples": 3},
        "needles": {"lengths": [256], "depths": 3, "samples": 2},
        "recall": {"lengths": [400], "samples": 2},
    }
    whole = {record.item: record for record in scored(subject, cache, suites)}
    assert len(whole) == 6 + 6 + 2 and len({record.digest for record in whole.values()}) == 14
    for shard in range(2):
        for record in scored(subject, cache, suites, slice(shard, None, 2)):
            expected = whole[record.item]
            assert (record.answer, record.score, record.digest) == (expected.answer, expected.score, expected.digest)
    assert all(record.tokens < record.length and record.seconds > 0 for record in whole.values())
    for suite in suites_of(job(**suites), subject, cache):
        first = suite.items()[0]
        assert isinstance(suite, Generated)
        [asked] = suite._asked([first])
        ids = list(asked.ids)
        assert whole[first].digest == digest_of(ids)
        for _ in range(4):
            ids.append(int(subject.logits(ids)[-1].argmax()))
        answer = subject.tokenizer.decode(ids[len(asked.ids) :])
        assert "\ufffd" in answer or whole[first].answer.startswith(answer)


def test_perplexity_is_that_of_the_forward_pass(subject: EngineSubject, tmp_path: Path) -> None:
    path = write(tmp_path / "held-out.jsonl", texts([1500, 1800, 2000]))
    of: dict[str, Any] = {"perplexity": {"books": {"path": str(path), "length": 300}}}
    records = scored(subject, tmp_path, of)
    [suite] = suites_of(job(**of), subject, tmp_path)
    assert len(records) == 3 and isinstance(suite, PerplexitySuite)
    for record in records:
        ids = suite._documents["books"][record.index].tolist()
        logprobs = torch.log_softmax(subject.logits(ids[:-1]).double(), -1)
        losses = -logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
        assert record.score == pytest.approx(float(np.mean(losses)), abs=1e-4)
        assert record.bins[0][:2] == (0, 63) and record.bins[0][2] == pytest.approx(losses[:63].sum(), abs=1e-2)
        assert record.bins[-1][2] == pytest.approx(float(losses[-record.bins[-1][1] :].sum()), abs=1e-2)
