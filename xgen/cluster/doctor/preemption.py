"""Preemption: whether a job that is preempted hears of it, how long it has, and what becomes of it then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.need import Need
from xgen.cluster.site import Preemption, Site, SitePartition, preemption
from xgen.cluster.site.preemption import hears_of_it
from xgen.spec import Partition, Profile
from xgen.spec.units import format_duration

_SIGNAL = "preempt_send_user_signal"
_SUSPENDS = ("SUSPEND", "GANG")


def find_signal(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """Without it a preempted job gets SIGTERM, to which srun answers by killing the tasks."""
    del needs
    unsure = _is_by_qos(site)  # of a job, which may have another than we know
    found = _preempted(site, profile)
    names = [part.name for part, own, by in found if _ends(by) or (unsure and own.preemptible and by is None)]
    if not names or "SlurmctldParameters" not in site.config:
        return
    words = site.words("SlurmctldParameters")
    if hears_of_it(site):
        yield Finding("preemption signal", "ok", f"{_SIGNAL} is set, for {', '.join(names)}")
        return
    yield Finding(
        "preemption signal",
        "failed",
        f"SlurmctldParameters={','.join(words) or '(nothing)'}: a job that is preempted in {', '.join(names)} is never "
        "told to save",
        f"slurm.conf: SlurmctldParameters={','.join((*words, _SIGNAL))}, then scontrol reconfigure",
    )


def find_mode(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """Who is preempted, as the profile says it, and whether SLURM requeues it."""
    good = []
    for part, own, by in _preempted(site, profile):
        if by is None and own.preemptible and not _is_by_qos(site):
            yield Finding(
                "preemption mode",
                "warning",
                f"nobody can preempt jobs in {part.name} (PreemptMode={part.preempt_mode}, "
                f"PreemptType={site.config.get('PreemptType') or 'none'})",
                f"profile: partitions.{part.name}: remove preemptible and grace; or slurm.conf: PreemptMode=REQUEUE",
            )
        elif by and by.mode in _SUSPENDS:
            yield Finding(
                "preemption mode",
                "warning",
                f"PreemptMode={by.mode}: jobs in {part.name} stop where they are while {', '.join(by.by)} has jobs, "
                "and keep the memory of their GPUs",
                _line(part, "PreemptMode=REQUEUE"),
            )
        elif by and not own.preemptible:
            yield Finding(
                "preemption mode",
                "failed",
                f"jobs in {part.name} are preempted ({by.mode}) by those of {', '.join(by.by)}, and the profile does "
                "not say so: nothing is checked against the grace",
                f"profile: partitions.{part.name}: {{preemptible: true, grace: {format_duration(by.grace)}}}",
            )
        elif by and (wrong := _wrong_mode(part, by, profile, needs)):
            yield wrong
        elif by:
            good.append(f"{part.name}: {by.mode} by {', '.join(by.by)}")
    if good:
        yield Finding("preemption mode", "ok", "; ".join(good))


def _wrong_mode(part: SitePartition, by: Preemption, profile: Profile, needs: Sequence[Need]) -> Finding | None:
    line = _line(part, "PreemptMode=REQUEUE")
    if by.mode != "CANCEL" or not _by_requeue(part.name, profile, needs):
        return None
    said = f"PreemptMode=CANCEL: a preempted job in {part.name} is not requeued, and the restart policy is by requeue"
    if by.grace:  # the batch script lives long enough to submit a successor
        return Finding("preemption mode", "warning", said, f"{line}; or profile: restart_by: successor")
    without = "; without a grace nobody is left who could submit a successor"
    return Finding("preemption mode", "failed", said + without, f"{line}; or a GraceTime and restart_by: successor")


def find_requeue(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    value = site.config.get("JobRequeue")
    if value not in ("0", "1") or not _by_requeue(None, profile, needs):
        return
    if value == "1":
        yield Finding("requeue", "ok", "JobRequeue=1")
        return
    yield Finding(
        "requeue",
        "warning",
        "JobRequeue=0, and the restart policy is by requeue: it rests on the --requeue of each job, which a filter of "
        "the site (JobSubmitPlugins) may take away",
        "slurm.conf: JobRequeue=1, then scontrol reconfigure; or profile: restart_by: successor",
    )


def find_grace(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    good = []
    for part, own, by in _preempted(site, profile):
        if by is None or not _ends(by) or not own.preemptible:
            continue
        there, said = format_duration(by.grace), format_duration(own.grace)
        longest = max((n for n in needs if n.partition == part.name), key=lambda n: n.stop_seconds, default=None)
        stop = longest.stop_seconds if longest else 0.0
        where = "the QOS" if by.by_qos else f"partition {part.name}"
        line = f"GraceTime of {where}" if by.by_qos else f"slurm.conf: PartitionName={part.name} … GraceTime"
        profile_line = f"profile: partitions.{part.name}.grace: {there}"
        if by.grace < own.grace and longest and by.grace < stop:
            wanted = max(math.ceil(stop), own.grace)
            yield Finding(
                "grace",
                "failed",
                f"GraceTime={by.grace:g} in {where}; {longest.name} takes {math.ceil(stop)} s to stop, and the profile "
                f"promises {said}",
                f"{line}={wanted}, then scontrol reconfigure; or {profile_line}",
            )
        elif by.grace < own.grace:
            yield Finding(
                "grace",
                "failed",
                f"GraceTime={by.grace:g} in {where}, and the profile promises {said}: a save is killed",
                f"{line}={own.grace}, then scontrol reconfigure; or {profile_line}",
            )
        elif longest and by.grace < stop:
            yield Finding(
                "grace",
                "warning" if by.grace == 0 else "failed",
                f"GraceTime={by.grace:g} in {where}, and {longest.name} takes {math.ceil(stop)} s to stop: only "
                "periodic checkpoints protect it",
                f"{line}={math.ceil(stop)}, then scontrol reconfigure; or another partition",
            )
        elif by.grace > own.grace:
            yield Finding(
                "grace", "warning", f"GraceTime={by.grace:g} in {where}, and the profile counts on {said}", profile_line
            )
        else:
            stops = f", {longest.name} stops in {math.ceil(stop)} s" if longest and stop else ""
            good.append(f"{part.name}: {there}{stops}")
    if good:
        yield Finding("grace", "ok", "; ".join(good))


def _line(part: SitePartition, setting: str) -> str:
    return f"slurm.conf: PartitionName={part.name} … {setting}, then scontrol reconfigure"


def _ends(by: Preemption | None) -> bool:
    """Whether preemption ends a job."""
    return by is not None and by.mode not in _SUSPENDS


def _is_by_qos(site: Site) -> bool:
    return site.config.get("PreemptType", "").endswith("/qos")


def _by_requeue(partition: str | None, profile: Profile, needs: Sequence[Need]) -> bool:
    """Whether a job goes on by a requeue: of the spec in that partition, else of any."""
    own = [need.restart_by for need in needs if partition in (None, need.partition)]
    return "requeue" in (own or [profile.restart_by])


def _preempted(site: Site, profile: Profile) -> Iterator[tuple[SitePartition, Partition, Preemption | None]]:
    """Partitions of the profile that there are."""
    for part in site.partitions:
        if part.name in profile.partitions:
            yield part, profile.partitions[part.name], preemption(site, part)
