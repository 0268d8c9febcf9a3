"""Numbers from a spec that a person can check, and whether the spec makes sense on its cluster. No torch."""

from xgen.plan.asked import Asked, asked
from xgen.plan.numbers import STOP_MARGIN, Plan, cost, plan, plans
from xgen.plan.sense import check, missing_stores, warnings

__all__ = ["STOP_MARGIN", "Asked", "Plan", "asked", "check", "cost", "missing_stores", "plan", "plans", "warnings"]
