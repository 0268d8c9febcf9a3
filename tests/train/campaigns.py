"""Seeded trouble for trainings: stops at random moments, and faults in the path of a checkpoint to disk and back.

`benchmarks.stops` and `benchmarks.faults` run all of it; a sample is in the tests. A case is a function of its seed.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.train.faults import signal_all, slow_steps, writers
from tests.train.forked import Training
from xgen.runs import RunDir, read_events

NUM_STEPS, INTERVAL = 18, 3
_MAX_ATTEMPTS = 6
_STEP_TIME = 0.1  # seconds that every step takes longer: moments differ in what they hit


@dataclass(frozen=True)
class Case:
    """What came of one run in trouble. `wrong` is '' when all is as if there had been none."""

    seed: int
    what: str
    attempts: int
    resumed: tuple[int, ...]  # steps that the attempts began from
    lost_steps: int  # the most that an attempt had to train again
    rejected: int  # checkpoints that were found broken
    wrong: str
    seconds: float


def make_training(folder: Path, name: str, world_size: int = 2) -> Training:
    """A run of `NUM_STEPS`, saved asynchronously every `INTERVAL`."""
    training = Training(RunDir(folder / f"{name}-aaaaaa"), world_size)
    training.change("stages", 0, "tokens", NUM_STEPS * 256)
    training.change("resources", "gpus_per_node", world_size)
    training.change("checkpoint", {"every": INTERVAL, "keep": 3, "mode": "async"})
    return training


def undisturbed(folder: Path, world_size: int = 2) -> Training:
    training = make_training(folder, "undisturbed", world_size)
    outcomes = training.go()
    assert {outcome.status for outcome in outcomes} == {"finished"}, outcomes
    return training


def differences(training: Training, expected: Training) -> str:
    """What is not as in the undisturbed run, bit by bit: losses, data, final checkpoint. '' for nothing."""
    from xgen.train.compare import compare_checkpoints

    if training.losses() != expected.losses():
        steps = [step for step, loss in expected.losses().items() if training.losses().get(step) != loss]
        return f"losses differ at steps {steps}"
    folders = [run.run.checkpoints_dir / f"step-{NUM_STEPS}" for run in (training, expected)]
    differing = compare_checkpoints(*folders)[1]
    return f"{len(differing)} entries of the final checkpoint differ, {differing[0]} first" if differing else ""


def stopped_often(seed: int, folder: Path, expected: Training, num_stops: int) -> Case:
    """Told to stop `num_stops` times, each at a random moment, with another number of loader threads each time."""
    rng, began = random.Random(seed), time.monotonic()
    training = make_training(folder, f"stops-{seed}", expected.world_size)
    stops, wrong = 0, ""
    while stops < num_stops and not wrong:
        training.change("data", "workers", rng.randrange(4))
        training.change("data", "prefetch", rng.randrange(1, 6))
        done = max(training.losses(), default=0) if training.attempt else 0
        # Some steps for each of the stops that are left.
        steps = rng.randint(0, max(0, (NUM_STEPS - 1 - done) // (num_stops - stops)))
        outcomes = training.go(during=_signal(training, done + steps, rng), in_rank=_slow)
        statuses = {outcome.status for outcome in outcomes}
        if statuses == {"finished"}:
            break  # the signal came too late
        stops += 1
        wrong = "" if statuses == {"stopped"} else f"outcomes {sorted(statuses)} after stop {stops}"
    outcomes = [] if wrong else training.go()
    if not wrong and {outcome.status for outcome in outcomes} != {"finished"}:
        wrong = f"outcomes {[outcome.reason or outcome.status for outcome in outcomes]} in the end"
    what = f"{stops} stops"
    return _judge(seed, what, training, expected, wrong, began)


def _slow(_rank: int) -> None:
    slow_steps(_STEP_TIME)


def _signal(training: Training, step: int, rng: random.Random) -> Callable[[list[int]], None]:
    number = rng.choice([signal.SIGUSR2, signal.SIGTERM])
    rank, pause = rng.randrange(training.world_size), rng.uniform(0, 2 * _STEP_TIME)

    def act(pids: list[int]) -> None:
        training.wait_for_new_step(step)
        time.sleep(pause)
        os.kill(pids[rank], number)

    return act


# Faults while an attempt runs: each gets the ranks, and when to strike.


def _kill_all(pids: list[int], rng: random.Random) -> None:
    """The node is gone: ranks and their writers at once."""
    victims = [*pids, *writers(pids)]
    rng.shuffle(victims)
    signal_all(victims, signal.SIGKILL)


def _kill_ranks(pids: list[int], rng: random.Random) -> None:
    """The writers live on, and finish what they have."""
    del rng
    signal_all(pids, signal.SIGKILL)


def _kill_one_rank(pids: list[int], rng: random.Random) -> None:
    os.kill(rng.choice(pids), signal.SIGKILL)


def _kill_writer(pids: list[int], rng: random.Random) -> None:
    os.kill(rng.choice(writers(pids)), signal.SIGKILL)


def _fill_disk(pids: list[int], rng: random.Random) -> None:
    """For a while no writer can write more than so many bytes of any file."""
    victims = writers(pids)
    room = rng.choice([1, 1000, 50_000])
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY)) for pid in victims]
    time.sleep(rng.uniform(0.05, 0.5))
    for pid, limit in zip(victims, before, strict=True):
        if Path(f"/proc/{pid}").exists():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


def _slow_disk(pids: list[int], rng: random.Random) -> None:
    """The writers stand still for longer than an interval takes."""
    victims = writers(pids)
    signal_all(victims, signal.SIGSTOP)
    time.sleep(rng.uniform(0.3, 1.0))
    signal_all(victims, signal.SIGCONT)


# Faults between attempts: each damages the newest checkpoint.


def _truncate(folder: Path, rng: random.Random) -> None:
    file = _some_file(folder, rng)
    os.truncate(file, rng.randrange(max(1, file.stat().st_size)))


def _flip(folder: Path, rng: random.Random) -> None:
    file = _some_file(folder, rng)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _remove(folder: Path, rng: random.Random) -> None:
    _some_file(folder, rng).unlink()


def _stale_files(folder: Path, rng: random.Random) -> None:
    """One file is that of the checkpoint before it, as a cache that was not flushed gives."""
    before = _before(folder)
    files = [file for file in sorted(folder.iterdir()) if file.read_bytes() != (before / file.name).read_bytes()]
    file = rng.choice(files)
    shutil.copy(before / file.name, file)


def _stale_folder(folder: Path, rng: random.Random) -> None:
    """The whole checkpoint is the one before it, under the newer name: sound in itself, but not what it says."""
    del rng
    before = _before(folder)
    shutil.rmtree(folder)
    shutil.copytree(before, folder)


def _before(folder: Path) -> Path:
    steps = sorted(int(other.name[5:]) for other in folder.parent.glob("step-*") if other.name[5:].isdigit())
    return folder.with_name(f"step-{steps[-2]}")


def _some_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(file for file in folder.iterdir() if file.stat().st_size))


DURING = {
    "node killed": _kill_all,
    "ranks killed": _kill_ranks,
    "one rank killed": _kill_one_rank,
    "writer killed": _kill_writer,
    "disk full": _fill_disk,
    "disk slow": _slow_disk,
}
BETWEEN = {
    "truncated": _truncate,
    "flipped": _flip,
    "missing": _remove,
    "stale file": _stale_files,
    "stale folder": _stale_folder,
}
KINDS = (*DURING, "killed while loading", *BETWEEN)


def faulty(seed: int, folder: Path, expected: Training) -> Case:
    """One run with one fault, whose kind, moment and place follow from the seed; then attempts until it finishes."""
    rng, began = random.Random(seed), time.monotonic()
    kind = KINDS[seed % len(KINDS)]
    training = make_training(folder, f"fault-{seed}", expected.world_size)
    step, pause = rng.randint(INTERVAL + 1, NUM_STEPS - 2), rng.uniform(0, INTERVAL * _STEP_TIME)
    sound = 0  # step of the newest checkpoint that was left sound
    if kind in DURING:

        def strike(pids: list[int]) -> None:
            training.wait_for_new_step(step)
            time.sleep(pause)
            DURING[kind](pids, rng)

        training.go(during=strike, in_rank=_slow, may_die=True)
        sound = max(training.run.checkpoint_steps(), default=0)
    else:
        # Far enough that there are two checkpoints, one to be broken.
        training.go(during=_signal(training, max(step, 2 * INTERVAL + 1), rng), in_rank=_slow)
        steps = training.run.checkpoint_steps()
        sound = steps[-1]
        if kind in BETWEEN:
            BETWEEN[kind](training.run.checkpoints_dir / f"step-{steps[-1]}", rng)
            sound = steps[-2]
        else:
            training.go(during=lambda pids: _kill_soon(pids, rng), may_die=True)
    wrong, before = "", training.attempt
    while not wrong:
        outcomes = training.go(may_die=True)
        statuses = {outcome.status for outcome in outcomes}
        if statuses == {"finished"} and len(outcomes) == training.world_size:
            break
        if training.attempt - before >= _MAX_ATTEMPTS or "refused" in statuses:
            wrong = f"outcomes {[outcome.reason or outcome.status for outcome in outcomes]}"
    resumed = training.event("restore_end", before + 1)
    if not wrong and resumed and (resumed.step or 0) < sound and max(training.losses()) > sound:
        wrong = f"resumed at step {resumed.step}, though step {sound} was sound"
    return _judge(seed, kind, training, expected, wrong, began)


def _kill_soon(pids: list[int], rng: random.Random) -> None:
    time.sleep(rng.uniform(0.0, 1.5))
    signal_all(pids, signal.SIGKILL)


def _judge(seed: int, what: str, training: Training, expected: Training, wrong: str, began: float) -> Case:
    events = read_events(training.run)
    resumed = tuple(event.step or 0 for event in events if event.event == "restore_end")
    lost = reached = 0
    for step in training.steps():
        lost = max(lost, reached - step + 1)
        reached = step
    rejected = sum(event.event == "checkpoint_rejected" for event in events)
    wrong = wrong or differences(training, expected)
    seconds = round(time.monotonic() - began, 1)
    return Case(seed, what, training.attempt, resumed, lost, rejected, wrong, seconds)
