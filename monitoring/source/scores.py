"""What evaluations say of the runs that they score: rows of Compare, columns of Pipeline."""

from __future__ import annotations

from monitoring.source.charts import Curves
from monitoring.source.dashboard import Row
from monitoring.source.look import TO_RUN
from monitoring.source.panel import Levels
from monitoring.source.table import Column, Table

LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072, 262144)
RULER: Levels = ("text", (0, "orange"), (0.856, "green"))  # the threshold of its effective length
_CHOSEN = 'target=~"$run"'


def _of_target(metric: str, matchers: str, *labels: str, chosen: str = _CHOSEN) -> str:
    """By the run that is scored, as `run`; of several evaluations of one run, the one that has come furthest."""
    step = f"xgen_eval_step{{{chosen}}}" if chosen else "xgen_eval_step"
    furthest = f"({step} == on (target) group_left () max by (target) ({step}))"
    selector = f"{metric}{{{', '.join(filter(None, (chosen, matchers)))}}}"
    newest = f"({selector} and on (run, target) {furthest})"
    return f'max by ({", ".join(("run", *labels))}) (label_replace({newest}, "run", "$1", "target", "(.+)"))'


def _of(suite: str) -> str:
    """Matchers of the scores whose mean is that of a suite, or of some (a|b): of RULER its means at each length."""
    return f'suite=~"{suite}"' + (', task="average", length!=""' if suite == "ruler" else "")


def _mean(suite: str) -> str:
    return f"avg by (run) ({_of_target('xgen_eval_score', _of(suite), 'task', 'length')})"


def of_any(suite: str) -> str:
    """The mean of a run that is scored, and of the evaluation that scores it."""
    target = _of_target("xgen_eval_score", _of(suite), "task", "length", chosen="")
    return f"(avg by (run) (xgen_eval_score{{{_of(suite)}}}) or avg by (run) ({target}))"


_STEP = _of_target("xgen_eval_step", "")
_LONG = f"({_mean('ruler')} or {_mean('needles|recall')})"
_LOSS = f"avg by (run) ({_of_target('xgen_eval_loss_nats', '', 'task', 'length')})"


def _score(title: str, expr: str, levels: Levels = (), width: int = 85) -> Column:
    return Column(
        title=title,
        expr=expr,
        unit="percentunit",
        decimals=1,
        show="color" if levels else "text",
        levels=levels,
        width=width,
        no_value="none",
    )


_NEWEST = Row(
    7,
    (
        Table(
            title="What they score",
            description="Of each chosen run the newest checkpoint that an evaluation is done with. RULER by length is "
            "the mean of its tasks, green from 85.6 % on, the threshold of its effective length. Whether a difference "
            "is more than noise says `xgen compare RUN RUN`.",
            width=24,
            rows=_STEP,
            no_value="none: no chosen run is evaluated",
            sort="Run",
            columns=(
                Column(title="Run", label="run", link=TO_RUN, width=200),
                Column(title="Step scored", expr=_STEP, unit="locale", width=105),
                *(
                    _score(
                        f"{length // 1024}k",
                        _of_target("xgen_eval_score", f'suite="ruler", task="average", length="{length}"'),
                        RULER,
                        75,
                    )
                    for length in LENGTHS
                ),
                _score("RULER", _mean("ruler"), RULER),
                Column(
                    title="Effective length",
                    expr=_of_target("xgen_eval_effective_length_tokens", ""),
                    unit="locale",
                    decimals=0,
                    width=130,
                    no_value="none",
                ),
                _score("Needles", _mean("needles")),
                _score("Recall", _mean("recall")),
                _score("Knowledge", _mean("harness"), width=95),
                Column(
                    title="Scored",
                    expr=f"time() - {_of_target('xgen_eval_timestamp_seconds', '')}",
                    unit="s",
                    decimals=0,
                    width=95,
                ),
            ),
        ),
    ),
)
_KNOWLEDGE = _of_target("xgen_eval_score", 'suite="harness"', "task")
# Of RULER the mean of its tasks is one of them.
_BY_LENGTH = (
    "avg by (run, suite, length) ("
    + " or ".join(
        _of_target("xgen_eval_score", f'suite{of}, length!=""{task}', "suite", "task", "length")
        for of, task in (('="ruler"', ', task="average"'), ('!="ruler"', ""))
    )
    + ")"
)


def _bar(expr: str) -> Column:
    return Column(title="Score", expr=expr, unit="percentunit", decimals=1, show="bar", levels=("blue",), high=1)


_BY_STEP = Row(
    9,
    (
        Curves(
            title="Long context by step",
            description="RULER, mean over its lengths and tasks, of each checkpoint that was scored; of a run without "
            "it needles and recall. It should rise where the length is extended; needs Grafana 10.4, as all curves.",
            width=6,
            x=f"{_STEP} and on (run) {_LONG}",
            x_title="step scored",
            x_unit="locale",
            dots=True,
            y=_LONG,
            y_title="score",
            unit="percentunit",
            no_value="none: no length was asked for",
        ),
        Curves(
            title="Held-out loss by step",
            description="Nats a token on the documents of `perplexity`, mean over their names, each read to its "
            "length: what the long context is worth where nothing is asked.",
            width=6,
            x=f"{_STEP} and on (run) {_LOSS}",
            x_title="step scored",
            x_unit="locale",
            dots=True,
            y=_LOSS,
            y_title="nats a token",
            no_value="none: no perplexity was asked for",
        ),
        Table(
            title="By length",
            description="Mean over the tasks of a suite at each length that it was asked at, of the newest checkpoint "
            "that was scored. Where it breaks is the model's real length; the needle map of `xgen evals report` says "
            "at which depth.",
            width=6,
            rows=_BY_LENGTH,
            no_value="none: no length was asked for",
            sort="Suite",
            columns=(
                Column(title="Suite", label="suite", width=85),
                Column(title="Length", label="length", width=80),
                Column(title="Run", label="run", link=TO_RUN, width=130),
                _bar(_BY_LENGTH),
            ),
        ),
        Table(
            title="Knowledge and reasoning",
            description="Tasks of lm-evaluation-harness at the newest checkpoint that was scored, by their own "
            "metrics; chance is not 0 (a quarter in a choice of four).",
            width=6,
            rows=_KNOWLEDGE,
            no_value="none: the harness was not asked for",
            sort="Task",
            columns=(
                Column(title="Task", label="task", width=120),
                Column(title="Run", label="run", link=TO_RUN, width=130),
                _bar(_KNOWLEDGE),
            ),
        ),
    ),
)
ROWS = (_NEWEST, _BY_STEP)
