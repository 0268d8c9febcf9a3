"""A shard of an evaluation: every sample once, whatever is killed, stopped, full or gone."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.evals.scripted import Bench, StopAfter, nothing, reap, wait_for
from tests.train.folders import damage
from xgen.evals import conclude
from xgen.evals.records import read_records, step_folder, steps_of
from xgen.evals.summary import Summary
from xgen.evals.worker import run_report
from xgen.runs import Event, RunDir, read_events


def test_the_samples_of_three_checkpoints_are_scored_once_and_told_of_once(bench: Bench) -> None:
    outcome = bench.go()
    assert (outcome.status, outcome.step) == ("finished", 3 * 40)
    bench.assert_each_once(2, 4, 6)
    assert steps_of(bench.run) == [2, 4, 6]
    told = bench.evaluated()
    assert [(event.step, event.checkpoint) for event in told] == [(n, f"nano-aaaaaa@{n}") for n in (2, 4, 6)]
    assert bench.run.shard("score", 0).checkpoint_steps() == [120]  # what counts as progress
    summary = Summary.model_validate_json((step_folder(bench.run, 4) / "scores.json").read_bytes())
    assert told[1].scores == {score.key: score.mean for score in summary.scores}
    assert summary.missing == 0
    assert "ruler/one/128" in told[1].scores

    before = {path: path.read_bytes() for path in bench.run.evaluation_dir.rglob("*") if path.is_file()}
    assert bench.go().status == "finished"
    assert {path: path.read_bytes() for path in before} == before
    assert len(bench.evaluated()) == 3


def test_shards_share_out_the_samples_and_the_last_of_them_writes_the_scores(bench: Bench) -> None:
    for shard in range(3):
        assert bench.evaluated() == []
        assert bench.go(shard, 3).status == "finished"
    bench.assert_each_once(2, 4, 6)
    assert sorted(path.name for path in step_folder(bench.run, 2).glob("*.jsonl")) == ["0.jsonl", "1.jsonl", "2.jsonl"]
    assert len(bench.evaluated()) == 3
    lengths = [record.length for record in read_records(step_folder(bench.run, 2))[:6]]
    assert lengths == sorted(lengths)  # of a suite, short ones first


def test_a_stop_ends_a_shard_at_its_next_sample_and_the_next_attempt_goes_on(bench: Bench) -> None:
    stop = StopAfter(57)
    bench.during = stop.sample
    outcome = bench.go(stop=stop)
    assert (outcome.status, outcome.step, outcome.reason) == ("stopped", 57, "after SIGUSR2")
    first = bench.lines(2) + bench.lines(4)
    assert len(first) == 57
    assert bench.run.shard("score", 0).checkpoint_steps() == [57]
    bench.during = nothing
    assert bench.go().status == "finished"
    bench.assert_each_once(2, 4, 6)
    assert (bench.lines(2) + bench.lines(4))[:57] == first


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_moment_and_other_shards_lose_and_repeat_no_sample(bench: Bench, seed: int) -> None:
    """SIGKILL for all shards, again and again, each time with another number of them, until few samples are left."""
    chance = random.Random(seed)
    bench.pause = 0.003
    files = {step: step_folder(bench.run, step) for step in (2, 4, 6)}

    def count() -> int:
        return sum(path.read_bytes().count(b"\n") for folder in files.values() for path in folder.glob("*.jsonl"))

    def reached(wanted: int) -> bool:
        return count() >= wanted

    kept: dict[Path, bytes] = {}
    while (before := count()) < 100:
        num_shards = chance.randint(1, 3)
        pids = [bench.fork(shard, num_shards) for shard in range(num_shards)]
        wanted = before + chance.randint(0, 20)
        wait_for(partial(reached, wanted))
        time.sleep(chance.uniform(0, 0.005))
        for pid in pids:
            os.kill(pid, signal.SIGUSR2 if chance.random() < 0.2 else signal.SIGKILL)
        unarmed = -signal.SIGUSR2
        assert {reap(pid) for pid in pids} <= {-signal.SIGKILL, unarmed, 0, 75}
        for path, content in kept.items():
            assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
        kept = {path: path.read_bytes() for folder in files.values() for path in folder.glob("*.jsonl")}
    num_shards = chance.randint(1, 3)
    assert [reap(pid) for pid in [bench.fork(shard, num_shards) for shard in range(num_shards)]] == [0] * num_shards
    bench.assert_each_once(2, 4, 6)
    assert [event.step for event in bench.evaluated()] == [2, 4, 6]


def test_a_line_torn_by_a_lost_node_is_scored_again_and_no_other(bench: Bench) -> None:
    bench.go()
    file = step_folder(bench.run, 4) / "0.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for left in ("scores.json", ".done/0"):
        (step_folder(bench.run, 4) / left).unlink()
    torn = [*lines[:10], b"\0" * 40 + b"\n", *lines[11:-1], lines[-1][:30]]
    file.write_bytes(b"".join(torn))
    assert len(read_records(file.parent)) == 38
    scored: list[object] = []
    bench.during = scored.append
    assert bench.go().status == "finished"
    assert len(scored) == 2
    assert len(read_records(file.parent)) == 40
    assert len(bench.evaluated()) == 3


def test_a_sample_with_two_lines_counts_once(bench: Bench) -> None:
    bench.go()
    folder = step_folder(bench.run, 4)
    shutil.copy(folder / "0.jsonl", folder / "7.jsonl")
    assert len(bench.lines(4)) == 80
    assert len(read_records(folder)) == 40


def test_a_full_disk_ends_the_attempt_with_a_word_and_keeps_what_is_there(bench: Bench) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    assert reap(bench.fork(first=small_files)) == 1
    assert "0.jsonl" in bench.log()
    assert "the samples before are safe: make room" in bench.log()
    first = bench.lines(2)
    assert 0 < len(first) < 40
    assert all(json.loads(line) for line in first)
    assert bench.go().status == "finished"
    bench.assert_each_once(2, 4, 6)
    assert bench.lines(2)[: len(first)] == first


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_an_evaluation_that_may_not_be_written_is_refused_with_the_folder() -> None:
    def nobody() -> None:
        os.setuid(65534)

    with tempfile.TemporaryDirectory() as place:  # that all may read
        Path(place).chmod(0o755)
        bench = Bench(Path(place))
        bench.save(2)
        bench.run.evaluation_dir.mkdir(mode=0o755)
        assert reap(bench.fork(first=nobody)) == 78
        said = f"{bench.run.evaluation_dir} cannot be written by user 65534: Permission denied; give the folder to that"
        assert said in bench.log()


def test_two_attempts_of_a_shard_at_once_take_turns(bench: Bench) -> None:
    bench.pause = 0.01
    assert sorted(reap(pid) for pid in [bench.fork(), bench.fork()]) == [0, 0]
    bench.assert_each_once(2, 4, 6)
    assert "another process is at shard 0; waiting for its end" in bench.log()


def test_who_waits_for_another_attempt_hears_the_stop(bench: Bench) -> None:
    bench.pause = 0.05
    first = bench.fork()
    wait_for(lambda: bench.lines(2))
    second = bench.fork()
    wait_for(lambda: "waiting for its end" in bench.log())
    os.kill(second, signal.SIGTERM)
    assert reap(second, timeout=5) == 75
    os.kill(first, signal.SIGTERM)
    assert reap(first, timeout=5) == 75


def test_an_export_goes_once_its_checkpoint_is_scored(bench: Bench) -> None:
    made = bench.run.evaluation_dir / "export/step-4"
    made.mkdir(parents=True)
    assert bench.go(0, 2).status == "finished"
    assert made.exists()
    assert bench.go(1, 2).status == "finished"
    assert not made.exists()


def test_shards_that_end_at_the_same_moment_tell_of_it_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(run: RunDir) -> list[Event]:
        events = read_events(run)
        time.sleep(0.3)
        return events

    bench.num, bench.pause = 1, 0.0
    bench.checkpoints = bench.source.name
    for shard in range(3):
        bench.go(shard, 3)
    (step_folder(bench.run, 6) / "scores.json").unlink()
    (bench.run.events_dir / "evaluation.jsonl").unlink()
    monkeypatch.setattr(conclude, "read_events", slow)
    assert [reap(pid) for pid in [bench.fork(shard, 3) for shard in range(3)]] == [0, 0, 0]
    assert [event.step for event in bench.evaluated()] == [6]


def test_killed_between_the_scores_and_the_word_of_them_it_is_told_by_the_next(bench: Bench) -> None:
    bench.go()
    (bench.run.events_dir / "evaluation.jsonl").write_text("")
    assert bench.go().status == "finished"
    assert [event.step for event in bench.evaluated()] == [2, 4, 6]


def test_nothing_is_left_open(bench: Bench) -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208
    bench.go()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before  # noqa: PTH208


def test_the_report_is_made_of_what_is_scored_and_says_what_is_not(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(bench.source.checkpoints_dir / "step-4")
    bench.go()
    outcome = run_report(replace(bench.context(), run=bench.run, stage=1), bench.job)
    assert outcome.status == "finished"
    folder = bench.run.evaluation_dir / "report"
    assert "does not verify" in (folder / "results.md").read_text()
    assert sorted(json.loads((folder / "results.json").read_text())["gone"]) == ["4"]
    assert "step 4 was left out: it does not verify" in capfd.readouterr().out
