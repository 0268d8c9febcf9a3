"""One run across its attempts."""

from __future__ import annotations

from monitoring.source.charts import Bands, Lines, Stat, States
from monitoring.source.dashboard import Annotation, Dashboard, Row, Variable
from monitoring.source.look import ANSWERS, GREY, PHASES, RATIO, STEP_AGE, UNSAVED_AGE, UP
from monitoring.source.panel import Link, Named, Query
from monitoring.source.training import CHECKPOINTS, GUARD, MACHINE, SPEED

_NOW = """topk(1,
  max by (phase) (rate(xgen_train_time_seconds_total{run="$run"}[$__rate_interval]))
  or label_replace(vector(1e-9), "phase", "not running", "", "")
  or label_replace(max(run:xgen_train_progress_age_seconds:min{run="$run"} > 900) * 0 + 2, "phase", "stalled", "", "")
  or label_replace((max(max_over_time(up{job="xgen-runs", run="$run"}[1m]) and up{job="xgen-runs", run="$run"}) == 0) + 3, "phase", "not answering", "", "")
  or label_replace(count(xgen_train_loss{run="$run"} != xgen_train_loss{run="$run"} or abs(xgen_train_loss{run="$run"}) == +Inf) * 0 + 4, "phase", "loss not finite", "", "")
)"""  # noqa: E501
_FAULTS = (Named("loss not finite", "red"), Named("not answering", "red"), Named("stalled", "red"))
_STAGE_STARTS = (
    'min by (stage) (max by (attempt, stage) (last_over_time(xgen_train_stage_info{run="$run"}[$__range])) '
    "* on (attempt) group_left () max by (attempt) "
    '(last_over_time(xgen_train_attempt_start_timestamp_seconds{run="$run"}[$__range]))) * 1000'
)

