"""What a step learns from its answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.posttrain.rl.conftest import rl_job
from xgen.posttrain.rl.answers import Answer, Group, Judged, digest
from xgen.posttrain.rl.learning import advantages, learnt, pieces


def judged(reward: float | None, **parts: float | None) -> Judged:
    return Judged(reward, parts or {"math": reward}, {} if reward is not None else {"math": "timeout"}, 0.0)


def answer(of: Judged, length: int = 3, cut: bool = False) -> Answer:
    tokens = np.arange(length, dtype=np.int32)
    return Answer(tokens, np.zeros(length, np.float32), "length" if cut else "stop", ((0, length),), of)


def group(*rewards: float | None, number: int = 0, cut: int = -1) -> Group:
    answers = (answer(judged(reward), cut=place == cut) for place, reward in enumerate(rewards))
    return Group(number, "sums", tuple(answers))


def test_an_answer_is_held_against_the_mean_of_its_group() -> None:
    found = advantages(rl_job(loss={"scale": False}), [group(1.0, 0.0, 0.0, 1.0), group(1.0, 1.0, 1.0, 1.0)])
    assert found.tolist() == [[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0]]


def test_an_answer_without_a_verdict_is_no_part_of_the_mean_and_does_not_train() -> None:
    job, own = rl_job(loss={"scale": False}), group(1.0, None, 0.0, 1.0)
    found = advantages(job, [own])
    assert found[0, [0, 2, 3]].tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    assert math.isnan(found[0, 1])
    prompt = np.zeros(2, np.int32)
    assert [len(piece) for piece in pieces([own], found, lambda _: prompt)] == [5, 5, 5]


def test_a_cut_answer_counts_in_the_mean_and_does_not_train_where_it_is_filtered() -> None:
    own = group(1.0, 0.0, 0.0, 1.0, cut=1)
    plain = advantages(rl_job(loss={"scale": False}), [own])
    filtered = advantages(rl_job(loss={"scale": False}, overlong={"filter": True}), [own])
    assert math.isnan(filtered[0, 1])
    assert filtered[0, [0, 2, 3]].tolist() == plain[0, [0, 2, 3]].tolist()


@pytest.mark.parametrize("filtered", [False, True])
def test_a_step_of_which_nothing_is_to_be_learnt_learns_nothing(filtered: bool) -> None:
    job = rl_job(dynamic_sampling=True, overlong={"filter": filtered})
    groups = learnt(job, [group(1.0, 1.0, 1.0, 1.0), group(0.0, 0.0, None, 0.0)])
    assert groups == []
    found = advantages(job, groups)
    assert found.shape == (0, 4)
    assert pieces(groups, found, lambda _: np.zeros(2, np.int32)) == []


def test_right_is_what_the_rewards_that_can_tell_say() -> None:
    assert judged(0.4, math=1.0, length=-0.6).passed
    assert not judged(1.5, **{"math": 1.0, "code#2": 0.5}).passed
    assert judged(0.3, model=0.3).passed
    assert not judged(0.0, function=0.0).passed
    assert judged(None, math=1.0, model=None).passed is None


def test_a_group_teaches_where_its_answers_differ_in_what_can_be_told_of_them() -> None:
    def of(*verdicts: Judged) -> Group:
        return Group(0, "sums", tuple(map(answer, verdicts)))

    assert of(judged(1.0, math=1.0), judged(0.0, math=0.0)).teaches
    assert not of(judged(0.9, math=1.0, length=-0.1), judged(0.5, math=1.0, length=-0.5)).teaches
    assert not of(judged(1.0, math=1.0), judged(None, math=None)).teaches
    assert of(judged(0.2, model=0.2), judged(0.3, model=0.3)).teaches
    assert not of(judged(0.3, model=0.3), judged(0.3, model=0.3)).teaches


def test_the_digest_knows_repeats_and_changes_and_no_order() -> None:
    one, other = group(1.0, 0.0, number=1), group(1.0, 0.0, number=2)
    assert digest([one, other]) == digest([other, one])
    assert len({digest(groups) for groups in ([one], [other], [one, one], [one, other], [])}) == 5
