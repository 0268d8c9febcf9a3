"""A cluster that never was, as text that promtool turns into a Prometheus' store: for looking at dashboards.

Names and labels are those that the exporters promise (metrics.txt); the numbers are made up, so nothing here proves
that anything exports them. Nine runs on twelve nodes: one is preempted, one fails, one is lost, one holds GPUs and
does nothing; a node is drained, another comes and goes; the scheduler is away for a while.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.monitoring.fleet_scores import SCORED, scored_step, scores
from xgen.runs import PHASES

Life = tuple[tuple[float, str], ...]
_EXPORTER = {"job": "xgen-exporter", "instance": "login:9817"}
_COLLECTORS = {
    "controller": 30, "queue": 30, "nodes": 30, "scheduler": 60, "shares": 300, "ended": 300, "runs": 30, "gpus": 30,
}  # fmt: skip
_NODES = tuple(f"g{number:02}" for number in range(1, 13))
_GPUS = 8
_PHASES = (*PHASES, "work")
_STATES = ("queued", "running", "stopping", "finished", "failed", "cancelled", "lost")
_ENDS = ("finished", "failed", "lost")
_REASONS = ("preempted", "time_limit", "crashed", "lost", "other")


@dataclass
class Run:
    """`life` is (share of the time, what it does): a phase, or how it ended."""

    name: str
    kind: str
    user: str
    nodes: tuple[str, ...]
    life: Life
    loss: float = 0  # where it ends; 0: it does not train
    stage: str = ""
    planned: int = 0  # steps
    steps: int = 10_000  # that it would make in the whole time
    per_step: int = 4_000_000  # tokens
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PHASES, 0.0))
    step: float = 0
    attempt: int = 0
    started: float = 0
    saved: float = 0
    saved_step: int = 0
    again: int = 0  # steps
    gpu_seconds: float = 0
    last: float = 0
    stepped: float = 0

    @property
    def gpus(self) -> int:
        return _GPUS * len(self.nodes)

    def now(self, part: float) -> str:
        left = part
        for share, what in self.life:
            if left < share:
                return what
            left -= share
        return self.life[-1][1]


def _runs() -> list[Run]:
    preempted: Life = ((0.01, "queued"), (0.02, "start"), (0.37, "train"), (0.02, "checkpoint"), (0.02, "stop"))
    resumed: Life = ((0.06, "queued"), (0.02, "start"), (0.01, "restore"), (0.02, "replay"), (1, "train"))
    steady: Life = ((0.03, "queued"), (0.02, "start"), (1, "train"))
    sft: Life = ((0.02, "start"), (0.4, "train"), (1, "finished"))
    crash: Life = ((0.45, "queued"), (0.02, "start"), (0.1, "train"), (1, "failed"))
    idle: Life = ((0.1, "queued"), (0.02, "start"), (0.45, "train"), (1, "data_wait"))
    lost: Life = ((0.5, "queued"), (0.2, "work"), (1, "lost"))
    return [
        Run("xgen-4b-k3f9ab", "pretrain", "ann", _NODES[:4], preempted + resumed, 2.1, "broad", 12_000),
        Run("xgen-4b-q8w2xz", "pretrain", "ann", _NODES[4:6], steady, 2.25, "broad", 12_000, 7_500),
        Run("xgen-9b-m1n2op", "pretrain", "bob", _NODES[:8], ((1, "queued"),), 0, "extend-128k", 4_000),
        Run("sft-tools-a1b2c3", "sft", "cem", _NODES[7:8], sft, 1.2, "", 4_000),
        Run("dpo-tools-d4e5f6", "preference", "cem", _NODES[8:9], crash, 0.6, "", 3_000),
        Run("rl-math-g7h8i9", "rl", "dee", _NODES[9:10], idle, 0.9, "", 9_000),
        Run("curate-v3-j1k2l3", "curate", "bob", (), ((0.05, "queued"), (1, "work"))),
        Run("ruler-9b-u7v8w9", "evaluate", "dee", _NODES[11:12], lost),
        Run("scores-4b-p2q3r4", "evaluate", "ann", (), ((0.02, "queued"), (0.8, "work"), (1, "finished"))),
    ]


class Fleet:
    """All series between two times, a sample every `every` seconds."""

    def __init__(self, start: float, end: float, every: int) -> None:
        self.series: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = defaultdict(list)
        self._start, self._length, self._every = start, end - start, every
        self.runs = _runs()
        self._errors = dict.fromkeys(_COLLECTORS, 0)
        self._changes, self._flaps = 0, False
        self.time = start
        while self.time <= end:
            self.part = (self.time - start) / self._length
            self.away = 0.62 < self.part < 0.65  # the scheduler
            self._wave = math.sin(self.time / 37) + math.sin(self.time / 11)
            for run in self.runs:
                self._live(run)
            self._exporter()
            if not self.away:
                self._slurm()
            self._gpus()
            self._alerts()
            self.time += every

    def write(self, file: Path) -> None:
        """As OpenMetrics text, for `promtool tsdb create-blocks-from openmetrics`."""
        with file.open("w") as out:
            for (name, labels), samples in sorted(self.series.items()):
                inside = ",".join(f'{key}="{value}"' for key, value in labels)
                out.writelines(f"{name}{{{inside}}} {value:.10g} {time:.0f}\n" for time, value in samples)
            out.write("# EOF\n")

    def _add(self, metric: str, value: float, /, **labels: str) -> None:
        self.series[metric, tuple(sorted(labels.items()))].append((self.time, float(value)))

    def _add_all(self, prefix: str, values: Mapping[str, float], /, **labels: str) -> None:
        for name, value in values.items():
            self._add(prefix + name, value, **labels)

    def _live(self, run: Run) -> None:
        phase = run.now(self.part)
        if phase not in _ENDS:
            wait = 0.04 * self._every if phase == "train" and run.loss else 0
            run.spent[phase] += self._every - wait
            run.spent["data_wait"] += wait
            run.last = self.time
            run.gpu_seconds += self._every * run.gpus * (phase != "queued")
        if phase == "start" and (not run.started or (run.spent["stop"] and run.attempt == 1)):
            run.attempt, run.started = run.attempt + 1, self.time
            run.again = 60 * (run.attempt - 1)
            run.step -= run.again
        if phase in ("train", "replay") and run.planned:
            run.step += run.steps * self._every / self._length
            run.stepped = self.time
        if phase == "checkpoint" or (phase == "train" and self.time % (self._length / 48) < self._every):
            run.saved, run.saved_step = self.time, int(run.step)
        stage = "anneal" if run.stage and run.attempt > 1 else run.stage
        self._ledger(run, phase, stage)
        if run.kind == "curate":
            for state, share in (("finished", self.part), ("running", 0.1), ("waiting", 0.9 - 0.9 * self.part)):
                self._add("xgen_run_shards", int(100 * share), run=run.name, stage="quality", state=state, **_EXPORTER)
        if run.loss and phase in _PHASES and phase != "queued":
            self._trainer(run, stage)
        if run.name in SCORED:
            self._evaluation(run, *SCORED[run.name], goes_on=phase == "work")

    def _ledger(self, run: Run, phase: str, stage: str) -> None:
        state = phase if phase in _STATES else "running"
        label = {"run": run.name, **_EXPORTER}
        what = {"name": run.name[:-7], "kind": run.kind, "user": run.user, "project": "xgen", "cluster": "atlas"}
        self._add("xgen_run_info", 1, partition="main", stage=stage, **what, **label)
        self._add("xgen_run_state", 1, state=state, **label)
        for name, seconds in run.spent.items():
            if (name == "work") != bool(run.planned) or name in ("queued", "stop"):
                self._add("xgen_run_time_seconds_total", seconds, phase=name, **label)
        for reason in _REASONS:
            count = {"preempted": run.attempt > 1, "crashed": state == "failed"}.get(reason, False)
            self._add("xgen_run_restarts_total", count, reason=reason, **label)
        whole, train = sum(run.spent.values()) or 1, run.spent["train"]
        values: dict[str, float] = {
            "gpus": run.gpus, "gpu_seconds_total": run.gpu_seconds, "attempts": max(run.attempt, 1),
            "last_event_timestamp_seconds": run.last, "lost_steps_total": run.again, "lost": state == "lost",
        }  # fmt: skip
        if run.planned:
            values |= {
                "goodput_ratio": train / ((whole - run.spent["queued"]) or 1), "effective_time_ratio": train / whole,
                "highest_step": int(run.step), "planned_steps": run.planned, "checkpoint_durable_step": run.saved_step,
                "tokens_total": int(run.step) * run.per_step, "planned_tokens": run.planned * run.per_step,
            }  # fmt: skip
        self._add_all("xgen_run_", values, **label)

    def _trainer(self, run: Run, stage: str) -> None:
        attempt = {"run": run.name, "attempt": str(run.attempt), "job_id": f"812{run.attempt}"}
        target = {"node": run.nodes[0], "job": "xgen-runs", "instance": f"{run.nodes[0]}:4711"}
        label = {**attempt, **target, "user": run.user, "partition": "main"}
        step = run.step
        self._add("up", 1, **label)
        self._add_all(
            "xgen_train_",
            {
                "step": int(step), "highest_step": int(step), "tokens_total": int(step) * run.per_step,
                "last_step_timestamp_seconds": run.stepped or run.started,
                "attempt_start_timestamp_seconds": run.started,
                "loss": run.loss + 7 * math.exp(-step / 300) + 0.02 * self._wave,
                "grad_norm": 0.6 + 2 * math.exp(-step / 80) + 0.05 * self._wave,
                "learning_rate": 3e-4 * min(1, step / 200), "data_wait_seconds_total": run.spent["data_wait"],
                "step_seconds_sum": run.spent["train"], "step_seconds_count": step,
                "resumed_step": run.saved_step if run.attempt > 1 else 0, "checkpoint_durable_step": run.saved_step,
                "checkpoint_durable_timestamp_seconds": run.saved or self.time, "checkpoint_save_seconds": 31,
                "slowest_rank": 3, "slowest_rank_ratio": 1.04 + 0.02 * self._wave + 0.25 * (run.steps < 8000),
                "mfu_ratio": 0.41 + 0.01 * self._wave, "planned_tokens": run.planned * run.per_step,
            },
            **label,
        )  # fmt: skip
        for name in _PHASES[:-1]:
            self._add("xgen_train_time_seconds_total", run.spent[name], phase=name, **label)
        for le, share in (("0.5", 0.05), ("10", 0.9), ("20", 1.0), ("+Inf", 1.0)):
            self._add("xgen_train_step_seconds_bucket", step * share, le=le, **label)
        for domain, loss, share in (("web", 2.3, 0.6), ("code", 1.1, 0.3), ("math", 1.5, 0.1)):
            held_out = loss + 5 * math.exp(-(step // 100) / 3)
            self._add("xgen_train_validation_loss", held_out, domain=domain, **label)
            self._add("xgen_train_mixture_tokens_total", int(step) * run.per_step * share, domain=domain, **label)
        for reason in _REASONS:
            self._add("xgen_train_restarts_total", run.attempt > 1 and reason == "preempted", reason=reason, **label)
        for action in ("record", "skip", "rollback", "stop"):
            self._add("xgen_train_guard_total", step > 900 and action == "skip", action=action, **label)
        self._add("xgen_train_memory_bytes", 61e9, kind="allocated_peak", **label)
        if run.kind == "preference":
            self._preference(step, label)
        if run.kind == "rl":
            self._rl(step, label)
        if stage:
            self._add("xgen_train_stage_info", 1, stage=stage, **label)

    def _preference(self, step: float, label: dict[str, str]) -> None:
        learnt = 1 - math.exp(-step / 200)
        values = {"accuracy": 0.5 + 0.4 * learnt, "reward_margin": 2 * learnt}
        self._add_all("xgen_train_preference_", values, **label)
        self._add("xgen_train_validation_accuracy", 0.5 + 0.35 * learnt, domain="safety", **label)

    def _rl(self, step: float, label: dict[str, str]) -> None:
        learnt = 1 - math.exp(-step / 2000)
        for source, best in (("math", 0.8), ("code", 0.5)):
            values = {"reward": best * learnt, "pass_rate": best * learnt, "evaluation_pass_rate": 0.9 * best * learnt}
            self._add_all("xgen_rl_", values, source=source, **label)
        values = {
            "response_tokens": 400 + 900 * learnt, "truncated_ratio": 0.1 * learnt, "entropy": 1.2 - 0.8 * learnt,
            "kl": 0.02 * learnt, "clip_ratio": 0.01 + 0.002 * self._wave, "staleness_steps": 1,
            "generated_tokens_per_second": 41e3 + 1e3 * self._wave, "trained_tokens_per_second": 52e3,
            "trained_tokens_total": 9e5 * step, "excluded_answers": 2, "resampled_batches": 1,
        }  # fmt: skip
        self._add_all("xgen_rl_", values, **label)
        self._add("xgen_rl_verifier_seconds", 0.4 + 0.05 * self._wave, verifier="code", **label)
        self._add("xgen_rl_verifier_failures_total", step // 900, verifier="code", reason="timeout", **label)

    def _evaluation(self, run: Run, target: str, best: float, goes_on: bool) -> None:
        """What it found stays when it has ended."""
        [scored] = [one for one in self.runs if one.name == target]
        if goes_on:
            run.saved_step = scored_step(scored.step)
        if run.saved_step:
            label = {"run": run.name, "target": target, **_EXPORTER}
            self._add("xgen_eval_timestamp_seconds", run.last, **label)
            for name, value, labels in scores(run.saved_step, best, scored.loss):
                self._add(f"xgen_eval_{name}", value, **labels, **label)

    def _exporter(self) -> None:
        self._add("up", 1, **_EXPORTER)
        self._add("scrape_duration_seconds", 0.012 + 0.002 * self._wave, **_EXPORTER)
        self._add("xgen_exporter_build_info", 1, version="0.2.0", **_EXPORTER)
        self._add("xgen_slurm_controller_up", not self.away, **_EXPORTER)
        for index, (collector, interval) in enumerate(_COLLECTORS.items()):
            broken = collector == "ended" and self.part > 0.9
            failed = broken or (self.away and collector not in ("controller", "runs", "gpus"))
            self._errors[collector] += failed and self.time % interval < self._every
            age = (self.part - (0.9 if broken else 0.62)) * self._length if failed else self.time % interval
            label = {"collector": collector, **_EXPORTER}
            seconds = 20 if failed else 0.1 * (index + 1) + 0.03 * self._wave
            values = {"success": not failed, "duration_seconds": seconds, "interval_seconds": interval}
            self._add_all("xgen_exporter_collector_", values, **label)
            self._add("xgen_exporter_collector_last_success_timestamp_seconds", self.time - age, **label)
            self._add("xgen_exporter_series", 0 if failed and age > 3 * interval else 80 * (index + 1), **label)
            for reason in ("timeout", "exit"):
                errors = self._errors[collector] if (reason == "timeout") == broken else 0
                self._add("xgen_exporter_collector_errors_total", errors, reason=reason, **label)

    def _slurm(self) -> None:
        held = {node: run for run in self.runs for node in run.nodes if run.now(self.part) not in ("queued", *_ENDS)}
        flaps = math.sin(self.part * 60) > 0.93
        self._changes, self._flaps = self._changes + (flaps != self._flaps), flaps
        for node in _NODES:
            status = "drained" if node == "g07" else "allocated" if node in held else "idle"
            status = "down*" if node == "g11" and flaps else status
            self._add("slurm_node_status", 1, node=node, status=status, partition="main", **_EXPORTER)
            changes = self._changes if node == "g11" else 0
            self._add("xgen_slurm_node_state_changes_total", changes, node=node, **_EXPORTER)
        self._add("slurm_node_drain_reason_info", 1, node="g07", reason="health: GPU 3 ECC", **_EXPORTER)
        total, alloc, other = _GPUS * len(_NODES), _GPUS * len(held), _GPUS * (1 + flaps)
        gpus = {"total": total, "alloc": alloc, "idle": total - alloc - other, "other": other}
        self._add_all("slurm_gpus_", gpus, **_EXPORTER)
        scheduler = {
            "threads": 3, "queue_size": 0, "dbd_queue_size": 2 + 40 * (self.part > 0.9), "mean_cycle": 18000,
            "last_cycle": 21000 + 4000 * self._wave, "backfill_last_cycle": 300000 + 40000 * self._wave,
        }  # fmt: skip
        self._add_all("slurm_scheduler_", scheduler, **_EXPORTER)
        for user in {run.user for run in held.values()}:
            number = _GPUS * sum(run.user == user for run in held.values())
            self._add("slurm_user_gpus_running", number, user=user, **_EXPORTER)
        for user, share in (("ann", 0.21), ("bob", 0.64), ("cem", 0.83), ("dee", 0.79)):
            self._add("slurm_user_fairshare", share, user=user, account="research", **_EXPORTER)
        for reason, weight in (("Priority", 1.0), ("Resources", 2.0), ("QOSMaxGRESPerUser", 0.5)):
            jobs = round(weight * (4 + 3 * math.sin(self.part * 9)))
            self._add("xgen_slurm_pending_jobs", jobs, partition="main", reason=reason, **_EXPORTER)
        for partition, wait in (("main", 3600 + self.part * self._length), ("scavenge", 600)):
            self._add("xgen_slurm_queue_oldest_pending_seconds", wait, partition=partition, **_EXPORTER)
            numbers = {"gpus_idle": gpus["idle"], "gpus_allocated": alloc, "cpus_idle": 96, "jobs_running": 7}
            self._add_all("slurm_partition_", {**numbers, "jobs_pending": 14}, partition=partition, **_EXPORTER)
        for state, rate in (("completed", 40), ("failed", 3), ("preempted", 5)):
            ended = int(rate * self.part * 10)
            self._add("xgen_slurm_jobs_ended_total", ended, state=state, partition="main", **_EXPORTER)
        for name, size in (("size", 4e14), ("free", 4e14 * (0.3 - 0.15 * self.part))):
            self._add(f"xgen_filesystem_{name}_bytes", size, path="/shared/runs", **_EXPORTER)

    def _gpus(self) -> None:
        for run in self.runs:
            phase = run.now(self.part)
            for node in run.nodes if phase in _PHASES and phase != "queued" else ():
                for gpu in range(_GPUS):
                    place = {"gpu": str(gpu)}
                    self._add("xgen_gpu_info", 1, hostname=node, run=run.name, job_id="8121", **place, **_EXPORTER)
                    place["UUID"] = f"GPU-{node}-{gpu}"
                    busy = 95 - 12 * (node == "g06") + self._wave if phase in ("train", "replay", "work") else 0
                    values: dict[str, float] = {
                        "GPU_UTIL": busy, "GPU_TEMP": 40 + busy * 0.4, "POWER_USAGE": 90 + busy * 5.8,
                        "FB_USED": 70_000, "FB_FREE": 10_000,
                        "XID_ERRORS": 79 if node == "g05" and gpu == 3 and self.part > 0.97 else 0,
                    }  # fmt: skip
                    # One node has the newer dcgm-exporter.
                    host = {"hostname" if node == "g06" else "Hostname": node}
                    self._add_all("DCGM_FI_DEV_", values, job="dcgm", instance=f"{node}:9400", **host, **place)

    def _alerts(self) -> None:
        for name, severity, since, labels in (
            ("XgenRunLost", "critical", 0.7, {"run": "ruler-9b-u7v8w9"}),
            ("XgenGpusIdle", "warning", 0.8, {"run": "rl-math-g7h8i9"}),
            ("XgenNodeFlapping", "warning", 0.5, {"node": "g11"}),
            ("XgenExporterBlind", "critical", 0.92, {"collector": "ended"}),
            ("XgenQueueStuck", "warning", 0.6, {"partition": "main"}),
            ("XgenGpuXid", "critical", 0.975, {"node": "g05", "gpu": "3"}),
        ):
            if self.part >= since:
                label = {"alertname": name, "severity": severity, **labels}
                self._add("ALERTS", 1, alertstate="firing", **label)
                self._add("ALERTS_FOR_STATE", self._start + since * self._length, **label)
