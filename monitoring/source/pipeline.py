"""The runs as stages of a pipeline: what is done, what is under way, how far to the plan, how good the result is."""

from __future__ import annotations

from monitoring.source.charts import Bands, Bars, Lines, Shares, Stat, States
from monitoring.source.dashboard import Dashboard, Row, Variable
from monitoring.source.look import DONE, PROJECT, STATES, TO_RUN, TO_RUN_OF_SERIES, USER, runs_in
from monitoring.source.panel import Levels, Named, Query, Texts
from monitoring.source.scores import of_any
from monitoring.source.table import Column, Table

_CHOSEN = 'xgen_run_info{project=~"$project", user=~"$user", kind=~"$kind"}'
_STATE_COLORS = tuple(Named(str(name), color) for name, (_, color) in STATES.items())
_NUMBERS_OF_STATES: Texts = dict(enumerate(STATES.values()))
_SPEED = "max by (run) (run:xgen_train_tokens:rate1m)"
_TO_GO = "clamp_min(max by (run) (xgen_run_planned_tokens) - max by (run) (xgen_run_tokens_total), 0)"


def _of_chosen(expr: str) -> str:
    return f"{expr} and on (run) {_CHOSEN}"


def _number(title: str, state: str, description: str, levels: Levels) -> Stat:
    return Stat(
        title=title,
        description=description,
        width=4,
        queries=(Query(runs_in(state, _CHOSEN), "runs", instant=True),),
        decimals=0,
        no_value="blind",
        levels=levels,
    )


