"""Stop, resume, and what a broken checkpoint does to them; two ranks with FSDP2 over gloo."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import STEPS, Training
from tests.train.faults import slow_steps, writers
from xgen.runs import RunDir, read_events


def assert_same(one: Training, other: Training) -> None:
    from xgen.train.compare import compare_checkpoints

    assert one.losses() == other.losses()
    folders = (t.run.checkpoints_dir / f"step-{STEPS}" for t in (one, other))
    count, differing = compare_checkpoints(*folders)
    assert count > 50
    assert differing == []


def test_signal_to_one_rank_stops_all_at_one_step_and_the_resumed_run_is_the_same(
    training: Training, undisturbed: Training
) -> None:
    stopped = training.go(during=training.signal_at(3, rank=1))
    assert {o.status for o in stopped} == {"stopped"}
    assert stopped[0].step == stopped[1].step
    assert stopped[0].step in (3, 4, 5)
    assert training.event("checkpoint_durable").step is not None  # type: ignore[union-attr]
    assert {o.status for o in training.go()} == {"finished"}
    assert training.event("restore_end", 2).step == stopped[0].step  # type: ignore[union-attr]
    assert_same(training, undisturbed)


def test_sigterm_is_a_stop_too_and_a_second_signal_during_the_save_changes_nothing(
    training: Training, undisturbed: Training
) -> None:
    def twice(pids: list[int]) -> None:
        training.wait_for_step(3)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(0.01)

    assert {o.status for o in training.go(during=twice)} == {"stopped"}
    assert {o.status for o in training.go()} == {"finished"}
    assert_same(training, undisturbed)


def test_what_the_first_step_waits_for_is_start_and_no_time_of_steps(training: Training) -> None:
    def late(_rank: int) -> None:
        from xgen.train.loader import StoreLoader

        batches = StoreLoader.__iter__

        def slow(self: StoreLoader) -> Any:
            time.sleep(2)  # the store is on a cold disk
            yield from batches(self)

        StoreLoader.__iter__ = slow  # type: ignore[method-assign]

    assert {o.status for o in training.go(in_rank=late)} == {"finished"}
    assert training.event("progress").data_wait < 1  # type: ignore[union-attr, operator]


def test_signal_before_the_first_step_stops_without_training(training: Training) -> None:
    outcomes = training.go(in_rank=lambda _rank: os.kill(os.getpid(), signal.SIGUSR2))
    assert {(o.status, o.step) for o in outcomes} == {("stopped", 0)}
    assert training.run.checkpoint_steps() == []


def _shard(folder: Path) -> Path:
    return next(folder.glob("__1_*.distcp"))


def _truncate(folder: Path) -> str:
    os.truncate(_shard(folder), 1000)
    return "truncated: 1000 of"


def _remove(folder: Path) -> str:
    _shard(folder).unlink()
    return "No such file"


def _flip(folder: Path) -> str:
    content = bytearray(_shard(folder).read_bytes())
    content[len(content) // 2] ^= 1
    _shard(folder).write_bytes(content)
    return "checksum"


def _flip_metadata(folder: Path) -> str:
    content = bytearray((folder / ".metadata").read_bytes())
    content[-5] ^= 1
    (folder / ".metadata").write_bytes(content)
    return ".metadata: its checksum"


def _tear_manifest(folder: Path) -> str:
    os.truncate(folder / "manifest.json", 100)
    return "manifest.json: cannot be read"


def _lose_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "manifest.json: No such file"


@pytest.mark.parametrize("damage", [_truncate, _remove, _flip, _flip_metadata, _tear_manifest, _lose_manifest])
def test_broken_checkpoint_is_named_and_the_one_before_it_is_taken(
    training: Training, undisturbed: Training, damage: Callable[[Path], str]
) -> None:
    shutil.copytree(undisturbed.run.checkpoints_dir, training.run.checkpoints_dir, dirs_exist_ok=True)
    expected = damage(training.run.checkpoints_dir / f"step-{STEPS}")
    assert {o.status for o in training.go()} == {"finished"}
    rejected = training.event("checkpoint_rejected")
    assert rejected is not None
    assert rejected.step == STEPS
    assert expected in str(rejected.reason)
    assert training.event("restore_end").step == STEPS - 2  # type: ignore[union-attr]
    from xgen.train.compare import compare_checkpoints

    folders = (t.run.checkpoints_dir / f"step-{STEPS}" for t in (training, undisturbed))
    assert compare_checkpoints(*folders)[1] == []


def test_no_checkpoint_that_verifies_is_refused_and_stays_refused(training: Training, undisturbed: Training) -> None:
    shutil.copytree(undisturbed.run.checkpoints_dir, training.run.checkpoints_dir, dirs_exist_ok=True)
    for step in training.run.checkpoint_steps():
        _flip(training.run.checkpoints_dir / f"step-{step}")
    for _attempt in range(2):  # the second finds them set aside, and must not start over in silence
        outcomes = training.go()
        assert {o.status for o in outcomes} == {"refused"}
        assert "no checkpoint of nano-aaaaaa verifies" in outcomes[0].reason


def test_save_killed_half_way_leaves_nothing_that_counts(training: Training, undisturbed: Training) -> None:
    half = training.run.checkpoints_dir / ".step-4.1.tmp"
    shutil.copytree(undisturbed.run.checkpoints_dir / f"step-{STEPS}", half)
    assert {o.status for o in training.go()} == {"finished"}
    assert not half.exists()
    assert training.event("restore_end").step == 0  # type: ignore[union-attr]
    assert training.losses() == undisturbed.losses()


def test_disk_that_is_full_costs_checkpoints_but_not_the_training(training: Training) -> None:
    def no_room(_rank: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    outcomes = training.go(in_rank=no_room)
    assert len(training.losses()) == STEPS
    assert training.event("checkpoint_failed").step == 2  # type: ignore[union-attr]
    assert training.event("checkpoint_durable") is None
    # The last save is what the run was for: without it, it has not finished.
    assert {o.status for o in outcomes} == {"crashed"}
    assert list(training.run.checkpoints_dir.iterdir()) == []


def test_fault_on_one_rank_between_exchanges_costs_one_checkpoint_and_hangs_nobody(
    training: Training, undisturbed: Training
) -> None:
    # A file where rank 0 wants to make its folder: rank 0 fails before any rank has written.
    in_the_way = training.run.checkpoints_dir / ".step-2.1.tmp"
    in_the_way.write_text("")
    assert {o.status for o in training.go(timeout=40)} == {"finished"}
    assert str(in_the_way.name) in str(training.event("checkpoint_failed").reason)  # type: ignore[union-attr]
    in_the_way.unlink()
    assert_same(training, undisturbed)


def test_disk_that_is_full_for_a_while_costs_checkpoints_only(training: Training) -> None:
    """No rank can write a byte to any file for some steps: no shard, no event, no line of steps.jsonl. Those wait."""
    num_steps = 60
    training.change("stages", 0, "tokens", num_steps * 256)

    def fill_and_free(ranks: list[int]) -> None:
        training.wait_for_step(5)
        for size in (1, resource.RLIM_INFINITY):
            for pid in ranks + writers(ranks):  # a writer that was replaced meanwhile has the limits of its rank
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            time.sleep(1)

    def into_a_pipe(_rank: int) -> None:  # as under srun; not into a file on the full disk
        slow_steps(0.1)
        for fd in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)

    outcomes = training.go(during=fill_and_free, in_rank=into_a_pipe)
    assert {(o.status, o.step) for o in outcomes} == {("finished", num_steps)}
    assert set(training.losses()) == set(range(1, num_steps + 1))
    durable = {event.step for event in read_events(training.run) if event.event == "checkpoint_durable"}
    assert len(durable) < num_steps // 2, "the disk was never full"
    assert training.run.checkpoint_steps() == [num_steps - 4, num_steps - 2, num_steps]


def test_only_the_newest_checkpoints_are_kept(undisturbed: Training) -> None:
    assert undisturbed.run.checkpoint_steps() == [STEPS - 4, STEPS - 2, STEPS]


def test_a_checkpoint_has_the_files_of_its_own_save_alone(undisturbed: Training) -> None:
    """A save that wrote those of the saves before it again would take longer each time."""
    from xgen.train.manifest import Manifest

    for step in undisturbed.run.checkpoint_steps():
        names = [file.name for file in Manifest.read(undisturbed.run.checkpoints_dir / f"step-{step}").files]
        assert names == sorted({".metadata", "__0_0.distcp", "__1_0.distcp", "rng.0.pt", "rng.1.pt"})


def test_one_rank_plans_what_is_no_shard_and_nobody_the_settings_of_the_optimizer(undisturbed: Training) -> None:
    from torch.distributed.checkpoint import FileSystemReader

    metadata = FileSystemReader(undisturbed.run.checkpoints_dir / f"step-{STEPS}").read_metadata()
    files: dict[str, set[str]] = {}
    for index, info in metadata.storage_data.items():
        files.setdefault(index.fqn, set()).add(info.relative_path)
    assert {files[name].pop() for name in files if name.endswith((".step", "last_epoch", "next_sample"))} == {
        "__0_0.distcp"
    }
    assert not [name for name in files if "param_groups" in name]
    assert metadata.planner_data.keys() == files.keys()


def test_a_checkpoint_with_the_settings_of_its_optimizer_is_loaded_and_the_spec_is_in_force(
    training: Training, undisturbed: Training
) -> None:
    """Earlier versions saved them, once for every parameter."""

    def with_settings(_rank: int) -> None:
        from xgen.train import checkpoint

        checkpoint.Moments = lambda optimizers: optimizers  # type: ignore[assignment, misc]

    def look(_rank: int) -> None:
        from xgen.train.trainer import JobTrainer

        train = JobTrainer._train

        def looking(self: JobTrainer) -> Any:
            groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
            rates = self.lr_schedulers.schedulers[0].get_last_lr()
            assert [(group["weight_decay"], group["lr"]) for group in groups] == [(0.25, rates[0])]
            return train(self)

        JobTrainer._train = looking  # type: ignore[method-assign]

    training.go(during=training.signal_at(3, rank=1), in_rank=with_settings)
    other = Training(RunDir(training.run.path.with_name("nano-cccccc")))
    shutil.copytree(training.run.checkpoints_dir, other.run.checkpoints_dir, dirs_exist_ok=True)
    other.change("optimizer", {"weight_decay": 0.25})
    assert {o.status for o in other.go(in_rank=look)} == {"finished"}
    assert {o.status for o in training.go()} == {"finished"}
    assert_same(training, undisturbed)


def test_replicas_of_shards_train_on_the_same_samples(training: Training, undisturbed: Training) -> None:
    """HSDP: two replicas of two shards. Sums in another order differ in the last bits only."""
    training.world_size = 4
    training.change("resources", "gpus_per_node", 4)
    training.change("stages", 0, "parallelism", {"fsdp": 2, "replicate": 2})
    assert {o.status for o in training.go()} == {"finished"}
    expected = {step: float.fromhex(loss) for step, loss in undisturbed.losses().items()}
    assert {step: float.fromhex(loss) for step, loss in training.losses().items()} == pytest.approx(expected, abs=1e-4)


def test_store_that_changed_under_a_run_is_refused(training: Training, undisturbed: Training, tmp_path: Path) -> None:
    from tests.conftest import ROOT

    shutil.copytree(undisturbed.run.checkpoints_dir, training.run.checkpoints_dir, dirs_exist_ok=True)
    store = tmp_path / "store"
    shutil.copytree(ROOT / ".cache/tiny-store", store)
    meta = (store / "meta.json").read_text()
    digest = meta.split('"sha256":"')[1][:64] if '"sha256":"' in meta else meta.split('"sha256": "')[1][:64]
    (store / "meta.json").write_text(meta.replace(digest, "0" * 64))
    spec = training.run.spec_file.read_text().replace(str(ROOT / ".cache/tiny-store"), str(store))
    training.run.spec_file.write_text(spec)
    outcomes = training.go()
    assert {o.status for o in outcomes} == {"refused"}
    assert "is not the one that step-8 was trained on" in outcomes[0].reason
