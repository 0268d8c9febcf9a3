"""Knowledge and reasoning by lm-evaluation-harness, in a process and, where it must, an environment of its own."""

from xgen.evals.harness.suite import HarnessSuite

__all__ = ["HarnessSuite"]
