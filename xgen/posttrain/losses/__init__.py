"""The losses of post-training as pure functions of log-probabilities, in fp32; TRL is their oracle (tests)."""

from xgen.posttrain.losses.advantages import group_advantages
from xgen.posttrain.losses.answers import answer_sums, by_token
from xgen.posttrain.losses.policy import Normalizer, PolicyMetrics, PolicyResult, Sampled, policy_loss
from xgen.posttrain.losses.preference import PreferenceResult, preference_loss

__all__ = [
    "Normalizer",
    "PolicyMetrics",
    "PolicyResult",
    "PreferenceResult",
    "Sampled",
    "answer_sums",
    "by_token",
    "group_advantages",
    "policy_loss",
    "preference_loss",
]