_NUMBERS = Row(
    4,
    (
        _number("Running", "running", "Runs that hold their nodes now.", ("text", (1, "green"))),
        _number(
            "Queued",
            "queued",
            "Runs that wait for the scheduler, or for the stage before.",
            ("text",),
        ),
        _number("Finished", "finished", "Runs that came to their end in the last week.", ("text", (1, "blue"))),
        _number(
            "Failed",
            "failed",
            "Runs that ended with an error and do not try again. `xgen logs RUN`, mend the spec, submit again: it "
            "resumes from the last checkpoint.",
            ("text", (1, "red")),
        ),
        _number(
            "Lost",
            "lost",
            "Runs that should run and have no job (alert XgenRunLost). `xgen resume RUN` starts them again.",
            ("text", (1, "red")),
        ),
        Stat(
            title="Until all are done",
            description="Of the runs that train now, the one that needs longest at its present speed, restarts not "
            "counted.",
            width=4,
            queries=(Query(f"max({_TO_GO} / on (run) ({_of_chosen(f'({_SPEED} > 0)')}))", "left", instant=True),),
            unit="s",
            decimals=1,
            no_value="none: no run trains",
        ),
    ),
)
_PROGRESS = Row(
    10,
    (
        Table(
            title="Runs",
            description="Every run of the last week with its plan, and what its newest checkpoint that was evaluated "
            "scores, mean over lengths and tasks; of an evaluation what it found. Nothing heard for long from one that "
            "runs: see its dashboard. A click on the name opens it.",
            width=24,
            rows="max by (run, user, kind, stage, state) ((xgen_run_state == 1) * on (run) group_left (user, kind, "
            f"stage) topk by (run) (1, {_CHOSEN}))",
            no_value="none: no run in the last week",
            sort="Run",
            columns=(
                Column(title="Run", label="run", link=TO_RUN, width=230),
                Column(title="Kind", label="kind", width=110),
                Column(title="Stage", label="stage", width=130, no_value="none"),
                Column(title="State", label="state", show="filled", texts=STATES, width=100),
                Column(title="User", label="user", width=100),
                Column(
                    title="Progress",
                    expr=_of_chosen(DONE),
                    unit="percentunit",
                    decimals=0,
                    show="bar",
                    levels=("blue", (1, "green")),
                    high=1,
                    no_value="none",
                ),
                *(
                    Column(
                        title=title,
                        expr=_of_chosen(f"max by (run) ({metric})"),
                        unit="si:tok",
                        decimals=1,
                        width=110,
                        no_value="none",
                    )
                    for title, metric in (
                        ("Tokens", "xgen_run_tokens_total"),
                        ("of planned", "xgen_run_planned_tokens"),
                    )
                ),
                Column(
                    title="Left at this speed",
                    expr=f"{_TO_GO} / on (run) ({_of_chosen(f'({_SPEED} > 0)')})",
                    unit="s",
                    decimals=1,
                    width=140,
                    no_value="none",
                ),
                *(
                    Column(
                        title=title,
                        expr=_of_chosen(of_any(suite)),
                        unit="percentunit",
                        decimals=1,
                        width=95,
                        no_value="none",
                    )
                    for title, suite in (("RULER", "ruler"), ("Knowledge", "harness"))
                ),
                Column(
                    title="Heard of",
                    expr=_of_chosen("(time() - max by (run) (xgen_run_last_event_timestamp_seconds))"),
                    unit="s",
                    decimals=0,
                    width=110,
                ),
                Column(
                    title="Restarts",
                    expr=_of_chosen("sum by (run) (xgen_run_restarts_total)"),
                    decimals=0,
                    width=90,
                ),
            ),
        ),
    ),
)
_NUMBERED = " or ".join(
    f'max by (run) (xgen_run_state{{state="{state}"}} == 1) * 0 + {index}' for index, state in enumerate(STATES)
)
_NEWEST = "topk(30, max by (run) (last_over_time(xgen_run_last_event_timestamp_seconds[1h] @ end())))"
_TIMES = Row(
    9,
    (
        States(
            title="States over time",
            description="The thirty runs that were heard of last, one under the other: a stage begins when the one "
            "before has finished. Red: failed, or lost by the scheduler.",
            width=16,
            queries=(Query(f"{_of_chosen(f'({_NUMBERED})')} and on (run) {_NEWEST}", "{{run}}"),),
            no_value="none: no run in the last week",
            levels=("blue",),
            texts=_NUMBERS_OF_STATES,
            points=240,
            links=(TO_RUN_OF_SERIES,),
        ),
        Shares(
            title="Runs by kind",
            description="How many runs of each kind are in which state. Red: see the table above.",
            width=8,
            expr=f"count by (kind, state) ((xgen_run_state == 1) * on (run) group_left (kind) "
            f"max by (run, kind) ({_CHOSEN}))",
            rows="kind",
            parts="state",
            unit="locale",
            decimals=0,
            series=_STATE_COLORS,
            no_value="none: no run in the last week",
        ),
    ),
)
_QUALITY = Row(
    8,
    (
        Lines(
            title="Progress",
            description="Part of the planned steps, or of the shards, that are done, of the thirty runs heard of "
            "last. Flat: queued, stuck, or finished.",
            width=8,
            queries=(Query(f"{_of_chosen(DONE)} and on (run) {_NEWEST}", "{{run}}"),),
            unit="percentunit",
            high=1,
            points=240,
            axis="from zero",
            no_value="none: no run has a plan",
            legend="list",
            links=(TO_RUN_OF_SERIES,),
        ),
        Lines(
            title="Validation loss",
            description="On held-out text, mean over the domains, where the spec asks for it. It must fall from stage "
            "to stage; by domain it is on the dashboard of the run.",
            width=8,
            queries=(
                Query(
                    _of_chosen("avg by (run) (max by (run, domain) (xgen_train_validation_loss))"),
                    "{{run}}",
                ),
            ),
            axis="free",
            steps=True,
            no_value="none: no run validates",
            legend="list",
            links=(TO_RUN_OF_SERIES,),
        ),
        Bars(
            title="Steps done again",
            description="Steps that crashes and preemptions without a save cost. More than a few hundred: save more "
            "often, or give the partition more grace.",
            width=8,
            queries=(
                Query(
                    f"topk(8, {_of_chosen('max by (run) (xgen_run_lost_steps_total) > 0')})", "{{run}}", instant=True
                ),
            ),
            unit="locale",
            decimals=0,
            low=0,
            no_value="none: nothing was done again",
            color="orange",
            links=(TO_RUN_OF_SERIES,),
        ),
    ),
)
_MIXTURE = Row(
    7,
    (
        Bands(
            title="Mixture as consumed",
            description="Tokens a second by domain, over the runs chosen above: what was trained on, not what the "
            "spec asked for. The shares of a stage must stay; a domain that vanishes has run out.",
            width=24,
            queries=(
                Query(
                    "sum by (domain) (max by (run, domain) (rate(xgen_train_mixture_tokens_total[$__rate_interval])) "
                    f"and on (run) {_CHOSEN})",
                    "{{domain}}",
                ),
            ),
            unit="si:tok/s",
            no_value="none: no run trains on a mixture",
            legend="table",
        ),
    ),
)

DASHBOARD = Dashboard(
    name="pipeline",
    title="xgen pipeline and evaluation",
    description="The runs as stages of a pipeline: what is done, what is under way, how far it is to the plan.",
    since="now-7d",
    variables=(
        PROJECT,
        USER,
        Variable("kind", "Kind", "label_values(xgen_run_info, kind)", many=True, all=True),
    ),
    rows=(_NUMBERS, _PROGRESS, _TIMES, _QUALITY, _MIXTURE),
)
