"""Rows of the run's dashboard: its curves, its checkpoints, what guarded it."""

from __future__ import annotations

from monitoring.source.charts import Bands, Bars, Lines, Stat
from monitoring.source.dashboard import Row
from monitoring.source.look import FAINT
from monitoring.source.panel import Named, Query

_STEPS = 'sum(rate(xgen_train_step_seconds_count{run="$run"}[$__rate_interval]))'

SPEED = Row(
    7,
    (
        Lines(
            title="Throughput",
            description="Over all ranks. Dips at saves; a lasting fall is a slow node, slow data or other settings.",
            width=6,
            queries=(Query('sum(rate(xgen_train_tokens_total{run="$run"}[$__rate_interval]))', "tokens/s"),),
            unit="si:tok/s",
            no_value="no step yet",
            color="green",
            fill=10,
        ),
        Lines(
            title="Step time",
            description="Wall time of a step: mean and 95th percentile, and how much of the mean is waiting for data.",
            width=6,
            queries=(
                Query(f'sum(rate(xgen_train_step_seconds_sum{{run="$run"}}[$__rate_interval])) / {_STEPS}', "mean"),
                Query(
                    "histogram_quantile(0.95, sum by (le) "
                    '(rate(xgen_train_step_seconds_bucket{run="$run"}[$__rate_interval])))',
                    "95th percentile",
                ),
                Query(
                    f'sum(rate(xgen_train_data_wait_seconds_total{{run="$run"}}[$__rate_interval])) / {_STEPS}',
                    "waiting for data",
                ),
            ),
            unit="s",
            no_value="no step yet",
            series=(
                Named("mean", "blue"),
                Named("95th percentile", "purple"),
                Named("waiting for data", "yellow"),
            ),
            legend="list",
        ),
        Lines(
            title="Gradient norm",
            description="Norm of the gradient before clipping. Spikes that do not go back are the first sign "
            "of a run that diverges.",
            width=6,
            queries=(Query('max(xgen_train_grad_norm{run="$run"})', "gradient norm"),),
            no_value="no step yet",
            color="orange",
        ),
        Lines(
            title="Learning rate",
            description="Learning rate of the last step; it must go on where it was when an attempt starts.",
            width=6,
            queries=(Query('max(xgen_train_learning_rate{run="$run"})', "learning rate"),),
            unit="sci",
            no_value="no step yet",
            color="purple",
        ),
    ),
)
CHECKPOINTS = Row(
    7,
    (
        Lines(
            title="Steps",
            description="Where the run stands, the newest checkpoint, and where this attempt began. Step "
            "below highest: steps are done again.",
            width=7,
            queries=(
                Query('max(xgen_train_highest_step{run="$run"})', "highest"),
                Query('max(xgen_train_step{run="$run"})', "step"),
                Query('max(xgen_train_checkpoint_durable_step{run="$run"})', "checkpoint"),
                Query('max(xgen_train_resumed_step{run="$run"})', "resumed at"),
            ),
            unit="locale",
            decimals=0,
            no_value="no attempt yet",
            series=(
                Named("highest", FAINT, dashed=True),
                Named("step", "blue"),
                Named("checkpoint", "green", steps=True),
                Named("resumed at", "orange", steps=True),
            ),
            legend="list",
        ),
        Lines(
            title="Checkpoint age over time",
            description="Time since the newest durable checkpoint, or since the attempt started: what a crash "
            "would cost. A saw: each fall is a save.",
            width=6,
            queries=(Query('max(run:xgen_train_unsaved_seconds:min{run="$run"})', "age"),),
            unit="s",
            no_value="no attempt yet",
            color="blue",
            axis="from zero",
            fill=10,
        ),
        Lines(
            title="Checkpoint save time",
            description="How long the last save held up the training. It must fit into the lead and the "
            "partition's grace, or a preemption costs work.",
            width=5,
            queries=(Query('max(xgen_train_checkpoint_save_seconds{run="$run"})', "save"),),
            unit="s",
            no_value="no save yet",
            color="green",
            axis="from zero",
            fill=10,
            steps=True,
        ),
        Bars(
            title="Restarts by reason",
            description="Why attempts ended before the run did. Preempted and time limit are the cluster's "
            "doing; crashed and lost are to be looked at.",
            width=6,
            queries=(Query('max by (reason) (xgen_train_restarts_total{run="$run"})', "{{reason}}"),),
            decimals=0,
            low=0,
            no_value="no attempt yet",
            color="blue",
        ),
    ),
)
GUARD = Row(
    7,
    (
        Lines(
            title="Validation loss",
            description="Loss on held-out text by domain, where the spec asks for validation; it stands still "
            "between two validations. By position in the document: metrics/validation.jsonl of the run.",
            width=12,
            queries=(Query('max by (domain) (xgen_train_validation_loss{run="$run"})', "{{domain}}"),),
            no_value="none: no validation yet",
            legend="list",
            steps=True,
        ),
        Bars(
            title="What the guard did",
            description="Steps whose loss or gradient norm was not finite or far above the last ones, by what "
            "was done. Which steps, and why: xgen status.",
            width=6,
            queries=(Query('max by (action) (xgen_train_guard_total{run="$run"})', "{{action}}"),),
            decimals=0,
            low=0,
            no_value="no attempt yet",
            color="blue",
            series=(Named("skip", "yellow"), Named("rollback", "orange"), Named("stop", "red")),
        ),
        Stat(
            title="Stage",
            description="The stage that is trained now; nothing for work without stages, and while no attempt runs.",
            width=6,
            queries=(Query('topk(1, max by (stage) (xgen_train_stage_info{run="$run"}))', "{{stage}}", instant=True),),
            no_value="none",
            color="purple",
            show="name",
        ),
    ),
)
_MIXTURE = 'sum by (domain) (rate(xgen_train_mixture_tokens_total{run="$run"}[$__rate_interval]))'
MACHINE = Row(
    7,
    (
        Lines(
            title="MFU",
            description="FLOPs that the model needs, over what its GPUs could do (model FLOPs utilization). Far below "
            "what xgen plan says: look at step time, then at Nodes & GPUs. It falls as documents grow longer.",
            width=6,
            queries=(Query('max(xgen_train_mfu_ratio{run="$run"})', "MFU"),),
            unit="percentunit",
            no_value="none: the processor's speed is not known",
            color="green",
            axis="from zero",
            fill=10,
        ),
        Lines(
            title="Memory",
            description="Peak of rank 0 since the attempt started: allocated is what the tensors took, reserved what "
            "PyTorch holds. Reserved far above allocated: fragments; near the GPU's size: the next stage may not fit.",
            width=6,
            queries=(Query('max by (kind) (xgen_train_memory_bytes{run="$run"})', "{{kind}}"),),
            unit="bytes",
            no_value="none: no step yet",
            axis="from zero",
            legend="list",
        ),
        Bands(
            title="Mixture as consumed",
            description="Shares of the tokens that are trained on, by domain: what was consumed, not what the spec "
            "asked for. They must stay within a stage; one that vanishes has run out.",
            width=12,
            queries=(Query(f"{_MIXTURE} / ignoring (domain) group_left () sum({_MIXTURE})", "{{domain}}"),),
            unit="percentunit",
            high=1,
            no_value="none: no mixture",
            legend="table",
        ),
    ),
)
