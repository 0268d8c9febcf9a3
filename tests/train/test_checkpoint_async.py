"""Checkpoints written while the training goes on: right whatever happens to the disk, the writers, or the trainers."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.train.conftest import STEPS, Training
from tests.train.faults import signal_all, slow_steps, writers
from tests.train.test_resume import assert_same
from xgen.runs import Event, EventName, read_events, replay


@pytest.fixture
def asynchronous(training: Training) -> Training:
    training.change("checkpoint", "mode", "async")
    return training


def events(training: Training, name: EventName) -> list[Event]:
    return [event for event in read_events(training.run) if event.event == name]


def wait_for(training: Training, name: EventName, step: int | None) -> Event:
    deadline = time.monotonic() + 60
    while not (found := [event for event in events(training, name) if step in (None, event.step)]):
        assert time.monotonic() < deadline, read_events(training.run)
        time.sleep(0.01)
    return found[0]


def differing(one: Training, other: Training, step: int) -> list[str]:
    from xgen.train.compare import compare_checkpoints

    count, names = compare_checkpoints(*(t.run.checkpoints_dir / f"step-{step}" for t in (one, other)))
    assert count > 50
    return names


def test_what_is_written_while_training_goes_on_is_the_state_of_its_step(
    asynchronous: Training, undisturbed: Training
) -> None:
    """The writers stand still until two more steps have changed every tensor."""
    asynchronous.change("checkpoint", "every", 4)

    def hold(pids: list[int]) -> None:
        held = writers(pids)
        signal_all(held, signal.SIGSTOP)
        asynchronous.wait_for_step(6)
        assert asynchronous.run.checkpoint_steps() == []
        signal_all(held, signal.SIGCONT)

    assert {o.status for o in asynchronous.go(during=hold, in_rank=lambda _: slow_steps(0.2))} == {"finished"}
    assert differing(asynchronous, undisturbed, 4) == []
    assert_same(asynchronous, undisturbed)
    durable = events(asynchronous, "checkpoint_durable")
    assert [event.step for event in durable] == [4, 8]
    assert durable[0].stall is not None
    assert durable[0].seconds is not None
    assert durable[0].stall < 0.5 * durable[0].seconds
    staged = wait_for(asynchronous, "checkpoint_staged", 4)
    assert staged.time < durable[0].time
    # The phase holds while the training stands still, and not a moment longer.
    stalled = sum(event.stall or 0 for event in durable)
    assert replay(read_events(asynchronous.run)).totals(time.time())["checkpoint"] == pytest.approx(stalled, abs=0.2)


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_writer_costs_one_checkpoint_and_is_replaced(
    asynchronous: Training, undisturbed: Training, victim: int
) -> None:
    def kill(pids: list[int]) -> None:
        held = writers(pids)
        signal_all(held, signal.SIGSTOP)
        written = len(events(asynchronous, "checkpoint_durable"))  # on a busy machine one may be
        while len(events(asynchronous, "checkpoint_staged")) <= written:
            time.sleep(0.01)
        os.kill(held[victim], signal.SIGKILL)
        os.kill(held[1 - victim], signal.SIGCONT)

    assert {o.status for o in asynchronous.go(during=kill, in_rank=lambda _: slow_steps(1))} == {"finished"}
    (failed,) = events(asynchronous, "checkpoint_failed")
    assert "killed by signal 9" in str(failed.reason)
    steps = asynchronous.run.checkpoint_steps()
    assert failed.step is not None and failed.step not in steps and max(steps) > failed.step
    assert not list(asynchronous.run.checkpoints_dir.glob(".*"))
    assert_same(asynchronous, undisturbed)


@pytest.mark.parametrize("writers_die_too", [False, True])
def test_trainers_killed_during_the_write(asynchronous: Training, undisturbed: Training, writers_die_too: bool) -> None:
    folder = asynchronous.run.checkpoints_dir

    def kill(pids: list[int]) -> None:
        held = writers(pids)
        signal_all(held, signal.SIGSTOP)
        wait_for(asynchronous, "checkpoint_staged", 2)
        os.kill(held[1], signal.SIGCONT)  # writes its part; that of rank 0 does not
        while not list(folder.glob(".step-2.1.tmp/entries.1.json")):
            time.sleep(0.01)
        signal_all(pids, signal.SIGKILL)
        signal_all(held[:1], signal.SIGKILL if writers_die_too else signal.SIGCONT)

    with pytest.raises(AssertionError):  # no rank writes an outcome
        asynchronous.go(during=kill, in_rank=lambda _: slow_steps(0.2))
    if writers_die_too:
        assert asynchronous.run.checkpoint_steps() == []
        assert list(folder.glob(".step-2.1.tmp"))
    else:
        deadline = time.monotonic() + 20
        while asynchronous.run.checkpoint_steps() != [2]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert {o.status for o in asynchronous.go(in_rank=lambda _: slow_steps(0.2))} == {"finished"}
    restored = asynchronous.event("restore_end", 2)
    assert restored
    assert restored.step == (0 if writers_die_too else 2)
    assert not list(folder.glob(".*"))
    assert_same(asynchronous, undisturbed)


def test_disk_that_fills_during_the_write_costs_that_checkpoint(asynchronous: Training, undisturbed: Training) -> None:
    def fill_and_free(pids: list[int]) -> None:
        writer = writers(pids)[1]
        before = resource.prlimit(writer, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        wait_for(asynchronous, "checkpoint_failed", 2)
        resource.prlimit(writer, resource.RLIMIT_FSIZE, before)

    assert {o.status for o in asynchronous.go(during=fill_and_free, in_rank=lambda _: slow_steps(0.3))} == {"finished"}
    assert "rank 1: [Errno 27] File too large" in str(wait_for(asynchronous, "checkpoint_failed", 2).reason)
    assert 6 in asynchronous.run.checkpoint_steps()
    assert_same(asynchronous, undisturbed)


def test_slow_disk_is_said_and_a_stop_waits_for_it(asynchronous: Training, undisturbed: Training) -> None:
    """The save under way is finished, not begun anew; then the current step is saved too."""

    def hold(pids: list[int]) -> None:
        held = writers(pids)
        signal_all(held, signal.SIGSTOP)
        wait_for(asynchronous, "checkpoint_failed", 4)
        os.kill(pids[1], signal.SIGUSR2)
        wait_for(asynchronous, "stopping", None)
        time.sleep(0.5)
        assert asynchronous.run.checkpoint_steps() == []
        signal_all(held, signal.SIGCONT)

    stopped = asynchronous.go(during=hold, in_rank=lambda _: slow_steps(0.3))
    last = stopped[0].step
    assert {(o.status, o.step) for o in stopped} == {("stopped", last)}
    assert last in (5, 6, 7)
    assert "skipped: the checkpoint before it is still being written" in str(
        wait_for(asynchronous, "checkpoint_failed", 4).reason
    )
    assert [event.step for event in events(asynchronous, "checkpoint_begin")] == [2, last]
    assert [event.step for event in events(asynchronous, "checkpoint_durable")] == [2, last]
    assert {o.status for o in asynchronous.go()} == {"finished"}
    assert_same(asynchronous, undisturbed)


def test_stop_at_a_step_that_is_being_written_waits_for_it(asynchronous: Training) -> None:
    def hold(pids: list[int]) -> None:
        held = writers(pids)
        signal_all(held, signal.SIGSTOP)
        asynchronous.wait_for_step(1)  # the ranks agree on a stop while step 2 computes, and are agreed after it
        os.kill(pids[0], signal.SIGTERM)
        wait_for(asynchronous, "stopping", 2)
        signal_all(held, signal.SIGCONT)

    outcomes = asynchronous.go(during=hold, in_rank=lambda _: slow_steps(1))
    assert {(o.status, o.step) for o in outcomes} == {("stopped", 2)}
    assert [event.step for event in events(asynchronous, "checkpoint_begin")] == [2]
    assert asynchronous.run.checkpoint_steps() == [2]


def test_building_folders_of_dead_attempts_go(training: Training, undisturbed: Training) -> None:
    source = undisturbed.run.checkpoints_dir / f"step-{STEPS}"
    for name in (".step-4.1.tmp", ".step-2.old.tmp", ".step-2.1.tmp.old.tmp"):
        shutil.copytree(source, training.run.checkpoints_dir / name)
    assert {o.status for o in training.go()} == {"finished"}
    assert not list(training.run.checkpoints_dir.glob(".*"))


def test_rules_keep_more_than_the_last(training: Training) -> None:
    training.change("checkpoint", {"every": 1, "keep": 2, "keep_every": 4, "keep_best": 1, "mode": "sync"})
    training.change("stages", 0, "tokens", 6 * 256)
    training.change("stages", 0, "lr", "peak", 1e-9)  # no step is better than another but by its data
    assert {o.status for o in training.go()} == {"finished"}
    losses = {step: float.fromhex(loss) for step, loss in training.losses().items()}
    assert training.run.checkpoint_steps() == sorted({4, 5, 6, min(losses, key=lambda step: (losses[step], -step))})
    assert not list(training.run.checkpoints_dir.glob(".*"))


def test_manifest_says_where_the_training_stood(undisturbed: Training) -> None:
    from xgen.train.manifest import Manifest, Mesh

    manifest = Manifest.read(undisturbed.run.checkpoints_dir / "step-6")
    assert (manifest.version, manifest.step, manifest.tokens, manifest.next_sample) == (2, 6, 6 * 256, 6 * 4)
    assert (manifest.world_size, manifest.mesh, manifest.attempt) == (2, Mesh(fsdp=2), 1)
    assert manifest.loss is not None
    assert abs(manifest.saved_at - time.time()) < 3600
    assert {entry.name for entry in manifest.files} == {
        "__0_0.distcp", "__1_0.distcp", "rng.0.pt", "rng.1.pt", ".metadata",
    }  # fmt: skip
    assert {entry.name for entry in manifest.files} | {"manifest.json"} == {
        path.name for path in Path(undisturbed.run.checkpoints_dir / "step-6").iterdir()
    }


def test_what_was_verified_ahead_is_not_read_again(training: Training, undisturbed: Training) -> None:
    shutil.copytree(undisturbed.run.checkpoints_dir, training.run.checkpoints_dir, dirs_exist_ok=True)
    newest = training.run.checkpoints_dir / f"step-{STEPS}"
    os.truncate(newest / "__1_0.distcp", 1000)

    def only_ahead(_rank: int) -> None:
        from xgen.train import preverify

        whole = preverify.fault_of_share

        def not_while_loading(folder: Path, rank: int, world_size: int) -> str:
            assert folder != newest or threading.current_thread().name == "preverify", "read twice"
            return whole(folder, rank, world_size)

        preverify.fault_of_share = not_while_loading

    assert {o.status for o in training.go(in_rank=only_ahead)} == {"finished"}
    rejected = training.event("checkpoint_rejected")
    assert rejected
    assert "__1_0.distcp: truncated: 1000 of" in str(rejected.reason)
    assert differing(training, undisturbed, STEPS) == []
