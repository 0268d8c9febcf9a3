"""Post-training: what the answers are worth, how they change, what judges them."""

from __future__ import annotations

from monitoring.source.charts import Lines, Stat
from monitoring.source.dashboard import Annotation, Dashboard, Row, Variable, open_dashboard
from monitoring.source.panel import Named, Query

_RUN = 'run="$run"'
_NO_RL = "none: no online RL"
_NO_PAIRS = "none: no preference learning"
_FAILURES = (
    f"max by (verifier, reason) (max_over_time(xgen_rl_verifier_failures_total{{{_RUN}}}[$__range]))"
    f" - min by (verifier, reason) (min_over_time(xgen_rl_verifier_failures_total{{{_RUN}}}[$__range]))"
)


def _share(title: str, description: str, metric: str, no_value: str) -> Stat:
    return Stat(
        title=title,
        description=description,
        width=6,
        queries=(Query(f"avg(max by (source) ({metric}{{{_RUN}}}))", "share", instant=True),),
        unit="percentunit",
        decimals=1,
        low=0,
        high=1,
        no_value=no_value,
    )


_NOW = Row(
    4,
    (
        _share(
            "Pass rate in training",
            "Answers of the last step that are right, mean over the sources. At 0 or 100 % nothing is learnt: choose "
            "harder or easier prompts, or write dynamic_sampling: true.",
            "xgen_rl_pass_rate",
            _NO_RL,
        ),
        _share(
            "Pass rate on held-out prompts",
            "When it was last measured, mean over the sources. Training up and this down: it learns the prompts by "
            "heart, or games a reward; read `xgen samples RUN`.",
            "xgen_rl_evaluation_pass_rate",
            "none: no evaluation",
        ),
        Stat(
            title="Preference accuracy",
            description="Pairs of the last step whose better answer has the higher reward. It begins near 50 %.",
            width=6,
            queries=(Query(f"max(xgen_train_preference_accuracy{{{_RUN}}})", "accuracy", instant=True),),
            unit="percentunit",
            decimals=1,
            low=0,
            high=1,
            no_value=_NO_PAIRS,
        ),
        Stat(
            title="Verdicts that failed",
            description="In this time range: time-outs, memory, crashes of verifiers. Their answers are left out of "
            "the step, never scored 0. A lasting stream is a verifier to mend (alert XgenVerifierFailing).",
            width=6,
            queries=(Query(f"sum({_FAILURES})", "failures", instant=True),),
            decimals=0,
            levels=("text", (0, "green"), (1, "orange")),
            no_value="none: no verdict failed",
        ),
    ),
)
_REWARD = Row(
    8,
    (
        Lines(
            title="Reward by source",
            description="Mean reward of a step's answers, by source of the prompt. Up while the held-out pass rate is "
            "not: the reward is gamed.",
            width=8,
            queries=(Query(f"max by (source) (xgen_rl_reward{{{_RUN}}})", "{{source}}"),),
            no_value=_NO_RL,
            legend="list",
        ),
        Lines(
            title="Pass rate by source",
            description="Answers that are right: of the training's prompts, and of held-out ones (steps).",
            width=8,
            queries=(
                Query(f"max by (source) (xgen_rl_pass_rate{{{_RUN}}})", "{{source}}"),
                Query(f"max by (source) (xgen_rl_evaluation_pass_rate{{{_RUN}}})", "{{source}}, held out"),
            ),
            unit="percentunit",
            no_value=_NO_RL,
            legend="list",
        ),
        Lines(
            title="Preference",
            description="Pairs whose better answer has the higher reward: in training, and held-out ones by source.",
            width=8,
            queries=(
                Query(f"max(xgen_train_preference_accuracy{{{_RUN}}})", "training"),
                Query(f"max by (domain) (xgen_train_validation_accuracy{{{_RUN}}})", "{{domain}}, held out"),
            ),
            unit="percentunit",
            no_value=_NO_PAIRS,
            legend="list",
        ),
    ),
)
_POLICY = Row(
    8,
    (
        Lines(
            title="Answer length",
            description="Mean tokens of an answer. It grows by itself where a length is rewarded, and where cut "
            "answers count as wrong it falls.",
            width=6,
            queries=(Query(f"max(xgen_rl_response_tokens{{{_RUN}}})", "tokens"),),
            unit="locale",
            no_value=_NO_RL,
        ),
        Lines(
            title="Cut at max_tokens",
            description="Share of answers that did not end by themselves. Rising: raise rollout.max_tokens, or reward "
            "length.",
            width=6,
            queries=(Query(f"max(xgen_rl_truncated_ratio{{{_RUN}}})", "cut"),),
            unit="percentunit",
            axis="from zero",
            no_value=_NO_RL,
            color="orange",
        ),
        Lines(
            title="Entropy",
            description="Of the policy, mean over tokens, in nats. Falling to 0 the answers of a group become the same "
            "and nothing is left to learn from: raise clip_high, or the temperature.",
            width=6,
            queries=(Query(f"max(xgen_rl_entropy{{{_RUN}}})", "entropy"),),
            axis="from zero",
            no_value=_NO_RL,
            color="purple",
        ),
        Lines(
            title="Divergence and clipping",
            description="KL from the initial weights, and the share of tokens whose ratio was clipped. A jump of "
            "either is a step that was too large: lower the rate, or the staleness.",
            width=6,
            queries=(
                Query(f"max(xgen_rl_kl{{{_RUN}}})", "KL"),
                Query(f"max(xgen_rl_clip_ratio{{{_RUN}}})", "clipped"),
            ),
            no_value=_NO_RL,
            legend="list",
            series=(Named("KL", "blue"), Named("clipped", "orange")),
        ),
    ),
)
_MACHINE = Row(
    8,
    (
        Lines(
            title="Generated tokens per second",
            description="Over the time that generation took. Beside throughput on the run's dashboard it says which "
            "of the two the step waits for.",
            width=6,
            queries=(Query(f"max(xgen_rl_generated_tokens_per_second{{{_RUN}}})", "tokens/s"),),
            unit="si:tok/s",
            axis="from zero",
            no_value=_NO_RL,
            color="green",
        ),
        Lines(
            title="Staleness",
            description="Greatest age, in steps, of the weights that a step's answers are from; never over "
            "rollout.staleness.",
            width=6,
            queries=(Query(f"max(xgen_rl_staleness_steps{{{_RUN}}})", "steps"),),
            decimals=0,
            axis="from zero",
            no_value=_NO_RL,
            steps=True,
        ),
        Lines(
            title="Time of a verdict",
            description="Mean, by verifier. Near its limit it is about to fail: see verdicts that failed.",
            width=6,
            queries=(Query(f"max by (verifier) (xgen_rl_verifier_seconds{{{_RUN}}})", "{{verifier}}"),),
            unit="s",
            no_value=_NO_RL,
            legend="list",
        ),
        Lines(
            title="Failed verdicts by reason",
            description="By verifier and reason, added up since step 0. `xgen samples RUN --failed` has the answers.",
            width=6,
            queries=(
                Query(
                    f"max by (verifier, reason) (xgen_rl_verifier_failures_total{{{_RUN}}})", "{{verifier}}: {{reason}}"
                ),
            ),
            decimals=0,
            axis="from zero",
            no_value="none: no verdict failed",
            legend="list",
            steps=True,
        ),
    ),
)
DASHBOARD = Dashboard(
    name="posttrain",
    title="xgen post-training",
    description="Preference learning and online RL of one run: what the answers are worth, how the policy moves, what "
    "judges it.",
    variables=(
        Variable(
            "run",
            "Run",
            'label_values({__name__=~"xgen_rl_response_tokens|xgen_train_preference_accuracy"}, run)',
        ),
    ),
    annotations=(
        Annotation(
            "Attempts",
            "orange",
            f"max by (attempt, job_id) (xgen_train_attempt_start_timestamp_seconds{{{_RUN}}}) * 1000",
            "attempt {{attempt}}",
            "job {{job_id}}",
            value_is_time=True,
        ),
    ),
    links=(open_dashboard("run", "The run itself", run="${run}"),),
    rows=(_NOW, _REWARD, _POLICY, _MACHINE),
)
