"""Runs side by side: what they score, over steps, over tokens, over what they cost.

Prometheus knows time only; Curves undo that.
"""

from __future__ import annotations

from monitoring.source.charts import Bars, Curves, Lines, Shares
from monitoring.source.dashboard import Dashboard, Row, Variable
from monitoring.source.look import PHASES, RATIO, STATES, TO_RUN, TO_RUN_OF_SERIES
from monitoring.source.panel import Query
from monitoring.source.scores import ROWS as SCORES
from monitoring.source.table import Column, Table

_RUN = 'run=~"$run"'
_LOSS = f"max by (run) (avg_over_time(xgen_train_loss{{{_RUN}}}[$__rate_interval]))"
_STEP = f"max by (run) (xgen_train_step{{{_RUN}}})"
_STEP_OF_ALL = f"xgen_train_step{{{_RUN}}}[$__range] @ end()"
_TOKENS = f"max by (run) (xgen_train_tokens_total{{{_RUN}}})"
_SPEED = f"sum by (run) (rate(xgen_train_tokens_total{{{_RUN}}}[$__rate_interval]))"


# Without the first steps, whose losses would set the scale and hide what differs.
_LATER_LOSS = f"{_LOSS} and on (run) {_STEP} > on (run) 0.03 * max by (run) (max_over_time({_STEP_OF_ALL}))"


def _loss_at(part: float) -> Column:
    """Of each run when it was at this part of the way that all have come, within the time range."""
    shared = f"scalar(min(max by (run) (max_over_time(xgen_train_tokens_total{{{_RUN}}}[$__range] @ end()))))"
    return Column(
        title=f"Loss at {part:.0%}",
        expr=f"last_over_time(({_LOSS} and on (run) {_TOKENS} <= {part:g} * {shared})[$__range:])",
        decimals=3,
        width=105,
    )


