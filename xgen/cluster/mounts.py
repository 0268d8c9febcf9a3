"""What of the host is in the container."""

from __future__ import annotations

from xgen.runs import RunDir
from xgen.spec import Job, Mount, Pretrain, Profile


def all_mounts(job: Job, profile: Profile, run: RunDir) -> tuple[Mount, ...]:
    """What every job needs (its run directory with the code in it read-only, the folder in which it announces itself
    to Prometheus, the token stores that it reads), then what the cluster needs, then the spec's own; the last word on a
    target counts."""
    needed = [
        Mount(source=str(run.path)),
        Mount(source=str(run.code_dir), read_only=True),
        Mount(source=str(run.discovery_file.parent)),
    ]
    if isinstance(job, Pretrain):
        needed += [Mount(source=folder, read_only=True) for folder in job.data.folders.values()]
    by_target = {m.place: m for m in (*needed, *profile.container.mounts, *job.container.mounts)}
    return tuple(by_target.values())
