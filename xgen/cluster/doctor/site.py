"""What SLURM says of itself, against the profile and a spec: every detector, in reading order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.gpus import find_isolation, find_request
from xgen.cluster.doctor.limits import find_array, find_kill_wait, find_node_size, find_partitions, find_time_limit
from xgen.cluster.doctor.need import Need
from xgen.cluster.doctor.preemption import find_grace, find_mode, find_requeue, find_signal
from xgen.cluster.doctor.records import find_accounting, find_private_data
from xgen.cluster.site import Site
from xgen.spec import Profile

_DETECTORS: tuple[Callable[[Site, Profile, Sequence[Need]], Iterator[Finding]], ...] = (
    find_partitions,
    find_time_limit,
    find_signal,
    find_mode,
    find_requeue,
    find_grace,
    find_kill_wait,
    find_request,
    find_isolation,
    find_node_size,
    find_array,
    find_accounting,
    find_private_data,
)


def judge_site(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """A fact that SLURM did not tell is no finding."""
    for detector in _DETECTORS:
        yield from detector(site, profile, needs)
