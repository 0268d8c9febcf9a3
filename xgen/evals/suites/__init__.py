"""What a job asks of a checkpoint, as suites. No torch on import."""

from __future__ import annotations

from pathlib import Path

from xgen.evals.harness import HarnessSuite
from xgen.evals.protocol import Subject, Suite
from xgen.evals.suites.made import needles, recall_of, ruler
from xgen.evals.suites.perplexity import PerplexitySuite
from xgen.evals.suites.prompts import Prompts
from xgen.spec.evaluate import Evaluate


def suites_of(job: Evaluate, subject: Subject, cache: Path) -> list[Suite]:
    """In the order in which they are scored. `cache`: folder for counts of tokens, which many may share at once.

    Raises StoreError for an input that is missing or is none, and for a chat template that takes no question.
    """
    # First: it loads a model in a process of its own, while there is none of ours beside it yet.
    suites: list[Suite] = [HarnessSuite(job.harness, cache)] if job.harness else []
    return suites + _own(job, subject, cache)


def _own(job: Evaluate, subject: Subject, cache: Path) -> list[Suite]:
    """Those that our own engine answers."""
    if not (job.ruler or job.needles or job.recall or job.perplexity):
        return []
    # A run's own training has put nothing before its documents.
    prompts = Prompts(subject.tokenizer, subject.template, cache, begins=job.checkpoints.hf is not None)
    made: list[Suite] = []
    if job.ruler:
        made.append(ruler(job.ruler, prompts))
    if job.needles:
        made.append(needles(job.needles, prompts))
    if job.recall:
        made.append(recall_of(job.recall, prompts))
    if job.perplexity:
        made.append(PerplexitySuite(job.perplexity, prompts))
    return made


__all__ = ["suites_of"]
