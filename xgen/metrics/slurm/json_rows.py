"""The rows of rows.py from `--json`, in the shapes of SLURM 21.08 to 25.05 (openapi v0.0.37 to data_parser v0.0.43).

A number is a plain one, null, or {set, infinite, number}; a state is a text, or a list of a base state and its flags;
nodes are listed by node with their partitions, or, from 23.02 on, once for each partition. Of a job only what a row
has is looked at: the rest (command line, paths, comments) is dropped with the object that it came in.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from xgen.cluster import values
from xgen.metrics.exporter import CollectorError
from xgen.metrics.slurm.rows import JobRow, NodeRow

_MAX_OBJECT = 1 << 24  # characters of one job or node


def jobs(chunks: Iterable[bytes]) -> Iterator[JobRow]:
    """Of `squeue --json`. Raises CollectorError."""
    with _reading("squeue"):
        for _, job in _objects(chunks, ("jobs",)):
            yield _job(job)


def nodes(chunks: Iterable[bytes]) -> Iterator[NodeRow]:
    """Of `sinfo --Node --json`: one row for each partition of a node. Raises CollectorError."""
    with _reading("sinfo"):
        for key, node in _objects(chunks, ("nodes", "sinfo")):
            if key == "nodes":
                yield from _node_with_partitions(node)
            else:
                yield _node_in_partition(node)


@contextmanager
def _reading(command: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CollectorError("malformed", f"{command} --json: {error!r}") from None


def _job(job: dict[str, Any]) -> JobRow:
    job_id, array, task = job["job_id"], _number(job.get("array_job_id")), _number(job.get("array_task_id"))
    waiting = job.get("array_task_string")
    if array and waiting:
        name = f"{array:.0f}_[{waiting}]"
    else:
        name = f"{array:.0f}_{task:.0f}" if array and task is not None else str(job_id)
    return JobRow(
        job=name,
        user=job.get("user_name") or str(job.get("user_id", "")),
        account=values.text(job.get("account") or ""),
        partitions=tuple(job["partition"].split(",")),
        state=values.job_state(_states(job["job_state"])),
        cpus=round(_number(job.get("cpus")) or 0),
        eligible=_number(job.get("eligible_time")) or None,
        gpus=values.tres_gpus(job.get("tres_alloc_str") or job.get("tres_req_str") or ""),
        reason=values.reason(job.get("state_description") or job.get("state_reason") or ""),
    )


def _node_with_partitions(node: dict[str, Any]) -> Iterator[NodeRow]:
    base, *flags = _states(node["state"])
    state = values.node_state(base, {*flags, *node.get("state_flags", [])})
    total, alloc = round(_number(node["cpus"]) or 0), round(_number(node["alloc_cpus"]) or 0)
    # As sinfo counts: what is free on a node that takes no work is not idle.
    idle = total - alloc if values.base_state(state) in values.WORKING else 0
    features = node.get("active_features") or ""
    for partition in node["partitions"]:
        yield NodeRow(
            node=node["name"],
            partition=partition,
            state=state,
            cpus=(alloc, idle, total - alloc - idle, total),
            mem_alloc=round(_number(node["alloc_memory"]) or 0),
            mem_total=round(_number(node["real_memory"]) or 0),
            gres=values.gres(node.get("gres") or ""),
            gres_used=values.gres(node.get("gres_used") or ""),
            features=features if isinstance(features, str) else ",".join(features),
            reason_time=_number(node.get("reason_changed_at")) or None,
            reason=values.text(node.get("reason") or ""),
        )


def _node_in_partition(entry: dict[str, Any]) -> NodeRow:
    [name] = entry["nodes"]["nodes"]  # --Node: one each
    base, *flags = _states(entry["node"]["state"])
    cpus, reason = entry["cpus"], entry.get("reason") or ""
    why, since = (reason.get("description"), reason.get("time")) if isinstance(reason, dict) else (reason, None)
    return NodeRow(
        node=name,
        partition=entry["partition"]["name"],
        state=values.node_state(base, set(flags)),
        cpus=(cpus["allocated"], cpus["idle"], cpus["other"], cpus["total"]),
        mem_alloc=round(_number(entry["memory"].get("allocated")) or 0),
        mem_total=round(_number(entry["memory"]["minimum"]) or 0),
        gres=values.gres(entry["gres"].get("total") or ""),
        gres_used=values.gres(entry["gres"].get("used") or ""),
        features=entry.get("features", {}).get("active") or "",
        reason_time=_number(since) or None,
        reason=values.text(why or ""),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, dict):
        value = value["number"] if value["set"] and not value["infinite"] else None
    return None if value is None else float(value)


def _states(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _objects(chunks: Iterable[bytes], keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of the list under one of `keys`, with the key, as soon as it is there. Raises ValueError.

    20,000 jobs are 200 MB of text and twice that as objects: they are never in memory together, and other threads
    run between one and the next.
    """
    start = re.compile(rf'"({"|".join(keys)})"\s*:\s*\[')
    decoder, utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(errors="replace")
    buffer, key, head, at = "", "", "", 0
    for chunk in chunks:
        buffer, at = buffer[at:] + utf8.decode(chunk), 0
        if not key and (found := start.search(buffer)):
            key, head, at = found[1], buffer[: found.end()], found.end()
        while key and (at := _skip(buffer, at)) < len(buffer) and buffer[at] == "{":
            try:
                value, at = decoder.raw_decode(buffer, at)
            except json.JSONDecodeError:
                break  # its end is in a later chunk
            yield key, value
        if len(buffer) - at > _MAX_OBJECT:
            raise ValueError(f"{len(buffer) - at} characters without a whole job or node")
    if not key:
        raise ValueError(f"no list under {' or '.join(keys)}: {buffer[:120]!r}")
    # What is around the list must be a whole document too.
    if errors := json.loads(head + buffer[at:]).get("errors"):
        raise CollectorError("exit", f"SLURM says: {errors}")


def _skip(text: str, at: int) -> int:
    """Past white space and the comma between two objects."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at