DASHBOARD = Dashboard(
    name="run",
    title="xgen run",
    description="One training run across its attempts: what it does now, what is wrong, where its time went.",
    variables=(Variable("run", "Run", "label_values(xgen_train_time_seconds_total, run)"),),
    links=(
        Link("Its nodes and GPUs", "/d/xgen-nodes?var-datasource=${datasource}&var-run=${run}"),
        Link("Compare it", "/d/xgen-compare?var-datasource=${datasource}&var-run=${run}"),
    ),
    annotations=(
        Annotation(
            "Attempts",
            "orange",
            'max by (attempt, job_id) (xgen_train_attempt_start_timestamp_seconds{run="$run"}) * 1000',
            "attempt {{attempt}}",
            "job {{job_id}}",
            value_is_time=True,
        ),
        Annotation(
            "Stages", "purple", _STAGE_STARTS, "{{stage}}", "the first attempt of this stage", value_is_time=True
        ),
        Annotation(
            "Guard",
            "red",
            'max by (action) (increase(xgen_train_guard_total{run="$run"}[$__rate_interval])) > bool 0',
            "guard: {{action}}",
            "xgen status says the step and the reason",
            value_is_time=False,
        ),
        Annotation(
            "Restarts",
            "yellow",
            'max by (reason) (increase(xgen_run_restarts_total{run="$run"}[$__rate_interval])) > bool 0',
            "{{reason}}",
            "why the attempt before ended",
            value_is_time=False,
        ),
        Annotation(
            "Saves",
            "blue",
            'max(xgen_train_checkpoint_durable_timestamp_seconds{run="$run"}) * 1000',
            "saved",
            "the checkpoint is durable",
            value_is_time=True,
            shown=False,
        ),
    ),
    rows=(
        Row(
            4,
            (
                Stat(
                    title="Now",
                    description="What the run is doing: the phase that took most of the last minute; or the one thing "
                    "that is wrong. Stalled: no step for 15 minutes. Not answering: its target is announced and does "
                    "not answer. Not running: queued, or finished.",
                    width=5,
                    queries=(Query(_NOW, "{{phase}}", instant=True),),
                    no_value="unknown",
                    color=GREY,
                    series=(*PHASES, *_FAULTS),
                    show="name",
                    filled=True,
                ),
                Stat(
                    title="Since the last step",
                    description="Time since a step was finished, or since the attempt started when it has finished "
                    "none. Orange after 5 minutes, red after 15 (alert XgenRunStalled). Stands still when no attempt "
                    "runs.",
                    width=3,
                    queries=(Query('max(run:xgen_train_progress_age_seconds:min{run="$run"})', "age"),),
                    unit="s",
                    decimals=0,
                    levels=STEP_AGE,
                ),
                Stat(
                    title="Checkpoint age",
                    description="What a crash would cost now: time since the newest durable checkpoint, or since the "
                    "attempt started. Orange after 1 hour, red after 2 (alert XgenRunCheckpointTooOld).",
                    width=3,
                    queries=(Query('max(run:xgen_train_unsaved_seconds:min{run="$run"})', "age"),),
                    unit="s",
                    decimals=0,
                    levels=UNSAVED_AGE,
                ),
                Stat(
                    title="Effective training time",
                    description="Time in new steps over wall time since submission, queueing included (ETTR, arXiv "
                    "2410.21680). Below 80 % look at where the time went; a short run spends much of its time "
                    "starting.",
                    width=4,
                    queries=(
                        Query(
                            "sum(max by (phase) "
                            '(xgen_train_time_seconds_total{phase=~"train|generate|verify", run="$run"})) '
                            '/ sum(max by (phase) (xgen_train_time_seconds_total{run="$run"}))',
                            "ETTR",
                        ),
                    ),
                    unit="percentunit",
                    decimals=1,
                    low=0,
                    high=1,
                    levels=RATIO,
                ),
                Stat(
                    title="Restarts",
                    description="Attempts after the first. Preemptions are normal; crashes are not: see restarts by "
                    "reason.",
                    width=3,
                    queries=(Query('sum(max by (reason) (xgen_train_restarts_total{run="$run"}))', "restarts"),),
                    decimals=0,
                ),
                Stat(
                    title="Step",
                    description="Last step that was finished.",
                    width=3,
                    queries=(Query('max(xgen_train_step{run="$run"})', "step"),),
                    unit="locale",
                    decimals=0,
                ),
                Stat(
                    title="Tokens per second",
                    description="Over all ranks, saves and waiting included.",
                    width=3,
                    queries=(Query('sum(rate(xgen_train_tokens_total{run="$run"}[$__rate_interval]))', "tokens/s"),),
                    unit="si:tok/s",
                ),
            ),
        ),
        Row(
            3,
            (
                States(
                    title="Exporter",
                    description="When an attempt was running, and whether it answered Prometheus. A gap: no attempt "
                    "ran (queued, or finished). Red: announced and silent for a minute, so it died without a word, "
                    "hangs, or cannot be reached (alert XgenRunNotAnswering).",
                    width=24,
                    queries=(
                        Query(
                            'max(max_over_time(up{job="xgen-runs", run="$run"}[1m]) '
                            'and up{job="xgen-runs", run="$run"})',
                            "exporter",
                        ),
                    ),
                    no_value="no attempt ran",
                    levels=UP,
                    texts=ANSWERS,
                ),
            ),
        ),
        Row(
            9,
            (
                Lines(
                    title="Loss",
                    description="Training loss, mean over all tokens of the step. A gap: no attempt ran. A jump at "
                    "the start of an attempt means that the resume was not exact.",
                    width=12,
                    queries=(Query('max(xgen_train_loss{run="$run"})', "loss"),),
                    no_value="no step yet",
                    color="blue",
                    axis="free",
                    line=2,
                ),
                Bands(
                    title="Where the time went",
                    description="Wall time since submission by phase: exactly one band grows at any moment, so the "
                    "top edge is wall time. Green is new steps, with what online RL waits for answers and verdicts; "
                    "replay is steps done again after a crash; queued, start and restore are what a restart costs.",
                    width=12,
                    queries=(
                        Query('max by (phase) (xgen_train_time_seconds_total{phase="train", run="$run"})', "{{phase}}"),
                        Query(
                            'max by (phase) (xgen_train_time_seconds_total{phase!="train", run="$run"})', "{{phase}}"
                        ),
                    ),
                    unit="s",
                    no_value="no attempt yet",
                    series=PHASES,
                    legend="table",
                    span_gaps=True,
                ),
            ),
        ),
        SPEED,
        CHECKPOINTS,
        GUARD,
        MACHINE,
    ),
)
