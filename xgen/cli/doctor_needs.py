"""What a spec needs of a site, for `xgen doctor`: the plan's numbers, in the doctor's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xgen.cluster.doctor.finding import Finding, What
    from xgen.cluster.doctor.need import Need
    from xgen.spec import LoadedJob, Profile


def needs_of(loaded: LoadedJob, profile: Profile) -> list[Need]:
    """Of each of its jobs; the spec makes sense with the profile."""
    from xgen.cluster.doctor.need import Need
    from xgen.plan import plans
    from xgen.spec import Trained

    job = loaded.job
    kept = job.checkpoint.keep + 1 if isinstance(job, Trained) else 1  # and the one that is being written
    needs = []
    for number, numbers in enumerate(plans(job, profile)):
        name, resources = job.jobs[number]
        array = job.array_of(number)
        needs.append(
            Need(
                name=f"{job.name} {name}".strip(),
                partition=resources.partition or profile.default_partition,
                nodes=resources.nodes,
                gpus_per_node=resources.gpus_per_node,
                cpus_per_node=resources.cpus_per_task * resources.tasks_per_node,
                memory=resources.memory,
                time=resources.time,
                stop_seconds=numbers.stop_seconds,
                save_seconds=numbers.save_seconds,
                checkpoint_bytes=numbers.checkpoint_bytes * kept * numbers.num_runs,
                shards=array.shards if array else 0,
                shm=job.container.shm or 0,
                account=profile.account_of(job.project),
                restart_by=job.restart.by or profile.restart_by,
            )
        )
    return needs


def find_in_spec(loaded: LoadedJob, profile: Profile) -> Iterator[Finding]:
    """What `xgen submit` would refuse before it asks SLURM."""
    from xgen.cluster.doctor.finding import Finding
    from xgen.plan import check

    problems = check(loaded, profile)
    for problem in problems:
        yield _failed("spec", str(problem))
    if not problems:
        yield Finding("spec", "ok", f"{loaded.job.name} makes sense with the profile")


def find_images(loaded: LoadedJob | None, image: str | None, profile: Profile) -> tuple[list[str], list[Finding]]:
    """Paths of the images that nodes must read, and those that are not even here."""
    from xgen.cluster.doctor.finding import Finding
    from xgen.cluster.runtimes import RUNTIMES
    from xgen.images.resolve import resolve_image

    formats = RUNTIMES[profile.container.runtime].formats
    job = loaded.job if loaded else None
    names = [job.image_of(stage) for stage in range(len(job.jobs))] if job else []
    places, findings = list[str](), list[Finding]()
    for name in dict.fromkeys(filter(None, [image, *names])) if formats else ():
        try:
            found = resolve_image(name, profile.container.image_dir, formats, lambda _: "")
        except ValueError as error:
            findings.append(_failed("image", str(error)))
            continue
        if found.kind != "registry":  # which the nodes fetch
            places.append(found.location)
    return places, findings


def _failed(what: What, message: str) -> Finding:
    """Of a message that ends as ours do: `…; what to do`."""
    from xgen.cluster.doctor.finding import Finding

    said, _, fix = message.rpartition("; ")
    return Finding(what, "failed", said or message, fix if said else "mend what it names")
