"""An all-reduce over the allocation before the first step: its bandwidth, and where the network is slow if that is
below its floor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from xgen.runs import TaskContext
from xgen.spec import Job, load_profile
from xgen.spec.units import format_bytes

_ON_GPU, _ON_CPU = 256 << 20, 4 << 20  # bytes: enough to fill the links, not more than any GPU has free
_TRIES = 5


class UnhealthyError(RuntimeError):
    """A node is too slow. The host finds its name in the text, and counts the death against it."""


@dataclass(frozen=True)
class Slow:
    """The nodes of the slowest link; one where only one of them is slow towards its other neighbour too."""

    nodes: tuple[str, ...]
    bandwidth: float  # bytes/s, of the link

    def __str__(self) -> str:
        if len(self.nodes) == 1:
            return f"node {self.nodes[0]} sends {format_bytes(self.bandwidth)}/s to its neighbours"
        return f"the slowest link is {' - '.join(self.nodes)}, {format_bytes(self.bandwidth)}/s"


def check_bandwidth(context: TaskContext, job: Job, device: torch.device) -> None:
    """Of every rank, where the spec or the profile sets a floor. Raises UnhealthyError on all of them when one node is
    found to be slow and `act` is exclude."""
    resources, floor = job.jobs[context.stage][1], job.health.bandwidth
    if floor is None and resources.nodes == 1:
        return  # nor is there a profile where a proxy of a regmix trains
    nodes = load_profile(context.run.profile_file).nodes
    floor = floor or nodes.bandwidth
    if floor is None or context.world_size == 1:
        return
    found = bus_bandwidth(device)
    if context.rank == 0:
        print(f"all-reduce over {context.world_size} ranks: {format_bytes(found)}/s of the bus", flush=True)
    if found >= floor:
        return
    step = resources.tasks_per_node if resources.nodes > 1 else 1
    slow = slowest(*links(device, step, context.node))
    said = f"an all-reduce has {format_bytes(found)}/s, the floor is {format_bytes(floor)}/s; {slow}"
    if context.events:
        context.events.write("unhealthy", nodes=",".join(slow.nodes), reason=f"bandwidth: {said}")
        print(f"xgen: {said}", flush=True)
    if len(slow.nodes) == 1 and (job.health.act or nodes.act) == "exclude":
        raise UnhealthyError(f"unhealthy: node {slow.nodes[0]}: {said}")


def bus_bandwidth(device: torch.device) -> float:
    """Bytes/s as NCCL's tests count them: 2(n-1)/n of the message, by the fastest of a few tries; the same on every
    rank."""
    size, ranks = _ON_CPU if device.type == "cpu" else _ON_GPU, dist.get_world_size()
    message = torch.zeros(size // 4, dtype=torch.float32, device=device)
    seconds = min(_timed(lambda: dist.all_reduce(message), device) for _ in range(_TRIES + 1))
    slowest_rank = torch.tensor([seconds], dtype=torch.float64, device=device)
    dist.all_reduce(slowest_rank, op=dist.ReduceOp.MAX)
    return 2 * (ranks - 1) / ranks * size / slowest_rank.item()


def links(device: torch.device, step: int, node: str) -> tuple[list[float], list[str]]:
    """Bandwidth from every unit of `step` ranks to the next one, in a ring, by the slowest of its ranks, and the name
    of each unit's node; `node` is that of this rank. Neighbours exchange in rounds, so that no unit talks to both at
    once."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    unit, units = rank // step, ranks // step
    size = _ON_CPU if device.type == "cpu" else _ON_GPU // 4
    sent, received = (torch.zeros(size // 4, dtype=torch.float32, device=device) for _ in range(2))
    own = torch.zeros(units, dtype=torch.float64, device=device)  # seconds of the links that this rank has
    for colour in _rounds(units):
        peers = [(link, _other(link, unit, units)) for link in colour if unit in (link, (link + 1) % units)]

        def exchange(peers: Sequence[tuple[int, int]] = peers) -> None:
            for _, other in peers:
                peer = other * step + rank % step
                ops = [dist.P2POp(dist.isend, sent, peer), dist.P2POp(dist.irecv, received, peer)]
                for work in dist.batch_isend_irecv(ops):
                    work.wait()

        dist.barrier()
        seconds = min(_timed(exchange, device) for _ in range(3))
        for link, _ in peers:
            own[link] = seconds
    dist.all_reduce(own, op=dist.ReduceOp.MAX)
    names: list[str] = [""] * ranks
    dist.all_gather_object(names, node)
    plain = step > 1 or len(set(names)) == ranks
    labels = [names[number * step] + ("" if plain else f" rank {number}") for number in range(units)]
    count = units if units > 2 else 1
    return [2 * size / own[link].item() for link in range(count)], labels


def _rounds(units: int) -> list[list[int]]:
    """Links (from unit `i` to `i + 1`) that share no unit."""
    if units == 2:
        return [[0]]
    even, odd = list(range(0, units - units % 2, 2)), list(range(1, units, 2))
    return [even, odd] if units % 2 == 0 else [even, [link for link in odd if link != units - 1], [units - 1]]


def _other(link: int, unit: int, units: int) -> int:
    return (link + 1) % units if unit == link else link


def slowest(bandwidths: Sequence[float], names: Sequence[str]) -> Slow:
    """Of links in a ring: the node whose both links are slow, or the two of the slowest link."""
    units = len(names)
    if units == 2:
        return Slow(tuple(names), bandwidths[0])
    link = bandwidths.index(min(bandwidths))
    here, there = link, (link + 1) % units
    limit = statistics.median(bandwidths) / 2
    before, after = bandwidths[link - 1], bandwidths[there]  # the other link of each of the two
    if before < limit <= after:
        return Slow((names[here],), bandwidths[link])
    if after < limit <= before:
        return Slow((names[there],), bandwidths[link])
    return Slow((names[here], names[there]), bandwidths[link])


def _timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - began
