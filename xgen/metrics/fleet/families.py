"""What is served of runs. Names, labels and units: docs/monitoring.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import counters, gauges
from xgen.metrics.fleet.scores import score_families
from xgen.metrics.fleet.tracked import Tracked
from xgen.runs import PHASES, PRODUCTIVE, RESTART_REASONS, Phase

_WORK: tuple[Phase, ...] = ("queued", "start", "stop")  # of what has no steps
_SHARDS = ("finished", "running", "waiting", "given_up")
_Value = Callable[[Tracked], float | None]  # None: absent

# Of every run; of those with steps.
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("gpus", "GPUs that its job asks for; of a job array, that its running shards hold.", lambda run: run.num_gpus),
    ("attempts", "Attempts that have started.", lambda run: len(run.ledger.attempts)),
    ("last_event_timestamp_seconds", "When its newest event was written.", lambda run: run.last_event or None),
    ("lost", "1: the scheduler knows no job of it, and nobody decided that it ended.", lambda run: run.is_lost),
    (
        "checkpoint_durable_timestamp_seconds",
        "When its newest checkpoint became durable.",
        lambda run: run.ledger.durable_time or None,
    ),
)
_TRAINING_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("highest_step", "Highest step that any attempt has trained.", lambda run: run.ledger.highest_step),
    ("planned_steps", "Steps of all stages.", lambda run: run.facts.planned_steps or None),
    ("planned_tokens", "Tokens of all stages.", lambda run: run.facts.planned_tokens or None),
    (
        "resumed_step",
        "Step of the checkpoint that the newest attempt began from; 0: none.",
        lambda run: run.ledger.attempts[-1].resumed_step if run.ledger.attempts else None,
    ),
    (
        "checkpoint_durable_step",
        "Step of the newest durable checkpoint; 0: none.",
        lambda run: run.ledger.durable_step,
    ),
)


def families(runs: Sequence[Tracked], cluster: str, partition: str, now: float) -> Iterator[Metric]:
    """`partition`: that of runs which name none."""
    training = [run for run in runs if run.trains]
    yield gauges(
        "xgen_run_info",
        "1; what the run is. `stage` is the one that its newest job is for.",
        ["run", "name", "kind", "user", "project", "cluster", "partition", "stage"],
        {_info(run, cluster, partition): 1 for run in runs},
    )
    yield gauges(
        "xgen_run_state",
        "1 for the state that the run is in.",
        ["run", "state"],
        {(run.run.name, run.state): 1 for run in runs if run.state},
    )
    yield counters(
        "xgen_run_time_seconds_total",
        "Wall time of the run by phase; work without steps is queued, work or stop.",
        ["run", "phase"],
        {key: seconds for run in runs for key, seconds in _time(run)},
    )
    yield counters(
        "xgen_run_gpu_seconds_total",
        "GPUs times the seconds for which its jobs held them.",
        ["run"],
        {(run.run.name,): run.gpu_seconds for run in runs},
    )
    yield counters(
        "xgen_run_restarts_total",
        "Attempts after the first, by what ended the one before.",
        ["run", "reason"],
        {(run.run.name, reason): run.ledger.restarts[reason] for run in runs for reason in RESTART_REASONS},
    )
    yield from _gauges(runs, _GAUGES)
    yield from _gauges(training, _TRAINING_GAUGES)
    yield counters(
        "xgen_run_tokens_total",
        "Tokens up to the highest step.",
        ["run"],
        {(run.run.name,): run.facts.tokens_at(run.ledger.highest_step) for run in training if run.facts.planned_steps},
    )
    yield counters(
        "xgen_run_lost_steps_total",
        "Steps that had to be done again after a restart or a rollback, as far as they were told of.",
        ["run"],
        {(run.run.name,): run.ledger.lost_steps for run in training},
    )
    yield from _ratios(training, now)
    yield gauges(
        "xgen_run_shards",
        "Shards of a stage that is a job array, by state.",
        ["run", "stage", "state"],
        {key: number for run in runs for key, number in _shards(run)},
    )
    yield from score_families([(run.run.name, run.evaluated) for run in runs if run.evaluated])


def _info(run: Tracked, cluster: str, partition: str) -> tuple[str, ...]:
    facts = run.facts
    name = facts.name or run.run.name.rpartition("-")[0]
    where = facts.stage(run.stage).partition or partition
    return run.run.name, name, facts.kind, run.user, facts.project, cluster, where, run.stage


def _time(run: Tracked) -> Iterator[tuple[tuple[str, str], float]]:
    for phase in PHASES if run.trains else _WORK:
        shown = "work" if phase == "start" and not run.trains else phase
        yield (run.run.name, shown), run.spent.get(phase, 0.0)


def _gauges(runs: Sequence[Tracked], kinds: Sequence[tuple[str, str, _Value]]) -> Iterator[Metric]:
    for name, text, value in kinds:
        values = {(run.run.name,): found for run in runs if (found := value(run)) is not None}
        yield gauges(f"xgen_run_{name}", text, ["run"], values)


def _ratios(runs: Sequence[Tracked], now: float) -> Iterator[Metric]:
    """From the ledger itself, as `xgen status` has them; before any time has passed there is none."""
    effective, goodput = {}, {}
    for run in runs:
        totals = run.totals(now)
        wall, productive = sum(totals.values()), sum(totals.get(phase, 0.0) for phase in PRODUCTIVE)
        if wall > 0:
            effective[run.run.name,] = productive / wall
        if wall > totals["queued"]:
            goodput[run.run.name,] = productive / (wall - totals["queued"])
    text = "Time that trained new steps, over the wall time since submission, queueing included (arXiv 2410.21680)."
    yield gauges("xgen_run_effective_time_ratio", text, ["run"], effective)
    text = "Time that trained new steps, over the time for which a job ran."
    yield gauges("xgen_run_goodput_ratio", text, ["run"], goodput)


def _shards(run: Tracked) -> Iterator[tuple[tuple[str, str, str], int]]:
    for one in run.shards:
        counts = (len(one.finished), len(one.running), one.num_waiting, len(one.given_up))
        for state, count in zip(_SHARDS, counts, strict=True):
            yield (run.run.name, one.stage, state), count
