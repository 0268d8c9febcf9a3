"""The kinds `format` and `exact` with `extract`: regular expressions, which an answer may make run for years."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from xgen.posttrain.rewards.verify.reply import Reply


def judge(job: Mapping[str, Any]) -> Reply:
    """`format`: the whole answer matches. `exact`: the first group of the last match is the reference. "." is any
    character, also the end of a line."""
    pattern, answer = _compiled(job["pattern"]), job["answer"]
    if job["kind"] == "format":
        return Reply(float(pattern.fullmatch(answer) is not None))
    found = None
    for found in pattern.finditer(answer):  # noqa: B007 - the last one
        pass
    if found is None:
        return Reply(0.0)
    said = found[1 if pattern.groups else 0]
    return Reply(float(said is not None and said.strip() == job["reference"].strip()))


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)
