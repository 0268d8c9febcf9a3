"""Which keys differ between two specs, and what that means for a run that has trained already."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from xgen.spec.evaluate import Evaluate
from xgen.spec.job import Command, Job
from xgen.spec.layers import Key, show_key
from xgen.spec.sweep import Sweep

# Where and how it is computed, and not what: a resume may change these.
_RESUMABLE = re.compile(
    r"(proxy\.|spec\.)?((resources|checkpoint|restart|hang|health|notify|container|env)(\.|\[|$)|lead$|data\.(workers|prefetch)$|array\.at_once$"
    r"|(stages\[\d+\]|train)\.((parallelism|resources)(\.|$)|(micro_batch|activation_checkpointing|compile)$)"
    r"|single(\.|$)|(at_once|published|cache|harness\.(python|batch))(\[|$)|rollout\.(at_once$|servers(\.|$))"
    r"|verification\.workers$)"
)
_TOPOLOGY = re.compile(r"(stages\[\d+\]\.)?resources\.(nodes|gpus_per_node)$|(stages\[\d+\]|train)\.parallelism\.")
_DATA_ORDER = re.compile(r"(seed|stages\[\d+\]\.(seq_len|mixture)|train\.seq_len)$|(data|prompts)\.")
SHARDS = "array.shards"  # an evaluation knows what is done of each sample, whichever shard did it
Changes = Mapping[str, Any]  # new value by key, e.g. stages[0].lr.peak; None where it is gone


def changes(old: Job, new: Job) -> dict[str, Any]:
    """The keys whose values differ, defaults included, with their new values as the resolved spec has them."""
    dumped = [job.model_dump(mode="json") for job in (old, new)]
    for pair in zip(*(job.get("stages", ()) for job in dumped), strict=False):
        if any(stage["resources"] for stage in pair):  # one without any of its own has the job's
            for job, stage in zip(dumped, pair, strict=True):
                stage["resources"] = stage["resources"] or job["resources"]
    before, after = (dict(_leaves(job, ())) for job in dumped)
    return {
        show_key(key): after.get(key)
        for key in sorted({*before, *after}, key=show_key)
        if before.get(key) != after.get(key)
    }


def what_is_computed(job: Job) -> dict[str, Any]:
    """The keys that decide what comes out, with their values; of a command, or a sweep of one, its environment does
    too."""
    runs_command = isinstance(job, Command) or (isinstance(job, Sweep) and job.spec.get("kind") == "command")
    own = {show_key(key): value for key, value in _leaves(job.model_dump(mode="json"), ())}
    return {
        key: value
        for key, value in sorted(own.items())
        if key not in ("name", "cluster", "project")
        and (not may_resume(key, job) or (runs_command and key.startswith("env.")))
    }


def may_resume(key: str, job: Job | None = None) -> bool:
    """Whether a run, of that job, may go on with another value of this key: it does not change what is computed."""
    return _RESUMABLE.match(key) is not None or (key == SHARDS and isinstance(job, Evaluate))


def is_topology(key: str) -> bool:
    """Whether the key changes the number of ranks, or what each of them holds."""
    return _TOPOLOGY.match(key) is not None


def is_data_order(key: str) -> bool:
    """Whether the key changes which sample comes when."""
    return _DATA_ORDER.match(key) is not None and not may_resume(key)


def show_changes(changed: Changes) -> str:
    """`resources.nodes=1, lead=30s`, on one line."""
    return ", ".join(f"{key}={_show(value)}" for key, value in changed.items())


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _leaves(value: Any, at: Key) -> Iterator[tuple[Key, Any]]:
    """Mappings, and lists of mappings, key by key; any other list is one value. What is empty is not there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*at, key))
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*at, number))
    else:
        yield at, value
