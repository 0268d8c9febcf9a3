"""What a kind of training measures beside loss and rate: by its names in `metrics/steps.jsonl`, as metrics.

A name there is that of the metric without `xgen_`, then a value for each label: `rl_reward/math` is
`xgen_rl_reward{source="math"}`. What has no line here is recorded, and not exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True)
class Extra:
    """A metric of its own; a counter's values are sums since step 0."""

    text: str
    labels: tuple[str, ...] = ()
    counts: bool = False


EXTRAS: Mapping[str, Extra] = {
    "train_preference_accuracy": Extra("Pairs of the last step whose better answer has the higher reward, 0 to 1."),
    "train_preference_reward_margin": Extra("Reward of the better answers above that of the worse, mean over pairs."),
    "train_validation_accuracy": Extra("The same on held-out pairs, by source.", ("domain",)),
    "rl_reward": Extra("Mean reward of the last step's answers, by source of the prompt.", ("source",)),
    "rl_pass_rate": Extra("Share of the last step's answers that are right, by source.", ("source",)),
    "rl_evaluation_pass_rate": Extra("The same on held-out prompts, when they were last tried.", ("source",)),
    "rl_response_tokens": Extra("Mean length of the last step's answers."),
    "rl_truncated_ratio": Extra("Share of the last step's answers that were cut at max_tokens."),
    "rl_entropy": Extra("Mean entropy of the policy over the tokens of the last step, in nats."),
    "rl_kl": Extra("Divergence from the initial weights, mean over the tokens of the last step."),
    "rl_clip_ratio": Extra("Share of the last step's tokens whose ratio was clipped."),
    "rl_staleness_steps": Extra("Greatest age of the weights that the last step's answers were sampled from."),
    "rl_generated_tokens_per_second": Extra("Tokens that were generated for the last step, over the time that took."),
    "rl_trained_tokens": Extra("Tokens of prompts and answers that were trained on.", counts=True),
    "rl_trained_tokens_per_second": Extra("Tokens of prompts and answers, over the time of training on them."),
    "rl_excluded_answers": Extra("Answers of the last step that did not train: no verdict, or cut and filtered."),
    "rl_resampled_batches": Extra("Times that further prompts were taken for the last step."),
    "rl_verifier_seconds": Extra("Mean time of a verdict of the last step.", ("verifier",)),
    "rl_verifier_failures": Extra("Verdicts that there are not.", ("verifier", "reason"), counts=True),
}


def families(values: Mapping[str, float]) -> Iterator[Metric]:
    """The values by their names, as metrics."""
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for key, value in values.items():
        name, *labels = key.split("/")
        extra = EXTRAS.get(name)
        if extra is None or len(labels) != len(extra.labels):
            continue
        if name not in found:
            family = CounterMetricFamily if extra.counts else GaugeMetricFamily
            found[name] = family(f"xgen_{name}", extra.text, labels=extra.labels)
        found[name].add_metric(labels, value)
    yield from found.values()
