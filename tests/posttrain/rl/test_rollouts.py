"""From prompts to groups: every answer once, none too old, whatever the pace of engine and verifiers."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.posttrain.rl.conftest import rl_job
from tests.posttrain.rl.scripted import ScriptedEngine, ScriptedJudge, ScriptedPrompts
from xgen.posttrain.rl.allotment import Allotment
from xgen.posttrain.rl.answers import digest
from xgen.posttrain.rl.desk import Desk
from xgen.posttrain.rl.journal import Journal, Key, Known
from xgen.posttrain.rl.rollouts import Collected, Rollouts, StoppedWaitingError
from xgen.spec import Rl


class Alone:
    """One rank. `stop_after`: times that it is asked."""

    rank, num = 0, 1

    def __init__(self, stop_after: int = -1) -> None:
        self._left = stop_after

    def all_done(self, done: bool) -> bool:
        self._left -= 1
        if self._left == -1:
            raise StoppedWaitingError
        return done

    def share(self, own: Any) -> list[Any]:
        return [own]


@contextmanager
def rollouts(
    job: Rl, folder: Path, engine: ScriptedEngine, judge: ScriptedJudge | None = None, background: bool = False,
    ranks: Any = None,
) -> Iterator[Rollouts]:  # fmt: skip
    desk = Desk(engine, judge or ScriptedJudge(), background)
    journal = Journal(folder / "rollouts", 0, "a")
    prompts: Any = ScriptedPrompts()
    own: Any = ranks or Alone()
    yield Rollouts(job, prompts, desk, journal, own, (0,))
    desk.close()
    journal.close()


def train(one: Rollouts, allotment: Allotment, steps: range) -> list[Collected]:
    """As the trainer does: answers, an optimizer step, weights."""
    found = []
    for step in steps:
        found.append(one.collect(step, allotment))
        allotment.done(step)
        one.desk.engine.load(step, ())
    return found


@settings(max_examples=30, deadline=None)
@given(
    staleness=st.integers(0, 3),
    seed=st.integers(0, 1000),
    dynamic=st.booleans(),
    fails=st.sampled_from([0.0, 0.2]),
    pause=st.sampled_from([0.0, 0.001]),
)
def test_no_answer_is_too_old_and_each_is_trained_on_once(
    staleness: int, seed: int, dynamic: bool, fails: float, pause: float
) -> None:
    job = rl_job(rollout__staleness=staleness, dynamic_sampling=dynamic)
    engine = ScriptedEngine(seed, pause=pause)
    allotment = Allotment(job.rollout.prompts, staleness, 8)
    with (
        tempfile.TemporaryDirectory() as folder,
        rollouts(job, Path(folder), engine, ScriptedJudge(seed, fails), background=staleness > 0) as one,
    ):
        found = train(one, allotment, range(1, 7))
    for step, collected in enumerate(found, start=1):
        assert all(group.oldest >= step - 1 - staleness for group in collected.groups)
        assert all(len(group.answers) == job.rollout.group for group in collected.groups)
        assert len(collected.rounds) <= job.max_resampled
        if dynamic and len(collected.rounds) < job.max_resampled:
            assert sum(group.teaches for group in collected.groups) == job.rollout.prompts
    trained = Counter(group.number for collected in found for group in collected.groups)
    ahead = [first + i for rounds in allotment.rounds.values() for first, count in rounds for i in range(count)]
    assert max(trained.values()) == 1
    assert sorted([*trained, *ahead]) == list(range(allotment.next_prompt))


@pytest.mark.parametrize("dynamic", [False, True])
def test_beside_the_training_with_bound_0_is_the_same_as_in_turn(tmp_path: Path, dynamic: bool) -> None:
    job = rl_job(dynamic_sampling=dynamic)
    found = []
    for background in (False, True):
        folder = tmp_path / str(background)
        folder.mkdir()
        with rollouts(job, folder, ScriptedEngine(3), ScriptedJudge(1), background) as one:
            found.append(train(one, Allotment(job.rollout.prompts, 0, 8), range(1, 6)))
    one_, other = ([(c.rounds, digest(c.groups), [g.oldest for g in c.groups]) for c in run] for run in found)
    assert one_ == other


def test_what_the_journal_has_is_not_generated_again(tmp_path: Path) -> None:
    job = rl_job(dynamic_sampling=True)
    with rollouts(job, tmp_path, ScriptedEngine(1)) as one:
        undisturbed = train(one, Allotment(4, 0, 8), range(1, 4))
    engine = ScriptedEngine(2)
    with rollouts(job, tmp_path, engine) as one:
        again = train(one, Allotment(4, 0, 8), range(1, 4))
    assert engine.asked == []
    assert [digest(c.groups) for c in again] == [digest(c.groups) for c in undisturbed]
    assert [c.rounds for c in again] == [c.rounds for c in undisturbed]


def test_only_what_an_attempt_before_has_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def read(self: Journal, step: int) -> Mapping[Key, Known]:
        asked.append(step)
        return found(self, step)

    found = Journal.read
    monkeypatch.setattr(Journal, "read", read)
    job = rl_job(rollout__staleness=1)
    with rollouts(job, tmp_path, ScriptedEngine()) as one:
        train(one, Allotment(job.rollout.prompts, 1, 4), range(1, 4))
    assert asked == []  # of every step by every rank: a million files for a thousand of them
    with rollouts(job, tmp_path, ScriptedEngine()) as one:
        train(one, Allotment(job.rollout.prompts, 1, 4), range(1, 5))
    assert asked == [1, 2, 3, 4]


def test_an_answer_that_had_begun_goes_on_after_a_stop(tmp_path: Path) -> None:
    job = rl_job()
    with rollouts(job, tmp_path, ScriptedEngine(1)) as one:
        expected = digest(train(one, Allotment(4, 0, 8), range(1, 2))[0].groups)
    folder = tmp_path / "stopped"
    folder.mkdir()
    engine = ScriptedEngine(1)
    allotment = Allotment(4, 0, 8)
    with rollouts(job, folder, engine) as one:
        for number in allotment.begin(1):
            one._ask_round(number, allotment.rounds[number][0])
        for _ in range(2):
            one.desk._turn(0.0)
        one.keep_partial()
        begun = sum(len(partial.tokens) for partial in one.desk.pending().values())
    assert begun > 5
    again = ScriptedEngine(9)
    with rollouts(job, folder, again) as one:
        [collected] = train(one, Allotment(4, 0, 8), range(1, 2))
        assert one.desk.effort.tokens == 16 * 4 - begun
    assert digest(collected.groups) == expected


def test_waiting_ends_when_the_ranks_agree_to_stop(tmp_path: Path) -> None:
    job = rl_job()
    allotment = Allotment(4, 0, 8)
    with rollouts(job, tmp_path, ScriptedEngine(1, pause=0.3), ranks=Alone(stop_after=1)) as one:
        with pytest.raises(StoppedWaitingError):
            one.collect(1, allotment)
        assert allotment.rounds == {1: [(0, 4)]}


def test_what_the_background_dies_of_reaches_who_waits(tmp_path: Path) -> None:
    class Broken(ScriptedEngine):
        def completed(self, timeout: float | None = None) -> Any:
            del timeout
            raise OSError("no server answers")

    job = rl_job(rollout__staleness=1)
    with rollouts(job, tmp_path, Broken(), background=True) as one, pytest.raises(OSError, match="no server"):
        one.collect(1, Allotment(4, 1, 8))


def test_an_answer_of_a_server_that_was_late_is_asked_for_again(tmp_path: Path) -> None:
    class Late(ScriptedEngine):
        def load(self, version: int, weights: Any) -> None:
            del version, weights

        def submit(self, request: Any) -> None:
            if request.id in self.asked:
                self.version = 1  # it has the weights at last
            super().submit(request)

    engine = Late()
    with rollouts(rl_job(), tmp_path, engine) as one:
        found = train(one, Allotment(4, 0, 8), range(1, 3))
    assert [group.oldest for group in found[1].groups] == [1, 1, 1, 1]
    assert len(engine.asked) == 3 * 16
