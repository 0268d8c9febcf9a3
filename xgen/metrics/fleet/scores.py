"""What evaluations found, as metrics: of each the newest checkpoint, by suite, task and length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import gauges
from xgen.runs import Evaluated

# Of one evaluation. RULER whole is 13 tasks and their mean at 7 lengths, and 4 that are of all lengths: 102.
MOST = 400
_LENGTH_OF_ALL = ("ruler", "effective_length")


def score_families(evaluated: Sequence[tuple[str, Evaluated]]) -> Iterator[Metric]:
    """Of evaluations by the names of their runs. `length` is '' where the score is of no single one."""
    scores: dict[tuple[str, ...], float] = {}
    losses: dict[tuple[str, ...], float] = {}
    lengths: dict[tuple[str, ...], float] = {}
    for run, one in evaluated:
        for key, value in list(one.scores.items())[:MOST]:
            suite, _, rest = key.partition("/")
            task, _, length = rest.rpartition("/")
            length = "" if length == "0" else length
            if suite == "perplexity":
                losses[run, one.target, task, length] = value
            elif (suite, task) == _LENGTH_OF_ALL:
                lengths[run, one.target] = value
            else:
                scores[run, one.target, suite, task, length] = value
    yield gauges(
        "xgen_eval_score",
        "Mean score of the newest checkpoint that was evaluated, 0 to 1; `target` is the run that is scored.",
        ["run", "target", "suite", "task", "length"],
        scores,
    )
    text = "Mean loss of that checkpoint on held-out documents read to a length, in nats a token."
    yield gauges("xgen_eval_loss_nats", text, ["run", "target", "task", "length"], losses)
    text = "Longest length up to which RULER's average is 85.6 % or more; 0: none."
    yield gauges("xgen_eval_effective_length_tokens", text, ["run", "target"], lengths)
    steps = {(run, one.target): one.step for run, one in evaluated}
    yield gauges("xgen_eval_step", "Step of that checkpoint; 0: a Hugging Face folder.", ["run", "target"], steps)
    times = {(run, one.target): one.time for run, one in evaluated}
    yield gauges("xgen_eval_timestamp_seconds", "When its scores were whole.", ["run", "target"], times)
