"""The kind `function`: a function of the job's own code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from xgen.posttrain.rewards.verify.reply import Reply


def judge(job: Mapping[str, Any]) -> Reply:
    score = imported(job["function"])(job["prompt"], job["answer"], job["record"])
    if isinstance(score, bool | int | float) and math.isfinite(score):
        return Reply(float(score))
    return Reply(None, "error", detail=f"{job['function']} gave {score!r:.100}; let it return a finite number")


@lru_cache(256)
def imported(name: str) -> Callable[[str, str, Mapping[str, Any]], Any]:
    """The function of `module:function`. Raises ImportError, AttributeError, whatever its module raises."""
    module, _, function = name.partition(":")
    found = getattr(import_module(module), function)
    assert callable(found), f"{name} is no function"
    return found  # type: ignore[no-any-return]
