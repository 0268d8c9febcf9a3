"""Numbers from a spec that a person can check, and whether the spec makes sense on its cluster. No torch."""

from xgen.plan.numbers import STOP_MARGIN, Plan, plan
from xgen.plan.sense import check, warnings

__all__ = ["STOP_MARGIN", "Plan", "check", "plan", "warnings"]