_SIDE_BY_SIDE = Row(
    8,
    (
        Table(
            title="Side by side",
            description="What each run is, where it stands, and its loss after the same number of tokens: the parts "
            "are of the way that all chosen runs have come within this time range. Choose a range that holds the "
            "whole of all runs.",
            width=24,
            rows=f"max by (run, user, kind, state) (max by (run, user, kind) (xgen_run_info{{{_RUN}}}) "
            f"* on (run) group_right (user, kind) (xgen_run_state{{{_RUN}}} == 1))",
            no_value="choose runs above",
            sort="Run",
            columns=(
                Column(title="Run", label="run", link=TO_RUN, width=200),
                Column(title="State", label="state", show="filled", texts=STATES, width=90),
                Column(title="User", label="user", width=90),
                Column(title="Kind", label="kind", width=90),
                Column(title="GPUs", expr=f"max by (run) (xgen_run_gpus{{{_RUN}}})", decimals=0, width=65),
                Column(title="Step", expr=f"max by (run) (xgen_run_highest_step{{{_RUN}}})", unit="locale", width=90),
                Column(
                    title="Tokens",
                    expr=f"max by (run) (xgen_run_tokens_total{{{_RUN}}})",
                    unit="si:tok",
                    decimals=1,
                    width=105,
                ),
                *map(_loss_at, (0.25, 0.5, 0.75, 1)),
                Column(
                    title="GPU-hours",
                    expr=f"max by (run) (xgen_run_gpu_seconds_total{{{_RUN}}}) / 3600",
                    decimals=1,
                    width=100,
                ),
                Column(
                    title="Goodput",
                    expr=f"max by (run) (xgen_run_goodput_ratio{{{_RUN}}})",
                    unit="percentunit",
                    decimals=0,
                    show="color",
                    levels=RATIO,
                    width=90,
                    no_value="none",
                ),
                Column(
                    title="Effective time",
                    expr=f"max by (run) (xgen_run_effective_time_ratio{{{_RUN}}})",
                    unit="percentunit",
                    decimals=0,
                    show="color",
                    levels=RATIO,
                    width=115,
                    no_value="none",
                ),
                Column(
                    title="Restarts", expr=f"sum by (run) (xgen_run_restarts_total{{{_RUN}}})", decimals=0, width=85
                ),
            ),
        ),
    ),
)
_LOSSES = Row(
    10,
    (
        Curves(
            title="Loss by step",
            description="The same step, whenever it was, without the first 3 %. Curves that part where a setting "
            "differs are the answer; a curve that goes back at a restart did steps again. (Grafana 10.4 and newer; "
            "the table above says the same to older ones.)",
            width=12,
            x=_STEP,
            x_title="step",
            x_unit="locale",
            y=_LATER_LOSS,
            y_title="loss",
            no_value="choose runs above",
        ),
        Curves(
            title="Loss by tokens",
            description="The same number of tokens: the fair comparison of runs whose batches differ.",
            width=12,
            x=_TOKENS,
            x_title="tokens",
            x_unit="si:tok",
            y=_LATER_LOSS,
            y_title="loss",
            no_value="choose runs above",
        ),
    ),
)
_COSTS = Row(
    9,
    (
        Curves(
            title="Loss by GPU-hours",
            description="What each loss cost. The lower curve learns more for the same machine time, restarts and "
            "waiting for data included. Needs runs with GPUs.",
            width=8,
            step="1m",
            x=f"max by (run) (xgen_run_gpu_seconds_total{{{_RUN}}}) / 3600",
            x_title="GPU-hours",
            x_unit="suffix:GPU-h",
            y=_LATER_LOSS,
            y_title="loss",
            no_value="none: no run has GPUs",
        ),
        Curves(
            title="Tokens by time since submission",
            description="All runs from the same start. Flat: queued, starting, or ended. Less steep: slower.",
            width=8,
            step="1m",
            x=f"sum by (run) (xgen_run_time_seconds_total{{{_RUN}}})",
            x_title="since submission",
            x_unit="s",
            y=f"max by (run) (xgen_run_tokens_total{{{_RUN}}})",
            y_title="tokens",
            unit="si:tok",
            no_value="choose runs above",
        ),
        Shares(
            title="Where the time went",
            description="Wall time since submission by phase, of each run. Green is new steps; what differs between "
            "two runs of the same spec is the cluster's doing.",
            width=8,
            expr=f"max by (run, phase) (xgen_run_time_seconds_total{{{_RUN}}})",
            rows="run",
            parts="phase",
            unit="s",
            series=PHASES,
            percent=True,
            no_value="choose runs above",
        ),
    ),
)
_SPEEDS = Row(
    8,
    (
        Bars(
            title="Speed per GPU",
            description="Tokens a second and GPU, mean of the last 15 minutes in which each run trained. The same "
            "model on the same GPUs should be within a few percent.",
            width=6,
            queries=(
                Query(
                    f"sort_desc(max by (run) (last_over_time((({_SPEED}) > 0)[$__range:])) / on (run) "
                    f"clamp_min(max by (run) (xgen_run_gpus{{{_RUN}}}), 1))",
                    "{{run}}",
                    instant=True,
                ),
            ),
            unit="si:tok/s",
            low=0,
            no_value="choose runs above",
            color="blue",
            links=(TO_RUN_OF_SERIES,),
        ),
        Lines(
            title="Throughput",
            description="Over all ranks, over time of day: runs that fall together share a cause, the file system or "
            "the network.",
            width=6,
            queries=(Query(_SPEED, "{{run}}"),),
            unit="si:tok/s",
            no_value="choose runs above",
            legend="list",
            links=(TO_RUN_OF_SERIES,),
        ),
        Lines(
            title="Gradient norm",
            description="Before clipping. The run whose norm grows is the one that will diverge.",
            width=6,
            queries=(Query(f"max by (run) (xgen_train_grad_norm{{{_RUN}}})", "{{run}}"),),
            no_value="choose runs above",
            legend="list",
            links=(TO_RUN_OF_SERIES,),
        ),
        Lines(
            title="Learning rate",
            description="Whether the runs are at the same place of their schedules.",
            width=6,
            queries=(Query(f"max by (run) (xgen_train_learning_rate{{{_RUN}}})", "{{run}}"),),
            unit="sci",
            no_value="choose runs above",
            legend="list",
            links=(TO_RUN_OF_SERIES,),
        ),
    ),
)

DASHBOARD = Dashboard(
    name="compare",
    title="xgen compare",
    description="Runs side by side: what they score, over steps, over tokens, over what they cost. Choose the runs "
    "above.",
    since="now-24h",
    variables=(Variable("run", "Runs", "label_values(xgen_train_time_seconds_total, run)", many=True),),
    rows=(_SIDE_BY_SIDE, *SCORES, _LOSSES, _COSTS, _SPEEDS),
)
